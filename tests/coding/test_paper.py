"""The paper's schemes; the table of the module's docstring is compared with the settings."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from onnx_analog.coding import paper as module
from onnx_analog.coding.paper import GRANULARITIES, LARGE_SHARE, PRESETS, STRATEGIES, Paper, Row
from onnx_analog.coding.planes import encode
from onnx_analog.coding.scheme import Scheme
from onnx_analog.errors import OptionError
from tests.coding.families import over, schemes

Rows = list[tuple[str, ...]]


def table(text: str) -> Rows:
    """Return the rows below the head of the one table in `text`."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


def row(name: str, setting: Row) -> tuple[str, ...]:
    """Return the row of one setting."""
    symbols = {(1,): "r", (1, 1): "r for both", (1, 2): "r_small, r_large"}
    sign = "a bit" if setting.sign == "bit" else "the level"
    return (name, setting.row, sign, str(setting.classes), symbols[setting.cells(1, 2)])


def test_the_table_is_the_settings():
    assert table(str(module.__doc__)) == [row(name, setting) for name, setting in STRATEGIES.items()]
    assert len(STRATEGIES) == 4


@pytest.mark.parametrize(
    ("right", "wrong"), [("| the level |", "| a bit |"), ("| 2       | r for both", "| 1       | r for both")]
)
def test_a_wrong_table_is_noticed(right, wrong):
    text = str(module.__doc__)
    assert right in text
    assert table(text.replace(right, wrong)) != [row(name, setting) for name, setting in STRATEGIES.items()]


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_stored_is_what_a_strategy_says(name):
    strategy = STRATEGIES[name]
    large: dict[str, Any] = {"large_fraction": 0.5} if strategy.classes == 2 else {}
    large |= {"cells_large": 7} if strategy.adaptive else {}
    scheme = Scheme.paper(name, cells_small=3, **large, channel=over((0.0, 1.0)))
    ((planes, codebook, _),) = encode([np.array([1.0, -2.0, 3.0, -4.0])], scheme)
    assert (planes.sign is not None) == (strategy.sign == "bit")
    assert (planes.class_index is not None) == (strategy.classes > 1)
    assert codebook.alpha.shape == (1, strategy.classes)
    assert scheme.cells_of_class == strategy.cells(3, 7)


def test_each_row_adds_one_thing_to_the_one_above():
    settings = [(s.sign == "bit", s.classes > 1, s.adaptive) for s in STRATEGIES.values()]
    assert list(STRATEGIES) == ["raw", "sign", "mapping", "redundancy"]
    assert settings == [(True,) * added + (False,) * (3 - added) for added in range(4)]


papers = st.builds(
    lambda strategy, cells_large, threshold, large, **settings: Paper(
        strategy=strategy,
        cells_large=cells_large if STRATEGIES[strategy].adaptive else None,
        threshold=threshold if STRATEGIES[strategy].classes == 2 else None,
        large_fraction=large if threshold is None and STRATEGIES[strategy].classes == 2 else None,
        **settings,
    ),
    strategy=st.sampled_from(list(STRATEGIES)),
    cells_small=st.integers(1, 50),
    cells_large=st.none() | st.integers(1, 50),
    preset=st.sampled_from(list(PRESETS)),
    granularity=st.none() | st.sampled_from(GRANULARITIES),
    threshold=st.none() | st.floats(1e-9, 1e9),
    large=st.none() | st.floats(0, 1),
)


@given(papers)
def test_a_scheme_of_the_paper_is_described_as_one(paper):
    scheme = paper.scheme()
    described = Paper.of(scheme)
    assert described is not None
    assert described.scheme() == scheme
    alike = paper.strategy == "redundancy" and paper.cells_small == paper.cells_of_large  # which is mapping
    assert described.strategy == ("mapping" if alike else paper.strategy)
    assert described.cells_small == paper.cells_small
    assert described.preset == "default"
    if paper.strategy == "redundancy":
        assert described.cells_of_large == paper.cells_of_large
    if paper.threshold is not None and paper.strategy in ("mapping", "redundancy"):
        assert described.threshold == paper.threshold


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"strategy": "raw", "threshold": 0.5},
            "threshold is 0.5, and strategy is 'raw', which has no large weights: leave",
        ),
        (
            {"strategy": "sign", "large_fraction": 0.5},
            "large_fraction is 0.5, and strategy is 'sign', which has no large",
        ),
        (
            {"strategy": "mapping", "cells_large": 2},
            "cells_large is 2, and strategy is 'mapping', which gives all weights",
        ),
        ({"strategy": "raw", "cells_large": 2}, "cells_large is 2, and strategy is 'raw', which gives all weights"),
        (
            {"threshold": 0.5, "large_fraction": 0.5},
            "threshold and large_fraction exclude each other: give one of them",
        ),
        ({"classes": 2, "strategy": "mapping"}, "classes and strategy exclude each other: give one of them"),
        ({"classes": 2, "threshold": 0.5}, "classes and threshold exclude each other: give one of them"),
        ({"shares": (0.5,), "bounds": (0.5,)}, "shares and bounds exclude each other: give one of them"),
        ({"cells": 2, "cells_small": 1}, "cells and cells_small exclude each other: give one of them"),
        ({"clases": 2}, "there is no setting 'clases': did you mean 'classes'?"),
    ],
)
def test_settings_that_another_makes_meaningless_are_refused_with_both_names(settings, said):
    with pytest.raises(OptionError) as caught:
        Scheme.paper(**settings)
    assert str(caught.value).startswith(said)


