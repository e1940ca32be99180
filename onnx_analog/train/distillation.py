"""Knowledge distillation (Hinton et al. 2015): a student learns from labels and from the outputs of a teacher.

    loss = (1 - weight)·CE(student, y) + weight·T²·KL(softmax(teacher/T) ‖ softmax(student/T))

The paper has T = 1.5 and equal weights. It does not state whether it scales the second term by T², as Hinton et al. do.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from onnx_analog.disk import writing
from onnx_analog.errors import OptionError
from onnx_analog.graph import files
from onnx_analog.train.images import Batch, Images

_BATCH = 100


@dataclass(frozen=True, eq=False)
class Teacher:
    """The outputs of a teacher for every training image, and their share in the loss.

    Attributes
    ----------
    logits : float32 tensor of shape (n, 2, classes)
        Of the image as it is, and flipped.
    temperature : float, > 0
    weight : float, from 0 to 1
        Share of the teacher in the loss.
    """

    logits: Tensor
    temperature: float = 1.5
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise OptionError(f"temperature is {self.temperature}; it must be above 0")
        if not 0 <= self.weight <= 1:
            raise OptionError(f"weight is {self.weight}; it must be from 0 to 1")

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of student `outputs` (n, classes)."""
        teacher = self.logits[batch.rows, batch.flipped.long()]
        return distillation_loss(outputs, teacher, batch.y, temperature=self.temperature, weight=self.weight)


def distillation_loss(student: Tensor, teacher: Tensor, y: Tensor, *, temperature: float, weight: float) -> Tensor:
    """Return the loss above: `student` and `teacher` are logits (n, classes), `y` labels (n,)."""
    soft = nn.functional.kl_div(
        nn.functional.log_softmax(student / temperature, 1),
        nn.functional.log_softmax(teacher / temperature, 1),
        log_target=True,
        reduction="batchmean",
    )
    return (1 - weight) * nn.functional.cross_entropy(student, y) + weight * temperature**2 * soft


def teacher_logits(model: Path, images: Images, *, flips: bool, cache: Path | None = None) -> Tensor:
    """Return the logits of an ONNX model for every image, as it is and, if `flips`, flipped: (n, 2, classes).

    `cache` is an npz file that keeps the logits for later runs. If it holds those of another teacher or of other
    images, they are computed anew.
    """
    pixels = hashlib.sha256(np.ascontiguousarray(images.x.numpy()).data).hexdigest()
    origin = f"{files.model_digest(model)} {pixels} {images.normalisation} flips {flips}"
    if cache is not None and cache.exists():
        with np.load(cache) as stored:
            if stored["of"] == origin:
                return torch.from_numpy(stored["logits"])
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    passes = []
    for flipped in (False, True) if flips else (False,):
        parts = (images.inputs(rows) for rows in torch.split(torch.arange(len(images)), _BATCH))
        outputs = [session.run(None, {name: (x.flip(3) if flipped else x).numpy()})[0] for x in parts]
        passes.append(np.concatenate(outputs))
    logits = np.stack([passes[0], passes[-1]], axis=1)
    if cache is not None:
        writing.write_all({cache: lambda path: np.savez(path, logits=logits, of=origin)}, force=True)
    return torch.from_numpy(logits)
