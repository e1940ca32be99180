"""One thread for the matrix products of numpy and scipy: the same bits on any number of cores.

A BLAS divides a product among as many threads as there are cores, and its sums then depend on their number. With one
thread they do not, and small products are faster.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    import scipy.linalg  # noqa: F401 - loads the BLAS that the controller is to find

    return ThreadpoolController().select(user_api="blas")


_lock = threading.Lock()
_within = 0  # contexts that are entered, of all threads of this process
_limit = None  # what puts the threads back


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let matrix products take one thread, in all threads of this process, until the last of them leaves."""
    global _within, _limit
    with _lock:
        if not _within:
            _limit = _controller().limit(limits=1)
        _within += 1
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if not _within and _limit is not None:
                _limit.restore_original_limits()
