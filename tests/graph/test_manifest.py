import copy
import hashlib
import json
import math
import os
import time
from dataclasses import asdict, replace
from decimal import Decimal, localcontext
from functools import cache
from importlib.resources import files as packaged
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import jsonschema
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings

from onnx_analog.channels import GaussianNoise, resolve
from onnx_analog.channels.empirical import EmpiricalChannel
from onnx_analog.channels.pcm import pcm
from onnx_analog.channels.precision import LimitedPrecision
from onnx_analog.coding import estimators
from onnx_analog.coding.assumptions import ADDRESSES_KNOWN
from onnx_analog.coding.codes import best_code
from onnx_analog.coding.joint import index_and_mask_of
from onnx_analog.coding.masks import seeded_mask
from onnx_analog.coding.scheme import GRANULARITIES, STRATEGIES, Scheme
from onnx_analog.coding.streams import Line
from onnx_analog.errors import LONGEST, ManifestError, ModelError
from onnx_analog.graph._cells import _log_factorial, mask_bits
from onnx_analog.graph.accounting import account
from onnx_analog.graph.manifest import FORMAT, PLANES, ClassEntry, Manifest, TensorEntry, differences
from onnx_analog.graph.manifest_json import MOST_BYTES, from_json, read
from onnx_analog.graph.stored import stored_tensors
from onnx_analog.passes import PrunePass
from tests.models import FAMILY, QUIET, UNIT, U, f32, holding, made, numbers, protected, proto

SCHEMA = json.loads((packaged("onnx_analog.graph") / "manifest.schema.json").read_text(encoding="utf-8"))
A = f32([[1, -2], [0, 4]])
B = f32([[2, -6], [6, 2], [8, 12]])


@cache
def by_hand(**options: Any) -> Manifest:
    settings = {"channel": UNIT, "cells_small": 2, "cells_large": 5, "side_bits_per_cell": 4}
    large = {} if "threshold" in options else {"large_fraction": 1 / 3}
    return account(protected(holding(a=A, b=B), **{**settings, **large, **options}))


# ---------------------------------------------------------------------------------------------------- by hand


def test_classes_by_hand():
    a, b = by_hand().tensors
    # Of 1, 2, 4 one is large, and alone: 0 joins it. Of 2, 6, 6, 2, 8, 12 two are. α = 1/(high - low), β = α·low.
    assert a.classes == (
        ClassEntry(low=1, high=2, alpha=1, beta=1, count=2, cells=2),
        ClassEntry(low=0, high=4, alpha=1 / 4, beta=0, count=1, cells=5),
    )
    assert b.classes == (
        ClassEntry(low=2, high=6, alpha=1 / 4, beta=1 / 2, count=4, cells=2),
        ClassEntry(low=8, high=12, alpha=1 / 4, beta=2, count=2, cells=5),
    )


def test_addresses_by_hand():
    a, b = by_hand().tensors
    # a: 2·2 + 1·5 levels; ⌈3·2 bits/4⌉; ⌈log2 C(4, 3)⌉ = 2 bits in one cell; 32·2·2 bits/4. b: 4·2 + 2·5; ⌈6·2/4⌉.
    assert a.cells == {"level": (0, 9), "side": (9, 11), "mask": (11, 12), "codebook": (12, 44)}
    assert b.cells == {"level": (44, 62), "side": (62, 65), "mask": (65, 65), "codebook": (65, 97)}
    assert (a.mask_bitmap_bits, b.mask_bitmap_bits) == (4, 0)


def test_totals_by_hand():
    code = best_code(UNIT, "bch")
    honest = 9 + 18 + sum(map(code.cells, (3 + 6, 3 + 6, 4, 2 * 128)))  # levels; signs, classes, a bitmap, codebooks
    assert by_hand().totals.to_dict() == {
        "original_weights": 4 + 6,
        "stored_weights": 3 + 6,
        "analog_cells": 9 + 18,
        "side_cells": 2 + 3,
        "mask_cells": 1,
        "mask_bitmap_bits": 4,
        "codebook_cells": 32 + 32,
        "honest_cells": honest,
        "decoding": "hard",
        "all_in_cells": 97,
        "r_avg": 27 / 9,
        "stored_cells_per_stored_weight": 32 / 9,
        "all_in_cells_per_stored_weight": 97 / 9,
        "all_in_cells_per_original_weight": 9.7,
        "honest_cells_per_original_weight": honest / 10,
    }


def test_the_honest_counting_by_hand():
    code = best_code(UNIT, "bch")
    lines = {line.name: line for line in by_hand().honest}
    assert lines["levels"] == Line(name="levels", cells=27)
    bits = {"sign": 9, "class": 9, "mask": 4, "codebook": 256}
    assert list(lines) == ["levels", *bits]
    for name, length in bits.items():
        cells, rate = code.cells(length), code.bits_per_cell
        more = {"symbols": code.symbols, "block_failure": code.block.failure, "decoding": "hard"}
        assert lines[name] == Line(name=name, bits=length, code="bch", bits_per_cell=rate, cells=cells, **more)
    assert by_hand().not_counted is None


def test_baselines_by_hand():
    found = {(b.bits_per_cell, b.pruned, b.name): b.cells for b in by_hand().baselines()}
    names = ("float32", "float16", "int8", "int4")
    assert [found[1, False, name] for name in names] == [320, 160, 80, 40]  # 10 weights
    assert [found[1, True, name] for name in names] == [290, 146, 74, 38]  # 9 weights, and 2 bits of mask
    assert [found[4, False, name] for name in names] == [80, 40, 20, 10]
    assert [found[4, True, name] for name in names] == [73, 37, 19, 10]  # the mask takes a cell
    assert len(found) == 16
    code = best_code(UNIT, "bch")
    honest = {(b.pruned, b.name): (b.honest_cells, b.decoding) for b in by_hand().baselines()}
    for name, bits in zip(names, (32, 16, 8, 4), strict=True):  # 4 bits are the bitmap of the mask
        assert honest[False, name] == (code.cells(10 * bits), "hard")
        assert honest[True, name] == (code.cells(9 * bits + 4), "hard")
    assert {b.cells_per_original_weight * 10 for b in by_hand().baselines()} == set(found.values())


def test_one_bit_in_a_cell_is_shown_once():
    assert len(by_hand(side_bits_per_cell=1).baselines()) == 8


