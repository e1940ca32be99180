"""What is left of a network: onnxruntime over a data set, once clean and once for each trial.

Levels are read and decoded outside the graph, into buffers that are used again from trial to trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from loky import cpu_count
from numpy.typing import NDArray

from onnx_analog.coding.partition import Bits, Bytes
from onnx_analog.coding.planes import of_each
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import DataError, ModelError, OptionError, whole
from onnx_analog.graph.reader import Reader, read_side
from onnx_analog.graph.stored import StoredTensor
from onnx_analog.randomness import blocks
from onnx_analog.run import metrics
from onnx_analog.run.data import Dataset
from onnx_analog.run.session import BATCH, Network

Array = NDArray[Any]
Progress = Callable[[], None]

LOOKED_UP = 2**24  # weights; for larger tensors α and β are looked up, and not kept for each weight


class Decoder:
    """Weights of one tensor as trials read them: the same bits as `ReadbackPass` and the graph give.

    What does not depend on the trial (σ/√r, β, signed α, positions) and the dense buffer are kept, so a trial costs
    one draw, four passes over the stored weights, and one scatter, all of it block by block, in the processor's cache.
    The array that is returned is used again by the next call.

    Parameters
    ----------
    tensor : StoredTensor
    scheme : Scheme, optional
        The tensor's own, unless it is read through another channel.
    """

    def __init__(self, tensor: StoredTensor, scheme: Scheme | None = None) -> None:
        self._scheme = scheme or tensor.scheme
        self._reader = Reader(tensor, self._scheme)
        self._tensor = tensor
        self._alpha: _Kept | _LookedUp
        self._beta: _Kept | _LookedUp
        self._set_side(tensor.sign, tensor.class_index)
        self._dense = np.zeros(tensor.size, np.float32)
        places = None if tensor.mask is None else np.flatnonzero(tensor.mask)
        if tensor.analog is not None:
            stored = np.arange(tensor.count) if places is None else places
            self._set_points(stored)
            places = stored[tensor.analog]
        self._places = places
        self._shape, self._dtype = tensor.shape, tensor.dtype.numpy()

    def _set_side(self, sign: Bits | None, class_index: Bytes | None) -> None:
        """Look α and β up for signs and classes (N,): for the weights that have cells, and for those that have none."""
        tensor, analog = self._tensor, self._tensor.analog
        self._sign, self._class_index = sign, class_index
        group = tensor.group
        if analog is not None:
            sign = None if sign is None else sign[analog]
            class_index = None if class_index is None else class_index[analog]
            group = None if group is None else group[analog]
        if tensor.count > LOOKED_UP and group is None and not (sign is None and class_index is None):
            none = np.zeros(self._reader.size, np.uint8)
            code = (none if class_index is None else class_index).astype(np.uint16)
            code = 2 * code + (none if sign is None else sign)
            self._alpha = _LookedUp(np.stack([tensor.alpha[0], -tensor.alpha[0]], axis=1).reshape(-1), _narrow(code))
            self._beta = _LookedUp(np.repeat(tensor.beta[0], 2), _narrow(code))
            return
        alpha = of_each(tensor.alpha, class_index, group)
        self._alpha = _Kept(alpha if sign is None else np.where(sign, -alpha, alpha))
        self._beta = _Kept(of_each(tensor.beta, class_index, group))

    def _set_points(self, stored: NDArray[np.int64]) -> None:
        """Put the weights without cells in their places (N,): no read of a level changes them."""
        tensor = self._tensor
        self._stored = stored
        none = np.zeros(tensor.level.size, np.float32)
        points = tensor.unlevel(none, sign=self._sign, class_index=self._class_index)
        assert tensor.analog is not None
        self._dense[stored[~tensor.analog]] = points[~tensor.analog]

    def weights(self, *, seed: int, trial: int) -> Array:
        """Return the weight of one trial, in its own shape and type."""
        return read_all({"": self}, seed=seed, trial=trial)[""]

    def begin(self, *, seed: int, trial: int) -> list[Callable[[], None]]:
        """Return the parts of the work of one trial, which may be done in any order, and by many threads."""
        if self._scheme.side is not None:
            self._set_side(*read_side(self._tensor, seed=seed, trial=trial, scheme=self._scheme))
            if self._tensor.analog is not None:
                self._set_points(self._stored)
        parts = enumerate(blocks(self._reader.size))
        return [partial(self._read, number, block, seed, trial) for number, block in parts]

    def _read(self, number: int, block: slice, seed: int, trial: int) -> None:
        level = self._dense[block] if self._places is None else np.empty(block.stop - block.start, np.float32)
        self._reader.read_block(number, block, seed=seed, trial=trial, out=level)
        level += self._beta[block]
        level /= self._alpha[block]
        level += 0  # -0 becomes +0, as in onnxruntime
        if self._places is not None:
            self._dense[self._places[block]] = level

    def end(self) -> Array:
        """Return the weight when all parts are done."""
        dense: Array = self._dense.reshape(self._shape).astype(self._dtype, copy=False)
        return dense


def _narrow(code: NDArray[np.uint16]) -> NDArray[Any]:
    """Return codes in one byte each where they fit."""
    return code.astype(np.uint8) if not code.size or code.max() < 256 else code


class _Kept:
    """One value for all weights, or one for each (N,)."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __getitem__(self, block: slice) -> Any:
        return self._values[block] if np.ndim(self._values) else self._values


