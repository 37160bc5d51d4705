"""One thread, one seed a test: what a test shows must not depend on the machine or on the order of tests."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, and by the subprocesses of tests

import pytest
import torch
from hypothesis import settings

from polyloss_lightning.core import blocks

PARTS = ("LossProvider", "PolynomialTermMonitor", "EpsilonScheduler", "PolyLossOverride")


def pytest_addoption(parser):
    text = "compute losses by this path only: the formula, or the closed form in blocks of a few elements"
    parser.addoption("--path", choices=("formula", "blocks"), help=text)
    parser.addoption("--conditions", action="store_true", help="print the marks `condition` of the tests, one per line")


def pytest_configure(config):
    line = "condition(parts, name, refused=None, read=False): a condition under which a part, or each of several, is "
    config.addinivalue_line(
        "markers", line + "tested, or refused for this reason; read: Lightning's code was read, because it needs a GPU"
    )
    config.addinivalue_line("markers", "slow: a test of `nox -s long`, which other sessions leave out")
    config.addinivalue_line("markers", "closed_form: a test of what the formula does not promise, such as its memory")


def pytest_collection_finish(session):
    """Print what the documentation makes its table of conditions from."""
    if not session.config.getoption("--conditions"):
        return
    for item in session.items:
        for mark in item.iter_markers("condition"):
            parts, name = mark.args
            how = "read" if mark.kwargs.get("read") else "tested"
            for part in [parts] if isinstance(parts, str) else parts:
                assert part in PARTS, f"{item.nodeid}: {part!r} is not one of {PARTS}"
                print("condition", part, name, mark.kwargs.get("refused") or "", how, item.nodeid, sep="\t")


settings.register_profile("usual", max_examples=50, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)  # pytest --hypothesis-profile=thorough
settings.load_profile("usual")


@pytest.fixture(autouse=True)
def _one_thread_one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _path(request, monkeypatch):
    path = request.config.getoption("--path")
    if path == "blocks":
        monkeypatch.setattr(blocks, "SMALLEST", 7)
    elif path == "formula":
        of_closed_form = {"takes_closed_form", "peak"}.intersection(request.fixturenames)
        if of_closed_form or request.node.get_closest_marker("closed_form"):
            pytest.skip("holds only for the closed form")
        monkeypatch.setattr("polyloss_lightning.core.loss.has_closed_form", lambda *_: False)


@pytest.fixture(params=[1, 6])
def in_blocks(request, monkeypatch):
    """Blocks of few elements; a context that does without."""
    whole = blocks.SMALLEST
    monkeypatch.setattr(blocks, "SMALLEST", request.param)

    def without(function):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(blocks, "SMALLEST", whole)
            return function()

    return without


@pytest.fixture
def takes_closed_form():
    """Whether a loss was computed in closed form, as one autograd node."""
    return _takes_closed_form


def _takes_closed_form(loss):
    node = loss.grad_fn
    while node.next_functions and "ClosedForm" not in type(node).__name__:
        node = next(following for following, _ in node.next_functions if following)
    return "ClosedForm" in type(node).__name__
