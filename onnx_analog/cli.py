"""The command line: parse, call the library, print.

Tables, or with --json nothing but JSON, go to stdout; progress, warnings and errors to stderr. Exit codes: 0 done, 1
failed or a check did not hold, 2 usage, 3 nothing to store. Heavy imports wait until a command needs them.
"""

from __future__ import annotations

import shlex
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import click

from onnx_analog import strategies
from onnx_analog.cli_channel import channel
from onnx_analog.cli_sweep import sweep
from onnx_analog.errors import ManifestError, printable
from onnx_analog.options import (
    CHANGES,
    DATA,
    FILE,
    FORCE,
    JSON,
    OTHER_CHANNEL,
    OUT,
    PREPROCESSING,
    PRUNE_SCOPE,
    RUNNING,
    SEED,
    SELECTION,
    SPARSITY,
    channel_names,
    modifiers_of,
    selection_of,
)
from onnx_analog.terminal import Finite, Fraction, Group, print_json, progress, show, watch


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(package_name="onnx-analog")
def main() -> None:
    """Store the weights of any ONNX model in noisy analog memory.

    \b
        onnx-analog demo
        onnx-analog protect model.onnx --cells-small 1 --cells-large 20
    """


PLOT = Path("onnx-analog-demo.png")


def _stem(path: Path) -> str:
    """Return the name of a model without .onnx, and without .protected before it."""
    return path.name.removesuffix(".onnx").removesuffix(".protected")


# ------------------------------------------------------------------------------------------------- commands


@main.command()
@click.option("--trials", type=click.IntRange(1, 1000), default=10, help="Trials for each point.")
@SEED
@click.option("--plot", type=OUT, default=PLOT, help="Where the plot goes.")
@FORCE
def demo(trials: int, seed: int, plot: Path, force: bool) -> None:
    """Show everything on a packaged network, LeNet, and 1,000 test images of MNIST.

    Prunes 80 % of the weights, stores the others in PCM cells with each strategy at 1, 3 and 10 cells per weight, reads
    them back with noise, and prints the accuracy and the cost.

    Example:

    \b
        onnx-analog demo
    """
    from onnx_analog import demo as story_of
    from onnx_analog import report, writing
    from onnx_analog.sweeps import sweep as sweep_of

    if not report.can_plot():
        show(report.NO_PLOTS)
    if report.can_plot():
        report.check_plot(plot)
        force = force or plot == PLOT  # what an earlier demo left
        writing.check_outputs([plot], [story_of.MODEL], force=force)
    story = story_of.begin()
    show(
        f"LeNet classifies {story.accuracy:.1%} of {len(story.data):,} MNIST test images correctly, and "
        f"{story.accuracy_pruned:.1%} after {story_of.SPARSITY:.0%} of its weights are pruned. The others are now "
        "stored in PCM cells, and every read of a cell is noisy.\n"
    )
    plan = story_of.plan(story, story_of.grid(seed=seed), trials=trials)
    with watch("reading noisy cells") as update:
        points = list(sweep_of(plan, progress=update))
    show(f"Each strategy adds a step to the one before it. {story_of.steps()}.\n", *report.points_tables(points))
    chosen = story_of.choice(points)
    why = (
        "The cheapest point that is as good as the best, within the noise"
        if trials > 1
        else "The best point in its one trial, which says little"
    )
    show(
        f"{why}: {report.choice_text(chosen)}. It costs:\n",
        *report.account_tables(story_of.protect(story, chosen).manifest),
    )
    (channel_,) = plan.grid.channels
    show(f"channel {channel_}: {channel_.source}")
    if report.can_plot():
        writing.write_all({plot: report.plot_points(points)}, force=force)
        show(f"plot: {plot}")
    show("To store a model of your own in the same way:")
    click.echo(story_of.command(chosen))  # on one line, however narrow the terminal, to be copied


@main.command()
@click.argument("model", type=FILE)
@SELECTION
@JSON
def inspect(model: Path, include: tuple[str, ...], exclude: tuple[str, ...], min_size: int, as_json: bool) -> None:
    """Show which tensors of MODEL would be stored, which stay digital, and why.

    Example:

    \b
        onnx-analog inspect model.onnx
    """
    from onnx_analog import api, report

    found = api.inspect(model, selection=selection_of(include, exclude, min_size))
    if as_json:
        return print_json(found.to_dict())
    show(*report.inspection_tables(found.rows, protected=found.protected))
    show(f"opset {found.opset}, IR {found.ir_version}; BatchNorm: {found.batch_norm}")
    if found.refused is not None:
        show(f"protect refuses it: {found.refused}")
    if found.read_back is not None:
        show(f"read from noisy cells: {found.read_back}")
    return None


