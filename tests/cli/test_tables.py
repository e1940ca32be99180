from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from onnx_analog.cli.tables import NAME_WIDTH, Table
from tests.printing import WIDTHS, assert_whole, printed, squeezed


def made(columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> Table:
    table = Table()
    for heading, side in columns:
        table.add_column(heading, justify="left" if side == "name" else "right")
    for row in rows:
        table.add_row(*row)
    return table


letters = st.characters(categories=("Lu", "Ll", "Nd"), max_codepoint=0x17F)
names = st.lists(st.text(letters, min_size=1, max_size=60), min_size=1, max_size=3).map(" ".join)
numbers = st.integers(-(10**18), 10**18).map(lambda n: f"{n:,}") | st.floats(-1e9, 1e9).map(
    lambda x: f"{x:.4f} ± {x:.2g}"
)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    left = draw(st.integers(0, 3))
    right = draw(st.integers(0 if left else 1, 7))
    heads = draw(st.lists(st.text(letters, min_size=1, max_size=12), min_size=left + right, max_size=left + right))
    columns = [(head, "name" if place < left else "number") for place, head in enumerate(heads)]
    row = st.tuples(*([names] * left + [numbers] * right))
    return made(columns, draw(st.lists(row, min_size=1, max_size=4)))


@given(tables(), st.sampled_from(WIDTHS))
def test_every_name_and_every_digit_is_printed(table, width):
    assert_whole(table, width)


BLOCK = ("conv1.weight-of-a-model-with-long-names", "small", "12,345,678,901", "0.0604 ± 0.0001")
FOUR = (("tensor", "name"), ("class", "name"), ("weights", "number"), ("σ of a read", "number"))


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_name_folds_beside_numbers_that_do_not(width):
    assert_whole(made(FOUR, [BLOCK, ("b", "large", "1", "2.0")]), width)


def test_a_name_claims_no_more_than_its_minimum_where_there_is_no_room():
    table = made(FOUR, [BLOCK])
    least = 2 + NAME_WIDTH + 2 + 5 + 2 + 14 + 2 + 15  # with two spaces before each column
    assert "─" in printed(table, least)
    assert "─" not in printed(table, least - 1)


def test_a_table_that_is_too_wide_has_a_line_for_each_cell():
    shown = printed(made(FOUR, [("w", "small", "123", "0.5"), ("v", "", "4", "0.25")]), 20)
    assert shown.splitlines()[:9] == [
        "  tensor    w",
        "  class     small",
        "  weights   123",
        "  σ of a    0.5",
        "  read",
        "",
        "  tensor    v",
        "  weights   4",
        "  σ of a    0.25",
    ]


def test_a_narrower_table_is_shown_where_the_wide_one_has_no_room():
    wide = made((("a", "name"), *((f"c{n}", "number") for n in range(9))), [("x", *(["123456"] * 9))])
    wide.narrower = made((("n", "name"), ("value", "number")), [("narrow", "123456")])
    assert "narrow" in printed(wide, 60)
    assert "narrow" not in printed(wide, 80)


def test_sections_are_ruled_off():
    table = made((("a", "name"), ("b", "number")), [("x", "1")])
    table.add_section()
    table.add_row("total", "1")
    assert printed(table, 80).splitlines() == ["  a      b", "  ─────  ─", "  x      1", "  ─────  ─", "  total  1", ""]


def test_without_utf_8_a_table_is_ruled_in_ascii():
    shown = printed(made((("a", "name"), ("b", "number")), [("x", "1")]), 80, encoding="ascii")
    assert shown.splitlines()[:2] == ["  a  b", "  -  -"]


def test_title_and_caption_are_wrapped_and_whole():
    table = made((("a", "name"),), [("x",)])
    table.title, table.caption = "scope tensor " * 9, "accuracy in % " * 20
    for width in WIDTHS:
        shown = printed(table, width)
        assert max(map(cell_len, shown.splitlines())) <= width
        assert squeezed(shown).count("scopetensor") == 9
        assert squeezed(shown).count("accuracyin%") == 20


def test_in_a_pipe_every_row_is_one_line():
    table = made(FOUR, [BLOCK, ("b " * 300, "large", "1", "2.0")])
    assert len(printed(table, WIDTHS[-1]).strip("\n").splitlines()) == 4


def test_what_a_terminal_would_obey_is_escaped():
    shown = printed(made((("a", "name"), ("b", "number")), [("w\x1b[31m\n[bold]x", "1")]), 80)
    assert r"w\x1b[31m\n[bold]x" in shown
    assert "\x1b" not in shown


def test_headings_titles_and_captions_are_escaped_too():
    table = Table(title="of \x1b[31m", caption="below \x07")
    table.add_column("input, \x1b[31m")
    table.add_row("1")
    text = printed(table, 80)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert r"input, \x1b[31m" in text


def test_wide_characters_keep_columns_in_line():
    assert_whole(made((("name", "name"), ("n", "number")), [("重み" * 20, "12,345"), ("b", "1")]), 40)


@pytest.mark.parametrize("broken", ["  0.060\n", "  name    n\n  ────  ───\n  a    0.06\n"])
def test_assert_whole_rejects_a_digit_that_is_cut(monkeypatch, broken):
    monkeypatch.setattr("tests.printing.printed", lambda *_: broken)
    with pytest.raises(AssertionError):
        assert_whole(made((("name", "name"), ("n", "number")), [("a", "0.0604")]), 80)
