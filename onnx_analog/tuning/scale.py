"""How losses are shown: in percentage points of a share, or in decibels of what outputs are off by."""

from __future__ import annotations

import math
from dataclasses import dataclass

_LEAST_NOISE = 1e-30  # 300 dB: less is shown so


@dataclass(frozen=True)
class Scale:
    """The unit in which the losses of a metric are shown, and the words for them.

    Attributes
    ----------
    heading : str
        Of columns and axes.
    unit, one : str
        After a number, and after the number 1.
    goal : str
        Before a limit: "at most" or "at least".
    """

    heading: str
    unit: str
    one: str
    goal: str = "at most"

    def value(self, loss: float) -> float:
        """Return a loss in the unit."""
        return 100 * loss

    def text(self, loss: float) -> str:
        """Return the number of a loss as it is printed; what rounds to 0 has no sign."""
        return f"{round(self.value(loss), 2) + 0.0:.2f}"

    def ends(self, low: float, high: float) -> tuple[float, float]:
        """Return the ends of an interval of losses in the unit, the lower first."""
        return self.value(low), self.value(high)


class _Decibels(Scale):
    def value(self, loss: float) -> float:
        return -10 * math.log10(max(loss, _LEAST_NOISE))

    def text(self, loss: float) -> str:
        return f"{self.value(loss):.1f}"

    def ends(self, low: float, high: float) -> tuple[float, float]:
        return self.value(high), self.value(low)


POINTS = Scale("points lost", "points", "point")
CHANGED = Scale("classes changed, %", "%", "%")
DECIBELS = _Decibels("SQNR, dB", "dB", "dB", "at least")


def scale_of(metric: str) -> Scale:
    """Return the scale of the losses of a metric."""
    return {"agreement": CHANGED, "sqnr_db": DECIBELS}.get(metric, POINTS)


def noise_of(sqnr_db: float) -> float:
    """Return the power of the noise over that of the outputs, at a ratio of signal to noise.

    >>> noise_of(20)
    0.01
    """
    return float(10 ** (-sqnr_db / 10))
