"""Bounds on candidates that have not been computed, from those that have: what cannot be the best is left out.

Without an entropy coder, the cells of a tensor follow from the number of its weights. Of its error this is known, for
steps that are not so coarse that most weights are read as 0, as those of a raw index are not:

- Equal steps with an entropy-coded index err no more than coarser ones with a raw index and as many analog cells: they
  have no wrong bits, and more classes. If they keep the gain of a layer, they err more for that: e/(1 - e), where the
  others err e.
- Without analog cells, the highest bit of a raw index of K classes and steps Δ, wrong with the chance p, adds
  p·(Δ·(K - 1)/2)² at least.
- With k analog cells for each weight, no index and the affine estimator, the error is at least a k-th of that with
  one: noise is averaged, and what else a level is off by stays. Other estimators may gain more, as they know the noise.
"""

from __future__ import annotations

from onnx_analog.coding.codes import best_code
from onnx_analog.coding.scheme import Scheme


class Found:
    """Schemes of one tensor with the cells that it takes, and its errors."""

    def __init__(self) -> None:
        self._rows: dict[Scheme, tuple[float, float]] = {}

    def add(self, scheme: Scheme, cells: float, error: float) -> None:
        """Add a scheme."""
        self._rows[scheme] = cells, error

    def has_better(self, scheme: Scheme, cells: float) -> bool:
        """Return whether one of its kind, with analog cells or without, errs no more than a scheme that takes `cells`.

        It takes no more cells than that.
        """
        least = self._least_error(scheme)
        return any(
            each.analog == scheme.analog and taken <= cells and error <= least
            for each, (taken, error) in self._rows.items()
        )

    def _least_error(self, scheme: Scheme) -> float:
        if scheme.partition != "uniform":
            single = self._rows.get(scheme.changed(cells=(1,))) if scheme.estimator == "affine" else None
            return single[1] / scheme.cells_of_class[0] if single is not None else 0.0
        finer = (row for row in self._rows.items() if _is_finer(row[0], scheme))
        coarsest = max(finer, key=lambda row: (row[0].relative_step or 0.0, -row[1][1]), default=None)
        error = 0.0 if coarsest is None else coarsest[1][1]
        return error / (1 + error) + _of_wrong_bits(scheme)


def _is_finer(one: Scheme, than: Scheme) -> bool:
    """Return whether a scheme has an entropy-coded index of steps that are no larger, and the same analog cells."""
    if one.relative_step is None or than.relative_step is None or one.entropy == "none":
        return False
    return one.relative_step <= than.relative_step and one.cells == than.cells and one.classes >= than.classes


def _of_wrong_bits(scheme: Scheme) -> float:
    """Return the least that wrong bits of an index add to the error over the power of the weights."""
    if scheme.relative_step is None or scheme.analog != "none" or scheme.code != "none":
        return 0.0
    moved = scheme.relative_step * (scheme.classes - 1) / 2
    return best_code(scheme.channel, "none").bit_error * moved**2
