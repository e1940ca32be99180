"""What a stream shows whose encoding lacks σ and its like."""

import ast
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import onnx_analog
from onnx_analog.cli.ascii_words import in_words, spell, spelled

COMMAND = [sys.executable, "-m", "onnx_analog"]
ASCII = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}


def printed(line: str, **changes: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*COMMAND, *line.split()], capture_output=True, env={**ASCII, **changes})


def printed_characters() -> set[str]:
    """Return all characters in texts of the package, but for what its docstrings alone hold."""
    found: set[str] = set()
    for path in Path(onnx_analog.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        holders = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
        docstrings = {id(node.body[0].value) for node in holders if node.body and isinstance(node.body[0], ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                found.update(node.value)
    return found


def test_every_character_that_the_package_prints_has_a_word():
    characters = {character for character in printed_characters() if not character.isascii()}
    assert {"σ", "α", "×"} <= characters
    assert [character for character in sorted(characters) if "?" in in_words(character)] == []


def test_words_are_ascii_and_what_is_ascii_stays():
    text = "".join(map(chr, range(0x20, 0x2600)))
    assert in_words(text).isascii()
    assert in_words(text[:95]) == text[:95]


@pytest.mark.parametrize(
    ("text", "encoding", "shown"),
    [
        ("Δσ ≥ 2×α – 1", "ascii", "Deltasigma >= 2xalpha - 1"),
        ("μ⁻¹ = 10⁻¹², λ·x²", "ascii", "mu^-1 = 10^-12, lambda*x^2"),
        ("μ, 2×3 – é", "cp1252", "mu, 2×3 – é"),  # what an encoding has stays
        ("σ", "utf-8", "σ"),
        ("字", "ascii", "?"),
    ],
)
def test_only_what_an_encoding_lacks_becomes_a_word(text, encoding, shown):
    assert spelled(text, encoding) == shown
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    spell(stream)
    stream.write(text)
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == shown


def test_a_power_is_whole_or_in_words():
    """latin-1 has ¹ and ², and neither ⁻ nor ⁰."""
    assert spelled("10⁻¹⁰, m²", "latin-1") == "10^-10, m²"


def test_a_stream_that_is_no_file_stays_as_it_is():
    spell(None)
    spell(io.StringIO())


def test_a_table_keeps_its_columns_where_its_heading_is_in_words():
    found = printed("channel show gaussian")
    assert found.returncode == 0
    lines = found.stdout.decode("ascii").splitlines()
    assert "?" not in found.stdout.decode("ascii")
    heading, rule, first = lines[1:4]
    assert re.split(" {2,}", heading.strip()) == ["level", "sigma, 1 cell", "sigma, 10 cells", "sigma, 500 cells"]
    assert len(heading) == len(rule) == len(first)


@pytest.mark.parametrize("line", ["channel show --help", "protect --help", "evaluate --help", "channel list"])
def test_no_help_has_a_question_mark_for_a_character(line):
    found, usual = printed(line), printed(line, PYTHONIOENCODING="utf-8")
    assert (found.returncode, found.stderr) == (0, b"")
    assert found.stdout.decode("ascii").count("?") == usual.stdout.decode().count("?")


def test_warnings_are_in_words_too(tmp_path):
    """A read that is far off is named with σ."""
    rows = [f"{level},{level + (read % 7) / 100 + (50 if read == 0 else 0)}" for level in (1, 2) for read in range(40)]
    (tmp_path / "pairs.csv").write_text("\n".join(["volts,ohms", *rows]), encoding="utf-8")
    found = printed(f"channel fit {tmp_path / 'pairs.csv'} --input volts --output ohms")
    assert found.returncode == 0
    assert b"off by more than 6 sigma from the median" in found.stderr


def test_errors_are_in_words_too(tmp_path):
    (tmp_path / "c.json").write_text('{"family": "gaussian", "φ": 1}', encoding="utf-8")
    found = printed(f"channel show {tmp_path / 'c.json'}")
    assert found.returncode != 0
    assert "there is no field 'phi'" in found.stderr.decode("ascii")
