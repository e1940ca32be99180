"""Speed as ratios, each measured in one run against a bound or a peer: `make benchmark`.

    python benchmarks/run.py                        all but what takes minutes
    python benchmarks/run.py --all --out docs/performance
    python benchmarks/run.py --only 'trial|torch'

Absolute times are those of the machine; ratios carry over. Each ratio is the median over pairs of measurements taken in
turn, so a machine that slows down slows both. A table goes to stderr, JSON to stdout; with --out, both to files, and
the cost against the number of weights as a plot.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks is a package of the checkout

from benchmarks import codes, scaling, trials
from benchmarks.networks import LAYERS, SIDE, chain
from onnx_analog import api
from onnx_analog.coding.scheme import Scheme
from onnx_analog.drawing import in_style, look, new_figure, saver
from onnx_analog.study.worker import versions

MIB = LAYERS * SIDE**2 * 4 / 2**20
SIZES = tuple(round(10 ** (4 + half / 2)) for half in range(11))  # 10^4 to 10^9


Numbers = dict[str, Any]


class Row(NamedTuple):
    """One line of the table."""

    name: str
    goal: str  # of the ratio
    slow: bool  # takes minutes, or gigabytes
    measure: Callable[[Path], dict[str, float] | None]


def rows() -> Iterator[Row]:
    """Yield what can be measured."""
    yield Row("trial / clean inference, LeNet × 1,000", "≤ 1.25", False, lambda _: trials.lenet())
    yield Row("trial / clean inference, ResNet-20 × 500", "", False, lambda f: trials.of_resnet("resnet20", f))
    yield Row(
        "trial / clean inference, ResNet-18 × 500", "≤ 1.05", True, lambda f: trials.of_resnet("resnet18", f, 500)
    )
    yield Row("set-up of trials / reading all weights once, 11.5 M stored", "≤ 2", False, lambda _: _set_up())
    yield Row(
        "point of a grid without trials / trial, LeNet × 1,000",
        "≤ 0.1",
        False,
        lambda _: trials.next_point_against_trial(),
    )
    for cells in (1, 1000):
        yield Row(
            f"sampling + decoding / standard_normal, r = {cells}, all of 11.5 M stored", "≤ 2", False,
            partial(_normals, cells, 0.0),
        )  # fmt: skip
        yield Row(
            f"sampling + decoding / standard_normal, r = {cells}, 2.3 M of 11.5 M stored", "≤ 2", False,
            partial(_normals, cells, 0.8),
        )  # fmt: skip
    for name, scheme in codes.MEMBERS.items():
        yield Row(f"protect, {name} / the paper's redundancy, ResNet-20", "≤ 3", False, partial(_protecting, scheme))
    for name in codes.SLOWEST:
        yield Row(
            f"protect, {name} / the paper's redundancy, 11.5 M weights", "≤ 3", False,
            partial(_protecting_chain, codes.MEMBERS[name]),
        )  # fmt: skip
    for name in codes.SLOWEST:
        yield Row(
            f"protect, {name} / the paper's redundancy, pruned ResNet-18", "≤ 3", False,
            partial(_protecting_pruned, codes.MEMBERS[name]),
        )  # fmt: skip
    for name in codes.SLOWEST:
        yield Row(
            f"protect from file to file, {name} / the paper's redundancy, pruned ResNet-18", "≤ 3", False,
            partial(_from_file_to_file, codes.MEMBERS[name]),
        )  # fmt: skip
    for name, scheme in codes.MEMBERS.items():
        yield Row(
            f"encoding alone, {name} / the paper's redundancy, ResNet-20", "≤ 3", False, partial(_encoding, scheme)
        )
    yield Row(
        "range coder alone, entropy-coded 0.5 / the paper's redundancy, pruned ResNet-18", "", False,
        partial(_coding, codes.MEMBERS["entropy-coded 0.5"]),
    )  # fmt: skip
    for count, (name, scheme) in product(codes.IMAGES, codes.READ.items()):
        yield Row(
            f"trial, {name} / clean inference, trained ResNet-20 × {count:,}", "≤ 1.05", False,
            partial(_trial, scheme, count),
        )  # fmt: skip
    yield Row("sampling + decoding / drawing all of 100 cells", "", False, lambda _: trials.against_cells(chain(), 100))
    yield Row("sampling + decoding, two threads / one", "", False, lambda _: trials.threads_against_one(chain()))
    yield Row("session with other weights / from other bytes", "", False, lambda _: trials.against_rebuilding(chain()))
    yield Row("trial / the same in torch, LeNet × 1,000", "", False, lambda _: trials.against_torch("lenet", 1000))
    yield Row("trial / the same in torch, ResNet-20 × 500", "", False, lambda _: trials.against_torch("resnet20", 500))
    yield Row("trial / the same in torch, ResNet-18 × 500", "", True, lambda _: trials.against_torch("resnet18", 500))
    yield Row("trial / aihwkit's PCM noise, LeNet × 1,000", "", False, lambda _: trials.against_aihwkit())
    yield Row("protect + save / load + save + 5 partitions, 46 MB", "≤ 1", False, scaling.protect_against_partition)
    yield Row("protected inference / plain inference", "", False, lambda _: _inference())
    for name, sparsity in (("plain", None), ("protected", 0.0), ("80 % pruned", 0.8)):
        yield Row(
            f"memory to create a session, {name} / its weights", "", False,
            partial(_session, sparsity),
        )  # fmt: skip
    for size, side, layers in (("45 MB", 1024, 11), ("450 MB", 2048, 27), ("4 GB", 4096, 64)):
        yield Row(
            f"memory to protect {size} / its weights", "", size != "45 MB",
            partial(scaling.protecting, side, layers),
        )  # fmt: skip
    yield Row("one worker / two workers", "≥ 1.8", True, scaling.one_against_two_workers)
    yield Row("onnx-analog --help / import numpy", "", False, lambda _: scaling.help_against_numpy())


def _normals(cells: int, sparsity: float, _: Path) -> dict[str, float]:
    return trials.against_normals(chain(), cells=cells, sparsity=sparsity)


def _protecting(scheme: Scheme, _: Path) -> dict[str, float] | None:
    return codes.protecting(scheme)


def _protecting_chain(scheme: Scheme, _: Path) -> dict[str, float] | None:
    return codes.protecting(scheme, chain(), pairs=9)


def _encoding(scheme: Scheme, _: Path) -> dict[str, float] | None:
    return codes.encoding(scheme)


def _protecting_pruned(scheme: Scheme, _: Path) -> dict[str, float] | None:
    model = codes.pruned()
    return None if model is None else codes.protecting(scheme, model)


def _from_file_to_file(scheme: Scheme, folder: Path) -> dict[str, float] | None:
    model = codes.pruned()
    return None if model is None else codes.from_file_to_file(scheme, model, folder)


def _coding(scheme: Scheme, _: Path) -> dict[str, float] | None:
    model = codes.pruned()
    return None if model is None else codes.coding(scheme, model)


def _trial(scheme: Scheme, count: int, _: Path) -> dict[str, float] | None:
    return codes.trial(scheme, count)


def _set_up() -> dict[str, float]:
    return trials.set_up_against_reading(chain())


def _session(sparsity: float | None, folder: Path) -> dict[str, float]:
    model = chain() if sparsity is None else api.protect(chain(), sparsity=sparsity).model
    return scaling.session(model, MIB, folder / "model.onnx")


def _inference() -> dict[str, float]:
    plain = chain()
    return trials.inference_against_plain(api.protect(plain).model, plain)


def measure(row: Row) -> Numbers | None:
    """Return one line's numbers, and at which commit and load they were measured; they are printed on stderr, too."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        numbers = row.measure(Path(folder))
    print(line(row, numbers), file=sys.stderr, flush=True)
    return None if numbers is None else {**numbers, "commit": commit(), "load": round(load, 1)}


