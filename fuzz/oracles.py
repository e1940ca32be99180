"""What must hold whatever the input is: of the text that a command prints, its exit code, and the folder.

Each oracle takes what a command did and yields findings; none of them knows what the input was. Those that compare with
onnxruntime are in `fuzz.agreement`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fuzz.invoke import Ran

LONGEST = 300  # characters of a refusal
CPU_S = 10.0  # of one command
CODES = (0, 1, 2, 3)


class Finding(NamedTuple):
    """Something that must not be."""

    oracle: str
    command: str
    detail: str


def ended(ran: Ran) -> Iterator[Finding]:
    """No traceback, an exit code that is documented, and no long wait."""
    if "Traceback (most recent call last)" in ran.err + ran.out:
        yield Finding("traceback", ran.command, raised_by(ran.err + ran.out))
    if ran.code not in CODES:
        yield Finding("exit code", ran.command, str(ran.code))
    if ran.cpu_s > CPU_S:
        yield Finding("slow", ran.command, f"{ran.cpu_s:.0f} CPU seconds")


def raised_by(text: str) -> str:
    """Return the innermost file of a traceback, and the error's beginning."""
    frames = re.findall(r'File "([^"]*)", line (\d+)', text)
    frames_of_ours = [f"{Path(name).name}:{line} " for name, line in frames if "onnx_analog" in name]
    errors = re.findall(r"^(?:Error: )?([A-Za-z_.]*(?:Error|Exception|Interrupt|Exit)\b.{0,60})", text, re.MULTILINE)
    return (frames_of_ours[-1] if frames_of_ours else "") + (errors[-1] if errors else text.strip()[-60:])


def printed(ran: Ran) -> Iterator[Finding]:
    """A refusal is one line; nothing else is on stderr but warnings, and nothing can move a cursor."""
    odd = sorted({f"U+{ord(char):04X}" for char in ran.out + ran.err if _moves(char)})
    if odd:
        yield Finding("control characters", ran.command, ", ".join(odd))
    if "--debug)" in ran.err:
        yield Finding("run again with --debug", ran.command, raised_by(ran.err))
    lines = [line for line in ran.err.splitlines() if line and not _of_click(line)]
    warnings = [line for line in lines if line.startswith("WARNING: ")]
    rest = [line for line in lines if not line.startswith("WARNING: ")]
    for line in [*warnings, *rest]:
        if len(line.removeprefix("WARNING: ").removeprefix("Error: ")) > LONGEST:
            yield Finding("long line", ran.command, f"{len(line)} characters: {line[:40]}")
    if ran.code == 0 and rest:
        yield Finding("noise", ran.command, rest[0][:200])
    if ran.code != 0 and len(rest) != 1:
        yield Finding("lines", ran.command, f"{len(rest)}: {' | '.join(rest)[:200]}")
    elif ran.code != 0 and not rest[0].removeprefix("Error: ").strip():
        yield Finding("lines", ran.command, "an empty one")


def _moves(char: str) -> bool:
    return char not in "\n" and unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _of_click(line: str) -> bool:
    return line.startswith(("Usage: ", "Try '"))


def left(ran: Ran, outputs: Collection[str]) -> Iterator[Finding]:
    """Nothing is new, gone or changed but `outputs` (files or folders), and those after success only."""
    for name in sorted(ran.before.keys() | ran.after.keys()):
        if ran.code == 0 and any(name == output or name.startswith(f"{output}/") for output in outputs):
            continue
        if name not in ran.after:
            yield Finding("file gone", ran.command, Path(name).name)
        elif name not in ran.before:
            yield Finding("file left", ran.command, Path(name).name)
        elif ran.after[name] != ran.before[name]:
            yield Finding("file changed", ran.command, Path(name).name)


def json_of(ran: Ran) -> Any:
    """Return what a command printed as JSON; NaN is none. Raises ValueError."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(ran.out, parse_constant=refuse)


def prints_json(ran: Ran) -> Iterator[Finding]:
    """With --json, stdout is JSON or empty."""
    if "--json" not in ran.arguments or (ran.code != 0 and not ran.out):
        return
    try:
        json_of(ran)
    except (ValueError, RecursionError) as error:
        yield Finding("no JSON", ran.command, str(error)[:100])


def all_of(ran: Ran, outputs: Collection[str]) -> list[Finding]:
    """Return what all oracles of this module find."""
    return [*ended(ran), *printed(ran), *left(ran, outputs), *prints_json(ran)]
