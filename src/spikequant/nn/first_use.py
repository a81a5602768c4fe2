"""A kernel on a device where it never ran is compared with the plain loop once, on the first input that it is given."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from spikequant.nn.fused import Call, run_fused, run_plain
from spikequant.readers.kernels import ForwardKey

FAR = 1e-3
"""Share of the largest gradient by which sums in another order may differ; a wrong rule differs by more."""
_found: dict[tuple[ForwardKey, str], str] = {}


def disagreement(call: Call, x: Tensor, lsb: Tensor, params: dict[str, Tensor]) -> str:
    """What differs from the plain loop, empty where nothing does: outputs and states in any bit, gradients by much."""
    key = (call.forward_key(x), str(x.device))
    if key not in _found:
        _found[key] = _compared(replace(call, keeps=True), x.detach(), lsb.detach(), params)
    return _found[key]


def _compared(call: Call, x: Tensor, lsb: Tensor, params: dict[str, Tensor]) -> str:
    given = {name: value.detach() for name, value in params.items()}
    with torch.enable_grad():
        leaves = [x.clone().requires_grad_() for _ in range(2)]
        plain = run_plain(call, leaves[0], lsb, [given[name] for name in call.names], [None] * len(call.states))
        output, last = run_fused(call, leaves[1], lsb, given, None)
        fused = [output, *(last[name] for name in call.states)]
        if not all(torch.equal(a, b) for a, b in zip(plain, fused, strict=True)):
            return f"on {x.device} its kernel differs from the plain loop"
        weights = torch.linspace(-1, 1, output.numel(), dtype=x.dtype, device=x.device).reshape(output.shape)
        wanted, got = (
            torch.autograd.grad((out[0] * weights).sum(), leaf)[0]
            for out, leaf in ((plain, leaves[0]), (fused, leaves[1]))
        )
    near = float((wanted - got).abs().max()) <= FAR * float(wanted.abs().max())  # a NaN is not near
    return "" if near else f"on {x.device} its kernel's gradients differ from the plain loop's"


__all__ = ["disagreement"]
