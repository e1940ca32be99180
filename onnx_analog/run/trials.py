"""Trials of a protected model: one programming and one read of its memory, and what the network is worth then."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from loky import cpu_count

from onnx_analog.channels import Channel
from onnx_analog.coding.scheme import Scheme
from onnx_analog.graph.totals import Totals
from onnx_analog.run import metrics
from onnx_analog.run.correction import Corrector
from onnx_analog.run.data import Dataset
from onnx_analog.run.read import Decoder, read_all
from onnx_analog.run.session import Network


class Trial(NamedTuple):
    """The result of one trial: the metric, and the signal-to-noise ratio of the outputs that it reads, in dB.

    Either may be NaN: where there is no such number, as no ratio of whole numbers. Where what was read is corrected,
    there are both also without the correction, of the same read.
    """

    value: float
    sqnr_db: float
    uncorrected: float | None = None
    uncorrected_sqnr_db: float | None = None


class Trials:
    """Trials of one protected model on one data set; what does not depend on the trial is computed once.

    Parameters
    ----------
    network : Network
        Of the protected model.
    data : Dataset
    decoders : mapping of str to Decoder
        Of each weight that trials exchange, by its name in the network.
    metric : function
        See `onnx_analog.run.metrics`.
    clean : list of outputs
        Those that the metric compares with.
    batch : int, >= 1
        Samples a call.
    totals : Totals
        What the protected model costs.
    stored : function
        Returns the metric of the protected model, read without noise; called once, if at all.
    written_in : Channel
        Of the memory, which holds the numbers of a correction too.
    corrector : Corrector, optional
        Corrects what was read.
    """

    def __init__(
        self,
        network: Network,
        data: Dataset,
        decoders: Mapping[str, Decoder],
        metric: metrics.Function,
        clean: list[Any],
        *,
        batch: int,
        totals: Totals,
        stored: Callable[[], float | None],
        written_in: Channel,
        corrector: Corrector | None = None,
    ) -> None:
        self._network, self._data, self._decoders, self._metric = network, data, decoders, metric
        self._clean, self._batch, self.totals, self._stored = clean, batch, totals, stored
        self.corrector, self._written_in = corrector, written_in
        self._indices = metrics.indices_of(metric)
        count = network.threads or cpu_count()
        self._threads = ThreadPoolExecutor(count) if count > 1 else None
        self._digital = all(decoder.digital for decoder in decoders.values())
        self._last: tuple[bytes, Trial] | None = None  # what was read, where there are no analog cells

    @cached_property
    def stored(self) -> float | None:
        """The metric of the protected model, read without noise; None where there is no such number."""
        return self._stored()

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """The schemes that read."""
        return tuple(dict.fromkeys(decoder.scheme for decoder in self._decoders.values()))

    @property
    def alike(self) -> bool:
        """Whether all trials read the same weights, so that one tells all."""
        return all(decoder.alike for decoder in self._decoders.values())

    @property
    def cells_per_weight(self) -> float | None:
        """Cells per original weight as the memory allows, with those of the correction; None as of `Totals`."""
        return self.totals.honest_per_weight(self._numbers, self._written_in)

    @property
    def paper_cells_per_weight(self) -> float:
        """The same, as the paper counts."""
        return self.totals.paper_per_weight(self._numbers, self.schemes)

    @property
    def _numbers(self) -> int:
        return 0 if self.corrector is None else self.corrector.cost.numbers

    def run(self, *, seed: int, trial: int) -> Trial:
        """Return the metric of the network in one programming and one read of its memory."""
        weights = read_all(self._decoders, seed=seed, trial=trial, threads=self._threads)
        if not self._digital:
            return self._run(weights)
        digest, last = _digest(weights), self._last
        if last is None or last[0] != digest:  # else the same was read before
            self._last = last = digest, self._run(weights)
        return last[1]

    def _run(self, weights: Mapping[str, Any]) -> Trial:
        uncorrected = self._scored(self._network, weights)
        if self.corrector is None:
            return uncorrected
        corrected = self._scored(*self.corrector.apply(self._network, weights))
        return Trial(*corrected[:2], *uncorrected[:2])

    def outputs(self, *, seed: int, trial: int) -> list[Any]:
        """Return the outputs that the metric reads in one trial, corrected if there is a corrector."""
        weights = read_all(self._decoders, seed=seed, trial=trial, threads=self._threads)
        network = self._network
        if self.corrector is not None:
            network, weights = self.corrector.apply(network, weights)  # type: ignore[assignment]  # a mapping
        return network.run(self._data, weights, batch=self._batch, indices=self._indices)

    def _scored(self, network: Network, weights: Mapping[str, Any]) -> Trial:
        outputs = network.run(self._data, weights, batch=self._batch, indices=self._indices)
        value = float(self._metric(outputs, labels=self._data.labels, clean=self._clean))
        return Trial(value, metrics.output_sqnr_db(outputs, self._clean))


def _digest(weights: Mapping[str, Any]) -> bytes:
    """Return what tells weights from others, but for a chance of 2^-128."""
    digest = hashlib.blake2b(digest_size=32)
    for weight in weights.values():
        digest.update(np.ascontiguousarray(weight).view(np.uint8).data)
    return digest.digest()
