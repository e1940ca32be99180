"""How losses are shown: in percentage points of a share, or in decibels of what outputs are off by."""

from __future__ import annotations

import math

from onnx_analog.display import finite
from onnx_analog.errors import OptionError

_LEAST_NOISE = 1e-30  # 300 dB: less is shown so


class Scale:
    """Points lost, of a share of the samples that are right: a loss is a share, 0 to 1."""

    heading = "points lost"  # of columns
    name = "lost"  # of a number with its unit
    mean = "mean loss"
    axis = "percentage points lost"
    rule = "The goal holds if 'at most' is within the limit, and does not hold if 'at least' is above it"

    def value(self, loss: float) -> float:
        """Return a loss in the unit that is shown."""
        return 100 * loss

    def number(self, loss: float) -> float | None:
        """Return a loss in the unit that is shown, for JSON: None where it is not finite."""
        return finite(self.value(loss))

    def text(self, loss: float) -> str:
        """Return the number of a loss as it is printed; what rounds to 0 has no sign.

        >>> POINTS.text(0.00437), POINTS.text(-2.5e-6)
        ('0.44', '0.00')
        """
        return self.rounded(self.value(loss))

    def rounded(self, value: float) -> str:
        """Return a number that is in the unit that is shown, as it is printed."""
        return f"{round(value, 2) + 0.0:.2f}"

    def ends(self, low: float, high: float) -> tuple[float, float]:
        """Return the ends of an interval of losses, ordered by their value."""
        return low, high

    def brief(self, loss: float) -> str:
        """Return a loss in a few words."""
        return f"{self.text(loss)} points"

    def lost(self, loss: float) -> str:
        """Say what is lost."""
        return f"{self.text(loss)} points lost"

    def kept(self, limit: float) -> str:
        """Say that no more than a limit is lost."""
        return f"at most {self._limit(limit)}"

    def broken(self, limit: float) -> str:
        """Say that more than a limit is lost."""
        return f"more than {self._limit(limit)}"

    def goal(self, limit: float) -> str:
        """Return a limit in a few words."""
        points = f"{self.value(limit):g}"
        return f"at most {points} point{'s' * (points != '1')}"

    def _limit(self, limit: float) -> str:
        points = f"{self.value(limit):g}"
        return f"{points} {'point is' if points == '1' else 'points are'} lost"


class _Changed(Scale):
    """Samples that change their class, where there are no labels."""

    heading = "classes changed, %"
    name = "classes changed"
    mean = "mean share"
    axis = "% of the samples that change their class"

    def ends(self, low: float, high: float) -> tuple[float, float]:
        return max(low, 0.0), high

    def brief(self, loss: float) -> str:
        return f"{self.text(loss)} %"

    def lost(self, loss: float) -> str:
        return f"{self.text(loss)} % of the samples change their class"

    def goal(self, limit: float) -> str:
        return f"at most {self.value(limit):g} %"

    def _limit(self, limit: float) -> str:
        return f"{self.value(limit):g} % of the samples change their class"


class _Decibels(Scale):
    """The ratio of signal to noise in the outputs: a loss is the noise over their power."""

    heading = "SQNR, dB"
    name = "SQNR"
    mean = "SQNR"
    axis = "SQNR of the outputs, dB"
    rule = "The goal holds if 'at least' reaches the limit, and does not hold if 'at most' is below it"

    def value(self, loss: float) -> float:
        return -10 * math.log10(max(loss, _LEAST_NOISE)) + 0.0  # not -0

    def rounded(self, value: float) -> str:
        return f"{value:.1f}"

    def ends(self, low: float, high: float) -> tuple[float, float]:
        return high, low

    def brief(self, loss: float) -> str:
        return f"{self.text(loss)} dB"

    def lost(self, loss: float) -> str:
        return f"an SQNR of {self.brief(loss)}"

    def kept(self, limit: float) -> str:
        return f"the SQNR is {self.goal(limit)}"

    def broken(self, limit: float) -> str:
        return f"the SQNR is below {self.value(limit):g} dB"

    def goal(self, limit: float) -> str:
        return f"at least {self.value(limit):g} dB"


POINTS, CHANGED, DECIBELS = Scale(), _Changed(), _Decibels()


def check_unit(metric: str, *, max_drop: bool, min_sqnr: bool) -> None:
    """Raise `OptionError` if a limit is given that is not of the losses of a metric."""
    if max_drop and scale_of(metric) is DECIBELS:
        raise OptionError(f"max_drop is of shares of the samples, and the metric is {metric}: give min_sqnr")
    if min_sqnr and scale_of(metric) is not DECIBELS:
        raise OptionError(f"min_sqnr is of the metric sqnr_db, and the metric is {metric}: give max_drop")


def scale_of(metric: str) -> Scale:
    """Return the scale of the losses of a metric."""
    return {"agreement": CHANGED, "sqnr_db": DECIBELS}.get(metric, POINTS)


def noise_of(sqnr_db: float) -> float:
    """Return the power of the noise over that of the outputs, at a ratio of signal to noise.

    >>> noise_of(20)
    0.01
    """
    return float(10 ** (-sqnr_db / 10))
