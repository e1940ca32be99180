"""Matrix products take one thread while that is asked for, and as many as before afterwards."""

import numpy as np
from threadpoolctl import threadpool_info

from onnx_analog.blas import one_blas_thread


def threads():
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


def test_products_take_one_thread_within():
    before = threads()
    with one_blas_thread():
        assert set(threads()) == {1}
        with one_blas_thread():
            assert set(threads()) == {1}
        assert set(threads()) == {1}
        np.ones((8, 8)) @ np.ones((8, 8))
    assert threads() == before
