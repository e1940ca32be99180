import io

import pytest

from onnx_analog.study._lines import CHECKSUM, LONGEST, Groups, Parse, Written, line_of, whole_lines
from onnx_analog.study._rows import VARYING

COLUMNS = ["model", *VARYING, "original", "seed"]
SAME = {"seed": 7}


def row_line(trial: int, model: str = "net") -> bytes:
    """Return the line of a trial's row."""
    row = {"model": model, "trial": trial, "value": trial / 8, "sqnr_db": 20.5, "original": 0.75}
    return Written(COLUMNS, SAME).line(row).encode()


def groups_of(line: bytes) -> tuple[Groups, list[list[str]]]:
    """Return groups that know the row of a line, and the words that they took."""
    parse, taken = Parse(line_of([*COLUMNS, CHECKSUM]).encode(), SAME), []
    groups = Groups(parse.columns, VARYING)
    groups.add(line, parse.words(line), lambda words: taken.append(list(words)))
    return groups, taken


def test_rows_of_a_known_point_are_taken_without_parsing():
    groups, taken = groups_of(row_line(0))
    assert all(groups.took(row_line(trial)) for trial in (1, 2, 13))
    assert taken == [["1", "0.125", "20.5"], ["2", "0.25", "20.5"], ["13", "1.625", "20.5"]]
    assert not groups.took(row_line(1, "other"))


@pytest.mark.parametrize("new", [b"0", b"9", b",", b"."])
def test_a_row_with_a_changed_character_is_never_taken_with_other_words(new):
    groups, taken = groups_of(row_line(0))
    line = row_line(1)
    for place in range(len(line) - 1):
        groups.took(line[:place] + new + line[place + 1 :])
        assert all(words == ["1", "0.125", "20.5"] for words in taken), place
    assert len(taken) == line[:-1].count(new)  # where nothing changes


@pytest.mark.parametrize("character", ["a", "é", "→", "𝄞"])
def test_the_longest_line_is_whole_whatever_its_characters_take(character):
    longest = (character * (LONGEST - 1) + "\n").encode()
    assert list(whole_lines(io.BytesIO(longest + b"next\n" + b"half"))) == [longest, b"next\n"]
    with pytest.raises(ValueError, match="it is longer than 1,048,576 characters"):
        list(whole_lines(io.BytesIO(character.encode() + longest)))
