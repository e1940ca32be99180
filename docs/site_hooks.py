"""What mkdocs.yml needs beside docs/: files of the repository that pages link to, and the reference of the library."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import onnx_analog as oa

ROOT = Path(__file__).parent.parent
BESIDE = (
    "CONTRIBUTING.md", "CHANGELOG.md", "examples/models/README.md", "onnx_analog/coding/plan.schema.json",
    "onnx_analog/graph/manifest.schema.json",
)  # fmt: skip
PYTHON = "reference/python.md"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add what pages link to outside docs/, in the same place below the site's root, and the library's reference."""
    for path in BESIDE:
        files.append(File.generated(config, path, content=(ROOT / path).read_text(encoding="utf-8")))
    files.append(File.generated(config, PYTHON, content=reference()))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs calls it with all of them
    """Make links out of docs/, or into it, links of the site, whose root holds both."""
    if page.file.src_uri in BESIDE:
        return re.sub(r"\]\(docs/", "](", markdown)
    return re.sub(r"\]\(\.\./(?=" + "|".join(map(re.escape, BESIDE)) + r")", "](", markdown)


def reference() -> str:
    """Return the page of the library: each public name with its docstring, functions first."""
    parts: dict[str, list[str]] = {"Functions": [], "Classes": [], "Errors": []}
    for name in oa.__all__:
        thing: Any = getattr(oa, name)
        if isinstance(thing, type):
            parts["Errors" if issubclass(thing, Exception) else "Classes"].append(_entry(name, thing))
        elif callable(thing):
            parts["Functions"].append(_entry(name, thing))
    body = "\n\n".join(f"## {title}\n\n" + "\n\n".join(entries) for title, entries in parts.items())
    return f"# Python\n\n`import onnx_analog as oa` has these names.\n\n{body}\n"


def _entry(name: str, thing: Any) -> str:
    return (
        f"::: {thing.__module__}.{thing.__qualname__}\n    options:\n      heading: oa.{name}\n      toc_label: {name}"
    )
