"""Ids of nodes in Model Explorer: what its ONNX adapter is known to give.

`tests/tuning/test_model_explorer.py` holds them to the adapter itself, where it is installed.
"""

from __future__ import annotations

import onnx_analog as oa
from onnx_analog.graph.explorer import users_of
from onnx_analog.graph.weights import scopes
from tests.models import model

NESTED = """
    net (float[n, 16] x) => (float[n, 16] y) <float[16, 16] a = random, bool c = {1}, int64 three = {3}> {
        [first] h = MatMul(x, a)
        k = MatMul(h, a)
        [choice] z = If(c) <
            then_branch = one () => (float[n, 16] t) <float[16, 16] b = 2 random> {
                u = MatMul(k, b)
                [inner] t = If(c) <
                    then_branch = two () => (float[n, 16] v) <float[16, 16] d = 3 random> { [q] v = MatMul(u, d) },
                    else_branch = three () => (float[n, 16] w) <float[16, 16] d = 4 random> { w = MatMul(u, d) }
                >
            },
            else_branch = other () => (float[n, 16] e) <float[16, 16] b = 5 random> { e = MatMul(k, b) }
        >
        [again] l = Loop(three, c, z) <
            body = b (int64 i, bool go, float[n, 16] s) => (bool still, float[n, 16] o) <float[16, 16] w = 6 random> {
                still = Identity(go)
                o = MatMul(s, w)
            }
        >
        y = MatMul(l, a)
    }"""
EXPECTED = {
    "a": ("first", "node", "node_2"),
    "z.then_branch/b": ("choice/then_branch/node",),
    "z.then_branch/t.then_branch/d": ("choice/then_branch/inner/then_branch/q",),
    "z.then_branch/t.else_branch/d": ("choice/then_branch/inner/else_branch/node",),
    "z.else_branch/b": ("choice/else_branch/node",),
    "l.body/w": ("again",),
}


def users(found):
    keys = [f"{path}{name}" for path, graph, _ in scopes(found) for name in graph.initializers]
    return users_of(found, keys).of


def test_nodes_of_branches_have_their_path_and_those_of_loops_are_the_loop():
    found = users(model(NESTED))
    assert {key: found[key] for key in EXPECTED} == EXPECTED
    assert found["three"] == ("again",)


def test_a_protected_model_has_the_same_ids():
    assert users_of(oa.protect(model(NESTED)).model, EXPECTED) == ("net", EXPECTED)


def test_the_model_is_not_changed():
    found = model(NESTED)
    before = [node.name for node in found.graph]
    users(found)
    assert [node.name for node in found.graph] == before
    assert not all(before)  # some have no name, which is made up


def test_weights_of_a_function_are_those_of_what_calls_it():
    found = model("""
        <ir_version: 10, opset_import: ["" : 18, "local" : 1]>
        net (float[4, 16] x) => (float[4, 16] y) {
            [one] h = local.twice(x)
            [two] k = local.once(h)
            [last] y = Relu(k)
        }
        <domain: "local", opset_import: ["" : 18, "local" : 1]>
        twice (x) => (y) {
            h = local.once(x)
            y = local.once(h)
        }
        <domain: "local", opset_import: ["" : 18]>
        once (x) => (y) {
            w = Constant <value = float[16, 16] random> ()
            y = MatMul(x, w)
        }""")
    (shown,) = users_of(found, ["local.once()/w"]).of.values()
    assert sorted(shown) == ["one", "two"]
