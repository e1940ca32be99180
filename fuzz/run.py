"""Runs many inputs, tells how far it is, sums up, and keeps what failed."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from fuzz.corpus import rows
from fuzz.judge import Verdict
from fuzz.kinds import make
from fuzz.lane import Lane, Task, prepare
from fuzz.oracles import Finding

KEPT = 3  # failing inputs that are kept of what looks like one fault


@dataclass
class Summary:
    """What came of all inputs."""

    inputs: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    over_refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str, str], list[str]] = field(default_factory=dict)

    def add(self, task: Task, verdict: Verdict) -> list[tuple[str, str, str]]:
        """Count an input; return the faults that it shows and of which too few examples are kept."""
        self.inputs[task.kind] += 1
        for command, outcome in verdict.outcomes:
            self.outcomes[task.kind, command, outcome] += 1
        self.over_refused.update(verdict.over_refused)
        faults = sorted({fault_of(finding) for finding in verdict.findings})
        self.findings.update(faults)
        return [fault for fault in faults if len(self.examples.get(fault, [])) < KEPT]

    def lines(self) -> Iterator[str]:
        """Yield the tables."""
        yield f"{sum(self.inputs.values()):,} inputs: {', '.join(f'{kind} {n:,}' for kind, n in self.inputs.items())}"
        yield from _table("outcomes", Counter({key: n for key, n in self.outcomes.items() if key[2] == "accepted"}))
        refused: Counter[tuple[str, str, str]] = Counter()
        for (kind, command, outcome), n in self.outcomes.items():
            refused[kind, command, "refused, for whatever reason"] += n * (outcome != "accepted")
        yield from _table("refusals", +refused)
        yield from _table("refused, though onnxruntime runs the file, by reason", self.over_refused)
        yield f"{len(self.findings)} faults in {sum(self.findings.values()):,} inputs"
        for fault, n in self.findings.most_common():
            yield f"  {n:6,}  {' | '.join(fault)}"
            yield from (f"            python -m fuzz --replay {path}" for path in self.examples.get(fault, [])[:1])

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, ready for JSON."""
        return {
            "inputs": dict(self.inputs),
            "findings": [
                {"fault": list(fault), "inputs": n, "examples": self.examples.get(fault, [])}
                for fault, n in self.findings.most_common()
            ],
            "accepted": sum(n for (*_, outcome), n in self.outcomes.items() if outcome == "accepted"),
            "over_refused": [
                {"command": command, "reason": reason, "inputs": n}
                for (command, reason), n in self.over_refused.most_common()
            ],
        }


def _table(title: str, counts: Counter[Any]) -> Iterator[str]:
    yield f"{title}:"
    yield from (f"  {n:6,}  {' | '.join(key)}" for key, n in counts.most_common(25))


def fault_of(finding: Finding) -> tuple[str, str, str]:
    """Return what findings of one fault have in common: numbers and names are left out."""
    plain = re.sub(r"'[^']*'|\"[^\"]*\"", "…", finding.detail)
    plain = re.sub(r"\S*/\S*", "…", plain)
    return finding.oracle, finding.command, re.sub(r"[-+\d.,]*\d", "0", plain)[:60]


class Progress:
    """Says on stderr how far it is: at once on a terminal, else twice a minute."""

    def __init__(self, count: int | None, minutes: float | None) -> None:
        self._count, self._until = count, None if minutes is None else time.monotonic() + minutes * 60
        self._start = self._told = time.monotonic()

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return self._until is not None and time.monotonic() > self._until

    def tell(self, done: int, faults: int) -> None:
        """Tell it, if it is time."""
        now, terminal = time.monotonic(), sys.stderr.isatty()
        if now - self._told < (0.5 if terminal else 30) or not done:
            return
        self._told = now
        by_count = (self._count - done) * (now - self._start) / done if self._count is not None else float("inf")
        by_time = self._until - now if self._until is not None else float("inf")
        line = f"{done:,} inputs, {faults} faults, {max(0, min(by_count, by_time)) / 60:.1f} minutes left"
        print(f"\r\x1b[K{line}" if terminal else line, end="" if terminal else "\n", file=sys.stderr, flush=True)


