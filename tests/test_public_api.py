import inspect

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog import passes

PUBLIC = [
    "PRESETS",
    "STRATEGIES",
    "Selection",
    "account",
    "channel",
    "engines",
    "evaluate",
    "inspect",
    "protect",
    "prune",
    "readback",
    "readbacks",
    "sweep",
]
PASSES = ["DecodePass", "ManifestPass", "ProtectPass", "PrunePass", "ReadbackPass"]
DATA = {"PRESETS", "STRATEGIES"}
MODULES = {"engines"}


def test_the_public_names_are_these():
    assert oa.__all__ == PUBLIC == sorted(PUBLIC)
    assert dir(oa) == PUBLIC
    assert passes.__all__ == PASSES == sorted(PASSES)


@pytest.mark.parametrize("name", sorted({*PUBLIC, *PASSES} - DATA))
def test_what_is_public_is_documented(name):
    found = getattr(oa, name, None) or getattr(passes, name)
    assert callable(found) or name in MODULES
    first = (inspect.getdoc(found) or "").partition("\n")[0]
    assert first.endswith(".")
    assert len(first) > 20


@pytest.mark.parametrize("name", sorted(DATA))
def test_data_that_are_public_cannot_be_changed(name):
    found = getattr(oa, name)
    with pytest.raises(TypeError):
        found["other"] = None


def test_names_are_those_of_the_modules():
    from onnx_analog import api, channels
    from onnx_analog.coding import strategies
    from onnx_analog.graph import weights

    assert oa.protect is api.protect
    assert oa.channel is channels.resolve
    assert oa.STRATEGIES is strategies.STRATEGIES
    assert oa.Selection is weights.Selection


@pytest.mark.parametrize("name", ["nothing", "np", "_private"])
def test_another_name_is_no_attribute(name):
    with pytest.raises(AttributeError, match=f"module 'onnx_analog' has no attribute '{name}'"):
        getattr(oa, name)


def test_every_parameter_is_named_in_the_call_but_the_first():
    for name in ("account", "evaluate", "inspect", "protect", "prune", "readback", "readbacks"):
        kinds = [parameter.kind for parameter in inspect.signature(getattr(oa, name)).parameters.values()]
        data = name == "evaluate"
        assert kinds[: 1 + data] == [inspect.Parameter.POSITIONAL_OR_KEYWORD] * (1 + data)
        assert set(kinds[1 + data :]) <= {inspect.Parameter.KEYWORD_ONLY}


def test_the_presets_are_the_default_and_the_paper_s():
    assert {name: (p.scope, p.large_fraction) for name, p in oa.PRESETS.items()} == {
        "default": ("tensor", 0.05),
        "isik2020": ("model", 0.0025),
    }


def test_the_strategies_are_the_rows_of_table_1():
    found = {name: (s.sign_in_header, s.classes, s.cells(2, 30)) for name, s in oa.STRATEGIES.items()}
    assert found == {
        "raw": (False, 1, (2,)),
        "sign": (True, 1, (2,)),
        "mapping": (True, 2, (2, 2)),
        "redundancy": (True, 2, (2, 30)),
    }


def test_a_channel_is_found_by_name():
    assert oa.channel("gaussian:sigma=0.2").span == (-0.65, 0.75)
    assert np.isclose(oa.channel("pcm").span, (-0.61, 0.65), atol=0.005).all()
