# No `from __future__ import annotations` here: option types of other people's channels may be types or text.

import json
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from click.testing import CliRunner

import onnx_analog as oa
from onnx_analog import channels
from onnx_analog.channels import Channel, GaussianNoise, TableChannel, available, from_dict, resolve, summary
from onnx_analog.channels.empirical import EmpiricalChannel
from onnx_analog.channels.modifiers import Modifiers
from onnx_analog.channels.pcm import pcm
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.residual import ResidualCells
from onnx_analog.channels.rram import RramWan
from onnx_analog.channels.statistical import StatisticalPcm
from onnx_analog.cli import main
from onnx_analog.demo import MODEL
from onnx_analog.errors import ChannelError, OptionError
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
    "residual": lambda _: ResidualCells(inner=LimitedPrecision(inner=StatisticalPcm(), read_bits=6), verify_reads=3),
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
    with pytest.raises(ChannelError, match=f"no channel is called '{name}': did you mean '{close}'. There are "):
        resolve(name)


@pytest.mark.parametrize("name", ["", "flash", ":sigma=1"])
def test_other_names_are_not(name):
    with pytest.raises(ChannelError, match="no channel is called") as caught:
        resolve(name)
    assert "did you mean" not in str(caught.value)
    assert all(known in str(caught.value) for known in available())
    assert "\n" not in str(caught.value)


def test_without_any_channel_that_is_said(monkeypatch):
    monkeypatch.setattr(channels, "available", dict)
    with pytest.raises(ChannelError, match=r"no channel is called 'pcm': there are none"):
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
        ("measured:csv=a.csv,input=v", "'measured' needs output: name measured:csv="),
        ("measured", "'measured' needs csv, input, output: name measured:csv="),
        ("precision", "'precision' needs inner: name any channel, with write bits"),
        ("precision:inner=pcm", "precision"),
        ("residual", "'residual' needs inner: name a channel such as pcm-drift, with cells_hold residual"),
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
        (TABLE_JSON + ', "input_scale": {"low": 0, "high": 1, "log": true}}', "which has no logarithm"),
        (TABLE_JSON + ', "input_scale": {"low": 0, "high": 1, "log": 1}}', "log is 1; it must be true or false"),
        (TABLE_JSON + ', "input_scale": {"low": 0, "high": 1, "unit": 5}}', "unit is 5; it must be text"),
        (TABLE_JSON + ', "output_scale": []}', "output_scale: Scale is built from a mapping"),
        (TABLE_JSON + ', "provenance": {"figure": "4"}}', "the field 'citation' is missing"),
        (
            '{"family": "empirical", "table": ' + GAUSSIAN + "}}",
            "table is .*, which is not a TableChannel|GaussianNoise",
        ),
        ('{"family": "empirical", "table": 3}', "table"),
        ('{"family": "precision", "inner": 3}', "inner is 3, which is not a Channel"),
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


# ------------------------------------------------------------------------------------- channels of a user's own script


MODULE = """
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from onnx_analog.channels import GaussianChannel, GaussianNoise, Source


@dataclass(frozen=True, kw_only=True)
class Mine(GaussianChannel):
    source: ClassVar[Source] = Source(citation="a script")
    span: ClassVar[tuple[float, float]] = (0.0, 1.0)
    sigma: float = 0.1
    read_after_s: float = 0.0

    def std(self, level):
        self.check(level)
        return np.full(level.shape, self.sigma * (1 + self.read_after_s))


def quiet(*, sigma: float = 0.01):
    return Mine(sigma=sigma)


class Below(GaussianNoise):
    pass


NUMBER = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a folder, now the current one, with a module of channels whose name no other test uses."""
    monkeypatch.chdir(tmp_path)
    name = f"mine_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    yield name
    sys.modules.pop(name, None)


def test_a_class_of_a_module_in_the_current_folder(folder):
    channel = resolve(f"{folder}:Mine:sigma=0.25")
    assert type(channel).__name__ == "Mine"
    assert channel.std(np.array([0.5])) == 0.25
    assert resolve(f"{folder}:Mine").sigma == 0.1
    assert resolve(f"{folder}:Mine:") == resolve(f"{folder}:Mine") == resolve(type(channel))
    assert resolve(f"{folder}:quiet:sigma=0.02") == resolve(f"{folder}:Mine:sigma=0.02")
    assert channel.family == f"{folder}:Mine"
    assert from_dict(json.loads(json.dumps(channel.to_dict()))) == channel


def test_a_subclass_does_not_have_the_family_of_its_base(folder):
    below = resolve(f"{folder}:Below:sigma=0.3")
    assert below.to_dict()["family"] == f"{folder}:Below"
    assert from_dict(below.to_dict()) == below
    assert type(from_dict(below.to_dict())) is type(below)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("{}:Mine:sigma=loud", "'loud' is not a number"),
        ("{}:Mine:colour=1", "has no option 'colour'; options are sigma, read_after_s"),
        ("{}:None_", "no channel is called '{}', and '{}:None_' cannot be imported"),
        ("{}:NUMBER", "is not a function"),
        ("{}:dataclass", "gives .*, which is not a Channel"),
        ("{}x:Mine", "cannot be imported: No module named"),
        ("gausian:sigma", "no channel is called 'gausian': did you mean 'gaussian'"),
    ],
)
def test_what_a_module_does_not_have_is_refused_in_one_line(folder, spec, message):
    with pytest.raises(ChannelError, match=message.replace("{}", folder)) as caught:
        resolve(spec.replace("{}", folder))
    assert str(caught.value).isprintable()


