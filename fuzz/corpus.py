"""The corpus in tests/fuzz/corpus: files, commands on them, and what must come of each."""

from __future__ import annotations

import functools
import shlex
import tomllib
from pathlib import Path
from typing import Any

from fuzz.judge import Case, Judge
from fuzz.oracles import Finding

CORPUS = Path(__file__).resolve().parent.parent / "tests" / "fuzz" / "corpus"


@functools.cache
def rows() -> list[dict[str, Any]]:
    """Return the table of the corpus: files, a command, and what must come of it."""
    table: list[dict[str, Any]] = tomllib.loads((CORPUS / "table.toml").read_text(encoding="utf-8"))["case"]
    return table


def case(number: int) -> Case:
    """Return a row of the corpus as an input."""
    row = rows()[number]
    files = {name: (CORPUS / name).read_bytes() for name in row["files"]}
    return Case("corpus", 0, number, files, (), row["command"])


def judge_row(judge: Judge) -> None:
    """Run the command of a row, and compare how it ends and what it prints."""
    row = rows()[judge.case.number]
    ran = judge.run(*shlex.split(row["command"]), outputs=tuple(row.get("outputs", ())))
    if ran.code not in row["exit"]:
        judge.add([Finding("outcome", ran.command, f"exit {ran.code}: {(ran.err or ran.out).strip()[-200:]}")])
    printed = ran.err + ran.out
    for word in row.get("says", ()):
        if word not in printed:
            judge.add([Finding("words", ran.command, f"no {word!r} in {printed.strip()[-200:]!r}")])
    for word in row.get("never", ()):
        if word in printed:
            judge.add([Finding("words", ran.command, f"{word!r} in {printed.strip()[-200:]!r}")])
