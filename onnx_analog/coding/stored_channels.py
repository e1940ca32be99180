"""Channels as schemes and plans keep them: without what they do not use, and in files by name.

A file names an installed channel by its name, "pcm", or by an object with its name and the fields that differ:
{"name": "pcm", "cells_on": "same"}. All other channels are written with their family and all their fields.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from onnx_analog.errors import ChannelError, located

if TYPE_CHECKING:
    from onnx_analog.channels import Channel

_OWN = "onnx_analog."  # modules of this package: a channel of another one may change with its version
_DEPTH = 8  # of channels in each other


@lru_cache(maxsize=64)
def channel_digest(channel: Channel) -> str:
    """Return the SHA-256 of a channel's family and fields, as hex."""
    return hashlib.sha256(json.dumps(channel.to_dict(), sort_keys=True).encode()).hexdigest()


@lru_cache(maxsize=64)
def without_unused(channel: Channel) -> Channel:
    """Return the channel as a file keeps it: equal before and after it was written."""
    from onnx_analog import channels

    body = channel.to_dict()
    kept = without_residuals(body)
    return channel if kept == body else channels.from_dict(kept)


def without_residuals(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a channel's fields without samples of noise that it does not draw from."""
    draws = body.get("family") == "empirical"
    kept = {name: value for name, value in body.items() if name != "residuals"}
    inner = {name: value for name, value in kept.items() if isinstance(value, Mapping)}
    return {**kept, **{name: dict(value) if draws else without_residuals(value) for name, value in inner.items()}}


# ------------------------------------------------------------------------------------------------------- in files


def by_name(body: Mapping[str, Any]) -> str | dict[str, Any]:
    """Return the fields of a channel as a file has them: the name of an installed channel, and what differs from it."""
    name, fields = _installed_like(body)
    if name is None:
        return {key: _inner_by_name(value) for key, value in body.items()}
    differing = {key: value for key, value in body.items() if fields[key] != value}
    return {"name": name, **differing} if differing else name


def _inner_by_name(value: Any) -> Any:
    if not (isinstance(value, Mapping) and "family" in value):
        return value
    named = by_name(value)
    return {"name": named} if isinstance(named, str) else named


def _installed_like(body: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any]]:
    """Return the installed channel that has these fields, but for a few plain ones, and its fields; else None."""
    for name in (body.get("name"), body.get("family")):
        for fields in _fields_of(name) if isinstance(name, str) else ():
            if fields.keys() == body.keys() and all(
                fields[key] == value or isinstance(value, int | float | str | None) for key, value in body.items()
            ):
                return name, fields
    return None, {}


@lru_cache(maxsize=16)
def _fields_of(name: str) -> tuple[Mapping[str, Any], ...]:
    """Return the fields of an installed channel of this package, with and without residuals; empty if there is none."""
    from onnx_analog import channels

    entry = channels.available().get(name)
    if entry is None or not entry.value.startswith(_OWN):
        return ()
    try:
        fields = channels.installed(name).to_dict()
    except ChannelError:  # it takes options
        return ()
    return fields, without_residuals(fields)


def from_file(value: Any, field: str) -> Any:
    """Return the channel that a file describes in one of its fields; what is no channel is returned as it is.

    Raises
    ------
    ChannelError
        If there is no such channel, or not with these fields. A file imports nothing, and names no other file.
    """
    from onnx_analog import channels

    try:
        if isinstance(value, str):
            return channels.installed(value)
        return channels.from_dict(_expanded(value, _DEPTH)) if isinstance(value, Mapping) else value
    except ChannelError as error:
        raise located(error, field) from error


def _expanded(body: Mapping[str, Any], levels: int) -> dict[str, Any]:
    """Return the fields of a channel with the names of installed channels replaced by their fields."""
    from onnx_analog import channels

    if not levels:
        raise ChannelError(f"channels are nested more than {_DEPTH} deep")
    if "family" not in body and isinstance(body.get("name"), str):
        name = body["name"]
        return {**channels.installed(name).to_dict(), **{key: value for key, value in body.items() if key != "name"}}
    return {key: _expanded(value, levels - 1) if isinstance(value, Mapping) else value for key, value in body.items()}
