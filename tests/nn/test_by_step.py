"""Steps stacked and taken apart: torch's values, and derivatives of two orders."""

from __future__ import annotations

import torch

from spikequant.nn import LIF, Surrogate
from spikequant.nn.by_step import apart, stacked


def test_values_and_derivatives_of_two_orders() -> None:
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)

    def through(x: torch.Tensor) -> torch.Tensor:
        return stacked([step * step.sin() for step in apart(x)][::-1])

    assert torch.equal(through(x), torch.stack([s * s.sin() for s in x.unbind(0)][::-1]))
    assert torch.autograd.gradcheck(through, x)
    assert torch.autograd.gradgradcheck(through, x)
    some = apart(x)
    (gradient,) = torch.autograd.grad(some[1].sum(), x)  # the other steps get none
    assert torch.equal(gradient[:, 0], torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64))


def test_second_derivatives_fill_no_tensor_of_all_steps_for_every_step() -> None:
    layer = LIF(leak=0.9, surrogate=Surrogate("atan", 2.0))
    x = torch.randn(6, 2, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad((layer(x) ** 2).mean(), x, create_graph=True)
    seen, todo = set(), [gradient.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
    names = {node.name() for node in seen}
    assert len(seen) > 20
    assert not any("Select" in name for name in names)


def test_inside_torch_func_they_are_torchs() -> None:
    x = torch.randn(3, 2)
    found = torch.func.jacrev(lambda x: stacked(apart(x)[::-1]))(x)
    assert torch.equal(found, torch.autograd.functional.jacobian(lambda x: x.flip(0), x))
