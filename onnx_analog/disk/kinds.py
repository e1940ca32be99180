"""Tells the kind of a file from its first bytes, so that an error can name it in place of what cannot be parsed."""

from __future__ import annotations

import os
import re
from pathlib import Path

from onnx_analog.errors import AnalogError, of_content

MODEL = "an ONNX model"
NPZ = "an npz file of arrays"
PLAN = "a plan"
MANIFEST = "a manifest"
STATISTICS = "a file of the statistics of an array"
CHANNEL = "the JSON file of a channel"
SEARCH = "a file of measurements that tune keeps"
TOML = "a TOML file"
CSV = "a CSV table"
_JSON, _ZIP, _PYTORCH = "a JSON file", "a zip archive", "a PyTorch file"

FORMATS = {  # what the entry `format` of such a file begins with; a number follows
    PLAN: "onnx-analog-plan/",
    MANIFEST: "onnx-analog-manifest/",
    STATISTICS: "onnx-analog-array/",
    SEARCH: "onnx-analog tune ",
}

_START = 2**16  # bytes that are looked at
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]]', re.DOTALL)  # strings and brackets of JSON
_FORMAT = re.compile(rb'"format"\s*:\s*"([^"\d]+)')
_HEADING_AND_ROW = re.compile(rb"([^={}\[\]\x00-\x1f]+)\r?\n([^={}\[\]\x00-\x1f]+)\r?\n")
_OF_FORMAT = {beginning.encode(): kind for kind, beginning in FORMATS.items()}
_TEXTS = (  # of the first line that is no remark
    (re.compile(rb"\{\s*[\"}]"), _JSON),
    (re.compile(rb"(?i)<(!doctype html|html)"), "a web page"),
    (re.compile(rb"(?i)<(\?xml|svg)\b"), "an XML or SVG file"),
    (re.compile(rb"""[\w.-]+\s*=\s*["'\[{\dtf+-]|\[\[?[a-zA-Z_][\w.-]*\]\]?\s*$""", re.MULTILINE), TOML),
)
_BINARY = (
    (re.compile(rb"PK\x03\x04.{26}[^/]*/data\.pkl", re.DOTALL), _PYTORCH),
    (re.compile(rb"PK\x03\x04.{26}.{1,200}?\.npy", re.DOTALL), NPZ),
    (re.compile(rb"PK\x03\x04"), _ZIP),
    (re.compile(rb"\x93NUMPY"), "a single array (npy)"),
    (re.compile(rb"\x80[\x02-\x05]"), "a pickle of Python"),
    (re.compile(rb"\x89HDF"), "an HDF5 file"),
    (re.compile(rb".{4}TFL3", re.DOTALL), "a TFLite model"),
    (re.compile(rb"\x89PNG"), "a PNG picture"),
    (re.compile(rb"\xff\xd8\xff"), "a JPEG picture"),
    (re.compile(rb"%PDF"), "a PDF file"),
    (re.compile(rb"\x1f\x8b"), "a gzip file"),
    (re.compile(rb"\x08[\x01-\x20][\x12\x1a\x22\x28\x32\x3a\x42]"), MODEL),  # its version, and the field after it
)
_MAY_BE = {  # kinds that a file of a kind may look like
    NPZ: {_ZIP},
    CSV: {TOML},
    **{kind: {_JSON} for kind in (PLAN, MANIFEST, STATISTICS, CHANNEL, SEARCH)},
}
_REMEDIES = {
    NPZ: "numpy.savez(path, x=..., y=...) writes one",
    PLAN: "`tune` and `protect --save-plan` write one",
    MANIFEST: "`protect` writes one beside the model",
    STATISTICS: "`readback --statistics` writes one",
    CHANNEL: "`channel fit` writes one",
    TOML: "--save-config writes one",
}


def kind_of(start: bytes) -> str | None:
    r"""Return the kind of a file that begins with these bytes, in words; None if it is not recognised.

    Examples
    --------
    >>> kind_of(b"<!doctype html>"), kind_of(b"level,read\n0,0.1\n"), kind_of(b"hello")
    ('a web page', 'a CSV table', None)
    """
    binary = next((name for pattern, name in _BINARY if pattern.match(start)), None)
    if binary is not None:
        return binary
    text = re.sub(rb"\A(\xef\xbb\xbf)?(\s+|#[^\n]*(\n|\Z))*", b"", start)
    kind = next((name for pattern, name in _TEXTS if pattern.match(text)), None)
    if kind == _JSON:
        return _OF_FORMAT.get(_declared(text), kind)
    return CSV if kind is None and _is_table(text) else kind


def _declared(text: bytes) -> bytes:
    """Return the entry `format` of an object in JSON, without its number; empty if it has none of its own."""
    depth = 0
    for token in _TOKEN.finditer(text):  # of the start of a file, which `json` cannot parse
        depth += {b"{": 1, b"[": 1, b"}": -1, b"]": -1}.get(token[0], 0)
        entry = _FORMAT.match(text, token.start()) if depth == 1 else None
        if entry is not None:
            return entry[1]
    return b""


def _is_table(text: bytes) -> bool:
    """Return whether the first two lines have the same number of commas, at least one."""
    lines = _HEADING_AND_ROW.match(text)
    return lines is not None and lines[1].count(b",") == lines[2].count(b",") > 0


def found_in(path: str | os.PathLike[str]) -> str | None:
    """Return what a file is, as `kind_of` does; None also if it cannot be read, which is said where it is read."""
    try:
        with Path(path).open("rb") as file:
            return kind_of(file.read(_START))
    except OSError:
        return None


def mistaken(path: str | os.PathLike[str], needed: str) -> str | None:
    """Return what to say of a file that is plainly of another kind than is needed; None if it may be of that kind."""
    found = found_in(path)
    if found is None or found == needed or found in _MAY_BE.get(needed, ()):
        return None
    remedy = f": {_REMEDIES[needed]}" if needed in _REMEDIES else ""
    return f"{os.fspath(path)!r} is {found}, and {needed} is needed{remedy}"


def check(path: str | os.PathLike[str], needed: str, error: type[AnalogError]) -> None:
    """Raise an error about the content of a file if it is plainly of another kind than is needed."""
    message = mistaken(path, needed)
    if message is not None:
        raise of_content(error(message))
