import json
import re
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog import channels
from onnx_analog.channels import GaussianNoise
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import (
    GRANULARITIES,
    LARGE_FACTOR,
    MOST_CELLS,
    PRESETS,
    STRATEGIES,
    Preset,
    Scheme,
)
from onnx_analog.coding.stored_channels import channel_digest
from onnx_analog.errors import OptionError
from onnx_analog.graph.weights import Selection
from onnx_analog.study.grid import MOST_POINTS, Grid, GridPoint, integer_bits
from tests.models import QUIET

DEFAULT, PAPER = PRESETS.values()
LOUD = GaussianNoise(sigma=0.2)
GRID = Grid(cells=(1, 4), presets=(DEFAULT, PAPER), channels=(QUIET, LOUD))

some = st.lists(st.sampled_from(list(STRATEGIES)), min_size=1, unique=True)
numbers = st.lists(st.integers(1, 1000), min_size=1, max_size=4, unique=True)


def only(**changes) -> GridPoint:
    """Return the point of a grid that has one."""
    one = {"strategies": ("redundancy",), "cells": (3,), "presets": (DEFAULT,), "channels": (QUIET,)}
    (point,) = Grid(**{**one, **changes}).points()
    return point


# --------------------------------------------------------------------------------------------------- the points


@given(some, numbers, st.integers(1, 3))
def test_the_points_are_the_product_of_all_choices_in_their_order(names, cells, models):
    grid = replace(GRID, strategies=tuple(names), cells=tuple(cells))
    found = [(one.model, one.channel, one.preset, one.strategy, one.cells) for one in grid.points(models)]
    assert found == list(product(range(models), (QUIET, LOUD), (DEFAULT, PAPER), names, cells))
    assert len(found) == models * len(grid)


def test_a_plan_is_one_whatever_its_name():
    """Its scheme has the name int4 where it is a point of the grid."""
    plans = {"int4": Plan(default=Scheme.int4())}
    grid = Grid(strategies=("sign",), cells=(1,), presets=(DEFAULT,), channels=(QUIET,), plans=plans)
    assert {one.name: one.planned for one in grid.points()} == {"sign": False, "int4": True}
    integers = only(axes={"integers": (4,)})
    assert (integers.name, integers.planned) == ("int4", False)


def test_points_that_are_protected_alike_are_beside_each_other():
    found = list(GRID.points(2))
    kinds = [(one.model, one.channel, one.preset, one.strategy) for one in found]
    assert len(set(kinds)) == 1 + sum(one != other for one, other in pairwise(kinds))


def test_what_all_points_share_reaches_each():
    selection = Selection(exclude=("b",))
    for one in replace(GRID, large_factor=7, selection=selection).points():
        assert one.selection == selection
        assert one.cells_large == one.cells * (7 if one.strategy == "redundancy" else 1)


def test_by_default_a_grid_has_one_model_all_strategies_and_the_paper_s_factor():
    found = list(Grid(presets=(DEFAULT,), channels=(QUIET,)).points())
    assert {one.model for one in found} == {0}
    assert {one.strategy for one in found} == set(STRATEGIES)
    assert {one.cells_large / one.cells for one in found if one.strategy == "redundancy"} == {LARGE_FACTOR}


# --------------------------------------------------------------------------------------------------- one point


@pytest.mark.parametrize(("strategy", "large"), [("raw", 3), ("sign", 3), ("mapping", 3), ("redundancy", 60)])
def test_only_redundancy_has_more_cells_for_a_large_weight(strategy, large):
    point = only(strategies=(strategy,))
    assert point.cells_large == point.columns()["cells_large"] == large


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_point_is_stored_by_the_scheme_of_its_choices(strategy):
    point = only(strategies=(strategy,), presets=(PAPER,), channels=(LOUD,), large_factor=5)
    large = {"cells_large": 15} if strategy == "redundancy" else {}
    scheme = Scheme.paper(strategy, cells_small=3, **large, preset="isik2020", channel=LOUD)
    assert point.plan == Plan(default=scheme)
    assert (point.preset, point.channel, point.changes) == (PAPER, LOUD, {})


def test_the_columns_tell_each_point_from_all_others_of_its_model():
    near = GaussianNoise(sigma=0.1000001)  # it is called as QUIET is
    assert str(near) == str(QUIET)
    grid = replace(GRID, channels=(QUIET, near, LOUD))
    rows = [tuple(one.columns().values()) for one in grid.points()]
    assert len(set(rows)) == len(rows) == len(grid)


