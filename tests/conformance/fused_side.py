"""One hand-made neuron run by the golden law, by the plain loop over tensors and by the fused kernel."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
import torch
from tests.conformance.handmade import neuron

from spikequant.law.bounds import prove_step
from spikequant.law.neurons import prepare, step
from spikequant.law.noise import noise_words, step_key
from spikequant.law.ops import IntOps
from spikequant.nn.fused import Call, layout_of, run_fused, run_plain
from spikequant.nn.loop import Noise
from spikequant.nn.surrogate import DERIVATIVES, Surrogate
from spikequant.readers.kernels import LSB

BATCH, CHANNELS, SPACE = 3, 5, (2, 3)
FORMATS = ("contiguous", "channels_last", "still", "flat", "odd")
SHIFTS = ("v_shift", "i_shift", "x_shift", "a_shift")


@dataclass(frozen=True, eq=False)
class Case:
    """A neuron, its integers and an input."""

    name: str
    spec: object
    params: dict
    x: np.ndarray
    bits: int
    noise: Noise
    form: str
    surrogate: Surrogate
    detach_reset: bool
    compares: int


def is_noisy(spec):
    """Whether some register rounds with noise."""
    return any(r is not None and r.rounding == "stochastic" for r in (spec.v, spec.i, spec.a, spec.x))


def case(seed, steps):
    """A random neuron with an input ``[T, N, C, ...]`` that it fires on."""
    dice = random.Random(seed)
    form = dice.choice(FORMATS)
    space = () if form == "flat" else SPACE
    name, spec, params, drive = neuron(dice, (CHANNELS, *(1 for _ in space)))
    rng = np.random.default_rng(seed)
    x = rng.integers(-2 * drive, 5 * drive, (1 if form == "still" else steps, BATCH, CHANNELS, *space))
    x = np.broadcast_to(x, (steps, *x.shape[1:]))
    bits = prove_step(spec, params, -8 * drive, 8 * drive, check_reach=False).accumulator_bits
    whole = spec.spikes_max > 1 and dice.random() < 0.5
    return Case(
        name, spec, params, x, bits + is_noisy(spec), Noise(dice.randint(0, 2**32 - 1), dice.randint(0, 9), 4), form,
        Surrogate(dice.choice(sorted(DERIVATIVES)), dice.choice((0.5, 2.0, 5.0))), dice.random() < 0.5,
        spec.spikes_max if whole else 1,
    )  # fmt: skip


def golden(one):
    """Outputs and every state by the integers of the law."""
    ops, spec = IntOps(), one.spec
    ready = prepare(ops, spec, one.params)
    shape = one.x.shape[1:]
    state = {n: np.zeros(shape, dtype=np.int64) for n in spec.state_formats()}
    samples = one.noise.first_sample + np.arange(shape[0])
    outputs, states = [], []
    for t, x in enumerate(one.x):

        def words(role, t=t):
            return noise_words(step_key(one.noise.seed, one.noise.layer, role, t), samples, shape[1:])

        tick = np.int64((t + 1) % spec.adapt_every == 0)
        state, output = step(ops, spec, ready, state, x, noise=words, tick=tick)
        outputs.append(np.broadcast_to(output, shape))
        states.append({n: np.broadcast_to(v, shape) for n, v in state.items()})
    return np.stack(outputs), states


def tensors(one, dtype):
    """Input, LSB and prepared parameters as leaves."""
    x = torch.tensor(one.x, dtype=dtype)
    if one.form == "channels_last":
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])
    elif one.form == "odd":
        x = x.transpose(0, 3).contiguous().transpose(0, 3)
    elif one.form == "still":
        x = x[0].clone()
    reach = float(np.abs(np.asarray(one.params.get("theta", 100))).mean()) + 1.0
    lsb = torch.full((CHANNELS, *(1 for _ in one.x.shape[3:])), 1.0 / reach, dtype=dtype)
    ready = prepare(IntOps(), one.spec, one.params)
    params = {n: torch.tensor(np.asarray(v), dtype=dtype) for n, v in ready.items()}
    for leaf in (x, lsb, *(p for n, p in params.items() if n not in SHIFTS)):
        leaf.requires_grad_()
    return x, lsb, params


def call_of(one, x, lsb, params, *, keeps=True, engine="c"):
    """The call of a kernel for a case."""
    still = one.form == "still"
    if not still and layout_of(x[0], {**params, LSB: lsb}, noisy=is_noisy(one.spec)) is None:
        x = x.contiguous()
    layout = layout_of(x if still else x[0], {**params, LSB: lsb}, noisy=is_noisy(one.spec))
    call = Call(
        one.spec, tuple(sorted(params)), len(one.x), still, False, keeps, one.surrogate, one.detach_reset, one.compares,
        True, layout, one.noise if is_noisy(one.spec) else None, 0, engine,
    )  # fmt: skip
    return call, x


def both(one, dtype, *, keeps=True, engine="c"):
    """``(outputs, states, gradients)`` of the plain loop and of the kernel."""
    results = []
    for fused in (False, True):
        x, lsb, params = tensors(one, dtype)
        call, dense = call_of(one, x, lsb, params, keeps=keeps, engine=engine)
        if fused:
            output, states = run_fused(call, dense, lsb, params, None)
        else:
            output, *last = run_plain(call, dense, lsb, [params[n] for n in call.names], [None] * len(call.states))
            states = dict(zip(call.states, last, strict=False))
        generator = torch.Generator().manual_seed(5)
        total = (output * torch.randn(output.shape, generator=generator, dtype=dtype)).sum()
        for name in sorted(states):
            up = torch.randn(output.shape[1:], generator=generator, dtype=dtype)
            total = total + (states[name] * up).sum() / 50
        leaves = {"x": x, "lsb": lsb, **params}
        moving = [n for n, t in leaves.items() if t.requires_grad]
        found = torch.autograd.grad(total, [leaves[n] for n in moving], allow_unused=True, materialize_grads=True)
        results.append(
            (output.detach(), {n: s.detach() for n, s in states.items()}, dict(zip(moving, found, strict=True)))
        )
    return results


def stepwise(one, dtype, *, engine="c"):
    """Outputs and every state of the kernel, one step per call, without gradients."""
    with torch.no_grad():
        x, lsb, params = tensors(one, dtype)
        call, x = call_of(one, x, lsb, params, engine=engine)
        states, outputs, seen = None, [], []
        for t in range(len(one.x)):
            current = x if one.form == "still" else x[t]
            single = replace(call, steps=1, still=True, single=True, first_step=t)
            output, states = run_fused(single, current, lsb, params, states)
            outputs.append(output)
            seen.append(states)
    return torch.stack(outputs), seen
