"""A plan in a TOML file: bits, quantizer and rounding for each layer and role.

    python examples/plan_from_file.py

The plan is examples/plan.toml.  What a plan asks for and no layer can give is an error, not a shrug: the last lines
show the message for a rule that matches nothing.
"""

from pathlib import Path

import torch

import spikequant as sq

plan = sq.Plan.load(Path(__file__).with_name("plan.toml"))

torch.manual_seed(0)
digits = sq.data.load_digits()
train = sq.data.ArrayBatches(digits.train.x, digits.train.y, batch_size=64, shuffle=True, scale=1 / 16)
test = sq.data.ArrayBatches(digits.test.x, digits.test.y, batch_size=120, scale=1 / 16)
example, _ = next(iter(test))

model = sq.models.digits_net()
sq.fit(model, train, epochs=4, lr=4e-3, quiet=True)
print(f"float: {sq.evaluate(model, test).accuracy:.1%}")

sq.quantize_(model, plan, example)
sq.calibrate(model, train, max_batches=4)
sq.fit(model, train, epochs=2, lr=1e-3, quiet=True)
print(f"by the plan: {sq.evaluate(model, test).accuracy:.1%}")

sq.freeze(model)
print(sq.verify(model, sq.lower(model, example), example))

wrong = sq.Plan.from_dict({"rules": [{"match": "conv7", "weight": {"bits": 4}}]})
try:
    sq.quantize_(sq.models.digits_net(), wrong, example)
except sq.PlanError as error:
    print("refused:", error)
