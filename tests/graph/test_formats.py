"""What docs/formats.md says, held against the program: its worked example, its tables and its plan."""

import importlib.resources
import json
import re

import jsonschema
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnx_analog.channels import resolve
from onnx_analog.cli import cost_tables
from onnx_analog.coding.codes import SOFT_SHARE, best_code
from onnx_analog.coding.plan import Plan
from onnx_analog.coding.scheme import CODES, Scheme
from onnx_analog.coding.streams import DECODING, NAMES
from onnx_analog.graph import manifest, stored
from onnx_analog.graph.correction import CORRECTED_KEY
from onnx_analog.graph.layout import inputs_of, layout_of
from onnx_analog.graph.stored import stored_tensors
from onnx_analog.settings import settings_of
from tests.conftest import ROOT
from tests.models import UNIT, f32, holding, protected, run, same_bits

TEXT = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
SCHEME = Scheme(classes=3, partition="bounds", bounds=(0.75, 2.5), cells=(0, 2, 5), channel=UNIT)


def section(title: str) -> str:
    """Return the text below a heading, up to the next one."""
    return re.split(r"(?m)^#+ ", TEXT.partition(f" {title}\n")[2])[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the lines of tables, without those of headings and rules."""
    lines = [line.strip("|").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line] for line in lines]


def matrices() -> list[np.ndarray]:
    """Return the matrices of the worked example: as it is, and as it is decoded."""
    blocks = re.findall(r"(?:^    [-\d. ]+\n){2}", section("Bits").replace("−", "-"), re.MULTILINE)
    return [f32([line.split() for line in block.splitlines()]) for block in blocks]


def test_the_worked_example_has_the_planes_that_are_written_there():
    weight, expected = matrices()
    found = protected(holding(w=weight), SCHEME)
    (tensor,) = stored_tensors(found)
    seen = set()
    for name, *_, values in rows(section("Bits")):
        plane = tensor.plane(name.strip("`"))
        seen.add(name.strip("`"))
        if plane.dtype == np.uint8:
            assert plane.tobytes().hex(" ") == values.strip("`"), name
        else:
            assert plane.tolist() == np.array([float(v) for v in values.split(",")], plane.dtype).tolist(), name
    assert seen == set(inputs_of(tensor.layout))
    assert f"`{tensor.node.op_type}`" in section("Bits")
    assert same_bits([tensor.decode()], [expected])
    found.graph.outputs.append(tensor.node.outputs[0])
    assert same_bits(run(found, {"x_w": np.zeros((2, 2), np.float32)})[1:], [expected])


def test_bits_in_the_example_are_those_of_its_bytes():
    for _, bits, values in (row for row in rows(section("Bits")) if len(row) == 3 and "`" in row[1]):
        packed = [int(each, 2) for each in re.findall(r"`([01]{8})`", bits)]
        assert packed == list(bytes.fromhex(values.strip("`")))


@pytest.mark.parametrize(
    "name",
    [
        "DecodeLevels",
        "DecodeMaskedSignedClass2Mixed",
        "DecodeClass8PointsGroupedAligned",
        "DecodeSignedClass4LevelsStage6",
    ],
)
def test_inputs_stand_in_the_order_of_the_table(name):
    layout = layout_of(name)
    assert layout is not None
    table = re.findall(r"`(\w+)`", " ".join(row[0] for row in rows(section("The protected model"))))
    assert [plane for plane in table if plane in inputs_of(layout)] == list(inputs_of(layout))


def test_every_key_of_the_metadata_is_in_the_table():
    keys = {row[0].strip("`") for row in rows(section("Metadata"))}
    assert keys == {*stored.KEYS, stored.READBACK_KEY, CORRECTED_KEY}
    assert [row[1] for row in rows(section("Metadata")) if row[0] == f"`{stored.FORMAT_KEY}`"] == [f"`{stored.FORMAT}`"]


def test_every_setting_of_a_scheme_is_in_the_table_with_its_default():
    table = {name: row[-1].strip("`") for row in rows(section("Schemes")) for name in re.findall(r"`(\w+)`", row[0])}
    assert list(table) == list(settings_of(Scheme))
    for name, (setting, _, default) in settings_of(Scheme).items():
        if name == "channel":
            default = "pcm"
        written = default if isinstance(default, str) else json.dumps(default)
        assert table[name] == ("[0.05]" if name == "shares" else written), name  # the default depends on classes
        told = next(row[1] for row in rows(section("Schemes")) if f"`{name}`" in row[0])
        assert all(f"`{choice}`" in told for choice in setting.choices or ()), name


def test_the_plan_that_is_shown_is_one():
    (block,) = re.findall(r"```json\n(.*?)```", section("Plans"), re.DOTALL)
    body = json.loads(block)
    schema = json.loads((importlib.resources.files("onnx_analog.coding") / "plan.schema.json").read_text("utf-8"))
    jsonschema.validate(body, schema, jsonschema.Draft202012Validator)
    plan = Plan.from_dict(body)
    assert plan.scheme_of("conv") == Scheme()
    assert plan.scheme_of("fc.1.weight") == Scheme.int8()
    assert plan.scheme_of("fc.2.weight") is None


def test_the_format_of_the_manifest_is_the_one_that_is_named():
    assert f"`{manifest.FORMAT}`" in section("The manifest")
    assert all(f"| {line} |" in section("Addresses") for line in ("analog", *manifest.PLANES[1:], "all-in"))


def test_helpers_reject_what_is_not_there():
    assert rows("| a | b |\n|---|---|\n| `a` | 1 |\n") == [["`a`", "1"]]
    assert section("No such heading") == ""
    onnx.checker.check_model(ir.to_proto(protected(holding(w=matrices()[0]), SCHEME)), full_check=True)


# ------------------------------------------------------------------------------------------------ two countings


def table_of(title: str, head: str) -> list[list[str]]:
    """Return the rows of the table of a section whose head begins with a word."""
    lines = section(title).splitlines()
    (first,) = [number for number, line in enumerate(lines) if line.startswith(f"| {head} |")]
    found = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip(" `") for cell in line.strip("|").split(" | ")])
    return found


def test_the_rates_of_codes_are_those_of_the_program():
    for channel, *rates in table_of("Two countings", "channel"):
        codes = [best_code(resolve(channel), code) for code in CODES]
        assert rates == [f"{code.bits_per_cell:.3f} with {code.symbols} symbols" for code in codes]
    assert "95 % of the mutual information" in " ".join(section("Two countings").split())
    assert SOFT_SHARE == 0.95


def test_the_streams_and_levels_of_decoding_are_those_of_the_program():
    assert tuple(row[0] for row in table_of("Two countings", "stream")) == NAMES
    levels = table_of("Two countings", "`decoding`")
    assert tuple(level for level, _ in levels) == DECODING
    assert [f"{level} ({needs})" for level, needs in levels] == list(cost_tables.DECODING.values())


@pytest.mark.parametrize("bits", [1, 4095, 4096, 4097, 100_000])
def test_the_cells_of_a_stream_are_those_of_the_formula(bits):
    code = best_code(resolve("pcm-partial-reset"), "bch")
    whole, rest = divmod(bits, code.block.data)
    stored_bits = whole * code.block.length + (rest + code.block.length - code.block.data if rest else 0)
    assert code.cells(bits) == code.copies * code.packing.cells * -(-stored_bits // code.packing.bits)
