import csv
import math
import re
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest
import scipy.stats

import onnx_analog as oa
from onnx_analog import demo
from onnx_analog.arguments import COMPENSATING, CORRECTING
from onnx_analog.channels import capacity
from onnx_analog.cli import main
from onnx_analog.coding.compensation import DAMPING, MOST_INPUTS
from onnx_analog.coding.scheme import PRESETS, STRATEGIES
from onnx_analog.graph.correction import MOST_GAIN, NUMBER_BITS
from onnx_analog.run import moments
from onnx_analog.run.correction import LEAST_SAMPLES
from tests.conftest import ROOT
from tests.models import proto
from tests.packages import needs
from tests.page_exceptions import check_command, check_script, read
from tests.pages import PAGES, name, run_page

README = ROOT / "README.md"
RESULTS = ROOT / "docs" / "results"
USAGE = [page for page in PAGES if page.name != "CONTRIBUTING.md"]


# ------------------------------------------------------------------------------------------------------ links


def broken_links(text: str, folder: Path) -> list[str]:
    """Return the targets of relative links, and of images, that are not there."""
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [target for target in targets if target and not re.match(r"[a-z]+:", target)]
    return [target for target in local if not (folder / target).exists()]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files(page):
    assert broken_links(read(page), page.parent) == []


def test_a_broken_link_is_found(tmp_path):
    (tmp_path / "a.md").touch()
    text = "[a](a.md#part) ![b](b.png)\n[c](https://example.org/c) [d](#here) [e\nf](sub/e.md)"
    assert broken_links(text, tmp_path) == ["b.png", "sub/e.md"]


NAMING = [*PAGES, *sorted((ROOT / "onnx_analog").glob("*.*")), *sorted((ROOT / "passes").glob("*.py"))]