def test_the_columns_say_what_a_point_is():
    assert only(presets=(PAPER,)).columns() == {
        "strategy": "redundancy",
        "cells": 3,
        "cells_large": 60,
        "granularity": "model",
        "large_fraction": 0.0025,
        "channel": str(QUIET),
        "channel_sha256": channel_digest(QUIET),
        "plan_sha256": Plan(
            default=Scheme.paper(cells_small=3, cells_large=60, preset="isik2020", channel=QUIET)
        ).digest(),
    }


# ------------------------------------------------------------------------------------------------------- axes


def points(**changes) -> list[GridPoint]:
    grid = Grid(
        **{"strategies": ("redundancy",), "cells": (3,), "presets": (DEFAULT,), "channels": (QUIET,), **changes}
    )
    found = list(grid.points())
    assert len(grid) == len(found)
    assert len({tuple(point.columns().values()) for point in found}) == len(found)
    assert len({tuple(point.columns()) for point in found}) == 1
    return found


def schemes(**changes) -> list[Scheme]:
    return [point.plan.schemes[0] for point in points(**changes)]


@pytest.mark.parametrize(
    ("axes", "fields"),
    [
        ({"strategy": ["raw", "sign"]}, {"strategies": ("raw", "sign")}),
        ({"cells_small": [1, 2]}, {"cells": (1, 2)}),
        ({"preset": ["isik2020"]}, {"presets": (PAPER,)}),
        ({"channel": ["rram-wan"]}, {"channels": (channels.resolve("rram-wan"),)}),
    ],
)
def test_an_axis_that_has_a_field_takes_its_place(axes, fields):
    assert points(axes=axes) == points(**fields)


def test_settings_of_the_paper_are_axes():
    axes = {"cells_large": (4, 9), "granularity": ("tensor", "channel"), "large_fraction": (0.1, 0.2)}
    expected = [
        Scheme.paper(cells_small=3, cells_large=large, granularity=granularity, large_fraction=fraction, channel=QUIET)
        for large, granularity, fraction in product(*axes.values())
    ]
    assert schemes(axes=axes) == expected
    said = [(p.cells_large, p.preset.granularity, p.preset.large_fraction) for p in points(axes=axes)]
    assert said == list(product(*axes.values()))
    assert schemes(axes={"threshold": "0.5"}) == [
        Scheme.paper(cells_small=3, cells_large=60, threshold=0.5, channel=QUIET)
    ]


def test_settings_of_a_scheme_are_axes():
    axes = {"bits_per_cell": (1, 2), "side_channel": (None, LOUD), "side_copies": (1,)}
    base = only().plan.schemes[0]
    expected = [
        base.changed(side_bits_per_cell=bits, side_channel=side) for bits, side in product((1, 2), (None, LOUD))
    ]
    assert schemes(axes=axes) == expected
    columns = [point.columns() for point in points(axes=axes)]
    assert [(row["side_bits_per_cell"], row["side_channel"]) for row in columns] == [
        (1, None), (1, str(LOUD)), (2, None), (2, str(LOUD)),
    ]  # fmt: skip


def test_shares_take_the_place_of_the_large_fraction():
    found = points(axes={"shares": "0.05,0.01"})
    assert [point.plan.schemes[0].shares for point in found] == [(0.05,), (0.01,)]
    assert [point.preset.large_fraction for point in found] == [0.05, 0.01]


def test_cells_of_each_class_take_the_place_of_cells():
    found = points(axes={"cells": "1/20,2/20,4"}, cells=(1, 2, 3), strategies=tuple(STRATEGIES))
    assert [point.plan.schemes[0].cells for point in found] == [(1, 20), (2, 20), (4,)]
    assert [(p.strategy, p.cells, p.cells_large) for p in found] == [
        ("redundancy", 1, 20), ("redundancy", 2, 20), ("mapping", 4, 4),
    ]  # fmt: skip
    assert [point.columns()["cells_of_class"] for point in found] == ["1/20", "2/20", "4"]


def test_a_setting_that_a_strategy_does_not_have_does_not_repeat_its_points():
    axes = {"cells_large": (5, 6), "threshold": (0.1, 0.2)}
    found = points(strategies=("raw", "mapping", "redundancy"), axes=axes)
    assert [point.strategy for point in found] == ["raw", "mapping", "mapping", *["redundancy"] * 4]


