"""Says how a tensor is stored.

A weight w of a stored tensor becomes a level and side information. Weights are divided into K classes by size; each
class has its own α and β, and r cells for each of its weights:

    level = α·size - β     size = (level + β)/α     size = |w| where a bit holds the sign, w where the level does

A class with r = 0 has no cells: each of its weights is read as the same number, its reconstruction point. A scheme all
of whose classes have no cells quantises weights, without analog cells. The paper's schemes are members of this family:
see `onnx_analog.coding.paper`.

Nothing heavy is imported here until a scheme is made, so that the command line can list its choices at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from onnx_analog.arguments import Arguments
from onnx_analog.coding.paper import GRANULARITIES as GRANULARITIES
from onnx_analog.coding.paper import LARGE_FACTOR as LARGE_FACTOR
from onnx_analog.coding.paper import LARGE_SHARE as LARGE_SHARE
from onnx_analog.coding.paper import MOST_CELLS as MOST_CELLS
from onnx_analog.coding.paper import PRESETS as PRESETS
from onnx_analog.coding.paper import PRESETS_IN_WORDS as PRESETS_IN_WORDS
from onnx_analog.coding.paper import STRATEGIES as STRATEGIES
from onnx_analog.coding.paper import Paper as Paper
from onnx_analog.coding.paper import Preset as Preset
from onnx_analog.coding.paper import Row as Row
from onnx_analog.coding.stored_channels import by_name, from_file, without_residuals, without_unused
from onnx_analog.display import counted, html_table
from onnx_analog.errors import ChannelError, OptionError
from onnx_analog.settings import (
    check_names,
    check_settings,
    check_values,
    is_number,
    named,
    setting,
    settings_of,
)

if TYPE_CHECKING:
    from onnx_analog.coding.estimators import Estimator
    from onnx_analog.coding.side import SideInformation

SIGNS = ("bit", "level")
PARTITIONS = ("share", "bounds", "lloyd", "uniform")
SEGMENT_WEIGHTS = 65_536
BLOCK_BITS = 4096  # of data
BLOCK_FAILURE = 1e-9
ROUNDINGS = ("together", "alone")
ENTROPIES = ("none", "static", "context")
CODES = ("none", "bch", "soft")
CHANNELS = ("channel", "side_channel")  # settings that are channels
_OF_STEPS = ("step", "relative_step", "rate_weight")
MOST_CLASSES = 256
MOST_SEED = 2**32 - 1  # of masks


@named
@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How one tensor is stored.

    Two schemes are equal if all their settings are. The defaults are the paper's adaptive redundancy in each tensor;
    with two classes, `shares` is 0.05 by default.

    Raises
    ------
    OptionError
        If a setting is out of its range, or two contradict each other.

    Examples
    --------
    >>> Scheme.paper("redundancy", cells_small=1, cells_large=20)
    Scheme('redundancy', cells 1 and 20, share 0.05)
    >>> Scheme.from_dict(Scheme.int8().to_dict()) == Scheme.int8()
    True
    """

    sign: str = setting("bit", choices=SIGNS, help="Whether a bit or the level holds the sign.")
    classes: int = setting(2, least=1, most=MOST_CLASSES, help="Number of classes; weights are divided by size.")
    partition: str = setting(
        "share",
        choices=PARTITIONS,
        help="How weights are divided into classes: by share, by given bounds, by Lloyd's method, or in equal steps.",
    )
    shares: tuple[float, ...] = setting(
        None,
        least=0,
        most=1,
        help="With partition share: shares of the classes above the first.",
    )
    bounds: tuple[float, ...] = setting((), help="With partition bounds: ascending sizes between the classes.")
    step: float | None = setting(
        None, above=0, help="With partition uniform: the step, in the unit of the weights.  [default: fits the largest]"
    )
    relative_step: float | None = setting(
        None, above=0, help="With partition uniform: the step over the root mean square of the stored weights."
    )
    rate_weight: float = setting(
        0.0,
        least=0,
        help="With partition uniform and no cells: squared error, in steps², that saving one bit is worth.",
    )
    rounding: str = setting(
        "together",
        choices=ROUNDINGS,
        help="With signed equal steps and no cells: whether weights make up for each other's errors where samples "
        "compensate, or each is rounded alone.",
    )
    cells: tuple[int, ...] = setting(
        (1, 20),
        least=0,
        most=MOST_CELLS,
        help="Cells per weight of each class, the smallest first; one number for all.",
    )
    granularity: str = setting(
        "tensor",
        choices=GRANULARITIES,
        synonyms=("scope",),
        help="What shares α and β: a tensor, an output channel, or the model.",
    )
    channel: Any = setting(None, help="Model of the cells: a name, name:key=value,..., or a JSON file.")
    estimator: str = setting(
        "affine", help="How a level is estimated from a read: affine, clipped, posterior, unbiased, or module:Class."
    )
    side_bits_per_cell: int = setting(
        2, least=1, most=8, synonyms=("bits_per_cell",), help="Bits per cell of side information and mask."
    )
    side_channel: Any = setting(
        None, help="Channel of the side information (sign and class bits).  [default: free of error]"
    )
    side_cells: int = setting(
        1, least=1, most=1000, help="Cells that are averaged for each symbol of side information."
    )
    side_copies: int = setting(
        1, least=1, most=999, odd=True, help="Copies of each of these symbols; the majority decides; odd."
    )
    entropy: str = setting(
        "none",
        choices=ENTROPIES,
        help="Entropy coding of class index and mask: none, static tables, or tables by context where shorter.",
    )
    segment_weights: int = setting(
        SEGMENT_WEIGHTS,
        least=1,
        most=2**40,
        help="Weights of an entropy-coded segment; a failed block loses the rest of one.",
    )
    mask_seed: int | None = setting(
        None,
        least=0,
        most=MOST_SEED,
        help="Seed that is stored in place of the masks that follow from it.  [default: all masks are stored]",
    )
    code: str = setting(
        "bch",
        choices=CODES,
        help="Code that protects digital streams as the memory allows: none, bch, or soft decisions (assumed).",
    )
    block_bits: int = setting(BLOCK_BITS, least=8, most=2**15, help="Data bits of a block of the code.")
    block_failure: float = setting(
        BLOCK_FAILURE, above=0, most=1, help="Largest chance that a block of the code cannot be corrected."
    )

    def __post_init__(self) -> None:
        shares: object = self.shares
        if shares is None:
            object.__setattr__(self, "shares", ())
        self._resolve_channels()
        check_settings(self)
        if shares is None and (self.partition, self.classes) == ("share", 2):
            object.__setattr__(self, "shares", (LARGE_SHARE,))
        self._check_cells()
        self._check_partition()
        self._check_side()
        self._check_estimator()
        # Schemes that store alike are equal.
        if len(set(self.cells)) == 1:
            object.__setattr__(self, "cells", self.cells[:1])
        if self.classes == 1:
            object.__setattr__(self, "partition", "share")
        if not self.is_compensable:
            object.__setattr__(self, "rounding", "together")

    def _resolve_channels(self) -> None:
        from onnx_analog import channels

        given = {
            "channel": channels.DEFAULT if self.channel is None else self.channel,
            "side_channel": self.side_channel,
        }
        for name, channel in given.items():
            if channel is not None:
                object.__setattr__(self, name, without_unused(channels.resolve(channel)))

    def _check_cells(self) -> None:
        if len(self.cells) not in (1, self.classes):
            raise OptionError(
                f"cells has {len(self.cells)} numbers, and classes is {self.classes}; give one number, or one for each "
                "class"
            )
        if self.classes == 1 and self.analog == "none":
            raise OptionError("cells is 0 with one class: every weight would be read as the same number")
        most = self.channel.most_cells
        if most is not None and max(self.cells) > most:
            raise ChannelError(
                f"{self.channel} is read cell by cell, so a weight can have at most {most:,} cells; here it has "
                f"{max(self.cells):,}"
            )

    def _check_partition(self) -> None:
        for name, partition in (("shares", "share"), ("bounds", "bounds")):
            count, needed = len(getattr(self, name)), self.classes - 1 if self.partition == partition else 0
            if count != needed:
                raise OptionError(
                    f"{name} has {counted(count, 'number')}; as partition is {self.partition!r} and classes is "
                    f"{self.classes}, it must have {needed}"
                )
        if sum(self.shares) > 1 + 1e-9:
            raise OptionError(f"shares add up to {sum(self.shares):g}; they must add up to 1 or less")
        ascending = list(self.bounds) == sorted(set(self.bounds))
        if not ascending or (self.sign == "bit" and min(self.bounds, default=1) <= 0):
            listed = ", ".join(f"{bound:g}" for bound in self.bounds[:8]) + ", ..." * (len(self.bounds) > 8)
            raise OptionError(f"bounds are {listed}; they must ascend, and be above 0 where a bit holds the sign")
        for name in _OF_STEPS:
            value = getattr(self, name)
            if value and (self.partition != "uniform" or self.classes == 1):
                raise OptionError(
                    f"{name} is {value:g}; partition {self.partition!r} with classes {self.classes} has no step"
                )
        if self.step is not None and self.relative_step is not None:
            raise OptionError("step and relative_step exclude each other: give one of them")
        if self.rate_weight and self.analog != "none":
            raise OptionError(
                f"rate_weight is {self.rate_weight:g}, and some classes have cells, which hold what the class leaves "
                "of a weight: leave one of them out"
            )

    def _check_side(self) -> None:
        if self.side_channel is None and (self.side_cells, self.side_copies) != (1, 1):
            raise OptionError(
                "side_cells and side_copies need a side_channel: without one, side information is free of error"
            )
        if self.side_channel is not None and self.entropy != "none":
            raise OptionError(
                "side_channel and entropy exclude each other: an entropy-coded stream cannot be read with wrong bits"
            )
        if self.code == "none" and self.entropy == "none" and self.analog == "some":
            raise OptionError(
                "code none leaves class bits wrong, and some classes have cells and others none: a class that is read "
                "wrongly would move the addresses of all cells after it. Give a code, or the same number of cells"
            )
        if self.side_channel is not None and self.analog == "some":
            raise OptionError(
                "side_channel cannot be given where some classes have cells and others none: a class that is read "
                "wrongly would move the addresses of all cells after it"
            )
        _ = self.side  # it checks itself

    def _check_estimator(self) -> None:
        from onnx_analog.coding.estimators import estimator

        estimator(self.estimator)

    def __reduce__(self) -> tuple[Any, ...]:
        from onnx_analog.coding.estimators import estimator

        kind = type(estimator(self.estimator)) if ":" in self.estimator else None
        return _restored, (dict(self.__dict__), kind)

    # -------------------------------------------------------------------------------------- what follows from it

    @property
    def cells_of_class(self) -> tuple[int, ...]:
        """Cells per weight of each class (K,)."""
        return self.cells * self.classes if len(self.cells) == 1 else self.cells

    @property
    def is_compensable(self) -> bool:
        """Whether weights could make up for each other's errors: they are in signed equal steps, without cells."""
        return self.analog == "none" and self.sign == "level" and self.partition == "uniform"

    @property
    def shares_tables(self) -> bool:
        """Whether classes with the same number of cells share the table of an estimator, as those of equal steps do."""
        return self.partition == "uniform"

    @property
    def table_bits(self) -> int:
        """Bits of the tables of the estimator, for each tensor."""
        from onnx_analog.coding.estimators import estimator, tables_of

        return estimator(self.estimator).table_bits(tables_of(self.cells_of_class, shared=self.shares_tables))

    @property
    def analog(self) -> Literal["all", "some", "none"]:
        """Whether "all", "some" or "none" of the classes have cells."""
        have = [cells > 0 for cells in self.cells]
        return "all" if all(have) else "some" if any(have) else "none"

    @property
    def index_bits(self) -> int:
        """Bits of a class index: ⌈log2 K⌉."""
        return (self.classes - 1).bit_length()

    @property
    def side_bits(self) -> int:
        """Bits of sign and class index for each stored weight."""
        return (self.sign == "bit") + self.index_bits

    @cached_property
    def side(self) -> SideInformation | None:
        """How side information is stored; None if it is free of error."""
        if self.side_channel is None:
            return None
        from onnx_analog.coding.side import SideInformation

        return SideInformation(
            channel=self.side_channel,
            bits_per_cell=self.side_bits_per_cell,
            cells=self.side_cells,
            copies=self.side_copies,
        )

    # ------------------------------------------------------------------------------------------------ constructors

    @staticmethod
    def paper(strategy: str | None = None, **settings: Any) -> Scheme:
        """Return a row of the paper's Table 1, from settings of `Paper`, and further settings of `Scheme`."""
        return Paper.scheme_of({"strategy": strategy, **settings})

    @staticmethod
    def integers(bits: int, **others: Any) -> Scheme:
        """Return quantisation to signed integers of `bits` bits, 2 to 8, with one scale for each group.

        The scale fits the largest magnitude to 2^(bits - 1) - 1; the most negative integer is not used.
        """
        bits = settings_of(Arguments)["integers"][0].check("bits", bits, int)
        return _signed_steps(f"integers of {bits} bits fix", others, classes=2**bits - 1, cells=(0,))

    @staticmethod
    def int8(**others: Any) -> Scheme:
        """Return quantisation to 8-bit integers."""
        return Scheme.integers(8, **others)

    @staticmethod
    def int4(**others: Any) -> Scheme:
        """Return quantisation to 4-bit integers."""
        return Scheme.integers(4, **others)

    @staticmethod
    def entropy_coded(step: float, **others: Any) -> Scheme:
        """Return quantisation in equal steps with an entropy-coded index, without analog cells.

        Parameters
        ----------
        step : float, > 0
            Over the root mean square of the stored weights.
        others : optional
            Further settings; `entropy` is "context", and the points keep the gain of a layer (`estimator` is
            "unbiased"), unless they say otherwise.
        """
        return _steps_with_index("entropy-coded quantisation fixes", others, relative_step=step, cells=(0,))

    @staticmethod
    def refined(step: float, cells: int = 1, **others: Any) -> Scheme:
        """Return the same entropy-coded index with analog cells for what is left of a weight within its step.

        Parameters
        ----------
        step, others
            As in `entropy_coded`.
        cells : int, >= 1
            For each weight.
        """
        if isinstance(cells, int) and cells < 1:
            raise OptionError(f"cells is {cells}; it must be 1 or more")
        return _steps_with_index("refined quantisation fixes", others, relative_step=step, cells=(cells,))

    # ---------------------------------------------------------------------------------------------------- JSON

    def to_file(self) -> dict[str, Any]:
        """Return the settings as a plan's file has them: installed channels by name; `from_dict` reads them too."""
        body = self.to_dict()
        return {**body, **{name: by_name(body[name]) for name in CHANNELS if body[name] is not None}}

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, ready for JSON; `from_dict` is the inverse."""
        body = {name: getattr(self, name) for name in settings_of(Scheme)}
        return {
            name: list(value)
            if isinstance(value, tuple)
            else without_residuals(value.to_dict())
            if hasattr(value, "to_dict")
            else value
            for name, value in body.items()
        }

    @staticmethod
    def from_dict(body: Any) -> Scheme:
        """Return the scheme that `to_dict` describes; a channel may be given by name too. No code is imported.

        Raises
        ------
        OptionError
            If a setting is unknown, of another type, or out of its range.
        ChannelError
            If a channel is not installed, or not with these options.
        """
        from onnx_analog.coding.estimators import check_known

        if not isinstance(body, Mapping):
            raise OptionError(f"a scheme is {json.dumps(body)[:40]}; it must be an object")
        check_names("a scheme has no setting", body, settings_of(Scheme))
        check_known(body.get("estimator"))
        number = next((name for name in ("shares", "bounds") if is_number(body.get(name))), None)
        if number is not None:  # one number stands for a list in Python only
            raise OptionError(f"{number} is {body[number]}; it must be a list")
        channels = {name: from_file(body[name], name) for name in CHANNELS if name in body}
        return Scheme(**{**body, **channels})

    def digest(self) -> str:
        """Return the SHA-256 of all settings, as hex."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def changed(self, **changes: Any) -> Scheme:
        """Return the scheme with other settings.

        With another partition or number of classes, `shares` and `bounds` have their defaults unless they are given;
        with another partition or one class, the settings of a step too.
        """
        changes = with_checked_classes(changes)
        classes, partition = changes.get("classes", self.classes), changes.get("partition", self.partition)
        if (classes, partition) != (self.classes, self.partition):
            changes = {"shares": None, "bounds": (), **changes}
        if classes == 1 or partition != self.partition:
            changes = {"step": None, "relative_step": None, "rate_weight": 0.0, **changes}
        elif "step" in changes or "relative_step" in changes:
            changes = {"step": None, "relative_step": None, **changes}
        return replace(self, **changes)

    def summary(self, *, channel: bool = True) -> str:
        """Return in words what differs from the defaults; without the channel where a table has a column for it."""
        from onnx_analog.coding.words import summary

        return summary(self, channel=channel)

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        name, _, rest = str(self).partition(", ")
        return f"Scheme({name!r}, {rest})"

    def _repr_html_(self) -> str:
        values = {name: getattr(self, name) for name in settings_of(Scheme)}
        rows = [(name, "none" if value is None else value) for name, value in values.items()]
        return html_table("Scheme", ("setting", "value"), rows)


def _signed_steps(who: str, others: Mapping[str, Any], **more: Any) -> Scheme:
    """Return classes of equal steps on both sides of zero; `others` are refused where `who` fix them."""
    fixed = {"sign": "level", "partition": "uniform", **more}
    for name in sorted(fixed.keys() & others.keys()):
        raise OptionError(f"{name} is given, and {who} it: leave it out")
    return Scheme(**fixed, **others)


def _steps_with_index(who: str, others: Mapping[str, Any], **more: Any) -> Scheme:
    settings = {"entropy": "context", "estimator": "unbiased", **others}
    return _signed_steps(who, settings, classes=MOST_CLASSES - 1, **more)


def with_checked_classes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings; the number of classes and the partition, on which others depend, are checked."""
    chosen = {name: settings[name] for name in ("classes", "partition") if name in settings}
    return {**settings, **check_values(Scheme, chosen)}


def _restored(settings: dict[str, Any], kind: type[Estimator] | None) -> Scheme:
    """Return the scheme in another process, which gets the class of its estimator with it."""
    from onnx_analog.coding.estimators import remember

    scheme = object.__new__(Scheme)
    scheme.__dict__.update(settings)
    if kind is not None:
        remember(scheme.estimator, kind)
    return scheme
