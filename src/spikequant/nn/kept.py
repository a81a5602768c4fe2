"""What a layer keeps between calls: whether it still holds, and a graph that several backward passes can go through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

Edge = tuple[Any, int]
"""A node of the graph and which of its results."""


@final
class Seen:
    """A tensor as something was made from it.

    Its version counts changes in place.  The memory is compared, too: ``p.data = ...`` and
    ``torch.nn.utils.vector_to_parameters`` give a parameter other memory under the same version.  What numpy, another
    process or ``p.data.add_()`` write shows only in the values; those are compared if a copy was asked for.  Whether it
    learns is compared: what was made of a frozen parameter has no graph.
    """

    def __init__(self, tensor: Tensor, *, values: bool = False) -> None:
        self.tensor, self.version, self.address = tensor, tensor._version, _address(tensor)
        self.learns = tensor.requires_grad
        self.memory = tensor.detach()  # as long as it lives, nothing else gets its address
        self.copy = _distinct(self.memory).clone() if values else None

    def holds(self, now: Tensor) -> bool:
        """Whether `now` is that tensor, unchanged."""
        same = now is self.tensor and now._version == self.version and now.requires_grad == self.learns
        same = same and _address(now) == self.address
        return same and (self.copy is None or torch.equal(_distinct(now.detach()), self.copy))


def _address(tensor: Tensor) -> int:
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return 0
    return tensor.data_ptr()


def _distinct(x: Tensor) -> Tensor:
    """`x` without the repetitions of an expanded tensor."""
    return x[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in x.stride())]


class _Shared(torch.autograd.Function):
    """Tensors that were made from `sources` before; the graph between them is kept for every backward pass."""

    @staticmethod
    def forward(ctx: Any, made: Sequence[Tensor], *sources: Tensor) -> tuple[Tensor, ...]:
        ctx.made, ctx.sources = made, sources
        ctx.set_materialize_grads(False)
        return tuple(value.detach() for value in made)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        reached = [(value, g) for value, g in zip(ctx.made, gradients, strict=True) if g is not None]
        found = torch.autograd.grad(
            [value for value, _ in reached], ctx.sources, [g for _, g in reached],
            retain_graph=True, create_graph=torch.is_grad_enabled(), allow_unused=True,
        )  # fmt: skip
        return None, *found


def shared(made: Sequence[Tensor], sources: Sequence[Tensor]) -> list[Tensor]:
    """`made`, so that two forward passes that use it may be followed by two backward passes.

    Args:
        made: tensors; those with a graph depend on nothing but `sources`.
        sources: tensors that do not depend on each other; where that does not hold, or one has hooks of a user,
            `made` comes back as it is.
    """
    able = not (torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level() is not None)
    graphed = [value for value in made if value.grad_fn is not None]
    moving = list({id(t): t for t in sources if t.requires_grad}.values())
    if not (able and graphed) or any(map(_is_hooked, moving)) or not _enclosed(graphed, moving):
        return list(made)
    out = iter(_Shared.apply(graphed, *moving))  # type: ignore[no-untyped-call]
    return [next(out) if value.grad_fn is not None else value for value in made]


def _is_hooked(source: Tensor) -> bool:
    """Whether a user's hook sees the gradient of a source: it must not run twice.  A shared tensor has our own."""
    return bool(source._backward_hooks) and (source.grad_fn is None or source.grad_fn.name() != "_SharedBackward")


def _enclosed(made: Sequence[Tensor], sources: Sequence[Tensor]) -> bool:
    """Whether every way back from `made` ends at a source, and no source depends on another: it would count twice."""
    leaves = {id(t) for t in sources}
    ends = {(t.grad_fn, t.output_nr) for t in sources if t.grad_fn is not None}
    _, open_ends = _walk([(value.grad_fn, value.output_nr) for value in made], ends)
    behind = [edge for node, _ in ends for edge in node.next_functions]
    deeper, _ = _walk(behind, set())
    return open_ends <= leaves and not deeper & ends and not _variables(deeper) & leaves


def _walk(edges: list[Edge], ends: set[Edge]) -> tuple[set[Edge], set[int]]:
    """Edges from these on, as far as `ends`, and the ids of the leaves that were met."""
    waiting, seen = [edge for edge in edges if edge[0] is not None], set[Edge]()
    while waiting:
        edge = waiting.pop()
        if edge in seen or edge in ends:
            continue
        seen.add(edge)
        waiting.extend(behind for behind in edge[0].next_functions if behind[0] is not None)
    return seen, _variables(seen)


def _variables(edges: set[Edge]) -> set[int]:
    return {id(node.variable) for node, _ in edges if hasattr(node, "variable")}


__all__ = ["Seen", "shared"]
