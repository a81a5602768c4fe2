"""Printed kernels as modules: whole ones, also for threads that ask for the same one at once."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from spikequant.readers.kernels.numba_kernel import module_of


def test_threads_get_a_whole_module(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEQUANT_CACHE", str(tmp_path))
    for _ in range(10):
        start = Barrier(4)
        text = f"# {uuid.uuid4()}\nimport time\ntime.sleep(0.01)\n\n\ndef forward():\n    return 1\n"

        def ask(text=text, start=start):
            start.wait()
            return module_of(text, "neuron").forward()

        with ThreadPoolExecutor(4) as pool:
            assert [asked.result() for asked in [pool.submit(ask) for _ in range(4)]] == [1] * 4


def test_a_module_that_failed_is_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEQUANT_CACHE", str(tmp_path))
    text = f"# {uuid.uuid4()}\nraise MemoryError('full')\n"
    for _ in range(2):
        with pytest.raises(MemoryError):
            module_of(text, "neuron")
