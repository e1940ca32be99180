"""How `tune` verified a plan: what was found, on which samples, and what the network was corrected and fed with.

A record is of one plan: `plan_sha256` tells whether its schemes are still those that were verified.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass
from typing import Any, NamedTuple

from onnx_analog.display import counted, percent_as_given
from onnx_analog.errors import OptionError, brief
from onnx_analog.settings import check_settings, named, setting, settings_of

_DIGESTS = ("plan_sha256", "model_sha256", "data_sha256")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GOALS = ("max_points_lost", "min_sqnr_db", "budget_cells_per_weight")
_UNITS = {"points_lost": "{:.2f} points lost", "sqnr_db": "an SQNR of {:.2f} dB"}  # of what was found
_INTERVALS = tuple(f"{name}_ci95" for name in _UNITS)
_PARTS = 4  # that the samples are split into
_MOST = 2**53  # which numbers of JSON hold in all languages
_NORMALISATION = ("mean", "std", "scale")

logger = logging.getLogger(__name__)


class Inputs(NamedTuple):
    """How inputs were made from samples; only the description is known of inputs that were given ready to use."""

    preprocessing: str = ""  # in words
    mean: tuple[float, ...] | None = None  # of images, after the division by the scale
    std: tuple[float, ...] | None = None
    scale: float | None = None
    preprocess: str | None = None  # the function that made them in place of all this

    @property
    def known(self) -> bool:
        """Whether it is known how they were made."""
        return self.preprocess is not None or self.mean is not None

    def alike(self, other: Inputs) -> bool:
        """Return whether others are made in the same way; one number stands for all channels."""
        mine, theirs = ((each.preprocess, each.scale, _single(each.mean), _single(each.std)) for each in (self, other))
        return mine == theirs


UNKNOWN = Inputs()


def _single(numbers: tuple[float, ...] | None) -> set[float] | tuple[float, ...] | None:
    """Return numbers as a set of one where all are the same."""
    alike = set(numbers or ())
    return alike if len(alike) == 1 else numbers


@named
@dataclass(frozen=True, kw_only=True)
class Verified:
    """How a plan was verified.

    Raises
    ------
    OptionError
        If a value is of another type or out of its range, or values contradict each other.
    """

    plan_sha256: str = setting(help="SHA-256 of the scheme of each tensor that was verified.")
    model_sha256: str | None = setting(None, help="SHA-256 of the model's file, or of all of its files.")
    data_sha256: str | None = setting(None, help="SHA-256 of the file of the samples.")
    channel: str = setting(help="The memory, in words.")
    decoding: str = setting(help="The most that decoding was allowed to take.")
    cells_per_weight: float = setting(
        above=0, help="Cells per original weight, the numbers of the correction included."
    )
    metric: str = setting(help="What was measured.")
    max_points_lost: float | None = setting(None, above=0, most=100, help="The goal: percentage points.")
    min_sqnr_db: float | None = setting(None, least=0, help="The goal: signal to noise in the outputs, in dB.")
    budget_cells_per_weight: float | None = setting(None, above=0, help="The goal: cells per original weight.")
    holds: bool | None = setting(
        None, help="Whether the goal holds; without it, the samples did not decide, or the goal is a budget."
    )
    confidence: float = setting(least=0.5, below=1, help="Confidence of the verification.")
    points_lost: float | None = setting(None, help="What was found: percentage points lost.")
    points_lost_ci95: tuple[float, ...] | None = setting(None, help="Both ends of its 95 % interval.")
    sqnr_db: float | None = setting(None, help="What was found: signal to noise in the outputs, in dB.")
    sqnr_db_ci95: tuple[float, ...] | None = setting(None, help="Both ends of its 95 % interval.")
    trials: int = setting(least=1, most=_MOST, help="Reads of the memory.")
    compensated_by: int | None = setting(
        None, least=1, most=_MOST, help="Samples by which weights made up for each other's errors."
    )
    corrected_by: int | None = setting(
        None, least=1, most=_MOST, help="Samples that corrected each read, towards the original."
    )
    preprocessing: str = setting(help="How the inputs were made, in words.")
    mean: tuple[float, ...] | None = setting(
        None, help="What was taken from images, after the division by the scale: one number, or one for each channel."
    )
    std: tuple[float, ...] | None = setting(None, above=0, help="What images were divided by then.")
    scale: float | None = setting(None, above=0, help="What images were divided by first.")
    preprocess: str | None = setting(None, help="Name of the function that made the inputs in place of that.")
    samples: int = setting(least=1, most=_MOST, help="Samples of the data.")
    parts: tuple[int, ...] = setting(
        least=0, most=_MOST, help="Samples that calibrated, that corrected, that were searched with, and that verified."
    )
    seed: int = setting(least=0, most=2**63 - 1, help="Seed by which the samples were parted.")
    samples_seen_before: bool = setting(
        False,
        help="Whether an earlier search, for another goal or for a given plan, used the samples that verified.",
    )
    otherwise: str | None = setting(
        None, help="Why the plan, or a model that is stored by it, is not what was verified, in words."
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.otherwise is not None and not self.otherwise.strip():
            raise OptionError("otherwise is empty; it must say why the plan does not hold, or be left out")
        for name in _DIGESTS:
            digest = getattr(self, name)
            if digest is not None and not _SHA256.fullmatch(digest):
                raise OptionError(f"{name} is {brief(digest)}; it must be a SHA-256, as 64 hexadecimal digits")
        numbers = [name for name in _NORMALISATION if getattr(self, name) is not None]
        if len(numbers) not in (0, len(_NORMALISATION)):
            raise OptionError(f"{numbers[0]} is given; {', '.join(_NORMALISATION)} must be given together")
        if numbers and self.preprocess is not None:
            raise OptionError("mean and preprocess are given; it must be one of them")
        given = [name for name in _GOALS if getattr(self, name) is not None]
        if len(given) != 1:
            raise OptionError(f"{len(given)} of {', '.join(_GOALS)} are given; it must be one")
        if self.holds is not None and self.budget_cells_per_weight is not None:
            raise OptionError("holds is given, and the goal is a budget: leave it out")
        for name in _INTERVALS:
            ends = getattr(self, name)
            if ends is not None and (len(ends) != 2 or ends[0] > ends[1]):
                raise OptionError(f"{name} is {brief(list(ends))}; it must be two numbers, the lower one first")
        if len(self.parts) != _PARTS or sum(self.parts) != self.samples:
            raise OptionError(f"parts is {brief(list(self.parts))}; it must be {_PARTS} numbers that add up to samples")

    @property
    def inputs(self) -> Inputs:
        """How the inputs were made."""
        return Inputs(**{name: getattr(self, name) for name in Inputs._fields})

    @property
    def verifying(self) -> int:
        """The number of samples that verified."""
        return self.parts[-1]

    def __str__(self) -> str:
        included = "" if self.corrected_by is None else ", with the correction"
        cells = f"{self.cells_per_weight:.3f} cells per weight{included}"
        what = f"{self.metric} on {counted(self.verifying, 'sample')} of {self.samples:,}, {self.correction}"
        return f"{what}: {'; '.join([cells, *self._found(), self._verdict()])}"

    def _found(self) -> Iterator[str]:
        for name, text in _UNITS.items():
            value, ends = getattr(self, name), getattr(self, f"{name}_ci95")
            if value is not None:
                between = "" if ends is None else f" ({' to '.join(f'{round(end, 2) + 0.0:.2f}' for end in ends)})"
                yield f"{text.format(round(value, 2) + 0.0)}{between}"

    def _verdict(self) -> str:
        if self.budget_cells_per_weight is not None:
            return f"within the budget of {self.budget_cells_per_weight:g} cells per weight"
        points = self.max_points_lost
        goal = (
            f"at least {self.min_sqnr_db:g} dB" if points is None else f"at most {points:g} point{'s' * (points != 1)}"
        )
        how = {True: "holds", False: "does not hold", None: "was not decided"}[self.holds]
        return f"the goal, {goal}, {how} with {percent_as_given(self.confidence)} confidence"

    @property
    def correction(self) -> str:
        """Whether reads were corrected, in words."""
        return "not corrected" if self.corrected_by is None else f"corrected by {counted(self.corrected_by, 'sample')}"

    # ---------------------------------------------------------------------------------------------------- JSON

    def to_dict(self) -> dict[str, Any]:
        """Return the record, ready for JSON, without what is not known; `from_dict` is the inverse."""
        body = {name: (getattr(self, name), default) for name, (_, _, default) in settings_of(Verified).items()}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, (value, default) in body.items()
            if default is MISSING or value != default
        }

    @staticmethod
    def from_dict(body: Any) -> Verified:
        """Return the record that `to_dict` describes. Entries of a later version are ignored; a warning names them.

        Raises
        ------
        OptionError
            If it is not one.
        """
        if not isinstance(body, Mapping):
            raise OptionError(f"it is {json.dumps(body)[:40]}; it must be an object")
        declared = settings_of(Verified)
        unknown = [brief(name) for name in body if name not in declared]
        if unknown:
            logger.warning(
                "the record of how the plan was verified has entries that this version does not know, and ignores: %s",
                ", ".join(unknown),
            )
        missing = next(
            (name for name, (*_, default) in declared.items() if default is MISSING and name not in body), None
        )
        if missing is not None:
            raise OptionError(f"{missing} is missing")
        return Verified(**{name: value for name, value in body.items() if name in declared})


# ---------------------------------------------------------------------------------------------- what is done otherwise


def correction_warnings(verified: Verified, samples: int | str | None, *, original: bool = True) -> Iterator[str]:
    """Yield a warning if reads are corrected otherwise than where a plan was verified.

    Parameters
    ----------
    verified : Verified
    samples : int, "gain" or None
        By how many samples; "gain" by the law of the channel, None if they are not corrected.
    original : bool
        Whether the original is known, which samples correct towards.
    """
    theirs, not_those = verified.corrected_by, "losses and cells are not those that were verified"
    if theirs is None:
        if samples is not None:
            yield f"correct is given, but the plan was verified without correction: {not_those}. Leave it out"
        return
    how = f"the plan was verified with correction by {counted(theirs, 'sample')}"
    if samples is None:
        yield (
            f"correct is left out, but {how}: without it, far more may be lost. Give it {counted(theirs, 'sample')}, "
            f"which need no labels{'' if original else ', and give reference, the original'}"
        )
    elif isinstance(samples, str):
        yield f"{how}, and here the law of the channel corrects: {not_those}. Give correct that many samples"
    elif samples != theirs:
        yield f"{how}, and here {samples:,} correct: {not_those}. Give it {theirs:,}"


def channel_warnings(verified: Verified, channels: str) -> Iterator[str]:
    """Yield a warning if cells are read through other channels, in words, than where a plan was verified."""
    if channels and channels != verified.channel:
        yield (
            f"the plan was verified in {verified.channel}, and here cells are read through {channels}: losses are not "
            "those that were verified"
        )


def input_warnings(verified: Verified, inputs: Inputs) -> Iterator[str]:
    """Yield a warning if inputs are made otherwise than where a plan was verified, as far as both are known."""
    there = verified.inputs
    if there.known and inputs.known and not there.alike(inputs):
        yield (
            f"inputs are not made as when the plan was verified: then {there.preprocessing}, now "
            f"{inputs.preprocessing}: give the same mean, std and preprocess"
        )
