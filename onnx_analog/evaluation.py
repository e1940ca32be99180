"""What is left of a network: onnxruntime over a data set, once clean and once for each trial.

Levels are read and decoded outside the graph, into buffers that are used again from trial to trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.stats
from loky import cpu_count
from numpy.typing import NDArray

from onnx_analog import metrics
from onnx_analog.data import Dataset
from onnx_analog.encoding import Bits, Bytes, of_each
from onnx_analog.errors import ModelError, OptionError
from onnx_analog.network import BATCH, Network
from onnx_analog.randomness import blocks
from onnx_analog.stored import Protection, Reader, StoredTensor, read_header

Array = NDArray[Any]
Progress = Callable[[], None]

LOOKED_UP = 2**24  # weights; for larger tensors α and β are looked up, and not kept for each weight


class Decoder:
    """Weights of one tensor as trials read them: the same bits as `ReadbackPass` and the graph give.

    What does not depend on the trial (σ/√r, β, signed α, positions) and the dense buffer are kept, so a trial costs
    one draw, four passes over the stored weights, and one scatter, all of it block by block, in the processor's cache.
    The array that is returned is used again by the next call.
    """

    def __init__(self, tensor: StoredTensor, protection: Protection) -> None:
        self._reader = Reader(tensor, protection)
        self._tensor, self._protection = tensor, protection
        self._alpha: _Kept | _LookedUp
        self._beta: _Kept | _LookedUp
        self._set_header(tensor.sign, tensor.class_index)
        self._dense = np.zeros(tensor.size, np.float32)
        self._places = None if tensor.mask is None else np.flatnonzero(tensor.mask)
        self._shape, self._dtype = tensor.shape, tensor.dtype.numpy()

    def _set_header(self, sign: Bits | None, class_index: Bytes | None) -> None:
        alpha, beta = self._tensor.alpha, self._tensor.beta
        if self._tensor.count > LOOKED_UP and not (sign is None and class_index is None):
            none = np.zeros(self._tensor.count, np.uint8)
            code = 2 * (none if class_index is None else class_index) + (none if sign is None else sign)
            self._alpha = _LookedUp(np.stack([alpha, -alpha], axis=1).reshape(-1), code)
            self._beta = _LookedUp(np.repeat(beta, 2), code)
            return
        alpha = of_each(alpha, class_index)
        self._alpha = _Kept(alpha if sign is None else np.where(sign, -alpha, alpha))
        self._beta = _Kept(of_each(beta, class_index))

    def weights(self, *, seed: int, trial: int) -> Array:
        """Return the weight of one trial, in its own shape and type."""
        return read_all({"": self}, seed=seed, trial=trial)[""]

    def begin(self, *, seed: int, trial: int) -> list[Callable[[], None]]:
        """Return the parts of the work of one trial, which may be done in any order, and by many threads."""
        if self._protection.header is not None:
            self._set_header(*read_header(self._tensor, self._protection, seed=seed, trial=trial))
        parts = enumerate(blocks(self._tensor.count))
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


class _Kept:
    """One value for all weights, or one for each (N,)."""

    def __init__(self, values: Any) -> None:
        self._values = values

    def __getitem__(self, block: slice) -> Any:
        return self._values[block] if np.ndim(self._values) else self._values


class _LookedUp:
    """The same, as a table and a byte for each weight: a little slower, and a quarter of the memory."""

    def __init__(self, table: NDArray[np.float32], code: NDArray[np.uint8]) -> None:
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
    """What one trial gave: the metric, and the signal-to-noise ratio of the outputs in dB."""

    value: float
    sqnr_db: float


class Trials:
    """Trials of one protected model on one data set; what does not depend on the trial is computed once.

    Parameters
    ----------
    network : Network
        Of the protected model.
    data : Dataset
    protection : Protection
    metric : function
        See `onnx_analog.metrics`.
    clean : list of arrays
        The outputs without noise.
    batch : int, >= 1
        Samples a call.
    """

    def __init__(
        self,
        network: Network,
        data: Dataset,
        protection: Protection,
        metric: metrics.Metric,
        clean: list[Array],
        *,
        batch: int = BATCH,
    ) -> None:
        self._network, self._data, self._metric, self._clean, self._batch = network, data, metric, clean, batch
        self._decoders = {name: Decoder(tensor, protection) for name, tensor in network.tensors.items()}
        count = network.threads or cpu_count()
        self._threads = ThreadPoolExecutor(count) if count > 1 else None

    def run(self, *, seed: int, trial: int) -> Trial:
        """Return what is left of the network in one programming and one read of its memory."""
        weights = read_all(self._decoders, seed=seed, trial=trial, threads=self._threads)
        outputs = self._network.run(self._data, weights, batch=self._batch)
        value = float(self._metric(outputs, labels=self._data.labels, clean=self._clean))
        return Trial(value, metrics.sqnr_db(outputs, clean=self._clean))


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
        Signal-to-noise ratio of the outputs in each trial, in dB.
    seed : int
    """

    metric: str
    samples: int
    clean: float | None
    values: tuple[float, ...]
    reference: float | None = None
    sqnr_db: tuple[float, ...] = ()
    seed: int = 0

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
        """95 % interval of the mean, Student's t over trials; the error of a finite test set is not in it."""
        return interval(self.values)

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation, ready for JSON; numbers that JSON does not have are null."""
        return {
            "metric": self.metric,
            "samples": self.samples,
            "clean": _finite(self.clean),
            "trials": len(self.values),
            "mean": _finite(self.mean),
            "std": _finite(self.std),
            "ci95": list(self.ci95) if self.ci95 is not None and all(map(math.isfinite, self.ci95)) else None,
            "values": [_finite(value) for value in self.values],
            "reference": _finite(self.reference),
            "sqnr_db": [_finite(value) for value in self.sqnr_db],
            "seed": self.seed,
        }

    def __str__(self) -> str:
        return self.told(self.ci95)

    def told(self, ci95: tuple[float, float] | None) -> str:
        """Return the evaluation as one line, with this 95 % interval."""
        parts = [f"{self.metric} on {self.samples:,} samples:"]
        parts += [] if self.reference is None else [f"original {self.reference:.4f},"]
        parts += [] if self.clean is None else [f"without noise {self.clean:.4f}"]
        if self.mean is not None:
            parts.append(f"with noise {self.mean:.4f}")
        if ci95 is not None:
            parts.append(f"(95 % interval {ci95[0]:.4f} to {ci95[1]:.4f}, {len(self.values)} trials)")
        return " ".join(parts)


def interval(values: Sequence[float], share: float = 0.95) -> tuple[float, float] | None:
    """Return Student's t interval of the mean of `values`; None for fewer than two.

    Examples
    --------
    >>> [round(end, 4) for end in interval([1.0, 2.0, 3.0])]  # 2 ± 4.3027 · 1/√3
    [-0.4841, 4.4841]
    """
    if len(values) < 2:
        return None
    with np.errstate(invalid="ignore"):  # of values that are infinite it is not a number
        error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    reach = float(scipy.stats.t.ppf((1 + share) / 2, len(values) - 1)) * error
    return float(np.mean(values)) - reach, float(np.mean(values)) + reach


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def evaluate(
    network: Network,
    data: Dataset,
    protection: Protection | None,
    *,
    trials: int,
    seed: int = 0,
    metric: tuple[str, metrics.Metric] | None = None,
    batch: int = BATCH,
    clean: list[Array] | None = None,
    reference: Network | None = None,
    progress: Progress = lambda: None,
) -> Evaluation:
    """Return `metric` of `network` on `data`: without noise, and in `trials` trials of its memory.

    Parameters
    ----------
    network : Network
    data : Dataset
    protection : Protection or None
        How the model was protected, and with which channel; None for a plain model, which has no trials.
    trials : int, >= 0
    seed : int, >= 0
    metric : (name, function), optional
        The default is the one that fits the data; see `onnx_analog.metrics`.
    batch : int, >= 1
        Samples a call, unless the model fixes it.
    clean : list of arrays, optional
        What `network.run(data)` returns without noise, where it is known already: it is one trial's work.
    reference : Network, optional
        The original model, before pruning and protection.
    progress : function
        Called after each trial.
    """
    if trials < 0 or seed < 0 or batch < 1:
        raise OptionError(f"trials {trials}, seed {seed} and batch {batch}: 0 or more, 0 or more, and 1 or more")
    clean = network.run(data, batch=batch) if clean is None else clean
    name, function = metric or metrics.default(clean, data.labels)
    alone = None if function is metrics.sqnr_db else float(function(clean, labels=data.labels, clean=clean))
    original = None if reference is None else _original(reference, data, clean, function, batch)
    found: list[Trial] = []
    if protection is not None and trials:
        experiment = Trials(network, data, protection, function, clean, batch=batch)
        for trial in range(trials):
            found.append(experiment.run(seed=seed, trial=trial))
            progress()
    return Evaluation(
        metric=name,
        samples=len(data),
        clean=alone,
        values=tuple(one.value for one in found),
        reference=original,
        sqnr_db=tuple(one.sqnr_db for one in found),
        seed=seed,
    )


def _original(reference: Network, data: Dataset, clean: list[Array], metric: metrics.Metric, batch: int) -> float:
    outputs = reference.run(data, batch=batch)
    if [output.shape for output in clean] != [output.shape for output in outputs]:
        raise ModelError("the reference has outputs of other shapes than the model: it is not its original")
    return float(metric(outputs, labels=data.labels, clean=clean))
