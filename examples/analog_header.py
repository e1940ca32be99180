"""What it costs when sign and class bits are analog too: a Markdown table.

    python examples/analog_header.py resnet20-cifar10.onnx --data cifar10-test.npz \
        --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --out docs/results/header.md

The paper takes these bits to be free of error, at 2 bits in one cell. Here each row stores them in the same memory.
"""

from __future__ import annotations

from pathlib import Path

import click
from compare import load_images

import onnx_analog as oa
from onnx_analog.cli.console import Command
from onnx_analog.graph.stored import Protection

ROWS = (  # channel, bits per cell, reads, copies
    ("pcm", 2, None, None),
    ("pcm", 2, 1, 1),
    ("pcm", 2, 5, 1),
    ("pcm", 2, 20, 1),
    ("pcm", 2, 1, 5),
    ("pcm", 1, 1, 1),
    ("pcm-partial-reset", 2, None, None),
    ("pcm-partial-reset", 2, 1, 1),
    ("pcm-partial-reset", 2, 5, 1),
)


@click.command(cls=Command)
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--data", "npz", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--mean", default="0")
@click.option("--std", default="1")
@click.option("--samples", type=int, default=2000)
@click.option("--trials", type=int, default=10)
@click.option("--cells", type=int, default=10)
@click.option("--out", type=click.Path(path_type=Path), default=Path("docs/results/header.md"))
def main(model: Path, npz: Path, mean: str, std: str, samples: int, trials: int, cells: int, out: Path) -> None:
    """Evaluate one code with headers of different quality."""
    images = load_images(model, npz, mean, std, samples)
    columns = "channel | bits per header cell | header cells per symbol | bit errors | all-in cells per weight"
    lines = [
        f"{model.name}, {samples:,} images, {trials} trials, strategy mapping with {cells} cells a level.",
        "",
        f"| {columns} | accuracy, % |",
        "|---|---|---|---|---|---|",
    ]
    for channel, bits, reads, copies in ROWS:
        protected = oa.protect(
            model, strategy="mapping", cells_small=cells, channel=channel, bits_per_cell=bits,
            header_channel=None if reads is None else channel, header_reads=reads or 1, header_copies=copies or 1,
        )  # fmt: skip
        header = Protection.of(protected.model).header
        found = oa.evaluate(protected.model, images, trials=trials)
        assert found.mean is not None
        how = "free of error" if header is None else f"{reads} read{'s' * (reads != 1)} × {copies}"
        errors = "0" if header is None else f"{header.bit_error:.2%}" + (" before the vote" if copies != 1 else "")
        cost = protected.manifest.totals.ratios()["all_in_cells_per_original_weight"]
        between = "no interval" if found.ci95 is None else "{:.2f} to {:.2f}".format(*(100 * end for end in found.ci95))
        accuracy = f"{100 * found.mean:.2f} ({between})"
        lines.append(f"| {channel} | {bits} | {how} | {errors} | {cost:.2f} | {accuracy} |")
        print(lines[-1], flush=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