class _LookedUp:
    """The same, as a table and a byte for each weight: a little slower, and a quarter of the memory."""

    def __init__(self, table: NDArray[np.float32], code: NDArray[Any]) -> None:
        self._table, self._code = table, code

    def __getitem__(self, block: slice) -> NDArray[np.float32]:
        return np.take(self._table, self._code[block], mode="clip")


def read_all(
    decoders: Mapping[str, Decoder], *, seed: int, trial: int, threads: Executor | None = None
) -> dict[str, Array]:
    """Return the weights of one trial by name: the same bytes whatever the number of threads."""
    parts = [part for decoder in decoders.values() for part in decoder.begin(seed=seed, trial=trial)]
    for _ in (map if threads is None else threads.map)(_call, parts):
        pass
    return {name: decoder.end() for name, decoder in decoders.items()}


def _call(part: Callable[[], None]) -> None:
    part()


class Trial(NamedTuple):
    """What one trial gave: the metric, and the signal-to-noise ratio of the outputs that it reads, in dB.

    Either may be NaN: where there is no such number, as no ratio of whole numbers.
    """

    value: float
    sqnr_db: float


class Trials:
    """Trials of one protected model on one data set; what does not depend on the trial is computed once.

    Parameters
    ----------
    network : Network
        Of the protected model.
    data : Dataset
    schemes : sequence of Scheme
        How each tensor is read, by the number of its scheme in the model.
    metric : function
        See `onnx_analog.run.metrics`. What `metrics.choose` returns is given the outputs that it reads, and any other
        function all of them.
    clean : list of outputs
        The same outputs without noise.
    batch : int, >= 1
        Samples a call.
    """

    def __init__(
        self,
        network: Network,
        data: Dataset,
        schemes: Sequence[Scheme],
        metric: metrics.Function,
        clean: list[Any],
        *,
        batch: int = BATCH,
    ) -> None:
        self._network, self._data, self._metric, self._clean, self._batch = network, data, metric, clean, batch
        self._places = metric.places if isinstance(metric, metrics.Chosen) else None
        self._decoders = {name: Decoder(tensor, schemes[tensor.number]) for name, tensor in network.tensors.items()}
        count = network.threads or cpu_count()
        self._threads = ThreadPoolExecutor(count) if count > 1 else None

    def run(self, *, seed: int, trial: int) -> Trial:
        """Return what is left of the network in one programming and one read of its memory."""
        weights = read_all(self._decoders, seed=seed, trial=trial, threads=self._threads)
        outputs = self._network.run(self._data, weights, batch=self._batch, places=self._places)
        value = float(self._metric(outputs, labels=self._data.labels, clean=self._clean))
        return Trial(value, metrics.output_sqnr_db(outputs, self._clean))


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A metric without noise and in each trial.

    Attributes
    ----------
    metric : str
    samples : int
    clean : float or None
        The model without noise; None where the metric compares with it and so says nothing.
    values : tuple of float
        One for each trial.
    reference : float or None
        The original model, before pruning and protection.
    sqnr_db : tuple of float
        Signal-to-noise ratio in each trial, in dB, of what the outputs that are measured have of floats; NaN for none.
    seed : int
    output : str or None
        Name of the output that is measured; None where a function of the user's is given all of them.
    class_axis : int or None
        Axis of that output along which the metric reads classes.
    share : bool
        Values lie in [0, 1].
    higher_is_better : bool or None
        None where it is not known.
    compares : bool
        The metric compares with the outputs without noise.
    at_least, at_most : float or None
        What the lower, or upper, end of the interval is to reach; without an interval, the mean or the clean value.
    preprocessing : str
        How the inputs were made, in words.
    warnings : tuple of str
        What to doubt.
    model, channel : str or None
        Name of the model, and of the channel that its cells are read with.
    """

    metric: str
    samples: int
    clean: float | None
    values: tuple[float, ...]
    reference: float | None = None
    sqnr_db: tuple[float, ...] = ()
    seed: int = 0
    output: str | None = None
    class_axis: int | None = None
    share: bool | None = None
    higher_is_better: bool | None = None
    compares: bool = False
    at_least: float | None = field(default=None, compare=False)
    at_most: float | None = field(default=None, compare=False)
    preprocessing: str = field(default="", compare=False)
    warnings: tuple[str, ...] = field(default=(), compare=False)
    model: str | None = field(default=None, compare=False)
    channel: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        known = metrics.METRICS.get(self.metric)
        for name in ("share", "higher_is_better"):
            if getattr(self, name) is None and known is not None:
                object.__setattr__(self, name, getattr(known, name))

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which numbers every value lies."""
        known = metrics.METRICS.get(self.metric)
        return (0.0, 1.0) if self.share else (-math.inf, math.inf) if known is None else known.bounds

    @property
    def mean(self) -> float | None:
        """Mean over trials; None without trials."""
        return float(np.mean(self.values)) if self.values else None

    @property
    def std(self) -> float | None:
        """Standard deviation over trials, ddof = 1; None for fewer than two."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else None

    @property
    def ci95(self) -> tuple[float, float] | None:
        """95 % interval of the mean over trials; see `interval`. The error of a finite test set is not in it."""
        return interval(self.values, bounds=self.bounds)

    @property
    def drop(self) -> float | None:
        """Value without noise minus mean with noise, on the same samples; None without either."""
        return None if self.clean is None or self.mean is None else self.clean - self.mean

    @property
    def drop_ci95(self) -> tuple[float, float] | None:
        """95 % interval of the drop over trials."""
        ends = self.ci95
        return None if ends is None or self.clean is None else (self.clean - ends[1], self.clean - ends[0])

    @property
    def test_set_error(self) -> float | None:
        """Standard error √(p·(1 - p)/n) of a share p from the choice of the n samples; None for 0, 1 and no share."""
        value = self.clean if self.mean is None else self.mean
        if not self.share or value is None or not 0 < value < 1:
            return None
        return math.sqrt(value * (1 - value) / self.samples)

    @property
    def holds(self) -> bool | None:
        """Whether the value is as high or as low as was asked; None if nothing was."""
        return None if self.at_least is None and self.at_most is None else not self._failures()

    @property
    def verdict(self) -> str | None:
        """Say whether the value is as high or as low as was asked; None if nothing was."""
        if self.at_least is None and self.at_most is None:
            return None
        failures = self._failures()
        asked = [f"at least {self.at_least:g}"] if self.at_least is not None else []
        asked += [f"at most {self.at_most:g}"] if self.at_most is not None else []
        return "; ".join(failures) if failures else f"{self.metric} is {' and '.join(asked)}"

    def _failures(self) -> list[str]:
        found = []
        for asked, end, name in ((self.at_least, 0, "lower"), (self.at_most, 1, "upper")):
            if asked is None:
                continue
            reached, what = self._reached(end, name)
            if reached is None:
                found.append(f"{self.metric} compares with the model without noise: without trials there is no value")
            elif math.isnan(reached):
                found.append(f"{what} is not a number, so it cannot be compared with {asked}")
            elif not (reached >= asked if end == 0 else reached <= asked):
                found.append(f"{what} is {round(reached, 6)}, {'below' if end == 0 else 'above'} {asked}")
        return found

    def _reached(self, end: int, name: str) -> tuple[float | None, str]:
        if self.ci95 is not None:
            return self.ci95[end], f"the {name} end of the 95 % interval of {self.metric}"
        if self.mean is not None:
            return self.mean, f"{self.metric}, mean of {len(self.values)} trial{'s' * (len(self.values) > 1)},"
        return (None if self.compares else self.clean), self.metric

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation, ready for JSON; numbers that JSON does not have are null."""
        return {
            "metric": self.metric,
            "output": self.output,
            "class_axis": self.class_axis,
            "share": bool(self.share),
            "higher_is_better": self.higher_is_better,
            "samples": self.samples,
            "clean": _finite(self.clean),
            "trials": len(self.values),
            "mean": _finite(self.mean),
            "std": _finite(self.std),
            "ci95": _ends(self.ci95),
            "drop": _finite(self.drop),
            "drop_ci95": _ends(self.drop_ci95),
            "test_set_error": self.test_set_error,
            "values": [_finite(value) for value in self.values],
            "reference": _finite(self.reference),
            "sqnr_db": [_finite(value) for value in self.sqnr_db],
            "seed": self.seed,
            "model": self.model,
            "channel": self.channel,
            "preprocessing": self.preprocessing,
            "version": version("onnx-analog"),
            "at_least": self.at_least,
            "at_most": self.at_most,
            "holds": self.holds,
            "verdict": self.verdict,
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        return self.told(self.ci95)

    @property
    def title(self) -> str:
        """Say what is measured: metric, output, axis of classes, number of samples."""
        parts = [] if self.output is None else [f"output {self.output!r}"]
        parts += [] if self.class_axis is None else [f"class axis {self.class_axis}"]
        return f"{self.heading}{' (' * bool(parts)}{', '.join(parts)}{')' * bool(parts)}"

    @property
    def heading(self) -> str:
        """Say what is measured: metric and number of samples."""
        return f"{self.metric} on {self.samples:,} sample{'s' * (self.samples > 1)}"

    def told(self, ci95: tuple[float, float] | None) -> str:
        """Return the evaluation as one line, with this 95 % interval."""
        parts = [] if self.reference is None else [f"original {self.reference:.4f}"]
        parts += [] if self.clean is None else [f"without noise {self.clean:.4f}"]
        if self.mean is not None:
            parts.append(f"with noise {self.mean:.4f} ({self.spread(ci95)})")
        return f"{self.title}: {', '.join(parts)}"

    def spread(self, ci95: tuple[float, float] | None) -> str:
        """Return what is known of the error of the mean over trials."""
        count = f"{len(self.values)} trial{'s' * (len(self.values) > 1)}"
        if ci95 is not None and all(map(math.isfinite, ci95)):
            return f"95 % interval {ci95[0]:.4f} to {ci95[1]:.4f}, {count}"
        alike = ", all alike" if len(self.values) > 1 and len(set(self.values)) == 1 else ""
        return f"{count}{alike}: no interval"


def interval(
    values: Sequence[float], confidence: float = 0.95, *, bounds: tuple[float, float] | None = None
) -> tuple[float, float] | None:
    """Return Student's t interval of the mean of `values`.

    None for fewer than two, and where all are the same: how far they scatter cannot be told then, and a width of 0
    would be wrong.

    It holds the mean in 95 % of cases where values scatter evenly about it. In simulations with 3 to 25 trials, cut
    off at 0 and 1, it did so in at least 94 % for shares whose samples err independently (0.5 to 0.999, of 50 or 1,000
    samples). It misses more often where values are skewed: in 18 % of cases with 3 trials and 10 % with 25 where the
    standard deviation of the loss is 1.4 times its mean, and in 94 to 60 % where one trial in fifty collapses, for most
    runs see no such trial.

    Parameters
    ----------
    values : sequence of float
    confidence : float, 0 < confidence < 1
    bounds : (low, high), optional
        Between which each value lies by its nature, as (0, 1) for a share. The mean lies there too, so the interval is
        cut off at both, which makes it miss no more often.

    Examples
    --------
    >>> [round(end, 4) for end in interval([1.0, 2.0, 3.0])]  # 2 ± 4.3027 · 1/√3
    [-0.4841, 4.4841]
    >>> [round(end, 4) for end in interval([0.5, 0.9], bounds=(0, 1))]
    [0.0, 1.0]
    """
    if len(values) < 2 or (math.isfinite(values[0]) and len(set(values)) == 1):
        return None
    with np.errstate(invalid="ignore"):  # of values that are infinite it is not a number
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    reach = float(scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1)) * error
    low, high = bounds or (-math.inf, math.inf)
    mean = float(np.mean(values))
    return float(np.maximum(mean - reach, low)), float(np.minimum(mean + reach, high))


