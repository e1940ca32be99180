"""States what reads assume in favour of the memory.

Where classes have different numbers of cells, a class that is read wrongly moves the addresses of all levels after it:
in a memory without a second, faultless record of the classes, they are lost. Levels are read here as if their addresses
were known. Manifests state that, and what is read so is reported with the warning `OPTIMISTIC`.

A code with soft decisions is not built here. Manifests state that too, and cost reports label what rests on it.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnx_analog.coding.codes import SOFT_SHARE
from onnx_analog.coding.scheme import Scheme
from onnx_analog.display import percent

ADDRESSES_KNOWN = "levels are read at the addresses that the written classes give, whatever classes are read"
OPTIMISTIC = (
    "results are optimistic: a class that is read wrongly would move the addresses of all levels after it, because "
    "classes differ in cells per weight, but levels are read here where they were written. Give all classes the same "
    "number of cells for results without this assumption"
)


SOFT_CODE = (
    f"digital streams are held by a soft-decision code with {percent(SOFT_SHARE)} of the mutual information of symbol "
    "and read, whose blocks never fail"
)


def assumptions(schemes: Iterable[Scheme]) -> tuple[str, ...]:
    """Return the optimistic assumptions about these schemes: `ADDRESSES_KNOWN`, `SOFT_CODE`, both or none."""
    schemes = tuple(schemes)
    holding = {ADDRESSES_KNOWN: assumes_addresses(schemes), SOFT_CODE: any(each.code == "soft" for each in schemes)}
    return tuple(text for text, holds in holding.items() if holds)


def assumes_addresses(schemes: Iterable[Scheme]) -> bool:
    """Return whether addresses of levels depend on classes that may be read wrongly, and are taken to be known."""
    return any(_misreads_classes(scheme) and len(set(scheme.cells_of_class)) > 1 for scheme in schemes)


def _misreads_classes(scheme: Scheme) -> bool:
    return scheme.side_channel is not None or (scheme.code == "none" and scheme.entropy == "none")