@pytest.mark.parametrize(
    ("strategy", "cells"),
    [
        # levels 2·3 and 2·6; ⌈3·h/4⌉ and ⌈6·h/4⌉ for h bits of side information; 32·2·K/4
        ("raw", [(6, 0, 1, 16), (12, 0, 0, 16)]),
        ("sign", [(6, 1, 1, 16), (12, 2, 0, 16)]),
        ("mapping", [(6, 2, 1, 32), (12, 3, 0, 32)]),
        ("redundancy", [(9, 2, 1, 32), (18, 3, 0, 32)]),
    ],
)
def test_cells_of_each_strategy_by_hand(strategy, cells):
    found = by_hand(strategy=strategy)
    assert [tuple(entry.cells_for(plane) for plane in PLANES) for entry in found.tensors] == cells


def test_one_codebook_for_the_model_by_hand():
    found = by_hand(granularity="model")
    # Of 1, 2, 4 and 2, 6, 6, 2, 8, 12 three are large: 12, 8 and the first 6.
    counts = [tuple(c.count for c in entry.classes) for entry in found.tensors]
    assert counts == [(3, 0), (3, 3)]
    assert [entry.cells_for("level") for entry in found.tensors] == [3 * 2, 3 * 2 + 3 * 5]
    assert [entry.cells_for("codebook") for entry in found.tensors] == [32, 0]  # one for all
    bounds = [[(c.low, c.high) for c in entry.classes] for entry in found.tensors]
    assert bounds[0] == bounds[1]
    assert np.abs(np.array(bounds[0]) - [(1, 6), (6, 12)]).max() <= 5 * U * (12 + 6)  # as derived for any model, below


def test_an_empty_class_has_bounds_0():
    (small, large), _ = (entry.classes for entry in by_hand(large_fraction=0).tensors)
    assert (large.low, large.high, large.count) == (0, 0, 0)
    assert (small.low, small.high, small.count) == (1, 4, 3)


def test_the_example_of_the_paper_takes_1_048_cells_a_weight():
    small, large = 2_209_074, 5_615  # Isik et al. 2020, section 2
    classes = tuple(
        ClassEntry(low=0, high=1, alpha=1, beta=0, count=count, cells=cells)
        for count, cells in ((small, 1), (large, 20))
    )
    entry = replace(
        by_hand().tensors[0],
        stored=small + large,
        classes=classes,
        cells=dict.fromkeys(("side", "mask", "codebook"), (0, 0)) | {"level": (0, small + 20 * large)},
    )
    totals = replace(by_hand(), tensors=(entry,)).totals
    assert totals.analog_cells == 2_321_374
    assert round(totals.ratios()["r_avg"], 3) == 1.048


def test_a_pair_of_devices_is_two_cells():
    pairs = resolve("pcm-drift:differential=true")
    assert pairs.devices_per_cell == 2
    (single,), (double,) = (account(protected("matmul", channel=channel)).tensors for channel in (QUIET, pairs))
    assert double.cells_for("level") == 2 * single.cells_for("level")
    assert double.cells_for("side") == single.cells_for("side")


def test_analog_side_information_takes_cells_times_copies():
    options = {"side_channel": QUIET, "side_cells": 5, "side_copies": 3}
    found = by_hand(**options)
    assert [entry.cells_for("side") for entry in found.tensors] == [2 * 15, 3 * 15]


# ------------------------------------------------------------------------------------------------- for any model

MATRICES = """
    net (float[1, 16] x, float[1, 8] z) => (float[1, 16] y, float[1, 40] v)
    <float[16, 16] a = random, float[8, 40] b = 3 random> { y = MatMul(x, a) v = MatMul(z, b) }"""

OPTIONS = st.fixed_dictionaries(
    {
        "strategy": st.sampled_from(list(STRATEGIES)),
        "granularity": st.sampled_from(GRANULARITIES),
        "cells_small": st.integers(1, 5),
        "cells_large": st.integers(1, 50),
        "large_fraction": st.sampled_from([0.0, 0.001, 0.05, 0.5, 1.0]),
        "side_bits_per_cell": st.integers(1, 8),
    }
)
SPARSITIES = st.sampled_from([0.0, 0.3, 0.8, 0.99])
FEW = settings(max_examples=30)
PLAIN = proto(MATRICES)


def any_model(sparsity: float, plan: Scheme | None = None, **options: Any) -> ir.Model:
    return protected(pruned(sparsity), plan, **options)


@FEW
@given(SPARSITIES, OPTIONS)
def test_every_cell_has_one_address(sparsity, options):
    found = account(any_model(sparsity, **options))
    ranges = [entry.cells[plane] for entry in found.tensors for plane in PLANES]
    assert all(list(entry.cells) == list(PLANES) for entry in found.tensors)
    assert [first for first, _ in ranges] == [0, *(end for _, end in ranges[:-1])]
    assert all(first <= end for first, end in ranges)
    assert found.totals.all_in_cells == ranges[-1][1]


# Of each member of the family: bits of sign and class for a stored weight, float32 numbers of a codebook for each
# group, and cells of a symbol of side information.
COUNTS = {
    "raw": (0, 2, 1),
    "sign": (1, 2, 1),
    "mapping of the model": (2, 4, 1),
    "redundancy": (2, 4, 1),
    "redundancy by a bound": (2, 4, 1),
    "redundancy of channels": (2, 4, 1),
    "one class of channels": (0, 2, 1),
    "three classes": (1 + 2, 6, 1),
    "four classes, one without cells": (1 + 2, 1 + 3 * 2, 1),
    "signed bounds": (2, 2 + 1 + 2, 1),
    "five classes of the model": (3, 3, 1),  # the step, and both ends of the sizes
    "mixed cells of channels": (1 + 2, 1 + 2 * 2, 1),
    "two points": (1 + 1, 2, 1),
    "sixteen points": (1 + 4, 16, 1),
    "int4 of channels": (4, 1, 1),  # the step
    "int8": (8, 1, 1),
    "analog side": (2, 4, 2 * 3),
    "analog side of 7 classes": (1 + 3, 14, 1),
    "int4 in analog cells": (4, 1, 1),
}


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.97])
@pytest.mark.parametrize("name", FAMILY)
def test_cells_of_each_member_of_the_family(name, sparsity):
    """Counted from the decoded weights, the levels of each class and the table above, in the order of addresses."""
    scheme, (bits, codebook_numbers, symbol_cells) = FAMILY[name], COUNTS[name]
    model = any_model(sparsity, scheme)
    found, per_cell, address = account(model), scheme.side_bits_per_cell, 0
    cells = scheme.cells if len(scheme.cells) > 1 else scheme.cells * scheme.classes
    for place, (entry, tensor) in enumerate(zip(found.tensors, stored_tensors(model), strict=True)):
        n = math.prod(entry.shape)
        stored = n - round(sparsity * n)
        index = np.zeros(stored, int) if tensor.class_index is None else tensor.class_index
        counts = [int((index == number).sum()) for number in range(scheme.classes)]
        groups = entry.shape[1] if scheme.granularity == "channel" else 1  # columns of x·w
        lengths = {
            "side": stored * bits,
            "mask": (math.comb(n, stored) - 1).bit_length(),
            "codebook": 32 * groups * codebook_numbers if place == 0 or scheme.granularity != "model" else 0,
        }
        assert (entry.original, entry.stored, entry.groups) == (n, stored, groups)
        assert [(each.count, each.cells) for each in entry.classes] == list(zip(counts, cells, strict=True))
        assert dict(entry.bits) == lengths
        assert entry.mask_bitmap_bits == (n if sparsity else 0)
        symbols = {name: math.ceil(length / per_cell) for name, length in lengths.items()}
        symbols["side"] *= symbol_cells
        for plane, length in {"level": sum(map(math.prod, zip(counts, cells, strict=True))), **symbols}.items():
            assert entry.cells[plane] == (address, address + length), plane
            address += length
    assert found.totals.all_in_cells == address


