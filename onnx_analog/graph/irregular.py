"""What is irregular in the reads of an array: counted, and said with what was done about it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from onnx_analog.display import counted, percent
from onnx_analog.errors import DataError

logger = logging.getLogger(__name__)

FAR = 6.0  # standard deviations from the written level, beyond which a cell is counted


@dataclass(frozen=True)
class Irregularity:
    """Rows, cells or weights that are not as they should be.

    Attributes
    ----------
    what : str
    count : int
    of : int
        How many there are in all.
    handling : str
        What was done with them.
    """

    what: str
    count: int
    of: int
    handling: str


UNREAD = "weights without a read"


class Log:
    """Counts what is irregular: how many, of how many."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[int, int]] = {}

    def add(self, what: str, count: Any, of: Any) -> None:
        """Count some of one kind, of so many."""
        before = self._counts.get(what, (0, 0))
        self._counts[what] = before[0] + int(count), before[1] + int(of)

    def check_known(self, missing: str, unit: str | None) -> None:
        """Raise `DataError` if something was not read that has to be known, or the unit is to blame for that."""
        try:
            self._check_known(missing)
        except DataError as error:
            doubt = self._doubt_of_unit(unit)
            raise error if doubt is None else DataError(f"{doubt} Otherwise: {error}") from None

    def _check_known(self, missing: str) -> None:
        weights, of = self._counts.get("weights", (0, 0))
        if weights and missing == "refuse":
            raise DataError(
                f"{counted(weights, 'weight')} of {of:,} {_have(weights)} no read: say what becomes of them, with "
                'missing="zero" or missing="written"'
            )
        symbols, of = self._counts.get("symbols", (0, 0))
        if symbols and missing != "written":
            raise DataError(
                f"{counted(symbols, 'symbol')} of {of:,} that no code protects {_have(symbols)} no read, and signs or "
                'classes need them: give missing="written" to take what was written'
            )
        blocks, of = self._counts.get("gaps", (0, 0))
        if blocks and missing == "refuse":
            raise DataError(
                f"{counted(blocks, 'block')} of {of:,} cannot be decoded because of cells without a read: "
                'give missing="zero" to lose what a failed block loses, or missing="written" to take what was written'
            )

    def warn_of_lost(self) -> None:
        """Warn where blocks could not be decoded, and say why, and what is lost with them."""
        blocks = sum(self._counts.get(what, (0, 0))[0] for what in ("failed", "unnoticed"))
        if not blocks:
            return
        misread, read = self._counts.get("misread", (0, 0))
        blank, symbols = self._counts.get("blank", (0, 0))
        lost, weights = self._counts.get("lost", (0, 0))
        share = f". {lost:,} of {weights:,} weights ({percent(lost / weights, 2)}) lose sign and class" if lost else ""
        logger.warning(
            f"{counted(blocks, 'block')} of {self._counts['failed'][1]:,} cannot be decoded: {misread:,} of {read:,} "
            f"symbols were read wrongly, and {blank:,} of {symbols:,} have no read{share}"
        )

    def question_unit(self, unit: str | None) -> None:
        """Warn where most cells read something else than what was written."""
        doubt = self._doubt_of_unit(unit)
        if doubt is not None:
            logger.warning(doubt)

    def _doubt_of_unit(self, unit: str | None) -> str | None:
        """Return the doubt that values are in the unit that was given; None where most are as expected."""
        far, reads = self._counts.get("far", (0, 0))
        without, rows = self._counts.get("logless", (0, 0))
        other = {"scaled": "device", "device": "scaled"}.get(unit or "", "")
        right = f'they were taken as {unit}. Would unit="{other}" be right, and are the reads of this model?'
        if without > _LOGLESS * rows:
            return f"{without:,} of {rows:,} values are not above 0, so they have no logarithm; {right}"
        if 2 * far > reads:
            return f"{far:,} of {reads:,} reads are more than {FAR:g} σ from what was written; {right}"
        return None

    def irregularities(self, missing: str) -> tuple[Irregularity, ...]:
        """Return all counts, with what was done."""
        handling = {**_HANDLING, "weights": _OF_MISSING[missing]}
        if missing == "written":
            handling["blank"] = handling["weights"]
        return tuple(
            Irregularity(words, *self._counts[what], handling[what])
            for what, words in _WORDS.items()
            if self._counts.get(what, (0, 0))[1]
        )


_LOGLESS = 0.05  # of all values: a cell that conducts nothing, or is shorted, may read 0, but few do
_WORDS = {
    "time": "rows of other times",
    "stuck": "rows of cells that are marked as stuck",
    "empty": "rows without a number",
    "logless": "values that have no logarithm",
    "order": "rows that are not in the order of addresses",
    "repeated": "cells with more than one read",
    "unread": "cells without a read",
    "fewer": "weights with reads of some cells only",
    "weights": UNREAD,
    "outside": "reads outside the output range",
    "far": f"reads more than {FAR:g} σ from what was written",
    "misread": "symbols that are read wrongly",
    "blank": "symbols without a read",
    "symbols": "symbols without a read that no code protects",
    "corrected": "bits that codes corrected",
    "errors": "bits of signs and classes that are wrong",
    "wrong": "bits of other streams without a code that are wrong",
    "failed": "blocks that codes could not correct",
    "unnoticed": "blocks that decode to other data without notice",
    "lost": "weights whose sign and class are lost with a block",
    "absent": "bits of streams that the image leaves out",
}
_HANDLING = {
    **dict.fromkeys(("time", "stuck", "empty", "logless"), "left out"),
    "order": "sorted",
    "repeated": "averaged",
    "unread": "left out",
    "fewer": "mean of the others",
    "outside": "used as read",
    "far": "used as read",
    "misread": "decoded",
    "blank": "decoded as the lowest",
    "symbols": "taken as written",
    "corrected": "corrected",
    "errors": "used as read",
    "wrong": "lost as in a trial",
    "failed": "lost as in a trial",
    "unnoticed": "lost as in a trial",
    "absent": "taken as written",
    "lost": "positive, of the most frequent class",
}
_OF_MISSING = {"refuse": "refused", "zero": "read as zero", "written": "taken as written"}


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