def _ends(ends: tuple[float, float] | None) -> list[float] | None:
    return list(ends) if ends is not None and all(map(math.isfinite, ends)) else None


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def measure(
    network: Network,
    data: Dataset,
    *,
    metric: metrics.Named | None = None,
    output: str | None = None,
    class_axis: int | None = None,
    batch: int = BATCH,
    clean: list[Any] | None = None,
) -> tuple[metrics.Chosen, list[Any]]:
    """Return the metric that fits network and data, and the outputs without noise that it reads.

    Parameters are those of `evaluate`; `onnx_analog.run.metrics.choose` says how the metric is chosen, and what is
    raised.
    """
    fields = network.outputs
    if clean is not None and len(clean) != len(fields):
        raise DataError(f"there are {len(clean)} outputs without noise, and the model has {len(fields)}")
    held: dict[int, Any] = dict(enumerate(clean or ()))

    def fetch(place: int) -> Any:
        if place not in held:
            (held[place],) = network.run(data, batch=batch, places=[place])
        return held[place]

    chosen = metrics.choose(
        fields,
        fetch,
        data.labels,
        samples=len(data),
        named=metric,
        output=output,
        class_axis=class_axis,
        one_by_one=data.one_by_one,
        dynamic=frozenset(side for wanted in network.inputs for side in wanted.shape if isinstance(side, str)),
    )
    if chosen.places is None:
        return chosen, network.run(data, batch=batch) if clean is None else clean
    return chosen, [fetch(place) for place in chosen.places]


