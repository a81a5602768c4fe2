"""Two plans of about the same size: equal bits everywhere, or more bits where the firing suffers.

    python examples/compare_two_plans.py

Accuracy alone often cannot tell two plans apart on a few hundred images.  The EMD of the firing rates can: it uses
every neuron, every step and every sample.
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

membrane = {"bits": 6, "signed": False}
plans = {
    "3 bits everywhere": sq.Plan.uniform(weight_bits=3, membrane_bits=6, membrane_signed=False),
    "8 in the first, 3 in the middle, 2 at the end": sq.Plan.from_dict(
        {
            "rules": [
                {"match": "conv1", "weight": {"bits": 8, "clipping": "mse"}},
                {"match": "conv2*", "weight": {"bits": 3, "clipping": "mse"}},
                {"match": "fc", "weight": {"bits": 2, "clipping": "mse"}},
                {"match": "lif*", "membrane": membrane},
            ]
        }
    ),
}

found = {}
for name, plan in plans.items():
    model = copy.deepcopy(real)
    sq.quantize_(model, plan, example, quiet=True)
    sq.calibrate(model, train, max_batches=4)
    found[name] = sq.compare(real, model, test)

print(f"{'plan':46} {'accuracy':>9} {'change':>15} {'EMD':>8} {'flash':>8}")
for name, c in found.items():
    change = f"{c.difference:+.2f} ± {c.interval:.2f}"
    flash = f"{c.quantized.flash_bytes:,.0f} B"
    print(f"{name:46} {c.quantized.accuracy:>9.1%} {change:>15} {c.emd:>8.4f} {flash:>8}")
print(f"floor of the EMD, two halves of the data: {next(iter(found.values())).floor:.4f}")
for layers in zip(*(c.layers for c in found.values()), strict=True):
    print(f"{layers[0].layer:46} EMD {' and '.join(f'{layer.emd:.4f}' for layer in layers)}")
