"""Says how each tensor of a model is stored: a scheme for each storage key or pattern, and a default."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnx_analog.coding.scheme import Scheme
from onnx_analog.disk import reading
from onnx_analog.display import counted, html_table
from onnx_analog.errors import OptionError, brief

FORMAT = "onnx-analog-plan/1"
MOST_BYTES = 16 * reading.MIB  # of a plan's file
MOST_TENSORS = 100_000
MOST_PATTERNS = 1000
MOST_SCHEMES = 10_000
LONGEST_KEY = 4096  # characters


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A scheme for each tensor.

    Parameters
    ----------
    default : Scheme or None
        For tensors that nothing else names; None leaves them digital.
    tensors : mapping of str to Scheme or None
        By storage key, or by a pattern in which * stands for any characters. A key that is spelled out wins over
        patterns, and of patterns the first that matches. None leaves a tensor digital.

    Raises
    ------
    OptionError
        If there are no schemes, or too many tensors or patterns.

    Examples
    --------
    >>> plan = Plan(default=Scheme(), tensors={"fc.*": Scheme.int8(), "fc.bias": None})
    >>> plan.scheme_of("fc.weight") == Scheme.int8(), plan.scheme_of("fc.bias"), plan.scheme_of("conv") == Scheme()
    (True, None, True)
    """

    default: Scheme | None = field(default_factory=Scheme)
    tensors: Mapping[str, Scheme | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.tensors, Mapping):
            raise OptionError(f"tensors is {brief(self.tensors)}; it must be a mapping from storage keys to schemes")
        for key, scheme in [("default", self.default), *self.tensors.items()]:
            if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
                raise OptionError(
                    f"a storage key is {brief(key)}; it must be text of at most {LONGEST_KEY:,} characters"
                )
            if not isinstance(scheme, Scheme | None):
                raise OptionError(f"the scheme of {key!r} is {brief(scheme)}; it must be a Scheme or None")
        if len(self.tensors) > MOST_TENSORS or len(self._patterns) > MOST_PATTERNS:
            raise OptionError(
                f"a plan names {len(self.tensors):,} tensors, {len(self._patterns):,} of them by patterns; it may name "
                f"{MOST_TENSORS:,} and {MOST_PATTERNS:,}"
            )
        object.__setattr__(self, "tensors", MappingProxyType(dict(self.tensors)))
        _check_count(len(self.schemes))

    def __hash__(self) -> int:
        return hash((self.default, tuple(self.tensors.items())))

    @cached_property
    def _patterns(self) -> list[str]:
        return [key for key in self.tensors if "*" in key]

    def __reduce__(self) -> tuple[Any, ...]:
        return _plan, (self.default, dict(self.tensors))

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """The different schemes, the default first."""
        given = (self.default, *self.tensors.values())
        return tuple(dict.fromkeys(scheme for scheme in given if scheme is not None))

    def scheme_of(self, key: str) -> Scheme | None:
        """Return the scheme of the tensor with a storage key; None if it stays digital."""
        if key in self.tensors:
            return self.tensors[key]
        pattern = next((pattern for pattern in self._patterns if _matches(key, pattern)), None)
        return self.default if pattern is None else self.tensors[pattern]

    def unused(self, keys: Iterable[str]) -> list[str]:
        """Return the keys and patterns of the plan that no tensor with one of `keys` has."""
        there = set(keys)
        return [
            name
            for name in self.tensors
            if name not in there and not ("*" in name and any(_matches(key, name) for key in there))
        ]

    def changed(self, **changes: Any) -> Plan:
        """Return the plan with settings of all its schemes changed."""
        new = {scheme: scheme.changed(**changes) for scheme in self.schemes}
        return Plan(
            default=None if self.default is None else new[self.default],
            tensors={key: None if scheme is None else new[scheme] for key, scheme in self.tensors.items()},
        )

    @staticmethod
    def of(value: Any) -> Plan:
        """Return a plan as it is, and a scheme as the plan that stores every tensor with it."""
        if isinstance(value, Plan):
            return value
        if isinstance(value, Scheme):
            return Plan(default=value)
        raise OptionError(f"a plan is {type(value).__name__}; it must be a Plan or a Scheme")

    # ---------------------------------------------------------------------------------------------------- JSON

    def to_dict(self) -> dict[str, Any]:
        """Return the plan, ready for JSON; `from_dict` is the inverse."""
        names = {scheme: f"scheme{number}" for number, scheme in enumerate(self.schemes)}
        return {
            "format": FORMAT,
            "schemes": {name: scheme.to_dict() for scheme, name in names.items()},
            "default": None if self.default is None else names[self.default],
            "tensors": {key: None if scheme is None else names[scheme] for key, scheme in self.tensors.items()},
        }

    def digest(self) -> str:
        """Return the SHA-256 of the plan, as hex."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        """Return the plan as the text of a file."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_dict(body: Any) -> Plan:
        """Return the plan that `to_dict` describes; see plan.schema.json.

        Raises
        ------
        OptionError
            If it is not a plan, or one of its schemes is not valid.
        ChannelError
            If a channel is not installed.
        """
        if not isinstance(body, Mapping) or body.get("format") != FORMAT:
            version = body.get("format") if isinstance(body, Mapping) else None
            raise OptionError(f"this is not a plan: its format is {json.dumps(version)[:40]}, not {FORMAT!r}")
        unknown = next((name for name in body if name not in ("format", "schemes", "default", "tensors")), None)
        if unknown is not None:
            raise OptionError(f"a plan has no entry {unknown!r}")
        schemes, tensors = body.get("schemes"), body.get("tensors", {})
        if not isinstance(schemes, Mapping) or not isinstance(tensors, Mapping):
            raise OptionError("schemes and tensors of a plan must be objects")
        _check_count(len(schemes))
        named = {name: _scheme(name, scheme) for name, scheme in schemes.items()}
        default = body.get("default")
        for name in [default, *tensors.values()]:
            if name is not None and (not isinstance(name, str) or name not in named):
                raise OptionError(f"a plan refers to the scheme {json.dumps(name)[:40]}, which it does not have")
        return Plan(
            default=None if default is None else named[default],
            tensors={key: None if name is None else named[name] for key, name in tensors.items()},
        )

    @staticmethod
    def read(path: Path) -> Plan:
        """Return the plan in a JSON file of at most 16 MiB; raises what `from_dict` raises."""
        from onnx_analog import serialise  # numpy, which the command line does without until it is needed

        text = reading.read_text(path, limit=MOST_BYTES, error=OptionError)
        try:
            return Plan.from_dict(serialise.parse(text))
        except ValueError as error:
            raise OptionError(f"{str(path)!r}: {error}") from error

    def __str__(self) -> str:
        lines = [f"default: {'stays digital' if self.default is None else self.default}"]
        lines += [f"{key}: {'stays digital' if scheme is None else scheme}" for key, scheme in self.tensors.items()]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Plan(default={self.default!r}, {counted(len(self.tensors), 'tensor')} named)"

    def _repr_html_(self) -> str:
        schemes = [*self.tensors.items(), ("all others", self.default)]
        rows = [
            (key, "stays digital", "") if scheme is None else (key, scheme, scheme.channel) for key, scheme in schemes
        ]
        return html_table("Plan", ("tensor or pattern", "scheme", "channel"), rows)


def _plan(default: Scheme | None, tensors: dict[str, Scheme | None]) -> Plan:
    """Return the plan, in another process: a read-only mapping cannot be sent there."""
    return Plan(default=default, tensors=tensors)


def _matches(key: str, pattern: str) -> bool:
    """Return whether a key matches a pattern, in which * stands for any characters; takes linear time."""
    if "*" not in pattern:
        return False
    first, *middle, last = pattern.split("*")
    if not (key.startswith(first) and key[len(first) :].endswith(last)):
        return False
    rest = key[len(first) : len(key) - len(last)]
    for part in middle:
        start = rest.find(part)
        if start < 0:
            return False
        rest = rest[start + len(part) :]
    return True


def _check_count(schemes: int) -> None:
    if schemes > MOST_SCHEMES:
        raise OptionError(f"a plan has {schemes:,} schemes; it may have {MOST_SCHEMES:,}")


def _scheme(name: str, body: Any) -> Scheme:
    try:
        return Scheme.from_dict(body)
    except OptionError as error:
        raise OptionError(f"scheme {name!r}: {error}") from error
