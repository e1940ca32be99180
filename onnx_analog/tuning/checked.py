"""What `check` found, for consoles, notebooks and JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from onnx_analog.display import Shown, counted, percent_as_given, rounded_up, score
from onnx_analog.graph.correction import Cost, HasCorrection
from onnx_analog.graph.protected import ProtectedModel
from onnx_analog.tuning.gate import Decision
from onnx_analog.tuning.scale import DECIBELS, Scale, scale_of

_AS_NOW = "if they lose and vary as much"


def with_option(text: str) -> str:
    """Return what is said of a check with the option of the command line in place of the argument."""
    return text.replace("max_trials=", "--max-trials ").replace("max_trials", "--max-trials")


@dataclass(frozen=True, kw_only=True, repr=False)
class Checked(HasCorrection, Shown):
    """Whether a model survives a memory: the answer of a sequential test, and how sure it is.

    Attributes
    ----------
    decision : Decision
        Of losses as `onnx_analog.tuning.drops` has them: shares, or the noise in the outputs over their power.
    limit : float
        In the same unit.
    confidence : float
        Of the answer: a wrong "yes" has a chance of at most 1 - confidence, and so has a wrong "no".
    max_trials : int
        Trials after which the test gives up.
    alike : bool
        Whether all trials read the same, so that one decides.
    metric : str
    output : str or None
        That is measured.
    original : float or None
        The metric of the model that losses are counted from; None where outputs are compared with its own.
    against_original : bool
        Whether losses are counted from the original; else from the protected model, read without noise.
    channel : str
    cells_per_weight : float or None
        All-in cells per original weight, as the memory allows, with those of a correction; None if its channel is too
        noisy for a code.
    paper_cells_per_weight : float
        The same, as the paper counts.
    seed : int
    model : str or None
        Its file.
    preprocessing : str
        How images became inputs; empty if there were none.
    corrected_by : str or None
        What corrects each read.
    correction : Cost or None
        What the correction costs; None without one.
    warnings : tuple of str
    protected : ProtectedModel or None
        The model that was read, before any correction.
    """

    decision: Decision
    limit: float
    confidence: float
    max_trials: int
    alike: bool
    metric: str
    output: str | None
    original: float | None
    against_original: bool
    channel: str
    cells_per_weight: float | None
    paper_cells_per_weight: float
    seed: int
    model: str | None = None
    preprocessing: str = ""
    corrected_by: str | None = None
    correction: Cost | None = None
    warnings: tuple[str, ...] = field(default=())
    protected: ProtectedModel | None = field(default=None, compare=False)

    @property
    def holds(self) -> bool | None:
        """Whether the loss is within the limit; None if that is not decided."""
        return self.decision.holds

    @property
    def answer(self) -> str:
        """The answer in a word: "yes", "no" or "not decided"."""
        return {True: "yes", False: "no", None: "not decided"}[self.holds]

    @property
    def scale(self) -> Scale:
        """How losses are shown."""
        return scale_of(self.metric)

    @property
    def question(self) -> str:
        """What was asked, in words."""
        return self.scale.kept(self.limit)

    @property
    def verdict(self) -> str:
        """What was found, in words, without numbers."""
        if self.holds:
            return self.question
        broken = self.scale.broken(self.limit)
        return broken if self.holds is False else f"these data do not decide whether {broken}: {self._remedy}"

    @property
    def _remedy(self) -> str:
        needed = self.decision.needed
        if not self.decision.settled:
            return self._more_trials
        why = "all trials read the same" if self.alike else "more trials would not tell"
        if needed is None:
            return f"{why}: give more samples"
        if self.alike:
            return f"{why}, and about {rounded_up(needed):,} samples would be enough, if they lose as much"
        return f"{why}, and {self._more_samples(needed)} would be enough, {_AS_NOW}"

    def _more_samples(self, needed: int) -> str:
        return f"about {rounded_up(needed):,} samples in {counted(self.max_trials, 'trial')}"

    @property
    def _more_trials(self) -> str:
        """What to do where more trials may tell, in words."""
        count, needed = self.decision.trials_needed, self.decision.needed
        ways = []
        if count is not None:
            about = max(rounded_up(count), self.max_trials + 1)
            ways = [f"about {about:,} trials (max_trials={about})"]
        if needed is not None and needed > self.decision.samples:
            ways.append(self._more_samples(needed))
        if not ways:
            return f"more trials may tell: raise max_trials above {self.max_trials:,}"
        return f"{', or '.join(ways)}{',' * (len(ways) > 1)} would be enough, {_AS_NOW}"

    def __str__(self) -> str:
        """Return the answer in one line."""
        if self.holds is None:
            return f"{self.answer} whether {self.scale.broken(self.limit)} ({self.numbers}): {self._remedy}"
        return f"{self.answer}: {self.verdict} ({self.numbers})"

    @property
    def cells(self) -> str:
        """The cells per original weight, in words."""
        if self.cells_per_weight is None:
            return f"cells per weight: {self.paper_cells_per_weight:.3f} as the paper counts"
        return f"cells per weight: {self.cells_per_weight:.3f} as the memory allows"

    @property
    def whose(self) -> str:
        """Which model losses are counted from, in words."""
        return "original" if self.against_original else "stored, without noise"

    @property
    def of_original(self) -> str:
        """The metric of the model that losses are counted from, in words; empty where there is none."""
        if self.original is None:
            return ""
        return f"{self.whose}: {self.metric} {score(self.original, share=self.scale is not DECIBELS)}"

    @property
    def numbers(self) -> str:
        """The loss, the bounds that decide, their confidence, and on what they rest."""
        sure = f"with {percent_as_given(self.confidence)} confidence"
        low, high = self.scale.ends(self.decision.at_least, self.decision.at_most)
        if self.holds is None:
            bound = f"{self._bound('lower', low)}, {self._bound('upper', high)}, each {sure}"
        else:
            upper = self.holds != (self.scale is DECIBELS)
            bound = f"{self._bound('upper', high) if upper else self._bound('lower', low)} {sure}"
        used = f"{counted(self.decision.trials, 'trial')}, {counted(self.decision.samples, 'sample')}"
        finite = math.isfinite(self.decision.loss)
        found = f"{self.scale.mean} {self.scale.brief(self.decision.loss)}" if finite else "infinite noise"
        return f"{found}, {bound}; {used}"

    def _bound(self, name: str, loss: float) -> str:
        return f"{name} bound {self.scale.text(loss)}" if math.isfinite(loss) else f"no {name} bound"

    def _lines(self) -> Iterator[tuple[str, object]]:
        yield "answer", self.answer
        yield "question", self.question
        yield "found", self.numbers
        if self.holds is None:
            yield "verdict", self.verdict
        yield "channel", self.channel
        yield "cells per weight", "-" if self.cells_per_weight is None else f"{self.cells_per_weight:.3f}"
        yield "metric", self.metric
        if self.original is not None:
            yield (
                self.whose,
                score(self.original, share=self.scale is not DECIBELS),
            )
        if self.corrected is not None:
            yield "corrected", self.corrected
        for text in self.warnings:
            yield "warning", text

    def to_dict(self) -> dict[str, Any]:
        """Return all of it, ready for JSON; docs/gate.md lists the fields."""
        decision, decibels = self.decision, self.scale is DECIBELS
        low, high = self.scale.ends(decision.at_least, decision.at_most)
        return {
            "answer": self.answer,
            "holds": self.holds,
            "verdict": self.verdict,
            "line": str(self),
            "metric": self.metric,
            "output": self.output,
            "max_points_lost": None if decibels else self.scale.value(self.limit),
            "min_sqnr_db": self.scale.value(self.limit) if decibels else None,
            "sqnr_db" if decibels else "points_lost": self.scale.number(decision.loss),
            "at_least": self.scale.number(low),
            "at_most": self.scale.number(high),
            "confidence": self.confidence,
            "samples": decision.samples,
            "trials": decision.trials,
            "max_trials": self.max_trials,
            "trials_alike": self.alike,
            "more_trials_may_tell": self.holds is None and not decision.settled,
            "samples_needed": decision.needed,
            "trials_needed": decision.trials_needed,
            "original": self.original,
            "against_original": self.against_original,
            "channel": self.channel,
            "cells_per_weight": self.cells_per_weight,
            "paper_cells_per_weight": self.paper_cells_per_weight,
            "corrected_by": self.corrected_by,
            "correction_numbers": 0 if self.correction is None else self.correction.numbers,
            "seed": self.seed,
            "model": self.model,
            "preprocessing": self.preprocessing,
            "version": version("onnx-analog"),
            "warnings": list(self.warnings),
        }
