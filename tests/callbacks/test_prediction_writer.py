import csv

import pytest
import torch
import torch.multiprocessing as mp
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from polyloss_lightning.callbacks import PredictionWriter

PROBABILITIES = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.0, 0.9, 0.1]])
TARGETS = torch.tensor([0, 1, 1, 2, 0])


class Model(LightningModule):
    """Returns its input."""

    def __init__(self, task="multiclass"):
        super().__init__()
        self.layer, self.task = torch.nn.Linear(1, 1), task

    def predict_step(self, batch, batch_idx, dataloader_idx=0):
        return batch[0] if isinstance(batch, (list, tuple)) else batch


class Files(TensorDataset):
    samples = tuple((f"{k}.png", None) for k in range(5))


def predict(path, writer, loader, model=None, **kwargs):
    trainer = Trainer(
        logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", default_root_dir=path,
        callbacks=[writer], **kwargs,
    )  # fmt: skip
    trainer.predict(model or Model(), loader, return_predictions=False)
    with open(writer.written, newline="") as file:
        return list(csv.reader(file))


def test_one_row_per_sample_with_every_probability(tmp_path):
    writer = PredictionWriter(class_names=["cat", "dog", "owl"])
    header, *rows = predict(tmp_path, writer, DataLoader(TensorDataset(PROBABILITIES, TARGETS), batch_size=2))
    assert writer.written == str(tmp_path / "predictions.csv")
    assert header == ["index", "predicted", "target", "probability_cat", "probability_dog", "probability_owl"]
    assert [row[:3] for row in rows] == [
        ["0", "cat", "cat"],
        ["1", "owl", "dog"],
        ["2", "dog", "dog"],
        ["3", "cat", "owl"],
        ["4", "dog", "cat"],
    ]
    values = torch.tensor([[float(cell) for cell in row[3:]] for row in rows])
    torch.testing.assert_close(values, PROBABILITIES)


def test_only_the_most_probable_classes_are_written(tmp_path):
    writer = PredictionWriter(tmp_path / "new" / "top.csv", top_k=2)
    header, *rows = predict(tmp_path, writer, DataLoader(PROBABILITIES, batch_size=2))
    assert header == ["index", "predicted", "class_1", "probability_1", "class_2", "probability_2"]
    assert rows[1] == ["1", "2", "2", "0.6", "1", "0.3"]


def test_rows_are_in_the_order_of_the_data_set_with_its_files(tmp_path):
    loader = DataLoader(Subset(Files(PROBABILITIES), [4, 0, 2]), batch_size=2)
    header, *rows = predict(tmp_path, PredictionWriter(), loader)
    assert header[0] == "file"
    assert [row[:2] for row in rows] == [["4.png", "1"], ["0.png", "0"], ["2.png", "1"]]


def test_labels_with_a_probability_of_at_least_one_half_are_predicted(tmp_path):
    loader = DataLoader(TensorDataset(PROBABILITIES, (PROBABILITIES > 0.25).float()), batch_size=5)
    _, *rows = predict(tmp_path, PredictionWriter(class_names=["a", "b", "c"]), loader, Model("multilabel"))
    assert [row[1:3] for row in rows] == [["a", "a"], ["c", "b;c"], ["b", "b;c"], ["a", "a;c"], ["b", "b"]]


def test_another_threshold_predicts_other_labels(tmp_path):
    writer = PredictionWriter(class_names=["a", "b", "c"], threshold=0.25)
    _, *rows = predict(tmp_path, writer, DataLoader(PROBABILITIES, batch_size=5), Model("multilabel"))
    assert [row[1] for row in rows] == ["a", "b;c", "b;c", "a;c", "b"]
    with pytest.raises(ValueError, match=r"`threshold` must be between 0 and 1, got 1\.5"):
        PredictionWriter(threshold=1.5)


@pytest.mark.filterwarnings("ignore:Couldn't infer the batch indices")
def test_an_iterable_data_set_is_numbered(tmp_path):
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(PROBABILITIES)

    _, *rows = predict(tmp_path, PredictionWriter(), DataLoader(Stream(), batch_size=2))
    assert [row[0] for row in rows] == list("01234")


@pytest.mark.parametrize(
    ("output", "error", "named"),
    [
        (torch.tensor([[3.0, -1.0]]), ValueError, "got values from -1 to 3: apply softmax or sigmoid"),
        (torch.tensor([0.5]), TypeError, r"probabilities of shape \(N, C\), got a tensor of shape \(1,\)"),
        ({"logits": 1}, TypeError, r"got \{'logits': 1\}"),
    ],
)
def test_predictions_that_are_not_probabilities_are_an_error(tmp_path, output, error, named):
    model = Model()
    model.predict_step = lambda batch, batch_idx: output
    with pytest.raises(error, match=named):
        predict(tmp_path, PredictionWriter(), DataLoader(PROBABILITIES[:1]), model)


