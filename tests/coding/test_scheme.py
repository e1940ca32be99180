"""Schemes as values: what they refuse, how they are written and read, and what they say of themselves."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from onnx_analog import channels
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.channels.pcm import pcm
from onnx_analog.coding.scheme import Paper, Scheme
from onnx_analog.errors import ChannelError, OptionError
from tests.coding.families import schemes
from tests.models import QUIET

# ------------------------------------------------------------------------------------------------------- as JSON

CHANNELS = st.sampled_from(["pcm", "rram-wan", "gaussian:sigma=0.2", "pcm-drift", "pcm-partial-reset"])


@st.composite
def stored(draw: st.DrawFn) -> Scheme:
    """Draw a scheme with any channels."""
    scheme = draw(schemes(channel=draw(CHANNELS | st.none())))
    if scheme.analog == "some" or draw(st.booleans()):
        return scheme.changed(side_bits_per_cell=draw(st.integers(1, 8)))
    return scheme.changed(
        side_channel=draw(CHANNELS),
        side_bits_per_cell=draw(st.integers(1, 4)),
        side_cells=draw(st.integers(1, 5)),
        side_copies=draw(st.sampled_from([1, 3, 999])),
    )


@given(stored())
def test_a_scheme_comes_back_from_json(scheme):
    again = Scheme.from_dict(json.loads(json.dumps(scheme.to_dict())))
    assert again == scheme
    assert hash(again) == hash(scheme)
    assert again.to_dict() == scheme.to_dict()
    assert again.digest() == scheme.digest()


@given(stored(), stored())
def test_digests_tell_schemes_apart(one, other):
    assert (one.digest() == other.digest()) == (one == other)
    assert one.changed() == one


def test_channels_by_name_object_and_dictionary_are_the_same():
    given = ["pcm", channels.resolve("pcm"), channels.resolve("pcm").to_dict()]
    assert len({Scheme.from_dict({"channel": channel}).digest() for channel in (given[0], given[2])}) == 1
    assert Scheme(channel=given[0]) == Scheme(channel=given[1])
    assert Scheme() == Scheme(channel=channels.DEFAULT) == Scheme.from_dict({})


def test_channels_of_a_scheme_keep_only_what_they_draw_from():
    assert pcm().to_dict().get("residuals")
    assert not Scheme(channel=pcm()).channel.to_dict().get("residuals")
    drawn = Modifiers(residuals="empirical").apply(pcm())
    kept = Scheme(channel=drawn)
    assert "residuals" in json.dumps(kept.to_dict())
    assert Scheme.from_dict(kept.to_dict()) == kept


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([1], r"a scheme is \[1\]; it must be an object"),
        (None, "a scheme is null; it must be an object"),
        ({"cell": [1]}, "a scheme has no setting 'cell': did you mean 'cells'?"),
        ({"cells": "12"}, "cells is '12'; it must be a list"),
        ({"cells": [1.5]}, r"cells is 1\.5; it must be a whole number"),
        ({"classes": "2"}, "classes is '2'; it must be a whole number"),
        ({"classes": True}, "classes is True; it must be a whole number"),
        ({"sign": 1}, "sign is 1; it must be text"),
        ({"sign": None}, "sign is None; it must be text"),
        ({"step": "small", "partition": "uniform"}, "step is 'small'; it must be a number"),
    ],
)
def test_what_is_no_scheme_is_refused(body, said):
    with pytest.raises(OptionError, match=said) as caught:
        Scheme.from_dict(body)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        {"channel": {"family": "none"}},
        {"channel": "none"},
        {"side_channel": {"a": 1}},
        {"channel": "channel_of_nobody:Channel"},
        {"side_channel": "channel.json"},
    ],
)
def test_a_channel_that_is_not_installed_is_refused_and_nothing_imported(body, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "channel_of_nobody.py").write_text("raise SystemExit('imported')", encoding="utf-8")
    (tmp_path / "channel.json").write_text(json.dumps(QUIET.to_dict()), encoding="utf-8")
    with pytest.raises(ChannelError):
        Scheme.from_dict(body)
    assert "channel_of_nobody" not in sys.modules


# --------------------------------------------------------------------------------------- what contradicts itself

LLOYD: dict[str, Any] = {"classes": 4, "partition": "lloyd", "cells": 1}
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"sign": "header"}, "sign is 'header'; choose from bit, level"),
    ({"classes": 0}, "classes is 0; it must be from 1 to 256"),
    ({"classes": 257}, "classes is 257; it must be from 1 to 256"),
    ({"partition": "k-means"}, "partition is 'k-means'; choose from share, bounds, lloyd, uniform"),
    ({"granularity": "layer"}, "granularity is 'layer'; choose from tensor, channel, model"),
    ({"cells": -1}, "cells is -1; it must be from 0 to"),
    ({"cells": 10**13}, "cells is 10000000000000; it must be from 0 to"),
    ({"cells": ()}, "cells has 0 numbers, and classes is 2; give one number, or one for each class"),
    ({"cells": (1, 2, 3)}, "cells has 3 numbers, and classes is 2"),
    ({"classes": 1}, "cells has 2 numbers, and classes is 1"),
    ({"classes": 1, "cells": 0}, "cells is 0 with one class: every weight would be read as the same number"),
    ({"classes": 3, "cells": 1}, "shares has 0 numbers; as partition is 'share' and classes is 3, it must have 2"),
    ({"classes": 3, "cells": 1, "shares": (0.9, 0.2)}, "shares add up to 1.1; they must add up to 1 or less"),
    ({"shares": (1.5,)}, "shares is 1.5; it must be from 0 to 1"),
    ({"shares": (float("nan"),)}, "shares is nan; it must be from 0 to 1"),
    ({**LLOYD, "shares": (0.5, 0.1, 0.1)}, "shares has 3 numbers; as partition is 'lloyd' and classes is"),
    ({**LLOYD, "bounds": (0.5,)}, "bounds has 1 number; as partition is 'lloyd' and classes is"),
    ({"bounds": (0.5,)}, "bounds has 1 number; as partition is 'share' and classes is"),
    ({"partition": "bounds"}, "bounds has 0 numbers; as partition is 'bounds' and classes is"),
    ({"partition": "bounds", "bounds": (0.0,)}, "bounds are 0; they must ascend, and be above 0 where a bit holds"),
    ({"partition": "bounds", "bounds": (float("inf"),)}, "bounds is inf; it must be finite"),
    ({**LLOYD, "partition": "bounds", "bounds": (3, 2, 1), "sign": "level"}, "bounds are 3, 2, 1; they must ascend"),
    ({**LLOYD, "partition": "bounds", "bounds": (1, 1, 2)}, "bounds are 1, 1, 2; they must ascend"),
    ({"step": 0.1}, "step is 0.1; partition 'share' with classes 2 has no step"),
    ({**LLOYD, "partition": "uniform", "step": 0}, "step is 0.0; it must be above 0"),
    ({**LLOYD, "partition": "uniform", "step": float("inf")}, "step is inf; it must be above 0"),
    (
        {"classes": 1, "cells": 1, "partition": "uniform", "step": 1},
        "step is 1; partition 'uniform' with classes 1",
    ),
    ({"side_cells": 2}, "side_cells and side_copies need a side_channel"),
    ({"side_copies": 3}, "side_cells and side_copies need a side_channel"),
    ({"side_copies": 2, "side_channel": QUIET}, "side_copies is 2; it must be odd"),
    ({"side_bits_per_cell": 9}, "side_bits_per_cell is 9; it must be from 1 to 8"),
    ({"cells": (0, 1), "side_channel": QUIET}, "side_channel cannot be given where some classes have cells and others"),
    ({"entropy": "static", "side_channel": QUIET}, "side_channel and entropy exclude each other"),
    (
        {"cells": (0, 1), "code": "none"},
        "code none leaves class bits wrong, and some classes have cells and others none",
    ),
    ({"estimator": "best"}, "no estimator is called 'best': choose from affine, clipped, posterior"),
    ({"channel": 3}, "channel is 3; it must be a name"),
]


@pytest.mark.parametrize(("settings", "said"), REFUSED, ids=lambda value: value if isinstance(value, str) else "")
def test_settings_that_contradict_each_other_are_refused_in_one_line(settings, said):
    with pytest.raises((OptionError, ChannelError)) as caught:
        Scheme(**settings)
    assert said in str(caught.value)
    assert len(str(caught.value)) <= 300
    assert "\n" not in str(caught.value)


def test_cells_that_are_read_one_by_one_are_limited():
    slow = Modifiers(read_bits=8).apply(QUIET)
    with pytest.raises(ChannelError, match=r"is read cell by cell, so a weight can have at most .* cells; here it has"):
        Scheme(channel=slow, cells=(1, 10**11))


def test_schemes_that_store_alike_are_equal():
    assert Scheme(cells=3) == Scheme(cells=(3,)) == Scheme(cells=(3, 3)) == Scheme(cells=np.int64(3))
    assert Scheme(shares=[0.05]) == Scheme()
    assert len({Scheme(classes=1, cells=1, partition=name) for name in ("share", "lloyd", "uniform")}) == 1
    assert Scheme(cells=3).cells_of_class == (3, 3)


@pytest.mark.parametrize("classes", range(1, 257))
def test_side_bits_are_sign_and_class(classes):
    if classes == 1:
        assert Scheme(classes=1, cells=1).side_bits == 1
        return
    scheme = Scheme(classes=classes, partition="lloyd", cells=1)
    assert scheme.index_bits == int(np.ceil(np.log2(classes)))
    assert scheme.side_bits == 1 + scheme.index_bits
    assert scheme.changed(sign="level").side_bits == scheme.index_bits


@pytest.mark.parametrize(("cells", "analog"), [((1, 2), "all"), ((0, 2), "some"), ((0, 0), "none"), ((0,), "none")])
def test_analog_says_which_classes_have_cells(cells, analog):
    assert Scheme(cells=cells).analog == analog


# ----------------------------------------------------------------------------------------------------- integers


@pytest.mark.parametrize("bits", range(2, 9))
def test_integers_are_uniform_classes_without_cells(bits):
    scheme = Scheme.integers(bits)
    assert (scheme.sign, scheme.classes, scheme.partition, scheme.analog) == ("level", 2**bits - 1, "uniform", "none")
    assert scheme.side_bits == bits


@pytest.mark.parametrize("name", ["sign", "classes", "partition", "cells"])
def test_settings_that_integers_fix_are_refused(name):
    value = getattr(Scheme.int8(), name)
    with pytest.raises(OptionError, match=f"{name} is given, and integers of 8 bits fix it: leave it out"):
        Scheme.int8(**{name: value})


def test_integers_by_name_and_with_other_settings():
    assert (Scheme.int8(), Scheme.int4()) == (Scheme.integers(8), Scheme.integers(4))
    assert Scheme.int8(granularity="channel").granularity == "channel"
    for bits in (1, 9):
        with pytest.raises(OptionError, match=f"bits is {bits}; it must be from 2 to 8"):
            Scheme.integers(bits)


# ---------------------------------------------------------------------------------------------------- in words


@pytest.mark.parametrize(
    ("scheme", "words"),
    [
        (Scheme(), "redundancy, cells 1 and 20, share 0.05"),
        (Scheme.paper("raw", granularity="model"), "raw, cells 1, one scale for the model"),
        (Scheme.paper(threshold=0.5), "redundancy, cells 1 and 20, bound 0.5"),
        (Scheme.int4(granularity="channel"), "uniform, 15 classes, sign in the level, no cells, one scale for each"),
        (
            Scheme(classes=6, partition="lloyd", cells=(0, 1, 2, 3, 4, 5)),
            "lloyd, 6 classes, cells 0 to 5",
        ),
        (
            Scheme(classes=3, shares=(0.2, 0.1), cells=(1, 2, 3)),
            "share, 3 classes, shares 0.2 and 0.1, cells 1 and 2 and 3",
        ),
        (Scheme(classes=4, partition="uniform", step=0.5, cells=(2,)), "uniform, 4 classes, cells 2, step 0.5"),
        (
            Scheme(channel="rram-milo", side_channel="rram-milo", side_copies=3, side_bits_per_cell=1),
            "redundancy, cells 1 and 20, share 0.05, channel rram-milo, side_bits_per_cell 1, side information",
        ),
        (
            Scheme(estimator="tests.coding.test_estimators:Shrink"),
            "redundancy, cells 1 and 20, share 0.05, estimator tests",
        ),
    ],
)
def test_a_scheme_is_printed_in_one_line_that_says_what_differs_from_the_default(scheme, words):
    assert str(scheme).startswith(words)
    assert repr(scheme).startswith("Scheme('")
    assert len(repr(scheme)) < 180


@pytest.mark.parametrize(("kind", "said"), [(Scheme, "Scheme has no setting 'clases': did you mean 'classes'?"),
                                            (Paper, "Paper has no setting 'clases': choose from")])  # fmt: skip
def test_an_unknown_setting_is_refused_with_a_suggestion(kind, said):
    with pytest.raises(OptionError, match=re.escape(said)):
        kind(clases=3)


def test_settings_are_listed_without_loading_numpy():
    code = "import sys, onnx_analog.coding.scheme; print('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# -------------------------------------------------------------------------------------------- other settings


def test_one_number_stands_for_a_list():
    assert Scheme(shares=0.01, cells=np.int64(3)) == Scheme(shares=(0.01,), cells=(3,))
    assert Scheme(partition="bounds", bounds=np.float32(0.5)).bounds == (0.5,)


def test_another_number_of_classes_has_cells_of_its_own_number():
    assert Scheme.paper(classes=1).cells_of_class == (1,)
    assert Scheme.paper(classes=3, partition="lloyd", cells_small=4).cells_of_class == (4, 4, 4)
    assert Scheme.paper(classes=2).cells_of_class == (1, 20)


def test_another_partition_leaves_out_what_only_the_old_one_has():
    lloyd, uniform = Scheme(partition="lloyd"), Scheme(partition="uniform", step=0.5)
    assert Scheme().changed(partition="lloyd") == lloyd
    assert lloyd.changed(partition="share") == uniform.changed(partition="share") == Scheme()
    assert Scheme().changed(partition="bounds", bounds=(0.5,)).changed(partition="lloyd") == lloyd
    assert Scheme(cells=2).changed(classes=1) == Scheme(classes=1, cells=2)
    assert uniform.changed(classes=4, cells=1).step == 0.5
    with pytest.raises(OptionError, match=r"step is 0\.5; partition 'lloyd' with classes 2 has no step"):
        uniform.changed(partition="lloyd", step=0.5)


@pytest.mark.parametrize("step", [0.25, 1.0])
def test_rivals_with_an_entropy_coded_index_are_members_of_the_family(step):
    digital, refined = Scheme.entropy_coded(step), Scheme.refined(step, 3, granularity="channel")
    assert (digital.analog, digital.cells, refined.analog, refined.cells) == ("none", (0,), "all", (3,))
    for scheme in (digital, refined):
        assert (scheme.sign, scheme.classes, scheme.partition, scheme.relative_step) == ("level", 255, "uniform", step)
        assert (scheme.entropy, scheme.estimator) == ("context", "unbiased")
    assert refined.granularity == "channel"
    changed = Scheme.entropy_coded(step, entropy="static", estimator="affine", rate_weight=0.1, channel="rram-milo")
    assert (changed.entropy, changed.estimator, changed.rate_weight) == ("static", "affine", 0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Scheme.entropy_coded(1.0, cells=(1,)), "cells is given, and entropy-coded quantisation fixes it"),
        (lambda: Scheme.refined(1.0, classes=3), "classes is given, and refined quantisation fixes it: leave it out"),
        (lambda: Scheme.refined(1.0, 0), "cells is 0; it must be 1 or more"),
        (lambda: Scheme.entropy_coded(0.0), "relative_step is 0.0; it must be"),
        (lambda: Scheme.integers(4, classes=3), "classes is given, and integers of 4 bits fix it: leave it out"),
    ],
)
def test_constructors_refuse_what_they_fix(make, message):
    with pytest.raises(OptionError, match=f"^{message}"):
        make()
