"""Reads manifests from JSON, and checks that each agrees with itself."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from onnx_analog import serialise
from onnx_analog.coding.masks import SEED_BITS
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import codebook_bits, streams_from
from onnx_analog.disk import transactions
from onnx_analog.disk.kinds import MANIFEST
from onnx_analog.disk.reading import MIB, read_text
from onnx_analog.errors import IMPORT_FIRST, AnalogError, ManifestError, require_path
from onnx_analog.graph._cells import addresses, cells_of, plane_bits
from onnx_analog.graph._model_tensors import MOST_AXES
from onnx_analog.graph.manifest import FORMAT, PLANES, ClassEntry, Manifest, TensorEntry
from onnx_analog.graph.stored import AGAIN, scheme_of
from onnx_analog.graph.weights import FLOATS

MOST_BYTES = 32 * MIB  # of a manifest's file: some 20,000 tensors
MOST_WEIGHTS = 2**40  # of a tensor


def from_json(text: str) -> Manifest:
    """Return the manifest in `text`.

    It must agree with itself: counts, bounds and digests can be so, every cell has one address and no other, and totals
    and baselines follow from the tensors. A tensor has at most 2^40 weights and 64 axes.

    Raises
    ------
    ManifestError
        If it is not a manifest, does not agree with itself, or is of a format that this version cannot read.
    """
    try:
        body = serialise.parse(text)
        if not isinstance(body, dict):
            raise ManifestError("this is not a manifest: it is not a JSON object")
        if body["format"] != FORMAT:
            raise ManifestError(
                f"the manifest has format {body['format']!r}, and this version reads {FORMAT!r}. {AGAIN}"
            )
        for name, kind in (("schemes", list), ("tensors", list), ("baselines", list), ("totals", dict)):
            if not isinstance(body[name], kind):
                raise ManifestError(
                    f"{name} is {json.dumps(body[name])[:40]} in the manifest, which is not a valid value"
                )
        if not all(isinstance(entry, dict) for entry in [*body["tensors"], *body["baselines"]]):
            raise ManifestError(
                "tensors and baselines are lists of objects in a manifest; here they hold something else"
            )
        if len(body["schemes"]) > max(1, len(body["tensors"])):
            raise ManifestError(
                f"the manifest lists {len(body['schemes']):,} schemes, more than its {len(body['tensors']):,} tensors"
            )
        manifest = Manifest(
            schemes=tuple(_scheme(number, scheme) for number, scheme in enumerate(body["schemes"])),
            source_sha256=body["source_sha256"],
            command=body["command"],
            tensors=tuple(_entry_from(entry) for entry in body["tensors"]),
        )
        _check(manifest)
        _check_assumptions(manifest, body.get("assumptions", []))
        _check_follows(manifest.totals.to_dict(), body["totals"], "totals")
        _check_honest(manifest, body["honest"])
        _check_baselines(manifest, body["baselines"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, ManifestError):
            raise
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ManifestError(f"this is not a manifest: {reason}") from error
    return manifest


def read(path: Path) -> Manifest:
    """Return the manifest in a JSON file of at most 32 MiB; raises `ManifestError` as `from_json` does."""
    path = require_path("path", path)
    transactions.check_whole(path, error=ManifestError)
    text = read_text(path, limit=MOST_BYTES, error=ManifestError, kind=MANIFEST)
    try:
        return from_json(text)
    except ManifestError as error:
        remedy = (
            ""
            if str(error).endswith(AGAIN) or IMPORT_FIRST in str(error)
            else ". Write it again from the protected model."
        )
        raise ManifestError(f"{str(path)!r}: {error}{remedy}") from error


def _scheme(number: int, body: Any) -> Scheme:
    try:
        return scheme_of(body)
    except AnalogError as error:
        raise ManifestError(f"scheme {number} of the manifest is not valid: {error}") from error


def _entry_from(body: Mapping[str, Any]) -> TensorEntry:
    known = _known(TensorEntry, body)
    classes = tuple(_classes_from(known["classes"]))
    cells = {plane: _range(known["cells"][plane]) for plane in PLANES}
    return TensorEntry(**{**known, "classes": classes, "cells": cells, "shape": tuple(known["shape"])})


def _classes_from(body: Sequence[Mapping[str, Any]]) -> Iterator[ClassEntry]:
    """Yield the classes of a tensor; they are checked field by field, which is fast for many."""
    columns = []
    for name, hint in serialise.hints_of(ClassEntry).items():
        column = [entry[name] for entry in body]
        if not _are_of(column, hint):
            _known(ClassEntry, next(entry for entry in body if not _is_of(entry[name], hint)))
        columns.append(column)
    return map(ClassEntry, *columns)


def _are_of(values: Sequence[Any], hint: Any) -> bool:
    """Return whether `_is_of` is true of all values."""
    types = set(map(type, values))
    if hint is int and types <= {int}:
        return min(values, default=0) >= 0
    if hint == float | None and types <= {float, int, NoneType}:
        return True
    return all(_is_of(value, hint) for value in values)


def _range(ends: Any) -> tuple[int, int]:
    if not (isinstance(ends, list) and len(ends) == 2 and all(_is_of(end, int) for end in ends)):
        raise ManifestError(f"a range of cells is {json.dumps(ends)[:40]} in the manifest, which is not a valid value")
    return ends[0], ends[1]


def _known(cls: type, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `body` that this version knows."""
    hints = serialise.hints_of(cls)
    known = {name: body[name] for name in hints}
    for name, value in known.items():
        if not _is_of(value, hints[name]):
            raise ManifestError(f"{name} is {json.dumps(value)[:40]} in the manifest, which is not a valid value")
    return known


