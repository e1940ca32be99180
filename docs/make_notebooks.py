"""Run the notebooks of docs/notebooks in place, so that they show what the package prints and draws today.

python docs/make_notebooks.py
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parent / "notebooks"


def run(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with the outputs of a run in a folder of its own, without times."""
    book = nbformat.read(path, as_version=4)
    with TemporaryDirectory() as folder:
        NotebookClient(book, resources={"metadata": {"path": folder}}, timeout=600).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)
    book.metadata.get("language_info", {}).pop("version", None)
    return book


if __name__ == "__main__":
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        nbformat.write(run(path), path)
