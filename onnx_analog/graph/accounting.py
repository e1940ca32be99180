"""Derives the manifest of a protected model: the entry of each tensor, and the address of each cell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_analog.coding.scheme import Scheme
from onnx_analog.coding.streams import Stream, codebook_bits
from onnx_analog.graph._cells import addresses, cells_of, plane_bits
from onnx_analog.graph.manifest import ClassEntry, Manifest, TensorEntry
from onnx_analog.graph.stored import COMMAND_KEY, SOURCE_KEY, StoredTensor, schemes_of, stored_tensors
from onnx_analog.graph.totals import Counted, Totals, split_of


def account(model: ir.Model) -> Manifest:
    """Return the manifest of a protected model.

    Cells are addressed from 0 in the order of the tensors, with no gap and no overlap: level cells (in the order of the
    flat index, the r cells of a weight side by side), side information, mask, codebook.

    Raises
    ------
    ModelError
        If the model is not protected.
    """
    schemes = schemes_of(model)
    return account_of(stored_tensors(model, schemes), schemes, model)


def account_of(stored: Sequence[StoredTensor], schemes: Sequence[Scheme], model: ir.Model) -> Manifest:
    """Return the manifest of a protected model whose tensors and schemes are known; see `account`."""
    calls: dict[str, list[StoredTensor]] = {}
    for tensor in stored:  # of one key where another tool inlined a function that is called twice
        calls.setdefault(tensor.key, []).append(tensor)
    tensors = [group[0] for group in calls.values()]
    shared = _shared_counts(tensors)
    entries, address = [], 0
    for tensor, streams in with_streams(tensors):
        bits = plane_bits(streams, tensor.size, tensor.count)
        ranges, address = addresses(cells_of(tensor.scheme, tensor.class_counts, bits), address)
        uses = sum(call.uses for call in calls[tensor.key])
        counts = shared.get(tensor.number, tensor.class_counts)
        entries.append(_entry(tensor, uses, counts, streams, bits, ranges))
        tensor.release()
    return Manifest(
        schemes=tuple(schemes),
        source_sha256=model.metadata_props.get(SOURCE_KEY),
        command=model.metadata_props.get(COMMAND_KEY),
        tensors=tuple(entries),
    )


def totals_of(tensors: Iterable[StoredTensor]) -> Totals:
    """Return the totals of `account_of` alone, without a digest of any plane; one tensor for each key."""
    return Totals.of(_counted(tensor, streams) for tensor, streams in with_streams(tensors))


def split_cells(tensors: Iterable[StoredTensor]) -> tuple[dict[str, int], ...] | None:
    """Return the cells of each tensor as the memory allows, by line; they add up to those of `totals_of`.

    None if a channel is too noisy for the code of a scheme.
    """
    return split_of(_counted(tensor, streams) for tensor, streams in with_streams(tensors))


def _counted(tensor: StoredTensor, streams: Sequence[Stream]) -> Counted:
    bits = plane_bits(streams, tensor.size, tensor.count)
    return Counted(
        scheme=tensor.scheme,
        original=tensor.size,
        stored=tensor.count,
        bitmap_bits=tensor.size if tensor.has("mask") else 0,
        cells=cells_of(tensor.scheme, tensor.class_counts, bits),
        streams=streams,
    )


def with_streams(tensors: Iterable[StoredTensor]) -> Iterator[tuple[StoredTensor, tuple[Stream, ...]]]:
    """Yield each tensor and its digital streams; a codebook that a model shares is the first tensor's."""
    owned = set[int]()
    for tensor in tensors:
        owns = tensor.scheme.granularity != "model" or tensor.number not in owned
        owned.add(tensor.number)
        yield tensor, tensor.streams(codebook_bits(tensor.scheme, len(tensor.alpha)) if owns else 0)


def _shared_counts(tensors: Sequence[StoredTensor]) -> dict[int, Any]:
    """Return, by scheme, how many weights each class (K,) holds in all tensors that share a codebook."""
    shared: dict[int, Any] = {}
    for tensor in tensors:
        if tensor.scheme.granularity == "model":
            shared[tensor.number] = shared.get(tensor.number, 0) + tensor.class_counts
            tensor.release()
    return shared


def _entry(
    tensor: StoredTensor,
    uses: int,
    shared: Any,
    streams: Sequence[Stream],
    bits: Mapping[str, int],
    ranges: Mapping[str, tuple[int, int]],
) -> TensorEntry:
    return TensorEntry(
        name=tensor.name,
        key=tensor.key,
        shape=tensor.shape,
        dtype=tensor.dtype.name,
        uses=uses,
        scheme=tensor.number,
        original=tensor.size,
        stored=tensor.count,
        groups=len(tensor.alpha),
        classes=tuple(_class_entries(tensor, shared)),
        mask_bitmap_bits=tensor.size if tensor.has("mask") else 0,
        streams={stream.name: stream.bits for stream in streams},
        bits=dict(bits),
        cells=ranges,
        sha256=tensor.digests(),
    )


def _class_entries(tensor: StoredTensor, shared: Any) -> Iterator[ClassEntry]:
    """Yield the classes; bounds are 0 where no weight of those that share the codebook is in one."""
    scheme, nothing = tensor.scheme, [None] * tensor.scheme.classes
    low = high = alpha = beta = nothing
    if len(tensor.alpha) == 1:
        alpha, beta = tensor.alpha[0].tolist(), tensor.beta[0].tolist()
        low, high = (np.where(shared, bounds, 0.0).tolist() for bounds in _bounds(tensor))
    for row in zip(low, high, alpha, beta, tensor.class_counts.tolist(), scheme.cells_of_class, strict=True):
        yield ClassEntry(*row)


def _bounds(tensor: StoredTensor) -> Iterator[NDArray[np.float32]]:
    """Yield the size that stands at each end of the output range (K,), as exactly as float32 α and β tell it."""
    has_cells = np.array(tensor.scheme.cells_of_class) > 0
    alpha, beta = (each[0].astype(np.float64) for each in (tensor.alpha, tensor.beta))
    for end in tensor.scheme.channel.span:
        bounds = ((np.where(has_cells, end, 0.0) + beta) / alpha).astype(np.float32)
        yield np.where(bounds > 0, bounds, np.float32(0)) if tensor.scheme.sign == "bit" else bounds
