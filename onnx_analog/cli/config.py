"""Options in TOML files: what --config reads and --save-config writes, for every command."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from onnx_analog.disk import kinds, reading
from onnx_analog.errors import AnalogError, OptionError, OutputError, one_line
from onnx_analog.spelling import nearest
from onnx_analog.study.config import IN_PYTHON, config_text

_LIMIT, _DOTS = 2**17, 1000  # bytes of a TOML file, and dots in a line
NOT_SAVED = ("config", "save_config", "force", "as_json", "debug", "verbose", "quiet")
CONFIG_READ = "onnx_analog.config"  # where the context keeps its path
OBJECTS = "onnx_analog.in_python"  # and the options that it cannot hold
LOADED = "onnx_analog.load"  # and the classes of --load
DEFAULTS = "onnx_analog.defaults"  # and the function of `also_save`


def configure(ctx: click.Context, param: click.Parameter, path: Path | None) -> Path | None:
    """Let the file's entries be the defaults of all options."""
    if path is None:
        return None
    try:
        text = reading.read_text(path, limit=_LIMIT, error=OptionError, kind=kinds.TOML)
        if any(line.count(".") > _DOTS for line in text.splitlines()):  # a key of as many parts takes minutes
            raise OptionError(f"{str(path)!r} has more than {_DOTS:,} dots in a line: write one entry in each")
        body = tomllib.loads(text)
    except AnalogError as error:
        raise click.BadParameter(str(error), ctx=ctx, param=param) from error
    except (ValueError, RecursionError) as error:  # of which that of TOML is one
        why = "it is nested too deeply" if isinstance(error, RecursionError) else one_line(str(error), 150)
        raise click.BadParameter(f"{path} is not valid TOML: {why}", ctx=ctx, param=param) from error
    ctx.meta[CONFIG_READ] = path
    ctx.meta[OBJECTS] = body.pop(IN_PYTHON, [])
    known = _entries(ctx.command)
    entries: dict[str, Any] = {}
    for name, value in body.items():
        option = known.get(name.replace("-", "_"))
        if option is None:
            like = nearest(name.replace("-", "_"), known)
            raise click.BadParameter(
                f"{path} has an entry {one_line(repr(name), 60)}, which cannot be set there: "
                + (f"did you mean {like!r}?" if like else f"entries are the options of {_name(ctx)} --help"),
                ctx=ctx,
                param=param,
            )
        if option.name in entries:
            raise click.BadParameter(f"{path} has the entry {name!r} twice, under two names", ctx=ctx, param=param)
        entries[str(option.name)] = _as_typed(option, value, ctx)
    ctx.default_map = {**(ctx.default_map or {}), **entries}
    return path


def _name(ctx: click.Context) -> str:
    """Return a command as it is typed, without the program's name."""
    return ctx.command_path.partition(" ")[2] or str(ctx.info_name)


def _entries(command: click.Command) -> dict[str, click.Parameter]:
    """Return the options that a file can set, by each of their names."""
    known: dict[str, click.Parameter] = {}
    for param in command.params:
        if param.name not in NOT_SAVED:
            flags = [flag for flag in param.opts if flag.startswith("--")]
            known |= {str(param.name): param, **{flag[2:].replace("-", "_"): param for flag in flags}}
    return known


def _as_typed(option: click.Parameter, value: Any, ctx: click.Context) -> Any:
    """Return an entry of the file as one would type it on the command line, where it is then checked."""
    several = option.multiple or option.nargs == -1
    listed = getattr(option.type, "listed", False)
    if isinstance(value, bool) and isinstance(option, click.Option) and option.is_flag:
        return value
    parts = value if isinstance(value, list) and (several or listed) else [value]
    texts_only = isinstance(option.type, click.Path | click.Choice | click.types.StringParamType)
    of_text = texts_only or getattr(option.type, "of_text", False)
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, str if of_text else str | int | float):
            kind = "text" if of_text else "a number or text"
            also = f", or a list of {'texts' if of_text else 'them'}" if several or listed else ""
            written = one_line(_as_written(value), 100)
            raise click.BadParameter(f"the --config file has {written}; it must be {kind}{also}", ctx=ctx, param=option)
        if isinstance(part, int) and abs(part) >= 2**63:
            raise click.BadParameter("the --config file has a number of more than 64 bits", ctx=ctx, param=option)
    texts = [str(part) for part in parts]
    if several:
        return texts
    return ",".join(texts) if texts else ()


def _as_written(value: Any) -> str:
    """Return a value as TOML has it, where Python writes it in another way."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def check_saved(ctx: click.Context, target: Path) -> None:
    """Refuse to write the options over a file that another option names, or over any file without --force."""
    from onnx_analog.disk import writing

    if "force" not in ctx.params and target.is_file():
        raise OutputError(f"{str(target)!r} already exists: choose another name for --save-config")
    named = list(_paths(ctx))
    writing.check_outputs(
        [target],
        [path for path in named if path.is_file()],
        force=bool(ctx.params.get("force")),
        perhaps=[path for path in named if not path.exists()],
    )


def _paths(ctx: click.Context) -> Iterator[Path]:
    """Yield all that may be a file which the command reads or writes: what options name, and what a model refers to."""
    from onnx_analog.graph import files

    if CONFIG_READ in ctx.meta:
        yield ctx.meta[CONFIG_READ]
    of_paths = {str(param.name) for param in ctx.command.params if isinstance(param.type, click.Path)}
    for name, value in ctx.params.items():
        for text in value if isinstance(value, tuple) else (value,):
            if name in NOT_SAVED or not isinstance(text, str | Path) or not str(text):
                continue
            if name not in of_paths and not os.path.isfile(text):  # noqa: PTH113 - a text may be no path at all
                continue
            yield Path(text)
            if Path(text).suffix == ".onnx" and Path(text).is_file():
                yield from files.files_of(Path(text))


def also_save(defaults: Callable[[], Mapping[str, Any]]) -> None:
    """Let --save-config write defaults that depend on other options, too: a function returns them by name."""
    click.get_current_context().meta[DEFAULTS] = defaults


def text_of(ctx: click.Context) -> str:
    """Return the options in force as TOML, ready for --config: those of the line, of a file and of defaults."""
    values = {**ctx.params, "load": ctx.meta.get(LOADED)}
    if DEFAULTS in ctx.meta:
        values |= {name: value for name, value in ctx.meta[DEFAULTS]().items() if values.get(name) is None}
    options = [option for option in ctx.command.params if option.name not in NOT_SAVED]  # in the order of the help
    entries = {_entry(option): values.get(str(option.name)) for option in options}
    return config_text({name: value for name, value in entries.items() if value not in ((), [])})


def _entry(option: click.Parameter) -> str:
    """Return the name of an option in a file: the one on the command line, not the one in Python."""
    flag = next((flag for flag in option.opts if flag.startswith("--")), None)
    return str(option.name) if flag is None else flag[2:].replace("-", "_")
