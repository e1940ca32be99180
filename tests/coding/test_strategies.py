"""The table of the module's docstring is compared with the settings, and those with what is stored."""

import numpy as np
import pytest

from onnx_analog.coding import strategies
from onnx_analog.coding.planes import Code, encode
from onnx_analog.coding.strategies import LARGE_FACTOR, LARGE_FRACTION, PRESETS, SCOPES, STRATEGIES, Strategy, strategy
from onnx_analog.errors import OptionError

Rows = list[tuple[str, ...]]


def table(text: str) -> Rows:
    """Return the rows below the head of the one table in `text`."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


def row(name: str, setting: Strategy) -> tuple[str, ...]:
    """Return the row of one setting."""
    symbols = {(1,): "r", (1, 1): "r for both", (1, 2): "r_small, r_large"}
    sign = "header" if setting.sign_in_header else "the level"
    return (name, setting.row, sign, str(setting.classes), symbols[setting.cells(1, 2)])


def test_the_table_is_the_settings():
    assert table(str(strategies.__doc__)) == [row(name, setting) for name, setting in STRATEGIES.items()]
    assert len(STRATEGIES) == 4


@pytest.mark.parametrize(
    ("right", "wrong"), [("| the level |", "| header |"), ("| 2       | r for both", "| 1       | r for both")]
)
def test_a_wrong_table_is_noticed(right, wrong):
    text = str(strategies.__doc__)
    assert right in text
    assert table(text.replace(right, wrong)) != [row(name, setting) for name, setting in STRATEGIES.items()]


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_stored_is_what_a_setting_says(name):
    setting, code = STRATEGIES[name], Code(strategy=name, cells_small=3, cells_large=7, large_fraction=0.5)
    (found,) = encode([np.array([1.0, -2.0, 3.0, -4.0])], code, span=(0.0, 1.0))
    assert (found.planes.sign is not None) == setting.sign_in_header
    assert (found.planes.class_index is not None) == (setting.classes > 1)
    assert len(found.classes) == setting.classes
    assert tuple(each.cells for each in found.classes) == setting.cells(3, 7)


@pytest.mark.parametrize(
    ("name", "cells"), [("raw", (3,)), ("sign", (3,)), ("mapping", (3, 3)), ("redundancy", (3, 7))]
)
def test_cells_of_each_class(name, cells):
    assert strategy(name).cells(3, 7) == cells


def test_each_row_adds_one_thing_to_the_one_above():
    settings = [(s.sign_in_header, s.classes > 1, s.adaptive) for s in STRATEGIES.values()]
    assert list(STRATEGIES) == ["raw", "sign", "mapping", "redundancy"]
    assert [sum(setting) for setting in settings] == [0, 1, 2, 3]
    assert settings == [(True,) * added + (False,) * (3 - added) for added in range(4)]


@pytest.mark.parametrize("name", ["", "Raw", "raw ", "signs", "none"])
def test_another_name_is_refused(name):
    with pytest.raises(OptionError) as caught:
        strategy(name)
    assert str(caught.value) == f"no strategy is called {name!r}: choose from raw, sign, mapping, redundancy"


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_is_found_by_its_name(name):
    assert strategy(name) is STRATEGIES[name]


def test_presets_are_the_default_and_the_papers():
    chosen = {name: (preset.scope, preset.large_fraction) for name, preset in PRESETS.items()}
    assert chosen == {"default": ("tensor", 0.05), "isik2020": ("model", 0.0025)}
    assert Code().large_fraction == LARGE_FRACTION == PRESETS["default"].large_fraction
    assert {preset.scope for preset in PRESETS.values()} == set(SCOPES)
    assert (SCOPES[0], LARGE_FACTOR) == ("tensor", 20)


@pytest.mark.parametrize("choices", [STRATEGIES, PRESETS])
def test_choices_cannot_be_changed(choices):
    (name, *_), before = choices, dict(choices)
    with pytest.raises(TypeError):
        choices["mine"] = choices[name]
    for field in vars(choices[name]):
        with pytest.raises(AttributeError):
            setattr(choices[name], field, None)
    assert choices == before
