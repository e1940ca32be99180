"""Manifest: write the account of a protected model into its metadata. No tensor is changed."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import onnx_ir as ir

from onnx_analog.display import counted
from onnx_analog.graph.protected import open_protected
from onnx_analog.graph.stored import MANIFEST_KEY

__all__ = ["ManifestPass"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ManifestPass(ir.passes.InPlacePass):
    """Keep the manifest, as compact JSON, in the metadata entry `onnx_analog.manifest`.

    Raises
    ------
    ModelError
        If the model is not protected, or is damaged; or an entry that is there already is of other planes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Write the account of `model` into its metadata."""
        manifest = open_protected(model).manifest
        logger.info("manifest of %s", counted(len(manifest.tensors), "tensor"))
        text = manifest.to_json(indent=None)
        modified = model.metadata_props.get(MANIFEST_KEY) != text
        model.metadata_props[MANIFEST_KEY] = text
        model.meta[MANIFEST_KEY] = manifest  # in this process, nobody needs to read the text again
        return ir.passes.PassResult(model, modified=modified)
