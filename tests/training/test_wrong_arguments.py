"""A newcomer's wrong arguments: each is refused by a `SpikequantError` that says what came and what was expected."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import spikequant as sq
from spikequant.law.errors import DataError, PlanError, SpikequantError

X, Y = torch.rand(6, 4), torch.randint(0, 3, (6,))
PLAN = sq.Plan.uniform(weight_bits=4, membrane_bits=8)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.lif = nn.Linear(4, 3), sq.nn.LIF(leak=0.75, step_mode="s")

    def forward(self, x: Tensor) -> Tensor:
        count = torch.zeros(len(x), 3)
        for _ in range(3):
            count = count + self.lif(self.fc(x))
        return count


def quantized(*, frozen: bool) -> nn.Module:
    model = Net()
    sq.quantize_(model, PLAN, X, quiet=True)
    sq.calibrate(model, [(X, Y)])
    if frozen:
        sq.freeze(model)
    return model


def fitted(batches: object, model: object = None, **options: object) -> object:
    return sq.fit(model or Net(), batches, epochs=1, quiet=True, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: fitted([(X, Y.float())]), "targets of shape"),
        (lambda: fitted([(X, Y + 50)]), "class numbers"),
        (lambda: fitted([(X, Y[:2])]), "targets of shape"),
        (lambda: fitted([(X.numpy(), Y.numpy())]), "torch tensors"),
        (lambda: fitted(X), "an iterable of"),
        (lambda: fitted([X]), "as a batch"),
        (lambda: fitted([(X, Y)], lr=-1), "lr=-1"),
        (lambda: fitted([(X, Y)], model=3), "got int"),
        (lambda: fitted([(X, Y)], model=quantized(frozen=True)), "frozen"),
        (lambda: sq.fit(Net(), [(X, Y)], epochs=-1), "epochs=-1"),
        (lambda: sq.fit(Net(), [(X, Y)], epochs=1.5), "epochs=1.5"),  # type: ignore[arg-type]
        (lambda: fitted([(X, Y)], lr="1e-3"), "lr='1e-3'; expected a whole number and a rate"),
        (lambda: fitted([(X, Y)], loss="ce"), "loss is 'ce'; expected a function"),
        (lambda: fitted([(X, Y)], optimizer=torch.optim.Adam), r"torch.optim.Adam\(model.parameters"),
        (lambda: fitted([(X, Y)], schedule=[1]), r"schedule \[1\]; expected 'cosine'"),
        (lambda: fitted([(X, Y)], terms=sq.training.TemporalLoss()), r"terms is TemporalLoss; expected a list"),
        (lambda: fitted([(X, Y)], routines=iter(())), "routines is .*iterator; expected a list"),
        (lambda: sq.evaluate(Net(), [X]), "as a batch"),  # type: ignore[list-item]
        (lambda: sq.evaluate(Net(), None), "NoneType"),  # type: ignore[arg-type]
        (lambda: sq.quantize_(Net(), PLAN, torch.rand(2, 9)), r"shape \(2, 9\)"),
        (lambda: sq.quantize_(Net(), PLAN, X.numpy()), "ndarray"),  # type: ignore[arg-type]
        (lambda: sq.calibrate(quantized(frozen=False), [(torch.rand(2, 9), Y)]), r"shape \(2, 9\)"),
        (lambda: sq.lower(quantized(frozen=True), torch.rand(2, 9)), r"shape \(2, 9\)"),
    ],
)
def test_wrong_data_is_a_data_error(call: Callable[[], object], words: str) -> None:
    with pytest.raises(DataError, match=words):
        call()


def test_a_path_is_no_plan() -> None:
    with pytest.raises(PlanError, match=r"Plan\.load"):
        sq.quantize_(Net(), "plan.toml", X)  # type: ignore[arg-type]


def test_verify_and_export_say_what_they_take() -> None:
    model = quantized(frozen=True)
    net = sq.lower(model, X)
    for inputs in (X.numpy(), [(X, Y)]):
        with pytest.raises(DataError, match="one batch"):
            sq.verify(model, net, inputs)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="IntNet"):
        sq.verify(net, model, X)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"shape \(2, 9\)"):
        sq.verify(model, net, torch.rand(2, 9))
    with pytest.raises(SpikequantError, match="lower"):
        sq.export(model, "nowhere", format="c99")  # type: ignore[arg-type]


def test_an_evaluation_and_a_comparison_print_as_sentences() -> None:
    real, model = Net(), quantized(frozen=False)
    assert str(sq.evaluate(real, [(X, Y)])).endswith("of 6 samples right")
    text = str(sq.compare(real, model, [(X, Y)]))
    assert "points of accuracy on 6 samples" in text
    assert "lif: rate" in text
    assert "array" not in text
