"""The settings in which Isik et al. 2020 describe their schemes, and the schemes that they stand for.

The rows of Table 1 of their paper are members of the family of `onnx_analog.coding.scheme`:

| strategy   | row of Table 1         | sign in   | classes | cells            |
|------------|------------------------|-----------|---------|------------------|
| raw        | PCM + inverse channel  | the level | 1       | r                |
| sign       | + sign protection      | a bit     | 1       | r                |
| mapping    | + adaptive mapping     | a bit     | 2       | r for both       |
| redundancy | + adaptive redundancy  | a bit     | 2       | r_small, r_large |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from onnx_analog.coding.exclusive import check_exclusive
from onnx_analog.errors import OptionError
from onnx_analog.settings import check_names, check_settings, named, setting, settings_of, synonyms_of

if TYPE_CHECKING:
    from onnx_analog.coding.scheme import Scheme

GRANULARITIES = ("tensor", "channel", "model")
MOST_CELLS = 10**12  # of a weight
LARGE_SHARE = 0.05
CELLS_LARGE = 20  # per large weight, where a strategy gives large weights cells of their own number
LARGE_FACTOR = 20  # cells per large weight for each cell per small one, where a sweep says "c cells"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the paper's Table 1."""

    row: str  # its name there
    sign: str
    classes: int
    adaptive: bool  # large weights get cells of their own number

    def cells(self, small: int, large: int) -> tuple[int, ...]:
        """Return cells per weight of each class."""
        return (small,) if self.classes == 1 else (small, large if self.adaptive else small)


STRATEGIES = MappingProxyType(
    {
        "raw": Row(row="PCM + inverse channel", sign="level", classes=1, adaptive=False),
        "sign": Row(row="+ sign protection", sign="bit", classes=1, adaptive=False),
        "mapping": Row(row="+ adaptive mapping", sign="bit", classes=2, adaptive=False),
        "redundancy": Row(row="+ adaptive redundancy", sign="bit", classes=2, adaptive=True),
    }
)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Granularity and share of large weights that belong together."""

    granularity: str
    large_fraction: float

    def __str__(self) -> str:
        return f"granularity {self.granularity} and large_fraction {self.large_fraction:g}"


PRESETS = MappingProxyType(
    {
        "default": Preset(granularity="tensor", large_fraction=LARGE_SHARE),
        "isik2020": Preset(granularity="model", large_fraction=0.0025),  # appendix D.1: 99.75 % are small
    }
)
PRESETS_IN_WORDS = "; ".join(
    f"{name} has {each.granularity} and {each.large_fraction:g}" for name, each in PRESETS.items()
)


@named
@dataclass(frozen=True, kw_only=True)
class Paper:
    """The settings in which the paper describes its schemes; `scheme` returns what they stand for."""

    strategy: str = setting(
        "redundancy", choices=tuple(STRATEGIES), help="How sign and magnitude are stored: a row of the paper's Table 1."
    )
    cells_small: int = setting(1, least=1, most=MOST_CELLS, help="Cells per small weight.")
    cells_large: int | None = setting(
        None, least=1, most=MOST_CELLS, help="Cells per large weight.  [default: 20, or cells per small weight]"
    )
    preset: str = setting(
        "default", choices=tuple(PRESETS), help=f"Granularity and large fraction: {PRESETS_IN_WORDS}."
    )
    granularity: str | None = setting(
        None,
        choices=GRANULARITIES,
        synonyms=("scope",),
        help="What shares α and β: a tensor, an output channel, or the model.  [default: set by the preset]",
    )
    large_fraction: float | None = setting(
        None, least=0, most=1, help="Share of stored weights that are large.  [default: set by the preset]"
    )
    threshold: float | None = setting(None, above=0, help="Weights of larger magnitude are large, in all tensors.")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.threshold is not None and self.large_fraction is not None:
            raise OptionError("threshold and large_fraction exclude each other: give one of them")
        row = STRATEGIES[self.strategy]
        for name in ("large_fraction", "threshold") if row.classes == 1 else ():
            if getattr(self, name) is not None:
                raise OptionError(
                    f"{name} is {getattr(self, name)}, and strategy is {self.strategy!r}, which has no large weights: "
                    "leave one of them out"
                )
        if not row.adaptive and self.cells_large not in (None, self.cells_small):
            raise OptionError(
                f"cells_large is {self.cells_large}, and strategy is {self.strategy!r}, which gives all weights "
                "cells_small cells: leave one of them out"
            )

    @property
    def cells_of_large(self) -> int:
        """Cells per large weight."""
        if self.cells_large is not None:
            return self.cells_large
        return CELLS_LARGE if STRATEGIES[self.strategy].adaptive else self.cells_small

    @staticmethod
    def scheme_of(settings: Mapping[str, Any]) -> Scheme:
        """Return the scheme that settings of `Paper` and of `Scheme` describe; those that are None count as left out.

        Raises
        ------
        OptionError
            If there is no such setting, a value is out of its range, or two exclude each other.
        """
        from onnx_analog.coding.scheme import Scheme

        given = {name: value for name, value in settings.items() if value is not None}
        check_names("there is no setting", given, [*settings_of(Scheme), *settings_of(Paper)], synonyms_of(Scheme))
        check_exclusive(given)
        paper = Paper(**{name: given.pop(name) for name in settings_of(Paper) if name in given})
        return paper.scheme(**given)

    def scheme(self, **others: Any) -> Scheme:
        """Return the scheme; `others` are further settings of it."""
        from onnx_analog.coding.scheme import Scheme, with_checked_classes

        others = with_checked_classes(others)
        row, preset = STRATEGIES[self.strategy], PRESETS[self.preset]
        large = preset.large_fraction if self.large_fraction is None else self.large_fraction
        classes = others.get("classes", row.classes)
        own = row.cells(self.cells_small, self.cells_of_large)
        bounded = row.classes == 2 and self.threshold is not None and {"classes", "partition"}.isdisjoint(others)
        shared = not bounded and (classes, others.get("partition", "share")) == (2, "share")
        settings: dict[str, Any] = {
            "sign": row.sign,
            "classes": classes,
            "partition": "bounds" if bounded else "share",
            "shares": (large,) if shared else None,
            "bounds": (self.threshold,) if bounded else (),
            "cells": own if classes == row.classes or self.cells_large is not None else self.cells_small,
            "granularity": preset.granularity if self.granularity is None else self.granularity,
        }
        return Scheme(**{**settings, **others})

    @staticmethod
    def of(scheme: Scheme) -> Paper | None:
        """Return the paper's description of a scheme; None if it is not one of the paper's."""
        small, large = scheme.cells[0], scheme.cells[-1]
        if scheme.classes > 2 or not small or not large or scheme.partition not in ("share", "bounds"):
            return None
        if scheme.classes == 1:
            name = "raw" if scheme.sign == "level" else "sign"
        elif scheme.sign == "level":
            return None
        else:
            name = "mapping" if small == large else "redundancy"
        return Paper(
            strategy=name,
            cells_small=small,
            cells_large=large,
            granularity=scheme.granularity,
            large_fraction=scheme.shares[0] if scheme.shares else None,
            threshold=scheme.bounds[0] if scheme.bounds else None,
        )
