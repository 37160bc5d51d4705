"""The polynomial terms of a loss as a torchmetrics Metric."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchmetrics import Metric

from polyloss_lightning._checks import check_integer
from polyloss_lightning.core import Observation, polynomial
from polyloss_lightning.terms import first_term_gradient, first_term_share, terms

if TYPE_CHECKING:
    from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE

HISTOGRAM_BINS = 50
_CLASS_COLUMNS = 5


def term_names(num_terms: int) -> list[str]:
    """Return the names of the scalars among the :func:`term_values`."""
    terms = [f"term_{j}" for j in range(1, num_terms + 1)]
    return [*terms, "tail", "loss", "base_loss", "correction", "first_term_share", "pt"]


def zero_sums(num_terms: int, num_classes: int | None = None, device: torch.device | None = None) -> Tensor:
    """Return the :func:`term_sums` of no entries: a vector, so that synchronizing processes takes one message."""
    # One extra row of the classes collects the entries with a class index beyond the last class.
    size = num_terms + 6 + HISTOGRAM_BINS + (0 if num_classes is None else _CLASS_COLUMNS * (num_classes + 1))
    is_mps = device is not None and device.type == "mps"
    return torch.zeros(size, dtype=torch.float32 if is_mps else torch.float64, device=device)


def term_sums(observation: Observation, num_terms: int, num_classes: int | None = None) -> Tensor:
    """Return the sums over the entries of one loss call, on their device. Sums of several calls are added.

    They are float64 (float32 on MPS, which has no float64), because in float32 a batch would be too small to change
    the sum of a long epoch. Nothing here synchronizes with the device.

    Args:
        observation: the entries of the call.
        num_terms: number of terms to sum separately.
        num_classes: number of classes to sum separately; None for none.

    Returns:
        A vector in the layout of :func:`zero_sums`, for :func:`term_values`.
    """
    # Of a DTensor (tensor parallelism), every process takes the full tensor.
    observation = Observation._make(map(_whole, observation))
    epsilon, gamma, kept = observation.epsilon, observation.gamma, observation.num_terms
    weight, focal_base = observation.weight, observation.focal_base
    log_p = observation.log_p.masked_fill(weight == 0, 0)  # an entry of weight 0 may be infinite
    pt = log_p.exp()
    share = first_term_share(log_p, epsilon, gamma, kept)
    value = polynomial.value(log_p, epsilon, gamma, kept, focal_base)
    perturbed = kept is not None or any(epsilon)
    base = polynomial.value(log_p, (0.0,), gamma, focal_base=focal_base) if perturbed else value
    first = terms(log_p, min(num_terms, kept or num_terms), epsilon, gamma, focal_base)
    dropped = first.new_zeros(num_terms - len(first), len(pt))
    rows = torch.cat([first, dropped, torch.stack([value, base, share, pt, torch.ones_like(pt)])])

    sums = zero_sums(num_terms, num_classes, weight.device)
    head, histogram, classes = _split(sums, num_terms)
    head[:-1] += (rows * weight).sum(1, dtype=sums.dtype)
    head[-1] += observation.denominator
    weight = weight.to(sums.dtype)
    # Converted to an integer, NaN would be an invalid index, which would end a diverged run with an error.
    bins = (pt * HISTOGRAM_BINS).nan_to_num(0).long().clamp(0, HISTOGRAM_BINS - 1)
    histogram.index_add_(0, bins, weight)
    if num_classes is not None:
        gradient = first_term_gradient(log_p, epsilon, gamma)
        columns = torch.stack([torch.ones_like(pt), pt, share, gradient], 1).to(sums.dtype) * weight.unsqueeze(1)
        columns = torch.cat([columns, (weight != 0).to(sums.dtype).unsqueeze(1)], 1)
        classes.view(-1, _CLASS_COLUMNS).index_add_(0, observation.target.clamp_max(num_classes), columns)
    return sums


def term_values(sums: Tensor, num_terms: int, num_classes: int | None = None) -> dict[str, Tensor]:
    """Return the values that :class:`PolynomialTerms` documents from ``sums``; NaN if no target counted.

    Args:
        sums: the total of :func:`term_sums`.
        num_terms: as in :func:`term_sums`.
        num_classes: as in :func:`term_sums`; None returns no vectors per class.
    """
    head, histogram, classes = _split(sums, num_terms)
    loss, base, share, pt, weight, denominator = head[num_terms:]
    first = head[:num_terms] / denominator
    loss, base = loss / denominator, base / denominator
    scalars = [*first, loss - first.sum(), loss, base, loss - base, share / weight, pt / weight]
    values = dict(zip(term_names(num_terms), scalars, strict=True))
    values["pt_histogram"] = histogram
    if num_classes is not None:
        class_weight, pt, share, gradient, count = classes.view(-1, _CLASS_COLUMNS)[:-1].unbind(1)
        values |= {
            "class_weight": class_weight,
            "class_pt": pt / class_weight,
            "class_first_term_share": share / class_weight,
            "class_first_term_gradient": gradient / denominator,
            "class_count": count,
        }
    return values


def _split(sums: Tensor, num_terms: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return views of the scalar sums, the histogram and the sums per class."""
    head = num_terms + 6
    return sums[:head], sums[head : head + HISTOGRAM_BINS], sums[head + HISTOGRAM_BINS :]


