# No `from __future__ import annotations` here: option types of other people's channels may be types or text.

import json
import tomllib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog import channels
from onnx_analog.channels import Channel, GaussianNoise, TableChannel, available, from_dict, resolve, summary
from onnx_analog.channels.empirical import EmpiricalChannel
from onnx_analog.channels.pcm import pcm
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.rram import RramWan
from onnx_analog.channels.statistical import StatisticalPcm
from onnx_analog.errors import ChannelError
from tests.conftest import ROOT

PCM = pcm()
PAIRS = "v,r\n1,2\n1,4\n2,7\n2,9\n"

# One channel for every name that is installed, with options other than the defaults where there are some.
EXAMPLES: dict[str, Callable[[Any], Channel]] = {
    "empirical": lambda _: EmpiricalChannel(table=PCM),
    "gaussian": lambda _: resolve("gaussian:sigma=0.2,low=-1,high=2"),
    "measured": lambda csv: resolve(f"measured:csv={csv},input=v,output=r,log=true"),
    "pcm": lambda _: resolve("pcm"),
    "pcm-drift": lambda _: resolve("pcm-drift:fit=hermes,read_after_s=3600,compensated=true,differential=true"),
    "pcm-partial-reset": lambda _: resolve("pcm-partial-reset"),
    "precision": lambda _: LimitedPrecision(inner=EmpiricalChannel(table=PCM), write_bits=4, read_bits=5),
    "rram-milo": lambda _: resolve("rram-milo"),
    "rram-wan": lambda _: resolve("rram-wan:read_after_s=86400"),
    "table": lambda _: TableChannel(name="t", inputs=(-1.0, 1.0), means=(0.0, 1.0), stds=(0.1, 0.2)),
}


@pytest.fixture
def csv(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(PAIRS)
    return path


class Entry:
    """What an entry point looks like."""

    def __init__(self, target: Any):
        self.target = target

    def load(self) -> Any:
        return self.target


@pytest.fixture
def install(monkeypatch):
    """Return a function that installs channels of other people, beside ours."""

    def add(**targets: Any) -> None:
        found = {**available(), **{name: Entry(target) for name, target in targets.items()}}
        monkeypatch.setattr(channels, "available", lambda: found)

    return add


# ------------------------------------------------------------------------------------------------------ what there is


def test_every_channel_of_ours_is_installed_and_sorted_by_name():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][channels.GROUP]
    ours = {name: entry.value for name, entry in available().items() if entry.value.startswith("onnx_analog.")}
    assert ours == declared
    assert list(available()) == sorted(available())
    assert channels.DEFAULT in available()


def test_every_channel_of_ours_has_an_example_here():
    assert set(EXAMPLES) == {name for name, entry in available().items() if entry.value.startswith("onnx_analog.")}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_channel_is_summed_up_in_one_line(name):
    found = summary(name)
    assert found.endswith(".")
    assert 15 < len(found) <= 120
    assert "\n" not in found
    assert found[0].isupper()
    assert not found.startswith("Return")


def test_summaries_are_first_lines(install):
    def noisy() -> Channel:
        """Return what is noisy.

        And more.
        """
        return GaussianNoise()

    def silent() -> Channel:
        return GaussianNoise()

    install(noisy=noisy, silent=silent)
    assert summary("noisy") == "What is noisy."
    assert summary("silent") == ""
    with pytest.raises(ChannelError, match="no channel is called 'deaf'"):
        summary("deaf")


def test_a_channel_that_cannot_be_imported_is_listed_with_the_reason(monkeypatch):
    class Broken:
        def load(self) -> Any:
            raise RuntimeError("no such library")

    found = {**available(), "broken": Broken()}
    monkeypatch.setattr(channels, "available", lambda: found)
    assert summary("broken") == "Channel 'broken' is installed and cannot be imported: no such library"


@pytest.mark.parametrize("error", [RuntimeError("no device"), AttributeError("no device"), OSError("no device")])
def test_whatever_a_channel_of_another_package_raises_is_a_channel_error(install, error):
    def theirs() -> Channel:
        raise error

    install(theirs=theirs)
    with pytest.raises(ChannelError, match="channel 'theirs': no device"):
        resolve("theirs")


def test_an_entry_point_that_cannot_be_called_is_refused(install):
    install(theirs=3)
    with pytest.raises(ChannelError, match="channel 'theirs' is of type int; it must be a class or a function"):
        resolve("theirs")


# ------------------------------------------------------------------------------------------------------------ by name


