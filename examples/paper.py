"""Make the tables and figures of Isik et al. 2020 again, from trained ONNX models: our numbers beside the paper's.

    python examples/paper.py table8 --models examples/models --data mnist-test.npz
    python examples/paper.py table1 --models DIR --data cifar10-test.npz --trials 5
    python examples/paper.py figure4

Tables are 1, 2, 7, 8 and 9, figures 1 to 4. A table is a list of points (`paper_tables.py`); those of one network are a
sweep. OUT/TABLE.csv has a row for each trial, and OUT/TABLE.md is the table. Numbers that the CSV has are not computed
again, and a run that is killed is resumed by the same command, from OUT/TABLE.running.
Figures 1 and 2 need the channel only, figure 3 the two ResNet-18, figure 4 the trials of tables 1 and 7.

Each network is DIR/NAME.onnx or DIR/NAME.onnx.xz: resnet18-cifar10, resnet18-cifar10-pruned, resnet20, resnet20-kd,
resnet20-kd-gaussian, lenet, mlp, mlp-kd, mlp-kd-gaussian, mlp-kd-channel.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from paper_tables import CLEAN, FIGURES, GRANULARITIES, TABLES, Entry, Table, network_of, read_rows, values_of

import onnx_analog as oa
from onnx_analog import plots
from onnx_analog.cli.console import Command
from onnx_analog.cli.progress import watch
from onnx_analog.graph import files
from onnx_analog.run.data import Preprocessing, read
from onnx_analog.run.statistics import interval
from onnx_analog.study import engines

# ------------------------------------------------------------------------------------------------ evaluating

OF_SWEEP = (  # columns that a table's CSV has from the sweep
    "channel", "channel_sha256", "plan_sha256", "r_avg", "all_in_cells_per_original_weight", "sparsity",
    "models_sha256", "weights_sha256", "data_sha256", "samples", "seed", "trial", "value", "sqnr_db", "original",
    "stored", "python", "onnx-analog", "onnxruntime", "numpy", "onnx-ir",
)  # fmt: skip
COLUMNS = ("row", "column", "granularity", "network", *OF_SWEEP)
OF_NOISE = ("channel", "channel_sha256", "plan_sha256", "r_avg", "all_in_cells_per_original_weight", "sqnr_db")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Settings for evaluating the points of one table."""

    models: Path
    data: Path
    preprocessing: Preprocessing
    samples: int | None
    trials: int
    seed: int
    workers: int
    out: Path

    def rows(self, network: str, sparsity: float, entries: Sequence[Entry]) -> list[dict[str, str]]:
        """Return a row for each trial of the entries of one network."""
        noisy = [entry for entry in entries if entry.options is not None]
        with network_of(self.models, network) as path:
            model = files.load(path) if not sparsity else oa.prune(path, sparsity=sparsity).model
            schemes = {entry.name: entry.scheme(model) for entry in noisy or entries}  # one is swept for its `stored`
            folder = self.out / network
            engine = engines.build("local", workers=self.workers) if self.workers > 1 else "serial"
            with watch(network) as update:
                oa.sweep(
                    path, self.data, strategy=(), plan=schemes, sparsity=sparsity,
                    trials=self.trials if noisy else 1, seed=self.seed, mean=self.preprocessing.mean,
                    std=self.preprocessing.std, samples=self.samples, engine=engine, out=folder, progress=update,
                )  # fmt: skip
        trials: dict[str, list[dict[str, str]]] = {}
        for row in read_rows(folder / "trials.csv"):
            trials.setdefault(row["strategy"], []).append({name: row[name].strip('[]"') for name in OF_SWEEP})
        return [row for entry in entries for row in self._of(entry, trials)]

    def _of(self, entry: Entry, trials: dict[str, list[dict[str, str]]]) -> list[dict[str, str]]:
        told = {"row": entry.row, "column": entry.column, "granularity": entry.granularity, "network": entry.network}
        if entry.options is not None:
            return [{**told, **row} for row in trials[entry.name]]
        first = next(iter(trials.values()))[0]
        return [{**told, **first, **dict.fromkeys(OF_NOISE, ""), "value": first["stored"]}]


# --------------------------------------------------------------------------------------------------- writing


def write(path: Path, table: Table, rows: Sequence[dict[str, str]]) -> None:
    """Write the trials of a table, in the order of its entries."""
    order = {entry.key: place for place, entry in enumerate(table.entries)}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: order[row["row"], row["column"], row["granularity"]]))


def markdown(table: Table, rows: list[dict[str, str]], command: str) -> str:
    """Return the table: ours ± half of its 95 % interval, and the paper's in brackets."""
    values = values_of(rows)
    samples = {row["samples"] for row in rows}
    lines = [f"### {table.title}", "", f"`{command}`", ""]
    for entry in table.entries:
        if entry.row == CLEAN and entry.column == "" and entry.key in values:
            lines += [f"Without noise: {values[entry.key][0]:.2f} (paper {entry.paper:.2f}).", ""]
    for granularity in GRANULARITIES:
        entries = [e for e in table.entries if e.granularity in ("", granularity) and e.column]
        columns = list(dict.fromkeys(entry.column for entry in entries))
        lines += [f"**granularity {granularity}**", "", "| | " + " | ".join(columns) + " |"]
        lines.append("|---" * (len(columns) + 1) + "|")
        for row in dict.fromkeys(entry.row for entry in entries):
            found = {entry.column: entry for entry in entries if entry.row == row}
            lines.append(f"| {row} | " + " | ".join(_cell(found.get(c), values) for c in columns) + " |")
        lines.append("")
    counts = sorted({len(values[e.key]) for e in table.entries if e.options is not None and e.key in values})
    trials = " or ".join(map(str, counts)) or "no"
    lines.append(
        f"Accuracy in % on {' and '.join(sorted(samples))} test images, ± half of the 95 % interval over {trials} "
        "trials; the paper's in brackets."
    )
    return "\n".join(lines) + "\n"


def _cell(entry: Entry | None, values: dict[tuple[str, str, str], list[float]]) -> str:
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
    plots.check_plot(path)
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
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes.")
@click.option("--network", help="Only entries of this one now.  [default: all]")
@click.option("--row", help="Only entries of this row now.  [default: all]")
@click.option("--granularity", type=click.Choice([*GRANULARITIES]), help="Only this one now.  [default: both]")
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
    granularity: str | None,
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
    entries = asked(what, network, row)
    left = [e for e in entries if e.key not in values_of(done) and granularity in (None, e.granularity or granularity)]
    out.mkdir(parents=True, exist_ok=True)
    run = Run(
        models=models, data=data, preprocessing=table.preprocessing, samples=samples, trials=trials, seed=seed,
        workers=workers, out=out / f"{what}.running",
    )  # fmt: skip
    for name in dict.fromkeys((e.network, e.sparsity) for e in left):
        rows = run.rows(*name, [e for e in left if (e.network, e.sparsity) == name])
        write(path, table, [*read_rows(path), *rows])
    shutil.rmtree(run.out, ignore_errors=True)
    command = f"python examples/paper.py {what} --models DIR --data {data.name} --trials {trials} --seed {seed}"
    (out / f"{what}.md").write_text(markdown(table, read_rows(path), command), encoding="utf-8")
    print(markdown(table, read_rows(path), command))


if __name__ == "__main__":
    main()
