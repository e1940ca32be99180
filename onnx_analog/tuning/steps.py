"""The steps of a search, and about how much of its work each is: what is told of its progress."""

from __future__ import annotations

from itertools import accumulate

from onnx_analog.display import Progress

# Shares of the time of a pruned ResNet-18 with 10,000 samples. They differ for other networks: the time that is left
# follows from the pace of what was done last.
_SHARES = {"inputs": 0.12, "sensitivities": 0.06, "candidates": 0.30, "search": 0.32, "verification": 0.20}
_ENDS = dict(zip(_SHARES, accumulate(_SHARES.values()), strict=True))


class Steps:
    """Tells what is being done, and the share of the expected work that is done: it never falls.

    Parameters
    ----------
    progress : Progress
    """

    def __init__(self, progress: Progress) -> None:
        self._progress, self._last = progress, 0.0

    def tell(self, step: str, part: float, text: str) -> None:
        """Tell that a part of a step, 0 to 1, is done."""
        within = min(max(part, 0.0), 1.0) * _SHARES[step]
        self._last = max(self._last, _ENDS[step] - _SHARES[step] + within)
        self._progress(text, min(self._last, 1.0))