def mutations(seed: int, kinds: Sequence[str], start: int) -> Iterator[Task]:
    """Yield inputs `start`, `start` + 1, ... of a seed, the kinds in turn, without end."""
    return (Task(kinds[n % len(kinds)], seed, n // len(kinds)) for n in itertools.count(start))


def run(tasks: Iterable[Task], *, count: int | None, minutes: float | None, workers: int, out: Path) -> Summary:
    """Judge inputs until they, `count` or the time are at an end; write those that show a fault into `out`."""
    prepare()
    summary, progress = Summary(), Progress(count, minutes)
    tasks = itertools.islice(tasks, count)
    lanes = [Lane() for _ in range(workers)]
    done, ending = 0, False
    try:
        while True:
            for lane in lanes:
                if lane.task is None and not ending and (task := next(tasks, None)) is not None:
                    lane.start(task)
            busy = [lane for lane in lanes if lane.task is not None]
            if not busy:
                return summary
            wait([lane.connection for lane in busy if lane.connection is not None], timeout=0.2)
            for lane in busy:
                verdict = lane.result()
                if verdict is not None:
                    assert lane.task is not None
                    done += 1
                    _count(summary, lane, lane.task, verdict, out)
                    lane.task = None
            progress.tell(done, len(summary.findings))
            ending = ending or progress.over
    except KeyboardInterrupt:
        return summary
    finally:
        for lane in lanes:
            lane.stop()


def _count(summary: Summary, lane: Lane, task: Task, verdict: Verdict, out: Path) -> None:
    for fault in summary.add(task, verdict):
        if fault[1] == "making":  # an input that ends the process that makes it would end this one
            summary.examples.setdefault(fault, []).append(f"(cannot be made: {task.kind} {task.seed} {task.number})")
            continue
        smallest = _minimised(lane, task, verdict, fault)
        path = save(smallest, fault, out)
        summary.examples.setdefault(fault, []).append(str(path))


def _minimised(lane: Lane, task: Task, verdict: Verdict, fault: tuple[str, str, str]) -> Task:
    """Return the input with as few steps as show the same fault."""
    keep = list(range(len(verdict.steps)))
    for step in list(keep) if len(keep) > 1 else ():
        fewer = [other for other in keep if other != step]
        if fault in {fault_of(finding) for finding in judge_alone(lane, task._replace(keep=fewer)).findings}:
            keep = fewer
    return task._replace(keep=keep or None)


def judge_alone(lane: Lane, task: Task) -> Verdict:
    """Judge one input and wait for it."""
    lane.start(task)
    while (verdict := lane.result()) is None:
        assert lane.connection is not None
        wait([lane.connection], timeout=0.2)
    return verdict


def corpus() -> list[tuple[str, list[Finding]]]:
    """Judge every row of the corpus; return its files and command, and what is found."""
    prepare()
    lane = Lane()
    findings = [judge_alone(lane, Task("corpus", 0, number)).findings for number in range(len(rows()))]
    lane.stop()
    names = [f"{row['files'][-1]}: {row['command']}" for row in rows()]
    return list(zip(names, findings, strict=True))


def save(task: Task, fault: tuple[str, str, str], out: Path) -> Path:
    """Write the files of an input, and what replays it, into a folder; return the latter's path."""
    case = make(*task)
    parts = [task.kind, str(task.seed), str(task.number), *fault[:2]]
    folder = out / re.sub(r"[^a-zA-Z0-9]+", "-", "-".join(parts))
    if folder.exists():
        shutil.rmtree(folder)
    for name, data in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    description = {
        **task._asdict(),
        "fault": fault,
        "origin": case.origin,
        "steps": case.steps,
        "options": case.options,
    }
    (folder / "case.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    return folder / "case.json"


def replay(path: Path) -> Verdict:
    """Judge an input that was kept: its files as they lie there, not as they would be made today."""
    from dataclasses import replace

    from fuzz.lane import judged

    prepare()
    body = json.loads(path.read_text(encoding="utf-8"))
    case = make(body["kind"], body["seed"], body["number"], body["keep"])
    files = {
        str(file.relative_to(path.parent)): file.read_bytes()
        for file in path.parent.rglob("*")
        if file.is_file() and file != path
    }
    from onnx_analog.cli import main

    return judged(replace(case, files=files), main, lambda stage: print(f"  {stage}", flush=True))
