"""A small trained network and its data, for tests that quantize and train it on."""

from __future__ import annotations

import pytest
import torch

import spikequant as sq


@pytest.fixture(scope="package")
def digits():
    """The real network, batches of training and of test; copy the network before it is quantized."""
    torch.manual_seed(0)
    found = sq.data.load_digits()
    train = sq.data.ArrayBatches(found.train.x[:640], found.train.y[:640], batch_size=64, shuffle=True, scale=1 / 16)
    test = sq.data.ArrayBatches(found.test.x, found.test.y, batch_size=120, scale=1 / 16)
    model = sq.models.digits_net()
    sq.fit(model, train, epochs=4, lr=4e-3, quiet=True)
    return model, train, test