class Tabled(estimators.Estimator):
    """An estimator whose reader needs a number for each class that has levels."""

    def fitted(self, written):
        return None

    def table_bits(self, cells):
        return 16 * sum(number > 0 for number in cells)


def test_tables_of_an_estimator_are_part_of_the_codebook(monkeypatch):
    monkeypatch.setitem(estimators._KNOWN, "tests:Tabled", Tabled())
    for name in ("raw", "redundancy", "four classes, one without cells", "mapping of the model"):
        plain, tabled = (any_model(0, FAMILY[name].changed(estimator=e)) for e in ("affine", "tests:Tabled"))
        more = [sum(number > 0 for number in t.scheme.cells_of_class) for t in stored_tensors(tabled)]
        bits = [[entry.bits["codebook"] for entry in account(model).tensors] for model in (plain, tabled)]
        assert [after - before for before, after in zip(*bits, strict=True)] == [16 * count for count in more]
        assert from_json(account(tabled).to_json()) == account(tabled)
        less = json.loads(account(tabled).to_json())
        less["tensors"][0]["bits"]["codebook"] = bits[0][0] - 1
        with pytest.raises(ManifestError, match="its codebook has"):
            from_json(json.dumps(less))


def test_the_counts_tell_members_of_the_family_apart():
    assert COUNTS.keys() == FAMILY.keys()
    with pytest.raises(AssertionError):
        assert dict(account(any_model(0, FAMILY["int8"])).tensors[0].bits)["codebook"] == 32 * 255


@FEW
@given(SPARSITIES, OPTIONS)
def test_totals_are_sums_over_tensors(sparsity, options):
    found = account(any_model(sparsity, **options))
    totals, entries = found.totals, found.tensors
    assert totals.original_weights == sum(entry.original for entry in entries)
    assert totals.stored_weights == sum(c.count for entry in entries for c in entry.classes)
    assert totals.analog_cells == sum(c.count * c.cells for entry in entries for c in entry.classes)
    for plane in ("side", "mask", "codebook"):
        assert getattr(totals, f"{plane}_cells") == sum(entry.cells_for(plane) for entry in entries)
    assert totals.mask_bitmap_bits == sum(entry.mask_bitmap_bits for entry in entries)


@FEW
@given(SPARSITIES, OPTIONS)
def test_bounds_are_the_extremes_of_a_class(sparsity, options):
    tensors = stored_tensors(model := any_model(sparsity, **{**options, "granularity": "tensor"}))
    signed = options["strategy"] == "raw"
    for entry, tensor in zip(account(model).tensors, tensors, strict=True):
        plain = numbers(pruned(sparsity), entry.name).ravel()
        stored = plain[plain != 0] if signed else np.abs(plain[plain != 0])
        index = np.zeros(stored.size) if tensor.class_index is None else tensor.class_index
        for place, found in enumerate(entry.classes):
            size = stored[index == place].astype(np.float64)
            assert found.count == size.size
            if size.size > 1:
                # α, β and the bound round once each: u·|high - low|, u·|β|/α and u·|w|, and |low| <= |w| + 2·S/α
                reach = 5 * U * (np.abs([size.min(), size.max()]) + 0.75 / found.alpha)
                assert (np.abs([found.low - size.min(), found.high - size.max()]) <= reach).all()


def pruned(sparsity: float) -> ir.Model:
    plain = ir.from_proto(PLAIN)
    PrunePass(sparsity=sparsity, scope="tensor")(plain)
    return plain


def test_no_magnitude_is_negative():
    found = account(protected(holding(w=f32([[1e-9, 1], [-0.3, 0.2]])), strategy="sign"))
    assert 0 <= found.tensors[0].classes[0].low <= 2 * U  # α rounds, and β, which is below 1


def test_entries_say_which_tensor_is_meant():
    yes, no = account(protected("if")).tensors
    assert (yes.name, yes.key, yes.shape, yes.dtype, yes.uses) == ("w", "y.then_branch/w", (16, 16), "FLOAT", 1)
    assert (no.name, no.key) == ("w", "y.else_branch/w")


@pytest.mark.parametrize(("name", "uses"), [("tied", 2), ("weight that is an output", 2), ("matmul", 1)])
def test_uses_are_counted(name, uses):
    assert account(protected(name)).tensors[0].uses == uses


def test_a_model_that_is_not_protected_has_no_manifest():
    with pytest.raises(ModelError, match="not protected"):
        account(made("matmul"))


def test_a_model_whose_tensors_another_tool_decoded_has_no_manifest():
    decoded, kept = made("matmul"), protected("matmul").metadata_props
    decoded.metadata_props.update(kept)  # as tools that fold constants leave it
    with pytest.raises(ModelError, match="protect"):
        account(decoded)


# -------------------------------------------------------------------------------------------------------- mask


@given(st.integers(1, 12_000).flatmap(lambda total: st.tuples(st.just(total), st.integers(0, total))))
def test_mask_bits_number_all_choices(sides):
    bits = mask_bits(*sides)
    assert 2**bits >= math.comb(*sides)
    assert bits == 0 or 2 ** (bits - 1) < math.comb(*sides)