def test_strategies_that_an_axis_replaces_are_not_dropped_silently():
    with pytest.raises(OptionError, match="the axis sign replaces strategies, and raw, sign is asked for"):
        points(strategies=("raw", "sign"), axes={"sign": ("bit",)})


def test_a_grid_of_the_whole_family():
    axes = {"sign": ("bit", "level"), "classes": (2, 16), "partition": ("lloyd", "uniform"), "cells": ("0", "2")}
    found = points(axes=axes, strategies=tuple(STRATEGIES))
    assert len(found) == 16
    assert {point.strategy for point in found} == {"lloyd-2", "lloyd-16", "uniform-2", "uniform-16"}
    assert [s.cells for s in schemes(axes={"classes": (4,), "partition": ("lloyd",)}, cells=(1, 2))] == [(1,), (2,)]


def test_plans_are_further_points():
    mixed = Plan(default=Scheme.int8(), tensors={"a": Scheme(channel=LOUD, cells=(2,))})
    axes = {"side_bits_per_cell": (1, 2), "cells_large": (7,)}
    found = points(axes=axes, plans={"digital": Scheme.int4(side_bits_per_cell=3), "mixed": mixed})
    digital, last = found[2:]
    assert (digital.strategy, digital.plan) == ("digital", Plan(default=Scheme.int4(side_bits_per_cell=3)))
    assert (digital.columns()["side_bits_per_cell"], digital.cells) == (3, 0)
    assert (last.strategy, last.plan, last.columns()["side_bits_per_cell"]) == ("mixed", mixed, 2)
    assert GridPoint.of(mixed, name="mixed", varied=("classes",)).changes == {"classes": None}  # they differ in it
    with pytest.raises(OptionError, match="the plan 'empty' stores no tensor"):
        points(plans={"empty": Plan(default=None)})


def test_a_plan_names_all_channels_that_it_is_read_through():
    quiet, loud = Scheme(channel=QUIET), Scheme(channel=LOUD)
    without = Scheme.int8(channel=QUIET)
    several = GridPoint.of(Plan(default=without, tensors={"a": quiet, "b": loud, "c": quiet}), name="several")
    one = GridPoint.of(Plan(default=Scheme.int8(channel=LOUD), tensors={"a": loud}), name="one")
    none = GridPoint.of(without, name="none")
    assert (several.channels, one.channels, none.channels) == ((QUIET, LOUD), (LOUD,), (QUIET,))
    assert several.columns()["channel"] == f"{QUIET} and {LOUD}"
    assert one.columns()["channel_sha256"] == channel_digest(LOUD)
    assert len({point.columns()["channel_sha256"] for point in (several, one)}) == 2
    assert (none.columns()["channel"], none.columns()["channel_sha256"]) == (str(QUIET), channel_digest(QUIET))
    assert str(none) == f"{QUIET}, granularity tensor, plan none"


# ------------------------------------------------------------------------------------------------------- integers


@given(st.lists(st.integers(2, 8), min_size=1, unique=True), st.sampled_from(GRANULARITIES))
def test_the_points_of_integers_are_those_schemes_through_each_channel(bits, granularity):
    grid = replace(GRID, axes={"integers": bits, "granularity": [granularity]})
    points = list(grid.points())
    assert [point.plan for point in points] == [
        Plan(default=Scheme.integers(each, granularity=granularity, channel=channel))
        for channel in (QUIET, LOUD)
        for each in bits
    ]
    assert [(point.name, point.planned) for point in points] == [(f"int{each}", False) for each in bits] * 2
    assert [point.columns()["integers"] for point in points] == bits * 2
    assert {(point.channels, point.columns()["channel"], point.large_fraction) for point in points} == {
        ((channel,), str(channel), None) for channel in (QUIET, LOUD)
    }


@pytest.mark.parametrize("bits", range(2, 9))
def test_the_bits_of_integers_are_told_from_their_scheme(bits):
    assert integer_bits(Scheme.integers(bits, granularity="model", side_bits_per_cell=3)) == bits
    for other in ({"sign": "bit"}, {"classes": 2**bits}, {"cells": (1,)}, {"partition": "lloyd"}):
        assert integer_bits(Scheme.integers(bits).changed(**other)) is None


