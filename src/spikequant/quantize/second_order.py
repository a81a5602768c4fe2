"""Weight codes of least membrane error, one layer after the other, without training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from spikequant.law.errors import Unsupported
from spikequant.nn import QuantizedNeuron, Synapse
from spikequant.quantize.optimal_brain import Nearest, damped, descend, quadratic_error, surgeon
from spikequant.quantize.response import Response, clock_of, hessians, response_of
from spikequant.quantize.scales import FACTORS, flows_into
from spikequant.quantizers import nearest_codes

WEIGHT_SOLVERS = ("nearest", "second_order")


@dataclass(frozen=True, kw_only=True)
class SolvedWeights:
    """One layer: its relative squared error on the calibration data, with codes to the nearest and solved.

    ``error = (s q - w)^T H (s q - w) / w^T H w``, summed over channels.
    """

    path: str
    nearest: float
    solved: float

    def __str__(self) -> str:
        return f"{self.path}: response error {self.nearest:.4f} with nearest codes, {self.solved:.4f} solved"


@dataclass(frozen=True)
class _Problem:
    """The weights of a layer by groups of channels that see the same inputs, each group with its Hessian."""

    weight: Tensor
    scale: Tensor
    hessians: list[Tensor]
    nearest: Nearest

    def error(self, codes: Tensor, scale: Tensor) -> Tensor:
        """``E`` of every channel."""
        return self._by_group(lambda h, *rows: quadratic_error(rows[0] * rows[2][:, None] - rows[1], h), codes, scale)

    def solved(self, scale: Tensor) -> Tensor:
        """Codes that the surgeon finds."""
        return self._by_group(lambda h, _, weight, s: surgeon(weight, s, h, self.nearest), self.weight, scale)

    def descended(self, codes: Tensor, scale: Tensor) -> Tensor:
        """Codes from which no single change is better."""
        return self._by_group(lambda h, c, weight, s: descend(c, weight, s, h, self.nearest), codes, scale)

    def _by_group(self, act: Callable[..., Tensor], codes: Tensor, scale: Tensor) -> Tensor:
        parts = (part.chunk(len(self.hessians)) for part in (codes, self.weight, scale))
        return torch.cat([act(h, *rows) for h, *rows in zip(self.hessians, *parts, strict=True)])


@torch.no_grad()
def solve_weights(path: str, synapse: Synapse, hessian: Tensor) -> SolvedWeights:
    """Give a layer the codes and scales of least quadratic error, in place.

    The scale of a channel is the best of `FACTORS` of the fitted one, each judged with the
    codes that the surgeon finds for it; one scale for all channels is judged by their sum.
    Shared scales, and those that the quantizer fixes, stay.  The float weights move onto the
    grid (``w = s q``), so that whatever reads them finds the solved codes.

    Args:
        path: the layer's name.
        synapse: quantized, not frozen.
        hessian: ``[groups, fan-in, fan-in]`` (`response.hessians`).

    Raises:
        Unsupported: a quantizer whose codes of ``s q`` are not ``q``.
    """
    fitted = synapse.scale().detach().to(torch.float64)
    weight = synapse.folded_weight().detach().to(torch.float64).flatten(1)
    start = fitted.reshape(-1).expand(len(weight)).clone()
    problem = _Problem(weight, start, [damped(h) for h in hessian], partial(nearest_codes, synapse.quantizer))
    codes = synapse.codes().detach().to(torch.float64).flatten(1)
    chosen, least = torch.ones_like(start), problem.error(codes, start)
    before = float(least.sum())
    for factor in FACTORS if _can_move(synapse) else (1.0,):
        trial = problem.solved(start * factor)
        error = problem.error(trial, start * factor)
        better = error < least if fitted.numel() > 1 else (error.sum() < least.sum()).expand_as(error)
        least, chosen = torch.where(better, error, least), torch.where(better, factor, chosen)
        codes = torch.where(better[:, None], trial, codes)
    codes = problem.descended(codes, start * chosen)
    size = max(float(problem.error(torch.zeros_like(codes), start).sum()), torch.finfo(torch.float64).tiny)
    after = float(problem.error(codes, start * chosen).sum())
    _write(path, synapse, codes, fitted * (chosen[0] if fitted.numel() == 1 else chosen.reshape(fitted.shape)))
    return SolvedWeights(path=path, nearest=before / size, solved=after / size)


def _can_move(synapse: Synapse) -> bool:
    """Whether the scale is this layer's own, and no constant of its format."""
    shared = synapse.link is not None and synapse.link.branch.shared
    return not shared and synapse.quantizer.name != "fixed_point"


def _write(path: str, synapse: Synapse, codes: Tensor, scale: Tensor) -> None:
    """Weights on the grid; a scale that would follow them is held, a state starts from the grid."""
    kept = {name: value.detach().clone() for name, value in synapse.state_dict().items()}
    synapse.hold_scale()
    synapse.weight_scale.copy_(scale)
    on_grid = (codes * scale.reshape(-1, 1)).reshape(synapse.weight.shape)
    if synapse.input_std is not None:
        on_grid = on_grid * synapse.input_std.reshape(1, -1, *([1] * (synapse.weight.dim() - 2)))
    synapse.weight.copy_(on_grid)
    if synapse.state_names and not _gives(synapse, codes):
        synapse.refit()
        synapse.hold_scale()
        synapse.weight_scale.copy_(scale)
    if not _gives(synapse, codes):
        synapse.load_state_dict(kept)
        raise Unsupported(
            f"{path}: the quantizer {synapse.quantizer.name!r} does not give back the codes of weights on its own "
            "grid; use weight_solver='nearest', or another quantizer for this layer"
        )


def _gives(synapse: Synapse, codes: Tensor) -> bool:
    return torch.equal(synapse.codes().flatten(1).to(codes), codes)


class WeightSolver:
    """Solves the layers of one model, front to back, on what the settled layers before each of them give.

    Attributes:
        done: what was solved so far.
    """

    def __init__(self, model: nn.Module, inputs: list[Tensor]) -> None:
        self.model, self.inputs = model, inputs
        self.names = {id(m): path for path, m in model.named_modules()}
        self.clock = clock_of(model, inputs)
        self.done: list[SolvedWeights] = []

    def solve_group(self, neuron: QuantizedNeuron, *, refit_norms: bool) -> None:
        """The synapses that meet in one neuron layer, one after the other; `refit_norms`: a norm centres the sums."""
        for branch in neuron.branches:
            if branch.shared:
                branch.synapse.hold_scale()
        for branch in neuron.branches:
            response = response_of(neuron, free_bias=refit_norms and branch.norm is not None)
            self.solve(branch.synapse, response)

    def solve(self, synapse: Synapse, response: Response | None) -> None:
        """One layer; no response: a readout."""
        if synapse.is_frozen:
            return
        seen = flows_into(self.model, synapse, self.inputs)
        found = hessians(synapse, response_of(None) if response is None else response, seen, self.clock)
        self.done.append(solve_weights(self.names[id(synapse)], synapse, found))
