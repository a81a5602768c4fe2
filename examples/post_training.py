"""Quantize a trained network without training it again, and save its integers.

    python examples/post_training.py

Train a small convolutional network on scikit-learn's digits, bring it to 4-bit weights and 8-bit membranes, calibrate,
compare, prove the integers, save them.
"""

import copy

import torch

import spikequant as sq

torch.manual_seed(0)
digits = sq.data.load_digits()
train = sq.data.ArrayBatches(digits.train.x, digits.train.y, batch_size=64, shuffle=True, scale=1 / 16)
test = sq.data.ArrayBatches(digits.test.x, digits.test.y, batch_size=120, scale=1 / 16)
example, _ = next(iter(test))

real = sq.models.digits_net()
sq.fit(real, train, epochs=4, lr=4e-3, quiet=True)

model = copy.deepcopy(real)
sq.quantize_(model, sq.Plan.uniform(weight_bits=4, membrane_bits=8, membrane_signed=False), example)
print(sq.calibrate(model, train, max_batches=4))
sq.freeze(model)

change = sq.compare(real, model, test)
before, after = (side.flash_bytes + side.ram_bytes for side in (change.reference, change.quantized))
print(f"accuracy {change.reference.accuracy:.1%} -> {change.quantized.accuracy:.1%}", end=", ")
print(f"{change.difference:+.2f} ± {change.interval:.2f} points")
print(f"EMD of the firing rates {change.emd:.4f}, between two halves of the data {change.floor:.4f}")
print(f"memory {before / 1024:.1f} -> {after / 1024:.1f} KiB, {before / after:.1f} times smaller")

net = sq.lower(model, example)
print(sq.verify(model, net, example))
net.save("digits.spq")
print("written: digits.spq")
