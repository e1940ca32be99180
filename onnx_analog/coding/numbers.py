"""Cells that hold numbers which a reader keeps in the memory itself, without errors: those of a correction."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from types import MappingProxyType

from onnx_analog.arguments import DEFAULTS
from onnx_analog.channels import Channel
from onnx_analog.coding.codes import CellCode
from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import code_of
from onnx_analog.errors import OptionError

NUMBER_BITS = 16  # of a gain or a shift: a float16 number
_CODES = MappingProxyType(  # by what decoding takes
    {"none": ("none",), "table": ("none",), "hard": ("bch", "none"), "soft": ("soft", "bch", "none")}
)


@lru_cache(maxsize=64)
def codes_for(channel: Channel, decoding: str) -> tuple[str, ...]:
    """Return the code that holds the most bits without errors in a cell of a channel, and "none" if that can be used.

    Parameters
    ----------
    channel : Channel
    decoding : str
        Of `onnx_analog.coding.streams.DECODING`: the most that decoding may take.

    Raises
    ------
    OptionError
        If the channel is too noisy for all codes.
    """
    held = {name: _bits_per_cell(channel, name) for name in _CODES[decoding]}
    best = max(held, key=lambda name: held[name])
    if not held[best]:
        _code(channel, best)  # which says why
    return tuple(dict.fromkeys((best, *(["none"] if held["none"] else []))))


def _bits_per_cell(channel: Channel, name: str) -> float:
    """Return the bits without errors that a cell holds with a code; 0 if the channel is too noisy for it."""
    try:
        return _code(channel, name).bits_per_cell
    except OptionError:
        return 0.0


def _code(channel: Channel, name: str) -> CellCode:
    return code_of(Scheme(channel=channel, code=name), "codebook", entropy_coded=False)


def cells_of_numbers(numbers: int, channel: Channel, decoding: str, counting: str = DEFAULTS.counting) -> float:
    """Return the cells that hold float16 numbers of a correction: a share of the last block, as of other streams.

    Raises
    ------
    OptionError
        If the channel is too noisy for all codes.
    """
    if not numbers:
        return 0.0
    if counting == "paper":
        return paper_cells_of_numbers(numbers)
    code = _code(channel, codes_for(channel, decoding)[0])
    return channel.devices_per_cell * NUMBER_BITS * numbers / code.bits_per_cell


def paper_cells_of_numbers(numbers: int, schemes: Iterable[Scheme] = ()) -> float:
    """Return the cells that hold float16 numbers as the paper counts: like side information, free of error.

    Of several schemes, that with the fewest bits in a cell counts; without any, a scheme with default settings.
    """
    bits = min((scheme.side_bits_per_cell for scheme in schemes), default=Scheme().side_bits_per_cell)
    return NUMBER_BITS * numbers / bits
