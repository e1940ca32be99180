"""Says how each tensor of a model is stored: a scheme for each storage key, for patterns, and for all other tensors.

A storage key may hold any characters, * too. Keys and patterns are therefore given apart: in `tensors` every character
stands for itself, and in `patterns` * stands for any characters. A key wins over patterns, and of patterns the first
that matches.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any

from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.verified import Inputs, Verified, channel_warnings, correction_warnings, input_warnings
from onnx_analog.disk import kinds, reading
from onnx_analog.display import counted, html_table
from onnx_analog.errors import AnalogError, OptionError, brief, located, of_content
from onnx_analog.settings import check_names, named

FORMAT = f"{kinds.FORMATS[kinds.PLAN]}1"
MOST_BYTES = 16 * reading.MIB  # of a plan's file
MOST_TENSORS = 100_000
MOST_PATTERNS = 1000
MOST_SCHEMES = 10_000
LONGEST_KEY = 4096  # characters
_ENTRIES = ("format", "schemes", "default", "tensors", "patterns", "compensated", "compensated_by", "verified")
_NOT_STORED = ("compensated", "compensated_by", "verified")  # entries that say nothing of how tensors are stored


@named
@dataclass(frozen=True, kw_only=True, eq=False)
class Plan:
    """A scheme for each tensor.

    Parameters
    ----------
    default : Scheme or None
        For tensors that nothing else names; None leaves them digital, as in the model.
    tensors : mapping of str to Scheme or None
        By storage key. None leaves a tensor digital.
    patterns : mapping of str to Scheme or None
        By pattern, in which * stands for any characters. A key in `tensors` wins over patterns, and of patterns the
        first that matches.
    compensated : bool
        Whether the plan is for weights that make up for each other's errors, as those of `tune` are: without, far
        more may be lost. Nothing is stored in another way for it, so it does not decide equality, and the digest leaves
        it out.
    compensated_by : int or None
        The number of samples that compensated them when the plan was verified; None if that is not known. With another
        number, cells and losses differ. Like `compensated`, it is no part of equality and digest.
    verified : Verified or None
        How `tune` verified the plan; None if it did not. It is kept if the plan is changed, and `is_as_verified` tells.
        It is no part of equality and digest, either.

    Raises
    ------
    OptionError
        If there are no schemes, or too many tensors or patterns.

    Examples
    --------
    >>> plan = Plan(default=Scheme(), patterns={"fc.*": Scheme.int8()}, tensors={"fc.bias": None})
    >>> plan.scheme_of("fc.weight") == Scheme.int8(), plan.scheme_of("fc.bias"), plan.scheme_of("conv") == Scheme()
    (True, None, True)
    """

    default: Scheme | None = field(default_factory=Scheme)
    tensors: Mapping[str, Scheme | None] = field(default_factory=dict)
    patterns: Mapping[str, Scheme | None] = field(default_factory=dict)
    compensated: bool = False
    compensated_by: int | None = None
    verified: Verified | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.compensated, bool):
            raise OptionError(f"compensated is {brief(self.compensated)}; it must be True or False")
        _check_samples(self.compensated_by, self.compensated)
        if not isinstance(self.verified, Verified | None):
            raise OptionError(f"verified is {brief(self.verified)}; it must be Verified or None")
        _check_schemes("default", [self.default])
        for name, noun, most in (("tensors", "storage key", MOST_TENSORS), ("patterns", "pattern", MOST_PATTERNS)):
            schemes = getattr(self, name)
            if not isinstance(schemes, Mapping):
                raise OptionError(f"{name} is {brief(schemes)}; it must be a mapping from {noun}s to schemes")
            if len(schemes) > most:
                raise OptionError(f"{name} has {len(schemes):,} entries; it may have at most {most:,}")
            for key, scheme in schemes.items():
                if not isinstance(key, str) or not 0 < len(key) <= LONGEST_KEY:
                    raise OptionError(
                        f"a {noun} is {brief(key)}; it must be text of at most {LONGEST_KEY:,} characters"
                    )
                _check_schemes(repr(key), [scheme])
            object.__setattr__(self, name, MappingProxyType(dict(schemes)))
        _check_count(len(self.schemes))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        return self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[Any, ...]:
        """Return the values that decide equality: patterns in their order, keys in any order."""
        return self.default, frozenset(self.tensors.items()), tuple(self.patterns.items())

    def __reduce__(self) -> tuple[Any, ...]:
        values = {name: getattr(self, name) for name in Plan.__dataclass_fields__}
        return _plan, tuple(dict(value) if isinstance(value, Mapping) else value for value in values.values())

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """The different schemes, the default first."""
        every = (self.default, *self.tensors.values(), *self.patterns.values())
        return tuple(dict.fromkeys(scheme for scheme in every if scheme is not None))

    def scheme_of(self, key: str) -> Scheme | None:
        """Return the scheme of the tensor with a storage key; None if it stays digital."""
        if key in self.tensors:
            return self.tensors[key]
        return next((scheme for pattern, scheme in self.patterns.items() if _matches(key, pattern)), self.default)

    def unused(self, keys: Iterable[str]) -> list[str]:
        """Return the keys and patterns of the plan that no tensor with one of `keys` has."""
        present = set(keys)
        patterns = [name for name in self.patterns if not any(_matches(key, name) for key in present)]
        return [*(key for key in self.tensors if key not in present), *patterns]

    def check_keys(self, keys: Iterable[str], where: str) -> None:
        """Raise `OptionError` if the plan names a storage key that is none of `keys`, with the most similar one.

        Patterns may match nothing: a plan may be for several models.
        """
        known = set(keys)
        missing = next((key for key in self.tensors if key not in known), None)
        if missing is not None:
            alike = get_close_matches(missing, known, 1)
            remedy = f"did you mean {alike[0]!r}?" if alike else "`inspect` lists its tensors"
            raise of_content(OptionError(f"the plan names {missing!r}, which {where} does not have: {remedy}"))

    def entries(self) -> Iterator[tuple[str, Scheme | None]]:
        """Yield the keys and patterns in words, and their schemes; the default comes last."""
        yield from self.tensors.items()
        yield from ((f"{pattern} (pattern)", scheme) for pattern, scheme in self.patterns.items())
        yield "all others", self.default

    def mapped(self, change: Callable[[Scheme], Scheme]) -> Plan:
        """Return the plan with each of its schemes replaced by what a function returns for it."""
        new: dict[Scheme | None, Scheme | None] = {scheme: change(scheme) for scheme in self.schemes} | {None: None}
        return Plan(
            default=new[self.default],
            tensors={key: new[scheme] for key, scheme in self.tensors.items()},
            patterns={pattern: new[scheme] for pattern, scheme in self.patterns.items()},
            compensated=self.compensated,
            compensated_by=self.compensated_by,
            verified=self.verified,
        )

    def changed(self, **changes: Any) -> Plan:
        """Return the plan with settings of all its schemes changed.

        Schemes that have no analog cells after the change keep their estimator.
        """
        unread = {name: value for name, value in changes.items() if name != "estimator"}

        def change(scheme: Scheme) -> Scheme:
            changed = scheme.changed(**changes)
            return scheme.changed(**unread) if changed.analog == "none" else changed

        return self.mapped(change)

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
        """Return the plan with all fields of its channels, ready for JSON; `from_dict` is the inverse."""
        return self._body(Scheme.to_dict)

    def to_file(self) -> dict[str, Any]:
        """Return the plan as its file has it: installed channels by name; `from_dict` is the inverse."""
        return self._body(Scheme.to_file)

    def _body(self, written: Callable[[Scheme], dict[str, Any]]) -> dict[str, Any]:
        names: dict[Scheme | None, str | None] = {None: None}
        names |= {scheme: f"scheme{number}" for number, scheme in enumerate(self.schemes)}
        patterns = [{"pattern": text, "scheme": names[scheme]} for text, scheme in self.patterns.items()]
        return {
            "format": FORMAT,
            "schemes": {names[scheme]: written(scheme) for scheme in self.schemes},
            "default": names[self.default],
            "tensors": {key: names[scheme] for key, scheme in self.tensors.items()},
            **({"patterns": patterns} if patterns else {}),
            **({"compensated": True} if self.compensated else {}),
            **({} if self.compensated_by is None else {"compensated_by": self.compensated_by}),
            **({} if self.verified is None else {"verified": self.verified.to_dict()}),
        }

    def digest(self) -> str:
        """Return the SHA-256 of how the plan stores tensors, as hex."""
        body = {name: value for name, value in self.to_dict().items() if name not in _NOT_STORED}
        return _sha256(body)

    def stored_sha256(self) -> str:
        """Return the SHA-256 of the scheme of each tensor, as hex: that of equal plans is the same.

        Names and order of schemes, and the order of tensors, do not matter; nor do settings of schemes and channels at
        their defaults, nor where the numbers of a channel come from: a later version, which has more settings and says
        that in other words, finds the same.
        """
        names: dict[Scheme | None, str | None] = {scheme: _sha256(_told(scheme)) for scheme in self.schemes} | {
            None: None
        }
        patterns = [[text, names[scheme]] for text, scheme in self.patterns.items()]
        return _sha256([names[self.default], {key: names[scheme] for key, scheme in self.tensors.items()}, patterns])

    @property
    def is_as_verified(self) -> bool:
        """Whether tensors are stored as in the plan that was verified, and by as many samples that compensate."""
        return (
            self.verified is not None
            and self.verified.otherwise is None
            and self.verified.plan_sha256 == self.stored_sha256()
            and self.verified.compensated_by == self.compensated_by
        )

    def marked(self, reason: str | None) -> Plan:
        """Return the plan with the reason why it is not used as it was verified, in its record; the first one stays."""
        if self.verified is None or self.verified.otherwise is not None or reason is None:
            return self
        return replace(self, verified=replace(self.verified, otherwise=reason))

    def to_json(self) -> str:
        """Return the plan as the text of a file."""
        return json.dumps(self.to_file(), indent=2, ensure_ascii=False) + "\n"

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
            if _is_newer(version):
                raise OptionError(f"the plan has the newer format {version!r}; this version reads {FORMAT!r}")
            raise OptionError(f"this is not a plan: its format is {json.dumps(version)[:40]}, not {FORMAT!r}")
        check_names("a plan has no entry", body, _ENTRIES)
        schemes, tensors = body.get("schemes"), body.get("tensors", {})
        if not isinstance(schemes, Mapping) or not isinstance(tensors, Mapping):
            raise OptionError("schemes and tensors of a plan must be objects")
        patterns = _patterns(body.get("patterns", []))
        _check_count(len(schemes))
        by_name = {name: _scheme(name, scheme) for name, scheme in schemes.items()} | {None: None}
        default = body.get("default")
        for name in [default, *tensors.values(), *patterns.values()]:
            if not isinstance(name, str | None) or name not in by_name:
                raise OptionError(f"a plan refers to the scheme {json.dumps(name)[:40]}, which it does not have")
        return Plan(
            default=by_name[default],
            tensors={key: by_name[name] for key, name in tensors.items()},
            patterns={pattern: by_name[name] for pattern, name in patterns.items()},
            compensated=body.get("compensated", False),
            compensated_by=body.get("compensated_by"),
            verified=None if body.get("verified") is None else _verified(body["verified"]),
        )

    @staticmethod
    def read(path: Path) -> Plan:
        """Return the plan in a JSON file of at most 16 MiB; raises what `from_dict` raises."""
        from onnx_analog import serialise  # numpy, which the command line does without until it is needed

        text = reading.read_text(path, limit=MOST_BYTES, error=OptionError, kind=kinds.PLAN)
        try:
            body = serialise.parse(text)
        except ValueError as error:
            raise located(OptionError(str(error)), repr(str(path))) from error
        try:
            return Plan.from_dict(body)
        except AnalogError as error:
            raise located(error, repr(str(path))) from error

    def __str__(self) -> str:
        return "\n".join(f"{name}: {'stays digital' if scheme is None else scheme}" for name, scheme in self.entries())

    def __repr__(self) -> str:
        patterns = f", {counted(len(self.patterns), 'pattern')}" if self.patterns else ""
        return f"Plan(default={self.default!r}, {counted(len(self.tensors), 'tensor')} named{patterns})"

    def _repr_html_(self) -> str:
        rows = [
            (key, "stays digital", "") if scheme is None else (key, scheme, scheme.channel)
            for key, scheme in self.entries()
        ]
        return html_table("Plan", ("tensor or pattern", "scheme", "channel"), rows)


def _is_newer(version: Any) -> bool:
    """Return whether a format is one that follows this one."""
    name, _, number = FORMAT.rpartition("/")
    other, _, later = version.rpartition("/") if isinstance(version, str) else ("", "", "")
    return other == name and later.isdecimal() and len(later) < 10 and int(later) > int(number)


def _plan(*values: Any) -> Plan:
    """Return the plan with the values of all fields, in another process: a read-only mapping cannot be sent there."""
    return Plan(**dict(zip(Plan.__dataclass_fields__, values, strict=True)))


def compensation_warnings(plan: Plan, samples: int | None) -> Iterator[str]:
    """Yield a warning if weights make up for each other's errors by other samples than where the plan was verified.

    Parameters
    ----------
    plan : Plan
    samples : int or None
        By how many; None if they do not.
    """
    theirs, not_those = plan.compensated_by, "cells and losses are not those that were verified"
    if plan.compensated and samples is None:
        count = "a few samples" if theirs is None else counted(theirs, "sample")
        yield (
            f"compensate is left out, but the plan is for compensated weights: without it, {not_those}, and far more "
            f"may be lost. Give it {count}; they need no labels"
        )
    elif theirs is not None and samples is not None and theirs != samples:
        yield (
            f"the plan was verified with compensation by {counted(theirs, 'sample')}, and here {samples:,} compensate: "
            f"{not_those}, and far more may be lost. Give it {theirs:,}"
        )


def changed_since(plan: Plan) -> Iterator[str]:
    """Yield a warning if a plan, or what is stored by it, is not what was verified."""
    if plan.verified is not None and not plan.is_as_verified:
        reason = plan.verified.otherwise or "the plan was changed after it was verified"
        yield f"{reason}, so what was verified does not hold here; it was {plan.verified.correction}"


def marked_for_model(plan: Plan, sha256: Collection[str], *, pruned: bool) -> Plan:
    """Return a plan, marked if it was verified with another model, as digests of files tell, or without pruning it.

    The model may be known by several digests; of one that is no file, there are none.
    """
    theirs = None if plan.verified is None else plan.verified.model_sha256
    if pruned:
        return plan.marked("the model was pruned, and the plan was verified without that")
    if theirs is not None and sha256 and theirs not in sha256:
        return plan.marked("the plan was verified with another model, as the SHA-256 of its files tells")
    return plan


def marked_for_compensation(plan: Plan, samples: int | None, inputs: Inputs) -> Plan:
    """Return a plan, marked unless weights make up for each other's errors as where it was verified.

    Parameters
    ----------
    plan : Plan
    samples : int or None
        By how many; None if they do not.
    inputs : Inputs
        How they are made.
    """
    verified = plan.verified
    if verified is None:
        return plan
    if samples != verified.compensated_by:
        here, there = (
            "without compensation" if count is None else f"with compensation by {counted(count, 'sample')}"
            for count in (samples, verified.compensated_by)
        )
        return plan.marked(f"weights are stored {here}, and the plan was verified {there}")
    if any(input_warnings(verified, inputs)):
        return plan.marked("the inputs that compensate were not made as when the plan was verified")
    return plan


def reading_warnings(
    plan: Plan,
    samples: int | str | None,
    inputs: Inputs,
    channels: str,
    *,
    original: bool = True,
    correctable: bool = True,
) -> Iterator[str]:
    """Yield warnings if what a plan stores is read otherwise than where the plan was verified.

    Parameters
    ----------
    plan : Plan
    samples : int, "gain" or None
        By how many samples reads are corrected; "gain" by the law of the channel, None if they are not.
    inputs : Inputs
        How they are made.
    channels : str
        What cells are read through, in words; empty if that is not known.
    original : bool
        Whether the original is known, which samples correct towards.
    correctable : bool
        Whether a correction can change reads: where they are always what they are corrected towards, it cannot.
    """
    yield from changed_since(plan)
    if plan.verified is not None and plan.is_as_verified:
        if correctable:
            yield from correction_warnings(plan.verified, samples, original=original)
        yield from channel_warnings(plan.verified, channels)
        yield from input_warnings(plan.verified, inputs)


def _check_samples(count: Any, compensated: bool) -> None:
    if count is None:
        return
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise OptionError(f"compensated_by is {brief(count)}; it must be a number of samples, or None")
    if not compensated:
        raise OptionError(f"compensated_by is {count}, and compensated is not True: leave it out")


def _check_schemes(name: str, schemes: Iterable[Any]) -> None:
    for scheme in schemes:
        if not isinstance(scheme, Scheme | None):
            raise OptionError(f"the scheme of {name} is {brief(scheme)}; it must be a Scheme or None")


def _patterns(body: Any) -> dict[str, Any]:
    """Return the names of schemes by pattern, from a list of objects: JSON objects have no order."""
    if not isinstance(body, list):
        raise OptionError('patterns of a plan must be a list of objects, as {"pattern": "fc.*", "scheme": "a"}')
    patterns: dict[str, Any] = {}
    for entry in body:
        if not isinstance(entry, Mapping) or set(entry) != {"pattern", "scheme"}:
            raise OptionError("an entry of patterns must be an object with pattern and scheme, and no others")
        pattern = entry["pattern"]
        if not isinstance(pattern, str) or pattern in patterns:
            what = "appears twice" if isinstance(pattern, str) else "must be text"
            raise OptionError(f"the pattern {json.dumps(pattern)[:40]} {what}")
        patterns[pattern] = entry["scheme"]
    return patterns


def _matches(key: str, pattern: str) -> bool:
    """Return whether a key matches a pattern, in which * stands for any characters; takes linear time."""
    if "*" not in pattern:
        return key == pattern
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
        raise OptionError(f"a plan has {schemes:,} schemes; it may have at most {MOST_SCHEMES:,}")


def _verified(body: Any) -> Verified:
    try:
        return Verified.from_dict(body)
    except OptionError as error:
        raise located(error, "verified") from error


def _told(scheme: Scheme) -> dict[str, Any]:
    """Return the settings of a scheme that are not at their defaults, ready for JSON."""
    from onnx_analog.channels import Channel

    default, told = Scheme().to_dict(), {}
    for name, value in scheme.to_dict().items():
        if name == "channel" or value != default[name]:
            held = getattr(scheme, name, None)
            told[name] = _told_fields(held, value) if isinstance(held, Channel) else value
    return told


def _told_fields(held: Any, body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a channel, or of a part of one, that are not at their defaults, and no prose of a source."""
    from onnx_analog.channels import Source

    told = {"family": body["family"]} if "family" in body else {}
    for each in fields(held):
        value = getattr(held, each.name)
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if each.name in body and not isinstance(value, Source) and (default is MISSING or value != default):
            told[each.name] = _told_fields(value, body[each.name]) if is_dataclass(value) else body[each.name]
    return told


def _sha256(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _scheme(name: str, body: Any) -> Scheme:
    try:
        return Scheme.from_dict(body)
    except AnalogError as error:
        raise located(error, f"scheme {name!r}") from error
