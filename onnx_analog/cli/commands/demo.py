"""The command `demo`: every step on a packaged network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from onnx_analog.cli.console import Command
from onnx_analog.cli.options import FORCE, JSON, OUT, OUT_OR_FOLDER, SEED, shown
from onnx_analog.cli.printing import print_json, show, writing_stdout
from onnx_analog.cli.progress import status, watch
from onnx_analog.cli.types import Whole
from onnx_analog.display import percent

PLOT = Path("onnx-analog-demo.png")


@click.command(cls=Command)
@click.option("--trials", type=Whole(1, 1000), default=10, help="Trials per point.")
@SEED
@click.option("--plot", type=OUT, default=PLOT, help="File for the plot.")
@click.option(
    "--copy",
    "folder",
    type=OUT_OR_FOLDER,
    help="Only copy the network and its test images into a folder, as model.onnx and test.npz.",
)
@FORCE
@JSON
@click.pass_context
def command(
    ctx: click.Context, /, trials: int, seed: int, plot: Path, folder: Path | None, force: bool, as_json: bool
) -> None:
    """Run every step on a packaged network (LeNet on MNIST).

    The demo prunes the network by 80 %, stores it in PCM cells with each strategy at 1, 3 and 10 cells per weight, and
    reads it back. It reports accuracy on 1,000 packaged test images, and cost. At the end it looks for the cheapest
    plan.

    Example:

    \b
        onnx-analog demo
        onnx-analog demo --copy .
    """
    from onnx_analog import demo as story_of
    from onnx_analog import plots
    from onnx_analog.cli import model_tables, report
    from onnx_analog.disk import writing
    from onnx_analog.study.sweeps import sweep as sweep_of

    if folder is not None:
        _check_alone(ctx)
        copies = {"model": folder / "model.onnx", "data": folder / "test.npz"}
        story_of.copy(*copies.values(), force=force)
        if as_json:
            return print_json({name: str(path) for name, path in copies.items()})
        return show("\n".join(f"{name}: {shown(path)}" for name, path in copies.items()))

    def say(*things: Any) -> None:
        if not as_json:
            show(*things)

    if not plots.can_plot():
        say(plots.NO_PLOTS)
    if plots.can_plot():
        plots.check_plot(plot)
        force = force or plot == PLOT  # what an earlier demo left
        writing.check_outputs([plot], [story_of.MODEL], force=force)
    story = story_of.begin()
    say(
        f"LeNet classifies {percent(story.accuracy, 1)} of {len(story.data):,} MNIST test images correctly, and "
        f"{percent(story.accuracy_pruned, 1)} after {percent(story_of.SPARSITY)} of its weights are pruned. The "
        "remaining weights are now stored in PCM cells, and every read of a cell is noisy.\n"
    )
    plan = story_of.plan(story, story_of.grid(seed=seed), trials=trials)
    with watch("reading noisy cells") as update:
        points = list(sweep_of(plan, progress=update))
    say(f"Each strategy adds a step to the one before it. {story_of.steps()}.\n", *report.points_tables(points))
    chosen = story_of.choice(points)
    why = (
        "The cheapest point that is as good as the best, within the noise"
        if trials > 1
        else "The best point; with a single trial, its lead may be chance"
    )
    say(
        f"{why}: {report.choice_text(chosen)}. It costs:\n",
        *model_tables.account_tables(story_of.protect(story, chosen).manifest),
    )
    (channel_,) = plan.grid.channels
    say(f"channel {channel_}: {channel_.source}")
    if plots.can_plot():
        writing.write_all({plot: plots.plot_points(points)}, force=force)
        say(f"plot: {shown(plot)}")
    with status("tune") as progress:
        tuned = story_of.cheapest_plan(seed=seed, progress=progress)
    say(story_of.tuned_text(tuned) + "\n")
    if as_json:
        return print_json(
            {
                "accuracy": story.accuracy,
                "accuracy_pruned": story.accuracy_pruned,
                "points": [point.to_dict() for point in points],
                "chosen": chosen.to_dict(),
                "command": story_of.command(chosen),
                "tuned": tuned.to_dict(),
                "plot": str(plot) if plots.can_plot() else None,
            }
        )
    say("To store a model of your own in the same way:")
    with writing_stdout():
        click.echo(story_of.command(chosen), file=sys.stdout)  # on one line, however narrow the terminal, to be copied
    return None


def _check_alone(ctx: click.Context) -> None:
    """Raise a usage error if an option is given that only the demo itself has a use for."""
    for param in ctx.command.params:
        given = ctx.get_parameter_source(str(param.name)) is not click.core.ParameterSource.DEFAULT
        if given and param.name in ("trials", "seed", "plot"):
            raise click.UsageError(f"--copy only copies: leave {param.opts[0]} out", ctx)