@main.command()
@click.argument("model", type=FILE)
@click.option("--sparsity", type=Fraction(open_end=True), required=True, help="Share of weights that become zero.")
@PRUNE_SCOPE
@SELECTION
@click.option("-o", "--output", type=OUT, help="Default: MODEL's name with .pruned.onnx.  [default: beside MODEL]")
@FORCE
def prune(model: Path, sparsity: float, prune_scope: str, output: Path | None, force: bool, **selection: Any) -> None:
    """Set the smallest weights of MODEL to zero.

    Example:

    \b
        onnx-analog prune model.onnx --sparsity 0.8
    """
    from onnx_analog import api, files, writing

    target = output or model.with_name(f"{_stem(model)}.pruned.onnx")
    perhaps = [writing.data_beside(target)]
    writing.check_outputs([target], files.files_of(model), force=force, perhaps=perhaps)
    pruned = api.prune(model, sparsity=sparsity, scope=prune_scope, selection=selection_of(**selection))
    pruned.save(target, force=force)
    show(f"{pruned}: {target}")


@main.command()
@click.argument("model", type=FILE)
@click.option("--cells-small", type=click.IntRange(1, strategies.MOST_CELLS), default=1, help="Cells per small weight.")
@click.option(
    "--cells-large", type=click.IntRange(1, strategies.MOST_CELLS), default=20, help="Cells per large weight."
)
@click.option(
    "--strategy",
    type=click.Choice(list(strategies.STRATEGIES)),
    default="redundancy",
    help="Row of the paper's Table 1.",
)
@click.option(
    "--preset", type=click.Choice(list(strategies.PRESETS)), default="default", help="Scope and large fraction."
)
@click.option("--scope", type=click.Choice(strategies.SCOPES), help="Who shares α and β.  [default: tensor]")
@click.option("--large-fraction", type=Fraction(), help="Share of stored weights that are large.  [default: 0.05]")
@click.option(
    "--threshold", type=click.FloatRange(0, min_open=True), help="Magnitudes above it are large, in all tensors."
)
@SPARSITY
@PRUNE_SCOPE
@click.option(
    "--channel",
    default="pcm",
    shell_complete=channel_names,
    help="What the cells do: a name, name:key=value,..., or a JSON file.",
)
@CHANGES
@click.option("--header-channel", help="What the header's cells do.  [default: sign and class bits are free of error]")
@click.option("--header-reads", type=click.IntRange(1), default=1, help="Cells averaged for one header symbol.")
@click.option("--header-copies", type=click.IntRange(1), default=1, help="Copies of it that vote; odd.")
@click.option("--bits-per-cell", type=click.IntRange(1, 8), default=2, help="Digital bits in a cell of header or mask.")
@SELECTION
@click.option("-o", "--output", type=OUT, help="Default: MODEL's name with .protected.onnx.  [default: beside MODEL]")
@click.option(
    "--manifest", type=OUT, help="Default: the output's name with .manifest.json.  [default: beside the output]"
)
@FORCE
@JSON
def protect(
    model: Path,
    output: Path | None,
    manifest: Path | None,
    force: bool,
    as_json: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    min_size: int,
    **choices: Any,
) -> None:
    """Lay MODEL's weights out for noisy analog cells; the new model computes what MODEL does.

    Example:

    \b
        onnx-analog protect model.onnx --cells-small 1 --cells-large 20
    """
    from onnx_analog import api, files, report, writing

    target = output or model.with_name(f"{model.name.removesuffix('.onnx')}.protected.onnx")
    account = manifest or target.with_name(f"{_stem(target)}.manifest.json")
    channels_ = [Path(one) for one in (choices["channel"], choices["header_channel"]) if one]  # each may be a file
    read = chain(files.files_of(model), channels_)
    writing.check_outputs([target, account], read, force=force, perhaps=[writing.data_beside(target)])
    command = printable(shlex.join(["onnx-analog", *sys.argv[1:]]))  # a name may be no text
    selection = selection_of(include, exclude, min_size)
    protected = api.protect(model, selection=selection, command=command, modifiers=modifiers_of(choices), **choices)
    writers = {target: protected.writer(), account: writing.write_text(protected.manifest.to_json() + "\n")}
    writing.write_all(writers, force=force)
    if as_json:
        return print_json(protected.manifest.to_dict())
    show(*report.account_tables(protected.manifest), f"model: {target}", f"manifest: {account}")
    return None


