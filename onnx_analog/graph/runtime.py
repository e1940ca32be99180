"""What onnxruntime says of a model: it is asked before the model is used, so that none is accepted which cannot run."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

logger = logging.getLogger(__name__)

# Domains whose operators onnxruntime knows without a library of custom operators.
DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "com.microsoft",
        "com.microsoft.experimental",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
    }
)
MOST_ASKED = (
    30_000  # initializers of a graph; onnxruntime's time grows with their square: 2 s here, an hour for a million
)
_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : |Load model from .*? failed: ?|This is an invalid model\. |Error: "
    r"|(?:/\S+/)?\w+\.(?:cc|h|hpp|cpp):\d+ (?:[\w:<>~&*{}\[\], ]+\(.*?\) (?:const )?|\w+ )?"
    r"|Exception during \w+: |Fatal error: "
)


def refusal(source: Path | bytes, folder: Path | None = None, *, warn: bool = True, strict: bool = False) -> str | None:
    """Return why onnxruntime refuses a model, as one line without its C++; None if it takes it.

    Unless `strict`, nothing is optimised, folded or repacked, so this costs about what reading the file does: 6 ms
    for 0.3 million weights, 50 ms and 60 MiB for 11 million; and nothing for weights that lie in another file.

    Parameters
    ----------
    source : path or bytes
        Of a model in ONNX's binary format.
    folder : path, optional
        That of external data, where `source` is bytes.
    warn : bool
        Say so where it takes the model, but has no kernel for it on a CPU.
    strict : bool
        Fold constants, after which onnxruntime infers all shapes again, as it does with its default settings: then it
        refuses more, and takes as much memory as folding does.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_BASIC if strict else levels.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    if folder is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.fspath(folder))
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    options.log_severity_level = 4  # what it has to say is in the error
    try:
        model = source if isinstance(source, bytes) else os.fspath(source)
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except Exception as error:  # onnxruntime has a dozen types, none of which is exported
        message = reason(error)
        if type(error).__name__ != "NotImplemented":
            return message
        if warn:
            logger.warning("onnxruntime cannot run the model on a CPU: %s", message)  # it may do so elsewhere
    return None


def reason(error: BaseException) -> str:
    """Return what an error of onnxruntime says, without file names and signatures of C++."""
    return _NOISE.sub("", " ".join(str(error).split())).strip() or type(error).__name__
