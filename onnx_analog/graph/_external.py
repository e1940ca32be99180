"""Finds the data of tensors that lie in files beside a model."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import onnx

from onnx_analog.disk import reading
from onnx_analog.errors import ModelError
from onnx_analog.graph._model_text import Fault


@dataclass(frozen=True)
class External:
    """Where the data of a tensor lie, all of it checked."""

    file: Path
    offset: int
    length: int


class Folder:
    """The files beside a model that its tensors may lie in."""

    def __init__(self, model: Path | None) -> None:
        self._model = model
        self._sizes: dict[str, tuple[Path, int]] = {}
        if model is not None:
            real = model.resolve()  # a link in a hub's cache, whose data lie beside what it leads to
            self._roots = (model.parent.resolve(), real.parent)

    def external(self, tensor: onnx.TensorProto, needed: int) -> External:
        """Return where the data of `tensor` lie, of which `needed` bytes must be there."""
        entries = _entries(tensor)
        location, name = entries.get("location", ""), tensor.name
        if self._model is None:
            raise Fault(f"tensor {name!r} is in another file: give the model's path, or load its data first")
        if location not in self._sizes:
            self._sizes[location] = self._find(location, name)
        file, size = self._sizes[location]
        offset = _whole(entries.get("offset", "0"), "offset", name)
        length = _whole(entries.get("length", "0"), "length", name) or needed
        if length != needed:
            raise Fault(f"tensor {name!r} takes {needed:,} bytes, and its length is given as {length:,}. Export again.")
        if size < offset + length:
            raise Fault(self._kept(name, location, "which is too short for it. Copy or download it again."))
        return External(file, offset, length)

    def _find(self, location: str, name: str) -> tuple[Path, int]:
        assert self._model is not None
        if not location or "\0" in location:
            raise Fault(f"tensor {name!r} lies in another file that is not named. Export the model again.")
        beside = self._model.parent / location
        inside = os.path.normpath(location)
        if Path(location).is_absolute() or inside == os.pardir or inside.startswith(os.pardir + os.sep):
            raise Fault(
                f"tensor {name!r} lies outside the model's folder, in {location!r}. Export the model again, with its "
                "data beside it."
            )
        real = Path(os.path.realpath(beside))
        if not any(real.is_relative_to(root) for root in self._roots):
            raise Fault(
                f"tensor {name!r} lies outside the model's folder: {location!r} is a link, and onnxruntime does not "
                "follow it. Copy the folder first: cp -rL."
            )
        if not os.path.lexists(beside):
            raise Fault(self._kept(name, location, "which is not there. Put it beside the model."))
        return real, reading.size_of(real, error=ModelError)

    def _kept(self, name: str, location: str, what: str) -> str:
        return f"keeps tensor {name!r} in {Path(location).name!r}, {what}"


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    entries: dict[str, str] = {}
    for entry in tensor.external_data:
        if entry.key in entries:
            raise Fault(f"tensor {tensor.name!r} says twice what the {entry.key} of its data is. Export again.")
        entries[entry.key] = entry.value
    return entries


def _whole(text: str, what: str, name: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Fault(f"tensor {name!r} lies in another file, and its {what} is {text!r}, no number of bytes")
    return int(text)
