"""The pool of large results: blocks come back when, and only when, nothing looks at them any more."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikequant.nn.memory import SMALLEST, FreedMemory, Pool, resident_bytes, size_class

LARGE = (4, 3, 300, 301)


def test_a_block_is_used_again_when_its_last_view_is_gone():
    pool = Pool()
    first = pool.empty(LARGE, torch.float32)
    where, view = first.data_ptr(), first[1]
    del first
    assert pool.idle_bytes == 0
    other = pool.empty(LARGE, torch.float32)
    assert other.data_ptr() != where
    del view
    assert pool.idle_bytes >= other.numel() * 4
    assert pool.empty(LARGE, torch.float32).data_ptr() == where


def test_graphs_copies_and_pickles_hold_and_leave_a_block():
    pool = Pool()
    x = pool.empty(LARGE, torch.float32).fill_(2.0)
    weight = torch.tensor(3.0, requires_grad=True)
    y = (x * weight).sum()
    twin, read = copy.deepcopy(x), pickle.loads(pickle.dumps(x))
    del x
    gc.collect()
    assert pool.idle_bytes == 0
    y.backward()
    assert weight.grad is not None
    assert weight.grad.item() == 2.0 * twin.numel()
    assert torch.equal(twin, read)
    del y
    gc.collect()
    assert pool.idle_bytes > 0


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(4)), st.booleans())
def test_strides_of_another_tensor(order, large):
    x = torch.zeros(4, 5, 300 if large else 2, 16).permute(order)
    y = Pool().empty_like(x)
    assert (y.shape, y.stride()) == (x.shape, x.stride())
    assert y.data_ptr() % 64 == 0


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 1, 1, 1), (1, 3, 700, 700)])
def test_channels_last(shape):
    wanted = torch.empty(shape).contiguous(memory_format=torch.channels_last)
    got = Pool().empty(shape, torch.float32, last=True)
    assert got.shape == wanted.shape
    assert got.is_contiguous(memory_format=torch.channels_last)


def test_idle_memory_is_bounded_and_can_be_released():
    pool = Pool(most_idle=size_class(4 * SMALLEST))
    tensors = [pool.empty((SMALLEST,), torch.float32) for _ in range(3)]
    del tensors
    assert pool.idle_bytes == size_class(4 * SMALLEST)
    pool.release()
    assert pool.idle_bytes == 0


def test_threads_never_share_a_block():
    pool, wrong = Pool(), []

    def work(mark: int) -> None:
        for _ in range(20):
            mine = pool.empty((SMALLEST // 2,), torch.float32).fill_(mark)
            if not bool((mine == mark).all()):
                wrong.append(mark)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@given(st.integers(1, 2**40))
def test_size_classes_waste_at_most_a_quarter(size):
    assert size <= size_class(size) <= size + size // 4 + 1
    assert size_class(size_class(size)) == size_class(size)


@pytest.mark.skipif(sys.platform != "linux", reason="what is free is counted on Linux alone")
def test_freed_memory_goes_back_between_small_lasting_blocks():
    freed = FreedMemory(most=1 << 26)
    if not hasattr(freed, "_trim") or freed._trim is None:
        pytest.skip("this C library cannot give memory back")
    assert not freed.give_back()  # nothing has grown
    passing, lasting = [], []
    for _ in range(3000):
        passing.append(bytearray(100_000))  # below the size that is returned at once
        lasting.append(bytearray(600))
    held = resident_bytes()
    passing.clear()
    freed._before = 0  # earlier tests left free memory that the lists above filled first: growth alone may be small
    assert freed.give_back()
    assert held - resident_bytes() > 225_000_000
