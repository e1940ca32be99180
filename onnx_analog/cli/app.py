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

from onnx_analog.cli.channel import channel
from onnx_analog.cli.console import Finite, Fraction, Group, Whole, print_json, progress, show, watch
from onnx_analog.cli.options import (
    CHANGES,
    DATA,
    FILE,
    FORCE,
    JSON,
    OTHER_CHANNEL,
    OUT,
    OUT_OR_FOLDER,
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
from onnx_analog.cli.settings import options_of
from onnx_analog.cli.sweep import sweep
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import Paper, Scheme
from onnx_analog.errors import ManifestError, printable
from onnx_analog.settings import settings_of


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


def _shown(path: Path) -> str:
    """Return a path on one line: its name may hold the ends of lines."""
    return printable(str(path))


# ------------------------------------------------------------------------------------------------- commands


@main.command()
@click.option("--trials", type=Whole(1, 1000), default=10, help="Trials per point.")
@SEED
@click.option("--plot", type=OUT, default=PLOT, help="File for the plot.")
@FORCE
def demo(trials: int, seed: int, plot: Path, force: bool) -> None:
    """Show every step on a packaged network (LeNet on MNIST) and 1,000 packaged test images.

    Prunes it by 80 %, stores it in PCM cells with each strategy at 1, 3 and 10 cells per weight, reads it back, and
    reports accuracy and cost.

    Example:

    \b
        onnx-analog demo
    """
    from onnx_analog import demo as story_of
    from onnx_analog.cli import report
    from onnx_analog.disk import writing
    from onnx_analog.study.sweeps import sweep as sweep_of

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
        show(f"plot: {_shown(plot)}")
    show("Now the same on a model of your own:")
    click.echo(story_of.command(chosen))  # on one line, however narrow the terminal, to be copied


@main.command()
@click.argument("model", type=FILE)
@SELECTION
@JSON
def inspect(model: Path, include: tuple[str, ...], exclude: tuple[str, ...], min_size: int, as_json: bool) -> None:
    """Show which weights of MODEL would be stored, which would not, and why.

    Example:

    \b
        onnx-analog inspect model.onnx
    """
    from onnx_analog import api
    from onnx_analog.cli import report

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
@click.option("--sparsity", type=Fraction(open_end=True), required=True, help="Share of weights to set to zero.")
@PRUNE_SCOPE
@SELECTION
@click.option("-o", "--output", type=OUT, help="[default: MODEL with the suffix .pruned.onnx]")
@FORCE
def prune(model: Path, sparsity: float, prune_scope: str, output: Path | None, force: bool, **selection: Any) -> None:
    """Set the smallest weights of MODEL to zero.

    Example:

    \b
        onnx-analog prune model.onnx --sparsity 0.8
    """
    from onnx_analog import api
    from onnx_analog.disk import writing
    from onnx_analog.graph import files

    target = output or model.with_name(f"{_stem(model)}.pruned.onnx")
    perhaps = [writing.data_beside(target)]
    writing.check_outputs([target], files.files_of(model), force=force, perhaps=perhaps)
    pruned = api.prune(model, sparsity=sparsity, scope=prune_scope, selection=selection_of(**selection))
    pruned.save(target, force=force)
    show(f"{pruned}: {_shown(target)}")


@main.command()
@click.argument("model", type=FILE)
@options_of(Paper)
@SPARSITY
@PRUNE_SCOPE
@click.option(
    "--channel",
    shell_complete=channel_names,
    help="Model of the cells: a name, name:key=value,..., or a JSON file.  [default: pcm]",
)
@CHANGES
@options_of(Scheme, without=(*settings_of(Paper), "channel"), unset=True, complete={"side_channel": channel_names})
@click.option(
    "--digital", type=Whole(2, 8), metavar="BITS", help="Quantise to integers of this many bits, without analog cells."
)
@click.option("--plan", type=FILE, help="JSON file that says how each tensor is stored; see `onnx-analog plan`.")
@click.option("--save-plan", type=OUT, help="Also write how each tensor is stored to a JSON file, for --plan.")
@SELECTION
@click.option("-o", "--output", type=OUT, help="[default: MODEL with the suffix .protected.onnx]")
@click.option("--manifest", type=OUT, help="[default: the output with the suffix .manifest.json]")
@FORCE
@JSON
@click.pass_context
def protect(
    ctx: click.Context,
    /,
    model: Path,
    output: Path | None,
    manifest: Path | None,
    plan: Path | None,
    save_plan: Path | None,
    digital: int | None,
    force: bool,
    as_json: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    min_size: int,
    **choices: Any,
) -> None:
    """Store MODEL's weights in noisy analog cells; without noise the new model computes the same.

    Example:

    \b
        onnx-analog protect model.onnx --cells-small 1 --cells-large 20
    """
    from onnx_analog import api
    from onnx_analog.cli import report
    from onnx_analog.disk import writing
    from onnx_analog.graph import files

    target = output or model.with_name(f"{model.name.removesuffix('.onnx')}.protected.onnx")
    account = manifest or target.parent / f"{_stem(target)}.manifest.json"
    outputs = [target, account, *([save_plan] if save_plan else [])]
    named = [Path(name) for name in (choices["channel"], choices["side_channel"], plan) if name]  # each may be a file
    writing.check_outputs(
        outputs, chain(files.files_of(model), named), force=force, perhaps=[writing.data_beside(target)]
    )
    protected = api.protect(
        model,
        _plan(ctx, plan, digital),
        selection=selection_of(include, exclude, min_size),
        command=printable(shlex.join(["onnx-analog", *sys.argv[1:]])),  # a name may be no text
        modifiers=modifiers_of(choices),
        **{name: value for name, value in choices.items() if value is not None},
    )
    writers = {target: protected.writer(), account: writing.write_text(protected.manifest.to_json() + "\n")}
    if save_plan:
        writers[save_plan] = writing.write_text(protected.plan.to_json())
    writing.write_all(writers, force=force)
    if as_json:
        return print_json(protected.manifest.to_dict())
    show(*report.account_tables(protected.manifest), f"model: {_shown(target)}", f"manifest: {_shown(account)}")
    return None


def _plan(ctx: click.Context, path: Path | None, digital: int | None) -> Plan | Scheme | None:
    """Return the plan that is read from a file, or the scheme of digital quantisation; None if neither is asked for.

    What says the same in another way may then not be given.
    """
    if path is None and digital is None:
        return None
    option = "--plan" if path is not None else "--digital"
    others = {*settings_of(Paper), "channel", *(["digital"] if path is not None else [])}
    if digital is not None:
        others |= {"sign", "classes", "partition", "cells", "shares", "bounds"}
    if digital is not None and path is None:
        others -= {"granularity", "channel"}
    for name in others:
        if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{option} and --{name.replace('_', '-')} exclude each other")
    if path is not None:
        return Plan.read(path)
    return Scheme.integers(digital or 8)


@main.command()
@click.argument("protected", type=FILE)
@SEED
@click.option(
    "--trials",
    type=Whole(1, 10_000),
    help="Write this many trials into a folder.  [default: one file, of trial 0]",
)
@click.option("--decoded", is_flag=True, help="Write ordinary float weights, for other tools.")
@OTHER_CHANNEL
@CHANGES
@click.option("-o", "--output", type=OUT_OR_FOLDER, help="File, or folder with --trials.  [default: beside PROTECTED]")
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
    """Write PROTECTED as read from noisy cells, with exactly the weights that `evaluate` uses in those trials.

    Example:

    \b
        onnx-analog readback model.protected.onnx --seed 0 --decoded
    """
    from onnx_analog import api
    from onnx_analog.disk import transactions, writing
    from onnx_analog.graph import files

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
    show(f"{len(targets)} model{'s' * (len(targets) > 1)}, seed {seed}: {_shown(where)}")


@main.command()
@click.argument("protected", type=FILE)
@DATA
@click.option("--trials", type=Whole(0, 1_000_000), default=25, help="Times the array is programmed and read.")
@SEED
@click.option("--reference", type=FILE, help="The original model, to report the loss by pruning.")
@OTHER_CHANNEL
@CHANGES
@PREPROCESSING
@RUNNING
@click.option("--threads", type=Whole(0, 1024), default=0, help="Threads per operator; 0: chosen by onnxruntime.")
@click.option("--at-least", type=Finite(), help="Exit 1 unless the interval's lower end (or the value) is this high.")
@click.option("--at-most", type=Finite(), help="Exit 1 unless the interval's upper end (or the value) is this low.")
@JSON
def evaluate(protected: Path, data: Path, trials: int, as_json: bool, **choices: Any) -> None:
    """Evaluate PROTECTED as read from noisy cells, or a plain model as it is.

    With labels, and class scores as the first output, the metric is top-1 accuracy. Otherwise outputs are compared with
    those of the model without noise, by class, by value or by SQNR in dB. The first line names the metric.

    Example:

    \b
        onnx-analog evaluate model.protected.onnx --data test.npz --trials 25
    """
    from onnx_analog import api
    from onnx_analog.cli import report

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
    """Show the cells of PROTECTED, a model or its manifest, and their cost compared with digital memory.

    Example:

    \b
        onnx-analog manifest model.protected.onnx
    """
    from onnx_analog import api
    from onnx_analog.cli import report
    from onnx_analog.graph import manifest as manifests

    if protected.suffix == ".json":
        found = manifests.read(protected)
        if check is not None:
            raise ManifestError(f"{str(protected)!r} is a manifest, and --check needs the model as PROTECTED")
    else:
        found = api.account(protected)
    if check is not None:
        manifests.read(check).compare(found)
    if as_json:
        return print_json(found.to_dict())
    show(*report.account_tables(found))
    if check is not None:
        show(f"{_shown(check)} describes {_shown(protected)}")
    return None


main.add_command(sweep)
main.add_command(channel)
