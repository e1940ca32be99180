import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnx_analog import channels
from onnx_analog.channels import GaussianNoise
from onnx_analog.coding.scheme import Paper, Scheme
from onnx_analog.errors import AnalogError, OptionError
from onnx_analog.settings import settings_of
from onnx_analog.study import axes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cells_small=1,2,4", {"cells_small": (1, 2, 4)}),
        ("cells-small = 1, 2", {"cells_small": (1, 2)}),
        ("bits_per_cell=1,2", {"side_bits_per_cell": (1, 2)}),
        ("granularity=tensor,channel", {"granularity": ("tensor", "channel")}),
        ("cells=1/20,2/20,3", {"cells": ((1, 20), (2, 20), (3,))}),
        ("shares=0.05,0.01", {"shares": ((0.05,), (0.01,))}),
        ("shares=0.2/0.05,0.1/1e-2", {"shares": ((0.2, 0.05), (0.1, 0.01))}),
        ("bounds=-0.5/0.5", {"bounds": ((-0.5, 0.5),)}),
        ("large_fraction=0.05,1", {"large_fraction": (0.05, 1.0)}),
        ("step=none,0.5", {"step": (None, 0.5)}),
        ("strategy=raw,sign", {"strategy": ("raw", "sign")}),
        ("estimator=affine", {"estimator": ("affine",)}),
        ("side_channel=none,pcm,rram-wan", {"side_channel": (None, *map(channels.resolve, ("pcm", "rram-wan")))}),
        (
            "side_channel=gaussian:sigma=0.5,low=-1,gaussian:sigma=0.25",
            {"side_channel": (GaussianNoise(sigma=0.5, low=-1.0), GaussianNoise(sigma=0.25))},
        ),
    ],
)
def test_text_says_what_python_does(text, expected):
    assert axes.parse([text]) == expected == axes.checked(expected)
    name, _, values = text.partition("=")
    assert axes.checked({name.strip(): values}) == expected  # as TOML may have it


def test_toml_may_have_lists_of_numbers_or_of_text():
    typed = {"cells": ((1, 20), (2, 20)), "side_bits_per_cell": (1, 2), "large_fraction": (0.5,)}
    assert axes.checked({"cells": [[1, 20], "2/20"], "bits_per_cell": ["1", 2], "large_fraction": [0.5]}) == typed


def test_numbers_may_be_those_of_numpy():
    expected = {"cells": ((1,), (2,)), "shares": ((0.25,),), "cells_small": (3,)}
    assert (
        axes.checked({"cells": np.array([1, 2]), "shares": [np.float32(0.25)], "cells_small": np.array([3])})
        == expected
    )


def test_none_is_a_value_where_it_is_a_choice():
    assert axes.parse(["entropy=none,static", "side_channel=none"]) == {
        "entropy": ("none", "static"), "side_channel": (None,),
    }  # fmt: skip


def test_a_synonym_is_the_setting():
    assert axes.parse(["scope=tensor,model"]) == axes.parse(["granularity=tensor,model"])
    assert axes.parse(["bits-per-cell=1,2"]) == axes.parse(["side_bits_per_cell=1,2"])


def test_every_setting_can_be_an_axis():
    assert set(axes.SETTINGS) == {*settings_of(Scheme), *settings_of(Paper), "integers"}
    for name, (_, _, default) in axes.SETTINGS.items():
        if default is not None:
            assert axes.checked({name: [default]})[name] == (default,)
            assert axes.parse([f"{name}={axes.word(default)}"] if default != () else []).get(name, ((),)) in (
                (default,),
                ((),),
            )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ("1", "integers is 1; it must be from 2 to 8"),
        ("9", "integers is 9; it must be from 2 to 8"),
        ("4,4", "the axis integers contains 4 twice"),
        ("none", "integers is 'none', and it must have a value"),
    ],
)
def test_integers_have_2_to_8_bits(values, message):
    assert axes.parse(["integers=2,8"]) == axes.checked({"integers": [2, 8]}) == {"integers": (2, 8)}
    with pytest.raises(OptionError, match=f"^{message}$"):
        axes.parse([f"integers={values}"])


@given(st.lists(st.lists(st.integers(0, 10**12), min_size=1, max_size=4).map(tuple), min_size=1, unique=True))
def test_a_list_that_is_written_as_a_word_is_read_again(values):
    assert axes.parse([f"cells={','.join(map(axes.word, values))}"]) == {"cells": tuple(values)}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["cells_small"], "'cells_small' is not an axis; write NAME=VALUE,VALUE,..."),
        (["colour=1"], "'colour' is not a setting that can be varied: choose from sign, classes"),
        (["cell_small=1"], "'cell_small' is not a setting that can be varied: did you mean 'cells_small'?"),
        (["cells_small=1,,2"], "the axis cells_small is '1,,2', which has an empty entry"),
        (["cells_small="], "has an empty entry"),
        (["cells_small=1,x"], "cells_small is 'x'; it must be a whole number"),
        (["cells_small=1.5"], "cells_small is '1.5'; it must be a whole number"),
        (["cells_small=0"], "cells_small is 0; it must be from 1 to"),
        (["cells=1/-1"], "cells is -1; it must be from 0 to"),
        (["cells=1//2"], "cells is ''; it must be a whole number"),
        (["large_fraction=5"], "large_fraction is 5.0; it must be from 0 to 1"),
        (["large_fraction=nan"], "large_fraction is nan; it must be"),
        (["granularity=layer"], "granularity is 'layer'; choose from tensor, channel, model"),
        (["cells_small=1,2,1"], "the axis cells_small contains 1 twice"),
        (["cells=1/20,1/20"], "the axis cells contains 1/20 twice"),
        (["side_channel=pcm,pcm"], "the axis side_channel contains pcm"),
        (["side_channel=nothing"], "nothing"),
        (["cells_small=1", "cells-small=2"], "cells_small is an axis twice: give all its values together"),
        (["bits_per_cell=1", "side_bits_per_cell=2"], "side_bits_per_cell is an axis twice"),
        (["channel=none"], "channel is 'none', and it must have a value"),
        (["cells_small=none"], "cells_small is 'none', and it must have a value"),
    ],
)
def test_what_is_no_axis_is_refused_in_one_line(texts, said):
    with pytest.raises(AnalogError, match=re.escape(said)) as raised:
        axes.parse(texts)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"cells_small": 3}, "the axis cells_small is 3; it must be a list of values"),
        ({"cells_small": {1: 2}}, "it must be a list of values"),
        ({"cells_small": []}, "the axis cells_small must not be empty"),
        ({"cells_small": [True]}, "cells_small is True; it must be a whole number"),
        ({"cells": [None]}, "cells is None, and it must have a value"),
        ({"cells": [True]}, "cells is True; it must be numbers"),
        ({"granularity": [1]}, "granularity is 1; it must be text"),
        ({"bits_per_cell": [1], "side_bits_per_cell": [2]}, "side_bits_per_cell is an axis twice"),
    ],
)
def test_values_of_another_type_are_refused(given_, said):
    with pytest.raises(OptionError, match=re.escape(said)):
        axes.checked(given_)