def evaluate(
    network: Network,
    data: Dataset,
    schemes: Sequence[Scheme] | None,
    *,
    trials: int,
    seed: int = 0,
    metric: metrics.Named | None = None,
    output: str | None = None,
    class_axis: int | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    batch: int = BATCH,
    clean: list[Any] | None = None,
    reference: Network | None = None,
    model: str | None = None,
    progress: Progress = lambda: None,
) -> Evaluation:
    """Return `metric` of `network` on `data`: without noise, and in `trials` trials of its memory.

    Parameters
    ----------
    network : Network
    data : Dataset
    schemes : sequence of Scheme, or None
        How each tensor is read, by the number of its scheme in the model; None for a plain model, which has no trials.
    trials : int, >= 0
    seed : int, >= 0
    metric : (name, function), optional
        The default is the one that fits the data; see `onnx_analog.run.metrics`.
    output : str, optional
        Name of the output that is measured.
    class_axis : int, optional
        Axis of that output which holds the classes.
    at_least, at_most : float, optional
        What the value is to reach; see `Evaluation`.
    batch : int, >= 1
        Samples a call, unless the model fixes it.
    clean : list of outputs, optional
        What `network.run(data)` returns without noise, where it is known already: it is one trial's work.
    reference : Network, optional
        The original model, before pruning and protection.
    model : str, optional
        Name of the model.
    progress : function
        Called after each trial.
    """
    for name, count, least in (("trials", trials, 0), ("seed", seed, 0), ("batch", batch, 1)):
        if whole(name, count) < least:
            raise OptionError(f"{name} is {count}; it must be {least} or more")
    if at_least is not None or at_most is not None:
        _check_named(metric, at_least, at_most)
    chosen, clean = measure(
        network, data, metric=metric, output=output, class_axis=class_axis, batch=batch, clean=clean
    )
    check_limits(chosen.metric, at_least, at_most)
    alone = clean_value(chosen, data, clean)
    original = None if reference is None else _original(reference, data, clean, chosen, batch)
    found: list[Trial] = []
    if schemes is not None and trials:
        experiment = Trials(network, data, schemes, chosen, clean, batch=batch)
        for trial in range(trials):
            found.append(experiment.run(seed=seed, trial=trial))
            progress()
    values = tuple(one.value for one in found)
    return Evaluation(
        metric=chosen.metric.name,
        samples=len(data),
        clean=alone,
        values=values,
        reference=original,
        sqnr_db=tuple(one.sqnr_db for one in found),
        seed=seed,
        output=chosen.output,
        class_axis=chosen.class_axis,
        share=chosen.metric.share,
        higher_is_better=chosen.metric.higher_is_better,
        compares=chosen.compares,
        at_least=at_least,
        at_most=at_most,
        preprocessing=data.preprocessing,
        warnings=tuple(doubts(chosen, len(data), clean, alone, original, values)),
        model=model,
        channel=None if schemes is None else ", ".join(dict.fromkeys(str(scheme.channel) for scheme in schemes)),
    )


