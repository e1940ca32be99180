"""Changes that a user may ask of any channel, beside its name; `Channel.changed` makes them."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import asdict, dataclass

from onnx_analog.arguments import LONGEST_S, ModifierSettings
from onnx_analog.channels.base import Channel
from onnx_analog.errors import ChannelError, OptionError
from onnx_analog.settings import check_settings, named

_UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0, "y": 31_557_600.0}


@named
@dataclass(frozen=True, kw_only=True)
class Modifiers(ModifierSettings):
    """Changes to a channel; None leaves a property as it is.

    Parameters
    ----------
    residuals : {"gaussian", "empirical"}, optional
        Normal noise, or noise drawn from measured residuals. For channels made from measurements.
    cells_on : {"different", "same"}, optional
        Whether the cells of a weight are on different devices. For channels that were fitted with a column of devices.
    cells_hold : {"level", "residual"}, optional
        Whether the cells of a weight all hold its level, or each what the cells before it are short of. For channels
        that separate programming from reading.
    read_after_s : float, 0 to 1e12, optional
        Seconds between programming and read. For channels that drift.
    write_bits, read_bits : int, 0 to 16, optional
        Bits of precision; 0 removes a limit.
    """

    def __post_init__(self) -> None:
        check_settings(self)

    def apply(self, channel: Channel) -> Channel:
        """Return `channel` with these changes.

        Raises
        ------
        ChannelError
            If the channel does not have a property, or does not accept its value.
        """
        return channel.changed(**asdict(self)) if self != NONE else channel

    def apply_where_possible(self, channel: Channel) -> Channel:
        """Return `channel` with those of these changes that it accepts; side information may have another channel."""
        for name, value in asdict(self).items():
            with suppress(ChannelError):
                channel = Modifiers(**{name: value}).apply(channel)
        return channel


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
    parts = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([smhdwy]?)\s*", text)
    try:
        number = float(parts[1]) if parts else None
    except ValueError:
        number = None
    if parts is None or number is None:
        raise OptionError(f"{text!r} is not a time: write a number and s, m, h, d, w or y, as in 1d")
    time_s = number * _UNITS_S[parts[2] or "s"]
    if time_s > LONGEST_S:
        raise OptionError(f"{text!r} is longer than {LONGEST_S:g} s, about {LONGEST_S / _UNITS_S['y']:,.0f} years")
    return time_s
