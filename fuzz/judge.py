"""Every relevant command on one input, and all oracles on what it did."""

from __future__ import annotations

import json
import math
import re
import resource
import shlex
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz import account, agreement, oracles
from fuzz.agreement import Reference
from fuzz.invoke import Ran, invoke
from fuzz.kinds import RUN, SIGMA, Case, rows, run_folder
from fuzz.oracles import Finding

Main = Callable[..., Any]
MEMORY = 1.5 * 2**30  # bytes that a command may take more than what was taken before


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
        asked = ran.command in commands and not (warned and ran.command != "evaluate")
        if ran.code == 0 and reference.refused is not None and asked:
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


def judge(case: Case, folder: Path, main: Main, stage: Callable[[str], None] = lambda _: None) -> Verdict:
    """Run the commands that take such an input, in an empty folder, and return what is found."""
    judge = Judge(case, folder, main, stage)
    if case.kind == "backend":
        from fuzz import backend

        backend.judge(judge)
        return judge.verdict
    _KINDS[case.kind](judge)
    return judge.verdict


# --------------------------------------------------------------------------------------------------- models

PROTECTING = ("--min-size", "16", "--channel", f"gaussian:sigma={SIGMA}")


def _plain(judge: Judge) -> None:
    folder, options = judge.folder, judge.case.options
    reference = judge.reference("m.onnx")
    judge.accepted(judge.run("inspect", "m.onnx", "--min-size", "16", "--json"), reference)
    pruned = judge.run(
        "prune", "m.onnx", "--sparsity", "0", "--min-size", "16", "-o", "q.onnx", outputs=("q.onnx", "q.onnx.data")
    )
    judge.accepted(pruned, reference)
    if pruned.code == 0:
        judge.add(agreement.same_outputs(folder / "q.onnx", reference, "prune"))
    evaluated = judge.run("evaluate", "m.onnx", "--data", "d.npz", "--trials", "0", "--threads", "1", "--json")
    if evaluated.code == 0:
        judge.add(_of(agreement.evaluated, folder / "m.onnx", folder / "d.npz", evaluated))
    outputs = ("p.onnx", "p.onnx.data", "p.json")
    made = judge.run(
        "protect", "m.onnx", *PROTECTING, *options, "-o", "p.onnx", "--manifest", "p.json", "--json", outputs=outputs
    )
    judge.accepted(made, reference)
    if made.code != 0:
        return
    if "--sparsity" not in options:
        judge.add(agreement.protected(folder / "m.onnx", folder / "p.onnx", reference))
    judge.add(_of(agreement.totals, folder / "p.onnx", made))
    if reference.refused is None:
        _read(judge, full=judge.case.number % 4 == 0)


def _read(judge: Judge, *, full: bool) -> None:
    """Run what takes the protected model p.onnx, made from this input: all of it must succeed."""
    folder = judge.folder
    known = {
        "--check": ("manifest", "p.onnx", "--check", "p.json"),
        "readback": ("readback", "p.onnx", "--decoded", "-o", "r.onnx"),
    }
    quiet = ("readback", "p.onnx", "--decoded", "--channel", "gaussian:sigma=1e-7", "-o", "s.onnx")
    noisy = ("evaluate", "p.onnx", "--data", "d.npz", "--trials", "1", "--threads", "1", "--json")
    ran = {name: judge.run(*command, outputs=("r.onnx", "r.onnx.data")) for name, command in known.items()}
    for name, one in ran.items():
        if one.code != 0:
            judge.add([Finding("own output refused", name, one.err.strip()[:200])])
    evaluated = judge.run(*noisy)
    if evaluated.code == 0 and ran["readback"].code == 0:
        paths = folder / "p.onnx", folder / "r.onnx", folder / "d.npz"
        judge.add(_of(agreement.noisy, *paths, evaluated))
    if full and judge.run(*quiet, outputs=("s.onnx", "s.onnx.data")).code == 0:
        judge.add(agreement.read_back(folder / "p.onnx", folder / "s.onnx", 1e-7))
    if full:
        _sweep(judge)


def _sweep(judge: Judge) -> None:
    judge.run(
        "sweep", "m.onnx", "--data", "d.npz", "--strategy", "raw", "--cells", "1", "--trials", "1", "--engine",
        "serial", "--min-size", "16", "--channel", f"gaussian:sigma={SIGMA}", "--out", "run", "--json",
        outputs=("run",),
    )  # fmt: skip


