import json
import re
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_analog.coding.strategies import LARGE_FACTOR, MOST_CELLS, PRESETS, STRATEGIES

from onnx_analog import channels
from onnx_analog.channels import GaussianNoise
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.errors import OptionError
from onnx_analog.graph.weights import Selection
from onnx_analog.study.grid import Grid, Setting, digest
from tests.models import QUIET

DEFAULT, PAPER = PRESETS.values()
LOUD = GaussianNoise(sigma=0.2)
GRID = Grid(cells=(1, 4), presets=(DEFAULT, PAPER), channels=(QUIET, LOUD))

some = st.lists(st.sampled_from(list(STRATEGIES)), min_size=1, unique=True)
numbers = st.lists(st.integers(1, 1000), min_size=1, max_size=4, unique=True)


def setting(**changes) -> Setting:
    fields = {
        "model": 0, "channel": QUIET, "preset": DEFAULT, "strategy": "redundancy", "cells": 3, "large_factor": 20,
        "selection": Selection(),
    }  # fmt: skip
    return Setting(**{**fields, **changes})


# --------------------------------------------------------------------------------------------------- the points


@given(some, numbers, st.integers(1, 3))
def test_the_points_are_the_product_of_all_choices_in_their_order(names, cells, models):
    grid = replace(GRID, strategies=tuple(names), cells=tuple(cells))
    found = [(one.model, one.channel, one.preset, one.strategy, one.cells) for one in grid.settings(models)]
    assert found == list(product(range(models), (QUIET, LOUD), (DEFAULT, PAPER), names, cells))
    assert len(found) == models * len(grid)


def test_points_that_are_protected_alike_are_beside_each_other():
    found = list(GRID.settings(2))
    kinds = [(one.model, one.channel, one.preset, one.strategy) for one in found]
    assert len(set(kinds)) == 1 + sum(one != other for one, other in pairwise(kinds))


def test_what_all_points_share_reaches_each():
    selection = Selection(exclude=("b",))
    for one in replace(GRID, large_factor=7, selection=selection).settings():
        assert (one.large_factor, one.selection) == (7, selection)


def test_by_default_a_grid_has_one_model_all_strategies_and_the_paper_s_factor():
    found = list(Grid(presets=(DEFAULT,), channels=(QUIET,)).settings())
    assert {one.model for one in found} == {0}
    assert {one.strategy for one in found} == set(STRATEGIES)
    assert {one.large_factor for one in found} == {LARGE_FACTOR}


# --------------------------------------------------------------------------------------------------- one point


@pytest.mark.parametrize(("strategy", "large"), [("raw", 3), ("sign", 3), ("mapping", 3), ("redundancy", 60)])
def test_only_redundancy_has_more_cells_for_a_large_weight(strategy, large):
    one = setting(strategy=strategy)
    assert one.cells_large == one.columns()["cells_large"] == large


def test_a_point_is_stored_by_the_pass_of_its_choices():
    selection = Selection(exclude=("b",))
    made = setting(preset=PAPER, channel=LOUD, large_factor=5, selection=selection).protect_pass()
    assert (made.strategy, made.cells_small, made.cells_large) == ("redundancy", 3, 15)
    assert (made.scope, made.large_fraction) == (PAPER.scope, PAPER.large_fraction)
    assert (made.channel, made.selection) == (LOUD, selection)


def test_the_columns_tell_each_point_from_all_others_of_its_model():
    near = GaussianNoise(sigma=0.1000001)  # it is called as QUIET is
    assert str(near) == str(QUIET)
    grid = replace(GRID, channels=(QUIET, near, LOUD))
    rows = [tuple(one.columns().values()) for one in grid.settings()]
    assert len(set(rows)) == len(rows) == len(grid)


def test_the_columns_say_all_that_the_pass_is_told():
    columns = setting(preset=PAPER).columns()
    assert columns == {
        "strategy": "redundancy",
        "cells": 3,
        "cells_large": 60,
        "scope": "model",
        "large_fraction": 0.0025,
        "channel": str(QUIET),
        "channel_sha256": digest(QUIET),
    }


# ------------------------------------------------------------------------------------------- digests of channels


@pytest.mark.parametrize(
    "channel",
    [QUIET, channels.resolve("pcm"), channels.resolve("rram-milo"), LimitedPrecision(inner=QUIET, read_bits=4)],
    ids=["gaussian", "pcm", "rram-milo", "precision"],
)
def test_a_channel_that_went_through_json_has_the_same_digest(channel):
    again = channels.from_dict(json.loads(json.dumps(channel.to_dict())))
    assert digest(again) == digest(channel)
    assert re.fullmatch(r"[0-9a-f]{64}", digest(channel))


def test_other_channels_have_other_digests():
    found = [QUIET, LOUD, GaussianNoise(sigma=np.nextafter(0.1, 1)), channels.resolve("rram-milo")]
    assert len({digest(channel) for channel in found}) == len(found)


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strategies": ("sign", "none")}, "no strategy is called 'none'"),
        ({"strategies": ()}, "strategies must not be empty"),
        ({"cells": ()}, "cells must not be empty"),
        ({"presets": ()}, "presets must not be empty"),
        ({"channels": ()}, "channels must not be empty"),
        ({"strategies": ("sign", "raw", "sign")}, "strategies contain sign twice"),
        ({"cells": (1, 2, 1)}, "cells contain 1 twice"),
        ({"presets": (DEFAULT, DEFAULT)}, "presets contain Preset"),
        ({"channels": (QUIET, GaussianNoise(sigma=0.1))}, "channels contain gaussian"),
        ({"seed": -1}, "seed is -1; it must be from 0 to 9,223,372,036,854,775,807"),
        ({"seed": 0.5}, "seed is 0.5; it must be a whole number"),
        ({"large_factor": 0}, "large_factor is 0; it must be from 1 to 1,000,000,000,000"),
        ({"large_factor": True}, "large_factor is True; it must be a whole number"),
        ({"cells": (1, 0)}, "cells are 0; they must be from 1 to"),
        (
            {"cells": tuple(range(1, 40_000))},
            "the grid has 639,984 points, more than 100,000: split it into several sweeps",
        ),
        ({"cells": (*range(1, 40_000), 7)}, "cells contain 7 twice"),
        ({"cells": (2.5,)}, "cells is 2.5; it must be a whole number"),
        ({"cells": (MOST_CELLS // LARGE_FACTOR + 1,)}, "they must be from 1 to"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(wrong, said):
    with pytest.raises(OptionError) as raised:
        replace(GRID, **wrong)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_most_cells_that_a_grid_takes_can_be_stored():
    (one,) = replace(
        GRID, strategies=("redundancy",), cells=(MOST_CELLS // 3,), large_factor=3, presets=(DEFAULT,), channels=(LOUD,)
    ).settings()
    assert one.protect_pass().cells_large == one.cells * 3
