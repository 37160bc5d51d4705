"""The split of one set of samples into parts, as a checkpoint contains it."""

from collections.abc import Mapping

from lightning.pytorch.utilities import rank_zero_warn


def warn_of_another_split(saved: Mapping[str, float], own: Mapping[str, float]) -> None:
    """Warn if the arguments that determined the parts of the run of a checkpoint differ from those of this run."""
    if saved != own:
        before, now = (", ".join(f"{key} {value:g}" for key, value in one.items()) for one in (saved, own))
        rank_zero_warn(
            f"the checkpoint was trained on another split ({before}, and not {now}), whose training images may be in "
            "the validation and test parts of this one: pass the same values"
        )