def _protected(judge: Judge) -> None:
    folder, case = judge.folder, judge.case
    unmutated = _account(case.unmutated, folder)
    reference = judge.reference("p.onnx")
    commands: tuple[tuple[str, ...], ...] = (
        ("inspect", "p.onnx", "--json"),
        ("manifest", "p.onnx", "--json"),
        ("manifest", "p.onnx", "--check", "p.json"),
        ("readback", "p.onnx", "--decoded", "-o", "r.onnx"),
        ("evaluate", "p.onnx", "--data", "d.npz", "--trials", "1", "--threads", "1", "--json"),
    )
    totals = json.loads(case.unmutated["p.json"])["totals"]
    for command in commands:
        ran = judge.run(*command, outputs=("r.onnx", "r.onnx.data"))
        judge.accepted(ran, reference)
        if ran.code == 0 and command[0] != "inspect" and b"onnx_analog" in case.files["p.onnx"]:
            if ran.command == "evaluate" and not account.stored(agreement.loaded(folder / "p.onnx")):
                continue  # plain by now
            judge.add(agreement.same_weights(folder / "p.onnx", unmutated, ran.command))
            if command == commands[1]:
                judge.add(_of(_same_totals, ran, totals))
        elif ran.code == 0 and ran.command == "evaluate":
            judge.add(_of(agreement.evaluated, folder / "p.onnx", folder / "d.npz", ran))


def _account(files: Mapping[str, bytes], folder: Path) -> dict[str, account.Held]:
    """Return the stored tensors of the model before it was changed."""
    place = folder / "unmutated"
    place.mkdir()
    for name, data in files.items():
        (place / name).write_bytes(data)
    try:
        return account.stored(agreement.loaded(place / "p.onnx"))
    finally:
        for path in place.iterdir():
            path.unlink()
        place.rmdir()


def _same_totals(found: Mapping[str, Any], right: Mapping[str, Any]) -> Iterator[Finding]:
    other = [name for name in right if found["totals"].get(name) != right[name]]
    if other:
        yield Finding("other totals accepted", "manifest", f"{other[0]}: {found['totals'].get(other[0])}")


def _of(oracle: Callable[..., Iterator[Finding]], *arguments: Any) -> Iterator[Finding]:
    """Call an oracle when its findings are added, where a failure of its own becomes a finding."""
    yield from oracle(*(oracles.json_of(one) if isinstance(one, Ran) else one for one in arguments))


# ---------------------------------------------------------------------------------------------------- texts


def _manifest(judge: Judge) -> None:
    case = judge.case
    shown = judge.run("manifest", "p.json", "--json")
    if shown.code == 0:
        judge.add(_of(consistent, shown))
    if judge.run("manifest", "p.onnx", "--check", "p.json").code == 0:
        judge.add(_of(_passes, case.files["p.json"], case.unmutated["p.json"]))


def consistent(body: Mapping[str, Any]) -> Iterator[Finding]:
    """The addresses of a manifest follow each other from 0, and its totals are sums."""
    at = 0
    for tensor in body["tensors"]:
        for plane in ("level", "header", "mask", "codebook"):
            first, end = tensor["cells"][plane]
            if first != at or end < first:
                yield Finding("addresses", "manifest", f"{tensor['key'][:40]}: {plane} from {first}, not {at}")
                return
            at = end
    if at != body["totals"]["all_in_cells"]:
        yield Finding("totals", "manifest", f"{body['totals']['all_in_cells']} cells, of which {at} have an address")
    for name, part in (("original_weights", "original"), ("stored_weights", "stored")):
        if body["totals"][name] != sum(tensor[part] for tensor in body["tensors"]):
            yield Finding("totals", "manifest", name)
    if any(tensor["stored"] != sum(one["count"] for one in tensor["classes"]) for tensor in body["tensors"]):
        yield Finding("totals", "manifest", "counts of classes")


def _passes(found: bytes, right: bytes) -> Iterator[Finding]:
    yield from differs(json.loads(found), json.loads(right))


def differs(found: Any, right: Any, path: str = "") -> Iterator[Finding]:
    """A manifest that passes --check says what the right one says, beside fields that it does not know."""
    if isinstance(right, dict) and isinstance(found, dict):
        for name in right:
            if name != "command" and not (right[name] is None and name not in found):
                yield from differs(found.get(name), right[name], f"{path}.{name}")
    elif isinstance(right, list) and isinstance(found, list) and len(found) == len(right):
        for place, (one, other) in enumerate(zip(found, right, strict=True)):
            yield from differs(one, other, f"{path}.{place}")
    elif isinstance(found, float) and isinstance(right, float) and math.isclose(found, right, rel_tol=1e-9):
        return  # other programs may round ratios
    elif found != right or isinstance(found, bool) != isinstance(right, bool):
        yield Finding("--check passes", "manifest", re.sub(r"\d+", "0", path) + f": {found!r:.30} for {right!r:.30}")


def _junk(found: bytes, right: bytes) -> Iterator[Finding]:
    yield from wrong_types(json.loads(found), json.loads(right))