def missing_files(text: str) -> list[str]:
    """Return the files of the repository that are named and are not there."""
    named = re.findall(r"(?<![\w./])((?:docs|examples|benchmarks|onnx_analog|passes|tests)/[\w/.-]*\w)(?![\w*])", text)
    return [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", NAMING, ids=name)
def test_files_that_are_named_are_there(page):
    assert missing_files(read(page)) == []


def test_a_file_that_is_missing_is_found():
    assert missing_files("`docs/formats.md`, docs/none.md. See a/docs/none.md, docs/no*.md and (tests/none)") == [
        "docs/none.md",
        "tests/none",
    ]


# --------------------------------------------------------------------------------------------------- commands


def commands(text: str) -> Iterator[str]:
    """Yield the commands within the sentences of a page: of ours, and of scripts of the repository.

    Those in blocks are run, or checked, by tests/test_pages.py.
    """
    sentences = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    for code in re.findall(
        r"`((?:onnx-analog\b|python (?:examples|benchmarks|docs)/|python -m \w+\.)[^`]*)`", sentences
    ):
        yield " ".join(code.split())


WRITTEN = [(page, command) for page in USAGE for command in commands(read(page))]


@pytest.mark.parametrize(("page", "command"), WRITTEN, ids=[command for _, command in WRITTEN])
def test_commands_in_sentences_are_such_as_the_command_line_takes(page, command, tmp_path):
    (check_command if command.startswith("onnx-analog") else check_script)(command, tmp_path)


def test_commands_are_found_in_sentences():
    text = "Run `onnx-analog\ninspect a.onnx` or `python examples/b.py c`.\n```sh\nonnx-analog prune d\n```\n"
    assert list(commands(text)) == ["onnx-analog inspect a.onnx", "python examples/b.py c"]
    assert len(WRITTEN) > 10


def options(found: click.Command) -> set[str]:
    taken = {option for param in found.params for option in (*param.opts, *param.secondary_opts)}
    names = taken | {"--help", "--version"}
    inner = found.commands.values() if isinstance(found, click.Group) else ()
    return names.union(*map(options, inner))


@pytest.mark.parametrize("page", USAGE, ids=name)
def test_options_that_are_named_exist(page):
    # Scripts and other programs have options of their own.
    ours = re.sub(r"`python (?:examples|benchmarks)/[^`]*`", "", read(page))
    ours = re.sub(
        r"^(?:dask|ray|helm|head|kubectl|model-explorer|pip|python|    --set)\b.*$", "", ours, flags=re.MULTILINE
    )
    scripts = [read(ROOT / "examples" / f"{name}.py") for name in ("training", "trained", "codes")]
    of_scripts = (
        set(re.findall(r'"(--[a-z][a-z-]*)["/]', "".join(scripts)))
        if page.name in ("training.md", "measured.md")
        else set()
    )
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", ours)) <= options(main) | of_scripts


def test_options_are_those_of_all_commands():
    assert {"--cells-small", "--log", "--at-least", "--version"} <= options(main)
    assert "--color" not in options(main)


# -------------------------------------------------------------------------------------------- the first screen


def test_the_readme_is_one_screen_that_says_how_to_begin():
    lines = read(README).splitlines()
    assert len(lines) <= 60
    assert lines[0] == "# onnx-analog"
    for target in ("demo", "test"):
        assert any(re.match(rf"    make {target}\b", line) for line in lines[:10])
        assert re.search(rf"^{target}:", read(ROOT / "Makefile"), flags=re.MULTILINE)


@needs("matplotlib")
def test_the_readme_can_be_typed_and_then_other_pages_in_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    *_, last = run_page(README)
    account, evaluation = last.printed.splitlines()
    assert account == str(oa.account("model.protected.onnx"))
    choices = {"mean": [demo.facts()["mean"]], "std": [demo.facts()["std"]]}
    assert evaluation == str(oa.evaluate("model.protected.onnx", "test.npz", trials=2, **choices))
    assert oa.evaluate("model.onnx", "test.npz", **choices).original > 0.9
    for page in ("sweeps.md", "own_measurements.md", "correction.md", "compensation.md"):
        run_page(ROOT / "docs" / page)
    for folder in ("results", "strategies", "from-python"):
        with (tmp_path / folder / "points.csv").open(newline="") as file:
            assert {round(float(row["original"]), 3) for row in csv.DictReader(file)} == {1.0}  # normalised


def test_pages_that_use_one_folder_twice_fail(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tests.pages.ROOT", tmp_path)
    onnx.save(
        proto("net (float[n, 4] x) => (float[n, 4] y) <float[4, 4] w = random> { y = MatMul(x, w) }"), "model.onnx"
    )
    np.savez("test.npz", x=np.ones((2, 4), np.float32))
    page = tmp_path / "page.md"
    sweep = "onnx-analog sweep model.onnx --data test.npz --strategy raw --min-size 1 --out results"
    page.write_text(f"```sh\n{sweep} --cells 1\n```\n", encoding="utf-8")
    run_page(page)
    page.write_text(f"```sh\n{sweep} --cells 1,3 --seed 1\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="results"):
        run_page(page)


def done(script: str) -> set[str]:
    """Return what a shell script runs, without what prepares it."""
    lines = [line.strip() for line in script.splitlines()]
    return {line for line in lines if line and not re.match(r"#|set -|cd ", line)}


def test_continuous_integration_runs_what_the_readme_says():
    said = {line.strip().partition("  ")[0] for line in read(README).splitlines() if line.startswith("    ")}
    ran = done(read(ROOT / ".ci" / "run")) - {"bash .ci/browser"}  # which a user may lack
    assert ran <= said
    assert ran == {"make test"}


def test_done_sees_what_a_script_runs():
    assert done("#!/bin/sh\nset -eu\n# why\ncd x\nmake lint\n\nmake test\n") == {"make lint", "make test"}


# ----------------------------------------------------------------------------------------- one machine's folders

FOLDERS = re.compile(r"(?<![\w.<>*-])(?:/(?:home|root|tmp|work|Users|mnt|workspace|builds|opt)/\w|[A-Z]:\\Users)")


def tracked() -> list[Path]:
    found = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("this is no git checkout, so nothing is tracked")
    return [ROOT / path for path in found.stdout.split("\0") if path and (ROOT / path).is_file()]


def test_no_text_names_the_folders_of_one_machine():
    found = {}
    for path in tracked():
        try:
            text = read(path)
        except UnicodeDecodeError:
            continue  # no text
        named = FOLDERS.search(text)
        if named:
            found[name(path)] = named[0]
    assert found == {}


@pytest.mark.parametrize("path", ["home/me", "root/x", "tmp/a", "Users/me/x", "work/main"])
def test_the_folders_of_one_machine_are_seen(path):
    assert FOLDERS.search(f"see /{path}")
    assert FOLDERS.search(f'"/{path}"')
    assert not FOLDERS.search(f"https://example.org/{path}")


# -------------------------------------------------------------------------------------------------- channels


def test_the_page_of_channels_is_what_its_script_writes():
    assert runpy.run_path(str(ROOT / "docs" / "make_channels.py"))["text"]() == read(ROOT / "docs" / "channels.md")


def section(page: Path, title: str) -> str:
    """Return what stands below a title of a page."""
    (below,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", read(page), flags=re.MULTILINE | re.DOTALL)
    return str(below)


def numbers_of(text: str) -> set[str]:
    """Return the numbers of a text, as they are written."""
    return set(re.findall(r"(?<![\w.])\d[\d,]*(?:\.\d+)?", text))


def test_sections_and_their_numbers_are_read(tmp_path):
    (tmp_path / "a.md").write_text("# A\n1\n## B\n1,000 of 2.5 %, x3 and 4.\n## C\n5\n", encoding="utf-8")
    assert numbers_of(section(tmp_path / "a.md", "B")) == {"1,000", "2.5", "4"}


RESNET, SIDE, LENET = (
    section(ROOT / "docs" / "results.md", title)
    for title in ("ResNet-20 on CIFAR-10", "Errors in sign and class bits", "LeNet on MNIST")
)


def test_the_default_channel_carries_what_the_results_say():
    assert f"{capacity.of_channel(oa.channel('pcm')).bits:.2f}" in numbers_of(SIDE)


def test_pairs_of_the_example_are_as_many_as_it_says():
    path = ROOT / "onnx_analog" / "channels" / "data" / "pcm_partial_reset.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    counts = {row["input_volts"]: 0 for row in rows}
    for row in rows:
        counts[row["input_volts"]] += 1
    assert (len(counts), set(counts.values())) == (40, {380})
    assert {"40", "380"} <= numbers_of(read(ROOT / "docs" / "own_measurements.md"))


# ---------------------------------------------------------------------------------------------------- results


def trials() -> dict[tuple[str, str, int], tuple[list[float], float]]:
    """Return the values, and the cost, of each (granularity, strategy, cells) of the file of trials."""
    found: dict[tuple[str, str, int], tuple[list[float], float]] = {}
    with (RESULTS / "resnet20-cifar10.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            cost = float(row["all_in_cells_per_original_weight"])
            values, same = found.setdefault((row["granularity"], row["strategy"], int(row["cells"])), ([], cost))
            assert (same, len(values)) == (cost, int(row["trial"]))
            values.append(float(row["value"]))
    return found


def written(values: list[float], cost: float) -> str:
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))
    return f"{100 * np.mean(values):.2f} ± {100 * half:.2f} [{cost:.2f}]"


def table_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_is_that_of_the_trials():
    text = read(RESULTS / "resnet20-cifar10.md")
    parts = re.split(r"^\*\*(.*)\*\*$", text, flags=re.MULTILINE)[1:]
    found = trials()
    assert {len(values) for values, _ in found.values()} == {10}
    shown = {}
    for title, part in zip(parts[::2], parts[1::2], strict=True):
        (_, *headings), *rows = table_rows(part)
        assert headings == ["1 cell", "3 cells", "10 cells"]
        assert [row[0] for row in rows] == list(STRATEGIES)
        for strategy, *cells in rows:
            for count, cell in zip((1, 3, 10), cells, strict=True):
                shown[title.split()[1].strip(","), strategy, count] = cell
    assert shown == {key: written(*of) for key, of in found.items()}


def test_titles_of_the_table_are_the_presets():
    text = read(RESULTS / "resnet20-cifar10.md")
    titles = re.findall(r"^\*\*granularity (\w+), ([\d.]+)% large", text, flags=re.MULTILINE)
    assert titles == [(preset.granularity, f"{100 * preset.large_fraction:.2f}") for preset in PRESETS.values()]


def test_written_by_hand():
    assert written([0.5, 0.7], 1.254) == "60.00 ± 127.06 [1.25]"  # t(0.975, 1) = 12.706, and s/√2 = 0.1


def test_the_table_is_summed_up_by_its_numbers():
    found = {key: 100 * np.mean(values) for key, (values, _) in trials().items()}
    original = float(re.search(r"Original: ([\d.]+)%", read(RESULTS / "resnet20-cifar10.md"))[1])
    assert f"{found['tensor', 'redundancy', 1]:.0f}" in numbers_of(RESNET)
    assert original - 1 < found["tensor", "redundancy", 10] < original  # within a point
    for count in (1, 3):  # at chance
        values, _ = trials()["tensor", "raw", count]
        assert abs(np.mean(values) - 0.1) < 5 * np.std(values, ddof=1) / math.sqrt(len(values))
    for count in (1, 3, 10):  # each step helps
        steps = [found["tensor", strategy, count] for strategy in STRATEGIES]
        assert count != 10 or steps == sorted(steps)
        assert steps[1:] == sorted(steps[1:])


def test_analog_side_information_is_summed_up_by_its_numbers():
    lines = {tuple(row[:3]): row[3:] for row in table_rows(read(RESULTS / "side-information.md"))[1:]}

    def accuracy(*key: str) -> float:
        return float(lines[key][2].split(" ± ")[0])

    def cost(*key: str) -> float:
        return float(lines[key][1])

    free, two, one = ("pcm", "2", "free of error"), ("pcm", "2", "1 × 1"), ("pcm", "1", "1 × 1")
    twenty, five, votes = ("pcm", "2", "20 × 1"), ("pcm", "2", "5 × 1"), ("pcm", "2", "1 × 5")
    errors = {f"{float(lines[two][0].strip('%')):.0f}", lines[one][0].strip("%")}
    assert {*errors, f"{cost(*twenty) - cost(*free):.0f}"} <= numbers_of(SIDE)
    assert round(cost(*one) - cost(*free)) == 1
    assert accuracy(*two) < 15  # at chance
    assert max(abs(accuracy(*way) - accuracy(*free)) for way in (one, twenty)) < 0.2  # nothing is lost
    assert accuracy(*votes) < accuracy(*five)
    quiet = [accuracy("pcm-partial-reset", "2", way) for way in ("free of error", "1 × 1", "5 × 1")]
    assert round(quiet[0] - quiet[1]) == 3
    assert quiet[2] == quiet[0]


def correction_rows() -> Iterator[list[str]]:
    """Yield the rows of the table of corrections, from the file of trials."""
    trials: dict[tuple[str, str], list[list[float]]] = {}
    with (RESULTS / "correction.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            pair = [float(row[name]) for name in ("uncorrected", "value")]
            trials.setdefault((row["channel"], row["estimator"]), []).append(pair)
    for key, pairs in sorted(trials.items()):
        columns = [*np.transpose(pairs), np.diff(pairs, axis=1).ravel()]
        halves = [100 * scipy.stats.t.ppf(0.975, len(c) - 1) * np.std(c, ddof=1) / math.sqrt(len(c)) for c in columns]
        (without, corrected, change), (*_, half) = (100 * np.mean(c) for c in columns), halves
        ends = f"{change - half:+.2f} to {change + half:+.2f}"
        values = [f"{mean:.2f} ± {half:.2f}" for mean, half in zip((without, corrected), halves, strict=False)]
        yield [*key, *values, f"{change:+.2f} ({ends})"]


def test_the_table_of_corrections_is_that_of_the_trials():
    text = section(ROOT / "docs" / "results.md", "Correction after programming")
    (_, *rows) = table_rows(text)
    assert rows == list(correction_rows())
    with (RESULTS / "correction.csv").open(newline="") as file:
        trials = list(csv.DictReader(file))
    (numbers,), (weights,) = ({int(row[name]) for row in trials} for name in ("correction_numbers", "stored_weights"))
    (original,) = {100 * float(row["original"]) for row in trials}
    lost = original - float(next(row[3] for row in rows if row[:2] == ["pcm", "unbiased"]).split()[0])
    expected = {str(numbers), f"{NUMBER_BITS * numbers / weights:.3f}", f"{original:.2f}", f"{lost:.2f}"}
    assert expected <= numbers_of(text)
    assert len(trials) == 4 * len(rows)


CODES = runpy.run_path(str(ROOT / "docs" / "make_codes.py"))
PICTURES = {picture.name: picture for picture in CODES["PICTURES"]}


def same_numbers(kept: Any, computed: Any) -> bool:
    """Return whether a picture was drawn from the numbers that its script computes, to a unit of their last digit."""
    if isinstance(kept, dict):
        return kept.keys() == computed.keys() and all(same_numbers(kept[key], computed[key]) for key in kept)
    if isinstance(kept, list):
        return len(kept) == len(computed) and all(map(same_numbers, kept, computed))
    return math.isclose(kept, computed, rel_tol=1.01e-3, abs_tol=1e-12)


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_codes_are_what_their_script_draws(name):
    path = ROOT / "docs" / "codes" / f"{name}.png"
    assert same_numbers(CODES["kept"](path), CODES["rounded"](PICTURES[name].numbers()))
    assert path.stat().st_size < 60_000


def test_each_picture_of_codes_has_a_sentence_with_its_numbers():
    text = read(ROOT / "docs" / "codes.md")
    below = re.findall(r"^!\[[^\]]+\]\(codes/([a-z-]+)\.png\)\n\n(.*?)\n\n", text, flags=re.MULTILINE | re.DOTALL)
    of_pictures = dict(below)
    assert of_pictures.keys() == PICTURES.keys()
    for key, picture in PICTURES.items():
        missing = [fact for fact in picture.facts(picture.numbers()) if fact not in of_pictures[key]]
        assert (key, missing) == (key, [])


@needs("matplotlib")
def test_a_picture_keeps_its_numbers(tmp_path):
    picture = PICTURES["residual-cells"]
    kept = CODES["kept"](CODES["write"](picture, tmp_path))
    assert same_numbers(kept, CODES["rounded"](picture.numbers()))


@pytest.mark.parametrize("other", [{"a": [1.0, 2.003]}, {"a": [1.0]}, {"b": [1.0, 2.0]}, {"a": [1.0, 2.0], "b": 1.0}])
def test_other_numbers_are_seen(other):
    assert same_numbers({"a": [1.0, 2.0]}, {"a": [1.001, 2.0]})
    assert not same_numbers({"a": [1.0, 2.0]}, other)


def test_the_page_of_compensation_has_the_limits_of_the_code():
    text = read(ROOT / "docs" / "compensation.md")
    assert f"{COMPENSATING} samples are used" in " ".join(text.split())
    assert f"{100 * DAMPING:g} % of the mean" in text
    assert f"more than {MOST_INPUTS:,} inputs" in text
    assert f"at least {moments._LEAST_VECTORS:,} patches" in text
    assert moments._VECTORS == 4


def test_the_page_of_corrections_has_the_limits_of_the_code():
    text = read(ROOT / "docs" / "correction.md")
    assert f"a gain outside 1/{MOST_GAIN:g} to {MOST_GAIN:g}" in text
    assert f"{CORRECTING} samples are used" in text
    assert f"Multiply it by {NUMBER_BITS} for bits" in text
    assert f"n must be {LEAST_SAMPLES} or more" in text


def test_lenet_is_summed_up_by_its_numbers():
    facts = demo.facts()
    whole, pruned = 100 * facts["test_accuracy"], 100 * facts["test_accuracy_pruned_80%"]
    expected = {f"{facts['parameters']:,}", f"{whole:.2f}", f"{pruned:.2f}", f"{whole - pruned:.2f}"}
    assert expected <= numbers_of(LENET)


def test_subnormal_weights_are_as_many_as_inspect_counts():
    count = oa.inspect(demo.MODEL).subnormal
    assert f"{count:,}" in numbers_of(read(ROOT / "docs" / "performance.md"))
