"""ASCII words for characters that the encoding of a stream lacks: sigma for σ, x for ×.

Imports nothing heavy.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from functools import partial
from typing import TextIO

WORDS = "onnx_analog.words"  # the name of what a codec does about a character that it lacks
_RAISED = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿᵀ]+")
_MARKS = {
    "·": "*", "×": "x", "±": "+/-", "√": "sqrt", "∫": "integral ", "≈": "~", "≤": "<=", "≥": ">=", "≠": "!=",
    "∞": "inf", "∘": " o ", "‖": "||", "⌈": "ceil(", "⌉": ")", "−": "-", "–": "-", "—": "-", "…": "...", "½": "1/2",
    "─": "-", "│": "|", "├": "|", "└": "`", "◆": "<>", "©": "(c)", "µ": "u", "ŵ": "w_hat", "ŝ": "s_hat", "λ": "lambda",
    "‘": "'", "’": "'", "“": '"', "”": '"',
}  # fmt: skip


def in_words(text: str) -> str:
    """Return a text with ASCII words in the place of other characters; ? where no word is known.

    Examples
    --------
    >>> in_words("σ², 10⁻³ and 2×μ")
    'sigma^2, 10^-3 and 2xmu'
    """
    return "".join(map(_word, _RAISED.sub(_raised, text)))


def spelled(text: str, encoding: str | None) -> str:
    """Return `text` as a stream of this encoding shows it; a stream without one shows all."""
    if encoding is None or encoding.lower().startswith("utf"):
        return text
    return _RAISED.sub(partial(_whole, encoding), text).encode(encoding, WORDS).decode(encoding)


def _whole(encoding: str, match: re.Match[str]) -> str:
    """Return a power in words if the encoding lacks any of its characters: some have ² and not ⁻."""
    try:
        match[0].encode(encoding)
    except UnicodeEncodeError:
        return _raised(match)
    return match[0]


def spell(stream: TextIO | None) -> None:
    """Let a stream write words in the place of characters that its encoding lacks; one that is no file stays."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors=WORDS)


def _raised(match: re.Match[str]) -> str:
    return "^" + unicodedata.normalize("NFKC", match[0]).replace("−", "-")


def _word(character: str) -> str:
    if character.isascii():
        return character
    greek = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (\w+)", unicodedata.name(character, ""))
    if character in _MARKS or greek is None:
        return _MARKS.get(character, "?")
    return greek[2].lower() if greek[1] == "SMALL" else greek[2].capitalize()


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return in_words(error.object[error.start : error.end]), error.end


codecs.register_error(WORDS, _replace)
