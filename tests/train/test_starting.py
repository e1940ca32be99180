import numpy as np
import onnx
import pytest
import torch
from torch import nn

from onnx_analog.errors import ModelError
from onnx_analog.train.export import export
from onnx_analog.train.images import CIFAR10, Images
from onnx_analog.train.networks import ResNet
from onnx_analog.train.starting import layers_of, norms_of, start
from tests.models import run


def images(count=200):
    x = np.random.default_rng(0).integers(256, size=(count, 3, 8, 8), dtype=np.uint8)
    return Images(torch.from_numpy(x), torch.zeros(count, dtype=torch.long), CIFAR10)


def net(seed, widths=(4, 8), shortcut="convolution"):
    """Return a small residual network whose BatchNorm does something."""
    torch.manual_seed(seed)
    made = ResNet(widths, blocks=1, shortcut=shortcut)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(module.running_mean, 0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return made.eval()


def outputs(network):
    with torch.no_grad():
        return network.eval()(images().inputs()).numpy()


def without_names(path):
    """Give the weights of a model other names, as other exporters do."""
    model = onnx.load(path)
    for number, tensor in enumerate(model.graph.initializer):
        for node in model.graph.node:
            node.input[:] = [f"t{number}" if name == tensor.name else name for name in node.input]
        tensor.name = f"t{number}"
    onnx.save(model, path)


@pytest.mark.parametrize("shortcut", ["convolution", "padding"])
@pytest.mark.parametrize("folded", [False, True], ids=["apart", "folded"])
def test_a_network_computes_what_the_model_does_from_which_it_starts(tmp_path, folded, shortcut):
    origin, ours = net(0, shortcut=shortcut), net(1, shortcut=shortcut)
    export(origin, images(), tmp_path / "net.onnx", fold_batch_norm=folded)
    names = start(ours, tmp_path / "net.onnx", images())
    expected = outputs(origin)
    np.testing.assert_allclose(outputs(ours), expected, atol=1e-4 * np.abs(expected).max())
    assert names["conv1.weight"] == "conv1.weight"
    assert len(names) == len(layers_of(ours, images()))


def test_layers_are_matched_in_their_order_where_names_are_others(tmp_path):
    origin, ours = net(0, shortcut="padding"), net(1, shortcut="padding")
    export(origin, images(), tmp_path / "net.onnx", fold_batch_norm=True)
    without_names(tmp_path / "net.onnx")
    names = start(ours, tmp_path / "net.onnx", images())
    expected = outputs(origin)
    np.testing.assert_allclose(outputs(ours), expected, atol=1e-4 * np.abs(expected).max())
    assert len(set(names.values())) == len(names)
    assert names["conv1.weight"].startswith("t")


def test_a_norm_that_is_put_back_has_the_moments_of_what_comes_in(tmp_path):
    """So training, which uses the moments of a batch, starts with nearly the function of the model."""
    origin, ours = net(0), net(1)
    export(origin, images(), tmp_path / "net.onnx", fold_batch_norm=True)
    start(ours, tmp_path / "net.onnx", images())
    with torch.no_grad():
        z = ours.conv1(images().inputs())
        torch.testing.assert_close(ours.norm1.running_mean, z.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours.norm1.running_var, z.var((0, 2, 3), correction=0), rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(ours.norm1.weight, torch.sqrt(ours.norm1.running_var + ours.norm1.eps))
        expected, in_training = ours.eval()(images().inputs()), ours.train()(images().inputs())
    assert (in_training - expected).abs().max() < 1e-2 * expected.abs().max()


def test_norms_are_those_after_a_convolution():
    assert norms_of(net(0), images()) == {
        "conv1.weight": "norm1", "stages.0.0.conv1.weight": "stages.0.0.norm1",
        "stages.0.0.conv2.weight": "stages.0.0.norm2", "stages.1.0.conv1.weight": "stages.1.0.norm1",
        "stages.1.0.conv2.weight": "stages.1.0.norm2", "stages.1.0.shortcut.0.weight": "stages.1.0.shortcut.1",
    }  # fmt: skip


def test_a_model_with_other_layers_is_refused(tmp_path):
    export(net(0), images(), tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"has 7 layers with weights, and the network has 6: choose the network"):
        start(net(1, shortcut="padding"), tmp_path / "net.onnx", images())
    with pytest.raises(ModelError, match=r"'conv1.weight' of shape \[4, 3, 3, 3\] where the network has 'conv1' of"):
        start(net(1, widths=(6, 8)), tmp_path / "net.onnx", images())


def test_a_model_that_computes_something_else_with_the_same_weights_is_refused(tmp_path):
    export(net(0), images(), tmp_path / "net.onnx", fold_batch_norm=True)
    model = onnx.load(tmp_path / "net.onnx")
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Tanh"
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="gives other outputs than the network with its weights"):
        start(net(1), tmp_path / "net.onnx", images())


def with_batch(path, size):
    """Fix the number of images that a model takes."""
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    onnx.save(model, path)


@pytest.mark.parametrize("size", [1, 3, 100])
def test_a_model_of_a_fixed_batch_is_compared_batch_by_batch(tmp_path, size):
    origin, ours = net(0), net(1)
    export(origin, images(), tmp_path / "net.onnx", fold_batch_norm=True)
    with_batch(tmp_path / "net.onnx", size)
    start(ours, tmp_path / "net.onnx", images())
    np.testing.assert_allclose(outputs(ours), outputs(origin), atol=1e-3 * np.abs(outputs(origin)).max())


def test_a_model_that_does_not_run_on_the_images_is_refused_in_one_line(tmp_path):
    export(net(0), images(), tmp_path / "net.onnx")
    model = onnx.load(tmp_path / "net.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="does not run on the images of training"):
        start(net(1), tmp_path / "net.onnx", images())


def first_norm(model):
    return next(node for node in model.graph.node if node.op_type == "BatchNormalization")


def test_tensors_that_are_shared_through_identities_are_found(tmp_path):
    """Exporters keep one of several equal tensors, such as the biases of two norms that are added."""
    origin, ours = net(0), net(1)
    export(origin, images(), tmp_path / "net.onnx", fold_batch_norm=False)
    model = onnx.load(tmp_path / "net.onnx")
    for number, place in enumerate(range(1, 5)):
        names = [f"shared{number}_{times}" for times in range(2)]
        sources = (first_norm(model).input[place], names[0])
        for at, (source, name) in enumerate(zip(sources, names, strict=True)):
            model.graph.node.insert(at, onnx.helper.make_node("Identity", [source], [name]))
        first_norm(model).input[place] = names[-1]
    onnx.save(model, tmp_path / "net.onnx")
    start(ours, tmp_path / "net.onnx", images())
    expected = outputs(origin)
    np.testing.assert_allclose(outputs(ours), expected, atol=1e-4 * np.abs(expected).max())


def test_a_norm_whose_tensors_are_computed_is_refused(tmp_path):
    export(net(0), images(), tmp_path / "net.onnx", fold_batch_norm=False)
    model = onnx.load(tmp_path / "net.onnx")
    bias = first_norm(model).input[2]
    model.graph.node.insert(0, onnx.helper.make_node("Neg", [bias], ["negative"]))
    first_norm(model).input[2] = "negative"
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="whose tensors are not constant"):
        start(net(1), tmp_path / "net.onnx", images())


def test_a_linear_layer_may_be_stored_either_way(tmp_path):
    origin, ours = net(0), net(1)
    export(origin, images(), tmp_path / "net.onnx", fold_batch_norm=True)
    model = onnx.load(tmp_path / "net.onnx")
    gemm = next(node for node in model.graph.node if node.op_type == "Gemm")
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == gemm.input[1])
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight).T.copy(), weight.name))
    next(attribute for attribute in gemm.attribute if attribute.name == "transB").i = 0
    (found,) = run(model, {"input": images().inputs().numpy()})
    np.testing.assert_allclose(found, outputs(origin), atol=1e-4 * np.abs(found).max())
    onnx.save(model, tmp_path / "net.onnx")
    start(ours, tmp_path / "net.onnx", images())
    np.testing.assert_allclose(outputs(ours), found, atol=1e-4 * np.abs(found).max())


def test_operators_that_training_does_not_know_are_refused(tmp_path):
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 18]>
        net (float[n, 3, 8, 8] input) => (float[n, 10] logits) <float[192, 10] w> {
            flat = Flatten(input)
            logits = MatMul(flat, w)
        }""")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((192, 10), np.float32), "w"))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(ModelError, match="has a MatMul with weights; training takes Conv and Gemm only"):
        start(nn.Sequential(nn.Flatten(), nn.Linear(192, 10)), tmp_path / "net.onnx", images())