@pytest.mark.parametrize("channel", [PCM, GaussianNoise(), StatisticalPcm()], ids=str)
def test_a_channel_is_returned_as_it_is(channel):
    assert resolve(channel) is channel


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("gaussian", GaussianNoise()),
        ("gaussian:", GaussianNoise()),
        ("gaussian:sigma=0.2", GaussianNoise(sigma=0.2)),
        ("gaussian:high=1,low=-1e-1", GaussianNoise(low=-0.1, high=1.0)),
        ("rram-wan:read_after_s=172800", RramWan(read_after_s=172800.0)),
        ("pcm-drift:fit=hermes", StatisticalPcm(fit="hermes")),
    ],
)
def test_names_and_options(spec, expected):
    assert resolve(spec) == expected
    assert oa.channel(spec) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", True), ("True", True), ("yes", True), ("1", True), ("false", False), ("NO", False), ("0", False)],
)
def test_ways_to_say_yes_and_no(text, expected):
    assert resolve(f"pcm-drift:differential={text}") == StatisticalPcm(differential=expected)


def test_options_of_every_type(csv):
    found = resolve(f"measured:csv={csv},input=v,output=r,log=yes,neighbours=1")
    assert isinstance(found, TableChannel)
    assert (found.neighbours, found.output_scale.log, found.pairs) == (1, True, 4)


@pytest.mark.parametrize(
    ("name", "close"),
    [("pcmm", "pcm"), ("gausian", "gaussian"), ("rram_wan", "rram-wan"), ("PCM-drift", "pcm-drift")],
)
def test_close_names_are_suggested(name, close):
    with pytest.raises(ChannelError, match=f"no channel is called '{name}'. Did you mean '{close}'. There are: "):
        resolve(name)


@pytest.mark.parametrize("name", ["", "flash", ":sigma=1", "onnx_analog.channels.gaussian:GaussianNoise"])
def test_other_names_are_not(name):
    with pytest.raises(ChannelError, match="no channel is called") as caught:
        resolve(name)
    assert "Did you mean" not in str(caught.value)
    assert all(known in str(caught.value) for known in available())
    assert "\n" not in str(caught.value)


def test_without_any_channel_that_is_said(monkeypatch):
    monkeypatch.setattr(channels, "available", dict)
    with pytest.raises(ChannelError, match=r"no channel is called 'pcm'\. There are: none\."):
        resolve("pcm")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("gaussian:sigm=1", "'gaussian' has no option 'sigm'; options are sigma, low, high, as in gaussian:key=value"),
        ("gaussian:sigma", "option 'sigma' has no value; write gaussian:sigma=value"),
        ("gaussian:=1", "options are sigma, low, high"),
        ("gaussian:sigma=0.1;low=0", "'gaussian:sigma=0.1;low=0': '0.1;low=0' is not a number"),
        ("gaussian:sigma=loud", "'gaussian:sigma=loud': 'loud' is not a number"),
        ("gaussian:sigma=", "'gaussian:sigma=': '' is not a number"),
        ("gaussian:sigma=0.1,source=me", "has no option 'source'; options are sigma, low, high"),
        ("gaussian:sigma=-1", "gaussian has sigma -1.0; it must be above 0"),
        ("pcm:sigma=1", "'pcm' has no option 'sigma'; options are none"),
        ("pcm-drift:differential=maybe", "'maybe' is not true or false"),
        ("measured:csv=a.csv,input=v,output=r,neighbours=1.5", "'1.5' is not a"),
        ("measured:csv=a.csv,input=v", "'measured': missing a required argument: 'output'"),
        ("measured", "'measured': missing a required argument: 'csv'"),
        ("precision", "'precision': missing a required argument: 'inner'"),
        ("precision:inner=pcm", "precision"),
        ("empirical:table=pcm", "empirical"),
        ("rram-wan:read_after_s=60", "measured 1, 86400, 172800 s after programming, not 60 s"),
    ],
)
def test_wrong_options_are_refused_in_one_line(spec, message):
    with pytest.raises(ChannelError, match=message) as caught:
        resolve(spec)
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------- as a dict


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_channel_goes_through_a_dict_and_through_json(name, csv):
    channel = EXAMPLES[name](csv)
    body = channel.to_dict()
    assert from_dict(body) == channel
    assert from_dict(json.loads(json.dumps(body))) == channel
    assert from_dict(body).to_dict() == body
    assert body["family"] in available()
    assert type(from_dict(body)) is type(channel)
    assert hash(from_dict(body)) == hash(channel)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_channel_goes_through_a_file(name, csv, tmp_path):
    channel = EXAMPLES[name](csv)
    path = tmp_path / "channel of mine.json"
    path.write_text(json.dumps(channel.to_dict(), ensure_ascii=False), encoding="utf-8")
    assert resolve(str(path)) == channel


