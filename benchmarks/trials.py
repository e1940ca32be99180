"""What a trial costs: against clean inference, against its bound, and against other ways to do it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort

from benchmarks.networks import SIDE, pictures, resnet
from benchmarks.ours import THREADS, measured, reading, with_weights
from benchmarks.timing import PAIRS, ratio
from onnx_analog import api, demo
from onnx_analog.coding.scheme import Scheme
from onnx_analog.graph import files
from onnx_analog.graph.protected import open_protected
from onnx_analog.graph.stored import StoredTensor
from onnx_analog.run.data import Dataset
from onnx_analog.run.experiment import Experiment
from onnx_analog.run.metrics import top1

Row = dict[str, float]


def against_inference(model: ir.Model, data: Dataset, pairs: int = PAIRS) -> Row:
    """Return a trial against clean inference of the same images."""
    ours = measured(api.protect(model, sparsity=0.8).model, data)
    return ratio(ours.trial, ours.inference, pairs)


def lenet() -> Row:
    """On LeNet × 1,000 images."""
    story = demo.begin()
    return against_inference(files.load(demo.MODEL), story.data)


def of_resnet(name: str, folder: Path, count: int = 500) -> Row:
    """On ResNet-18 or ResNet-20 × `count` images."""
    return against_inference(resnet(name, folder), pictures(count), pairs=3)


def set_up_against_reading(model: ir.Model, side: int = SIDE) -> Row:
    """Return the time to set up trials of a protected model, over the time to read and decode its weights once."""
    protected = open_protected(api.protect(model).model)
    clean = [np.zeros((1, side), np.float32)]
    data = Dataset({"x": clean[0]}, np.zeros(1, int))

    def set_up() -> None:
        Experiment(protected, data, top1, threads=THREADS, clean=clean).trials()

    return ratio(set_up, reading(protected.model), pairs=3)


def next_point_against_trial() -> Row:
    """Return the time that a grid point takes besides its trials, over the time of a trial, on LeNet × 1,000 images.

    Points differ in cells, so they share their planes.
    """
    story = demo.begin()
    experiment = Experiment(story.pruned.model, story.data, top1, threads=THREADS)
    trial = experiment.trials(Scheme(cells=(1, 20)))
    cells = itertools.count(2)
    return ratio(lambda: experiment.trials(Scheme(cells=(next(cells), 20))), lambda: trial.run(seed=0, trial=0))


# -------------------------------------------------------------------------------------- sampling and decoding


def against_normals(model: ir.Model, *, cells: int = 1, sparsity: float = 0.0) -> Row:
    """Return reading and decoding all weights against one standard_normal over the stored ones."""
    protected = api.protect(model, cells_small=cells, cells_large=20 * cells, sparsity=sparsity).model
    noise = [np.empty(tensor.count, np.float32) for tensor in open_protected(protected).tensors]
    rng = np.random.Generator(np.random.SFC64(0))
    return ratio(reading(protected), lambda: [rng.standard_normal(dtype=np.float32, out=out) for out in noise])


def against_cells(model: ir.Model, cells: int) -> Row:
    """Return the same against drawing every cell: r draws for a weight, and their mean."""
    protected = api.protect(model, strategy="mapping", cells_small=cells).model
    tensors = open_protected(protected).tensors
    scales = [tensor.scheme.channel.moments(tensor.level)[1].astype(np.float32) for tensor in tensors]
    rng = np.random.Generator(np.random.SFC64(0))

    def every_cell() -> None:
        for tensor, scale in zip(tensors, scales, strict=True):
            total = np.zeros(tensor.count, np.float32)
            for _ in range(cells):
                total += rng.standard_normal(tensor.count, dtype=np.float32)
            tensor.decode(tensor.level + scale * total / np.float32(cells))

    return ratio(reading(protected), every_cell, pairs=3)


def threads_against_one(model: ir.Model) -> Row:
    """Return sampling and decoding in two threads against one."""
    from concurrent.futures import ThreadPoolExecutor

    protected = api.protect(model).model
    with ThreadPoolExecutor(2) as two:
        return ratio(reading(protected, two), reading(protected))


def against_rebuilding(model: ir.Model) -> Row:
    """Return a session with other weights against one of a model with other weights, serialized."""
    one = Dataset({"x": np.zeros((1, SIDE), np.float32)}, None)
    ours, weights = with_weights(api.protect(model).model, one)
    named = dict(zip(sorted(weights), (v for v in model.graph.initializers.values()), strict=True))

    def rebuild() -> None:
        changed = model.clone()
        for name, value in zip(named, list(changed.graph.initializers.values()), strict=True):
            value.const_value = ir.Tensor(weights[name], name=value.name)
        options = ort.SessionOptions()
        options.intra_op_num_threads = THREADS
        body = ir.to_proto(changed).SerializeToString()
        ort.InferenceSession(body, options, providers=["CPUExecutionProvider"]).run(None, dict(one.inputs))

    return ratio(ours, rebuild)


# ------------------------------------------------------------------------------------------------------ peers


def against_torch(name: str, count: int) -> Row:
    """Return a trial against the same in torch: the same formula, into a module's weights, and its forward pass."""
    import torch

    from onnx_analog.train import networks

    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    net = networks.NETWORKS[name]().eval()
    model, data = _exported(net, name, count)
    protected = api.protect(model, sparsity=0.8).model
    stored = _torch_weights(net, protected)
    x = torch.from_numpy(data.inputs["input"])

    @torch.inference_mode()
    def trial() -> None:
        for parameter, dense, places, level, scale, alpha, beta in stored:
            dense[places] = (level + scale * torch.randn_like(level) + beta) / alpha
            parameter.copy_(dense.view(parameter.shape))
        for part in torch.split(x, 64):
            net(part).argmax(1)

    return ratio(measured(protected, data).trial, trial, pairs=3 if count > 100 else PAIRS)


