"""docs/tune.md says what `tune` prints and does."""

from __future__ import annotations

import json
import math
import re
import runpy
from itertools import pairwise

import numpy as np
import pytest

import onnx_analog as oa
from onnx_analog._tune import OF_MEASUREMENTS
from onnx_analog.arguments import DEFAULTS
from onnx_analog.cli.commands import tune
from onnx_analog.cli.gates import FAILED, NO, UNDECIDED
from onnx_analog.coding.codes import SOFT_SHARE
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import DECODING
from onnx_analog.display import rounded_up
from onnx_analog.errors import NothingToStore
from onnx_analog.tuning import measures, parts, search
from onnx_analog.tuning.scale import POINTS
from tests.conftest import ROOT
from tests.models import model
from tests.packages import needs
from tests.run.nets import LINEAR, rows

PAGE = (ROOT / "docs" / "tune.md").read_text(encoding="utf-8")
WORDS = " ".join(PAGE.split())
MAKE = runpy.run_path(str(ROOT / "docs" / "make_tune.py"))
RESNET = json.loads((ROOT / "docs" / "results" / "tune-resnet20-cifar10-pcm.json").read_text(encoding="utf-8"))


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of the rows of the tables of a text."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def words_of(printed: str) -> list[str]:
    """Return the words that are printed, without numbers: those differ where another machine rounds otherwise."""
    return [word for word in printed.split() if word[0].isalpha() and word != "to"]


def same_answer(one: str, other: str) -> bool:
    """Return whether two outputs name the same tables, tensors and notes, and take cells within a tenth."""
    cells = [float(re.findall(r"^ *best plan.*?(\d+\.\d+)", text, re.MULTILINE)[0]) for text in (one, other)]
    return words_of(one) == words_of(other) and math.isclose(*cells, rel_tol=0.1)


@needs("matplotlib")
def test_the_page_shows_what_the_command_prints(tmp_path):
    command, printed = MAKE["example"](PAGE)
    assert same_answer(MAKE["run"](command, tmp_path), printed)
    assert (tmp_path / "tuned.png").exists()
    assert MAKE["PICTURE"].stat().st_size < 60_000


@pytest.mark.parametrize(("old", "new"), [("points lost", "points"), ("conv1.weight", "conv9.weight"), ("0.2", "0.9")])
def test_another_output_is_seen(old, new):
    _, printed = MAKE["example"](PAGE)
    assert same_answer(printed, printed)
    assert not same_answer(printed, printed.replace(old, new))


def test_the_looks_of_resnet_20_are_those_of_its_results():
    looks = RESNET["best"]["looks"]
    verdicts = {True: "holds", False: "does not hold", None: "not decided"}
    expected = []
    for look in looks:
        lost, most = (POINTS.text(look[name] / 100) for name in ("points_lost", "at_most"))
        expected.append([f"{look['cells_per_weight']:.2f}", lost, most, verdicts[look["holds"]]])
    assert [row for row in rows_of(PAGE) if row[-1] in verdicts.values()] == expected
    assert RESNET["best"]["cells_per_weight"] == min(look["cells_per_weight"] for look in looks if look["holds"])
    assert f"{100 * RESNET['confidence_of_look']:g} % for 95 %" in PAGE


def test_the_divergences_of_resnet_20_are_those_of_its_results():
    found = {f"{point['divergence']:.2f}": point["points_lost"] for point in RESNET["best"]["curve"]}
    most, less = (f"{found[divergence]:.1f}" for divergence in ("0.71", "0.13"))
    assert f"0.71 nats went with {most} points lost, and 0.13 nats with {less}." in WORDS


