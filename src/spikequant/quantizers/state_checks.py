"""What `check_quantizer` asks of a quantizer that keeps a state (`stateful.py`)."""

from __future__ import annotations

import torch
from torch import Tensor

from spikequant.quantizers.interface import Quantizer
from spikequant.quantizers.stateful import HasCodebook, State, StatefulQuantizer, is_stateful

SHAPE = (6, 50)


def keeps_its_state(quantizer: Quantizer) -> str:
    """The first problem in words, or nothing; a quantizer without a state has none."""
    if not is_stateful(quantizer):
        return ""
    generator = torch.Generator().manual_seed(22)
    x = torch.randn(SHAPE, generator=generator) * torch.tensor([[0.01], [0.1], [1.0], [3.0], [0.0], [50.0]])
    return _starts_alike(quantizer, x) or _hard_codes_are_levels(quantizer, x) or _trains(quantizer, x)


def _starts_alike(q: StatefulQuantizer, x: Tensor) -> str:
    for axis in (None, 0, 1):
        states = [q.start(values, channel_axis=axis) for values in (x, torch.zeros_like(x), x.clone().requires_grad_())]
        shapes = [{name: tuple(value.shape) for name, value in state.items()} for state in states]
        if not shapes[0] or shapes[0] != shapes[1] or shapes[0] != shapes[2]:
            return f"expected a state of the same names and shapes for every tensor, got {shapes}"
        if any(value.requires_grad or not bool(torch.isfinite(value).all()) for s in states for value in s.values()):
            return "expected a state of finite, detached tensors"
        unknown = set(q.learned) - set(shapes[0])
        if unknown:
            return f"expected learned names to be names of the state, got {sorted(unknown)}"
    return ""


def _hard_codes_are_levels(q: StatefulQuantizer, x: Tensor) -> str:
    allowed = torch.tensor(q.levels, dtype=torch.float64)
    for axis in (None, 0, 1):
        scale, state = q.fit(x, channel_axis=axis), q.start(x, channel_axis=axis)
        for values in (x, 100 * x, torch.zeros_like(x)):
            codes = q.state_codes(values, scale, state, soft=False).to(torch.float64)
            if codes.shape != x.shape or not bool(torch.isin(codes, allowed).all()):
                return f"expected hard codes among the levels in shape {tuple(x.shape)}, channel_axis={axis}"
    if isinstance(q, HasCodebook):
        book = q.codebook(q.fit(x, channel_axis=0), q.start(x, channel_axis=0))
        if book.shape != (len(x), q.bits) or not torch.equal(book, book.to(torch.int64).to(book.dtype)):
            return f"expected a codebook of integers of the shape {(len(x), q.bits)}, got {tuple(book.shape)}"
    rows = q.state_codes(x, q.fit(x, channel_axis=0), q.start(x, channel_axis=0), soft=False)
    alone = torch.stack([q.state_codes(row, q.fit(row), q.start(row), soft=False) for row in x])
    return "" if torch.equal(rows, alone) else "expected the hard codes of a channel to be those of the channel alone"


def _trains(q: StatefulQuantizer, x: Tensor) -> str:
    state = q.start(x, channel_axis=0)
    kept: State = {name: value.clone() for name, value in state.items()}
    for done in (0.0, 0.5, 2.0):
        q.progress_(state, done, 2)
    q.learn_(x, q.fit(x, channel_axis=0), state)
    if {name: value.shape for name, value in state.items()} != {name: value.shape for name, value in kept.items()}:
        return "expected progress_ and learn_ to keep names and shapes"
    leaves = [x.double().requires_grad_(), q.fit(x.double(), channel_axis=0).requires_grad_()]
    state = {name: value.double() for name, value in q.start(x.double(), channel_axis=0).items()}
    learned = [state[name].requires_grad_() for name in q.learned]
    codes = q.state_codes(leaves[0], leaves[1], state, soft=True)
    found = torch.autograd.grad((codes**2).sum(), [leaves[0], *learned], create_graph=True)
    if not all(bool(torch.isfinite(g).all()) and bool((g != 0).any()) for g in found):
        return "expected finite gradients, some of them not 0, for the values and for all that is learned"
    return "" if found[0].requires_grad else "expected soft codes that can be differentiated twice"


__all__ = ["keeps_its_state"]
