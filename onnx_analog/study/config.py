"""Writes the options of a sweep as TOML, which `onnx-analog sweep --config` reads."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from onnx_analog.errors import OptionError
from onnx_analog.study.run_folder import CONFIG, is_text

IN_PYTHON = "given_in_python"  # the entry that names options whose values are objects of Python


def config_text(options: Mapping[str, Any]) -> str:
    """Return options as TOML; those that text cannot stand for are listed under `IN_PYTHON`.

    Raises
    ------
    OptionError
        If a name is not UTF-8.
    """
    import tomli_w

    plain: dict[str, Any] = {}
    objects: list[str] = []
    for name, value in options.items():
        if value is None:
            continue
        try:
            plain[name] = _plain(value)
        except TypeError:
            objects.append(name)
    text = tomli_w.dumps({**({IN_PYTHON: objects} if objects else {}), **plain})
    if not is_text(text):
        raise OptionError(f"a name is not UTF-8, and {CONFIG} cannot hold it: rename the file or folder")
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"an object of type {type(value).__name__}")