@pytest.mark.parametrize(
    ("total", "stored"), [(1001, 101), (1001, 500), (20_000, 101), (20_000, 9_999), (300_000, 1_500), (10**6, 400)]
)
def test_mask_bits_are_exact_where_the_series_begins_and_beyond(total, stored):
    assert mask_bits(total, stored) == (math.comb(total, stored) - 1).bit_length() == mask_bits(total, total - stored)


@pytest.mark.parametrize("number", [100, 101, 1000, 5000])
def test_the_series_is_as_exact_as_it_says(number):
    exact = math.factorial(number)
    with localcontext(prec=60):
        error = abs(_log_factorial(number) - Decimal(exact).ln())
    assert error < Decimal("1e-26")  # 1e-25 of the logarithm to base 2 of a quotient of three


@given(st.integers(100_000, 2**40).flatmap(lambda total: st.tuples(st.just(total), st.integers(1, total - 1))))
def test_mask_bits_of_many_weights_lie_between_the_bounds_of_the_entropy(sides):
    total, stored = sides
    with localcontext(prec=50):
        n, k = Decimal(total), Decimal(stored)
        entropy = n * n.ln() - k * k.ln() - (n - k) * (n - k).ln()
        # √(n/(8k(n-k)))·2^(nH) <= C(n, k) <= √(n/(2πk(n-k)))·2^(nH), MacWilliams and Sloane 1977, chapter 10, lemma 7
        low, high = (
            (entropy + (n / (c * k * (n - k))).ln() / 2) / Decimal(2).ln() for c in (8, 2 * Decimal("3.14159265358979"))
        )
    assert math.ceil(low) <= mask_bits(total, stored) <= math.ceil(high)


@pytest.mark.parametrize("power", [3, 13, 14, 20, 26, 30, 40])
def test_one_weight_of_a_power_of_two_takes_its_exponent(power):
    total = 2**power
    assert [mask_bits(total, stored) for stored in (0, 1, total - 1, total)] == [0, power, power, 0]
    assert mask_bits(total + 1, 1) == power + 1


# --------------------------------------------------------------------------------------------------------- JSON


@FEW
@given(SPARSITIES, OPTIONS, st.sampled_from([None, 2]))
def test_a_manifest_survives_json(sparsity, options, indent):
    found = account(any_model(sparsity, **options))
    text = found.to_json(indent)
    assert from_json(text) == found
    assert ("\n" in text) == (indent is not None)
    jsonschema.validate(json.loads(text), SCHEMA, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "channel",
    [
        pcm(),
        resolve("pcm-drift"),
        resolve("rram-wan"),
        LimitedPrecision(inner=QUIET, read_bits=4),
        EmpiricalChannel(table=pcm()),
    ],
    ids=str,
)
def test_a_manifest_with_any_channel_survives_json_and_fits_the_schema(channel):
    model = protected("matmul", channel=channel, side_channel=channel)
    found = replace(account(model), source_sha256="0" * 64, command="onnx-analog protect 'ä b.onnx'")
    assert from_json(found.to_json()) == found
    jsonschema.validate(json.loads(found.to_json()), SCHEMA, jsonschema.Draft202012Validator)
    assert ('"residuals"' in found.to_json()) == isinstance(channel, EmpiricalChannel)  # which draws from them


def body() -> Any:
    return json.loads(by_hand().to_json())


def test_fields_that_are_not_known_are_ignored():
    found = body()
    for place in (found, found["tensors"][0], found["tensors"][0]["classes"][0], found["totals"]):
        place["later"] = {"a": [1]}
    assert from_json(json.dumps(found)) == by_hand()


def every_field(found: Any) -> list[tuple[Any, str]]:
    places = (found, found["tensors"][0], found["tensors"][0]["classes"][0])
    return [(place, name) for place in places for name in place if name not in ("totals", "baselines", "assumptions")]


@pytest.mark.parametrize("which", range(len(every_field(body()))))
def test_a_field_that_is_not_there_is_damage(which):
    found = body()
    place, name = every_field(found)[which]
    del place[name]
    with pytest.raises(ManifestError, match=name):
        from_json(json.dumps(found))


@pytest.mark.parametrize("other", ["x", -1.5], ids=repr)
@pytest.mark.parametrize("which", range(len(every_field(body()))))
def test_a_field_of_another_type_is_damage_or_of_no_consequence(which, other):
    found = body()
    place, name = every_field(found)[which]
    place[name] = other
    try:
        manifest = from_json(json.dumps(found))
    except ManifestError:
        return
    assert manifest.totals.all_in_cells == 97
    assert len(f"{manifest}{manifest.baselines()}") > 100


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "3", "[]", "{}", '"text"', by_hand().to_json()[:-9], "[" * 10**6, '{"format": {}}'],
    ids=lambda text: text[:9],
)
def test_text_that_is_no_manifest_is_refused(text):
    with pytest.raises(ManifestError):
        from_json(text)


def test_another_format_is_refused_by_name():
    with pytest.raises(ManifestError, match=f"'onnx-analog-manifest/9'.*{FORMAT!r}"):
        from_json(json.dumps(body() | {"format": "onnx-analog-manifest/9"}))


def test_format_1_is_refused_in_one_line():
    first = {"format": "onnx-analog-manifest/1", "strategy": "raw", "scope": "tensor", "tensors": [], "yardsticks": []}
    with pytest.raises(ManifestError) as refused:
        from_json(json.dumps(first))
    assert str(refused.value) == (
        "the manifest has format 'onnx-analog-manifest/1', and this version reads 'onnx-analog-manifest/2'. "
        "Protect the original again"
    )
    assert len(str(refused.value)) <= LONGEST


def test_a_file_is_read(tmp_path):
    (tmp_path / "m.json").write_text(by_hand().to_json(), encoding="utf-8")
    assert read(tmp_path / "m.json") == by_hand()


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "latin.json").write_bytes(b'"\xe4"')
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "missing.json", tmp_path, *sorted(tmp_path.iterdir())):
        with pytest.raises(ManifestError, match=path.name):
            read(path)


# ------------------------------------------------------------------------------------------------------ agreement


def in_path(*path: Any, to: Any = None, by: Any = None) -> Any:
    """Return a change of what JSON has at `path`: to another value, or by so much."""

    def change(found: Any) -> None:
        for name in path[:-1]:
            found = found[name]
        found[path[-1]] = to if by is None else found[path[-1]] + by

    return change


