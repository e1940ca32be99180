from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from onnx_analog.channels.base import Source
from onnx_analog.channels.cellwise import CellwiseChannel
from onnx_analog.errors import LevelError


@dataclass(frozen=True, kw_only=True)
class Drawn(CellwiseChannel):
    family: ClassVar[str] = "drawn"
    source: ClassVar[Source] = Source(citation="a test")
    span: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def program(self, level, rng):
        return (level.astype(np.float64) + rng.integers(2, size=level.size), np.arange(level.size))

    def read_cell(self, state, rng):
        common, _ = state
        return common + rng.integers(3, size=common.size)


def test_each_weight_is_programmed_once_and_read_as_often_as_it_has_cells():
    level = np.zeros(6, np.float32)
    cells = np.array([1, 2, 3, 3, 2, 1])
    found = Drawn().read(level, cells=cells, rng=np.random.default_rng(0))
    rng = np.random.default_rng(0)  # the same draws, written out
    common = rng.integers(2, size=6).astype(float)
    total = common + rng.integers(3, size=6)
    total[[1, 2, 3, 4]] += common[[1, 2, 3, 4]] + rng.integers(3, size=4)
    total[[2, 3]] += common[[2, 3]] + rng.integers(3, size=2)
    np.testing.assert_allclose(found, total / cells, rtol=1e-7)


def test_no_levels_and_levels_outside():
    assert Drawn().read(np.zeros(0, np.float32), cells=3, rng=np.random.default_rng(0)).shape == (0,)
    with pytest.raises(LevelError):
        Drawn().read(np.array([1.1], np.float32), cells=1, rng=np.random.default_rng(0))
