"""Digital streams of stored tensors: what they hold, and the cells that they take in the memory as it is.

A tensor has a sign and a class index for each stored weight, a mask that says which weights are stored, or the seed
that the mask follows from, and a codebook (α, β, points, and the tables of an estimator). Each is a stream of bits,
which is stored in cells of the tensor's own channel, as its scheme says:

| code | sign and class, unless entropy-coded | all other streams |
|---|---|---|
| none | two symbols per cell; bits that are read wrongly stay wrong | each bit in as many cells as it needs |
| bch  | symbols with a BCH code | the same |
| soft | a stated share of the soft-decision bound; assumed | the same |

What decoding takes is one of `DECODING`, each of which includes those before: thresholds and scales; tables of an
estimator; a hard-decision decoder, or an entropy decoder; a soft-decision decoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import NamedTuple

from onnx_analog.channels import Channel
from onnx_analog.coding.codes import EFFORTS, CellCode, best_code, repeated
from onnx_analog.coding.contexts import MOST_AREA, Kernel
from onnx_analog.coding.estimators import estimator
from onnx_analog.coding.joint import Named, index_and_mask
from onnx_analog.coding.masks import SEED_BITS
from onnx_analog.coding.partition import Bits, Bytes
from onnx_analog.coding.scheme import Scheme

NAMES = ("sign", "class", "mask", "mask seed", "mask and class", "codebook")
DECODING = ("none", "table", "hard", "soft")
LEVELS, SIDE = "levels", "analog side information"  # lines of cells that hold levels


class Stream(NamedTuple):
    """A stream of one tensor: one of `NAMES`, its bits before a code is added, and whether they are entropy-coded."""

    name: str
    bits: int
    entropy_coded: bool


def index_streams(
    scheme: Scheme,
    shape: Sequence[int],
    count: int,
    class_index: Bytes | None,
    mask: Bits | None,
    *,
    seeded: bool = False,
) -> tuple[Stream, ...]:
    """Return the streams that hold the class of each stored weight, and which weights are stored.

    Parameters
    ----------
    scheme : Scheme
    shape : ints
        Of the tensor.
    count : int
        N, the stored weights.
    class_index : uint8 array (N,), or None
        None if there is one class. Neither array is looked at without entropy coding.
    mask : bool array (n,), or None
        None if all weights are stored.
    seeded : bool
        The mask follows from the scheme's seed, which is stored in its place.
    """
    seed = [Stream("mask seed", SEED_BITS, entropy_coded=False)] if seeded else []
    if scheme.entropy == "none":
        raw = (("class", count * scheme.index_bits), ("mask", 0 if mask is None or seeded else mask.size))
        return (*(Stream(name, bits, entropy_coded=False) for name, bits in raw if bits), *seed)
    coded = encoded_index(scheme, shape, class_index, mask, seeded=seeded)
    return (*(Stream(name, stream.bits, entropy_coded=True) for name, stream in coded), *seed)


def encoded_index(
    scheme: Scheme, shape: Sequence[int], class_index: Bytes | None, mask: Bits | None, *, seeded: bool = False
) -> tuple[Named, ...]:
    """Return the entropy-coded streams that hold the class of each stored weight, and which weights are stored.

    Of a mask that follows from a seed, there is no stream. The stored weights alone have no kernel.
    """
    return index_and_mask(
        class_index,
        None if seeded else mask,
        scheme.classes,
        zero=scheme.classes // 2 if scheme.sign == "level" else 0,
        model=scheme.entropy,
        segment=scheme.segment_weights,
        kernel=None if seeded else kernel_of(shape),
    )


def streams_from(bits: Mapping[str, int], scheme: Scheme) -> tuple[Stream, ...]:
    """Return streams from their lengths by name."""
    coded = ("class", "mask", "mask and class") if scheme.entropy != "none" else ()
    return tuple(Stream(name, length, entropy_coded=name in coded) for name, length in bits.items())


def codebook_bits(scheme: Scheme, groups: int) -> int:
    """Return the bits of a codebook: float32 numbers, for each group.

    Of equal steps they are the step and, where classes have cells, the ends of the sizes; the step is one for all
    groups if the scheme gives it, and no gain scales it.
    """
    if scheme.partition == "uniform" and scheme.classes > 1:
        steps = 1 if scheme.step is not None and not estimator(scheme.estimator).keeps_gain else groups
        ends = 0 if scheme.analog == "none" else groups * (2 if scheme.sign == "level" else 1)
        return 32 * (steps + ends)
    return 32 * groups * sum(2 if cells else 1 for cells in scheme.cells_of_class)


def kernel_of(shape: Sequence[int]) -> Kernel | None:
    """Return the last two dimensions of a convolution's weight, whose elements resemble each other; else None."""
    if len(shape) < 3:
        return None
    kernel = (1 if len(shape) == 3 else int(shape[-2]), int(shape[-1]))
    return kernel if 1 < kernel[0] * kernel[1] <= MOST_AREA else None


# ------------------------------------------------------------------------------------------------------- codes


def code_of(scheme: Scheme, stream: str, *, entropy_coded: bool) -> CellCode:
    """Return the code that stores a stream of a tensor.

    Raises
    ------
    OptionError
        If the scheme's channel is too noisy for its code.
    """
    local = stream in ("sign", "class") and not entropy_coded  # an error does no harm beyond its weight
    if scheme.code == "none" and not local:
        return repeated(scheme.channel, scheme.block_failure / scheme.block_bits)
    return best_code(scheme.channel, scheme.code, block_bits=scheme.block_bits, block_failure=scheme.block_failure)


class Kind(NamedTuple):
    """What streams have in common that are stored one after the other, in the same blocks."""

    name: str
    channel: Channel
    code: CellCode
    entropy_coded: bool