def test_a_class_that_takes_the_name_of_another_channel_is_refused():
    @dataclass(frozen=True, kw_only=True)
    class Impostor(GaussianNoise):
        family: ClassVar[str] = "gaussian"

    for spec in (Impostor, Impostor()):
        with pytest.raises(ChannelError, match="class Impostor has the family 'gaussian', the name"):
            resolve(spec)


def run(folder: Path, code: str, *arguments: Any) -> str:
    """Return what another process prints, in `folder`; as the command does, it does not look there for modules."""
    command = [sys.executable, "-P", "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


READ = """
    import sys
    import onnx_analog as oa
    if len(sys.argv) > 2:
        oa.channel(sys.argv[2])
    try:
        print(oa.readback(sys.argv[1], seed=0).model.graph.name, "read")
    except oa.errors.AnalogError as error:
        print(error)
"""


def test_a_model_of_a_class_is_read_where_the_user_gives_the_class_and_never_imports_it(folder, tmp_path):
    options = f"--strategy mapping --channel {folder}:Mine -o protected.onnx"
    done = CliRunner().invoke(main, ["protect", str(MODEL), *options.split()])
    assert done.exit_code == 0, done.output
    refused = run(tmp_path, "import onnx_analog.errors\n" + textwrap.dedent(READ), "protected.onnx")
    assert f"the channel is of class '{folder}:Mine', and a file cannot import a module" in refused
    assert run(tmp_path, READ, "protected.onnx", f"{folder}:Mine").strip().endswith("read")


def test_a_sweep_with_a_class_reaches_other_processes(folder, tmp_path):
    code = f"""
    import onnx_analog as oa
    from onnx_analog import demo
    from onnx_analog.study import engines

    if __name__ == "__main__":
        data = demo.begin().data
        swept = oa.sweep(demo.MODEL, data, channel="{folder}:Mine", strategy="mapping", cells=[1], trials=2,
                         engine=engines.build("local", workers=2))
        print(len(swept.points), "points")
    """
    (tmp_path / "sweeping.py").write_text(textwrap.dedent(code))
    printed = run(tmp_path, "import runpy; runpy.run_path('sweeping.py', run_name='__main__')")
    assert printed.strip().endswith("1 points"), printed


def test_loading_a_channel_runs_no_code_of_the_current_folder(folder, tmp_path):
    (tmp_path / f"{folder}.py").write_text("raise SystemExit('it ran')")
    (tmp_path / "mine.json").write_text(json.dumps({"family": f"{folder}:Mine"}))
    code = "from onnx_analog.channels import resolve\nresolve('mine.json')"
    printed = run(tmp_path, code)
    assert "it ran" not in printed
    assert "a file cannot import a module" in printed


PACKAGE = """
[onnx_analog.channels]
their-own = {name}:Mine
"""


def test_an_installed_channel_of_another_package_takes_all_changes(folder, tmp_path, monkeypatch):
    """An installed package, as pip leaves it: a module and its entry points in a folder where Python looks."""
    text = MODULE.replace(
        "class Mine(GaussianChannel):", 'class Mine(GaussianChannel):\n    family: ClassVar[str] = "their-own"'
    )
    (tmp_path / f"{folder}.py").write_text(text)
    (tmp_path / "theirs-1.0.dist-info").mkdir()
    (tmp_path / "theirs-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (tmp_path / "theirs-1.0.dist-info" / "entry_points.txt").write_text(PACKAGE.format(name=folder))
    monkeypatch.syspath_prepend(str(tmp_path))
    channel = resolve("their-own:sigma=0.05")
    assert channel.to_dict()["family"] == "their-own"
    assert Modifiers(read_after_s=2.0).apply(channel) == resolve("their-own:sigma=0.05,read_after_s=2")
    limited = Modifiers(read_after_s=2.0, write_bits=3, read_bits=4).apply(channel)
    assert limited == LimitedPrecision(inner=resolve("their-own:sigma=0.05,read_after_s=2"), write_bits=3, read_bits=4)
    assert Modifiers(read_after_s=3.0, write_bits=0, read_bits=0).apply(limited).read_after_s == 3.0
    with pytest.raises(ChannelError, match="was not measured pair by pair"):
        Modifiers(residuals="empirical").apply(channel)
    with pytest.raises(OptionError, match="read_after_s is True; it must be a number"):
        Modifiers(read_after_s=True)

    arguments = [
        "protect",
        "--strategy",
        "mapping",
        "--channel",
        "their-own",
        "--read-after",
        "9s",
        "--write-bits",
        "3",
    ]
    from click.testing import CliRunner

    from onnx_analog.cli import main
    from onnx_analog.demo import MODEL

    done = CliRunner().invoke(main, [*arguments, str(MODEL), "-o", str(tmp_path / "protected.onnx")])
    assert done.exit_code == 0, done.output
    assert oa.readback("protected.onnx", seed=0)
    body = json.loads(oa.account("protected.onnx").to_json())["schemes"][0]["channel"]
    assert body["family"] == "precision"
    assert body["inner"]["read_after_s"] == 9.0
