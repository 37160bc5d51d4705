"""Figures of the losses: value and gradient against Pt, and the coefficients of the terms."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from polyloss_lightning.core import polynomial
from polyloss_lightning.plotting import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Epsilon: TypeAlias = tuple[float, ...]

REFERENCE_EPSILON = (-1.0, 0.0, 1.0, 2.0)


def curve_figures(gamma: float = 0.0, epsilon: Sequence[float] = REFERENCE_EPSILON) -> dict[str, Figure]:
    r"""Draw Poly-1 losses for comparison: value and gradient against Pt, and coefficients.

    .. math:: L = (1-P_t)^\gamma \big(-\log P_t + \epsilon (1-P_t)\big)

    Args:
        gamma: focusing exponent, at least 0; 0 is cross-entropy.
        epsilon: draw one curve for each of these perturbations of the first coefficient.

    Returns:
        The figures ``loss_and_gradient`` and ``coefficients``.

    Raises:
        ValueError: if ``gamma`` is negative or not finite, or an epsilon is not finite.
        ModuleNotFoundError: if matplotlib is missing.

    Example:
        >>> sorted(curve_figures(gamma=2.0, epsilon=[-1, 2]))
        ['coefficients', 'loss_and_gradient']
    """
    gamma = polynomial.as_gamma(gamma)
    family = [(number,) for number in polynomial.as_epsilon(epsilon)]
    return {
        "loss_and_gradient": loss_and_gradient_figure(gamma, family),
        "coefficients": coefficients_figure(gamma, family),
    }


def loss_and_gradient_figure(
    gamma: float,
    family: Sequence[Epsilon],
    trained: Sequence[Epsilon] = (),
    num_terms: int | None = None,
    title: str = "",
) -> Figure:
    """Draw value and -dL/dPt against Pt for a family of epsilons, and with heavy lines for the epsilons of a run.

    Args:
        gamma: focusing exponent.
        family: the epsilons drawn as plain lines; the base loss (epsilon 0) is always drawn, in black.
        trained: the epsilons of a run in the order of its epochs. The first and the last are drawn as heavy lines, and
            the range of all of them as a band.
        num_terms: number of terms that the loss of the run keeps; None for all. The family is drawn with all terms.
        title: prefix of the title of the figure.
    """
    figure = style.new_figure(1, 2, (9.0, 4.6))
    pt = torch.linspace(0.0, 1.0, 401, dtype=torch.float64, device="cpu")[2:]
    lines = _family_lines(gamma, family, light=bool(trained)) + _trained_lines(trained, num_terms)
    for axes, quantity in zip(figure.axes, (_loss, _gradient), strict=True):
        curves = [quantity(pt, epsilon, gamma, kept) for epsilon, kept, _ in lines]
        for curve, (_, _, look) in zip(curves, lines, strict=True):
            axes.plot(pt.numpy(), curve.numpy(), **look)
        if len(set(trained)) > 1:
            band = torch.stack([quantity(pt, epsilon, gamma, num_terms) for epsilon in dict.fromkeys(trained)])
            low, high = band.amin(0).numpy(), band.amax(0).numpy()
            axes.fill_between(pt.numpy(), low, high, color=style.VERMILLION, alpha=0.15, linewidth=0)
        # Both diverge at Pt = 0, so choose the limits for Pt >= 0.1 and clip the lines at the top of the panel.
        shown = torch.stack(curves)[:, pt >= 0.1]
        margin = 0.05 * float(shown.max() - shown.min())
        axes.set_ylim(min(0.0, float(shown.min())) - margin, float(shown.max()) + margin)
        axes.set_xlim(0.0, 1.0)
        axes.set_xlabel(f"probability of the target class, {style.PT}")
    figure.axes[0].set_ylabel("loss $L$ (nats)")
    figure.axes[1].set_ylabel(f"gradient {style.GRADIENT} (nats)")
    return style.finish(figure, f"{title}Loss and gradient against {style.PT}{_focal(gamma)}")


def coefficients_figure(
    gamma: float,
    family: Sequence[Epsilon],
    num_terms: int | None = None,
    count: int = 8,
    title: str = "",
) -> Figure:
    r"""Draw the coefficients :math:`1/j + \epsilon_j` of :math:`(1-P_t)^{j+\gamma}` next to those of cross-entropy.

    Args:
        gamma: focusing exponent; it shifts the coefficients along the x axis.
        family: draw one set of stems for each of these epsilons.
        num_terms: number of terms that the loss keeps; None for all.
        count: number of terms to draw; more are drawn if an epsilon has more entries.
        title: prefix of the title of the figure.
    """
    count = max(count, *(len(epsilon) + 2 for epsilon in family))
    kept = count if num_terms is None else min(count, num_terms)
    figure = style.new_figure(size=(7.0, 4.2))
    (axes,) = figure.axes
    axes.use_sticky_edges = False  # do not clip the marker of a coefficient of 0
    powers = range(1, count + 1)
    axes.bar(powers, polynomial.coefficients(count), width=0.85, color="#dcdcdc", label="cross-entropy, 1/j")
    for index, (epsilon, colour) in enumerate(zip(family, style.shades(len(family)), strict=True)):
        dodge = 0.7 * ((index + 0.5) / len(family) - 0.5)
        x = [power + gamma + dodge for power in powers[:kept]]
        y = polynomial.coefficients(kept, epsilon)
        axes.vlines(x, 0.0, y, color=[colour], linewidth=1.5)
        marker = style.MARKERS[index % len(style.MARKERS)]
        axes.plot(x, y, marker, color=colour, markersize=5, label=style.epsilon_label(epsilon))
    axes.axhline(0.0, color=style.BLACK, linewidth=0.8)
    axes.set_xticks(range(1, math.ceil(count + gamma) + 1))
    axes.set_xlabel(f"power of $(1 - P_t)$; term j has the power j{f' + {gamma:g}' if gamma else ''}")
    axes.set_ylabel(r"coefficient $1/j + \epsilon_j$")
    return style.finish(figure, f"{title}Coefficients of the first {kept} terms{_focal(gamma)}")


_Line: TypeAlias = tuple[Epsilon, int | None, dict[str, Any]]
_Quantity: TypeAlias = Callable[[Tensor, Epsilon, float, int | None], Tensor]


def _family_lines(gamma: float, family: Sequence[Epsilon], light: bool) -> list[_Line]:
    width, order = (1.1, 3) if light else (1.8, 2)  # above the heavy lines of the run, which would hide them
    base = "focal loss" if gamma else "cross-entropy"
    common = {"linewidth": width, "zorder": order}
    lines: list[_Line] = [((0.0,), None, {**common, "color": style.BLACK, "label": f"{base} (ε = 0)"})]
    others = [epsilon for epsilon in family if any(epsilon)]
    for index, (epsilon, colour) in enumerate(zip(others, style.shades(len(others)), strict=True)):
        dash = style.DASHES[index % len(style.DASHES)]
        look = {"color": colour, "linestyle": dash, "label": style.epsilon_label(epsilon)}
        lines.append((epsilon, None, {**common, **look}))
    return lines


def _trained_lines(trained: Sequence[Epsilon], num_terms: int | None) -> list[_Line]:
    if not trained:
        return []
    first, last = trained[0], trained[-1]
    kept = f", {num_terms} terms" if num_terms else ""
    heavy = {"color": style.VERMILLION, "linewidth": 2.8}
    if first == last:
        return [(last, num_terms, {**heavy, "label": f"this run: {style.epsilon_label(last)}{kept}"})]
    return [
        (
            first,
            num_terms,
            {**heavy, "linestyle": "--", "label": f"this run, first: {style.epsilon_label(first)}{kept}"},
        ),
        (last, num_terms, {**heavy, "label": f"this run, last: {style.epsilon_label(last)}{kept}"}),
    ]


def _loss(pt: Tensor, epsilon: Epsilon, gamma: float, num_terms: int | None) -> Tensor:
    return polynomial.value(pt.log(), epsilon, gamma, num_terms)


def _gradient(pt: Tensor, epsilon: Epsilon, gamma: float, num_terms: int | None) -> Tensor:
    """Return -dL/dPt, computed by autograd so that it always agrees with the loss."""
    with torch.inference_mode(False), torch.enable_grad():
        log_p = pt.log().requires_grad_()
        (slope,) = torch.autograd.grad(polynomial.value(log_p, epsilon, gamma, num_terms).sum(), log_p)
    return -slope / pt


def _focal(gamma: float) -> str:
    return f", focal γ = {gamma:g}" if gamma else ""
