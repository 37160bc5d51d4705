"""What Comet and W&B are called with, by their documented signatures; tests/third_party runs both for real."""

from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

from polyloss_lightning.callbacks.monitor.logger_files import keeps_files, send_figures, send_record

FIGURES = {"terms": Figure(), "classes": Figure()}


class CometExperiment:
    def __init__(self):
        self.figures, self.assets = {}, {}

    def log_figure(self, figure_name=None, figure=None, overwrite=False, step=None):
        self.figures[figure_name] = (figure, step)

    def log_asset(self, file_data, file_name=None, overwrite=False, copy_to_tmp=True, step=None, metadata=None):
        self.assets[file_name] = file_data.read()


class WandbRun:
    id = "abc"

    def __init__(self):
        self.artifacts = {}

    def log_artifact(self, artifact_or_path, name=None, type=None, aliases=None, tags=None):
        with open(artifact_or_path) as file:
            self.artifacts[name, type] = file.read()


class Wandb(SimpleNamespace):
    def log_image(self, key, images, step=None):
        self.images[key] = images


@pytest.fixture
def record(tmp_path):
    (tmp_path / "poly_terms.jsonl").write_text("{}\n")
    return str(tmp_path / "poly_terms.jsonl")


def test_comet(record):
    experiment = CometExperiment()
    logger = SimpleNamespace(experiment=experiment)
    assert send_figures(logger, FIGURES, ["terms.png", "classes.png"], 7)
    assert experiment.figures == {f"poly/{name}": (figure, 7) for name, figure in FIGURES.items()}
    assert keeps_files(logger)
    send_record(logger, record)
    assert experiment.assets == {"poly_terms.jsonl": b"{}\n"}


def test_wandb(record):
    logger = Wandb(experiment=WandbRun(), images={})
    assert send_figures(logger, FIGURES, ["terms.png", "classes.png"], 7)
    assert logger.images == {"poly/terms": ["terms.png"], "poly/classes": ["classes.png"]}
    assert keeps_files(logger)
    send_record(logger, record)
    assert logger.experiment.artifacts == {("poly_terms-abc", "record"): "{}\n"}


def test_a_logger_of_numbers_alone_is_left_alone(record):
    logger = SimpleNamespace(experiment=object())
    assert not send_figures(logger, FIGURES, ["terms.png", "classes.png"], 7)
    assert not keeps_files(logger)
    send_record(logger, record)
