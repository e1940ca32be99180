"""Write README.md of a folder of trained networks from the facts beside each: python examples/list_models.py DIR.

Accuracies are on the whole test set, measured by the script that trained the network.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import click

from onnx_analog.cli.console import Command

HEAD = """# Trained networks

Written by `examples/list_models.py` from the JSON files, which say how each network was trained. Accuracy is top-1 on
the whole test set, without noise. The epoch is that of the best accuracy on 5,000 held-out training images.
`examples/paper.py` makes the paper's tables from these.

| network | parameters | test accuracy | epoch | trained by | sha256 |
|---|---|---|---|---|---|
"""


@click.command(cls=Command)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Write README.md of FOLDER."""
    path = folder / "README.md"
    path.write_text(text(folder), encoding="utf-8")
    print(path)


def text(folder: Path) -> str:
    """Return the page."""
    return HEAD + "".join(row(path) for path in sorted(folder.glob("*.json")))


def row(path: Path) -> str:
    facts = json.loads(path.read_text(encoding="utf-8"))
    digest = hashlib.sha256(path.with_suffix(".onnx").read_bytes()).hexdigest()
    if digest != facts["sha256"]:
        raise click.ClickException(f"{path.with_suffix('.onnx')} is not the network that {path} tells of")
    accuracy, epoch = f"{facts['test_accuracy']:.2%}", f"{facts['epoch']} of {facts['epochs']}"
    return f"| {path.stem} | {facts['parameters']:,} | {accuracy} | {epoch} | `{facts['command']}` | {digest[:16]}… |\n"


if __name__ == "__main__":
    main()
