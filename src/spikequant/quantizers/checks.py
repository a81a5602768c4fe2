"""The conformance suite of quantizers: what the rest of the package relies on.

``check_quantizer(q)`` runs every check and returns their names; the first that fails raises, with the check's name,
what was expected and what came.  A new quantizer passes it before it enters `QUANTIZERS`.
"""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, is_dataclass

import torch
from torch import Tensor

from spikequant.law.errors import DataError, Unsupported
from spikequant.quantizers.interface import SCALE_MODES, Quantizer
from spikequant.quantizers.registry import quantizer_from_dict, quantizer_to_dict
from spikequant.quantizers.state_checks import keeps_its_state
from spikequant.quantizers.stateful import HasCodebook, is_stateful


def check_quantizer(quantizer: Quantizer) -> tuple[str, ...]:
    """Names of the checks that `quantizer` passed: all of them.

    >>> from spikequant.quantizers import Uniform
    >>> check_quantizer(Uniform(4))[:3]
    ('frozen', 'copies', 'round_trip')

    Raises:
        Unsupported: a check failed; the message names it.
    """
    for name, check in CHECKS.items():
        try:
            problem = check(quantizer)
        except Exception as error:
            raise Unsupported(f"{quantizer!r} fails check {name!r}: {type(error).__name__}: {error}") from error
        if problem:
            raise Unsupported(f"{quantizer!r} fails check {name!r}: {problem}")
    return tuple(CHECKS)


def _frozen(q: Quantizer) -> str:
    if not is_dataclass(q) or isinstance(q, type):
        return "expected an instance of a dataclass"
    if any(isinstance(getattr(q, field.name), Tensor) for field in fields(q)):
        return "expected no field that holds a tensor"
    try:
        setattr(q, "name", q.name)  # noqa: B010
    except FrozenInstanceError:
        return ""
    return "expected a frozen dataclass, but an attribute could be set"


def _copies(q: Quantizer) -> str:
    twins = {"deepcopy": copy.deepcopy(q), "pickle": pickle.loads(pickle.dumps(q))}
    wrong = [name for name, twin in twins.items() if twin != q or hash(twin) != hash(q)]
    return f"expected equal copies with equal hashes, differs after {wrong}" if wrong else ""


def _round_trip(q: Quantizer) -> str:
    twin = quantizer_from_dict(json.loads(json.dumps(quantizer_to_dict(q))))
    return "" if twin == q else f"expected itself back from its JSON, got {twin!r}"


def _describes_levels(q: Quantizer) -> str:
    levels = q.levels
    if q.scale_mode not in SCALE_MODES or not 1 <= q.bits <= 32:
        return f"expected a known scale mode and 1 to 32 bits, got {q.scale_mode!r} and {q.bits}"
    if not isinstance(q, HasCodebook) and not 1 <= len(levels) <= 2**q.bits:
        return f"expected at most 2^{q.bits} levels, got {len(levels)}"
    ends = (levels[0], levels[-1])
    if not q.code_format.holds(ends[0]) or not q.code_format.holds(ends[1]):
        return f"expected levels inside {q.code_format}, got {ends[0]} to {ends[1]}"
    some = list(levels[:2000])
    return "" if some == sorted(set(some)) else "expected ascending levels without repeats"


def _fits_positive(q: Quantizer) -> str:
    x = _sample((3, 4, 5))
    for axis, shape in {None: (), 0: (3, 1, 1), 1: (1, 4, 1), -1: (1, 1, 5)}.items():
        for values in (x, torch.zeros_like(x), x.requires_grad_()):
            scale = q.fit(values, channel_axis=axis)
            if tuple(scale.shape) != shape or not bool((scale > 0).all()) or scale.requires_grad:
                return f"expected detached scales above 0 of shape {shape} for channel_axis={axis}, got {scale}"
    return ""


def _refuses_nan(q: Quantizer) -> str:
    for bad in (torch.nan, torch.inf):
        x = _sample((8,))
        x[3] = bad
        try:
            q.fit(x)
        except DataError:
            continue
        return f"expected DataError from fit on a tensor with {bad}"
    return ""


def _codes_are_levels(q: Quantizer) -> str:
    allowed = torch.tensor(q.levels if len(q.levels) <= 2**16 else [], dtype=torch.float64)
    for x in (_sample((40, 25)), 100 * _sample((40, 25)), _sample((40, 25)).to(torch.bfloat16), torch.zeros(4, 2)):
        codes = _codes(q, x, q.fit(x, channel_axis=1)).to(torch.float64)
        integers = codes.to(torch.int64)
        if codes.shape != x.shape or not q.code_format.holds(integers.numpy()):
            return f"expected codes of shape {tuple(x.shape)} inside {q.code_format}"
        if not torch.equal(codes, integers.to(torch.float64)):
            return "expected only codes that are integers"
        if len(allowed) and not bool(torch.isin(codes, allowed).all()):
            return "expected only codes among the levels"
    return ""


