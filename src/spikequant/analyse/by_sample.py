"""Probes of a weighted layer that differ from sample to sample.

The loss is a mean over samples that do not meet, so the Hessian of a weight is a sum over samples, ``H = sum_n H_n``.
One vector of signs for all of them has ``v'Hv`` vary with the products of different samples' entries, too, and these
add up coherently; a vector of signs ``v_n`` for each sample has the same mean and none of that variance:

    tr H = E[ sum_n v_n' H_n v_n ],   H_n = J_n' K_n J_n,   J_n v = layer(x_n; v)

A weight acts through the layer's output alone, hence ``K_n`` is the second derivative by a perturbation of that output
and one product with it serves all layers.  The same holds for Gauss-Newton and Fisher: gradients by sample.

What has to hold is tried on the first batch, with exact zeros: that samples do not meet, in the model and in the loss,
and that a layer's input does not depend on its own output (as in a recurrent one).  Where it does not hold, a layer is
probed with one vector for all samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(eq=False)
class Call:
    """One call of a layer in a forward pass.

    Attributes:
        x: its input, without a graph.
        moved: zeros that were added to its output, a leaf of the graph.
        lead: axes before the features.
        outer: these hold ``[outer, N, inner]`` rows.
    """

    x: Tensor
    moved: Tensor
    lead: int
    outer: int = 1

    def rows(self, tensor: Tensor, samples: int) -> Tensor:
        """Input, output or a gradient as ``[outer, N, inner, *features]``."""
        flat = tensor.flatten(0, self.lead - 1)
        return flat.reshape(self.outer, samples, len(flat) // (self.outer * samples), *flat.shape[1:])

    def outers(self, samples: int) -> Iterator[int]:
        """The ways in which the batch may lie in the rows."""
        if self.lead > 1 and self.moved.shape[1] == samples:
            yield self.moved.shape[0]
        if len(self.moved) % samples == 0:
            yield from dict.fromkeys((len(self.moved) // samples, 1))


@final
class Tap:
    """A weighted layer whose output is moved, for one batch at a time."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.calls = module, list[Call]()
        self._placed: dict[tuple[Any, ...], list[int]] = {}
        self._handle = module.register_forward_hook(self._moved)

    def remove(self) -> None:
        """Let the layer be."""
        self._handle.remove()
        self.calls = []

    def _moved(self, _module: nn.Module, given: tuple[Any, ...], output: Tensor) -> Tensor:
        moved = torch.zeros((), dtype=output.dtype, device=output.device).expand(output.shape).requires_grad_()
        lead = output.dim() - 1 if isinstance(self.module, nn.Linear) else 1
        self.calls.append(Call(given[0], moved, lead))
        return output + moved

    def _key(self, samples: int) -> tuple[Any, ...]:
        return samples, *(tuple(call.moved.shape) for call in self.calls)

    def is_placed(self, samples: int) -> bool:
        """Whether the place of such a batch in these calls is known already."""
        for call, outer in zip(self.calls, self._placed.get(self._key(samples), []), strict=False):
            call.outer = outer
        return self._key(samples) in self._placed

    def seal(self, samples: int) -> None:
        """Inputs without their graph; where the batch lies is remembered for the next one."""
        self._placed[self._key(samples)] = [call.outer for call in self.calls]
        for call in self.calls:
            call.x = call.x.detach()

    @property
    def leaves(self) -> list[Tensor]:
        """What the graph of the outputs begins at, one a call."""
        return [call.moved for call in self.calls]

    def _output(self, x: Tensor, weight: Tensor) -> Tensor:
        if isinstance(self.module, nn.Linear):
            return F.linear(x, weight)
        found: Tensor = self.module._conv_forward(x, weight, None)  # type: ignore[operator]
        return found

    def directions(self, samples: int, generator: torch.Generator) -> list[Tensor]:
        """``J_n v_n`` for signs ``v_n`` of every sample, one tensor a call."""
        found = [torch.empty(call.moved.shape, dtype=call.moved.dtype, device=call.moved.device) for call in self.calls]
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        with torch.no_grad():
            for n in range(samples):
                signs = rademacher(weight, generator)
                for call, to in zip(self.calls, found, strict=True):
                    x, part = call.rows(call.x, samples)[:, n], call.rows(to, samples)[:, n]
                    part.copy_(self._output(x.flatten(0, 1), signs).reshape(part.shape))
        return found

    def squares(self, found: Sequence[Tensor], samples: int) -> float:
        """``sum_n |J_n' g_n|^2`` for gradients ``g`` by the leaves: those by the weight, sample by sample."""
        total = 0.0
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        for n in range(samples):
            with torch.enable_grad():
                leaf = weight.detach().requires_grad_()
                outputs = [self._output(c.rows(c.x, samples)[:, n].flatten(0, 1), leaf) for c in self.calls]
            by = [c.rows(g, samples)[:, n].flatten(0, 1) for c, g in zip(self.calls, found, strict=True)]
            (gradient,) = torch.autograd.grad(outputs, leaf, grad_outputs=by)
            total += float((gradient.double() ** 2).sum())
        return total


