"""Channels that tell programming from reading."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Floats, State
from onnx_analog.channels.cellwise import CellwiseChannel
from onnx_analog.channels.separation import Separated


class ProgrammedChannel(CellwiseChannel, Separated):
    """A channel whose cells hold what was programmed, and add noise of their own to each read.

    Subclasses define `program_cell` and `read_programmed`, and `verify` if reads change with time. The cells of a
    weight share nothing.
    """

    @property
    def separated(self) -> Separated:
        """The channel itself."""
        return self

    @property
    def independent(self) -> bool:
        """True."""
        return True

    def verify(self, held: State, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """Return a read as `read_programmed` does; see `Separated.verify`."""
        return self.read_programmed(held, rng)

    def program(self, level: Floats, rng: np.random.Generator) -> State:  # noqa: ARG002 - cells share nothing
        """Return the level; every cell is programmed on its own."""
        return (level,)

    def read_cell(self, state: State, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """Return one read of a cell that is programmed for it."""
        return self.read_programmed(self.program_cell(state[0], rng), rng)
