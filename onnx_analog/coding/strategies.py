"""The rows of the paper's Table 1 as settings of one code.

| strategy   | row of Table 1         | sign in   | classes | cells            |
|------------|------------------------|-----------|---------|------------------|
| raw        | PCM + inverse channel  | the level | 1       | r                |
| sign       | + sign protection      | header    | 1       | r                |
| mapping    | + adaptive mapping     | header    | 2       | r for both       |
| redundancy | + adaptive redundancy  | header    | 2       | r_small, r_large |

Nothing heavy is imported here, so that the command line can name its choices at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from onnx_analog.errors import OptionError

SCOPES = ("tensor", "model")
LARGE_FRACTION = 0.05
MOST_CELLS = 10**12  # of a weight
LARGE_FACTOR = 20  # cells per large weight for each cell per small one, where a sweep says "c cells"


@dataclass(frozen=True, kw_only=True)
class Strategy:
    """How a weight is split into a header and a level."""

    row: str  # what the paper's Table 1 calls it
    sign_in_header: bool
    classes: int  # classes of magnitude, each with its own α and β
    adaptive: bool  # large weights get cells of their own number

    def cells(self, small: int, large: int) -> tuple[int, ...]:
        """Return cells per weight for each class."""
        return (small,) if self.classes == 1 else (small, large if self.adaptive else small)


STRATEGIES = MappingProxyType(
    {
        "raw": Strategy(row="PCM + inverse channel", sign_in_header=False, classes=1, adaptive=False),
        "sign": Strategy(row="+ sign protection", sign_in_header=True, classes=1, adaptive=False),
        "mapping": Strategy(row="+ adaptive mapping", sign_in_header=True, classes=2, adaptive=False),
        "redundancy": Strategy(row="+ adaptive redundancy", sign_in_header=True, classes=2, adaptive=True),
    }
)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Choices that belong together."""

    scope: str
    large_fraction: float


PRESETS = MappingProxyType(
    {
        "default": Preset(scope="tensor", large_fraction=LARGE_FRACTION),
        "isik2020": Preset(scope="model", large_fraction=0.0025),  # Isik et al. 2020, appendix D.1: 99.75 % are small
    }
)


def strategy(name: str) -> Strategy:
    """Return the strategy called `name`.

    Raises
    ------
    OptionError
        If there is none.
    """
    if name not in STRATEGIES:
        raise OptionError(f"no strategy is called {name!r}: choose from {', '.join(STRATEGIES)}")
    return STRATEGIES[name]
