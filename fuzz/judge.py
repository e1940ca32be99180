"""One input, and the one who judges it: runs commands in a folder, and collects what is wrong."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz import oracles
from fuzz.agreement import Reference
from fuzz.invoke import Ran, invoke
from fuzz.oracles import Finding

Main = Callable[..., Any]
MEMORY = 1.5 * 2**30  # bytes that a command may take more than what was taken before


@dataclass(frozen=True)
class Case:
    """One input: files by name, and what is known of them."""

    kind: str
    seed: int
    number: int
    files: dict[str, bytes]
    steps: tuple[str, ...]  # what was done to them
    origin: str
    options: tuple[str, ...] = ()  # of the commands
    unmutated: dict[str, bytes] = field(default_factory=dict)


@dataclass
class Verdict:
    """What came of one input."""

    findings: list[Finding] = field(default_factory=list)
    outcomes: list[tuple[str, str]] = field(default_factory=list)  # (command, "accepted" or the reason)
    over_refused: list[tuple[str, str]] = field(default_factory=list)  # where onnxruntime runs the file
    steps: tuple[str, ...] = ()
    origin: str = ""


class Judge:
    """Runs commands in a folder and collects what is found; `stage` is told what is about to be done."""

    def __init__(self, case: Case, folder: Path, main: Main, stage: Callable[[str], None]) -> None:
        self.case, self.folder, self._main, self._stage = case, folder, main, stage
        self.verdict = Verdict(steps=case.steps, origin=case.origin)
        for name, data in case.files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)

    def run(self, *arguments: str, outputs: tuple[str, ...] = ()) -> Ran:
        """Run one command; what it leaves must be among `outputs`."""
        self._stage(" ".join(arguments))
        peak = _peak()
        ran = invoke(arguments, self.folder, self._main)
        self.add(oracles.all_of(ran, outputs))
        taken = _peak() - peak
        if taken > MEMORY or "not enough memory" in ran.err:
            self.add([Finding("memory", ran.command, f"{taken / 2**30:.1f} GiB more")])
        self.verdict.outcomes.append((ran.command, "accepted" if ran.code == 0 else reason(ran.err)))
        return ran

    def reference(self, name: str) -> Reference:
        """Return what onnxruntime makes of a file."""
        self._stage("onnxruntime")
        return Reference.of(self.folder / name)

    def add(self, findings: Any) -> None:
        """Add findings; an oracle that fails is one."""
        self._stage("oracles")
        try:
            self.verdict.findings += findings
        except Exception as error:
            self.verdict.findings.append(Finding("oracle failed", "", f"{type(error).__name__}: {error}"[:200]))

    def accepted(self, ran: Ran, reference: Reference) -> None:
        """A file that is accepted is one that onnxruntime loads; where it runs it, a refusal is counted.

        A model that lacks nothing but a kernel of the CPU may run elsewhere: then a warning must say so.
        """
        warned = any(line.startswith("WARNING: ") and "onnxruntime" in line for line in ran.err.splitlines())
        commands = ("inspect", "protect", *(["evaluate"] if self.case.kind == "plain" else []))
        must_load = ran.command in commands and not (warned and ran.command != "evaluate")
        if ran.code == 0 and reference.refused is not None and must_load:
            self.add([Finding("accepts what onnxruntime refuses", ran.command, short(reference.refused))])
        if ran.code != 0 and reference.outputs is not None:
            self.verdict.over_refused.append((ran.command, reason(ran.err)))


def short(text: str) -> str:
    """Return what onnxruntime says, without where it says it."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : |Load model from \S* failed:|/\S*:\d+ ", "", text)[:160]


def _peak() -> float:
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * 1024


def reason(text: str) -> str:
    """Return an error line without what is of one input only: quoted names and numbers."""
    lines = [line for line in text.splitlines() if line.startswith("Error: ")] or text.splitlines() or [""]
    plain = re.sub(r"'[^']*'|\"[^\"]*\"|\([^()]*\)", "…", lines[-1].removeprefix("Error: "))
    return re.sub(r"[-+\d.,]*\d", "0", plain)[:110]


def of(oracle: Callable[..., Iterator[Finding]], *arguments: Any) -> Iterator[Finding]:
    """Call an oracle when its findings are added, where a failure of its own becomes a finding."""
    yield from oracle(*(oracles.json_of(argument) if isinstance(argument, Ran) else argument for argument in arguments))
