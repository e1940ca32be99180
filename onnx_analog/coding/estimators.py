"""Estimates levels from what was read, before they are decoded.

An estimator sees what a read of a level returned and what was known when the level was written: the class, its number
of cells and the channel. The decode that follows stays affine. An estimator of your own is a subclass of `Estimator`,
named as `module:Class`, in a scheme.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnx_analog.errors import IMPORT_FIRST, OptionError

if TYPE_CHECKING:
    from onnx_analog.channels import Channel

Floats = NDArray[np.float32]
Correction = Callable[[Floats, slice], None]


class Estimator(ABC):
    """Estimates the level that was written from the level that was read."""

    @abstractmethod
    def fitted(
        self, level: Floats, class_index: NDArray[np.uint8] | None, *, cells: tuple[int, ...], channel: Channel
    ) -> Correction | None:
        """Return the function that corrects one tensor's reads; None where reads are used as they are.

        Parameters
        ----------
        level : float32 array of shape (M,)
            Levels as they were written.
        class_index : uint8 array of shape (M,), or None
            Class of each; None where there is one.
        cells : tuple of int, (K,)
            Cells per weight of each class.
        channel : Channel

        Returns
        -------
        function (read, block) -> None
            It replaces what was read of the levels in the slice `block` by its estimates, in place.
        """

    @abstractmethod
    def table_bits(self, level: Floats, class_index: NDArray[np.uint8] | None, *, cells: tuple[int, ...]) -> int:
        """Return the bits of the tables that the reader of the memory needs for a tensor: they are counted."""


class Affine(Estimator):
    """Takes reads as they are, as the paper does."""

    def fitted(self, level: Floats, class_index: Any, *, cells: tuple[int, ...], channel: Channel) -> None:
        """Return None."""

    def table_bits(self, level: Floats, class_index: Any, *, cells: tuple[int, ...]) -> int:  # noqa: ARG002 - no table
        """Return 0."""
        return 0


_KNOWN: dict[str, Estimator] = {"affine": Affine()}


def estimator(name: str) -> Estimator:
    """Return the estimator called `name`, or the class that `module:Class` names.

    Raises
    ------
    OptionError
        If there is none.
    """
    if name not in _KNOWN:
        if ":" not in name:
            named = ", ".join(known for known in _KNOWN if ":" not in known)
            raise OptionError(f"no estimator is called {name!r}: choose from {named}, or name module:Class")
        from onnx_analog.named import named_function

        kind = named_function(name)
        if not (isinstance(kind, type) and issubclass(kind, Estimator)):
            raise OptionError(f"{name!r} is not a subclass of onnx_analog.coding.estimators.Estimator")
        _KNOWN[name] = kind()
    return _KNOWN[name]


def remember(name: str, kind: type[Estimator]) -> None:
    """Let a name stand for a class of estimators that another process has sent, in place of an earlier one."""
    _KNOWN[name] = kind()


class NotLoaded(OptionError):  # noqa: N818 - the name says what happened; the file is not at fault
    """A file names an estimator whose module was not imported."""


def check_known(name: object) -> None:
    """Raise `NotLoaded` if a file names an estimator whose module was not imported: reading a file imports none."""
    if not isinstance(name, str) or ":" not in name or name in _KNOWN:
        return
    module, _, kind = name.partition(":")
    loaded = getattr(sys.modules.get(module), kind, None)
    if not (isinstance(loaded, type) and issubclass(loaded, Estimator)):
        raise NotLoaded(f"the estimator {name[:60]!r} is not loaded: {IMPORT_FIRST}")
    _KNOWN[name] = loaded()
