"""Codes in the layouts of kernels: made once, whoever asks at the same time, because a kernel reads them by address."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from spikequant.nn.products import kernels
from spikequant.nn.products.geometry import Geometry
from spikequant.nn.products.weights import Weights

LAYOUTS = ("tiles", "bytes", "byte_rows", "sums_of_codes", "rows")


@pytest.mark.skipif(kernels.library() is None, reason="no C compiler")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_threads_take_the_same_memory(layout):
    for _ in range(8):
        geometry = Geometry((300, 301)).in_two_axes()
        weights = Weights(torch.randint(-127, 128, geometry.weight_shape).float(), None, geometry, {}, True)
        start = Barrier(3)

        def ask(weights=weights, start=start):
            start.wait()
            return getattr(weights, layout)()

        with ThreadPoolExecutor(3) as pool:
            found = [asked.result() for asked in [pool.submit(ask) for _ in range(3)]]
        assert all(one is getattr(weights, layout)() for one in found)