def _exported(net: Any, name: str, count: int) -> tuple[ir.Model, Dataset]:
    import tempfile

    import torch

    from onnx_analog.train.export import export
    from onnx_analog.train.images import CIFAR10, MNIST, Images

    shape = (1, 28, 28) if name == "lenet" else (3, 32, 32)
    normalisation = MNIST if name == "lenet" else CIFAR10
    one = Images(torch.zeros(2, *shape, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), normalisation)
    with tempfile.TemporaryDirectory() as folder:
        export(net, one, Path(folder) / "net.onnx")
        return files.load(Path(folder) / "net.onnx"), pictures(count, shape)


def _torch_weights(net: Any, protected: ir.Model) -> list[tuple[Any, ...]]:
    """Return, for each stored weight, all that its formula needs, as tensors: so torch computes no more than we do."""
    import torch

    found: list[tuple[Any, ...]] = []
    parameters = dict(net.named_parameters())
    for tensor in open_protected(protected).tensors:
        cells = np.array(tensor.scheme.cells_of_class)[_classes(tensor)]
        scale = tensor.scheme.channel.moments(tensor.level, cells=cells)[1].astype(np.float32)
        alpha, beta = _each(tensor)
        places = np.arange(tensor.size) if tensor.mask is None else np.flatnonzero(tensor.mask)
        arrays = [torch.from_numpy(np.array(array)) for array in (places, tensor.level, scale, alpha, beta)]
        found.append((parameters[tensor.name].data, torch.zeros(tensor.size), *arrays))
    return found


def _each(tensor: StoredTensor) -> tuple[np.ndarray, np.ndarray]:
    index = _classes(tensor)
    alpha = tensor.alpha[0, index]
    return (alpha if tensor.sign is None else np.where(tensor.sign, -alpha, alpha)), tensor.beta[0, index]


def _classes(tensor: StoredTensor) -> np.ndarray:
    return np.zeros(tensor.count, np.uint8) if tensor.class_index is None else tensor.class_index


def against_aihwkit() -> Row | None:
    """Return a trial on LeNet against aihwkit's PCM noise on the same network; None where it cannot be loaded.

    aihwkit programs a module once for each trial, and each of its tiles draws programming and read noise.
    """
    try:
        import torch
        from aihwkit.inference import PCMLikeNoiseModel
        from aihwkit.nn.conversion import convert_to_analog
        from aihwkit.simulator.configs import InferenceRPUConfig
    except (ImportError, OSError):  # a wheel that was built for another torch cannot be loaded
        return None
    from onnx_analog.train import networks

    torch.set_num_threads(THREADS)
    config = InferenceRPUConfig()
    config.noise_model = PCMLikeNoiseModel(g_max=25.0)
    config.forward.is_perfect = True  # no converters and no noise but that of the weights, as in ours
    analog = convert_to_analog(networks.NETWORKS["lenet"]().eval(), config).eval()
    story = demo.begin()
    x = torch.from_numpy(next(iter(story.data.inputs.values())))

    @torch.inference_mode()
    def trial() -> None:
        analog.program_analog_weights()  # anew: drift alone keeps the weights that were programmed
        analog.drift_analog_weights(0.0)
        for part in torch.split(x, 64):
            analog(part).argmax(1)

    protected = api.protect(story.pruned.model).model
    return ratio(measured(protected, story.data).trial, trial)


def inference_against_plain(protected: ir.Model, plain: ir.Model) -> Row:
    """Return inference of the protected model, as a file gives it to onnxruntime, against the plain one."""
    x = np.random.default_rng(0).standard_normal((64, SIDE), dtype=np.float32)
    sessions = [
        ort.InferenceSession(ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
        for model in (protected, plain)
    ]
    ours, theirs = (_runner(session, x) for session in sessions)
    return ratio(ours, theirs, pairs=15)


def _runner(session: ort.InferenceSession, x: np.ndarray) -> Callable[[], object]:
    return lambda: session.run(None, {"x": x})
