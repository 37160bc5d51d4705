"""Limiting the replacement of losses to some modules of a model."""

import fnmatch
import sys
from collections.abc import Sequence

from torch import nn

from polyloss_lightning.interception.call_sites import stack


class Scope:
    """A set of modules, given by paths or glob patterns. Code that runs inside one of these modules is in the scope.

    A call is inside of a module if one of the module's methods is on the Python stack, no matter how the method was
    called. No hook is registered on any module.

    Args:
        patterns: paths as returned by ``named_modules``, in which ``*`` and ``?`` match any characters.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        given: object = patterns  # a value from YAML may not match the annotation
        if not isinstance(given, Sequence) or isinstance(given, str) or not all(isinstance(one, str) for one in given):
            raise TypeError(f"`scope` must be None or a list of module paths or globs, got {patterns!r}")
        if not patterns:
            raise ValueError("`scope` must contain at least one module path, got an empty list")
        self.patterns = tuple(patterns)
        self._inside: dict[int, str] = {}

    def resolve(self, module: nn.Module) -> None:
        """Find the modules of ``module`` that match the patterns, or raise ``ValueError`` if one matches no module."""
        paths = {without_wrappers(path): part for path, part in module.named_modules(remove_duplicate=False)}
        self._inside = {}
        for pattern in self.patterns:
            matches = fnmatch.filter(paths, pattern)
            if not matches:
                nearest = sorted(filter(None, paths), key=lambda path: (path.count("."), path))  # to the root
                some = ", ".join(map(repr, nearest[:12])) + (", ..." if len(nearest) > 12 else "")
                raise ValueError(f"`scope` {pattern!r} matches no module of {type(module).__name__}: it has {some}")
            self._inside |= {id(paths[path]): path for path in matches}

    def running(self) -> bool:
        """Return whether a method of a module in the scope is running."""
        for frame in stack(sys._getframe()):
            code = frame.f_code
            if not code.co_argcount:
                continue
            # After a graph break, torch.compile continues in a generated function, with its arguments in another order.
            resumed = code.co_name.startswith("torch_dynamo_resume")
            if id(frame.f_locals.get("self" if resumed else code.co_varnames[0])) in self._inside:
                return True
        return False

    def __str__(self) -> str:
        return ", ".join(self.patterns)


def without_wrappers(path: str) -> str:
    """Return ``path`` as in the user's code, without the ``_orig_mod`` levels that ``torch.compile`` inserts."""
    return ".".join(part for part in path.split(".") if part != "_orig_mod")
