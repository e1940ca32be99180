import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnx_analog import files
from onnx_analog.errors import ModelError
from tests.models import ZOO, made_proto

# ------------------------------------------------------------------------- what is accepted, onnxruntime accepts


def messages(message: Any) -> Iterator[Any]:
    """Yield `message` and every message in it."""
    waiting = [message]
    while waiting:
        message = waiting.pop()
        yield message
        for part in message.DESCRIPTOR.fields:
            if part.message_type is not None:
                held = getattr(message, part.name)
                waiting += held if part.is_repeated else [held] if message.HasField(part.name) else []


def words(model: onnx.ModelProto) -> list[str]:
    """Return every text in `model` that may be a name."""
    found = {""}
    for message in messages(model):
        for part in message.DESCRIPTOR.fields:
            if part.type == part.TYPE_STRING:
                held = getattr(message, part.name)
                found.update(held if part.is_repeated else [held])
    return sorted(found)


def edit(model: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Change one field somewhere in `model`."""
    everything = list(messages(model))
    message = everything[rng.integers(len(everything))]
    part = message.DESCRIPTOR.fields[rng.integers(len(message.DESCRIPTOR.fields))]
    held = getattr(message, part.name)
    if part.is_repeated:
        if held and rng.random() < 0.5:
            del held[rng.integers(len(held))]
        elif held and part.message_type is not None:
            held.add().CopyFrom(held[rng.integers(len(held))])
        elif held:
            held.append(held[rng.integers(len(held))])
        elif part.message_type is None:
            held.append(other(part, model, rng))
        else:
            held.add()
    elif part.message_type is not None or rng.random() < 0.2:
        message.ClearField(part.name)
    else:
        setattr(message, part.name, other(part, model, rng))


def other(part: Any, model: onnx.ModelProto, rng: np.random.Generator) -> Any:
    if part.enum_type is not None:
        return int(rng.choice([value.number for value in part.enum_type.values]))
    if part.type == part.TYPE_STRING:
        return str(rng.choice(words(model)))
    if part.type == part.TYPE_BYTES:
        return rng.bytes(rng.integers(40))
    if part.type in (part.TYPE_FLOAT, part.TYPE_DOUBLE):
        return float(rng.normal())
    numbers = [0, 1, 2, 3, 7, 16, 255, 2**31 - 1]
    numbers += [-1] if part.type in (part.TYPE_INT32, part.TYPE_INT64) else []
    numbers += [2**40, 2**62] if part.type == part.TYPE_INT64 else []
    return int(rng.choice(numbers))


def flip(model: onnx.ModelProto, rng: np.random.Generator) -> onnx.ModelProto:
    """Return `model` with some bytes of its file changed; unchanged where that is no file any more."""
    data = bytearray(model.SerializeToString())
    for _ in range(rng.integers(1, 3)):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    try:
        return onnx.ModelProto.FromString(bytes(data))
    except Exception:  # protobuf's own
        return model


def mutant(name: str, seed: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    model = made_proto(name)
    for _ in range(rng.integers(1, 4)):
        edit(model, rng)
    return flip(model, rng) if rng.random() < 0.3 else model


def refused(model: onnx.ModelProto) -> str | None:
    """Return why onnxruntime refuses `model`, as it is and with all its optimisations; None if it does not."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
    except Exception as error:  # onnxruntime exports none of its types
        return str(error)
    return None


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.filterwarnings("ignore")
def test_what_is_accepted_onnxruntime_accepts(name, caplog, capfd):
    """Of models with a field or a byte changed; where onnxruntime was not asked, or cannot know, a warning says so."""
    caplog.set_level(logging.WARNING, logger="onnx_analog")
    accepted = 0
    for seed in range(30):
        model = mutant(name, seed)
        caplog.clear()
        try:
            files.load(model)
        except ModelError as error:
            assert "Error calling" not in str(error)
            continue
        accepted += 1
        if not caplog.records:
            assert refused(model) is None
    assert accepted
    assert capfd.readouterr() == ("", "")
