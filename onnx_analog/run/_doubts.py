"""Reasons to doubt an evaluation, in words."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from onnx_analog.display import percent
from onnx_analog.errors import DataError
from onnx_analog.run import metrics

logger = logging.getLogger(__name__)

_CHANCE = "no better than chance"
_FAR = 0.1  # by which a share without noise is far below the original's
_ENOUGH = 30  # samples, of which an accuracy can be told from chance


def doubts(chosen: metrics.Chosen, samples: int, clean: list[Any], alone: float | None) -> Iterator[str]:
    """Yield the doubts about outputs without noise, and about the value `alone` that they have, each as a sentence."""
    if chosen.output is not None and not _has_axis_of(clean[0], samples):
        yield f"output {chosen.output!r} has no axis of samples, so its values may depend on the batch size"
    nan = metrics.nan_share(clean)
    if nan:
        yield f"{percent(nan, 1)} of the outputs without noise are NaN"
    if alone is not None and at_chance(chosen, samples, alone):
        yield (
            f"top1 without noise is {percent(alone, 2)}, {_CHANCE} ({percent(1 / (chosen.classes or 1), 2)} with "
            f"{chosen.classes} classes): check mean, std, preprocess and the labels"
        )


def check_above_chance(
    chosen: metrics.Chosen, samples: int, original: float | None, warnings: Iterable[str] = ()
) -> None:
    """Raise `DataError` if an original is no better than chance: nothing would be lost, whatever became of it.

    Those of the warnings that may say why, as that images are not scaled as in training, are logged before.
    """
    if original is not None and at_chance(chosen, samples, original):
        for text in warnings:
            if _CHANCE not in text:  # which the error says
                logger.warning(text)
        raise DataError(
            f"top1 without noise is {percent(original, 2)}, {_CHANCE}, so nothing can be lost: check mean, std, "
            "preprocess and the labels"
        )


def at_chance(chosen: metrics.Chosen, samples: int, alone: float) -> bool:
    """Return whether an accuracy on enough samples is no better than chance, but for two standard errors."""
    if chosen.metric.name != "top1" or not chosen.classes or samples < _ENOUGH:
        return False
    chance = 1 / chosen.classes
    return alone <= chance + 2 * math.sqrt(chance * (1 - chance) / samples)


def doubts_of_stored(chosen: metrics.Chosen, stored: float | None, original: float | None) -> Iterator[str]:
    """Yield the doubts about a model that is stored, as against the original."""
    if chosen.metric.share and stored is not None and original is not None and stored < original - _FAR:
        yield (
            f"{chosen.metric.name} of the stored model is {percent(stored, 2)} without noise, far below the original's "
            f"{percent(original, 2)}: this loss is not due to noise"
        )


def doubts_of_values(chosen: metrics.Chosen, values: Sequence[float]) -> Iterator[str]:
    """Yield the doubts about the values of trials."""
    count = sum(map(math.isnan, values))
    if count and chosen.metric.name == "agreement":
        yield (
            "agreement says nothing here: every largest score stayed the same, although noise changed the scores by "
            "more than their own size. Choose the metric sqnr_db, or give labels"
        )
    elif count:
        why = ": outputs are NaN, or noise changed their shape" if chosen.metric.name in metrics.METRICS else ""
        yield f"{chosen.metric.name} has no value (NaN) in {count:,} of {len(values):,} trials{why}"


def _has_axis_of(output: Any, samples: int) -> bool:
    """Return whether an output, or each part of a sequence, has an entry for each sample."""
    if isinstance(output, np.ndarray):
        return samples in output.shape
    if not isinstance(output, list) or len(output) == samples:
        return isinstance(output, list)
    return all(isinstance(part, np.ndarray) and samples in part.shape for part in output)