FIRST = ("tensors", 0)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (in_path(*FIRST, "cells", "side", to=[8, 10]), "tensor 'a': its side is in cells 8 to 10 of the manifest"),
        (in_path(*FIRST, "cells", "side", to=[10, 12]), "its side is in cells 10 to 12"),
        (in_path(*FIRST, "cells", "level", to=[9, 0]), "its level is in cells 9 to 0"),
        (in_path(*FIRST, "cells", "mask", to=[11, 11]), "its mask is in cells 11 to 11"),
        (in_path(*FIRST, "cells", "codebook", to=[-12, 44]), "a range of cells is"),
        (in_path(*FIRST, "cells", "codebook", to=[12]), "a range of cells is"),
        (in_path(*FIRST, "cells", "codebook", to=[12, 44, 45]), "a range of cells is"),
        (in_path(*FIRST, "cells", "codebook", to=[12, 44.0]), "a range of cells is"),
        (in_path("tensors", 1, "cells", "level", to=[0, 18]), "tensor 'b': its level is in cells 0 to 18"),
        (in_path(*FIRST, "stored", to=5), "5 of 4 weights are stored"),
        (in_path(*FIRST, "stored", to=0), "0 of 4 weights are stored"),
        (in_path(*FIRST, "original", by=1), r"shape \(2, 2\) is not of 5 weights"),
        (in_path(*FIRST, "shape", to=[2**62, 4]), r"shape \(.*\) is not of 4 weights"),  # in int64 it is of none
        (in_path(*FIRST, "shape", to=[-2, -2]), "a shape has up to 64 whole numbers"),
        (in_path(*FIRST, "shape", to=[True, 4]), "a shape has"),
        (in_path(*FIRST, "shape", to=[1] * 65), "a shape has"),
        (in_path(*FIRST, "dtype", to="INT8"), "'INT8' is no float type"),
        (in_path(*FIRST, "classes", 0, "count", by=1), "classes do not hold 3 weights"),
        (in_path(*FIRST, "classes", 0, "alpha", to=0.0), "alpha 0.0, 1.0 to 2.0 is no class"),
        (in_path(*FIRST, "classes", 0, "alpha", to=-1.0), "is no class"),
        (in_path(*FIRST, "classes", 0, "alpha", to=float("nan")), "NaN is not finite"),
        (in_path(*FIRST, "classes", 0, "low", to=3.0), "is no class"),
        (in_path(*FIRST, "classes", 0, "alpha", to=None), "alpha None, 1.0 to 2.0 is no class"),
        (in_path(*FIRST, "classes", 0, "cells", to=0), r"its cells per weight are not those of its scheme, \(2, 5\)"),
        (in_path(*FIRST, "classes", 0, "cells", by=1), "its cells per weight are not those of its scheme"),
        (in_path(*FIRST, "groups", to=2), "it has 2 groups"),
        (in_path(*FIRST, "groups", to=0), "it has 0 groups"),
        (in_path(*FIRST, "scheme", to=1), "tensor 'a' has scheme 1, which the manifest does not list"),
        (in_path(*FIRST, "scheme", to=-1), "scheme is -1"),
        (in_path(*FIRST, "bits", "side", by=1), "tensor 'a': its side has 7 bits, and must have 6"),
        (in_path(*FIRST, "bits", "mask", to=0), "its mask has 0 bits, and must have 2"),
        (in_path(*FIRST, "bits", "codebook", to=1024), "its codebook has 1024 bits, and must have 128"),
        (in_path(*FIRST, "bits", "codebook", to="x"), "bits is "),
        (in_path(*FIRST, "bits", "side", to=False), "bits is "),
        (in_path(*FIRST, "bits", to={}), "its side has None bits"),
        (in_path(*FIRST, "classes", to=[]), "0 classes of 2"),
        (in_path(*FIRST, "mask_bitmap_bits", to=0), "mask_bitmap_bits is 0"),
        (in_path("tensors", 1, "mask_bitmap_bits", to=5), "mask_bitmap_bits is 5"),
        (in_path(*FIRST, "sha256", "level", to="0" * 63), "a digest is no SHA-256"),
        (in_path(*FIRST, "sha256", "other", to="0" * 64), "it has digests of"),
        (in_path(*FIRST, "sha256", to={}), "it has digests of nothing"),
        (in_path(*FIRST, "key", to="b"), "lists 2 tensors of the key 'b'"),
        (in_path("tensors", to=[]), "lists no tensor"),
        (in_path("schemes", to=[]), "lists no tensor, or no scheme"),
        (lambda body: body["schemes"].extend([{}, 3]), "schemes, more than its 2 tensors"),
        (in_path("schemes", to={}), r"schemes is \{\} in the manifest"),
        (in_path("schemes", 0, to=3), "scheme 0 of the manifest is not valid: a scheme is 3"),
        (in_path("schemes", 0, "sign", to="level"), "it has digests of level, mask, sign, class"),
        (in_path("schemes", 0, "sign", to="other"), "sign is 'other'; choose from bit, level"),
        (in_path("schemes", 0, "strategy", to="raw"), "a scheme has no setting 'strategy'"),
        (in_path("schemes", 0, "classes", to=3), "cells has 2 numbers"),
        (in_path("schemes", 0, "granularity", to="layer"), "granularity is 'layer'"),
        (in_path("schemes", 0, "granularity", to="model"), "tensor 'b' has other classes .* though all share them"),
        (in_path("schemes", 0, "side_bits_per_cell", to=9), "side_bits_per_cell is 9"),
        (in_path("schemes", 0, "side_bits_per_cell", to=3), "its codebook is in cells 12 to 44 .* must be in 12 to 55"),
        (in_path("schemes", 0, "cells", to=[2, 6]), r"its cells per weight are not those of its scheme, \(2, 6\)"),
        (in_path("schemes", 0, "channel", to={}), "channel"),
        (in_path("schemes", 0, "channel", to="pcm"), "channel is 'pcm'; it must be an object"),
        (in_path("schemes", 0, "channel", to={"family": "x"}), "no channel is called 'x'"),
        (in_path("schemes", 0, "channel", to=resolve("pcm-drift:differential=true").to_dict()),
         "its level is in cells 0 to 9 of the manifest, and must be in 0 to 18"),
        (in_path("schemes", 0, "side_copies", to=3), "side_cells and side_copies need a side_channel"),
        (in_path("schemes", 0, "side_channel", to=resolve("pcm-drift:differential=true").to_dict()),
         "its side is in cells 9 to 11"),
        (in_path("assumptions", to=["none"]), r'assumptions is \["none"\] in the manifest, and \[\] follows'),
        (in_path("assumptions", to=None), "assumptions is null in the manifest"),
        (in_path("schemes", 0, "estimator", to="os:system"), "the estimator 'os:system' is not loaded"),
        (in_path("source_sha256", to="abc"), "source_sha256 is"),
        (in_path("totals", "analog_cells", by=1), "totals: analog_cells is 28, and 27 follows from the tensors"),
        (in_path("totals", "all_in_cells", to=97.0), "totals: all_in_cells is 97.0"),
        (in_path("totals", "r_avg", by=1e-6), "totals: r_avg"),
        (in_path("totals", "r_avg", to=None), "totals: r_avg is null"),
        (in_path("totals", to={}), "'original_weights' is missing"),
        (in_path("totals", to=[]), r"totals is \[\] in the manifest"),
        (in_path("tensors", to=None), "tensors is null in the manifest"),
        (in_path("tensors", 0, to=3), "lists of objects"),
        (in_path("baselines", 3, "cells", by=-1), "baselines: int4: cells is"),
        (in_path("baselines", 3, "name", to="int2"), "baselines: int4: name is"),
        (lambda body: body["baselines"].reverse(), "baselines: float32: name is"),
        (in_path("baselines", to=[]), "lists 0 baselines, and 16 follow from the tensors"),
        (in_path("baselines", to={}), r"baselines is \{\} in the manifest"),
        (in_path("baselines", 0, to=0), "lists of objects"),
    ],
)  # fmt: skip
def test_a_manifest_that_contradicts_itself_is_refused(change, what):
    found = body()
    change(found)
    with pytest.raises(ManifestError, match=what):
        from_json(json.dumps(found))


