"""Whether more than eager reverse-mode autograd takes part in a computation."""

import torch
from torch.autograd import forward_ad

try:
    from torch.utils._python_dispatch import is_in_torch_dispatch_mode
except ImportError:

    def is_in_torch_dispatch_mode(include_infra_modes: bool = False) -> bool:
        """Return whether a ``TorchDispatchMode`` sees every operation; True if that cannot be found out."""
        return True


__all__ = ["is_in_torch_dispatch_mode", "is_transformed"]


def is_transformed() -> bool:
    """Return whether ``torch.jit`` is tracing, a transform of ``torch.func`` is active, or forward mode is."""
    # A version of torch without one of these private names takes the formula, which is right everywhere.
    tracing_state = getattr(torch._C, "_get_tracing_state", lambda: "unknown")()
    in_functorch = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)()
    return tracing_state is not None or in_functorch or getattr(forward_ad, "_current_level", 0) >= 0