def test_channels_that_differ_have_other_dicts():
    assert GaussianNoise(sigma=0.2).to_dict() != GaussianNoise().to_dict()
    assert from_dict(GaussianNoise(sigma=0.2).to_dict()) != GaussianNoise()


TABLE = EXAMPLES["table"](None).to_dict()
DAMAGED = {
    "no family": {"sigma": 0.1},
    "another family": {"family": "flash"},
    "no text for a family": {"family": ["gaussian"]},
    "a function, not a family": {"family": "pcm"},
    "a field too many": {"family": "gaussian", "sigma": 0.1, "more": 1},
    "a field too few": {name: value for name, value in TABLE.items() if name != "means"},
    "text for a number": {"family": "gaussian", "sigma": "loud"},
    "text in a table": {**TABLE, "means": ["a", 1.0]},
    "no table": {**TABLE, "means": 1.0},
    "null in a table": {**TABLE, "means": [None, 1.0]},
    "no channel inside": {"family": "precision", "inner": 3},
    "nothing inside": {"family": "empirical", "table": None},
    "another channel inside": {"family": "empirical", "table": {"family": "gaussian"}},
    "a number for a scale": {**TABLE, "input_scale": 3},
    "half a scale": {**TABLE, "input_scale": {"low": 1.0}},
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_no_family_writes_is_refused(name):
    with pytest.raises(ChannelError) as caught:
        from_dict(DAMAGED[name])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", DAMAGED)
def test_so_it_is_in_a_file(name, tmp_path):
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(DAMAGED[name]))
    with pytest.raises(ChannelError):
        resolve(str(path))


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b"null", b'"gaussian"', b"\xff\xfe"])
def test_a_file_that_holds_no_channel_is_named(text, tmp_path):
    path = tmp_path / "no channel.json"
    path.write_bytes(text)
    with pytest.raises(ChannelError, match=r"'.*no channel\.json'(:| is not UTF-8)") as caught:
        resolve(str(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ChannelError, match=r"there is no file '.*none\.json'"):
        resolve(str(tmp_path / "none.json"))
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ChannelError, match=r"'.*folder\.json' is a folder; a file is needed"):
        resolve(str(tmp_path / "folder.json"))


# ------------------------------------------------------------------------------------------- channels of other people


def typed(*, sigma: float = 0.1, high: float = 0.75) -> Channel:
    return GaussianNoise(sigma=sigma, high=high)


def texts(*, sigma: "float" = 0.1, high: "float" = 0.75) -> Channel:
    return GaussianNoise(sigma=sigma, high=high)


@pytest.mark.parametrize("maker", [typed, texts, GaussianNoise])
def test_another_package_may_bring_a_class_or_a_function(install, maker):
    install(theirs=maker)
    assert resolve("theirs") == GaussianNoise()
    assert resolve("theirs:sigma=0.5,high=1") == GaussianNoise(sigma=0.5, high=1.0)
    with pytest.raises(ChannelError, match="'theirs' has no option 'more'; options are sigma, "):
        resolve("theirs:more=1")
    with pytest.raises(ChannelError, match="'theirs:sigma=loud': 'loud' is not a number"):
        resolve("theirs:sigma=loud")


@pytest.mark.parametrize("given", [3, None, "gaussian", GaussianNoise])
def test_an_entry_point_that_gives_something_else_is_refused(install, given):
    install(theirs=lambda: given)
    with pytest.raises(ChannelError, match=f"entry point 'theirs' gives {type(given).__name__}, which is not a Chan"):
        resolve("theirs")


@pytest.mark.parametrize("family", [dict, GaussianNoise(), lambda **_: GaussianNoise()])
def test_a_family_that_is_no_class_of_channels_is_refused(install, family):
    install(theirs=family)
    with pytest.raises(ChannelError, match="'theirs' is not a family of channels"):
        from_dict({"family": "theirs"})


GAUSSIAN = '{"family": "gaussian", "sigma": 0.1'
TABLE_JSON = '{"family": "table", "name": "t", "inputs": [0, 1], "means": [0, 1], "stds": [0.1, 0.1]'


