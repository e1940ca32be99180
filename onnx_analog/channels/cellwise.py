"""Channels whose cells must be read one by one, because the average of r reads has no closed form."""

from __future__ import annotations

import pickle
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Cells, Channel, Doubles, Floats, Prepared, State, cells_in, estimated

MOST_CELLS = 10_000  # of a weight, where each is a draw


class CellwiseChannel(Channel):
    """A channel that programs each weight, reads its cells one after the other, and averages.

    It costs as many draws as there are cells; a `GaussianChannel` costs one for each weight.
    """

    @abstractmethod
    def program(self, level: Floats, rng: np.random.Generator) -> State:
        """Return the state that the cells of each weight share: arrays whose first axis is that of `level` (n,)."""

    @abstractmethod
    def read_cell(self, state: State, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """Return one read (n,) of one cell of each weight, independent of other calls given the state."""

    @property
    def most_cells(self) -> int | None:
        """10,000."""
        return MOST_CELLS

    def read(self, level: Floats, *, cells: Cells, rng: np.random.Generator) -> Floats:
        """Return the average of `cells` reads; see `Channel.read`."""
        self.check(level)
        return self.average(self.program(level, rng), cells, rng)

    def average(self, state: State, cells: Cells, rng: np.random.Generator) -> Floats:
        """Return the average read (n,) of `cells` cells of each weight that was programmed to `state`."""
        first = self.read_cell(state, rng)
        most, same = int(np.max(cells, initial=1)), np.ndim(cells) == 0
        if most == 1:
            return first.astype(np.float32)
        total = first.astype(np.float64)
        active: Any = slice(None)
        for cell in range(1, most):
            active = active if same else np.flatnonzero(np.asarray(cells) > cell)
            total[active] += self.read_cell(tuple(part[active] for part in state), rng)
        average: Floats = (total / cells).astype(np.float32)
        return average

    def prepared(self, level: Floats, cells: Cells) -> Prepared:
        """Return a reader that keeps the state, where programming draws nothing at random; see `Channel.prepared`."""
        self.check(level)
        state, random = self._programmed(level, np.random.Generator(np.random.SFC64(0)))
        return super().prepared(level, cells) if random else _Programmed(self, state, cells)

    def moments(self, level: NDArray[np.floating[Any]], *, cells: int = 1) -> tuple[Doubles, Doubles]:
        """Return an estimate from 20,000 weights of two cells each, whatever `cells` is; see `Channel.moments`.

        Two cells of a weight tell what they share: of their variance V and covariance C, C + (V - C)/cells is left. The
        standard error of V is about V/100, and so is that of C, which is 0 where programming draws nothing at random.
        """
        self.check(level)
        mean, variance, shared = estimated(self, level)
        left = np.clip(shared, 0, variance)
        return mean, np.sqrt(left + (variance - left) / cells)

    def _sample(self, level: Floats, rng: np.random.Generator, *, cells: int) -> NDArray[np.floating[Any]]:  # noqa: ARG002
        """Return reads of two cells of each weight, or of single cells if they share nothing; see `Channel._sample`."""
        state, random = self._programmed(level, rng)
        reads = np.stack([self.read_cell(state, rng), self.read_cell(state, rng)])
        return reads if random else reads.reshape(1, -1)

    def _programmed(self, level: Floats, rng: np.random.Generator) -> tuple[State, bool]:
        """Return the state of each weight, and whether it is random."""
        before = pickle.dumps(rng.bit_generator.state)
        state = self.program(level, rng)
        return state, pickle.dumps(rng.bit_generator.state) != before

    def written(self, level: Floats, rng: np.random.Generator, *, bits: int = 0) -> State:
        """Return the state of each weight; see `Channel.written`."""
        return self.program(self._nearest_level(level, bits), rng)


@dataclass(frozen=True)
class _Programmed:
    """Reads cells that were programmed once, as nothing of that is random."""

    channel: CellwiseChannel
    state: State
    cells: Cells

    def read(self, block: slice, rng: np.random.Generator, out: Floats) -> None:
        state = tuple(part[block] for part in self.state)
        out[:] = self.channel.average(state, cells_in(self.cells, block), rng)
