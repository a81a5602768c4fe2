"""Traces by local losses: each layer's own loss at each step, no back-propagation through time (Lui & Neftci 2021)."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikequant.analyse.by_sample import rademacher
from spikequant.analyse.curvature import FLAT_SURROGATES
from spikequant.analyse.hutchinson import LEAST_PROBES
from spikequant.analyse.layer_facts import facts_of, is_quantized
from spikequant.analyse.traces import LayerTrace, Traces
from spikequant.law.errors import DataError, Unsupported
from spikequant.nn import NeuronLayer, Surrogate
from spikequant.training.evaluate import pairs
from spikequant.training.local import LocalRun, LocalStep, check_steps

LocalCurvature = Literal["hessian", "gauss-newton"]


def local_hessian_trace(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    curvature: LocalCurvature = "gauss-newton",
    burn_in: int = 0,
    probes: int = 16,
    relative_error: float | None = None,
    surrogate: Surrogate | None = None,
    seed: int = 0,
) -> Traces:
    """Trace of every layer's local loss, summed over steps, by weights and by membrane.

    ``Tr H_l = sum_t E[v' d2 L_l[t] / dW_l2 v]``: at each step behind `burn_in` the loss of the layer's own readout is
    differentiated twice, with inputs and earlier states as constants.  Signs are drawn anew for every step and batch;
    a probe is one pass over all batches, each weighted by its samples.  Losses are means over samples and classes.

    ``gauss-newton``: ``|J' sqrt(L'') r|^2``.  Smooth L1 has ``L'' = 1`` below an error of 1, else 0, so the matrix
    exists; with a boxcar the Hessian itself is that matrix almost everywhere.

    Args:
        model: as for `fit_local`, of a quantized one without counts for `allocate`; comes back as it was.
        batches: ``([T, N, ...], classes [N])``; read once and kept.
        curvature: see above.
        burn_in: steps at the start that do not count.
        probes: passes over the batches, at most; at least 8.
        relative_error: ends earlier once every standard error is below this share of its trace.
        surrogate: takes the place of the model's; needed for the Hessian of one without a second derivative.
        seed: of signs, and of the readouts as in `fit_local`.

    Raises:
        Unsupported: a model that cannot learn locally, a surrogate whose second derivative is zero with ``hessian``.
        DataError: no batch, too few probes, samples no longer than `burn_in`.
    """
    if curvature not in ("hessian", "gauss-newton"):
        raise Unsupported(f"curvature {curvature!r}; expected hessian or gauss-newton for local losses")
    if probes < LEAST_PROBES:
        raise DataError(f"probes is {probes}; a standard error needs at least {LEAST_PROBES}")
    kept = list(pairs(batches))
    if not kept:
        raise DataError("local_hessian_trace: no batch; expected at least one (input, target)")
    for x, _ in kept:
        check_steps(x, burn_in)
    twin = copy.deepcopy(model)
    names = _surrogates(twin, surrogate, curvature)
    run, generator = LocalRun(twin, seed), torch.Generator().manual_seed(seed)
    found: list[list[float]] = []
    rows: list[LayerTrace] = []
    settled = False
    while len(found) < probes and not settled:
        found.append(_probe(run, kept, curvature, burn_in, generator))
        if len(found) >= LEAST_PROBES:
            rows = _rows(twin, run, found, kept[0][0])
            settled = relative_error is not None and all(
                r.standard_error <= relative_error * abs(r.trace) for r in rows
            )
    words = () if settled or relative_error is None else ("not settled: more probes would tell more",)
    if surrogate is not None:
        words = (*words, f"every surrogate was replaced by {surrogate.name} of slope {surrogate.slope:g}")
    words = (*words, f"of local losses (smooth L1 of fixed random readouts), {burn_in} steps of burn-in")
    samples = sum(len(y) for _, y in kept)
    facts = None if is_quantized(model) else facts_of(model, *kept[0])
    return Traces(tuple(rows), curvature, "hutchinson", names, settled, samples, words, None, facts)


def _surrogates(twin: nn.Module, surrogate: Surrogate | None, curvature: str) -> dict[str, str]:
    names = {}
    for path, module in twin.named_modules():
        if isinstance(module, NeuronLayer):
            module.surrogate = surrogate or module.surrogate
            names[path] = module.surrogate.name
    flat = next((f"{path}: {name}" for path, name in names.items() if name in FLAT_SURROGATES), None)
    if flat and curvature == "hessian":
        raise Unsupported(
            f"{flat}: its second derivative is 0 almost everywhere, so that the Hessian is the Gauss-Newton matrix; "
            "pass curvature='gauss-newton', or surrogate=Surrogate('atan', 2.0) to replace it"
        )
    return names


def _probe(
    run: LocalRun, batches: Sequence[tuple[Tensor, Tensor]], curvature: str, burn_in: int, generator: torch.Generator
) -> list[float]:
    """One sample of every trace: weights of all layers, then membranes."""
    samples = sum(len(y) for _, y in batches)
    totals = torch.zeros(2 * len(run.forms), dtype=torch.float64)
    for x, y in batches:
        run.reset()
        wanted = F.one_hot(y, run.classes).to(x.dtype)
        for t, frame in enumerate(x):
            with torch.set_grad_enabled(t >= burn_in):
                steps = list(run.step(frame, perturbed=True))
            for one in steps if t >= burn_in else ():
                products = _sample(run, one, wanted, curvature, generator)
                for place, value in zip((one.layer, len(run.forms) + one.layer), products, strict=True):
                    totals[place] += value * len(y) / samples
    return [float(value) for value in totals]


def _sample(
    run: LocalRun, one: LocalStep, wanted: Tensor, curvature: str, generator: torch.Generator
) -> tuple[float, float]:
    weight, moved = run.forms[one.layer].synapse.weight, run.forms[one.layer].moved
    assert isinstance(weight, Tensor) and isinstance(moved, Tensor)
    leaves = [weight, moved]
    if curvature == "gauss-newton":
        error = (one.scores - wanted).detach()
        seeds = rademacher(error, generator) * (error.abs() < 1) / error.numel() ** 0.5
        found = torch.autograd.grad(one.scores, leaves, grad_outputs=seeds)
        return float((found[0] ** 2).sum()), float((found[1] ** 2).sum())
    loss = F.smooth_l1_loss(one.scores, wanted)
    gradients = torch.autograd.grad(loss, leaves, create_graph=True)
    signs = [rademacher(leaf, generator) for leaf in leaves]
    values = []
    for gradient, leaf, sign in zip(gradients, leaves, signs, strict=True):
        (product,) = torch.autograd.grad(gradient, leaf, grad_outputs=sign, retain_graph=True)
        values.append(float((product * sign).sum()))
    return values[0], values[1]


def _rows(model: nn.Module, run: LocalRun, found: Sequence[Sequence[float]], x: Tensor) -> list[LayerTrace]:
    """Means over probes and their standard errors."""
    values = torch.tensor(found, dtype=torch.float64)
    means, errors = values.mean(0), values.std(0) / len(found) ** 0.5
    paths = {id(module): path for path, module in model.named_modules()}
    rows = []
    for role, start in (("weight", 0), ("membrane", len(run.forms))):
        for k, form in enumerate(run.forms):
            module = form.synapse if role == "weight" else form.neuron
            weight = form.synapse.weight
            assert isinstance(weight, Tensor)
            count = weight.numel() if role == "weight" else len(x) * form.states["u"].numel()
            name = paths[id(module)]
            rows.append(LayerTrace(name, role, float(means[start + k]), float(errors[start + k]), count, len(found)))
    return rows
