"""Completion in a shell: what may be typed next, and how bash, zsh and fish are told.

`click` completes commands, options, choices and files. Here are the names that only this package knows, lists with
commas, and words with "=" and ":", at which bash takes words apart.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]
_ASSIGNS, _BREAKS = "=", "=:"  # of the characters at which bash breaks words, those that options hold


def one_of(names: Callable[[], Iterable[str]], *, or_file: bool = False) -> Completer:
    """Return a function that completes one of some names, or a file where no name fits.

    Parameters
    ----------
    names : function
        Returns the names; it is called when a word is completed, so it may import.
    or_file : bool
        A file may stand in their place.
    """

    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        file = [CompletionItem(incomplete, type="file")] if or_file else []  # bash: unless names follow
        return [*file, *(CompletionItem(name) for name in names() if name.startswith(incomplete))]

    return complete


def some_of(names: Callable[[], Iterable[str]], *, or_file: bool = False) -> Completer:
    """Return a function that completes the last of comma-separated names; those before it are not offered again.

    Parameters are those of `one_of`; only the first of the words can be completed as a file.
    """

    def complete(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        file = [CompletionItem(incomplete, type="file")] if or_file and "," not in incomplete else []
        return [*file, *(CompletionItem(text) for text in listed(names(), incomplete))]

    return complete


def listed(names: Iterable[str], incomplete: str, separator: str = ",") -> list[str]:
    """Return a list of names with its last completed in each possible way.

    >>> listed(["raw", "sign", "mapping"], "raw,")
    ['raw,sign', 'raw,mapping']
    """
    before, comma, last = incomplete.rpartition(separator)
    given = before.split(separator)
    return [before + comma + name for name in names if name.startswith(last) and name not in given]


def files(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a file, where an option takes a file or something else that is not completed."""
    return [CompletionItem(incomplete, type="file")]


def channel_names() -> list[str]:
    """Return the names of the installed channels."""
    from importlib.metadata import entry_points

    return sorted({entry.name for entry in entry_points(group="onnx_analog.channels")})


def metric_names() -> list[str]:
    """Return the names of the metrics."""
    from onnx_analog.run.metrics import METRICS

    return list(METRICS)


def estimator_names() -> list[str]:
    """Return the names of the estimators of the package."""
    from onnx_analog.coding import estimators

    return list(estimators.names())


def provider_names() -> list[str]:
    """Return the execution providers of the onnxruntime that is installed."""
    from onnxruntime import get_available_providers

    return list(get_available_providers())


def axes(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete an axis of a grid: its name and, if it has choices, its values."""
    from onnx_analog.study.axes import CHANNELS, SETTINGS

    name, equals, values = incomplete.partition(_ASSIGNS)
    if not equals:
        return [CompletionItem(f"{each}{_ASSIGNS}") for each in SETTINGS if each.startswith(name)]
    if name not in SETTINGS:
        return []
    choices = channel_names() if name in CHANNELS else SETTINGS[name][0].choices or ()
    choices = estimator_names() if name == "estimator" else choices
    return [CompletionItem(f"{name}{equals}{text}") for text in listed(map(str, choices), values)]


def columns(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a column of the CSV file that the command takes as PAIRS."""
    path = next(iter((*ctx.args, ctx.params.get("pairs") or "")))  # not yet an argument if an option lacks its value
    try:
        with Path(str(path)).open(encoding="utf-8-sig", newline="") as file:
            lines = (line for line in file if line.strip() and not line.startswith("#"))
            names = next(csv.reader(lines), [])
    except (OSError, UnicodeError, csv.Error):
        return []
    return [CompletionItem(name.strip()) for name in names if name.strip().startswith(incomplete)]


def channel_settings(incomplete: str) -> list[str] | None:
    """Return what completes the last setting of a channel, as in pcm-drift:fit=hermes,read; None before its colon.

    >>> channel_settings("gaussian:sigma=0.1,l"), channel_settings("pcm-drift:differential=t")
    (['gaussian:sigma=0.1,low='], ['pcm-drift:differential=true'])
    """
    head, colon, options = incomplete.rpartition(":")
    name = head.rpartition(",")[2]
    if not colon or name not in channel_names():
        return None
    from onnx_analog.channels import settings

    known = settings(name)
    given = {each.partition(_ASSIGNS)[0] for each in options.split(",")[:-1]}
    before, comma, last = options.rpartition(",")
    setting, equals, value = last.partition(_ASSIGNS)
    if equals:
        choices = ("true", "false") if known.get(setting) == "bool" else ()
        return [f"{head}:{before}{comma}{setting}={each}" for each in choices if each.startswith(value)]
    names = (each for each in known if each.startswith(last) and each not in given)
    return [f"{head}:{before}{comma}{each}{_ASSIGNS}" for each in names]


def _with_settings(complete: Completer) -> Completer:
    """Return a function that completes channels, and their settings after a colon."""

    def completed(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        found = channel_settings(incomplete)
        return complete(ctx, param, incomplete) if found is None else [CompletionItem(text) for text in found]

    return completed


CHANNEL = _with_settings(one_of(channel_names, or_file=True))
CHANNELS = _with_settings(some_of(channel_names, or_file=True))
METRIC = one_of(metric_names)
ESTIMATOR = one_of(estimator_names)
PROVIDERS = some_of(provider_names)


class _Whole:
    """Offers `--option=value` as a whole word for an incomplete word of that form, as zsh and fish expect it."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """Return what completes a word."""
        items: list[CompletionItem] = super().get_completions(list(args), incomplete)  # type: ignore[misc]
        option, equals, _ = incomplete.partition(_ASSIGNS)
        if not (option.startswith("--") and equals) or "--" in args:
            return items
        return [
            CompletionItem(f"{option}{equals}{item.value}", help=item.help) if item.type == "plain" else item
            for item in items
        ]


@add_completion_class
class Zsh(_Whole, ZshComplete):
    """Completion for zsh."""


@add_completion_class
class Fish(_Whole, FishComplete):
    """Completion for fish."""


_BASH = """\
%(complete_func)s() {
    local IFS=$'\\n'
    local response completion type value

    response=$(env COMP_LINE="${COMP_LINE:0:$COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
%(complete_var)s=bash_complete $1)

    for completion in $response; do
        type=${completion%%%%,*} value=${completion#*,}
        case $type in
            dir) COMPREPLY=(); compopt -o dirnames ;;
            file) COMPREPLY=(); compopt -o default ;;
            open) COMPREPLY+=("$value"); compopt -o nospace ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done

    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@add_completion_class
class Bash(_Whole, BashComplete):
    """Completion for bash, which breaks words at "=" and ":" and replaces only what stands after the last of them."""

    source_template = _BASH
    _kept = ""  # what bash keeps of the incomplete word

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor, and the incomplete word at it."""
        line, breaks = os.environ["COMP_LINE"], os.environ.get("COMP_WORDBREAKS", _BREAKS)
        words = split_arg_string(line)
        incomplete = words.pop() if words and split_arg_string(f"{line}.")[-1] != "." else ""
        end = max(incomplete.rfind(each) for each in _BREAKS if each in breaks) if set(_BREAKS) & set(breaks) else -1
        self._kept = incomplete[: end + 1]
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """Return a line of the answer: what it is, and what bash puts in the place of the word's end."""
        if item.type != "plain":
            return f"{item.type},{item.value}"
        kind = "open" if item.value.endswith(_ASSIGNS) else "plain"
        return f"{kind},{item.value.removeprefix(self._kept)}"
