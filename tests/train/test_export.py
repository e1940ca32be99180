import numpy as np
import onnx
import pytest
import torch
from torch import nn

import onnx_analog as oa
from onnx_analog.train.export import export
from onnx_analog.train.images import CIFAR10, Images
from onnx_analog.train.networks import ResNet
from tests.models import run


def images(count=6):
    x = np.random.default_rng(0).integers(256, size=(count, 3, 8, 8), dtype=np.uint8)
    return Images(torch.from_numpy(x), torch.zeros(count, dtype=torch.long), CIFAR10)


@pytest.fixture(scope="module")
def net():
    """Return a small residual network whose BatchNorm does something."""
    torch.manual_seed(0)
    made = ResNet((4, 8), blocks=1)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return made.eval()


@pytest.mark.parametrize("folded", [False, True], ids=["apart", "folded"])
def test_onnxruntime_computes_what_torch_does(tmp_path, net, folded):
    export(net, images(), tmp_path / "net.onnx", fold_batch_norm=folded)
    with torch.no_grad():
        expected = net(images().inputs()).numpy()
    (found,) = run(onnx.load(tmp_path / "net.onnx"), {"input": images().inputs().numpy()})
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(("folded", "nodes"), [(False, 6), (True, 0)], ids=["apart", "folded"])
def test_batch_norm_is_apart_or_folded(tmp_path, net, folded, nodes):
    export(net, images(), tmp_path / "net.onnx", fold_batch_norm=folded)
    found = oa.inspect(tmp_path / "net.onnx")
    assert (found.batch_norms, found.convolutions) == (nodes, 6)
    assert found.opset == 18


def test_nothing_of_the_machine_is_kept(tmp_path, net):
    export(net, images(), tmp_path / "net.onnx")
    assert b"site-packages" not in (tmp_path / "net.onnx").read_bytes()
    assert b".py" not in (tmp_path / "net.onnx").read_bytes()


def test_names_are_those_of_the_network(tmp_path, net):
    export(net, images(), tmp_path / "net.onnx")
    names = {tensor.name for tensor in onnx.load(tmp_path / "net.onnx").graph.initializer}
    assert {"conv1.weight", "output.weight"} <= names


def test_what_is_exported_can_be_protected(tmp_path, net):
    export(net, images(), tmp_path / "net.onnx")
    protected = oa.protect(tmp_path / "net.onnx").model
    given = {"input": images().inputs().numpy()}
    np.testing.assert_allclose(
        run(protected, given)[0], run(onnx.load(tmp_path / "net.onnx"), given)[0], rtol=1e-4, atol=1e-4
    )