def commit() -> str:
    """Return the commit of the checkout; empty outside one."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    described = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    return described.stdout.strip()


def line(row: Row, numbers: Mapping[str, Any] | None) -> str:
    """Return one line of the table."""
    if numbers is None:
        return f"{row.name}: not installed here"
    unit = "ms" if "ms" in numbers else "MiB"
    ours, bound = numbers[unit.lower()], numbers[f"bound_{unit.lower()}"]
    goal = f", goal {row.goal}" if row.goal else ""
    return f"{numbers['ratio']:8.3f}  {row.name}: {ours:,.1f} {unit} / {bound:,.1f} {unit}{goal}"


def markdown(measured: Mapping[str, Mapping[str, Any] | None]) -> str:
    """Return the table of the documentation."""
    goals = {row.name: row.goal for row in rows()}
    lines = ["| what / against what | ratio | goal | measured | commit | load |", "|---|---|---|---|---|---|"]
    for name, numbers in measured.items():
        if numbers is None:
            lines.append(f"| {name} | not installed here | {goals[name]} | | | |")
            continue
        unit = "ms" if "ms" in numbers else "MiB"
        ours, bound = numbers[unit.lower()], numbers[f"bound_{unit.lower()}"]
        where = f"{numbers.get('commit') or 'not recorded'} | {numbers.get('load', 'not recorded')}"
        ratio, times = f"{numbers['ratio']:.4g}", f"{ours:,.1f} / {bound:,.1f} {unit}"
        missed = ", missed" * misses(float(ratio), goals[name])  # judged as it is shown
        lines.append(f"| {name} | {ratio} | {goals[name]}{missed} | {times} | {where} |")
    lines += ["", "Load: the mean number of processes that ran or waited in the minute before. Commit: where the row"]
    lines.append("was last measured.")
    return "\n".join(lines) + "\n"


def misses(ratio: float, goal: str) -> bool:
    """Return whether a ratio misses a goal such as "≤ 3"; without a goal, it does not."""
    if not goal:
        return False
    sign, bound = goal.split()
    return ratio > float(bound) if sign == "≤" else ratio < float(bound)


def growth(path: Path, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """Measure cost against the number of weights; draw it, log-log, with its slope."""
    found = []
    for size in sizes:
        found.append(scaling.weights(size))
        print(found[-1], file=sys.stderr, flush=True)
    slopes = {name: scaling.slope(found, name) for name in ("protect_s", "trial_s")}
    draw_growth(found, slopes)(path)
    return {"sizes": found, "slopes": slopes}


@in_style
def draw_growth(found: Sequence[dict[str, float]], slopes: dict[str, float]) -> Callable[[Path], None]:
    """Return a writer of the plot of what `growth` measured."""
    figure, (axis,) = new_figure(1, height=4.2)
    for number, (name, label) in enumerate((("protect_s", "protect"), ("trial_s", "read and decode, each trial"))):
        x, y = ([row[key] for row in found] for key in ("weights", name))
        axis.loglog(x, y, label=f"{label}: weights^{slopes[name]:.2f}", **look(number))
    axis.set(xlabel="weights", ylabel="seconds, one thread")
    axis.legend()
    return saver(figure)


def extras(out: Path, *, slow: bool) -> Iterator[tuple[str, bool, Callable[[], Any]]]:
    """Yield what is no ratio: its name, whether it takes minutes, and how it is measured."""
    yield "growth", False, lambda: growth(out / "growth.png", SIZES if slow else SIZES[:8])
    yield "thousandth", True, lambda: _in_a_folder(scaling.thousandth)
    yield "protect_profile_ms", False, lambda: _in_a_folder(scaling.protect_profile)


def _in_a_folder(measured: Callable[[Path], dict[str, float]]) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        return measured(Path(folder))


def main() -> None:
    """Measure, tell, write."""
    parser = argparse.ArgumentParser(description="Speed as ratios.")
    parser.add_argument("--all", action="store_true", help="what takes minutes or gigabytes, too")
    parser.add_argument("--only", default="", metavar="REGEX", help="what has such a name; the rest of --out stays")
    parser.add_argument("--out", type=Path, help="folder for benchmark.json, benchmark.md and growth.png")
    chosen = parser.parse_args()
    wanted = [row for row in rows() if re.search(chosen.only, row.name) and (chosen.all or not row.slow)]
    found = {row.name: measure(row) for row in wanted}
    body: dict[str, Any] = {"rows": found, "versions": {**versions(), "machine": platform.machine()}}
    if chosen.out is not None:
        chosen.out.mkdir(parents=True, exist_ok=True)
        for name, slow, measured in extras(chosen.out, slow=chosen.all):
            if re.search(chosen.only, name) and (chosen.all or not slow):
                body[name] = measured()
        body = _with_the_rest(body, chosen.out / "benchmark.json") if chosen.only else body
        (chosen.out / "benchmark.md").write_text(markdown(body["rows"]), encoding="utf-8")
        (chosen.out / "benchmark.json").write_text(json.dumps(body, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(body, indent=2, ensure_ascii=False))


def _with_the_rest(body: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return what was measured now, and what is in the file and was not."""
    there = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": {}}
    both = {**there["rows"], **body["rows"]}
    return {**there, **body, "rows": {row.name: both[row.name] for row in rows() if row.name in both}}


if __name__ == "__main__":
    main()
