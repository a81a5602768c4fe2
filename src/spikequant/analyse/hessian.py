"""`hessian_trace`: how curved the loss is in every layer and role, with standard errors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from numbers import Real

import torch
from torch import Tensor, nn

from spikequant.analyse.block_traces import block_trace
from spikequant.analyse.curvature import FLAT_SURROGATES, Curvature, Loss
from spikequant.analyse.hutchinson import LEAST_PROBES, check_mean, hutchinson, mean_rows
from spikequant.analyse.inputs import cut
from spikequant.analyse.layer_facts import facts_of, is_quantized
from spikequant.analyse.places import Role
from spikequant.analyse.settled import Stop
from spikequant.analyse.traces import CurvatureName, LayerTrace, Traces
from spikequant.analyse.widths import is_whole
from spikequant.law.errors import DataError, SpikequantError, Unsupported
from spikequant.nn import Surrogate
from spikequant.training import check_batch
from spikequant.training.evaluate import pairs

METHODS = ("hutchinson", "hutch++", "xtrace")
GROUP = 6
"""Products with the Hessian of a block that one run of Hutch++ or XTrace takes."""


def hessian_trace(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    roles: Sequence[Role] = ("weight",),
    curvature: CurvatureName = "hessian",
    method: str = "hutchinson",
    relative_error: float | None = None,
    confidence: float = 0.95,
    most_probes: int = 400,
    surrogate: Surrogate | None = None,
    at_once: int | None = None,
    seed: int = 0,
) -> Traces:
    """Trace of the loss's second derivative by layer and role, through time by back-propagation.

    Hutchinson: ``Tr H = E[v' H v]`` for vectors of random signs; one product with the whole Hessian gives a sample for
    every layer.  Where samples do not meet (tried with exact zeros), weights are probed with other signs for every
    sample (`by_sample`): the same mean, a fraction of the variance.
    Probe k runs on batch ``k mod B`` and counts by its samples, so the mean is that over all samples and
    the standard error holds the spread of the data, too; it ends with whole rounds over the batches.
    ``hutch++`` (Meyer et al. 2021) and ``xtrace`` (Epperly et al. 2024) work layer by layer through curvlinops and run
    on the first batch; they pay where a block has few large eigenvalues.

    With surrogate gradients the "Hessian" is the derivative of the surrogate gradient: symmetric, but its trace may be
    negative.  The Gauss-Newton trace cannot be.

    It stops when every relative standard error is below `relative_error`, or, without one, when the order of the layers
    of each role is settled at `confidence` (of a single layer: when its error is below a tenth).  It looks for that
    after 8, 16, 32, ... probes.  At look j each pair of neighbours in the ranking must differ by a one-sided Student
    test at ``(1 - confidence) / (j (j + 1))``, divided by the number of all pairs of layers, so that having looked
    many times does not raise the share of wrong orders.  The model is in evaluation mode and comes back as it was.

    Args:
        model: real or quantized, not frozen.
        loss: of ``(outputs [N, classes], targets)``, a mean over samples.
        batches: ``(input, target)``; read once and kept.
        roles: ``"weight"``, ``"membrane"`` (before it fires, of all steps and samples; where a neuron's
            synaptic current cannot be told from it, of the current, and `Traces.words` says so), ``"threshold"``.
        curvature: ``"hessian"``, ``"gauss-newton"``, or ``"fisher"`` (empirical: mean squared gradient of a sample).
        method: ``"hutchinson"``; for the Hessian also ``"hutch++"`` or ``"xtrace"``.
        relative_error: see above.
        confidence: see above.
        most_probes: it ends here in any case, and `Traces.settled` says so.
        surrogate: takes the place of all surrogates; needed where one has no second derivative.
        at_once: samples of a batch that are held in memory together; None: all of them.  The traces are those of the
            whole batch either way.
        seed: of the probes.

    Raises:
        Unsupported: unknown names, a frozen layer, a surrogate without a second derivative.
        DataError: no batch, one that the model or the loss cannot take, a loss or an output of the wrong form, fewer
            probes than batches or than fourteen.
    """
    _check(curvature, method, relative_error, confidence, most_probes)
    if surrogate is not None and not isinstance(surrogate, Surrogate):
        raise DataError(f"surrogate is {surrogate!r}; expected a Surrogate, such as Surrogate('atan', 2.0), or None")
    if not is_whole(seed):
        raise DataError(f"seed is {seed!r}; expected a whole number")
    if at_once is not None and (not is_whole(at_once) or at_once < 1 or method != "hutchinson"):
        raise DataError(f"at_once is {at_once!r}; expected a number of samples, 1 or more, with method='hutchinson'")
    if not isinstance(model, nn.Module):
        raise DataError(f"hessian_trace: expected a torch nn.Module as model, got {type(model).__name__}")
    if not callable(loss):
        raise DataError(f"hessian_trace: expected a function (output, target) as loss, got {type(loss).__name__}")
    kept = list(pairs(batches))
    if not kept:
        raise DataError("hessian_trace: no batch; expected at least one (input, target)")
    for x, _ in kept:
        check_batch(x)
    if method == "hutchinson" and most_probes < len(kept):
        raise DataError(
            f"hessian_trace: {len(kept)} batches and at most {most_probes} probes; every batch needs a probe: raise "
            "most_probes, or pass fewer batches"
        )
    with Curvature(model, loss, roles, surrogate, by_sample=method == "hutchinson") as at:
        if curvature == "hessian":
            _check_surrogates(at.surrogates)
        pieces = [[(x, y)] if at_once is None else cut(x, y, at_once) for x, y in kept]
        check_mean(at, pieces[0])
        if method == "hutchinson":
            rows, settled = hutchinson(at, pieces, curvature, Stop(relative_error, confidence), most_probes, seed)
        else:
            rows, settled = _blocks(at, kept[0], method, Stop(relative_error, confidence), most_probes, seed)
        names, words, beside = dict(at.surrogates), _words(rows, at, settled), None
        if any(row.trace < 0 for row in rows):
            stop = Stop(relative_error, confidence)
            other, sure = hutchinson(at, pieces, "gauss-newton", stop, most_probes, seed)
            beside = Traces(tuple(other), "gauss-newton", "hutchinson", names, sure, sum(len(y) for _, y in kept))
    words = (*words, *shared_weights(model))
    samples = sum(len(y) for _, y in (kept if method == "hutchinson" else kept[:1]))
    facts = None
    try:
        facts = None if is_quantized(model) else facts_of(model, *kept[0])
    except SpikequantError as error:  # traces tell something of a network that has no integer form, too
        words = (*words, f"no counts and errors of quantization for allocate: {error}")
    return Traces(tuple(rows), curvature, method, names, settled, samples, words, beside, facts)


def _blocks(
    at: Curvature, batch: tuple[Tensor, Tensor], method: str, stop: Stop, most: int, seed: int
) -> tuple[list[LayerTrace], bool]:
    at.run(*batch)
    torch_state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    found: list[list[float]] = []
    rows: list[LayerTrace] = []
    try:
        for _ in range(most // GROUP):
            found.append([block_trace(at, place, method, GROUP) for place in range(len(at.places))])
            if len(found) * GROUP >= LEAST_PROBES and len(found) > 1:
                rows = [replace(r, probes=len(found) * GROUP) for r in mean_rows(at, found, [1] * len(found))]
                if stop(rows, len(found)):
                    return rows, True
    finally:
        torch.random.set_rng_state(torch_state)
    return rows, False


def _check(curvature: str, method: str, relative_error: float | None, confidence: float, most_probes: int) -> None:
    if curvature not in ("hessian", "gauss-newton", "fisher"):
        raise Unsupported(f"curvature {curvature!r}; expected hessian, gauss-newton or fisher")
    if method not in METHODS:
        raise Unsupported(f"method {method!r}; expected one of {', '.join(METHODS)}")
    if method != "hutchinson" and curvature != "hessian":
        raise Unsupported(f"method {method!r} works on the Hessian; for {curvature} use 'hutchinson'")
    if relative_error is not None and not (isinstance(relative_error, Real) and relative_error > 0):
        raise DataError(f"relative_error is {relative_error!r}; expected a positive number, such as 0.05, or None")
    if not (isinstance(confidence, Real) and 0 < confidence < 1):
        raise DataError(f"confidence is {confidence!r}; expected a number between 0 and 1, such as 0.95")
    if not is_whole(most_probes) or most_probes < LEAST_PROBES + GROUP:
        raise DataError(
            f"most_probes is {most_probes!r}; a standard error needs at least {LEAST_PROBES + GROUP}, whole"
        )


def _check_surrogates(names: dict[str, str]) -> None:
    flat = {layer: name for layer, name in names.items() if name in FLAT_SURROGATES}
    if flat:
        layer, name = next(iter(flat.items()))
        raise Unsupported(
            f"{layer}: the second derivative of the surrogate {name!r} is 0 almost everywhere, so a Hessian trace "
            "would miss the spikes; pass surrogate=Surrogate('atan', 2.0) to replace it, or curvature='gauss-newton'"
        )


def shared_weights(model: nn.Module) -> list[str]:
    """A sentence for every weight that several layers share.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> net[1].weight = net[0].weight
    >>> shared_weights(net)[0][:29]
    '0, 1 share one weight tensor:'
    """
    users: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None:
            users.setdefault(id(weight), []).append(path)
    return [
        f"{', '.join(paths)} share one weight tensor: each has the trace of its own use, without what the uses have in "
        "common; tied= of allocate gives them the same bits, and their integers are stored once each"
        for paths in users.values()
        if len(paths) > 1
    ]


def _words(rows: Sequence[LayerTrace], at: Curvature, settled: bool) -> tuple[str, ...]:
    words = list(at.caveats)
    if at.surrogate is not None:
        words.append(f"every surrogate was replaced by {at.surrogate.name} of slope {at.surrogate.slope:g}")
    negative = [f"{r.layer} {r.role}" for r in rows if r.trace < 0]
    if negative:
        words.append(f"negative: {', '.join(negative)}; bits are allocated by the Gauss-Newton traces, which cannot be")
    if not settled:
        words.append("not settled: more probes would tell more")
    return tuple(words)