def _idempotent(q: Quantizer) -> str:
    if q.rounding == "stochastic":
        return ""
    for x in (_sample((40, 25)), 0.37 * _sample((40, 25))):
        scale = q.fit(x, channel_axis=1)
        codes = _codes(q, x, scale)
        if is_stateful(q) and isinstance(q, HasCodebook):  # without a state it would fit other levels
            again = q.state_codes(codes * scale, scale, q.start(x, channel_axis=1), soft=False)
        else:
            again = _codes(q, codes * scale, scale)
        moved = int((again != codes).sum())
        if moved:
            return f"expected codes(codes * scale) == codes, {moved} of {codes.numel()} moved"
    return ""


def _monotone(q: Quantizer) -> str:
    x = _sample((1000,)).sort().values
    scale = q.fit(x)
    codes = _codes(q, x, scale, noise=torch.full_like(x, 0.25))
    return "" if bool((codes.diff() >= 0).all()) else "expected codes that do not fall where x rises"


def _channels_are_independent(q: Quantizer) -> str:
    x = _sample((6, 50)) * torch.tensor([[0.01], [0.1], [1.0], [3.0], [0.0], [50.0]])
    scale = q.fit(x, channel_axis=0)
    codes = _codes(q, x, scale)
    for row in range(6):
        alone = q.fit(x[row])
        if not torch.allclose(alone, scale[row, 0], rtol=1e-6, atol=0.0):
            return f"expected the scale of channel {row} alone, {alone.item()}, got {scale[row, 0].item()}"
        if not torch.equal(_codes(q, x[row], scale[row, 0], noise=_noise(x)[row]), codes[row]):
            return f"expected the codes of channel {row} alone"
    return ""


def _gradients_keep_the_contract(q: Quantizer) -> str:
    x = _sample((400,), dtype=torch.float64).clamp(-0.99, 0.99).requires_grad_()
    scale = q.fit(x).requires_grad_()
    codes = _codes(q, x, scale)
    (dx,) = torch.autograd.grad(codes.sum(), x, create_graph=True)
    (dscale,) = torch.autograd.grad(codes.sum(), scale, create_graph=True)
    passed = dx != 0
    within = (x / scale > q.levels[0]) & (x / scale < q.levels[-1])
    within &= x.abs() <= getattr(q, "ste_limit", math.inf)  # a class may name its own reach, as Binary does
    if not bool(passed[within].all()) or not torch.allclose(dx[passed], 1 / scale):
        return "expected d codes/dx = 1/scale between the outermost levels, and 1/scale or 0 beyond"
    if not torch.allclose(dscale, -(x[passed] / scale**2).sum()):
        return "expected d codes/dscale = -x/scale^2 where x has a gradient, 0 elsewhere"
    (second,) = torch.autograd.grad(dscale, scale)
    if not torch.allclose(second, (2 * x[passed] / scale**3).sum()):
        return "expected a second derivative of 2x/scale^3 in the scale"
    return "" if bool(passed.any()) else "expected some gradient to pass"


def _graph_scale_keeps_values(q: Quantizer) -> str:
    x = _sample((6, 5))
    scale = q.fit(x, channel_axis=0)
    return "" if torch.equal(q.graph_scale(scale, x), scale) else "expected graph_scale to keep a positive scale"


def _sample(shape: tuple[int, ...], *, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(20)
    return torch.randn(shape, generator=generator, dtype=dtype)


def _noise(x: Tensor) -> Tensor:
    return torch.rand(x.shape, generator=torch.Generator().manual_seed(21))


def _codes(q: Quantizer, x: Tensor, scale: Tensor, *, noise: Tensor | None = None) -> Tensor:
    if noise is None:
        noise = _noise(x)
    return q.codes(x, scale, noise=noise if q.rounding == "stochastic" else None)


CHECKS: dict[str, Callable[[Quantizer], str]] = {
    "frozen": _frozen,
    "copies": _copies,
    "round_trip": _round_trip,
    "describes_levels": _describes_levels,
    "fits_positive": _fits_positive,
    "refuses_nan": _refuses_nan,
    "codes_are_levels": _codes_are_levels,
    "idempotent": _idempotent,
    "monotone": _monotone,
    "channels_are_independent": _channels_are_independent,
    "gradients_keep_the_contract": _gradients_keep_the_contract,
    "graph_scale_keeps_values": _graph_scale_keeps_values,
    "keeps_its_state": keeps_its_state,
}
"""Name of every check and its function: a problem in words, or nothing."""