def test_ratios_may_be_rounded_by_other_programs():
    found = body()
    found["totals"]["stored_cells_per_stored_weight"] = 3.5555555556
    assert from_json(json.dumps(found)) == by_hand()


@pytest.mark.parametrize("channel", [QUIET, resolve("pcm-drift:differential=true")], ids=str)
def test_analog_side_information_is_counted_whatever_devices_its_cells_have(channel):
    found = account(protected(holding(a=A, b=B), side_channel=channel, side_cells=2, side_copies=3))
    assert from_json(found.to_json()) == found


def tall(original: int, stored: int) -> str:
    """Return a manifest of one tensor of so many weights, as true as it can be."""
    first = by_hand(strategy="sign").tensors[0]
    (only,) = first.classes
    level, side, mask = 2 * stored, -(-stored // 4), -(-mask_bits(original, stored) // 4)
    ends = [0, level, level + side, level + side + mask, level + side + mask + 16]
    entry = replace(
        first, shape=(original,), original=original, stored=stored, mask_bitmap_bits=original,
        classes=(only._replace(count=stored),),
        streams={"sign": stored, "mask": original, "codebook": 64},
        bits={"side": stored, "mask": mask_bits(original, stored), "codebook": 64},
        cells=dict(zip(PLANES, pairwise(ends), strict=True)),
    )  # fmt: skip
    return replace(by_hand(strategy="sign"), tensors=(entry,)).to_json()


def test_large_numbers_cost_nothing():
    start = time.process_time()
    assert from_json(tall(2**40, 2**39)).totals.original_weights == 2**40
    with pytest.raises(ManifestError, match="weights are stored"):
        from_json(tall(2**40 + 1, 2**39))
    for huge in (2**62, 10**18, 10**4000):
        found = json.dumps({**body(), "tensors": [{**body()["tensors"][0], "original": huge, "stored": huge // 2}]})
        with pytest.raises(ManifestError):
            from_json(found)
    assert time.process_time() - start < 1


JUNK: Any = st.sampled_from(
    [None, True, 0, 1, 2, -1, 3, 10**12, 2**62, 0.5, 1e308, "", "x", "raw", [], {}, [1], [0, 9], {"a": 1}]
)


def every_place(value: Any) -> list[tuple[Any, Any]]:
    names = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    return [pair for name in names for pair in [(value, name), *every_place(value[name])]]


@settings(max_examples=400)
@given(st.data())
def test_junk_is_refused_or_changes_nothing_that_is_counted(data):
    found = body()
    container, name = data.draw(st.sampled_from(every_place(found)))
    container[name] = data.draw(JUNK)
    try:
        other = from_json(json.dumps(found))
    except ManifestError:
        return
    assert other.totals == by_hand().totals
    assert other.baselines() == by_hand().baselines()
    assert [entry.cells for entry in other.tensors] == [entry.cells for entry in by_hand().tensors]


# ------------------------------------------------------------------------------------------------------- schema


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["format"]["const"] == FORMAT


def in_scheme(**settings: Any) -> Any:
    return lambda found: found["schemes"][0].update(settings)


def in_tensor(**fields: Any) -> Any:
    return lambda found: found["tensors"][0].update(fields)


def in_class(**fields: Any) -> Any:
    return lambda found: found["tensors"][0]["classes"][0].update(fields)


def in_cells(**fields: Any) -> Any:
    return lambda found: found["tensors"][0]["cells"].update(fields)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.update(format="onnx-analog-manifest/1"),
        lambda found: found.update(schemes=[]),
        in_scheme(granularity="layer"),
        in_scheme(side_bits_per_cell=0),
        in_scheme(side_bits_per_cell=2.5),
        in_scheme(cells=[-1]),
        in_scheme(cells=[]),
        in_scheme(side_copies=2),
        in_scheme(strategy="raw"),
        in_scheme(channel="pcm"),
        in_scheme(side_channel={}),
        lambda found: found["schemes"][0].pop("sign"),
        lambda found: found.update(source_sha256="abc"),
        lambda found: found["schemes"][0]["channel"].pop("family"),
        lambda found: found["tensors"].append({}),
        in_tensor(shape=[-1, 2]),
        in_tensor(stored="3"),
        in_tensor(classes=[]),
        in_tensor(sha256={"level": "XYZ"}),
        in_class(count=-1),
        in_class(cells=-1),
        in_class(alpha=0),
        in_class(alpha="1"),
        in_cells(level=[0]),
        in_cells(level=[0, 1, 2]),
        in_cells(side=[0, 1.5]),
        in_cells(mask=[-1, 0]),
        lambda found: found["tensors"][0]["cells"].pop("codebook"),
        lambda found: found["totals"].update(analog_cells=-1),
        lambda found: found["baselines"][0].update(name="float64"),
    ],
)
def test_the_schema_rejects_what_is_broken(change):
    broken = body()
    jsonschema.validate(broken, SCHEMA, jsonschema.Draft202012Validator)
    change(broken)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("which", range(len(every_field(body()))))
def test_the_schema_requires_every_field(which):
    broken = body()
    place, name = every_field(broken)[which]
    del place[name]
    with pytest.raises(jsonschema.ValidationError, match=name):
        jsonschema.validate(broken, SCHEMA, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("part", ["totals", "baselines"])
def test_the_schema_requires_what_other_programs_rely_on(part):
    first = body()[part] if part == "totals" else body()[part][0]
    for name in first:
        broken = copy.deepcopy(body())
        del (broken[part] if part == "totals" else broken[part][0])[name]
        with pytest.raises(jsonschema.ValidationError, match=name):
            jsonschema.validate(broken, SCHEMA, jsonschema.Draft202012Validator)


# ------------------------------------------------------------------------------------------------------ digests


def with_other_byte(model: ir.Model, plane: str) -> ir.Model:
    tensor = stored_tensors(model)[0]
    changed = tensor.plane(plane).copy()
    changed.view(np.uint8).flat[0] ^= 1
    tensor.inputs[plane].const_value = ir.tensor(changed, name=tensor.inputs[plane].name)
    return model


def test_digests_are_those_of_the_bytes_in_the_file():
    model = protected(holding(a=A, b=B))
    a, b = account(model).tensors
    bytes_of = {name: numbers(model, name).tobytes() for name in model.graph.initializers}
    assert a.sha256 == {
        plane: hashlib.sha256(bytes_of[f"a.{plane}"]).hexdigest() for plane in ("level", "mask", "sign", "class")
    }
    assert b.sha256.keys() == {"level", "sign", "class"}


@pytest.mark.parametrize("plane", ["level", "mask", "sign", "class"])
def test_a_digest_changes_with_one_bit_of_its_plane(plane):
    (a, b), (other_a, other_b) = (
        account(model).tensors
        for model in (protected(holding(a=A, b=B)), with_other_byte(protected(holding(a=A, b=B)), plane))
    )
    assert {name for name in a.sha256 if a.sha256[name] != other_a.sha256[name]} == {plane}
    assert b.sha256 == other_b.sha256


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_manifest_fits_its_model(granularity):
    model = protected(holding(a=A, b=B), granularity=granularity)
    account(model).compare(account(model))
    from_json(account(model).to_json()).compare(account(ir.from_proto(ir.to_proto(model))))


@pytest.mark.parametrize(
    ("plane", "what"),
    [
        ("level", "sha256 of level"),
        ("sign", "sha256 of sign"),
        ("alpha", "low of class small"),
        ("beta", "low of class small"),
    ],
)
def test_the_tensor_that_does_not_fit_is_named(plane, what):
    found = account(protected(holding(a=A, b=B)))
    with pytest.raises(ManifestError, match=f"tensor 'a': {what} is .* in the model, .* in the manifest. Write"):
        found.compare(account(with_other_byte(protected(holding(a=A, b=B)), plane)))


def with_class(manifest, number, **changes):
    """Return a manifest whose first tensor has other values in one class."""
    entry, *others = manifest.tensors
    classes = list(entry.classes)
    classes[number] = classes[number]._replace(**changes)
    return replace(manifest, tensors=(replace(entry, classes=tuple(classes)), *others))


@pytest.mark.parametrize(
    ("alpha", "other", "values"),
    [
        (4.1861234, 1.0, "4.186 in the model, 1.0 in other.json"),
        (4.1861234, 4.1861239, "4.1861234 in the model, 4.1861239 in other.json"),
    ],
)
def test_the_first_difference_is_told_with_both_values(alpha, other, values):
    model, listed = (
        with_class(account(protected(holding(a=A, b=B))), 1, alpha=value, cells=cells)
        for value, cells in ((alpha, 20), (other, 21))
    )
    with pytest.raises(ManifestError) as refusal:
        listed.compare(model, "other.json")
    assert str(refusal.value) == f"tensor 'a': α of class large is {values}. Write the manifest again from the model"


def test_a_manifest_of_another_source_does_not_fit():
    model = protected(holding(a=A, b=B))
    with pytest.raises(ManifestError, match="the manifest has another source_sha256 than the model"):
        replace(account(model), source_sha256="0" * 64).compare(account(model))


def test_a_manifest_of_another_command_says_that_nothing_else_differs():
    manifest = account(protected(holding(a=A, b=B)))
    with pytest.raises(ManifestError) as refusal:
        replace(manifest, command="onnx-analog protect a.onnx").compare(replace(manifest, command=None), "a.json")
    assert str(refusal.value) == (
        "a.json and the model hold the same tensors, and differ in the command only, onnx-analog protect a.onnx and "
        "None. Write the manifest again from the model"
    )


@pytest.mark.parametrize(("named", "model", "where"), [("ab", "a", "model"), ("a", "ab", "manifest")])
def test_a_tensor_that_is_missing_is_named(named, model, where):
    matrices = {"a": A, "b": B}
    found, other = (protected(holding(**{name: matrices[name] for name in names})) for names in (named, model))
    with pytest.raises(ManifestError, match=f"tensor 'b' is not in the {where}"):
        account(found).compare(account(other))


@pytest.mark.parametrize(
    "options",
    [{"cells_large": 21}, {"side_bits_per_cell": 3}, {"channel": GaussianNoise(sigma=0.2)}, {"side_channel": QUIET}],
    ids=lambda options: next(iter(options)),
)
def test_a_manifest_of_another_protection_does_not_fit(options):
    found = account(protected("matmul"))
    with pytest.raises(ManifestError):
        found.compare(account(protected("matmul", **options)))


def test_a_manifest_prints_its_totals():
    assert str(by_hand()) == (
        "9 of 10 weights in 27 analog cells (r_avg 3.000); all-in 97 cells, 9.700 per original weight; "
        f"as the memory allows, {by_hand().totals.honest_cells / 10:.3f}"
    )


def test_an_entry_is_plain_data():
    (entry, _) = by_hand().tensors
    assert TensorEntry(**{**asdict(entry), "classes": entry.classes}) == entry


# ---------------------------------------------------------------------------------------------- its assumptions


def test_a_manifest_states_what_reads_assume():
    valid = jsonschema.Draft202012Validator(SCHEMA).is_valid
    found = json.loads(account(protected(holding(a=A, b=B), side_channel=QUIET)).to_json())
    assert found["assumptions"] == [ADDRESSES_KNOWN]
    assert valid(found)
    assert by_hand().to_dict()["assumptions"] == []
    assert not valid({**found, "assumptions": ["something else"]})


def test_a_manifest_without_its_assumption_is_refused():
    found = account(protected(holding(a=A, b=B), side_channel=QUIET)).to_dict()
    del found["assumptions"]
    with pytest.raises(ManifestError, match=r"^assumptions is \[\] in the manifest, and .* follows from its schemes$"):
        from_json(json.dumps(found))


def test_a_manifest_that_assumes_nothing_need_not_say_so():
    found = by_hand().to_dict()
    del found["assumptions"]
    assert from_json(json.dumps(found)) == by_hand()


def test_a_pruned_rival_has_a_coded_mask_where_the_model_has():
    """A joint stream of mask and class hides the mask's own length: the rival's is that of the best code of masks."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(60, 60)) * (rng.random((60, 60)) < 0.3)
    steps: dict[str, Any] = {
        "sign": "level",
        "classes": 15,
        "partition": "uniform",
        "relative_step": 0.8,
        "cells": 0,
        "channel": UNIT,
    }
    counted = {}
    for entropy in ("none", "static"):
        found = account(protected(holding(w=f32(weight)), Scheme(**steps, entropy=entropy)))
        pruned = {each.name: each for each in found.baselines() if each.pruned and each.bits_per_cell == 1}
        counted[entropy] = pruned["int4"].honest_cells
        assert pruned["int4"].decoding == "hard"
    (entry,) = found.tensors
    code = best_code(UNIT, "bch")
    mask = mask_bits(3600, entry.stored) if "mask" not in entry.streams else entry.streams["mask"]
    assert counted == {"none": code.cells(4 * entry.stored + 3600), "static": code.cells(4 * entry.stored + mask)}


def seeded(seed: int, key: str, kept: int = 360) -> Any:
    """Return a model with one weight, all but `kept` of whose 3,600 numbers are 0, as follows from a seed."""
    weight = np.random.default_rng(0).normal(size=(60, 60))
    return holding(**{key: f32(weight * seeded_mask(seed, key, 3600, kept).reshape(60, 60))})


SEEDED: dict[str, Any] = {"classes": 15, "partition": "uniform", "relative_step": 0.8, "cells": 0, "channel": UNIT}


@pytest.mark.parametrize("entropy", ["none", "static", "context"])
def test_a_mask_that_follows_from_the_seed_takes_64_bits(entropy):
    """The class index is as long as without a mask; all else is the same."""
    scheme = Scheme(**SEEDED, sign="level", entropy=entropy, mask_seed=5)
    found = account(protected(seeded(5, "w"), scheme))
    plain = account(protected(seeded(5, "w"), scheme.changed(mask_seed=None)))
    streams, without = (dict(each.tensors[0].streams) for each in (found, plain))
    assert streams.pop("mask seed") == 64
    assert streams.keys() == {"class", "codebook"}
    assert sum(streams.values()) + 64 < sum(without.values())
    if entropy == "none":
        assert streams["class"] == 4 * 360 > without["class"]  # without a seed, what is read as 0 is not stored
        assert without["mask"] == 3600
    assert found.totals.mask_cells == 32  # of two bits
    assert (found.totals.stored_weights, found.totals.mask_bitmap_bits) == (360, 3600)
    assert from_json(found.to_json()) == found
    jsonschema.validate(json.loads(found.to_json()), SCHEMA, jsonschema.Draft202012Validator)
    (line,) = [line for line in found.honest or () if line.name == "mask seed"]
    assert (line.bits, line.decoding) == (64, "hard")
    rivals = [each for each in found.baselines() if each.pruned and (each.name, each.bits_per_cell) == ("int4", 1)]
    assert [each.honest_cells for each in rivals] == [best_code(UNIT, "bch").cells(4 * 360 + 64)]


def test_the_stream_of_classes_of_a_seeded_mask_decodes_again():
    scheme = Scheme(**SEEDED, sign="level", entropy="context", mask_seed=5)
    (tensor,) = stored_tensors(protected(seeded(5, "w"), scheme))
    index, mask = index_and_mask_of(tensor.encoded(scheme))
    assert mask is None
    np.testing.assert_array_equal(index, tensor.class_index)
    np.testing.assert_array_equal(seeded_mask(scheme.mask_seed, tensor.key, tensor.size, index.size), tensor.mask)


@pytest.mark.parametrize(("seed", "key"), [(4, "w"), (5, "v")])
def test_a_mask_that_does_not_follow_from_the_seed_is_stored(seed, key):
    """Of another seed, or of another tensor; and if one more weight is 0, or none is."""
    scheme = Scheme(**SEEDED, sign="level", entropy="static", mask_seed=5)
    weight = f32(seeded(seed, key).graph.initializers[key].const_value.numpy())
    found, plain = (account(protected(holding(w=weight), each)) for each in (scheme, scheme.changed(mask_seed=None)))
    assert "mask seed" not in found.tensors[0].streams
    assert found.tensors[0].streams.keys() == plain.tensors[0].streams.keys()


def test_one_weight_more_or_less_than_the_seed_s_mask_is_noticed():
    scheme = Scheme(**SEEDED, sign="level", entropy="static", mask_seed=5)
    for change in (0, 1):
        model = seeded(5, "w")
        weight = model.graph.initializers["w"].const_value.numpy().copy()
        place = np.flatnonzero(weight if change == 0 else weight == 0)[7]
        weight.flat[place] = change
        model.graph.initializers["w"].const_value = ir.tensor(weight, name="w")
        assert "mask seed" not in account(protected(model, scheme)).tensors[0].streams


def test_a_manifest_with_a_seed_that_its_scheme_does_not_have_is_refused():
    scheme = Scheme(**SEEDED, sign="level", entropy="static", mask_seed=5)
    found = account(protected(seeded(5, "w"), scheme)).to_dict()
    found["schemes"][0]["mask_seed"] = None
    with pytest.raises(ManifestError, match="its stream 'mask seed' has 64 bits, and must have 0"):
        from_json(json.dumps(found))


def test_entries_with_other_numbers_of_classes_differ_in_that_alone():
    one = {"name": "w", "classes": [{"alpha": 1.0}, {"alpha": 2.0}]}
    assert list(differences(one, {"name": "w", "classes": [{"alpha": 3.0}]})) == [("number of classes", "2", "1")]
    other = {"name": "w", "classes": [{"alpha": 1.0}, {"alpha": 3.0}]}
    assert [found[1:] for found in differences(one, other)] == [("2.0", "3.0")]
    assert not list(differences(one, copy.deepcopy(one)))