def test_two_classes_have_the_default_share_and_one_class_has_none():
    assert Scheme(classes=2).shares == Scheme.paper(classes=2).shares == (0.05,)
    assert Scheme.paper(classes=2, partition="lloyd").shares == Scheme(classes=1, cells=(1,)).shares == ()
    with pytest.raises(OptionError, match="shares has 1 number; as partition"):
        Scheme(classes=1, cells=(1,), shares=(0.05,))


@given(schemes())
def test_only_schemes_of_the_paper_are_described_as_such(scheme):
    paper = Paper.of(scheme)
    if paper is None:
        digital = 0 in scheme.cells
        other = scheme.classes > 2 or scheme.partition in ("lloyd", "uniform")
        assert digital or other or (scheme.classes == 2 and scheme.sign == "level")
    else:
        assert paper.scheme(channel=scheme.channel) == scheme


def test_presets_are_the_default_and_the_papers():
    chosen = {name: (preset.granularity, preset.large_fraction) for name, preset in PRESETS.items()}
    assert chosen == {"default": ("tensor", 0.05), "isik2020": ("model", 0.0025)}
    assert Scheme() == Scheme.paper() == Paper().scheme()
    assert Scheme().shares == (LARGE_SHARE,) == (PRESETS["default"].large_fraction,)
    assert Scheme.paper(preset="isik2020") == Scheme.paper(granularity="model", large_fraction=0.0025)


@pytest.mark.parametrize("settings", [{"classes": 2}, {"partition": "share"}, {"classes": 2, "partition": "share"}])
def test_two_classes_by_share_keep_the_share_of_the_preset(settings):
    assert Scheme.paper(preset="isik2020", **settings).shares == (0.0025,)
    assert Scheme.paper(preset="isik2020", **{**settings, "partition": "lloyd"}).shares == ()


def test_other_settings_of_a_paper_scheme():
    assert Scheme.paper("sign", side_channel="pcm").side_channel == Scheme(side_channel="pcm").side_channel
    four = Scheme.paper(classes=4, partition="lloyd", cells=(0, 1, 2, 3), granularity="channel")
    assert four == Scheme(classes=4, partition="lloyd", cells=(0, 1, 2, 3), granularity="channel")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"strategy": "plain"}, "strategy is 'plain'; choose from raw, sign, mapping, redundancy"),
        ({"strategy": "Raw"}, "strategy is 'Raw'; choose from"),
        ({"preset": "isik"}, "preset is 'isik'; choose from default, isik2020"),
        ({"cells_small": 0}, "cells_small is 0; it must be from 1 to"),
        ({"cells_large": -1}, "cells_large is -1"),
        ({"large_fraction": -1e-9}, "large_fraction is -1e-09; it must be from 0 to 1"),
        ({"large_fraction": 1.000001}, r"large_fraction is 1\.000001"),
        ({"large_fraction": float("nan")}, "large_fraction is nan"),
        ({"threshold": 0}, r"threshold is 0\.0; it must be above 0"),
        ({"threshold": float("inf")}, "threshold is inf"),
        ({"threshold": 1, "large_fraction": 0.5}, "threshold and large_fraction exclude each other"),
        ({"granularity": ""}, "granularity is ''; choose from"),
    ],
)
def test_a_paper_setting_out_of_range_is_refused(wrong, said):
    with pytest.raises(OptionError, match=said):
        Scheme.paper(**wrong)


@pytest.mark.parametrize("choices", [STRATEGIES, PRESETS])
def test_choices_cannot_be_changed(choices):
    (name, *_), before = choices, dict(choices)
    with pytest.raises(TypeError):
        choices["mine"] = choices[name]
    for field in vars(choices[name]):
        with pytest.raises(AttributeError):
            setattr(choices[name], field, None)
    assert choices == before
