"""Says which planes a tensor has and when onnxruntime decodes it: the name of a decode function, and its inputs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

DOMAIN = "onnx_analog"
VERSION = 1
OLDEST_OPSET = 11  # BitShift, CumSum, ScatterElements, TopK
IR_VERSION = 8  # local functions

WIDTHS = (0, 1, 2, 4, 8)
LAST_STAGE = 6  # of the ten passes that there are; a split function takes up to nine by itself


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The planes that a tensor has, and when onnxruntime decodes it.

    Parameters
    ----------
    masked : bool
        Whether some weights are not stored, and are 0: `mask` marks those that are.
    sign : bool
        Whether signs are bits of their own.
    width : {0, 1, 2, 4, 8}
        Bits for the class of each stored weight; 0 if there is one class.
    analog : {"all", "some", "none"}
        Whether all classes hold levels. `some`: the input `analog` says which.
    grouped : bool
        Whether `alpha` and `beta` have a row for each group, (G, K); weight i belongs to group (i // stride) % G.
    aligned : bool
        Whether N, the number of stored weights, is a multiple of 8; this saves memory, and False is always right.
    stage : int, 0 to LAST_STAGE
        The pass of onnxruntime's constant folding in which decoding starts.
    split : bool
        Whether decoding takes several passes, for a tensor that holds much of the model; its stage is then 0.

    Raises
    ------
    ValueError
        If there can be no such layout.
    """

    masked: bool = False
    sign: bool = False
    width: int = 0
    analog: Literal["all", "some", "none"] = "all"
    grouped: bool = False
    aligned: bool = False
    stage: int = 0
    split: bool = False

    def __post_init__(self) -> None:
        if self.width not in WIDTHS or self.analog not in ("all", "some", "none"):
            raise ValueError(f"no layout has width {self.width!r} and analog {self.analog!r}")
        if self.analog == "some" and not self.width:
            raise ValueError("one class holds levels or does not: analog cannot be 'some' where width is 0")
        if not 0 <= self.stage <= (0 if self.split else LAST_STAGE):
            raise ValueError(f"stage is {self.stage}; it must be from 0 to {LAST_STAGE}, and 0 if split")

    @property
    def name(self) -> str:
        """The name of the function."""
        kind = {"all": "Levels", "some": "Mixed", "none": "Points"}[self.analog]
        return "".join(
            (
                "Decode",
                "Masked" * self.masked,
                "Signed" * self.sign,
                f"Class{self.width}" * (self.width > 0),
                kind,
                "Grouped" * self.grouped,
                "Aligned" * self.aligned,
                f"Stage{self.stage}" * (self.stage > 0),
                "Split" * self.split,
            )
        )


_NAME = re.compile(
    r"Decode(Masked)?(Signed)?(?:Class([1248]))?(Levels|Mixed|Points)(Grouped)?(Aligned)?(?:Stage([1-9]))?(Split)?",
    re.ASCII,
)


def layout_of(name: str) -> Layout | None:
    """Return the layout whose function has this name; None if there is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    masked, sign, width, analog, grouped, aligned, stage, split = match.groups()
    kinds: dict[str, Literal["all", "some", "none"]] = {"Levels": "all", "Mixed": "some", "Points": "none"}
    try:
        return Layout(
            masked=masked is not None,
            sign=sign is not None,
            width=int(width or 0),
            analog=kinds[analog],
            grouped=grouped is not None,
            aligned=aligned is not None,
            stage=int(stage or 0),
            split=split is not None,
        )
    except ValueError:
        return None


def inputs_of(layout: Layout) -> tuple[str, ...]:
    """Return the names of a call's inputs, in order.

    `level` float32 (M,); `mask`, `sign` and `class` packed uint8; `analog` uint8 (K,), 1 where a class holds levels;
    `alpha` and `beta` float32 (K,) or (G, K); `stride` int64 (1,); `shape` int64 (rank,).
    """
    there = {
        "level": layout.analog != "none",
        "mask": layout.masked,
        "sign": layout.sign,
        "class": layout.width > 0,
        "analog": layout.analog == "some",
        "alpha": True,
        "beta": True,
        "stride": layout.grouped,
        "shape": True,
    }
    return tuple(name for name, used in there.items() if used)


# ----------------------------------------------------------------------------------------------------- stages

_FEW = 2**20  # weights of a model that needs no stages
_LARGE = 4  # a tensor with more than a fourth of the weights is split


def stages(sizes: Sequence[int]) -> list[tuple[int, bool]]:
    """Return `stage` and `split` for each tensor of a model, in order.

    Parameters
    ----------
    sizes : sequence of int
        Weights of each tensor, whether stored or not.

    Examples
    --------
    >>> stages([10, 20])
    [(0, False), (0, False)]
    >>> stages([2**20] * 4 + [2**24])
    [(0, False), (1, False), (3, False), (5, False), (0, True)]
    """
    total = sum(sizes)
    if total < _FEW:
        return [(0, False) for _ in sizes]
    large = [size * _LARGE > total for size in sizes]
    rest = sum(size for size, apart in zip(sizes, large, strict=True) if not apart)
    result, before = list[tuple[int, bool]](), 0
    for size, apart in zip(sizes, large, strict=True):
        result.append((0, True) if apart else (before * (LAST_STAGE + 1) // rest, False))
        before += 0 if apart else size
    return result
