"""The last lines of ``polyloss fit``: what Poly-1 did, and the commands that follow."""

import shlex
from collections.abc import Sequence

from polyloss_lightning import _files
from polyloss_lightning.record import RECORD_NAME, EpochRecord, read_record


def next_commands(arguments: Sequence[str], ckpt_path: str) -> list[str]:
    """Return the command lines for testing and predicting with a checkpoint.

    Args:
        arguments: command line of the fit, without the name of the program.
        ckpt_path: path of the checkpoint.

    Example:
        >>> next_commands(["fit", "--config", "mine", "--trainer.max_epochs=3", "--ckpt_path", "old"], "a b.ckpt")
        ["polyloss test --config mine --ckpt_path 'a b.ckpt'",
         "polyloss predict --config mine --ckpt_path 'a b.ckpt'"]
    """
    kept: list[str] = []
    skip = False
    for argument in arguments[1:]:
        if argument.startswith("--"):
            # The starting checkpoint and the length of training do not apply to these commands.
            skip = argument.partition("=")[0] in ("--ckpt_path", "--trainer.max_epochs", "--trainer.max_steps")
        if not skip:
            kept.append(argument)
        skip = skip and "=" not in argument
    return [shlex.join(["polyloss", command, *kept, "--ckpt_path", ckpt_path]) for command in ("test", "predict")]


def poly_sentence(folder: str) -> str | None:
    """Return what Poly-1 did in the last training epoch of the record in ``folder``, or None if there is no record."""
    if not _files.exists(_files.join(folder, RECORD_NAME)):
        return None
    epochs = read_record(folder).select("train")
    return describe(epochs[-1]) if epochs else None


def describe(epoch: EpochRecord) -> str | None:
    r"""Return a sentence about one epoch, or None if nothing is known.

    For Poly-1 cross-entropy the gradient with respect to the target's logit is
    :math:`-(1 - P_t)(1 + \epsilon P_t)`, so epsilon scales its sum by
    :math:`\sum (1 - P_t)(1 + \epsilon P_t) / \sum (1 - P_t)`.

    Example:
        >>> metrics = {"first_term_share": 0.98, "pt": 0.5, "correction": 1.0, "term_1": 1.5, "term_2": 0.15}
        >>> describe(EpochRecord("train", "loss_fn", 9, 90, (2.0,), 0.0, None, metrics, []))
        'in the last epoch 98 percent of dL/dPt came from the first term, averaged over samples; epsilon 2 scaled the
         gradient of the logits by 1.8'
    """
    share = epoch.metrics.get("first_term_share")
    if share is None or not 0 <= share <= 1:
        return None
    sentence = f"in the last epoch {share:.0%} of dL/dPt came from the first term, averaged over samples".replace(
        "%", " percent"
    )
    one_minus_pt, term_2 = 1 - epoch.metrics.get("pt", 1.0), epoch.metrics.get("term_2")
    if len(epoch.epsilon) != 1 or epoch.gamma or epoch.num_terms is not None or term_2 is None or one_minus_pt <= 0:
        return sentence
    # term_2 is the mean of (1 - Pt)^2 / 2, and Pt (1 - Pt) = (1 - Pt) - (1 - Pt)^2.
    scale = 1 + epoch.epsilon[0] * (1 - 2 * term_2 / one_minus_pt)
    return f"{sentence}; epsilon {epoch.epsilon[0]:.3g} scaled the gradient of the logits by {scale:.2g}"
