"""Channels whose cells must be read one by one, because the average of r reads has no closed form."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Cells, Channel, Floats

State = tuple[NDArray[Any], ...]


class CellwiseChannel(Channel):
    """A channel that programs each weight, reads its cells one after the other, and averages.

    It costs as many draws as there are cells; a `GaussianChannel` costs one for each weight.
    """

    @abstractmethod
    def program(self, level: Floats, rng: np.random.Generator) -> State:
        """Return what the cells of each weight have in common: arrays whose first axis is that of `level` (n,)."""

    @abstractmethod
    def read_cell(self, state: State, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """Return one read (n,) of one cell of each weight, independent of other calls given the state."""

    def read(self, level: Floats, *, cells: Cells, rng: np.random.Generator) -> Floats:
        """Return the average of `cells` reads; see `Channel.read`."""
        self.check(level)
        state = self.program(level, rng)
        count = np.broadcast_to(np.asarray(cells), level.shape)
        total = np.zeros(level.shape)
        active: Any = slice(None)
        for cell in range(int(count.max(initial=0))):
            if cell:
                active = np.flatnonzero(count > cell)
            total[active] += self.read_cell(tuple(part[active] for part in state), rng)
        average: Floats = (total / count).astype(np.float32)
        return average
