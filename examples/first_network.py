"""From training to integers and C in forty lines.

python examples/first_network.py
"""

import copy

import torch
from torch import Tensor, nn

import spikequant as sq


class DigitNet(nn.Module):
    """64-48-10 on an image shown for six steps; the spikes of the last layer are counted."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(64, 48), sq.nn.LIF(leak=0.75, step_mode="s")
        self.fc2, self.lif2 = nn.Linear(48, 10), sq.nn.LIF(leak=0.75, reset="subtract", step_mode="s")

    def forward(self, image: Tensor) -> Tensor:
        """Spike counts of the ten classes."""
        x, count = image.flatten(1), torch.zeros(len(image), 10)
        for _ in range(6):
            count = count + self.lif2(self.fc2(self.lif1(self.fc1(x))))
        return count


torch.manual_seed(0)
digits = sq.data.load("digits")
train, test = digits.batches("train", batch_size=64, shuffle=True, seed=0), digits.batches("test", batch_size=120)
example, _ = next(iter(test))

model = DigitNet()
sq.fit(model, train, epochs=6, lr=5e-3, quiet=True)
real = copy.deepcopy(model)

plan = sq.Plan.uniform(weight_bits=4, membrane_bits=6)
report = sq.quantize_(model, plan, example)  # prints what was done to every layer
sq.calibrate(model, train)
sq.fit(model, train, epochs=2, lr=1e-3, quiet=True)

sq.freeze(model)
net = sq.lower(model, example)
print(sq.verify(model, net, example))
comparison = sq.compare(real, model, test)
print(comparison)
print("open", sq.write_report(comparison, "report.html", plan=plan, quantize_report=report))
net.save("digits.spq")
sq.export(net, "digits-c", format="c99")
