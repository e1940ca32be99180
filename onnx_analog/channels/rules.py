"""What every channel keeps to, as far as a few reads tell: no statistics, so that it takes a millisecond.

`resolve` asks it of each channel whose class is not of this package; `onnx_analog.testing.check_channel` asks it first,
and then the laws.
"""

from __future__ import annotations

import inspect
import math
import traceback
from collections.abc import Callable
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.channels.base import Channel, Floats, GaussianChannel, Source
from onnx_analog.channels.cellwise import CellwiseChannel
from onnx_analog.channels.programmed import ProgrammedChannel
from onnx_analog.channels.ranges import clip_to_range
from onnx_analog.errors import ChannelError, brief
from onnx_analog.randomness import stream

_LEVELS = 65  # over the span, its ends included
_KNOWN = 256  # channels that are not asked again
_NUMBERS = "a finite number for each level"
_DEVIATIONS = "a finite number, 0 or more, for each level"


def is_own(cls: type) -> bool:
    """Return whether a class is a user's, or another package's."""
    return cls.__module__.partition(".")[0] != "onnx_analog"


def check_class(cls: type[Channel]) -> None:
    """Raise `ChannelError` if a class cannot be a channel's: it lacks a member, or is no dataclass."""
    missing = " and no ".join(sorted(cls.__abstractmethods__))
    if missing:
        raise _broken(cls, f"it has no {missing}, which every channel must have")
    declares = any("ClassVar" not in str(kind) for kind in inspect.get_annotations(cls).values())
    if "__dataclass_fields__" not in cls.__dict__ and (declares or not hasattr(cls, "__dataclass_fields__")):
        raise _broken(cls, "it is no dataclass; write @dataclass(frozen=True, kw_only=True) above it")


def check_own(channel: Channel) -> None:
    """Raise `ChannelError` if a channel of a class that is not of this package breaks a rule; each is asked once."""
    if not is_own(type(channel)):
        return
    check_class(type(channel))
    try:
        hash(channel)
    except TypeError as error:
        rule = "it must be a dataclass with frozen=True, and its fields numbers, text or tuples"
        raise _broken(type(channel), f"its values can change ({error}); {rule}") from error
    _check_once(channel)


@lru_cache(maxsize=_KNOWN)
def _check_once(channel: Channel) -> None:
    check_rules(channel)


def check_rules(channel: Channel) -> None:
    """Raise `ChannelError`, which names the class, the method and the rule, if a channel breaks a rule.

    Checked are span, source and devices; that deviations and moments that the class states, and the steps of reading
    cell by cell, are numbers for each level; and the form of what is read.
    """
    _check_members(channel)
    levels = clip_to_range(np.linspace(*channel.span, _LEVELS).astype(np.float32), channel.span)
    with np.errstate(all="ignore"):
        if isinstance(channel, GaussianChannel):
            for name in ("std", "shared_std"):
                _numbers(channel, name, levels, _DEVIATIONS, levels)
        if is_own(_definer(type(channel), "moments")):
            _check_moments(channel, levels)
        if isinstance(channel, ProgrammedChannel):
            _check_steps(channel, levels, "program_cell", "read_programmed", "verify")
        elif isinstance(channel, CellwiseChannel):
            _check_steps(channel, levels, "program", "read_cell")
        _check_read(channel, levels)


def _check_members(channel: Channel) -> None:
    cls, span = type(channel), channel.span
    numbers = isinstance(span, tuple | list) and len(span) == 2 and all(isinstance(end, Real) for end in span)
    if not (numbers and -math.inf < span[0] < span[1] < math.inf):
        raise _broken(cls, f"span is {brief(span)}, no interval; it must be two finite numbers, the lower first")
    if not isinstance(channel.source, Source):
        raise _broken(cls, f"source is {brief(channel.source)}; it must be an onnx_analog.channels.Source")
    if not channel.devices_per_cell >= 1:
        raise _broken(cls, f"a cell of {channel.devices_per_cell} devices is none; devices_per_cell must be 1 or more")


def _check_moments(channel: Channel, levels: Floats) -> None:
    pair = _called(channel, "moments", levels, cells=1)
    if not isinstance(pair, tuple) or len(pair) != 2:
        raise _broken(type(channel), f"moments returned {brief(pair)}; it must return means and standard deviations")
    for name, values, rule in zip(("mean", "standard deviation"), pair, (_NUMBERS, _DEVIATIONS), strict=True):
        _check_numbers(channel, f"moments, its {name},", values, levels, rule)