def test_integers_have_all_settings_but_those_that_they_fix():
    point, _ = Grid(
        presets=(DEFAULT,), channels=(QUIET,), axes={"integers": (4,), "side_cells": (1, 3), "side_channel": (LOUD,)}
    ).points()
    assert point.plan.schemes == (Scheme.int4(channel=QUIET, side_channel=LOUD),)
    for axis, values in {"classes": (2,), "cells": (1,), "estimator": ("affine",)}.items():
        with pytest.raises(OptionError, match=f"^the axes .*'{axis}'.* exclude each other: give one of them$"):
            replace(GRID, axes={"integers": (4,), axis: values})


def test_a_plan_beside_integers_is_told_from_them():
    plans = {"other": Scheme.int8(), "analog": Scheme(channel=LOUD)}
    points = list(replace(GRID, presets=(DEFAULT,), axes={"integers": (4,)}, plans=plans).points())
    assert [(point.name, point.planned, point.changes["integers"]) for point in points] == [
        ("int4", False, 4), ("int4", False, 4), ("other", True, 8), ("analog", True, None),
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------- digests of channels


@pytest.mark.parametrize(
    "channel",
    [QUIET, channels.resolve("pcm"), channels.resolve("rram-milo"), LimitedPrecision(inner=QUIET, read_bits=4)],
    ids=["gaussian", "pcm", "rram-milo", "precision"],
)
def test_a_channel_that_went_through_json_has_the_same_channel_digest(channel):
    again = channels.from_dict(json.loads(json.dumps(channel.to_dict())))
    assert channel_digest(again) == channel_digest(channel)
    assert re.fullmatch(r"[0-9a-f]{64}", channel_digest(channel))


def test_other_channels_have_other_digests():
    found = [QUIET, LOUD, GaussianNoise(sigma=np.nextafter(0.1, 1)), channels.resolve("rram-milo")]
    assert len({channel_digest(channel) for channel in found}) == len(found)


# ------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strategies": ("sign", "none")}, "strategy is 'none'; choose from raw, sign, mapping, redundancy"),
        ({"strategies": ()}, "strategies must not be empty"),
        ({"cells": ()}, "cells must not be empty"),
        ({"presets": ()}, "presets must not be empty"),
        ({"channels": ()}, "channels must not be empty"),
        ({"strategies": ("sign", "raw", "sign")}, "strategies contain sign twice"),
        ({"cells": (1, 2, 1)}, "cells contain 1 twice"),
        ({"presets": (DEFAULT, DEFAULT)}, "presets contain granularity tensor and large_fraction 0.05 twice"),
        ({"channels": (QUIET, GaussianNoise(sigma=0.1))}, "channels contain gaussian"),
        ({"seed": -1}, "seed is -1; it must be from 0 to 9,223,372,036,854,775,807"),
        ({"seed": 0.5}, "seed is 0.5; it must be a whole number"),
        ({"large_factor": 0}, "large_factor is 0; it must be from 1 to 1,000,000,000,000"),
        ({"large_factor": True}, "large_factor is True; it must be a whole number"),
        ({"cells": (1, 0)}, "cells is 0; it must be from 1 to"),
        (
            {"cells": tuple(range(1, 40_000))},
            "the grid has 639,984 points, more than 100,000: split it into several sweeps",
        ),
        ({"cells": (*range(1, 40_000), 7)}, "cells contain 7 twice"),
        ({"axes": {"nothing": (1,)}}, "'nothing' is not a setting that can be varied: choose from sign"),
        ({"axes": {"step": (0.0,)}}, "step is 0.0; it must be above 0"),
        ({"axes": {"side_cells": tuple(range(1, 1000)), "classes": tuple(range(2, 200))}}, "points, more than 100,000"),
        ({"plans": {"x": 3}}, "a plan is int; it must be a Plan or a Scheme"),
        ({"cells": (2.5,)}, "cells is 2.5; it must be a whole number"),
        ({"cells": (MOST_CELLS // LARGE_FACTOR + 1,)}, "they must be from 1 to"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(wrong, said):
    with pytest.raises(OptionError) as raised:
        replace(GRID, **wrong)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_plan_counts_as_a_point():
    half = range(1, MOST_POINTS // 2 + 1)
    most = replace(GRID, strategies=("sign", "mapping"), cells=half, presets=(DEFAULT,), channels=(LOUD,))
    with pytest.raises(OptionError, match=f"the grid has {MOST_POINTS + 1:,} points, more than {MOST_POINTS:,}"):
        replace(most, plans={"one": Scheme()})


def test_the_most_cells_that_a_grid_takes_can_be_stored():
    (one,) = replace(
        GRID, strategies=("redundancy",), cells=(MOST_CELLS // 3,), large_factor=3, presets=(DEFAULT,), channels=(LOUD,)
    ).points()
    assert one.plan.schemes[0].cells[-1] == one.cells * 3


# --------------------------------------------------------------------------------- shares that have no effect


@pytest.mark.parametrize(
    ("changes", "shares"),
    [
        # presets of one granularity are one point of a strategy without large weights
        ({"strategies": ("raw", "mapping")}, [("raw", None), ("mapping", 0.05), ("mapping", 0.1)]),
        ({"strategies": ("sign",), "axes": {"large_fraction": (0.2, 0.3)}}, [("sign", None)]),
        ({"strategies": ("mapping",), "axes": {"threshold": (0.5,)}}, [("mapping", None)]),
        ({"axes": {"partition": ("lloyd",), "classes": (4,)}}, [("lloyd-4", None)]),
        ({"axes": {"classes": (3,), "shares": ((0.2, 0.1),)}}, [("share-3", pytest.approx(0.3))]),
        ({"axes": {"partition": ("share",)}}, [("mapping", 0.05), ("mapping", 0.1)]),
        ({"strategies": ("mapping",), "axes": {"large_fraction": (0.3,)}}, [("mapping", 0.3)]),
    ],
)
def test_points_that_differ_only_in_an_unused_share_are_one(changes, shares):
    presets = (Preset(granularity="tensor", large_fraction=0.05), Preset(granularity="tensor", large_fraction=0.1))
    grid = Grid(**{"presets": presets, "channels": (QUIET,), "cells": (1,), **changes})
    points = list(grid.points())
    assert sorted(((each.name, each.large_fraction) for each in points), key=str) == sorted(shares, key=str)
    assert len(grid) == len(points) == len({each.plan for each in points})


def test_points_without_cells_keep_their_channel_on_which_their_cost_depends():
    axes = {"cells": (0, 1), "partition": ("lloyd",), "classes": (4,)}
    points = list(Grid(presets=(DEFAULT,), channels=(QUIET, LOUD), axes=axes).points())
    assert [(each.plan.schemes[0].analog, each.channel) for each in points] == [
        ("none", QUIET),
        ("all", QUIET),
        ("none", LOUD),
        ("all", LOUD),
    ]


def test_presets_of_other_granularity_are_other_points():
    presets = (Preset(granularity="tensor", large_fraction=0.05), Preset(granularity="model", large_fraction=0.05))
    points = Grid(presets=presets, channels=(QUIET,), cells=(1,), strategies=("raw",)).points()
    assert [each.preset.granularity for each in points] == ["tensor", "model"]


# ------------------------------------------------------------------------------------------------ several channels


@pytest.mark.parametrize(
    "varied", [{}, {"classes": (2, 3), "partition": ("lloyd",)}, {"partition": ("share", "lloyd")}]
)
def test_points_without_cells_are_repeated_for_each_channel(varied):
    grid = Grid(presets=(DEFAULT,), channels=(QUIET, LOUD), axes={"cells": (0, 1), **varied})
    found = list(grid.points())
    digital = [one for one in found if set(one.plan.schemes[0].cells) == {0}]
    kinds = len(list(product(*varied.values())))
    assert [one.channel for one in digital] == [QUIET] * kinds + [LOUD] * kinds
    assert len(found) == 4 * kinds == len(grid)


def test_points_without_cells_are_repeated_for_each_preset_that_stores_them_otherwise():
    grid = Grid(presets=(DEFAULT, PAPER), channels=(QUIET, LOUD), axes={"cells": (0, (0, 1))})
    plans = [point.plan for point in grid.points()]
    assert sum(plan.schemes[0].analog == "none" for plan in plans) == 4
    assert sum(plan.schemes[0].analog == "some" for plan in plans) == 4
    assert len(set(plans)) == len(plans) == len(grid)


def test_a_point_of_two_channels_names_both_everywhere():
    plan = Plan(default=Scheme(channel=QUIET), tensors={"a": Scheme(channel=LOUD), "b": Scheme.int8(channel=QUIET)})
    point = GridPoint.of(plan, name="mixed")
    both = f"{QUIET} and {LOUD}"
    assert point.channels_text == point.columns()["channel"] == both
    assert str(point).startswith(f"{both}, granularity")