def _is_of(value: Any, hint: Any) -> bool:
    """Return whether a JSON value may stand for a field of this type; counts are not negative."""
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    if hint == float | None:
        return value is None or _is_of(value, float)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint in (str, bool):
        return isinstance(value, hint)
    if hint == str | None:
        return value is None or isinstance(value, str)
    kind = get_origin(hint)
    if kind is Mapping and get_args(hint)[1] in (int, str):
        return isinstance(value, Mapping) and all(_is_of(entry, get_args(hint)[1]) for entry in value.values())
    return kind is None or kind in (UnionType, Union) or isinstance(value, Mapping if kind is Mapping else list)


# ------------------------------------------------------------------------------------------------- agreement

_HEX = re.compile("[0-9a-f]{64}")


def _check(manifest: Manifest) -> None:
    """Raise `ManifestError` unless what the manifest says can be so."""
    for name, text in (("source_sha256", manifest.source_sha256), ("command", manifest.command)):
        if not _is_of(text, str | None) or (name == "source_sha256" and text and not _HEX.fullmatch(text)):
            raise ManifestError(f"{name} is {json.dumps(text)[:40]} in the manifest, which is not a valid value")
    if not manifest.schemes or not manifest.tensors:
        raise ManifestError("the manifest lists no tensor, or no scheme")
    key, count = Counter(entry.key for entry in manifest.tensors).most_common(1)[0]
    if count > 1:
        raise ManifestError(f"the manifest lists {count:,} tensors of the key {key!r}")
    for entry in manifest.tensors:
        if entry.scheme >= len(manifest.schemes):
            raise ManifestError(f"tensor {entry.key!r} has scheme {entry.scheme}, which the manifest does not list")
        for contradiction in _contradictions(entry, manifest.schemes[entry.scheme]):
            raise ManifestError(f"tensor {entry.key!r} contradicts itself in the manifest: {contradiction}")
    _check_codebooks(manifest)
    _check_addresses(manifest)