@main.command()
@click.argument("protected", type=FILE)
@SEED
@click.option(
    "--trials",
    type=click.IntRange(1, 10_000),
    help="Write trials 0, 1, ... into a folder.  [default: trial 0, one file]",
)
@click.option("--decoded", is_flag=True, help="Write plain float weights, for any other tool.")
@OTHER_CHANNEL
@CHANGES
@click.option("-o", "--output", type=OUT, help="File, or with --trials folder.  [default: beside PROTECTED]")
@FORCE
def readback(
    protected: Path,
    seed: int,
    trials: int | None,
    decoded: bool,
    channel: str | None,
    output: Path | None,
    force: bool,
    **changes: Any,
) -> None:
    """Write PROTECTED as it reads from noisy cells: exactly the weights that `evaluate` uses in those trials.

    Example:

    \b
        onnx-analog readback model.protected.onnx --seed 0 --decoded
    """
    from onnx_analog import api, files, transactions, writing

    if trials is None:
        targets = [output or protected.with_name(f"{_stem(protected)}.readback.onnx")]
    else:
        folder = output or protected.with_name(f"{_stem(protected)}.readback")
        targets = [folder / f"trial-{trial:04}.onnx" for trial in range(trials)]
    read = chain(files.files_of(protected), [Path(channel)] if channel else [])
    perhaps = map(writing.data_beside, targets)
    writing.check_outputs(targets, read, force=force, perhaps=perhaps, new_folder=trials is not None)
    modifiers = modifiers_of(changes)
    models = api.readbacks(
        protected, seed=seed, trials=len(targets), channel=channel, modifiers=modifiers, decoded=decoded
    )
    with progress("reading noisy cells", len(targets)) as advance:

        def writer(path: Path) -> None:
            next(models).writer()(path)
            advance()

        if trials is None:
            writing.write_all(dict.fromkeys(targets, writer), force=force)
        else:
            with transactions.tidy_ends(), writing.new_folder(targets[0].parent):
                writing.write_all(dict.fromkeys(targets, writer), force=force)
    where = targets[0] if trials is None else targets[0].parent
    show(f"{len(targets)} model{'s' * (len(targets) > 1)}, seed {seed}: {where}")


@main.command()
@click.argument("protected", type=FILE)
@DATA
@click.option("--trials", type=click.IntRange(0), default=25, help="Each programs and reads the whole array once.")
@SEED
@click.option("--reference", type=FILE, help="The original model, to show what pruning cost.")
@OTHER_CHANNEL
@CHANGES
@PREPROCESSING
@RUNNING
@click.option(
    "--threads", type=click.IntRange(0, 1024), default=0, help="Within an operator; 0: as onnxruntime chooses."
)
@click.option("--at-least", type=Finite(), help="Exit 1 if the lower end of the interval, or the value, is below this.")
@click.option("--at-most", type=Finite(), help="Exit 1 if the upper end of the interval, or the value, is above this.")
@JSON
def evaluate(protected: Path, data: Path, trials: int, as_json: bool, **choices: Any) -> None:
    """Measure PROTECTED as its weights are read from noisy cells; a plain model is evaluated as it is.

    With labels, the metric is top-1 accuracy where an output holds scores of classes. Without labels, outputs are
    compared with those of the model without noise: by the class of the largest score, by equal values, or by the SQNR
    in dB. The first line names the metric.

    Example:

    \b
        onnx-analog evaluate model.protected.onnx --data test.npz --trials 25
    """
    from onnx_analog import api, report

    choices["modifiers"] = modifiers_of(choices)
    with progress("reading noisy cells", trials) as advance:
        found = api.evaluate(protected, data, trials=trials, progress=advance, **choices)
    if as_json:
        print_json(found.to_dict())
    else:
        show(report.evaluation_table(found))
    if found.holds is False:
        raise click.ClickException(str(found.verdict))


@main.command()
@click.argument("protected", type=FILE)
@click.option("--check", type=FILE, metavar="MANIFEST", help="Exit 1 unless this manifest describes PROTECTED.")
@JSON
def manifest(protected: Path, check: Path | None, as_json: bool) -> None:
    """Show what PROTECTED, a model or its manifest, stores where, and what it costs beside digital memory.

    Example:

    \b
        onnx-analog manifest model.protected.onnx
    """
    from onnx_analog import api, report
    from onnx_analog import manifest as manifests

    if protected.suffix == ".json":
        found = manifests.read(protected)
        if check is not None:
            raise ManifestError("--check compares a model with a manifest; this is a manifest")
    else:
        found = api.account(protected)
    if check is not None:
        manifests.read(check).compare(found)
    if as_json:
        return print_json(found.to_dict())
    show(*report.account_tables(found))
    if check is not None:
        show(f"{check} describes {protected}")
    return None


main.add_command(sweep)
main.add_command(channel)