def kind_of(scheme: Scheme, stream: Stream) -> Kind | None:
    """Return how a stream of a tensor is stored; None of signs and classes in cells of analog side information.

    Raises
    ------
    OptionError
        If the scheme's channel is too noisy for its code.
    """
    if scheme.side_channel is not None and stream.name in ("sign", "class"):
        return None
    code = code_of(scheme, stream.name, entropy_coded=stream.entropy_coded)
    return Kind(stream.name, scheme.channel, code, stream.entropy_coded)


# ---------------------------------------------------------------------------------------------------- countings


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a counting.

    Attributes
    ----------
    name : str
        `LEVELS`, `SIDE`, or of `NAMES`.
    bits : int or None
        Before a code is added; None of analog levels.
    code : str or None
        The code; None where bits are taken to be free of error, or are analog.
    bits_per_cell : float or None
        Before the last block is shortened.
    cells : int
    decoding : str
        Of `DECODING`.
    symbols : int or None
        Symbols per cell.
    block_failure : float or None
        Chance that a block of the code cannot be corrected; None where no blocks are counted.
    """

    name: str
    bits: int | None = None
    code: str | None = None
    symbols: int | None = None
    bits_per_cell: float | None = None
    block_failure: float | None = None
    cells: int
    decoding: str = "none"


class Payload(NamedTuple):
    """What a tensor takes: its scheme, the cells of its levels, those of analog side information, and its streams."""

    scheme: Scheme
    level_cells: int
    side_cells: int  # 0 unless the scheme has a side_channel
    streams: Sequence[Stream]


def honest_lines(tensors: Iterable[Payload]) -> tuple[Line, ...]:
    """Return what tensors take in the memory as it is, with the code that each stream needs.

    Streams of the same name and code are stored one after the other, so only the last block of all is shortened.

    Raises
    ------
    OptionError
        If a channel is too noisy for the code of a scheme.
    """
    analog: dict[tuple[str, str], int] = {}
    digital: dict[Kind, int] = {}
    for payload in tensors:
        levels = (LEVELS, "table" if payload.scheme.table_bits else "none")
        analog[levels] = analog.get(levels, 0) + payload.level_cells
        side = (SIDE, "none")
        analog[side] = analog.get(side, 0) + payload.side_cells
        for kind, bits in _kinds(payload):
            digital[kind] = digital.get(kind, 0) + bits
    lines = [Line(name=name, cells=cells, decoding=decoding) for (name, decoding), cells in analog.items() if cells]
    for name in NAMES:
        lines += [_line(*kind, bits) for kind, bits in digital.items() if kind.name == name and bits]
    return tuple(lines)


def honest_split(tensors: Iterable[Payload]) -> tuple[dict[str, int], ...]:
    """Return the cells of each tensor, by the name of the line that `honest_lines` counts them in.

    Where tensors share the blocks of a line, its cells are shared out by bits, so that all cells add up to those of
    the lines.

    Raises
    ------
    OptionError
        If a channel is too noisy for the code of a scheme.
    """
    split = list[dict[str, int]]()
    together: dict[Kind, list[tuple[int, int]]] = {}  # tensor and bits of all that is stored together
    for number, payload in enumerate(tensors):
        split.append({LEVELS: payload.level_cells, SIDE: payload.side_cells})
        for kind, bits in _kinds(payload):
            together.setdefault(kind, []).append((number, bits))
    for kind, owners in together.items():
        bits_of = [bits for _, bits in owners]
        cells = apportioned(_line(*kind, sum(bits_of)).cells, bits_of)
        for (number, _), own in zip(owners, cells, strict=True):
            split[number][kind.name] = split[number].get(kind.name, 0) + own
    return tuple(split)


def apportioned(cells: int, bits: Sequence[int]) -> list[int]:
    """Return whole numbers that add up to `cells`, each less than 1 from the share of its bits; without bits, 0.

    >>> apportioned(10, [1, 1, 1]), apportioned(4, [0, 0])
    ([3, 3, 4], [0, 0])
    """
    ends = [cells * end // max(sum(bits), 1) for end in accumulate(bits, initial=0)]
    return [end - start for start, end in pairwise(ends)]


def _kinds(payload: Payload) -> Iterator[tuple[Kind, int]]:
    """Yield how each stream of a tensor is stored, and its bits; analog side information is not among them."""
    for stream in payload.streams:
        kind = kind_of(payload.scheme, stream)
        if kind is not None:
            yield kind, stream.bits


def _line(name: str, channel: Channel, code: CellCode, entropy_coded: bool, bits: int) -> Line:
    cells = channel.devices_per_cell * code.cells(bits)
    decoding = hardest([code.effort, "hard" if entropy_coded else "none"])
    return Line(
        name=name,
        bits=bits,
        code=code.name,
        symbols=code.symbols,
        bits_per_cell=code.bits_per_cell,
        block_failure=None if code.block is None else code.block.failure,
        cells=cells,
        decoding=decoding,
    )


def decodings_of(payload: Payload) -> Iterator[str]:
    """Yield what decoding takes for each part of a tensor, whether or not a code is good enough for its channel."""
    scheme = payload.scheme
    if payload.level_cells:
        yield "table" if scheme.table_bits else "none"
    for stream in payload.streams:
        if stream.bits and (scheme.side_channel is None or stream.name not in ("sign", "class")):
            yield hardest([EFFORTS[scheme.code], "hard" if stream.entropy_coded else "none"])


def hardest(decoding: Iterable[str]) -> str:
    """Return what takes most of several things that decoding takes."""
    return max(decoding, key=DECODING.index, default="none")