class PolynomialTerms(Metric):
    r"""Contribution of each polynomial term of a PolyLoss, accumulated over any number of calls.

    With the weight :math:`w_i` of each entry in the loss and the denominator :math:`d` of each call,

    .. math:: \text{term}_j = \frac{\sum w_i\,(1/j + \epsilon_j)(1-P_i)^{j+\gamma}}{\sum d} \qquad
              P_t = \frac{\sum w_i P_i}{\sum w_i}

    The values are those of a single batch that contains all samples. (Lightning logs the mean of the batch means of a
    loss, which differs if the batches differ in their total weight.) For reduction ``"sum"`` the denominator of a call
    is 1, so losses and terms are means over calls. Ignored targets do not count, and a call whose targets are all
    ignored does not affect any mean. Epsilon may change between calls.

    ``update`` takes the :class:`~polyloss_lightning.core.Observation` that a loss passes to the observers registered
    with ``loss.register_observer``. ``compute`` returns a dictionary of tensors:

    - ``term_1`` .. ``term_N``: the first terms as they enter the loss, including epsilon; 0 if the loss drops a term.
    - ``tail``: sum of all later terms. Terms and tail add up to ``loss``.
    - ``loss``, ``base_loss``, ``correction``: the loss, the loss without epsilon and with every term, their difference.
    - ``first_term_share``: weighted mean of :func:`~polyloss_lightning.terms.first_term_share`; NaN if a
      coefficient was negative. (For soft targets of the sigmoid focal loss, gamma is assumed to act on 1 - Pt of the
      entry.)
    - ``pt``: weighted mean of Pt.
    - ``pt_histogram``: total weight of the entries in each of 50 equal bins of Pt in [0, 1]. NaN counts in the first.
    - with ``num_classes``, vectors with one value per class (an entry counts for the class of its target):
      ``class_weight``, ``class_pt`` and ``class_first_term_share`` (NaN for a class without weight),
      ``class_first_term_gradient`` (the sum of
      :math:`w_i |\partial\,\text{term}_1 / \partial P_i|` over the class, divided by :math:`\sum d`), and
      ``class_count``, the number of entries whose weight is not 0.

    ``update`` adds :func:`term_sums`, ``compute`` returns :func:`term_values`.

    Args:
        num_terms: number of terms to return separately; all later terms form the tail.
        num_classes: number of classes of the per-class vectors; None returns no such vectors. Entries with a higher
            class index are not contained in the vectors.
        kwargs: options of :class:`torchmetrics.Metric`.

    Raises:
        TypeError: if ``num_terms`` or ``num_classes`` is not an integer.
        ValueError: if ``num_terms`` is less than 1, or ``num_classes`` less than 2.

    Example:
        >>> from polyloss_lightning import Poly1CrossEntropyLoss, PolynomialTerms
        >>> loss, metric = Poly1CrossEntropyLoss(epsilon=1.0), PolynomialTerms(num_terms=2)
        >>> handle = loss.register_observer(metric.update)
        >>> value = loss(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 1]))
        >>> {name: round(float(value), 3) for name, value in metric.compute().items() if value.dim() == 0}
        {'term_1': 0.388, 'term_2': 0.022, 'tail': 0.004, 'loss': 0.414, 'base_loss': 0.22, 'correction': 0.194,
         'first_term_share': 0.891, 'pt': 0.806}
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False
    sums: Tensor

    def __init__(self, num_terms: int = 3, num_classes: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_sizes(num_terms, num_classes)
        self.num_terms = num_terms
        self.num_classes = num_classes
        self.add_state("sums", zero_sums(num_terms, num_classes), dist_reduce_fx="sum")

    def update(self, observation: Observation) -> None:
        """Add the entries of one loss call."""
        self.sums = self.sums + term_sums(observation, self.num_terms, self.num_classes).to(self.sums)

    def compute(self) -> dict[str, Tensor]:
        """Return the values described above over all processes; NaN if no target counted."""
        return term_values(self.sums, self.num_terms, self.num_classes)

    def plot(
        self, val: dict[str, Tensor] | Sequence[dict[str, Tensor]] | None = None, ax: "_AX_TYPE | None" = None
    ) -> "_PLOT_OUT_TYPE":
        """Plot the scalar values of one ``compute``, or of several over time.

        Args:
            val: a result of ``compute``, or a sequence of results; None plots the current values.
            ax: a matplotlib axis to draw on.

        Returns:
            Figure and axis.

        Raises:
            ModuleNotFoundError: if matplotlib is missing; the message names the extra to install.

        Example:
            >>> from polyloss_lightning import Poly1CrossEntropyLoss, PolynomialTerms
            >>> loss, metric = Poly1CrossEntropyLoss(), PolynomialTerms()
            >>> with loss.register_observer(metric.update):
            ...     _ = loss(torch.randn(8, 3), torch.arange(8) % 3)
            >>> figure, ax = metric.plot()
        """
        try:
            import matplotlib  # noqa: F401
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "PolynomialTerms.plot() needs matplotlib: pip install 'polyloss-lightning[cli]'"
            ) from error
        val = self.compute() if val is None else val
        return self._plot(_scalars(val) if isinstance(val, dict) else [_scalars(one) for one in val], ax)

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> torch.nn.Module:
        if fn(torch.zeros(1)).device.type == "mps":
            self.sums = self.sums.float()
            self._defaults["sums"] = torch.zeros_like(self.sums)
        return super()._apply(fn, exclude_state)


def check_sizes(num_terms: int, num_classes: int | None) -> None:
    """Raise unless the terms are at least 1 and the classes at least 2, or None."""
    check_integer("num_terms", num_terms, "an integer of at least 1", at_least=1)
    if num_classes is not None:
        check_integer("num_classes", num_classes, "an integer of at least 2", at_least=2)


def _whole(part: Any) -> Any:
    return part.full_tensor() if hasattr(part, "full_tensor") else part


def _scalars(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if value.dim() == 0}
