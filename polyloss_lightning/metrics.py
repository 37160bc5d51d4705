"""The polynomial terms of a loss as a torchmetrics Metric."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.plot import _AX_TYPE, _PLOT_OUT_TYPE

from polyloss_lightning.core import Observation, polynomial
from polyloss_lightning.terms import first_term_gradient, first_term_share, terms

HISTOGRAM_BINS = 50
_CLASS_COLUMNS = 5


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

    The sums are float64 (float32 on MPS, which has no float64), because in float32 a batch would be too small to
    change the sum of a long epoch. ``update`` never synchronizes with the device.

    Args:
        num_terms: number of terms to return separately; all later terms form the tail.
        num_classes: number of classes of the per-class vectors; None returns no such vectors. Entries with a higher
            class index are not contained in the vectors.
        kwargs: options of :class:`torchmetrics.Metric`.

    Raises:
        ValueError: if ``num_terms`` is not an integer of at least 1, or ``num_classes`` is not an integer of at
            least 2.

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
        check_count("num_terms", num_terms)
        if num_classes is not None:
            check_count("num_classes", num_classes, at_least=2)
        self.num_terms = num_terms
        self.num_classes = num_classes
        # One extra row of the classes collects the entries with a class index beyond the last class.
        size = num_terms + 6 + HISTOGRAM_BINS + (0 if num_classes is None else _CLASS_COLUMNS * (num_classes + 1))
        # A single vector, so that synchronizing processes takes a single message.
        self.add_state("sums", torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, observation: Observation) -> None:
        """Add the entries of one loss call."""
        epsilon, gamma, kept = observation.epsilon, observation.gamma, observation.num_terms
        denominator = observation.denominator.to(self.sums.device)
        weight = observation.weight.to(self.sums.device)
        # An entry of weight 0 may be infinite.
        log_p = observation.log_p.to(weight.device).masked_fill(weight == 0, 0)
        focal_base = None if observation.focal_base is None else observation.focal_base.to(weight.device)
        pt = log_p.exp()
        share = first_term_share(log_p, epsilon, gamma, kept)
        value = polynomial.value(log_p, epsilon, gamma, kept, focal_base)
        perturbed = kept is not None or any(epsilon)
        base = polynomial.value(log_p, (0.0,), gamma, focal_base=focal_base) if perturbed else value
        first = terms(log_p, min(self.num_terms, kept or self.num_terms), epsilon, gamma, focal_base)
        dropped = first.new_zeros(self.num_terms - len(first), len(pt))
        rows = torch.cat([first, dropped, torch.stack([value, base, share, pt, torch.ones_like(pt)])])

        dtype = self.sums.dtype
        head, histogram, classes = self._split(self.sums)
        head[:-1] += (rows * weight).sum(1, dtype=dtype)
        head[-1] += denominator
        weight = weight.to(dtype)
        # Converted to an integer, NaN would be an invalid index, which would end a diverged run with an error.
        bins = (pt * HISTOGRAM_BINS).nan_to_num(0).long().clamp(0, HISTOGRAM_BINS - 1)
        histogram.index_add_(0, bins, weight)
        if self.num_classes is not None:
            gradient = first_term_gradient(log_p, epsilon, gamma)
            columns = torch.stack([torch.ones_like(pt), pt, share, gradient], 1).to(dtype) * weight.unsqueeze(1)
            columns = torch.cat([columns, (weight != 0).to(dtype).unsqueeze(1)], 1)
            target = observation.target.to(weight.device).clamp_max(self.num_classes)
            classes.view(-1, _CLASS_COLUMNS).index_add_(0, target, columns)

    def compute(self) -> dict[str, Tensor]:
        """Return the values described above over all processes; NaN if no target counted."""
        head, histogram, classes = self._split(self.sums)
        loss, base, share, pt, weight, denominator = head[self.num_terms :]
        terms = head[: self.num_terms] / denominator
        loss, base = loss / denominator, base / denominator
        values = {f"term_{j}": term for j, term in enumerate(terms, start=1)}
        values |= {
            "tail": loss - terms.sum(),
            "loss": loss,
            "base_loss": base,
            "correction": loss - base,
            "first_term_share": share / weight,
            "pt": pt / weight,
            "pt_histogram": histogram,
        }
        if self.num_classes is not None:
            class_weight, pt, share, gradient, count = classes.view(-1, _CLASS_COLUMNS)[:-1].unbind(1)
            values |= {
                "class_weight": class_weight,
                "class_pt": pt / class_weight,
                "class_first_term_share": share / class_weight,
                "class_first_term_gradient": gradient / denominator,
                "class_count": count,
            }
        return values

    def plot(
        self, val: dict[str, Tensor] | Sequence[dict[str, Tensor]] | None = None, ax: _AX_TYPE | None = None
    ) -> _PLOT_OUT_TYPE:
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

    def _split(self, sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return views of the scalar sums, the histogram and the sums per class."""
        head = self.num_terms + 6
        return sums[:head], sums[head : head + HISTOGRAM_BINS], sums[head + HISTOGRAM_BINS :]

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> torch.nn.Module:
        if fn(torch.zeros(1)).device.type == "mps":
            self.sums = self.sums.float()
            self._defaults["sums"] = torch.zeros_like(self.sums)
        return super()._apply(fn, exclude_state)


def check_count(name: str, value: object, at_least: int = 1) -> None:
    """Raise ``ValueError`` unless ``value`` is an integer of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise ValueError(f"`{name}` must be an integer of at least {at_least}, got {value!r}")


def _scalars(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if value.dim() == 0}