def nested(depth: int) -> str:
    return '{"family": "precision", "inner": ' * depth + GAUSSIAN + "}" * (depth + 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"sigma": 0.1}', "does not say its family"),
        ('{"family": 3}', "family is 3; it must be text"),
        ('{"family": ["gaussian"]}', "it must be text"),
        ('{"family": "pcm"}', "is not a family of channels"),
        ('{"family": "measured", "csv": "x.csv"}', "is not a family of channels"),
        (GAUSSIAN + ', "sigma": 0.2}', "an object has the name 'sigma' twice"),
        (GAUSSIAN + ', "low": NaN}', "NaN is not finite"),
        (GAUSSIAN + ', "low": -Infinity}', "-Infinity is not finite"),
        (GAUSSIAN + ', "high": 1e999}', "1e999 is not finite"),
        (GAUSSIAN + ', "high": 1' + "0" * 400 + "}", "is beyond 64 bits"),
        (GAUSSIAN + ', "high": 1' + "0" * 5000 + "}", "is beyond 64 bits"),
        (GAUSSIAN + ', "high": true}', "high is true; it must be a finite number"),
        (GAUSSIAN + ', "high": "1"}', "high is '1'; it must be a finite number"),
        (GAUSSIAN + ', "high": null}', "high is null; it must be a finite number"),
        (GAUSSIAN + ', "high": [1]}', "it must be a finite number"),
        (GAUSSIAN + ', "more": 1}', "there is no field 'more'; fields are sigma, low, high"),
        (TABLE_JSON.replace('"name": "t", ', "") + "}", "the field 'name' is missing"),
        (TABLE_JSON.replace('"t"', "3") + "}", "name is 3; it must be text"),
        (TABLE_JSON.replace("[0, 1]", "[0, true]") + "}", r"inputs\[1\] is true; it must be a finite number"),
        (TABLE_JSON.replace("[0, 1]", '"01"') + "}", "inputs is '01'; it must be a list"),
        (TABLE_JSON.replace("[0, 1]", "{}") + "}", "inputs is an object; it must be a list"),
        (TABLE_JSON + ', "residuals": [[], [0.5]]}', r"residuals\[0\] is empty"),
        (TABLE_JSON + ', "residuals": [[0.5], [0.5], [0.5]]}', "residuals has 3 entries"),
        (TABLE_JSON + ', "residuals": [[0.5], 3]}', r"residuals\[1\] is 3; it must be a list"),
        (TABLE_JSON + ', "between": [0.1, -0.1]}', "between must be from 0"),
        (TABLE_JSON + ', "input_scale": {"low": 0, "high": 1, "log": true}}', "so has no logarithm"),
        (TABLE_JSON + ', "input_scale": {"low": 0, "high": 1, "log": 1}}', "log is 1; it must be true or false"),
        (TABLE_JSON + ', "input_scale": {"low": 0, "high": 1, "unit": 5}}', "unit is 5; it must be text"),
        (TABLE_JSON + ', "output_scale": []}', "output_scale: Scale is built from a mapping"),
        (TABLE_JSON + ', "provenance": {"figure": "4"}}', "the field 'citation' is missing"),
        ('{"family": "empirical", "table": ' + GAUSSIAN + "}}", "table is .*, which is no TableChannel|GaussianNoise"),
        ('{"family": "empirical", "table": 3}', "table"),
        ('{"family": "precision", "inner": 3}', "inner is 3, which is no Channel"),
        (
            '{"family": "precision", "inner": ' + GAUSSIAN + '}, "read_bits": 2.5}',
            "read_bits is 2.5; it must be a whole",
        ),
        ('{"family": "precision", "inner": ' + GAUSSIAN + '}, "read_bits": 17}', "read_bits is 17"),
        ('{"family": "pcm-drift", "read_after_s": -1}', "must be from 0"),
        ('{"family": "pcm-drift", "read_after_s": 1e13}', "must be from 0"),
        ('{"family": "pcm-drift", "compensated": 1}', "compensated is 1; it must be true or false"),
        ('{"family": "rram-wan", "read_after_s": true}', "read_after_s is true"),
        (nested(2), "has limited precision already"),
        (nested(20), "more than 8 deep"),
        (nested(300_000), "nested more than 32 deep"),
        ("[" * 300_000, "nested more than 32 deep"),
        (GAUSSIAN.replace("0.1", "[" * 25 + "]" * 25) + "}", "sigma is a list; it must be a finite number"),
        (GAUSSIAN.replace("0.1", '{"a":' * 25 + "1" + "}" * 25) + "}", "sigma is an object"),
    ],
)
def test_a_file_that_is_no_channel_is_refused_in_one_line(text, message, tmp_path):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ChannelError, match=message) as caught:
        resolve(str(path))
    assert str(caught.value).isprintable()
    assert "bad.json" in str(caught.value)


@pytest.mark.parametrize("spec", ["gaussian:sigma=nan", "gaussian:high=inf", "gaussian:low=1e31", "pcm-drift:fit=x"])
def test_options_are_checked_as_fields_are(spec):
    with pytest.raises(ChannelError):
        resolve(spec)


def test_numbers_of_numpy_become_those_of_python():
    found = GaussianNoise(sigma=np.float32(0.5), low=np.int64(-1), high=1)
    assert found == from_dict(json.loads(json.dumps(found.to_dict())))
    assert [type(value) for value in (found.sigma, found.low, found.high)] == [float, float, float]
