"""What onnx_ir drops of a model, and that all else goes through it."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_analog import api
from onnx_analog.graph import files, kept
from tests.models import made_proto, proto


def trained(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    info = model.training_info.add()
    info.initialization.CopyFrom(onnx.parser.parse_graph("begin () => (float[16, 32] r) { r = RandomNormalLike(z) }"))
    info.algorithm.CopyFrom(onnx.parser.parse_graph(f"step () => (float[16, 32] next) {{ next = Neg({name}) }}"))
    info.initialization_binding.add(key="s", value="r")
    info.update_binding.add(key=name, value="next")
    return model


def full() -> onnx.ModelProto:
    """Return a model that has all that the format allows but training information."""
    model = proto("""
        <ir_version: 11, opset_import: ["" : 18, "local" : 1], producer_name: "p", producer_version: "1",
         domain: "d", model_version: 7, doc_string: "of a model">
        net (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w = random> { h = MatMul(x, w) y = local.f <a = 3> (h) }
        <domain: "local", opset_import: ["" : 18]>
        f <a> (x) => (y) { y = Relu(x) }""")
    graph, function, node = model.graph, model.functions[0], model.graph.node[0]
    for owner in (graph, function, node, graph.input[0], graph.output[0], graph.initializer[0]):
        owner.doc_string = f"of {owner.name}"
    for owner in (model, graph, function, node, graph.input[0]):
        owner.metadata_props.add(key="a", value="b")
    node.name, function.overload, graph.node[1].overload = "n", "o", "o"
    graph.input[0].type.denotation = "IMAGE"
    graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    function.attribute_proto.append(onnx.helper.make_attribute("beta", 2.0))
    graph.value_info.append(onnx.helper.make_tensor_value_info("h", 1, ["N", 4], doc_string="of h"))
    function.value_info.append(onnx.helper.make_tensor_value_info("y", 1, ["N", 4]))
    graph.quantization_annotation.add(tensor_name="h").quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="w")
    model.configuration.add(name="c", num_devices=2, device=["a", "b"])
    node.device_configurations.add(configuration_id="c", pipeline_stage=3)
    return model


def lines(model: onnx.ModelProto) -> list[str]:
    """Return what a model holds, in no order; the standard domain may be written or not."""
    return sorted(line for line in str(model).splitlines() if line.strip() != 'domain: ""')


def test_all_else_goes_through():
    model = full()
    back = ir.to_proto(files.load(model))
    added = [info for info in back.graph.value_info if info.name == "w"]  # the shape of an initializer
    for info in added:
        back.graph.value_info.remove(info)
    assert lines(back) == lines(model)
    del model.graph.node[0].metadata_props[:]
    assert lines(back) != lines(model)


@pytest.mark.parametrize("external", [False, True])
def test_training_information_is_written_again(tmp_path, external):
    model = trained(made_proto("gemm"), "b")
    onnx.save(model, tmp_path / "in.onnx", save_as_external_data=external, size_threshold=0)
    loaded = files.load(files.load(tmp_path / "in.onnx"))
    files.write_model(loaded, tmp_path / "out.onnx")
    back = onnx.load(tmp_path / "out.onnx")
    assert back.training_info == model.training_info
    assert [node.op_type for node in back.graph.node] == [node.op_type for node in model.graph.node]


def test_a_pruned_model_keeps_it(tmp_path):
    api.prune(trained(made_proto("gemm"), "w"), sparsity=0.5).save(tmp_path / "out.onnx")
    assert onnx.load(tmp_path / "out.onnx").training_info == trained(made_proto("gemm"), "w").training_info


def test_names_of_training_are_bindings_and_inputs():
    assert kept.trained_names(files.load(trained(made_proto("gemm"), "w"))) == {"s", "w", "z"}
    assert kept.trained_names(files.load(made_proto("gemm"))) == set()


def test_what_is_forgotten_is_not_written(tmp_path):
    loaded = files.load(trained(made_proto("gemm"), "w"))
    kept.forget_training(loaded)
    files.write_model(loaded, tmp_path / "out.onnx")
    assert not onnx.load(tmp_path / "out.onnx").training_info
    assert np.array_equal(files.load(tmp_path / "out.onnx").graph.initializers["w"].const_value.numpy(),
                          loaded.graph.initializers["w"].const_value.numpy())  # fmt: skip
