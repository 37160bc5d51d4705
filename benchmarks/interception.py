"""What the loss override costs: per call of a torch function made under it, and as a share of a training step.

A ``TorchFunctionMode`` is on the path of every torch function that is called while the step runs, whatever it replaces.
Run as ``python benchmarks/interception.py``; one thread. Times of a call are the best of several rounds, those of a
step the median of 300; with and without are taken in turns.
"""

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from polyloss_lightning import Poly1CrossEntropyLoss, override_losses

ROUNDS = 15


def best(
    run: Callable[[], object], around: list[Callable[[], AbstractContextManager[object]]], calls: int
) -> list[float]:
    """Least seconds that a call takes in each of the contexts, in turns so that the machine is the same for all."""
    least = [float("inf")] * len(around)
    for _ in range(ROUNDS):
        for index, context in enumerate(around):
            with context():
                run()
                start = time.perf_counter()
                for _ in range(calls):
                    run()
                least[index] = min(least[index], (time.perf_counter() - start) / calls)
    return least


def torch_calls(step: Callable[[], object]) -> int:
    """Number of torch functions that a step calls at the outermost level."""
    counter = Counter()
    with counter:
        step()
    return counter.calls


class Counter(torch.overrides.TorchFunctionMode):
    """Counts what an override has on its path."""

    calls = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


class EmptyMode(torch.overrides.TorchFunctionMode):
    """Does nothing but call the function."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **kwargs) if kwargs else func(*args)


def per_call() -> None:
    """Microseconds that an override adds to single calls."""
    x, logits, target = torch.randn(4), torch.randn(8, 10, requires_grad=True), torch.randint(10, (8,))
    calls = {
        "x.shape (an attribute)": lambda: x.shape,
        "torch.add(x, x) (C++)": lambda: torch.add(x, x),
        "F.relu(x) (Python)": lambda: F.relu(x),
    }
    print(f"{'call':<44}{'without':>10}{'under it':>10}{'added':>10}   microseconds")
    for name, call in calls.items():
        with override_losses(on_nothing="warn") as override:
            F.cross_entropy(logits, target)  # so that the block is not empty
        plain, under = (1e6 * seconds for seconds in best(call, [nullcontext, override.intercepting], calls=10_000))
        print(f"{name:<44}{plain:>10.2f}{under:>10.2f}{under - plain:>10.2f}")
    poly = Poly1CrossEntropyLoss(2.0)
    (explicit,) = best(lambda: poly(logits, target), [nullcontext], calls=1_000)
    for name, scope in {"F.cross_entropy, replaced": None, "F.cross_entropy, replaced, with a scope": ["0"]}.items():
        model = nn.Sequential(nn.CrossEntropyLoss())
        override = override_losses(2.0, scope=scope, module=model)
        under = best(lambda model=model: model[0](logits, target), [override.intercepting], calls=1_000)[0]
        print(f"{name:<44}{1e6 * explicit:>10.2f}{1e6 * under:>10.2f}{1e6 * (under - explicit):>10.2f}")
    print("(of the last two, `without` is Poly1CrossEntropyLoss itself)\n")


def transformer_step() -> Callable[[], object]:
    """Forward and backward of a 12-layer transformer of width 64."""
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
    encoder, head = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False), nn.Linear(64, 10)
    x, target = torch.randn(8, 16, 64), torch.randint(10, (8,))
    return lambda: F.cross_entropy(head(encoder(x).mean(1)), target).backward()


def resnet_step() -> Callable[[], object]:
    """Forward and backward of a resnet18 on a batch of eight 32x32 images."""
    model, x, target = torchvision.models.resnet18(num_classes=10), torch.randn(8, 3, 32, 32), torch.randint(10, (8,))
    return lambda: F.cross_entropy(model(x), target).backward()


def compiled_steps() -> dict[str, Callable[[], object]]:
    """Training steps of a 12-layer transformer of width 256, compiled with its loss: as one graph, and with a break."""
    layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
    encoder, head = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False), nn.Linear(256, 10)
    x, target = torch.randn(4, 32, 256), torch.randint(10, (4,))
    uncompiled = torch.compiler.disable(F.cross_entropy)

    def step(loss: Callable[..., torch.Tensor]) -> Callable[[], object]:
        compiled = torch.compile(lambda x, target: loss(head(encoder(x).mean(1)), target))
        return lambda: compiled(x, target).backward()

    return {"one graph": step(F.cross_entropy), "graph break at the loss": step(uncompiled)}


def per_compiled_step() -> None:
    """Share of a compiled training step that a graph break at its loss takes, and that an override takes."""
    print(
        f"\n{'compiled: transformer, 12 layers of width 256':<48}{'step':>10}{'added':>10}{'share':>10}   milliseconds"
    )
    steps = compiled_steps()
    whole, broken = steps.values()
    under = within(override_losses(2.0).intercepting, whole)
    for step in (whole, broken, under):
        for _ in range(4):  # compiles; the first steps under an override run partly uncompiled
            step()
    seconds = in_turns([whole, broken, under])
    for name, taken in zip([*steps, "under the override"], seconds, strict=True):
        added = statistics.median(one - plain for one, plain in zip(taken, seconds[0], strict=True))
        plain = statistics.median(seconds[0])
        print(
            f"{name:<48}{1e3 * statistics.median(taken):>10.2f}{1e3 * added:>10.2f}{f'{100 * added / plain:.1f}%':>10}"
        )


def within(context: Callable[[], AbstractContextManager[object]], step: Callable[[], object]) -> Callable[[], object]:
    """Return ``step`` in a context of its own each time, as a Trainer runs it."""

    def run() -> None:
        with context():
            step()

    return run


def in_turns(steps: list[Callable[[], object]], rounds: int = 60) -> list[list[float]]:
    """Seconds of each step in each round."""
    seconds: list[list[float]] = [[] for _ in steps]
    for _ in range(rounds):
        for taken, step in zip(seconds, steps, strict=True):
            start = time.perf_counter()
            step()
            taken.append(time.perf_counter() - start)
    return seconds


def per_step() -> None:
    """Share of a training step (forward and backward) that an override takes, and an empty mode, which is the least."""
    print(f"{'step':<40}{'without':>10}{'empty mode':>12}{'under it':>10}{'share':>16}{'calls':>8}   milliseconds")
    for name, step in {
        "resnet18, batch 8, 32x32": resnet_step(),
        "transformer, 12 layers of width 64": transformer_step(),
    }.items():
        # One override, as in a Trainer: while a loss is new, it is followed further.
        contexts = [EmptyMode, override_losses(2.0).intercepting]
        steps = [step, *(within(context, step) for context in contexts)]
        in_turns(steps, rounds=10)
        seconds = in_turns(steps, rounds=300)
        plain, empty, under = (statistics.median(taken) for taken in seconds)
        ratios = [[one / of for one, of in zip(taken, seconds[0], strict=True)] for taken in seconds[1:]]
        shares = " and ".join(f"{100 * (statistics.median(each) - 1):.1f}%" for each in ratios)
        times = f"{1e3 * plain:>10.2f}{1e3 * empty:>12.2f}{1e3 * under:>10.2f}"
        print(f"{name:<40}{times}{shares:>16}{torch_calls(step):>8}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    torch.manual_seed(0)
    per_call()
    per_step()
    per_compiled_step()
