"""Channels: what a memory cell returns for what was written to it.

Channels are found by the entry point group `onnx_analog.channels`, so that an installed package can bring its own. An
entry is a channel class, or a function of keyword arguments that returns a channel. A class that is not installed is
named as "module:Class"; files are read with the classes that the process has, and never import one.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from onnx_analog import serialise
from onnx_analog.channels import rules
from onnx_analog.channels.base import Channel as Channel
from onnx_analog.channels.base import GaussianChannel as GaussianChannel
from onnx_analog.channels.base import Source as Source
from onnx_analog.channels.estimate import from_pairs as from_pairs
from onnx_analog.channels.gaussian import GaussianNoise as GaussianNoise
from onnx_analog.channels.modifiers import seconds
from onnx_analog.channels.table import Scale as Scale
from onnx_analog.channels.table import TableChannel as TableChannel
from onnx_analog.disk.kinds import CHANNEL, mistaken
from onnx_analog.disk.reading import MIB, read_text
from onnx_analog.errors import IMPORT_FIRST, ChannelError, OptionError, brief, located, of_content, require_path
from onnx_analog.named import named_function
from onnx_analog.spelling import nearest

GROUP = "onnx_analog.channels"
_FORMS = {  # of channels that need a file, or another channel
    "measured": "measured:csv=pairs.csv,input=volts,output=ohms,log=true",
    "table": "the file that a fit wrote, such as mine.channel.json",
    "empirical": "a measured channel, with residuals empirical",
    "precision": "any channel, with write bits or read bits",
    "residual": "a channel such as pcm-drift, with cells_hold residual",
}
DEFAULT = "pcm"
_LIMIT = 16 * MIB  # of a file; the largest that `channel fit` writes is 10 MiB
_DEPTH = 8  # of channels in each other
_OF_MODULE = re.compile(r"([A-Za-z_][\w.]*:[A-Za-z_]\w*)(?::(.*))?", re.DOTALL)  # module:Class, perhaps with options
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def available() -> dict[str, EntryPoint]:
    """Return the entry points of all channels that are installed, by name."""
    return dict(_entries(tuple(sys.path)))


@lru_cache(maxsize=1)
def _entries(path: tuple[str, ...]) -> dict[str, EntryPoint]:  # noqa: ARG001 - other search paths have other packages, so it is a key of the cache
    return {entry.name: entry for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name)}


def summary(name: str) -> str:
    """Return the first line of the documentation of the channel called `name`, or why that channel cannot be used."""
    try:
        line = (inspect.getdoc(_load(name)) or "").partition("\n")[0]
    except ChannelError as error:  # one broken package does not hide the others
        if name not in available():
            raise
        line = str(error)
    if name in _FORMS:
        line = f"{line} Name {_FORMS[name]}."
    line = line.removeprefix("Return ")
    return line[:1].upper() + line[1:]


def resolve(spec: str | os.PathLike[str] | Channel | type[Channel]) -> Channel:
    """Return the channel that `spec` names.

    Parameters
    ----------
    spec : str, path, Channel or class of channels
        A name (`pcm`), a name with options (`gaussian:sigma=0.1,low=0,high=1`), the path of a channel's JSON file, a
        class or function as module:Class or module:Class:key=value,..., a class, or a channel, which is returned as it
        is. The module is an installed one, or a file in the current folder, and is imported.

    Raises
    ------
    ChannelError
        If there is no such channel, or not with these options.

    Examples
    --------
    >>> resolve("gaussian:sigma=0.2").sigma
    0.2
    >>> resolve("onnx_analog.channels.gaussian:GaussianNoise:sigma=0.2").sigma
    0.2
    """
    if isinstance(spec, Channel):
        rules.check_own(spec)
        return _distinct(spec)
    if isinstance(spec, type):
        _check_class(spec)
        return _distinct(_call(spec, spec.__name__, {}))
    if isinstance(spec, os.PathLike):
        return _from_file(require_path("channel", spec))
    if not isinstance(spec, str):
        raise ChannelError(f"channel is {brief(spec)}; it must be a name, a file, module:Class, a class or a Channel")
    if spec.endswith(".json"):
        return _from_file(Path(spec))
    name, _, options = spec.partition(":")
    of_module = _OF_MODULE.fullmatch(spec)
    if of_module and name not in available():
        name, options = of_module[1], of_module[2] or ""
        return _distinct(_make(_imported(name), name, options))
    if os.path.isfile(spec) and name not in available():  # noqa: PTH113 - `Path` fails for a long name
        raise of_content(
            ChannelError(mistaken(spec, CHANNEL) or f"{spec!r} is a file; the file of a channel ends with .json")
        )
    return installed(spec)


def installed(spec: str) -> Channel:
    """Return an installed channel from "name" or "name:key=value,...", as files name them: no module, no JSON file.

    Raises
    ------
    ChannelError
        If none has that name, or it has no such option.
    """
    name, _, options = spec.partition(":")
    return _make(_load(name), name, options)


def _make(maker: Any, name: str, options: str) -> Channel:
    if not callable(maker):
        raise ChannelError(f"channel {name!r} is of type {type(maker).__name__}; it must be a class or a function")
    _check_class(maker)
    return _call(maker, name, _options(maker, name, options))


def _check_class(maker: Any) -> None:
    if isinstance(maker, type) and issubclass(maker, Channel):
        rules.check_class(maker)


def _imported(name: str) -> Callable[..., Any]:
    """Return what "module:Class" names."""
    try:
        return named_function(name)
    except OptionError as error:
        module = name.partition(":")[0]
        if nearest(module, available()) is not None:  # a name that is spelt wrong
            raise _unknown(module) from error
        raise ChannelError(f"no channel is called {module[:60]!r}, and {error}") from error


def _distinct(channel: Channel) -> Channel:
    """Return `channel`, unless its family is the name of another class, which a file would build in its place."""
    cls, family = type(channel), channel.family
    if family in available() and _load(family) is not cls:
        raise ChannelError(
            f"class {cls.__name__} has the family {family!r}, the name of another channel: give it its own, or none"
        )
    return channel


def from_dict(body: Mapping[str, Any]) -> Channel:
    """Return the channel that `Channel.to_dict` wrote.

    Raises
    ------
    ChannelError
        If its family is not installed, or `body` is not what that family writes.
    """
    return _built(body, _DEPTH)


serialise.add_hook(Channel, write=Channel.to_dict, read=from_dict)


def _built(body: Mapping[str, Any], depth: int) -> Channel:
    if not isinstance(body, Mapping):
        raise ChannelError(f"a channel is a JSON object with a family and its fields, not {type(body).__name__}")
    if "family" not in body:
        raise ChannelError('the channel does not say its family, as in {"family": "gaussian", "sigma": 0.1}')
    if not depth:
        raise ChannelError(f"channels are nested more than {_DEPTH} deep")
    family = body["family"]
    if not isinstance(family, str):
        raise ChannelError(f"the channel's family is {str(family)[:60]}; it must be text")
    cls = _class_of(family)
    if not (isinstance(cls, type) and issubclass(cls, Channel)):
        raise ChannelError(f"{family!r} is not a family of channels, so none can be built from its fields")
    own = {name: value for name, value in body.items() if name != "family"}
    nested = {name: _built(value, depth - 1) if _is_channel(value) else value for name, value in own.items()}
    return _call(lambda **fields: serialise.from_json_dict(cls, fields), family, nested)


def _is_channel(value: Any) -> bool:
    return isinstance(value, Mapping) and "family" in value


def _from_file(path: Path) -> Channel:
    text = read_text(path, limit=_LIMIT, error=ChannelError, kind=CHANNEL)
    try:
        return from_dict(serialise.parse(text))
    except (ChannelError, ValueError) as error:
        raise located(ChannelError(str(error)), f"cannot read a channel from {str(path)!r}") from error


def _class_of(family: str) -> Any:
    """Return what builds a family: an installed entry point, or a class that this process has; nothing is imported."""
    if family not in available():
        for cls in _subclasses(Channel):
            if cls.family == family:
                return cls
        if _OF_MODULE.fullmatch(family):
            raise ChannelError(
                f"the channel is of class {family!r}, and a file cannot import a module: {IMPORT_FIRST}, or give the "
                "channel by that name"
            )
    return _load(family)


def _subclasses(cls: type[Any]) -> Iterator[type[Channel]]:
    """Yield all classes below `cls`, the youngest of equal ones first: a module may have been loaded again."""
    for below in reversed(cls.__subclasses__()):
        yield from _subclasses(below)
        yield below


def _load(name: str) -> Callable[..., Any]:
    installed = available()
    if not isinstance(name, str) or name not in installed:
        raise _unknown(name)
    try:
        maker: Callable[..., Any] = installed[name].load()
    except Exception as error:  # whatever a package that brings a channel raises when it is imported
        raise ChannelError(f"channel {name!r} is installed and cannot be imported: {error}") from error
    return maker


def settings(name: str) -> dict[str, str]:
    """Return the settings of an installed channel, as in name:key=value, and the types that they declare."""
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(_load(name)).parameters.values()
    return {each.name: str(each.annotation) for each in parameters if each.kind in kinds}


def _unknown(name: str) -> ChannelError:
    installed = available()
    close = nearest(str(name), installed)
    hint = "there are" if close is None else f"did you mean {close!r}? There are"
    return ChannelError(f"no channel is called {str(name)[:60]!r}: {hint} {', '.join(installed) or 'none'}")


def _call(maker: Callable[..., Any], name: str, options: Mapping[str, Any]) -> Channel:
    _check_required(maker, name, options)
    try:
        inspect.signature(maker).bind(**options)
        channel = maker(**options)
    except ChannelError as error:
        error.names_fields = True  # those that the user gave as name:key=value, or the file has
        raise
    except Exception as error:  # whatever a package that brings a channel raises
        ours = ChannelError(f"channel {name!r}: {str(error) or type(error).__name__}")
        ours.names_fields = True
        raise ours from error
    if not isinstance(channel, Channel):
        raise ChannelError(f"entry point {name!r} gives {type(channel).__name__}, which is not a Channel")
    rules.check_own(channel)
    return channel


def _check_required(maker: Callable[..., Any], name: str, options: Mapping[str, Any]) -> None:
    """Raise `ChannelError` with an example if an option without a default is missing."""
    required = [
        parameter.name
        for parameter in inspect.signature(maker).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    missing = [option for option in required if option not in options]
    if missing:
        example = ",".join(f"{option}=..." for option in required)
        form = _FORMS.get(name, f"{name}:{example}")
        raise ChannelError(f"channel {name!r} needs {', '.join(missing)}: name {form}")


def _options(maker: Callable[..., Any], name: str, text: str) -> dict[str, Any]:
    parameters = inspect.signature(maker).parameters
    options: dict[str, Any] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if key in parameters and not equals:
            raise ChannelError(f"channel {name!r}: option {key!r} has no value; write {name}:{key}=value")
        if key not in parameters:
            known = ", ".join(parameters) or "none"
            raise ChannelError(f"channel {name!r} has no option {key!r}; options are {known}, as in {name}:key=value")
        annotation = parameters[key].annotation  # a type, or its name where annotations are not evaluated
        options[key] = _parse(key, value, getattr(annotation, "__name__", str(annotation)), f"{name}:{pair}")
    return options


def _parse(key: str, value: str, annotation: str, where: str) -> Any:
    try:
        if annotation in ("float", "int"):
            return float(value) if annotation == "float" else int(value)
        return _FLAGS[value.lower()] if annotation == "bool" else value
    except (ValueError, KeyError):
        if annotation == "float" and key.endswith("_s"):
            return _seconds(value, where)
        kind = {"float": "a number", "int": "a whole number", "bool": "true or false"}[annotation]
        raise ChannelError(f"{where!r}: {value!r} is not {kind}") from None


def _seconds(value: str, where: str) -> float:
    """Return the value of an option in seconds, as its name says, that is given in a unit of time."""
    try:
        return seconds(value)
    except OptionError as error:
        raise ChannelError(f"{where!r}: {error}") from None