def wrong_types(found: Any, right: Any, path: str = "") -> Iterator[Finding]:
    """No number of an accepted channel is now NaN, infinite, true, a text, a list or an object."""
    if isinstance(right, dict) and isinstance(found, dict):
        for name in right.keys() & found.keys():
            yield from wrong_types(found[name], right[name], f"{path}.{name}")
    elif isinstance(right, list) and isinstance(found, list) and len(right) == len(found):
        for one, other in zip(found, right, strict=True):
            yield from wrong_types(one, other, f"{path}.0")
    elif isinstance(right, int | float) and not isinstance(right, bool) and found is not None:
        number = isinstance(found, int | float) and not isinstance(found, bool)
        if not number or not abs(found) <= 1e300 or (path.endswith(("sigma", "stds.0", "between.0")) and found < 0):
            yield Finding("junk accepted", "channel show", f"{path}: {found!r:.40}")


def _channel(judge: Judge) -> None:
    shown = judge.run("channel", "show", "c.json", "--json")
    judge.run("channel", "show", "c.json")
    outputs = ("p.onnx", "p.json")
    made = judge.run(
        "protect",
        "m.onnx",
        "--min-size",
        "16",
        "--channel",
        "c.json",
        "-o",
        "p.onnx",
        "--manifest",
        "p.json",
        outputs=outputs,
    )
    if shown.code == 0:
        judge.add(_of(_junk, judge.case.files["c.json"], judge.case.unmutated["c.json"]))
        judge.add(_of(_span, shown))
    if made.code == 0:
        if shown.code != 0:
            judge.add([Finding("own channel refused", "channel show", shown.err.strip()[:200])])
        read = judge.run("readback", "p.onnx", "--decoded", "-o", "r.onnx", outputs=("r.onnx",))
        if read.code != 0:
            judge.add([Finding("own output refused", "readback", read.err.strip()[:200])])


def _span(body: Mapping[str, Any]) -> Iterator[Finding]:
    low, high = body["span"]
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        yield Finding("span", "channel show", f"{body['span']}")


def _npz(judge: Judge) -> None:
    for options in ((), ("--samples", "1")):
        ran = judge.run("evaluate", "m.onnx", "--data", "d.npz", "--trials", "0", "--threads", "1", "--json", *options)
        if ran.code == 0 and not options:
            paths = judge.folder / "m.onnx", judge.folder / "d.npz"
            judge.add(_of(agreement.evaluated, *paths, ran))


def _csv(judge: Judge) -> None:
    arguments = (
        "channel",
        "fit",
        "pairs.csv",
        "--input",
        "volts",
        "--output",
        "ohms",
        *judge.case.options,
        "-o",
        "c.json",
    )
    ran = judge.run(*arguments, "--json", outputs=("c.json",))
    if ran.code == 0:
        shown = judge.run("channel", "show", "c.json", "--json")
        if shown.code != 0:
            judge.add([Finding("own output refused", "channel show", shown.err.strip()[:200])])
        judge.add(_of(_span, shown))


def _toml(judge: Judge) -> None:
    judge.run(
        "sweep",
        "m.onnx",
        "--data",
        "d.npz",
        "--config",
        "c.toml",
        "--engine",
        "serial",
        "--out",
        "run",
        "--json",
        outputs=("run",),
    )


def long_on_request(case: Case) -> bool:
    """Return whether a TOML file asks for so many trials that a long sweep is what it asked for."""
    try:
        body = tomllib.loads(case.files["c.toml"].decode())
        return any(float(body.get(name, 1)) > 1000 for name in ("trials", "max_trials", "max-trials"))
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _run(judge: Judge) -> None:
    right = json.loads(run_folder(0)[1])
    ran = judge.run(*RUN, "--seed", "0", outputs=("run",))
    if ran.code == 0:
        judge.add(_of(_same_points, ran, right))


def _same_points(found: Any, right: Any) -> Iterator[Finding]:
    if found != right:
        yield Finding("other numbers", "sweep", "a sweep that goes on differs from one that was never stopped")


def _corpus(judge: Judge) -> None:
    row = rows()[judge.case.number]
    ran = judge.run(*shlex.split(row["command"]), outputs=tuple(row.get("outputs", ())))
    if ran.code not in row["exit"]:
        judge.add([Finding("outcome", ran.command, f"exit {ran.code}: {(ran.err or ran.out).strip()[-200:]}")])
    said = ran.err + ran.out
    for word in row.get("says", ()):
        if word not in said:
            judge.add([Finding("words", ran.command, f"no {word!r} in {said.strip()[-200:]!r}")])
    for word in row.get("never", ()):
        if word in said:
            judge.add([Finding("words", ran.command, f"{word!r} in {said.strip()[-200:]!r}")])


_KINDS: dict[str, Callable[[Judge], None]] = {
    "plain": _plain,
    "protected": _protected,
    "manifest": _manifest,
    "channel": _channel,
    "npz": _npz,
    "csv": _csv,
    "toml": _toml,
    "run": _run,
    "corpus": _corpus,
}
