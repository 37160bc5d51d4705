"""The private names of torch and Lightning in the package, tried with torch 2.6 and 2.14, and lightning 2.6."""

import ast
from importlib import import_module
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad

import polyloss_lightning
from polyloss_lightning import Poly1CrossEntropyLoss, override_losses
from polyloss_lightning.callbacks.trainer.progress import logs_are_due
from polyloss_lightning.core import loss as core_loss

# What happens without the name. In parentheses: what its documentation offers to subclasses, which no version changes.
NAMES = {
    "torch._C._skip_one_hop_torch_function": "torch 2.6 lacks it: only Tensor.backward is intercepted",
    "torch._C._autograd._get_current_graph_task_keep_graph": "torch 2.6 lacks it: more memory in the backward pass",
    "torch._C._functorch.is_legacy_batchedtensor": "a backward pass for a batch of gradients fails",
    "torch._C._functorch.is_functorch_wrapped_tensor": "losses are not followed into torch.func",
    "torch._C._functorch.get_unwrapped": "losses are not followed into torch.func",
    "torch._C._dynamo.eval_frame.set_eval_frame": "code after a loss in a compiled function is not looked into",
    "torch._dynamo.decorators.skip_code": "torch functions called between two graphs are compiled one by one",
    "torch._dynamo.utils.counters": "exponentials that compiled code takes only later are not noticed",
    "torch._C.DisableTorchFunction": "an override around another one lists a call too much",
    "torch._C._current_graph_task_id": "losses that are recomputed in a backward pass are counted twice",
    "torch._C._are_functorch_transforms_active": "losses take the formula instead of the closed form",
    "torch._C._get_tracing_state": "losses take the formula instead of the closed form",
    "torch.autograd.forward_ad._current_level": "losses take the formula instead of the closed form",
    "torch.utils._python_dispatch.is_in_torch_dispatch_mode": "a few operations more in each loss",
    "torch.UntypedStorage._cdata": "empty tensors are taken for one",
    "torch.utils._python_dispatch.TorchDispatchMode": "(extending torch)",
    "torch.nn.Module._modules": "(subclasses of modules)",
    "torch.nn.Module._load_from_state_dict": "(subclasses of modules)",
    "torch.nn.Module._apply": "(subclasses of modules)",
    "torch.optim.lr_scheduler.SequentialLR._schedulers": "the learning rates of a schedule of schedules are refused",
    "torchmetrics.Metric._plot": "(metrics that plot)",
    "torchmetrics.utilities.plot._AX_TYPE": "used by type checkers alone",
    "torchmetrics.utilities.plot._PLOT_OUT_TYPE": "used by type checkers alone",
    "lightning.pytorch.Callback._generate_state_key": "(subclasses of callbacks)",
    "lightning.pytorch.Trainer._logger_connector": "every step is logged instead of every log_every_n_steps",
    "lightning.pytorch.LightningModule._trainer": "predictions warn of an epsilon that differs, too",
    "lightning.pytorch.cli._InstantiatorFn": "a checkpoint may name arguments that the class does not have",
    "lightning.pytorch.cli.LightningCLI._add_instantiators": "as above",
    "lightning.pytorch.cli.LightningCLI._model_class": "as above",
    "lightning.pytorch.cli.LightningCLI._run_subcommand": "a mistake that comes out in a run has a traceback",
    "lightning.pytorch.cli.LightningCLI._subcommand_parsers": "an error names no subcommand",
    "fsspec.AbstractFileSystem._parent": "(file systems of one's own)",
}
MAY_BE_MISSING = {"torch._C._skip_one_hop_torch_function", "torch._C._autograd._get_current_graph_task_keep_graph"}
# Attributes of instances, which the class does not have, and names that are used as strings.
OF_INSTANCES = {
    "_modules",
    "_trainer",
    "_schedulers",
    "_logger_connector",
    "_model_class",
    "_subcommand_parsers",
    "_cdata",
}
PYTHON = {"_getframe", "_asdict", "_fields", "_replace", "_make"}


def resolve(name):
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            value = getattr(value, part)
        return value
    raise AttributeError(name)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in MAY_BE_MISSING])
def test_a_private_name_is_there(name):
    if name.rpartition(".")[2] not in OF_INSTANCES:
        resolve(name)


def is_private(name):
    return name.startswith("_") and not name.startswith("__") and len(name) > 1


def foreign_names(tree, own):
    """Private names in the code, but not those that the package defines (unless it calls ``super()._name``)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.module.startswith("polyloss_lightning"):
            yield from (part for part in [*node.module.split("."), *(alias.name for alias in node.names)])
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            of_super = isinstance(node.value, ast.Call) and getattr(node.value.func, "id", "") == "super"
            if of_super or node.attr not in own:
                yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "delattr"):
            yield from (one.value for one in node.args[1:2] if isinstance(one, ast.Constant) and one.value not in own)


def test_every_private_name_of_torch_and_lightning_in_the_source_is_listed():
    trees = [ast.parse(path.read_text()) for path in Path(polyloss_lightning.__file__).parent.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    own = {node.attr for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    used = {name for tree in trees for name in foreign_names(tree, own) if is_private(name)}
    listed = {part for name in NAMES for part in name.split(".") if is_private(part)}
    assert used - PYTHON == listed


@pytest.mark.parametrize(
    ("holder", "name"),
    [
        (core_loss, "_tracing_state"),
        (core_loss, "in_functorch"),
        (torch._C, "_current_graph_task_id"),
        (torch._C, "DisableTorchFunction"),
        (torch._C, "_functorch"),
        (forward_ad, "_current_level"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_without_a_private_name_of_torch_losses_and_their_replacement_stay_right(monkeypatch, holder, name):
    if holder is core_loss:  # which has taken these names, or what replaces them, when it was imported
        monkeypatch.setattr(core_loss, name, lambda: True)
    else:
        monkeypatch.delattr(holder, name)
    logits, target = torch.randn(8, 3, requires_grad=True), torch.arange(8) % 3
    pt = logits.softmax(1)[range(8), target]
    value = (-pt.log() + 2 * (1 - pt)).mean()
    (gradient,) = torch.autograd.grad(value, logits)
    expected = pytest.approx(float(value.detach()))
    loss = Poly1CrossEntropyLoss(2.0)(logits, target)
    assert float(loss.detach()) == expected
    assert torch.autograd.grad(loss, logits)[0].allclose(gradient, atol=1e-6)
    with override_losses(2.0) as override:
        replaced = F.cross_entropy(logits, target)
        replaced.backward()
    assert float(replaced.detach()) == expected
    assert logits.grad.allclose(gradient, atol=1e-6)
    assert [site.calls for site in override.call_sites] == [1]


def test_without_the_private_name_of_lightning_every_step_is_logged():
    assert logs_are_due(object()) is True
