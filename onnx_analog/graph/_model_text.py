"""Checks the text in a model's file, and says what is wrong with the file."""

from __future__ import annotations

from typing import Any

import onnx


class Fault(ValueError):  # noqa: N818 - of the model, and not of the program
    """What is wrong with a model, without its name."""


class NotText(Exception):  # noqa: N818 - it may be repaired
    """Some text in a model is not UTF-8."""


def check_text(message: Any, *names: object) -> None:
    """Raise `NotText` if a name of `message`, or what describes it, is not UTF-8: protobuf gives it as bytes then."""
    if isinstance(message.doc_string, bytes) or any(isinstance(name, bytes) for name in names):
        raise NotText
    for entry in getattr(message, "metadata_props", ()):
        if isinstance(entry.key, bytes) or isinstance(entry.value, bytes):
            raise NotText


def repair_text(model: onnx.ModelProto) -> None:
    """Replace what is not UTF-8 in descriptions, as onnxruntime does not read them; refuse it in anything else.

    Raises
    ------
    Fault
        If a name, or another text that has a meaning, is not UTF-8.
    """
    waiting: list[tuple[str, Any]] = [("the model", model)]
    while waiting:
        where, message = waiting.pop()
        for part in message.DESCRIPTOR.fields:
            if part.message_type is None:
                _repair_field(message, part, where)
                continue
            value = getattr(message, part.name)
            if part.is_repeated:
                waiting += [(f"{where}, {part.name} {index}", inner) for index, inner in enumerate(value)]
            elif message.HasField(part.name):
                waiting.append((f"{where}, {part.name}", value))


def _repair_field(message: Any, part: Any, where: str) -> None:
    if part.type not in (part.TYPE_STRING, part.TYPE_BYTES) or part.name in ("raw_data", "string_data", "s"):
        return
    value = getattr(message, part.name)
    for text in value if part.is_repeated else [value]:
        if isinstance(text, bytes) and not _is_utf8(text):
            if part.name != "doc_string":
                raise Fault(f"{where}: its {part.name} is not UTF-8 text: {text[:40]!r}. Rename it.")
            message.doc_string = text.decode(errors="replace")


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True
