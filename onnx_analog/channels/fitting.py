"""The fit of a channel to measured pairs: the number of neighbours, and a test of the normal law."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Doubles
from onnx_analog.channels.capacity import both
from onnx_analog.channels.estimate import Reads, knots_of
from onnx_analog.channels.measured import columns_of, read_pairs
from onnx_analog.channels.outliers import FAR, outlying
from onnx_analog.channels.pairs_csv import count_missing
from onnx_analog.channels.table import TableChannel
from onnx_analog.display import Shown, counted, finite
from onnx_analog.errors import MeasurementError
from onnx_analog.randomness import stream

logger = logging.getLogger(__name__)

FOLDS = 5
STEPS = 3  # of a fit: reading, choosing k, judging
_MOMENTS = 20  # reads from which on the law of skew and kurtosis is known well enough
_JUDGED = 512  # inputs at most
_ENOUGH = 200_000  # pairs; more would not change the choice
_CANDIDATES = (1, 3, 5, 9, 13, 21, 35, 55, 89, 145, 233, 377, 611, 987, 1597, 2585, 4181, 6765, 10947)
# All odd: an even k takes more neighbours on one side, which moves a mean that rises.


class Choice(NamedTuple):
    """k, and the mean negative log likelihood (nats a pair) of held-out reads for each k that was tried."""

    neighbours: int
    scores: dict[int, float]


def choose_neighbours(inputs: Doubles, outputs: Doubles, *, folds: int = FOLDS) -> Choice:
    """Return the k whose channel makes held-out reads most likely, by cross-validation.

    Parameters
    ----------
    inputs, outputs : float arrays of shape (pairs,)
        On the scale of -1 to 1. Of very many pairs a part is taken at random, always the same.
    folds : int, >= 2
        Pairs are dealt to so many folds at random, always in the same way. Devices are not: of the few that a file
        has, those that are left would know too little of how devices differ, and a k would win that only widens σ.
    """
    order = np.lexsort((outputs, inputs))
    rng = stream(0, 0, "cross-validation", plane="fold")
    if order.size > _ENOUGH:
        order = order[np.sort(rng.choice(order.size, _ENOUGH, replace=False))]
    inputs, outputs = inputs[order], outputs[order]
    fold = rng.permutation(inputs.size) % folds
    most = min(np.unique(inputs[fold != part]).size for part in range(folds)) // 2
    candidates = [k for k in _CANDIDATES if k <= max(1, most)]
    scores = {k: _score(inputs, outputs, fold, folds, k) for k in candidates}
    return Choice(min(scores, key=lambda k: (scores[k], k)), scores)


def _score(inputs: Doubles, outputs: Doubles, fold: NDArray[np.intp], folds: int, neighbours: int) -> float:
    import scipy.stats  # takes longer than all else that is imported here

    total = 0.0
    for part in range(folds):
        reads = Reads.of(inputs[fold != part], outputs[fold != part])
        knots = knots_of(reads.distinct)
        means, stds = reads.moments(knots, neighbours)
        x, y = inputs[fold == part], outputs[fold == part]
        std = np.interp(x, knots, stds)
        if (std <= 0).any():
            return float("inf")  # a single read has no spread, so every other is impossible
        total -= float(scipy.stats.norm.logpdf(y, np.interp(x, knots, means), std).sum())
    return total / inputs.size


@dataclass(frozen=True, kw_only=True)
class Goodness:
    """Tests of the normal law on the reads at each distinct input.

    Attributes
    ----------
    inputs : float array of shape (n,)
        On the scale of -1 to 1; those with 8 reads or more.
    skew, excess_kurtosis : float arrays of shape (n,)
        0 for a normal law.
    distance, p : float arrays of shape (n,)
        Kolmogorov-Smirnov distance of the standardised reads from the normal law, and its p-value. Mean and standard
        deviation are those of the same reads, so p is too large: what it rejects is certainly not normal.
    moments_p : float array of shape (n,)
        p-value of skew and kurtosis together (D'Agostino and Pearson 1973), which sees the tails that the distance does
        not; 1 where there are fewer than 20 reads.
    """

    inputs: Doubles
    skew: Doubles
    excess_kurtosis: Doubles
    distance: Doubles
    p: Doubles
    moments_p: Doubles

    @property
    def rejects(self) -> NDArray[np.bool_]:
        """Where the normal law is rejected at 1 % over all inputs and both tests together (Bonferroni), shape (n,)."""
        rejects: NDArray[np.bool_] = np.minimum(self.p, self.moments_p) < 0.01 / max(2 * self.p.size, 1)
        return rejects

    @property
    def rejected(self) -> float:
        """Share of inputs where the normal law is rejected."""
        return float(np.mean(self.rejects)) if self.p.size else 0.0

    def warning(self, shown: Callable[[float], str]) -> str | None:
        """Return a sentence that says where the normal law fails, with inputs as `shown`; None where it holds."""
        if not self.p.size:
            return "no input has 8 reads or more, too few to test whether they are normal. Read each input more often."
        if not self.rejected:
            return None
        many = f"{np.count_nonzero(self.rejects):,} of {counted(self.p.size, 'input')}"
        worst = int(np.argmin(np.maximum(self.p, 1e-300) * np.maximum(self.moments_p, 1e-300)))
        return (
            f"reads are not normal at {many} (worst at "
            f"{shown(float(self.inputs[worst]))}: skew {self.skew[worst]:z.1f}, "
            f"excess kurtosis {self.excess_kurtosis[worst]:z.1f}). Use empirical residuals."
        )


def goodness(inputs: Doubles, outputs: Doubles, *, neighbours: int = 1, least: int = 8) -> Goodness:
    """Return how normal the reads are that make the σ of an input: its own, or with k neighbours those of all of them.

    Inputs with fewer than `least` reads are passed over; of very many inputs, some are judged.
    """
    order = np.lexsort((outputs, inputs))
    reads = Reads.of(inputs[order], outputs[order])
    knots = reads.distinct[np.unique(np.linspace(0, reads.distinct.size - 1, _JUDGED).round().astype(np.intp))]
    parts = [reads.outputs[reads.window(knot, neighbours)] for knot in knots]
    rows = [_row(x, part) for x, part in zip(knots, parts, strict=True) if part.size >= least and np.ptp(part) > 0]
    names = ("inputs", "skew", "excess_kurtosis", "distance", "p", "moments_p")
    return Goodness(**dict(zip(names, np.array(rows).reshape(-1, len(names)).T, strict=True)))


def _row(x: float, reads: Doubles) -> list[float]:
    import scipy.stats  # likewise

    standard = (reads - reads.mean()) / reads.std()
    test = scipy.stats.kstest(standard, "norm")
    moments = [float(np.mean(standard**power)) for power in (3, 4)]
    moments_p = float(scipy.stats.normaltest(reads).pvalue) if reads.size >= _MOMENTS else 1.0
    return [x, moments[0], moments[1] - 3, float(test.statistic), float(test.pvalue), moments_p]


# ------------------------------------------------------------------------------------------------- a CSV file


@dataclass(frozen=True, kw_only=True, repr=False)
class Fit(Shown):
    """A channel from a CSV file, the pairs that it is made from, and how good it is.

    Attributes
    ----------
    channel : TableChannel
    inputs, outputs : float arrays of shape (pairs,)
        On the scale of -1 to 1.
    choice : Choice or None
        How k was chosen; None if it was given.
    goodness : Goodness
    missing : int
        Rows that were left out, as they lack a value.
    outliers : int
        Reads farther than `FAR` robust standard deviations (1.4826 times the median deviation) from the median of
        their input, of those with 8 reads or more: of cells that are stuck, for example. They are in the fit.
    left_out : int
        Such reads that are not in the fit.
    """

    channel: TableChannel
    inputs: Doubles
    outputs: Doubles
    choice: Choice | None
    goodness: Goodness
    missing: int = 0
    outliers: int = 0
    left_out: int = 0

    @property
    def warnings(self) -> list[str]:
        """What to know of the reads, in sentences; inputs are in the unit of the file."""
        scale = self.channel.input_scale
        found = [self.goodness.warning(lambda x: f"{float(scale.undo(np.array(x))):.6g} {scale.unit}")]
        off = f"off by more than {FAR:g} σ from the median of their input"
        if self.outliers:
            found.append(
                f"{counted(self.outliers, 'read')} of {self.inputs.size:,} {off}: are cells stuck? They widen σ, move "
                "means, and with them k, the output range and the capacity: give skip_outliers to leave them out"
            )
        if self.left_out:
            found.append(
                f"left out: {counted(self.left_out, 'read')} of {self.inputs.size + self.left_out:,} {off}. The "
                "channel does not tell how often cells fail like that"
            )
        return [text for text in found if text]

    def __str__(self) -> str:
        ends = "{:.4f} to {:.4f}".format(*self.channel.span)
        pairs = counted(self.inputs.size, "pair")
        return f"channel {self.channel.name} from {pairs}, k = {self.channel.neighbours}, output range {ends}"

    def levels(self) -> list[dict[str, float]]:
        """Return, for each input that was read often enough, what its reads are like: one row each.

        `mean` and `std` are on the scale of -1 to 1, `output_mean` and `output_spread` in the unit of the device: where
        the scale is logarithmic, a geometric mean and a factor.
        """
        good, scale, output = self.goodness, self.channel.input_scale, self.channel.output_scale
        means = np.interp(good.inputs, self.channel.inputs, self.channel.means)
        stds = np.interp(good.inputs, self.channel.inputs, self.channel.stds)
        columns = {
            "input": scale.undo(good.inputs),
            "output_mean": output.undo(means),
            "output_spread": output.spread(stds),
            "mean": means,
            "std": stds,
            "skew": good.skew,
            "excess_kurtosis": good.excess_kurtosis,
            "ks_distance": good.distance,
            "ks_p": good.p,
            "moments_p": good.moments_p,
        }
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def to_dict(self) -> dict[str, Any]:
        """Return the results of the fit, ready for JSON; the channel itself is in its own file."""
        scores = None if self.choice is None else _finite(self.choice.scores)
        capacities = both(self.channel)
        return {
            "name": self.channel.name,
            "input_unit": self.channel.input_scale.unit,
            "output_unit": self.channel.output_scale.unit,
            "output_log": self.channel.output_scale.log,
            "pairs": self.channel.pairs,
            "distinct_inputs": int(np.unique(self.inputs).size),
            "neighbours": self.channel.neighbours,
            "held_out_negative_log_likelihood": scores,
            "span": list(self.channel.span),
            "output_range": self.output_range,
            "capacity_bits_per_cell": capacities.normal,
            "capacity_bits_per_cell_measured": capacities.measured,
            "between_share": self.between_share,
            "rejected": self.goodness.rejected,
            "missing": self.missing,
            "outliers": self.outliers,
            "left_out": self.left_out,
            "levels": self.levels(),
        }

    @property
    def output_range(self) -> list[float]:
        """The span in the unit of the device."""
        ends: list[float] = self.channel.output_scale.undo(np.array(self.channel.span)).tolist()
        return ends

    @property
    def between_share(self) -> float | None:
        """Share of the variance that is between devices, over all inputs; None if devices were not told apart."""
        if not self.channel.between:
            return None
        return float(np.square(self.channel.between).sum() / np.square(self.channel.stds).sum())


def _finite(scores: dict[int, float]) -> dict[str, float | None]:
    """Return scores as JSON has them: null where a held-out read is impossible."""
    return {str(k): finite(score) for k, score in scores.items()}


def fit(
    path: str | os.PathLike[str],
    *,
    input: str,  # noqa: A002 - what the command line calls it
    output: str,
    log: bool = False,
    group: str | None = None,
    neighbours: int | None = None,
    skip_missing: bool = False,
    skip_outliers: bool = False,
    progress: Callable[[], None] = lambda: None,
) -> Fit:
    """Return the channel of a CSV file of pairs, k chosen by cross-validation unless `neighbours` is given.

    Parameters
    ----------
    path : path
        A file with a header line; lines that start with # are passed over.
    input, output : str
        Names of the two columns.
    log : bool
        Scale log10 of the output.
    group : str, optional
        Name of the column that says which device a pair was measured on.
    neighbours : int, >= 1, optional
    skip_missing : bool
        Leave out rows that lack a value in one of these columns: empty, or nan, NA, N/A or null.
    skip_outliers : bool
        Leave out reads that are far from the median of their input; see `Fit.outliers`.
    progress : function
        Called after each of the `STEPS` steps.

    Raises
    ------
    OptionError
        If `path` is no path.
    ChannelError
        If the file is not such a file, or its pairs describe no channel.
    """
    skip = {"skip_missing": skip_missing, "skip_outliers": skip_outliers}
    pairs, source, left_out = read_pairs(path, input=input, output=output, log=log, group=group, **skip)
    missing = count_missing(Path(path), columns_of(input, output, group)) if skip_missing else 0
    logger.info("read %s", counted(pairs.inputs.size, "pair"))
    progress()
    choice = None
    if neighbours is None:
        choice = choose_neighbours(pairs.inputs, pairs.outputs)
        neighbours = choice.neighbours
    logger.info("k = %d", neighbours)
    progress()
    channel = pairs.channel(neighbours, source=source)
    if not any(channel.stds):
        raise MeasurementError(
            f"{str(path)!r} shows no spread at any input: read each several times, or let neighbours share reads"
        )
    good = goodness(pairs.inputs, pairs.outputs, neighbours=neighbours)
    progress()
    return Fit(
        channel=channel, inputs=pairs.inputs, outputs=pairs.outputs, choice=choice, goodness=good,
        missing=missing, left_out=left_out,
        outliers=0 if skip_outliers else int(np.count_nonzero(outlying(pairs.inputs, pairs.outputs))),
    )  # fmt: skip
