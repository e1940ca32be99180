"""What the reports of several kinds of results say alike."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import singledispatch
from typing import Any

from onnx_analog.channels import Channel
from onnx_analog.display import change, score
from onnx_analog.html.page import Number, Page, Section, Tone, number
from onnx_analog.html.stored import Memory, cell_numbers
from onnx_analog.points import COUNTING
from onnx_analog.run.evaluation import Evaluation
from onnx_analog.study.worker import versions

IN_MEMORY = COUNTING["memory"]  # in which cells are compared with a limit
TONES: dict[bool | None, Tone] = {True: "yes", False: "no", None: "open"}
NOTHING_STORED = Section(title="What it costs", text="The protected model is not at hand, so its cells are not shown.")


@singledispatch
def page_of(result: Any, memory: Memory | None, counting: str) -> Page:  # noqa: ARG001 - those of a kind take them
    """Return the report of a result.

    Parameters
    ----------
    result : Evaluation, Swept, Tuned, Checked or Harms
    memory : Memory or None
        The protected model, where it is at hand.
    counting : {"memory", "paper"}
        Cells by which the points of a sweep are compared.
    """
    raise TypeError(f"there is no report of {type(result).__name__}")


def facts(*facts: tuple[str, object]) -> tuple[tuple[str, str], ...]:
    """Return what is known of those facts, and the versions that numbers depend on."""
    known = [(name, str(value)) for name, value in facts if value not in (None, "")]
    return (*known, *versions().items())


def channels_of(memory: Memory | None) -> list[Channel]:
    """Return the channels of a protected model, where it is at hand."""
    return [] if memory is None else memory.channels


def cells_of(memory: Memory | None) -> float | None:
    """Return cells per original weight, with the correction: as the memory allows, where that is counted."""
    return None if memory is None else memory.per_weight(memory.counted_as)


def known_cell_numbers(memory: Memory | None) -> Iterator[Number]:
    """Yield the cells of a protected model, where it is at hand."""
    if memory is not None:
        yield from cell_numbers(memory)


def counting_of(memory: Memory) -> str:
    """Return how the cells of a protected model are counted, in words."""
    return COUNTING[memory.counted_as]


def score_of(value: float | None, share: bool | None) -> str:
    """Return a value of a metric as it is shown; a dash if there is none."""
    return number(value) if value is None or not math.isfinite(value) else score(value, share=share)


def change_of(value: float | None, share: bool | None) -> str:
    """Return a difference of two values of a metric as it is shown; a dash if there is none."""
    return number(value) if value is None or not math.isfinite(value) else change(value, share=share, sign="")


def is_loss(evaluation: Evaluation) -> bool:
    """Return whether a loss in percentage points says all: of a share of which more is better."""
    return bool(evaluation.share) and evaluation.higher_is_better is True and evaluation.drop is not None