def clean_value(chosen: metrics.Chosen, data: Dataset, clean: list[Any]) -> float | None:
    """Return the metric without noise; None where it compares with that, and is no share."""
    if chosen.compares and not chosen.metric.share:
        return None
    return float(chosen(clean, labels=data.labels, clean=clean))


def _check_named(metric: metrics.Named | None, at_least: float | None, at_most: float | None) -> None:
    if metric is not None:  # before anything is computed
        check_limits(metrics.described(metric), at_least, at_most)


def check_limits(metric: metrics.Metric, at_least: float | None, at_most: float | None) -> None:
    """Raise `OptionError` unless `at_least` and `at_most` can be asked of a metric."""
    for name, asked in (("at-least", at_least), ("at-most", at_most)):
        if asked is not None and not (_is_number(asked) and math.isfinite(asked)):
            raise OptionError(f"--{name} is {asked!r}; it must be a finite number")
        if asked is not None and metric.share and not 0 <= asked <= 1:
            raise OptionError(f"--{name} is {asked:g}, and {metric.name} is a share from 0 to 1: 0.9 is 90 %")
    if at_least is not None and metric.higher_is_better is False:
        raise OptionError(f"lower is better for {metric.name}: ask for --at-most")
    if at_most is not None and metric.higher_is_better is True:
        raise OptionError(f"higher is better for {metric.name}: ask for --at-least")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


