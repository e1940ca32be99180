"""What the report of each kind of result says. A further kind is a module more, registered for its class."""

from onnx_analog.html.contents import check, evaluation, sensitivity, sweep, tune  # noqa: F401 - they register pages
from onnx_analog.html.contents.shared import page_of

__all__ = ["page_of"]
