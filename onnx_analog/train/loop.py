"""Trains networks: epochs, early stopping on held-out images, checkpoints, a file of metrics.

A run that is killed and resumed ends with the weights of a run that was not interrupted. Order, flips and noise come
from (seed, epoch) and (seed, step), and the checkpoint, which is written after each epoch, holds everything else.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onnx_analog.errors import OptionError
from onnx_analog.train.distillation import Teacher
from onnx_analog.train.images import Batch, Images
from onnx_analog.train.noise import Noise, forward
from onnx_analog.train.pruning import Masks, Pruning, apply

Progress = Callable[[dict[str, float]], None]

_EVALUATED = 500  # images a call
_MASKED = 16  # steps between two changes of the masks


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training run; `MNIST` and `CIFAR10` are those of the paper's networks.

    Parameters
    ----------
    optimizer : {"adam", "sgd"}
        Adam with β 0.9 and 0.999, or SGD with momentum 0.9.
    rate : float, > 0
        Largest learning rate.
    schedule : {"constant", "cosine"}
        `cosine` rises over the first tenth of all steps and falls to 0 at the last.
    weight_decay : float, >= 0
    batch : int, >= 1
    epochs : int, >= 1
        Largest number of epochs. Training ends earlier if `patience` epochs in a row do not improve the accuracy on
        the held-out images.
    patience : int, >= 1
    held_out : int, >= 1
        The last images of the training set: they choose the epoch whose weights are kept.
    flips : bool
        Flip half of the images, left to right.
    shift : int, >= 0
        Move each image by up to so many pixels each way.
    bf16 : bool
        Multiply in bfloat16; weights, losses and gradients' sums stay float32. Faster where `has_bf16` says so.
    seed : int, >= 0
    """

    optimizer: str
    rate: float
    schedule: str
    weight_decay: float = 5e-4
    batch: int
    epochs: int
    patience: int
    held_out: int = 5_000
    flips: bool
    shift: int = 0
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in ("adam", "sgd"):
            raise OptionError(f"optimizer is {self.optimizer!r}; choose from adam, sgd")
        if self.schedule not in ("constant", "cosine"):
            raise OptionError(f"schedule is {self.schedule!r}; choose from constant, cosine")
        for name in ("batch", "epochs", "patience", "held_out"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        if self.shift < 0:
            raise OptionError(f"shift is {self.shift}; it must be 0 or more")
        if not self.rate > 0:
            raise OptionError(f"rate is {self.rate}; it must be above 0")

    def optimizer_of(self, net: nn.Module) -> torch.optim.Optimizer:
        """Return a fresh optimizer of the parameters of `net`."""
        if self.optimizer == "adam":
            return torch.optim.Adam(net.parameters(), lr=self.rate, betas=(0.9, 0.999), weight_decay=self.weight_decay)
        return torch.optim.SGD(net.parameters(), lr=self.rate, momentum=0.9, weight_decay=self.weight_decay)

    def rate_at(self, step: int, steps: int) -> float:
        """Return the learning rate of `step`, counted from 0, of `steps`."""
        if self.schedule == "constant":
            return self.rate
        warm = max(1, steps // 10)
        if step < warm:
            return self.rate * (step + 1) / warm
        return self.rate * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) / 2


# Isik et al. 2020, appendix B. Its 100 and 350 epochs are upper bounds here. The schedule of SGD is not stated there.
MNIST = Recipe(optimizer="adam", rate=1e-3, schedule="constant", batch=100, epochs=100, patience=20, flips=False)
CIFAR10 = Recipe(optimizer="sgd", rate=0.1, schedule="cosine", batch=128, epochs=350, patience=350, flips=True)


def has_bf16() -> bool:
    """Return whether this CPU multiplies in bfloat16; where PyTorch cannot tell, it does not."""
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # new in PyTorch 2.9
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


@dataclass(eq=False, kw_only=True)
class _State:
    """The state from which a run resumes."""

    epoch: int  # the last that ended
    best: float
    best_epoch: int
    best_weights: dict[str, Any]
    rows: list[dict[str, float]]


def train(
    net: nn.Module,
    images: Images,
    recipe: Recipe,
    *,
    noise: Noise | None = None,
    teacher: Teacher | None = None,
    pruning: Pruning | None = None,
    folder: Path | None = None,
    progress: Progress = lambda _: None,
) -> list[dict[str, float]]:
    """Train `net` in place, load the weights of its best epoch, and return one row of metrics per epoch.

    Parameters
    ----------
    net : nn.Module
    images : Images
        The last `recipe.held_out` of them are held out.
    recipe : Recipe
    noise : Noise, optional
        On the weights, at every forward pass; accuracy on held-out images is then measured with noise too.
    teacher : Teacher, optional
        The teacher's outputs for `images`, in their order.
    pruning : Pruning, optional
        Which weights are zero. The best epoch is one of those that end with the last masks.
    folder : Path, optional
        For checkpoint.pt, from which a killed run resumes, and metrics.jsonl.
    progress : function
        Called with each epoch's row.

    Raises
    ------
    OptionError
        If `folder` holds the checkpoint of another run: other images, recipe, noise, teacher or pruning.
    """
    training, validation = images.split(recipe.held_out)
    optimizer = recipe.optimizer_of(net)
    state = _State(epoch=0, best=-1.0, best_epoch=0, best_weights={}, rows=[])
    run = _identity(images, recipe, noise, teacher, pruning)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        state = _resumed(folder / "checkpoint.pt", net, optimizer, run, state)
    while state.epoch < recipe.epochs and state.epoch - state.best_epoch < recipe.patience:
        began, epoch = time.monotonic(), state.epoch + 1
        loss = _epoch(net, optimizer, training, recipe, epoch, noise=noise, teacher=teacher, pruning=pruning)
        score = accuracy(net, validation, noise, seed=recipe.seed)
        row = {"epoch": epoch, "loss": loss, "held_out": score, "seconds": round(time.monotonic() - began, 1)}
        settled = pruning is None or pruning.settled(epoch / recipe.epochs)
        if score > state.best or not settled:
            state = replace(
                state, best=score if settled else -1.0, best_epoch=epoch, best_weights=copy.deepcopy(net.state_dict())
            )
        state = replace(state, epoch=epoch, rows=[*state.rows, row])
        if folder is not None:
            _keep(folder, net, optimizer, run, state)
        progress(row)
    net.load_state_dict(state.best_weights)
    net.eval()
    return state.rows


def _epoch(
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Images,
    recipe: Recipe,
    epoch: int,
    *,
    noise: Noise | None,
    teacher: Teacher | None,
    pruning: Pruning | None,
) -> float:
    """Train for one epoch and return the mean loss."""
    net.train()
    per_epoch = -(-len(images) // recipe.batch)
    total = 0.0
    masks: Masks = {}
    batches = images.epoch(recipe.batch, seed=recipe.seed, epoch=epoch, flips=recipe.flips, shift=recipe.shift)
    for number, batch in enumerate(batches):
        step = (epoch - 1) * per_epoch + number
        if pruning is not None and (number % _MASKED == 0 or number + 1 == per_epoch):
            masks = pruning.masks(net, (step + 1) / (recipe.epochs * per_epoch))
            apply(net, masks)
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate_at(step, recipe.epochs * per_epoch)
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=recipe.bf16):
            outputs = forward(net, batch.x, noise, seed=recipe.seed, step=step)
        loss = _loss(outputs.float(), batch, teacher)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        optimizer.step()
        apply(net, masks)
        total += float(loss.detach()) * len(batch.y)
    return total / len(images)


def _loss(outputs: Tensor, batch: Batch, teacher: Teacher | None) -> Tensor:
    return nn.functional.cross_entropy(outputs, batch.y) if teacher is None else teacher.loss(outputs, batch)


@torch.no_grad()
def accuracy(net: nn.Module, images: Images, noise: Noise | None = None, *, seed: int = 0) -> float:
    """Return the top-1 accuracy as a fraction; with noise, the weights are read anew for each batch of images."""
    net.eval()
    correct = 0
    for step, rows in enumerate(torch.split(torch.arange(len(images)), _EVALUATED)):
        outputs = forward(net, images.inputs(rows), noise, seed=seed + 1, step=step)  # not the seed of training
        correct += int((outputs.argmax(1) == images.y[rows]).sum())
    return correct / len(images)


# ----------------------------------------------------------------------------------------------- checkpoints


def _identity(
    images: Images, recipe: Recipe, noise: Noise | None, teacher: Teacher | None, pruning: Pruning | None
) -> dict[str, str]:
    """Return the settings that a run shares with the run that it resumes.

    At a constant rate it may be longer, unless it prunes: how much is pruned follows from the number of steps.
    """
    free = ("patience", "epochs") if recipe.schedule == "constant" and pruning is None else ("patience",)
    teacher_tensors = () if teacher is None else (teacher.logits, torch.tensor([teacher.temperature, teacher.weight]))
    return {
        **{name: str(value) for name, value in asdict(recipe).items() if name not in free},
        "noise": "none" if noise is None else noise.identity(),
        "images": f"{images.normalisation} {_digest(images.x, images.y)}",
        "teacher": _digest(*teacher_tensors),
        "pruning": "none" if pruning is None else pruning.identity(),
    }


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(np.ascontiguousarray(tensor.numpy()).data)
    return digest.hexdigest()


def _keep(folder: Path, net: nn.Module, optimizer: torch.optim.Optimizer, run: dict[str, str], state: _State) -> None:
    body = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "run": run, "state": asdict(state)}
    partial = folder / "checkpoint.partial"
    torch.save(body, partial)
    partial.replace(folder / "checkpoint.pt")  # at no moment is there none
    lines = "".join(json.dumps(row) + "\n" for row in state.rows)
    (folder / "metrics.jsonl").write_text(lines, encoding="utf-8")


def _resumed(
    path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, run: dict[str, str], fresh: _State
) -> _State:
    if not path.exists():
        return fresh
    body = torch.load(path, weights_only=True)
    earlier = body.get("run", {})
    for name, value in run.items():
        if earlier.get(name) != value:
            tells = name in {field.name for field in fields(Recipe)}  # else it is a digest, or as long
            of_both = f"with {name} {earlier.get(name)}, and this run has {value}" if tells else f"of other {name}"
            raise OptionError(f"{str(path)!r} belongs to a run {of_both}: choose another folder")
    try:
        net.load_state_dict(body["net"])
        optimizer.load_state_dict(body["optimizer"])
        return _State(**body["state"])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise OptionError(f"{str(path)!r} belongs to another network: choose another folder") from error


def epochs(folder: Path) -> Iterator[dict[str, float]]:
    """Yield the rows of a run's metrics file."""
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        yield json.loads(line)