def test_samples_are_split_and_needed_as_the_page_says():
    assert f"Up to {parts.CALIBRATION} of them" in WORDS
    assert f"Up to {parts.CORRECTION}, at most a tenth" in WORDS
    assert f"a first look at {measures._QUICK:,} tells" in WORDS
    assert parts.counts_of(5000).search == (5000 - parts.CALIBRATION - parts.CORRECTION) // 4
    assert "A quarter of the rest are searched with" in WORDS
    assert search._SAFER[0] == 4
    assert "The first plan should lose a quarter as much" in WORDS
    risk = -math.log((1 - 0.95) / 2)
    assert f"up to {risk:.1f}/n" in WORDS
    one, tenth = (math.ceil(risk / share) for share in (0.01, 0.001))
    assert f"about {rounded_up(one)} samples that verify, or {rounded_up(parts.fewest(one)):,} in all" in WORDS
    assert f"0.1 points take {rounded_up(parts.fewest(tenth)):,}" in WORDS
    assert f"in steps of {100 * (search._STEP - 1):.0f} % more predicted divergence" in WORDS
    with pytest.raises(Exception, match="takes at least 158"):
        parts.parts_of(np.zeros(100), 0)
    assert "Fewer than 158 samples are refused" in WORDS


def test_a_search_that_is_not_sure_is_verified_as_the_page_says():
    wide = [one / other for one, other in pairwise(search._UNSURE)]
    assert np.allclose(wide, wide[0])
    assert f"comes nearer in steps of {100 * (wide[0] - 1):.0f} %" in WORDS
    assert search._UNSURE[0] == 4
    assert "goes on with one that should lose a quarter as much" in WORDS


def test_what_may_not_change_if_a_search_is_resumed_is_on_the_page():
    section = WORDS.partition("## Interrupting and resuming")[2].partition("## How long")[0]
    named = {
        "decoding": "`--decoding`", "correction": "`--no-correction`", "seed": "`--seed`", "output": "the output",
        "class_axis": "axis of classes", "batch": "`--batch`",
    }  # fmt: skip
    assert set(named) == set(OF_MEASUREMENTS)
    assert all(name in section for name in named.values())
    assert all(f"{name}" in section for name in ("the metric", "the model", "the data", "the channel", "`--trials`"))


def test_every_field_of_the_json_is_on_the_page():
    def names(body: dict) -> set[str]:
        parts = [part for value in body.values() for part in (value if isinstance(value, list) else [value])]
        return set(body).union(*(names(part) for part in parts if isinstance(part, dict)))

    found = oa.tune(model(LINEAR), rows(300), max_drop=20, trials=2).to_dict()
    body = {name: value for name, value in {**found, **RESNET}.items() if name != "plan"}
    section = PAGE.partition("## Output of `--json`")[2]
    missing = {name for name in names(body) - {"tensor"} if f"`{name}`" not in section}
    assert missing == set()
    fields = {name for first, *_ in rows_of(section.partition("## Exit")[0]) for name in re.findall(r"`(\w+)`", first)}
    assert fields <= set(found)


def test_the_share_of_soft_decoding_is_that_of_the_code():
    assert f"One is assumed that reaches {100 * SOFT_SHARE:.0f} % of the mutual information" in WORDS


def test_the_options_of_the_page_are_those_of_the_command():
    known = {option for parameter in tune.command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    named = set(re.findall(r"`(--[a-z-]+)", PAGE.partition("## Use the plan")[0]))
    assert named - {"--json"} <= known
    assert {"--mask-seed", "--plan"} <= named


def test_decoding_and_counting_are_those_of_the_code():
    assert f"counts {Scheme().side_bits_per_cell} bits in a cell" in WORDS
    section = PAGE.partition("## Decoding and counting")[2].partition("\n## ")[0]
    named = [row[0] for row in rows_of(section)[2:]]
    assert named == [f"`{level}`{' (default)' * (level == DEFAULTS.decoding)}" for level in DECODING]
    assert f"`--counting {DEFAULTS.counting}`, the default" in WORDS


def test_exit_codes_are_those_of_the_command():
    codes = {row[0] for row in rows_of(PAGE.partition("## Exit codes")[2])[2:]}
    assert codes == {"0", str(NO), str(FAILED), str(NothingToStore.exit_code), str(UNDECIDED)}
