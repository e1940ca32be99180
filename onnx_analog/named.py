"""Functions that a user names, as "module:function": the only code from the current folder that is ever run.

The folder is not put on `sys.path`, where any file of it might stand in for a module that is not installed. Only the
module that is named is looked for in it, and what that module imports itself; installed modules come first.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import cloudpickle

from onnx_analog.errors import OptionError


class _Folder(MetaPathFinder):
    """Finds modules in one folder: the one that is asked for, and what those that it found import."""

    def __init__(self) -> None:
        self.folder = self.requested = ""
        self.modules: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of a top-level module in the folder, or None if it is not there or not to be looked for."""
        if path is not None or not (fullname == self.requested or _importer() in self.modules):
            return None
        spec = PathFinder.find_spec(fullname, [self.folder], target)
        if spec is not None:
            self.modules.add(fullname)
        return spec


def _importer() -> str:
    """Return the top-level name of the module whose import statement asks a finder."""
    frame = sys._getframe(2)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in ("importlib", "_frozen_importlib"):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


_FOLDER = _Folder()
_REGISTERING = threading.Lock()


def _look_in(folder: str) -> None:
    _FOLDER.folder = folder
    if _FOLDER not in sys.meta_path:
        sys.meta_path.append(_FOLDER)  # at the end, so that what is installed is found first


def named_function(spec: str) -> Callable[..., Any]:
    """Return the function that "module:function" names: of an installed module, or of one in the current folder.

    Raises
    ------
    OptionError
        If there is none, or its module cannot be imported.
    """
    module, colon, name = spec.partition(":")
    if not (colon and name and all(module.split("."))):
        raise OptionError(f"{spec!r} is not of the form module:function")
    _look_in(os.getcwd())  # noqa: PTH109 - text, as sys.path has it
    _FOLDER.requested = module.partition(".")[0]
    importlib.invalidate_caches()  # the file may be younger than the last look at its folder
    try:
        value: Any = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever a module raises when it is run
        why = f"it calls sys.exit({error})" if isinstance(error, SystemExit) else error
        raise OptionError(f"{spec!r} cannot be imported: {why}") from error
    finally:
        _FOLDER.requested = ""
    if not callable(value):
        raise OptionError(f"{spec!r} is not a function")
    function: Callable[..., Any] = value
    return function


def dumps(function: Any) -> bytes:
    """Return a function, or a value, as bytes for another process: with it goes all code that a folder gave."""
    with _REGISTERING:  # what cloudpickle registers is the same for all threads
        modules = [module for name, module in sys.modules.items() if name.partition(".")[0] in _FOLDER.modules]
        for module in modules:
            cloudpickle.register_pickle_by_value(module)
        try:
            return bytes(cloudpickle.dumps((_FOLDER.folder, _FOLDER.modules, function)))
        finally:
            for module in modules:
                cloudpickle.unregister_pickle_by_value(module)


def loads(data: bytes) -> Any:
    """Return what `dumps` made into bytes, in another process of the same sweep."""
    folder, modules, function = cloudpickle.loads(data)
    if modules:  # for what the function imports only when it is called
        _look_in(folder)
        _FOLDER.modules.update(modules)
    return function
