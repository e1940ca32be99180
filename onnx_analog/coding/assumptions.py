"""States what reads assume in favour of the memory.

Where classes have different numbers of cells, a class that is read wrongly moves the addresses of all levels after it:
in a memory without a second, faultless record of the classes, they are lost. Levels are read here as if their addresses
were known. Manifests state that, and what is read so is reported with the warning `OPTIMISTIC`.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnx_analog.coding.scheme import Scheme

ADDRESSES_KNOWN = "levels are read at the addresses that the written classes give, whatever classes are read"
OPTIMISTIC = (
    "results are optimistic: a class that is read wrongly would move the addresses of all levels after it, because "
    "classes differ in cells per weight, but levels are read here where they were written. Give all classes the same "
    "number of cells for results without this assumption"
)


def assumptions(schemes: Iterable[Scheme]) -> tuple[str, ...]:
    """Return the optimistic assumptions under which these schemes are read: `ADDRESSES_KNOWN`, or none."""
    return (ADDRESSES_KNOWN,) if any(map(_assumes_addresses, schemes)) else ()


def _assumes_addresses(scheme: Scheme) -> bool:
    """Return whether the addresses of levels depend on classes that may be read wrongly."""
    return scheme.side_channel is not None and len(set(scheme.cells_of_class)) > 1
