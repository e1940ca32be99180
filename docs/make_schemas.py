"""Write the settings of a scheme into the schemas of plans and manifests: python docs/make_schemas.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin

from onnx_analog.coding.scheme import CHANNELS, MOST_CLASSES, Scheme
from onnx_analog.coding.verified import Verified
from onnx_analog.settings import Setting, settings_of

ROOT = Path(__file__).parents[1] / "onnx_analog"
PLAN, MANIFEST = ROOT / "coding" / "plan.schema.json", ROOT / "graph" / "manifest.schema.json"
CHANNEL = {"$ref": "#/$defs/channel"}
NULL = {"type": "null"}
LENGTHS = {  # of lists: one entry for each class, or one for each but the first
    "cells": {"minItems": 1, "maxItems": MOST_CLASSES},
    "shares": {"maxItems": MOST_CLASSES - 1},
    "bounds": {"maxItems": MOST_CLASSES - 1},
}
VERIFIED_LENGTHS = {"parts": 4, "points_lost_ci95": 2, "sqnr_db_ci95": 2}
LIMITS = {"least": "minimum", "most": "maximum", "above": "exclusiveMinimum", "below": "exclusiveMaximum"}
TYPES = {int: "integer", float: "number", str: "string", bool: "boolean"}


def value_schema(declared: Setting, kind: type) -> dict[str, Any]:
    """Return the schema of one value of a setting."""
    if declared.choices:
        return {"enum": list(declared.choices)}
    limits = {key: getattr(declared, name) for name, key in LIMITS.items() if getattr(declared, name) is not None}
    return {"type": TYPES[kind], **limits, **({"not": {"multipleOf": 2}} if declared.odd else {})}


def setting_schema(name: str, declared: Setting, kind: Any, *, by_hand: bool) -> dict[str, Any]:
    """Return the schema of a setting; people may write less than the program does."""
    described = {"description": declared.help.partition("  [")[0]}
    if name in CHANNELS:
        optional = by_hand or name != "channel"
        return {**({"anyOf": [CHANNEL, NULL]} if optional else CHANNEL), **described}
    if get_origin(kind) is tuple:
        single = value_schema(declared, get_args(kind)[0])
        several = {"type": "array", "items": single, **LENGTHS.get(name, {})}
        return {**({"anyOf": [single, several]} if by_hand and name == "cells" else several), **described}
    plain = next((part for part in get_args(kind) if part is not NoneType), kind)
    single = value_schema(declared, plain)
    return {**({"anyOf": [single, NULL]} if NoneType in get_args(kind) else single), **described}


def verified_schema() -> dict[str, Any]:
    """Return the schema of how a plan was verified."""
    declared = settings_of(Verified)
    return {
        "type": "object",
        "required": [name for name, (*_, default) in declared.items() if default is MISSING],
        "additionalProperties": True,  # of a later version
        "properties": {name: _entry(name, *each[:2]) for name, each in declared.items()},
    }


def _entry(name: str, declared: Setting, kind: Any) -> dict[str, Any]:
    """Return the schema of an entry of that; what is not known may be null."""
    optional = NoneType in get_args(kind)
    plain = next(part for part in get_args(kind) if part is not NoneType) if optional else kind
    single = setting_schema(name, declared, plain, by_hand=False)
    described = single.pop("description")
    if name.endswith("_sha256"):
        single["pattern"] = "^[0-9a-f]{64}$"
    if name in VERIFIED_LENGTHS:
        single |= dict.fromkeys(("minItems", "maxItems"), VERIFIED_LENGTHS[name])
    return {**({"anyOf": [single, NULL]} if optional else single), "description": described}


def schema(path: Path, settings: Mapping[str, tuple[Setting, Any, Any]] | None = None) -> str:
    """Return the text of a schema with the settings of a scheme; the default is those of `Scheme`."""
    body = json.loads(path.read_text(encoding="utf-8"))
    scheme, by_hand = body["$defs"]["scheme"], path == PLAN
    scheme["properties"] = {
        name: setting_schema(name, declared, kind, by_hand=by_hand)
        for name, (declared, kind, _) in (settings or settings_of(Scheme)).items()
    }
    if not by_hand:
        scheme["required"] = list(scheme["properties"])
    else:
        body["$defs"]["verified"] = verified_schema()
    return json.dumps(body, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for file in (PLAN, MANIFEST):
        file.write_text(schema(file), encoding="utf-8")
