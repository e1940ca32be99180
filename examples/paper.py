"""Make the tables and figures of Isik et al. 2020 again, from trained ONNX models: our numbers beside the paper's.

    python examples/paper.py table8 --models examples/models --data mnist-test.npz
    python examples/paper.py table1 --models DIR --data cifar10-test.npz --trials 5
    python examples/paper.py figure4

Tables are 1, 2, 7, 8 and 9, figures 1 to 4. Every evaluation is appended to OUT/TABLE.csv as it ends, one line for
each trial, and one that is there already is not made again: a run that is killed goes on. OUT/TABLE.md is the table.
Figures 1 and 2 need the channel only, figure 3 the two ResNet-18, figure 4 the lines of tables 1 and 7.

Each network is DIR/NAME.onnx or DIR/NAME.onnx.xz: resnet18-cifar10, resnet18-cifar10-pruned, resnet20, resnet20-kd,
resnet20-kd-gaussian, lenet, mlp, mlp-kd, mlp-kd-gaussian, mlp-kd-channel.
"""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from paper_tables import CLEAN, FIGURES, SCOPES, TABLES, Entry, Table, network_of, read_rows, values_of
from rich.console import Console
from rich.progress import track

import onnx_analog as oa
from onnx_analog.cli import report
from onnx_analog.cli.console import Command
from onnx_analog.graph.weights import find
from onnx_analog.run.data import Dataset, Preprocessing, load, read
from onnx_analog.run.evaluation import interval
from onnx_analog.run.session import Network

# ------------------------------------------------------------------------------------------------ evaluating


def protected(model: ir.Model, options: dict[str, Any]) -> Any:
    """Return the model as an entry has it stored.

    `gaussian` adds N(0, std²) to the weights themselves: with a span from the least to the largest, α is 1 and β 0.
    """
    options = dict(options)
    std = options.pop("gaussian", None)
    if std is not None:
        arrays = [weight.array() for weight in find(model).weights]
        low, high = min(a.min() for a in arrays), max(a.max() for a in arrays)
        options |= {"scope": "model", "channel": f"gaussian:sigma={std},low={float(low)},high={float(high)}"}
    return oa.protect(model, **options)


@dataclass(frozen=True, kw_only=True)
class Job:
    """How entries of one table are evaluated."""

    models: Path
    data: Path
    preprocessing: Preprocessing
    samples: int | None
    trials: int
    seed: int
    threads: int

    def rows(self, entry: Entry) -> list[dict[str, Any]]:
        """Return one line for each trial."""
        model, images, clean = self._start(entry.network, entry.sparsity)
        cost = {"r_avg": "", "all_in_cells_per_original_weight": ""}
        if entry.options is not None:
            kept = protected(model, entry.options)
            ratios = kept.manifest.totals.ratios()
            cost = {name: f"{ratios[name]:.6g}" for name in cost}
            model = kept.model
        found = oa.evaluate(model, images, trials=self.trials, seed=self.seed, threads=self.threads, clean=clean)
        values = [found.clean] if entry.options is None else found.values
        return [
            {
                "row": entry.row, "column": entry.column, "scope": entry.scope, "network": entry.network, **cost,
                "samples": len(images), "seed": self.seed, "trial": trial, "value": value,
            }
            for trial, value in enumerate(values)
        ]  # fmt: skip

    @lru_cache(maxsize=1)  # noqa: B019 - one job a process; it holds the last network
    def _start(self, name: str, sparsity: float) -> tuple[ir.Model, Dataset, list[NDArray[Any]]]:
        model = network_of(self.models, name)
        if sparsity:
            model = oa.prune(model, sparsity=sparsity).model
        network = Network(model, threads=self.threads)
        images = load(self.data, network.inputs, self.preprocessing)
        images = images if self.samples is None else images.head(self.samples)
        return model, images, network.run(images)


