import numpy as np
import onnxruntime as ort
import pytest
import torch

from onnx_analog.errors import OptionError
from onnx_analog.graph.files import write_model
from onnx_analog.train.distillation import Teacher, distillation_loss, teacher_logits
from onnx_analog.train.images import CIFAR10, Batch, Images, Normalisation
from tests.models import model, run

TEACHER = """
    net (float[n, 3, 4, 5] input) => (float[n, 10] logits) <float[60, 10] w = random> {
        flat = Flatten(input)
        logits = Gemm(flat, w)
    }"""


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 1.5, 4.0])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_the_loss_by_hand(temperature, weight):
    rng = np.random.default_rng(0)
    student, teacher, y = rng.normal(size=(8, 10)), rng.normal(size=(8, 10)), rng.integers(10, size=8)
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    hard = -np.log(softmax(student)[np.arange(8), y]).mean()
    soft = (p * np.log(p / q)).sum(axis=1).mean()
    tensors = (torch.from_numpy(array) for array in (student, teacher, y))
    found = distillation_loss(*tensors, temperature=temperature, weight=weight)
    assert float(found) == pytest.approx((1 - weight) * hard + weight * temperature**2 * soft, rel=1e-12)


def test_a_student_that_says_what_its_teacher_says_has_no_soft_loss():
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    found = distillation_loss(logits, logits, torch.zeros(4, dtype=torch.long), temperature=1.5, weight=1.0)
    assert float(found) == pytest.approx(0, abs=1e-6)


def test_a_teacher_is_asked_of_the_rows_and_flips_of_a_batch():
    logits = torch.arange(6 * 2 * 10, dtype=torch.float32).view(6, 2, 10)
    rows, flipped = torch.tensor([4, 1]), torch.tensor([True, False])
    batch = Batch(torch.zeros(2, 1), torch.zeros(2, dtype=torch.long), rows, flipped)
    outputs = torch.zeros(2, 10)
    expected = distillation_loss(
        outputs, torch.stack([logits[4, 1], logits[1, 0]]), batch.y, temperature=1.5, weight=0.5
    )
    assert Teacher(logits).loss(outputs, batch) == expected


def test_a_teacher_is_any_onnx_model(tmp_path, monkeypatch):
    teacher = model(TEACHER)
    write_model(teacher, tmp_path / "teacher.onnx")
    x = np.random.default_rng(0).integers(256, size=(7, 3, 4, 5), dtype=np.uint8)
    images = Images(torch.from_numpy(x), torch.zeros(7, dtype=torch.long), CIFAR10)
    said = teacher_logits(tmp_path / "teacher.onnx", images, flips=True, cache=tmp_path / "said.npz")
    (straight,) = run(teacher, {"input": images.inputs().numpy()})
    (mirrored,) = run(teacher, {"input": images.inputs().flip(3).numpy()})
    np.testing.assert_array_equal(said, np.stack([straight, mirrored], axis=1))
    monkeypatch.setattr(ort, "InferenceSession", lambda *_, **__: pytest.fail("asked again"))
    assert torch.equal(said, teacher_logits(tmp_path / "teacher.onnx", images, flips=True, cache=tmp_path / "said.npz"))


@pytest.mark.parametrize("other", ["teacher", "images", "normalisation", "flips"])
def test_what_another_teacher_said_is_not_taken(tmp_path, other):
    x = torch.from_numpy(np.random.default_rng(0).integers(256, size=(7, 3, 4, 5), dtype=np.uint8))
    y, path, cache = torch.zeros(7, dtype=torch.long), tmp_path / "teacher.onnx", tmp_path / "said.npz"
    write_model(model(TEACHER), path)
    before = teacher_logits(path, Images(x, y, CIFAR10), flips=True, cache=cache)
    if other == "teacher":
        write_model(model(TEACHER, seed=1), path)
    pixels, normalisation = (
        x.flip(0) if other == "images" else x,
        Normalisation((0.5,) * 3, (0.5,) * 3) if other == "normalisation" else CIFAR10,
    )
    images, flips = Images(pixels, y, normalisation), other != "flips"
    after = teacher_logits(path, images, flips=flips, cache=cache)
    assert torch.equal(after, teacher_logits(path, images, flips=flips))
    assert not torch.equal(after, before)


def test_options_out_of_range():
    with pytest.raises(OptionError, match="temperature"):
        Teacher(torch.zeros(1, 2, 10), temperature=0)
    for weight in (-0.1, 1.1):
        with pytest.raises(OptionError, match="weight"):
            Teacher(torch.zeros(1, 2, 10), weight=weight)