def _check_steps(channel: Channel, levels: Floats, programs: str, *reads: str) -> None:
    """Check what a channel programs, and that each method reads a number for each level from it."""
    state = _called(channel, programs, levels.copy(), _rng())
    if not isinstance(state, tuple) or any(np.shape(part)[:1] != levels.shape for part in state):
        rule = f"it must return a tuple of arrays with an entry for each level, here {levels.size}"
        raise _broken(type(channel), f"{programs} returned {_shown(state)}; {rule}")
    for name in reads:
        _numbers(channel, name, levels, _NUMBERS, state, _rng())


def _check_read(channel: Channel, levels: Floats) -> None:
    given = levels.copy()
    read = _numbers(channel, "read", levels, _NUMBERS, given, cells=1, rng=_rng())
    if not np.array_equal(given, levels):
        raise _broken(type(channel), "read changed the levels that it was given; it must return a new array")
    _numbers(channel, "read", levels[:0], "no reads of no levels", levels[:0], cells=1, rng=_rng())
    if not np.array_equal(read, _called(channel, "read", levels.copy(), cells=1, rng=_rng())):
        raise _broken(type(channel), "read gave different reads with the same generator; it must draw from rng alone")
    each = np.full(levels.shape, 3)
    alike = _numbers(channel, "read", levels, _NUMBERS, levels.copy(), cells=each, rng=_rng())
    if not np.array_equal(alike, _called(channel, "read", levels.copy(), cells=3, rng=_rng())):
        raise _broken(type(channel), "read differs for cells as array and number; they must be read alike")


def _numbers(channel: Channel, name: str, levels: Floats, rule: str, *args: Any, **kwargs: Any) -> NDArray[Any]:
    """Return what a method returns: a number for each level."""
    return _check_numbers(channel, name, _called(channel, name, *args, **kwargs), levels, rule)


def _check_numbers(channel: Channel, name: str, values: Any, levels: Floats, rule: str) -> NDArray[Any]:
    cls = type(channel)
    if not isinstance(values, np.ndarray) or values.shape != levels.shape or values.dtype.kind not in "fiu":
        raise _broken(
            cls, f"{name} returned {_shown(values)} for levels of shape {levels.shape}; it must return {rule}"
        )
    wrong = ~np.isfinite(values) | ((values < 0) if rule is _DEVIATIONS else False)
    if wrong.any():
        found = f"{values[wrong][0]:.4g} at level {levels[wrong][0]:.4g}"
        raise _broken(cls, f"{name} returned {found}; it must return {rule}")
    return values


def _shown(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return "one number" if isinstance(value, int | float | np.generic) else brief(value)


def _called(channel: Channel, name: str, *args: Any, **kwargs: Any) -> Any:
    """Return what a method returns; an error names the method of the user's that failed."""
    method: Callable[..., Any] = getattr(channel, name)
    if not callable(method):
        raise _broken(type(channel), f"{name} is {brief(method)}; it must be a method")
    try:
        inspect.signature(method).bind(*args, **kwargs)
    except TypeError as error:
        wanted = inspect.signature(getattr(_declaring(type(channel), name), name))
        own = inspect.signature(getattr(type(channel), name))
        taken, asked = (", ".join(list(each.parameters)[1:]) for each in (own, wanted))
        raise _broken(type(channel), f"{name} takes ({taken}); it is called with ({asked})") from error
    try:
        return method(*args, **kwargs)
    except MemoryError:
        raise
    except Exception as error:  # whatever a class of the user's raises
        where = _failed_in(error, type(channel)) or name
        why = str(error) or "no reason given"
        raise _broken(type(channel), f"{where} failed with {type(error).__name__}: {why}") from error


def _declaring(cls: type, name: str) -> type:
    """Return the class that says how a method is called: the last that has it."""
    return next(each for each in reversed(cls.__mro__) if name in each.__dict__)


def _definer(cls: type, name: str) -> type:
    return next(each for each in cls.__mro__ if name in each.__dict__)


def _failed_in(error: Exception, cls: type) -> str | None:
    """Return the method of a class's module that was called when an error was raised, if one was."""
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    return next((frame.f_code.co_name for frame in frames if frame.f_globals.get("__name__") == cls.__module__), None)


def _rng() -> np.random.Generator:
    return stream(0, 0, "rules", plane="form")


def _broken(cls: type, what: str) -> ChannelError:
    error = ChannelError(f"channel of class {cls.__module__}:{cls.__qualname__}: {what}")
    error.names_fields = True
    return error
