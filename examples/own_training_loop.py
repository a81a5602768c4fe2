"""Quantization-aware training in a loop of your own, with a network that loops over time itself.

    python examples/own_training_loop.py

A quantized model is an ordinary module: any optimizer, schedule and loss will do.  The loop below is what one would
write for the float network; the only line about quantization is `quantize_`.
"""

import torch
from torch import Tensor, nn

import spikequant as sq


class TwoLayers(nn.Module):
    """64-48-10, ten steps, spikes of the last layer counted."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(64, 48), sq.nn.LIF(leak=0.75, step_mode="s")
        self.fc2, self.lif2 = nn.Linear(48, 10), sq.nn.LIF(leak=0.75, reset="subtract", step_mode="s")

    def forward(self, image: Tensor) -> Tensor:
        """Spike counts of the ten classes."""
        x, count = image.flatten(1), torch.zeros(len(image), 10)
        for _ in range(10):
            count = count + self.lif2(self.fc2(self.lif1(self.fc1(x))))
        return count


def train(model: nn.Module, batches: sq.data.ArrayBatches, *, epochs: int, lr: float) -> None:
    """A plain training loop."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    model.train()
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for x, y in batches:
            sq.reset(model)  # neurons with step_mode="s" keep their state until they are told
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()


torch.manual_seed(0)
digits = sq.data.load_digits()
batches = sq.data.ArrayBatches(digits.train.x, digits.train.y, batch_size=64, shuffle=True, scale=1 / 16)
test = sq.data.ArrayBatches(digits.test.x, digits.test.y, batch_size=120, scale=1 / 16)
example, _ = next(iter(test))

model = TwoLayers()
train(model, batches, epochs=4, lr=5e-3)
print(f"float: {sq.evaluate(model, test).accuracy:.1%}")

sq.quantize_(model, sq.Plan.uniform(weight_bits=3, weight_quantizer="lsq", membrane_bits=5), example, quiet=True)
sq.calibrate(model, batches, max_batches=4)
print(f"3-bit weights, 5-bit membranes, calibrated: {sq.evaluate(model, test).accuracy:.1%}")
train(model, batches, epochs=3, lr=1e-3)
print(f"trained on: {sq.evaluate(model, test).accuracy:.1%}")

sq.freeze(model)
print(sq.verify(model, sq.lower(model, example), example))