_FAR = 0.1  # by which a share without noise is far below the original's
_ENOUGH = 30  # samples, of which an accuracy can be told from chance


def doubts(
    chosen: metrics.Chosen,
    samples: int,
    clean: list[Any],
    alone: float | None,
    original: float | None,
    values: Sequence[float],
) -> list[str]:
    """Return what to doubt of an evaluation, each as a sentence."""
    found = []
    if chosen.output is not None and not _has_axis_of(clean[0], samples):
        found.append(f"output {chosen.output!r} has no axis of samples, so its values may depend on --batch")
    nan = metrics.nan_share(clean)
    if nan:
        found.append(f"{nan:.1%} of the outputs without noise are NaN")
    if chosen.metric.name == "top1" and chosen.classes and samples >= _ENOUGH and alone is not None:
        chance = 1 / chosen.classes
        if alone <= chance + 2 * math.sqrt(chance * (1 - chance) / samples):
            found.append(
                f"top1 without noise is {alone:.4f}, no better than chance ({chance:.4f} of {chosen.classes} classes): "
                "check --mean, --std, --preprocess and the labels"
            )
    if chosen.metric.share and alone is not None and original is not None and alone < original - _FAR:
        found.append(
            f"{chosen.metric.name} without noise is {alone:.4f}, far below the original's {original:.4f}: what is lost "
            "is not lost to noise"
        )
    found += _of_nan(chosen, values)
    return found


def _of_nan(chosen: metrics.Chosen, values: Sequence[float]) -> Iterator[str]:
    count = sum(map(math.isnan, values))
    if count and chosen.metric.name == "agreement":
        yield (
            "agreement says nothing here: all largest scores stayed the same although noise changed the scores by more "
            "than themselves. Name sqnr_db with --metric, or give labels"
        )
    elif count:
        why = ": outputs are NaN, or noise changed their shape" if chosen.metric.name in metrics.METRICS else ""
        yield f"{chosen.metric.name} has no value (NaN) in {count:,} of {len(values):,} trials{why}"


def _has_axis_of(output: Any, samples: int) -> bool:
    """Return whether an output, or each part of a sequence, has an entry for each sample."""
    if isinstance(output, np.ndarray):
        return samples in output.shape
    if not isinstance(output, list) or len(output) == samples:
        return isinstance(output, list)
    return all(isinstance(one, np.ndarray) and samples in one.shape for one in output)


def _original(reference: Network, data: Dataset, clean: list[Any], metric: metrics.Chosen, batch: int) -> float:
    if metric.places is not None and max(metric.places) >= len(reference.outputs):
        raise ModelError("the reference has fewer outputs than the model: it is not its original")
    outputs = reference.run(data, batch=batch, places=metric.places)
    if [_shape(output) for output in clean] != [_shape(output) for output in outputs]:
        raise ModelError("the reference has outputs of other shapes than the model: it is not its original")
    return float(metric(outputs, labels=data.labels, clean=clean))


def _shape(output: Any) -> Any:
    return output.shape if isinstance(output, np.ndarray) else len(output)