def evaluated(job: Job, entries: list[Entry], workers: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the lines of each entry as it ends, from as many processes as `workers`."""
    if workers == 1:
        yield from map(job.rows, entries)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from (ended.result() for ended in as_completed([pool.submit(job.rows, entry) for entry in entries]))


# --------------------------------------------------------------------------------------------------- writing


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Add lines to a CSV; all of one evaluation at once."""
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def markdown(table: Table, rows: list[dict[str, str]], command: str) -> str:
    """Return the table: in each place ours ± half of its 95 % interval, then the paper's."""
    values = values_of(rows)
    samples = {row["samples"] for row in rows}
    lines = [f"### {table.title}", "", f"`{command}`", ""]
    for entry in table.entries:
        if entry.row == CLEAN and entry.column == "" and entry.key in values:
            lines += [f"Without noise: {values[entry.key][0]:.2f} (paper {entry.paper:.2f}).", ""]
    for scope in SCOPES:
        entries = [e for e in table.entries if e.scope in ("", scope) and e.column]
        columns = list(dict.fromkeys(entry.column for entry in entries))
        lines += [f"**scope {scope}**", "", "| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
        for row in dict.fromkeys(entry.row for entry in entries):
            found = {entry.column: entry for entry in entries if entry.row == row}
            lines.append(f"| {row} | " + " | ".join(_place(found.get(c), values) for c in columns) + " |")
        lines.append("")
    counts = sorted({len(values[e.key]) for e in table.entries if e.options is not None and e.key in values})
    trials = " or ".join(map(str, counts)) or "no"
    lines.append(
        f"Accuracy in % on {' and '.join(sorted(samples))} test images, ± half of the 95 % interval over {trials} "
        "trials; the paper's in brackets."
    )
    return "\n".join(lines) + "\n"


def _place(entry: Entry | None, values: dict[tuple[str, str, str], list[float]]) -> str:
    if entry is None:
        return ""
    found = values.get(entry.key)
    ours = "not run"
    if found is not None:
        ends = interval(found)
        ours = f"{np.mean(found):.2f}" + ("" if ends is None else f" ± {(ends[1] - ends[0]) / 2:.2f}")
    return ours if entry.paper is None else f"{ours} ({entry.paper:.2f})"


# ---------------------------------------------------------------------------------------------- command line


def refuse_other_runs(path: Path, rows: list[dict[str, str]], data: Path, *, seed: int, samples: int | None) -> None:
    """Refuse to go on from lines of another seed, or of another number of images."""
    if not rows:
        return
    count = len(read(data, "y")["y"])
    for name, value in {"seed": seed, "samples": count if samples is None else min(samples, count)}.items():
        for found in {row[name] for row in rows} - {str(value)}:
            raise click.UsageError(
                f"{path} has lines with {name} {found}, and this run has {value}: name another folder with --out"
            )


def asked(what: str, network: str | None, row: str | None) -> list[Entry]:
    """Return the entries of a table that are of this network and in this row."""
    entries = TABLES[what].entries
    found = [e for e in entries if network in (None, e.network) and row in (None, e.row)]
    if not found:
        rows_there = ", ".join(dict.fromkeys(e.row for e in entries))
        networks_there = ", ".join(dict.fromkeys(e.network for e in entries))
        raise click.UsageError(f"{what} has no such entry: its rows are {rows_there}, its networks {networks_there}")
    return found


def drawn(what: str, models: Path | None, out: Path) -> Path:
    """Draw a figure into `out` and return where it is."""
    if what == "figure3" and models is None:
        raise click.UsageError("figure3 needs --models")
    path = out / f"{what}.png"
    report.check_plot(path)
    from paper_figures import draw  # matplotlib is an extra that tables do without

    out.mkdir(parents=True, exist_ok=True)
    draw(what, models, out, path)
    return path


@click.command(cls=Command)
@click.argument("what", type=click.Choice([*TABLES, *FIGURES]))
@click.option("--models", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of networks.")
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="npz of the test images.")
@click.option("--trials", type=click.IntRange(1), default=10, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--samples", type=click.IntRange(1), help="Only the first so many.  [default: all]")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes, of one thread each.")
@click.option("--network", help="Only entries of this one now.  [default: all]")
@click.option("--row", help="Likewise.")
@click.option("--scope", type=click.Choice([*SCOPES]), help="Only this one now.  [default: both]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("docs/reproduction"))
def main(
    what: str,
    models: Path | None,
    data: Path | None,
    trials: int,
    seed: int,
    samples: int | None,
    workers: int,
    network: str | None,
    row: str | None,
    scope: str | None,
    out: Path,
) -> None:
    """Make WHAT, a table or a figure of the paper, again."""
    if what in FIGURES:
        print(drawn(what, models, out))
        return
    if models is None or data is None:
        raise click.UsageError(f"{what} needs --models and --data")
    table, path = TABLES[what], out / f"{what}.csv"
    done = read_rows(path)
    refuse_other_runs(path, done, data, seed=seed, samples=samples)
    job = Job(
        models=models, data=data, preprocessing=table.preprocessing, samples=samples, trials=trials, seed=seed,
        threads=workers > 1,
    )  # fmt: skip
    entries = asked(what, network, row)
    left = [e for e in entries if e.key not in values_of(done) and scope in (None, e.scope or scope)]
    rows = evaluated(job, left, workers)
    out.mkdir(parents=True, exist_ok=True)
    for found in track(rows, total=len(left), description=what, console=Console(stderr=True)):
        append(path, found)
    command = f"python examples/paper.py {what} --models DIR --data {data.name} --trials {trials} --seed {seed}"
    (out / f"{what}.md").write_text(markdown(table, read_rows(path), command), encoding="utf-8")
    print(markdown(table, read_rows(path), command))


if __name__ == "__main__":
    main()
