"""The part of the protocol for channels that tell programming from reading."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.ranges import Floats

State = tuple[NDArray[Any], ...]


class Separated(Protocol):
    """Programs single cells, and reads what they hold as often as needed; `Channel.separated` returns one."""

    @abstractmethod
    def program_cell(self, level: Floats, rng: np.random.Generator) -> State:
        """Program one cell of each weight; return its state: arrays whose first axis is that of `level` (n,).

        Parameters
        ----------
        level : float32 array of shape (n,)
            Levels inside the output range.
        rng : numpy Generator
            Draws the noise of programming, and all else that stays with the cell, such as how fast it drifts.
        """

    @abstractmethod
    def verify(self, held: State, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """Return one read (n,) as soon as the cells are programmed, independent of other reads given `held`."""

    @abstractmethod
    def read_programmed(self, held: State, rng: np.random.Generator) -> NDArray[np.floating[Any]]:
        """Return one read (n,) at the time of the channel's reads, independent of other reads given `held`."""
