"""What a user may ask of any channel on the command line, beside its name."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace

from onnx_analog.channels.base import Channel
from onnx_analog.channels.empirical import EmpiricalChannel
from onnx_analog.channels.measured import TableChannel
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.channels.rram import RramWan
from onnx_analog.channels.statistical import LONGEST_S, StatisticalPcm
from onnx_analog.errors import ChannelError, OptionError

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0, "y": 31_557_600.0}


@dataclass(frozen=True, kw_only=True)
class Modifiers:
    """Changes to a channel; None leaves a side as it is.

    Parameters
    ----------
    residuals : {"gaussian", "empirical"}, optional
        Normal noise, or residuals as they were measured. For channels made from measurements.
    cells_on : {"different", "same"}, optional
        Whether the cells of a weight are on different devices. For channels whose devices were told apart.
    read_after_s : float, 0 to 1e12, optional
        Seconds between programming and read. For channels that drift.
    write_bits, read_bits : int, 0 to 16, optional
        Finite precision; 0 takes a limit away.
    """

    residuals: str | None = None
    cells_on: str | None = None
    read_after_s: float | None = None
    write_bits: int | None = None
    read_bits: int | None = None

    def __post_init__(self) -> None:
        if self.read_after_s is not None and not 0 <= self.read_after_s <= LONGEST_S:
            raise OptionError(f"read-after is {self.read_after_s:g} s; it must be from 0 to {LONGEST_S:g} s")
        if self.residuals not in (None, "gaussian", "empirical"):
            raise OptionError(f"residuals are gaussian or empirical, not {self.residuals!r}")

    def apply(self, channel: Channel) -> Channel:
        """Return `channel` with these changes.

        Raises
        ------
        ChannelError
            If the channel has no such side.
        """
        if isinstance(channel, LimitedPrecision):
            inner, write_bits, read_bits = channel.inner, channel.write_bits, channel.read_bits
        else:
            inner, write_bits, read_bits = channel, 0, 0
        inner = self._timed(self._drawn(self._placed(inner)))
        write_bits = write_bits if self.write_bits is None else self.write_bits
        read_bits = read_bits if self.read_bits is None else self.read_bits
        if not (write_bits or read_bits):
            return inner
        return LimitedPrecision(inner=inner, write_bits=write_bits, read_bits=read_bits)

    def apply_where_possible(self, channel: Channel) -> Channel:
        """Return `channel` with those of these changes that it has a side for: a header beside the levels."""
        for name in ("residuals", "cells_on", "read_after_s", "write_bits", "read_bits"):
            with suppress(ChannelError):
                channel = Modifiers(**{name: getattr(self, name)}).apply(channel)
        return channel

    def _placed(self, channel: Channel) -> Channel:
        if self.cells_on is None:
            return channel
        if isinstance(channel, EmpiricalChannel):
            return replace(channel, table=replace(channel.table, cells_on=self.cells_on))
        if isinstance(channel, TableChannel):
            return replace(channel, cells_on=self.cells_on)
        raise ChannelError(f"{channel} does not tell devices apart, so cells-on does not apply: use a measured channel")

    def _drawn(self, channel: Channel) -> Channel:
        table = channel.table if isinstance(channel, EmpiricalChannel) else channel
        if self.residuals is None:
            return channel
        if not isinstance(table, TableChannel):
            raise ChannelError(f"{channel} was not measured pair by pair, so it has no residuals to choose")
        return table if self.residuals == "gaussian" else EmpiricalChannel(table=table)

    def _timed(self, channel: Channel) -> Channel:
        if self.read_after_s is None:
            return channel
        if isinstance(channel, StatisticalPcm | RramWan):
            return replace(channel, read_after_s=self.read_after_s)
        raise ChannelError(f"{channel} does not change with time: use pcm-drift or rram-wan for read-after")


NONE = Modifiers()


def seconds(text: str) -> float:
    """Return a time in seconds from text as 20s, 90m, 1h, 1d, 2w or 1y; a bare number is in seconds.

    Raises
    ------
    OptionError
        If it is no time, or longer than 1e12 s.

    Examples
    --------
    >>> seconds("1d")
    86400.0
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([smhdwy]?)\s*", text)
    try:
        number = float(found[1]) if found else None
    except ValueError:
        number = None
    if found is None or number is None:
        raise OptionError(f"{text!r} is not a time: write a number and s, m, h, d, w or y, as in 1d")
    time_s = number * _UNITS_S[found[2] or "s"]
    if time_s > LONGEST_S:
        raise OptionError(f"{text!r} is longer than {LONGEST_S:g} s, about {LONGEST_S / _UNITS_S['y']:,.0f} years")
    return time_s