def rademacher(like: Tensor, generator: torch.Generator) -> Tensor:
    """Signs in the shape and type of a tensor."""
    signs = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8)
    return (2 * signs - 1).to(like)


def taps_apart(taps: Sequence[Tap], outputs: Tensor, value: Callable[[Tensor], Tensor]) -> list[Tap]:
    """The layers whose samples do not meet, with the place of their batch found; exact zeros decide.

    Args:
        taps: with the calls of one batch.
        outputs: of the model, with their graph.
        value: the loss of outputs.
    """
    samples = len(outputs)
    if all(tap.is_placed(samples) for tap in taps):
        return list(taps)
    generator = torch.Generator().manual_seed(0)
    half = torch.randperm(samples, generator=generator).argsort() < samples // 2
    half = half.to(outputs.device)
    if not _loss_apart(outputs, half, value):
        return []
    leaves = [leaf for tap in taps for leaf in tap.leaves]
    seeds = torch.rand(outputs.shape, generator=generator).to(outputs) + 0.5
    first, second = (iter(_gradients(outputs, leaves, seeds * _by_sample(kept, outputs))) for kept in (half, ~half))
    kept = []
    for tap in taps:
        found = [_placed(call, samples, next(first), next(second), half) for call in tap.calls]
        if found and all(found) and not _feeds_itself(tap):
            kept.append(tap)
    return kept


def _placed(call: Call, samples: int, one: Tensor, other: Tensor, half: Tensor) -> bool:
    """Whether the batch lies in the rows in a way in which each half of it gives the other half's rows nothing."""
    for outer in call.outers(samples):
        call.outer = outer
        if not call.rows(one, samples)[:, ~half].any() and not call.rows(other, samples)[:, half].any():
            return True
    return False


def _feeds_itself(tap: Tap) -> bool:
    """Whether an input of a layer depends on what the layer gave before."""
    inputs = [call.x for call in tap.calls if call.x.requires_grad]
    if len(tap.calls) == 1 or not inputs:
        return False
    found = torch.autograd.grad([x.sum() for x in inputs], tap.leaves, retain_graph=True, allow_unused=True)
    return any(one is not None for one in found)


def _loss_apart(outputs: Tensor, half: Tensor, value: Callable[[Tensor], Tensor]) -> bool:
    """Whether the loss's second derivative has no entry for two samples of different halves."""
    z = outputs.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(value(z), z, create_graph=True)
        if not slope.requires_grad:
            return True
        for kept in (half, ~half):
            (found,) = torch.autograd.grad(slope, z, _by_sample(kept, z), retain_graph=True, materialize_grads=True)
            if bool(found[~kept].any()):
                return False
    return True


def _gradients(of: Tensor, by: list[Tensor], seeds: Tensor) -> list[Tensor]:
    if not by:
        return []
    return list(torch.autograd.grad(of, by, grad_outputs=seeds, retain_graph=True, materialize_grads=True))


def _by_sample(kept: Tensor, like: Tensor) -> Tensor:
    """1 for all outputs of the samples that are kept."""
    return kept.to(like).reshape(-1, *[1] * (like.dim() - 1)).expand_as(like)
