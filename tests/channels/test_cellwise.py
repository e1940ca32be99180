from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from onnx_analog.channels.base import GaussianChannel, Source
from onnx_analog.channels.cellwise import CellwiseChannel
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.statistical import StatisticalPcm
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


@dataclass(frozen=True, kw_only=True)
class SharedInBand(GaussianChannel):
    """Cells share noise in a band so narrow that none of the levels that `independent` looks at lies in it."""

    source: ClassVar[Source] = Source(citation="a test")
    span: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def std(self, level):
        self.check(level)
        return np.full(level.shape, 0.1)

    def shared_std(self, level):
        return np.where(np.abs(level - 0.5078) < 1e-3, 0.1, 0.0)


def test_what_cells_share_is_drawn_anew_in_each_trial_wherever_it_is():
    channel = LimitedPrecision(inner=SharedInBand(), read_bits=8)
    assert channel.independent
    level, reads = np.full(50, 0.5078, np.float32), np.empty((2, 50), np.float32)
    prepared = channel.prepared(level, 1)
    for seed, read in enumerate(reads):
        prepared.read(slice(0, 50), np.random.default_rng(seed), read)
    assert np.mean(reads[0] == reads[1]) < 0.5  # of 256 codes, two trials may give the same
    _, std = channel.moments(level[:1], cells=1000)
    assert std[0] == pytest.approx(0.1, rel=0.05)


def test_an_array_of_equal_numbers_of_cells_is_that_number():
    level = np.linspace(0, 1, 9, dtype=np.float32)
    channel = StatisticalPcm(read_after_s=60.0)
    one, other = (channel.read(level, cells=cells, rng=np.random.default_rng(0)) for cells in (3, np.full(9, 3)))
    assert one.tobytes() == other.tobytes()
