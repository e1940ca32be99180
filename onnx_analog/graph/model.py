"""A model that a step of the library returned: it is shown in one line, and can be saved."""

from __future__ import annotations

import os
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from onnx_analog.disk import writing
from onnx_analog.display import Shown
from onnx_analog.errors import require_path
from onnx_analog.graph import files

Paths = str | os.PathLike[str]


@dataclass(frozen=True, repr=False)
class Model(Shown):
    """A model, as a pass returned it."""

    model: ir.Model

    def save(self, path: Paths, *, force: bool = False) -> None:
        """Write the model to a file, whole or not at all.

        Parameters
        ----------
        path : path
            Not the file that the model was read from.
        force : bool
            Replace a file that is there.

        Raises
        ------
        OptionError
            If `path` is no path.
        OutputError
            If a file is there and `force` is not given, the model was read from it, or it cannot be written.
        """
        target = require_path("path", path)
        sources, beside = files.source_files(self.model), [writing.data_beside(target)]
        writing.check_outputs([target], sources, force=force, perhaps=beside)
        writing.write_all({target: self.writer()}, force=force)

    def writer(self) -> writing.Writer:
        """Return the function that writes the model to a path."""
        return lambda path: files.write_model(self.model, path)

    def to_proto(self) -> onnx.ModelProto:
        """Return the model as an `onnx.ModelProto`."""
        return files.to_proto(self.model)

    def __str__(self) -> str:
        return f"model {self.model.graph.name or 'without a name'}"
