"""A channel for tests: normal noise of programming that stays, and normal noise of each read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from onnx_analog.channels.base import Floats, Source, State
from onnx_analog.channels.programmed import ProgrammedChannel


@dataclass(frozen=True, kw_only=True)
class Separate(ProgrammedChannel):
    """level + N(0, programming²), read with N(0, reading²)."""

    source: ClassVar[Source] = Source(citation="a test")
    span: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    programming: float = 0.0
    reading: float = 0.0

    def program_cell(self, level: Floats, rng: np.random.Generator) -> State:
        return (level + self.programming * rng.standard_normal(level.size),)

    def read_programmed(self, held: State, rng: np.random.Generator) -> Any:
        return held[0] + self.reading * rng.standard_normal(held[0].size)