@pytest.mark.parametrize("container", [list, lambda loaders: dict(zip("ab", loaders, strict=True))])
def test_the_rows_of_several_dataloaders_can_be_told_apart(tmp_path, container):
    loaders = [DataLoader(Files(PROBABILITIES[:2])), DataLoader(Files(PROBABILITIES[2:4]))]
    header, *rows = predict(tmp_path, PredictionWriter(), container(loaders))
    assert header[:3] == ["dataloader", "file", "predicted"]
    assert [row[:3] for row in rows] == [
        ["0", "0.png", "0"],
        ["0", "1.png", "2"],
        ["1", "0.png", "1"],
        ["1", "1.png", "0"],
    ]


def test_samples_without_a_file_keep_their_index_next_to_samples_with_one(tmp_path):
    loaders = [DataLoader(Files(PROBABILITIES[:1])), DataLoader(PROBABILITIES[:2])]
    header, *rows = predict(tmp_path, PredictionWriter(), loaders)
    assert header[:3] == ["dataloader", "file", "index"]
    assert [row[:3] for row in rows] == [["0", "0.png", "0"], ["1", "", "0"], ["1", "", "1"]]


def test_a_target_that_is_no_class_index_is_left_out(tmp_path):
    data = TensorDataset(PROBABILITIES, torch.full((5,), 0.7))
    header, *_ = predict(tmp_path, PredictionWriter(), DataLoader(data, batch_size=2))
    assert header[:3] == ["index", "predicted", "probability_0"]


@pytest.mark.parametrize("path", [None, "predictions.csv"])
@pytest.mark.parametrize("same", [True, False])
def test_two_writers_of_one_file_are_an_error(tmp_path, path, same):
    writer = PredictionWriter(path)
    other = writer if same else PredictionWriter(path)
    trainer = Trainer(logger=False, accelerator="cpu", default_root_dir=tmp_path, callbacks=[writer, other])
    with pytest.raises(ValueError, match=r"several PredictionWriters .* write the same file, predictions\.csv"):
        trainer.predict(Model(), DataLoader(PROBABILITIES))


def test_two_writers_write_two_files(tmp_path):
    writers = [PredictionWriter(tmp_path / "all.csv"), PredictionWriter(tmp_path / "top.csv", top_k=1)]
    trainer = Trainer(logger=False, accelerator="cpu", default_root_dir=tmp_path, callbacks=writers)
    trainer.predict(Model(), DataLoader(PROBABILITIES))
    assert [len((tmp_path / name).read_text().splitlines()) for name in ("all.csv", "top.csv")] == [6, 6]


def test_a_folder_as_the_path_is_an_error_before_the_first_batch(tmp_path):
    model = Model()
    model.predict_step = lambda batch, batch_idx: pytest.fail("a batch was predicted")
    with pytest.raises(IsADirectoryError, match="must be that of a file, got the folder"):
        predict(tmp_path, PredictionWriter(tmp_path), DataLoader(PROBABILITIES), model)


@pytest.mark.parametrize("top_k", [0, -1])
def test_a_number_of_classes_below_one_is_named(top_k):
    with pytest.raises(ValueError, match=f"`top_k` must be None or an integer of at least 1, got {top_k}"):
        PredictionWriter(top_k=top_k)


def _in_two_processes(rank, folder):
    import os

    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29567", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    os.environ |= {"WORLD_SIZE": "2"}
    loader = DataLoader(TensorDataset(PROBABILITIES, TARGETS), batch_size=2)
    writer = PredictionWriter(folder / "predictions.csv")
    trainer = Trainer(
        logger=False, enable_progress_bar=False, enable_model_summary=False, accelerator="cpu", devices=2,
        strategy="ddp", default_root_dir=folder, callbacks=[writer], use_distributed_sampler=True,
    )  # fmt: skip
    trainer.predict(Model(), loader, return_predictions=False)


def test_two_processes_write_every_row_once_and_in_order(tmp_path):
    mp.spawn(_in_two_processes, args=(tmp_path,), nprocs=2)
    with (tmp_path / "predictions.csv").open(newline="") as file:
        _, *rows = csv.reader(file)
    assert ["".join(row[:3]) for row in rows] == ["000", "121", "211", "302", "410"]