def _contradictions(entry: TensorEntry, scheme: Scheme) -> Iterator[str]:
    """Yield each contradiction in the entry of a tensor."""
    if len(entry.shape) > MOST_AXES or not all(_is_of(side, int) for side in entry.shape):
        yield f"a shape has up to {MOST_AXES} whole numbers"
    elif math.prod(entry.shape) != entry.original:
        yield f"shape {entry.shape} is not of {entry.original:,} weights"
    if not 1 <= entry.stored <= entry.original <= MOST_WEIGHTS:
        yield f"{entry.stored:,} of {entry.original:,} weights are stored"
    if entry.dtype not in {dtype.name for dtype in FLOATS}:
        yield f"{entry.dtype!r} is no float type"
    if entry.groups != 1 and (scheme.granularity != "channel" or entry.groups not in entry.shape):
        yield f"it has {entry.groups:,} groups"
    if len(entry.classes) != scheme.classes:
        yield f"{len(entry.classes)} classes of {scheme.classes}"
    elif sum(each.count for each in entry.classes) != entry.stored:
        yield f"classes do not hold {entry.stored:,} weights"
    elif tuple(each.cells for each in entry.classes) != scheme.cells_of_class:
        yield f"its cells per weight are not those of its scheme, {scheme.cells}"
    yield from _wrong_bounds(entry)
    if entry.mask_bitmap_bits != entry.original and (entry.mask_bitmap_bits or entry.stored < entry.original):
        yield f"mask_bitmap_bits is {entry.mask_bitmap_bits:,}"
    planes = {"level": scheme.analog != "none", "mask": entry.mask_bitmap_bits > 0, "sign": scheme.sign == "bit"}
    planes |= {"class": scheme.classes > 1, **dict.fromkeys(("alpha", "beta", "stride"), entry.groups > 1)}
    if {plane for plane, there in planes.items() if there} != set(entry.sha256):
        yield f"it has digests of {', '.join(entry.sha256) or 'nothing'}"
    if not all(isinstance(digest, str) and _HEX.fullmatch(digest) for digest in entry.sha256.values()):
        yield "a digest is no SHA-256"


def _wrong_bounds(entry: TensorEntry) -> Iterator[str]:
    for each in entry.classes:
        numbers = (each.low, each.high, each.alpha, each.beta)
        if entry.groups > 1:
            if numbers != (None,) * 4:
                yield "a class has one scale, though each output channel has its own"
        elif None in numbers or not (each.alpha > 0 and each.low <= each.high):  # type: ignore[operator]  # not None
            yield f"alpha {each.alpha}, {each.low} to {each.high} is no class"


def _check_codebooks(manifest: Manifest) -> None:
    first: dict[int, TensorEntry] = {}
    for entry in manifest.tensors:
        if manifest.schemes[entry.scheme].granularity == "model":
            other = first.setdefault(entry.scheme, entry)
            if [(c.low, c.high, c.alpha, c.beta) for c in entry.classes] != [
                (c.low, c.high, c.alpha, c.beta) for c in other.classes
            ]:
                raise ManifestError(
                    f"tensor {entry.key!r} has other classes in the manifest than {other.key!r}, though all share them"
                )


def _check_addresses(manifest: Manifest) -> None:
    address, owned = 0, set[int]()
    for entry in manifest.tensors:
        scheme = manifest.schemes[entry.scheme]
        owns = scheme.granularity != "model" or entry.scheme not in owned
        owned.add(entry.scheme)
        codebook = scheme.table_bits + (codebook_bits(scheme, entry.groups) if owns else 0)
        _check_streams(entry, scheme, codebook)
        least = plane_bits(streams_from(entry.streams, scheme), entry.original, entry.stored)
        bits = {name: entry.bits.get(name) for name in least}
        for name, length in least.items():
            if bits[name] != length:
                raise ManifestError(f"tensor {entry.key!r}: its {name} has {bits[name]} bits, and must have {length:,}")
        expected, address = addresses(cells_of(scheme, [c.count for c in entry.classes], least), address)
        for plane in PLANES:
            if entry.cells[plane] != expected[plane]:
                raise ManifestError(
                    f"tensor {entry.key!r}: its {plane} is in cells {entry.cells[plane][0]:,} to "
                    f"{entry.cells[plane][1]:,} of the manifest, and must be in {expected[plane][0]:,} to "
                    f"{expected[plane][1]:,}"
                )


