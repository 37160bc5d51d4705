"""The private names of torch and Lightning that the package uses, tried with torch 2.6 and 2.14, lightning 2.6."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import polyloss_lightning

# What happens without the name; "required" if nothing else does the same: an import or a step fails at once.
NAMES = {
    "torch._C._skip_one_hop_torch_function": "older versions lack it: only Tensor.backward is intercepted",
    "torch._C._autograd._get_current_graph_task_keep_graph": "the gradient is multiplied out of place",
    "torch._C._functorch.is_functorch_wrapped_tensor": "losses are not followed into torch.func",
    "torch._C._functorch.get_unwrapped": "losses are not followed into torch.func",
    "torch._C._dynamo.eval_frame.set_eval_frame": "code after a loss in a compiled function is not looked into",
    "torch._dynamo.decorators.skip_code": "torch functions called between two graphs are compiled one by one",
    "torch._dynamo.utils.counters": "exponentials that compiled code takes only later are not noticed",
    "torch._C.DisableTorchFunction": "required",
    "torch._C._current_graph_task_id": "required",
    "torch._C._are_functorch_transforms_active": "required",
    "torch._C._get_tracing_state": "required",
    "torch.utils._python_dispatch.TorchDispatchMode": "required",
    "torch.utils._python_dispatch.is_in_torch_dispatch_mode": "required",
    "torch.autograd.forward_ad._current_level": "required",
    "torch.nn._reduction.legacy_get_string": "required",
    "torch.UntypedStorage._cdata": "required",
    "lightning.pytorch.Callback._generate_state_key": "required",
}
MAY_BE_MISSING = {"torch._C._skip_one_hop_torch_function", "torch._C._autograd._get_current_graph_task_keep_graph"}


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


@pytest.mark.parametrize("name", sorted(set(NAMES) - MAY_BE_MISSING))
def test_a_private_name_is_there(name):
    resolve(name)


def test_every_private_name_of_torch_in_the_source_is_listed():
    source = "\n".join(path.read_text() for path in Path(polyloss_lightning.__file__).parent.rglob("*.py"))
    used = set(re.findall(r"\btorch(?:\.\w+)*\.(_[A-Za-z]\w*(?:\.\w+)*)", source))
    listed = {name.removeprefix("torch.") for name in NAMES}
    missing = {name for name in used if not any(name in one for one in listed)}
    assert missing == set()