def _check_streams(entry: TensorEntry, scheme: Scheme, codebook: int) -> None:
    """Raise `ManifestError` unless the streams are those of the scheme, and of lengths that they can have."""
    masked, parted = entry.mask_bitmap_bits > 0, scheme.classes > 1
    seeded = masked and scheme.mask_seed is not None and "mask seed" in entry.streams
    fixed = {"sign": entry.stored * (scheme.sign == "bit"), "codebook": codebook, "mask seed": SEED_BITS * seeded}
    if scheme.entropy == "none":
        fixed |= {"class": entry.stored * scheme.index_bits, "mask": 0 if seeded else entry.mask_bitmap_bits}
    for name, length in fixed.items():
        if entry.streams.get(name, 0) != length:
            raise ManifestError(
                f"tensor {entry.key!r}: its stream {name!r} has {entry.streams.get(name, 0)} bits, and must have "
                f"{length:,}"
            )
    coded = entry.streams.keys() - fixed.keys()
    apart = {name for name, there in (("class", parted), ("mask", masked and not seeded)) if there}
    joint = [{"mask and class"}] if masked and parted and not seeded else []
    possible = [set()] if scheme.entropy == "none" else [apart, *joint]
    # A range coder with 24 bits for each probability, and a header: no stream of n symbols is longer.
    most = 64 * entry.original + 2**16
    if coded not in possible or not all(0 <= entry.streams[name] <= most for name in coded):
        raise ManifestError(f"tensor {entry.key!r}: its streams are {_listed(entry.streams)}, which cannot be so")


def _listed(streams: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {bits} bits" for name, bits in streams.items()) or "none"


def _check_follows(expected: Mapping[str, Any], given: Mapping[str, Any], where: str) -> None:
    """Raise `ManifestError` unless `given` has what follows from the tensors; ratios may be rounded."""
    for name, value in expected.items():
        there = given[name]
        same = (
            _is_of(there, float) and math.isclose(there, value, rel_tol=1e-9)
            if isinstance(value, float)
            else (type(there) is type(value) and there == value)
        )
        if not same:
            raise ManifestError(f"{where}: {name} is {json.dumps(there)[:40]}, and {value} follows from the tensors")


def _check_assumptions(manifest: Manifest, given: Any) -> None:
    expected = list(manifest.assumptions)
    if given != expected:
        raise ManifestError(
            f"assumptions is {json.dumps(given)[:60]} in the manifest, and {json.dumps(expected)} follows from its "
            "schemes"
        )


def _check_honest(manifest: Manifest, given: Any) -> None:
    expected = None if manifest.honest is None else [asdict(line) for line in manifest.honest]
    if given is None or expected is None:
        if given is not expected:
            raise ManifestError(f"honest is {json.dumps(given)[:40]}, and {json.dumps(expected)[:40]} follows")
        return
    if not isinstance(given, list) or len(given) != len(expected) or not all(isinstance(line, dict) for line in given):
        raise ManifestError(f"honest must list {len(expected)} lines, as follows from the tensors")
    for line, here in zip(expected, given, strict=True):
        _check_follows(line, here, f"honest: {line['name']}")


def _check_baselines(manifest: Manifest, given: Sequence[Mapping[str, Any]]) -> None:
    expected = manifest.baselines()
    if len(given) != len(expected):
        raise ManifestError(f"the manifest lists {len(given):,} baselines, and {len(expected)} follow from the tensors")
    for baseline, here in zip(expected, given, strict=True):
        _check_follows(asdict(baseline), here, f"baselines: {baseline.name}")
