"""Training by several processes (``torchrun``): every batch is divided among them, gradients are summed.

Each process runs its share of every batch and the mean loss is that of the whole batch, so a training by several
processes takes the steps of one process up to the rounding of sums.  Batch norm measures the share of each process, as
torch's DistributedDataParallel does; its statistics are averaged at the end of every epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data.distributed import DistributedSampler

from spikequant.law.errors import DataError
from spikequant.training.evaluate import Batches, evaluate, pairs


@dataclass(frozen=True)
class Share:
    """A part of a batch.

    Attributes:
        x, y: its samples, maybe none.
        first: number of the first one in the batch.
        part: its share of the loss of all processes.
    """

    x: Tensor
    y: Tensor
    first: int = 0
    part: float = 1.0


@dataclass(frozen=True)
class Processes:
    """This process among `size`; one alone does nothing of what follows.

    >>> Processes(0, 1).writes
    True
    """

    rank: int
    size: int

    @staticmethod
    def current() -> Processes:
        """The group that torch.distributed was initialised with, or one process alone."""
        if dist.is_available() and dist.is_initialized():
            return Processes(dist.get_rank(), dist.get_world_size())
        return Processes(0, 1)

    @property
    def device(self) -> torch.device:
        """Where tensors that processes exchange must lie."""
        return torch.device("cuda" if self.size > 1 and dist.get_backend() == "nccl" else "cpu")

    @property
    def writes(self) -> bool:
        """Whether this process writes files: the first one does."""
        return self.rank == 0

    def share(self, x: Tensor, y: Tensor, batches: Batches) -> Share:
        """What of a batch this process computes; all of it where a DistributedSampler has divided the data.

        Raises:
            DataError: the processes were given different batches, or which axis counts samples cannot be told.
        """
        if self.size == 1:
            return Share(x, y)
        if isinstance(getattr(batches, "sampler", None), DistributedSampler):
            counts = self._gathered(torch.tensor([float(len(y))], dtype=torch.float64, device=x.device))
            return Share(x, y, 0, len(y) / max(float(sum(c.sum() for c in counts)), 1.0))
        facts = torch.tensor([len(y), float(y.double().sum()), float(x.double().sum())], dtype=torch.float64)
        seen = self._gathered(facts.to(x.device))
        if any(not torch.equal(other, seen[0]) for other in seen):
            raise DataError(
                "fit: the processes were given different batches; expected the same order everywhere (seed= and "
                "set_epoch, as spikequant.data has), or a DataLoader with a DistributedSampler"
            )
        first, last = (len(y) * k // self.size for k in (self.rank, self.rank + 1))
        axis = _sample_axis(x, y, batches)
        return Share(x.narrow(axis, first, last - first), y[first:last], first, (last - first) / len(y))

    def sum_(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Sequence[Tensor]) -> None:
        """Every gradient becomes the sum over all processes; one that no process has stays absent."""
        if self.size == 1:
            return
        present = torch.tensor([0.0 if p.grad is None else 1.0 for p in parameters], device=parameters[0].device)
        moved = [p for p, count in zip(parameters, self.sum_(present).tolist(), strict=True) if count > 0]
        for kind in {(p.dtype, p.device) for p in moved}:
            mine = [p for p in moved if (p.dtype, p.device) == kind]
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in mine])
            pieces = torch.split(self.sum_(flat), [p.numel() for p in mine])
            for p, piece in zip(mine, pieces, strict=True):
                p.grad = piece.view_as(p).clone()

    @torch.no_grad()
    def start_alike(self, model: nn.Module) -> None:
        """Weights and buffers of the first process for all."""
        if self.size > 1:
            for value in model.state_dict().values():
                if isinstance(value, Tensor):
                    dist.broadcast(value, 0)

    @torch.no_grad()
    def average_buffers(self, model: nn.Module) -> None:
        """What every process measured on its share (batch norm) becomes the mean; equal values stay as they are."""
        if self.size > 1:
            for buffer in model.buffers():
                if buffer.is_floating_point():
                    own = buffer.detach().clone()
                    first = own.clone()
                    dist.broadcast(first, 0)
                    mean = first + self.sum_(own - first) / self.size
                    buffer.copy_(mean)

    def gathered_bytes(self, values: Tensor) -> list[Tensor]:
        """A tensor of bytes of every process, in the order of their ranks."""
        return [values] if self.size == 1 else self._gathered(values)

    def same_object(self, given: Any) -> Any:
        """What the first process holds, for all."""
        if self.size == 1:
            return given
        box = [given]
        dist.broadcast_object_list(box, 0)
        return box[0]

    def accuracy(self, model: nn.Module, batches: Batches) -> float:
        """As `evaluate`, each process scoring its share of every batch."""
        if self.size == 1:
            return evaluate(model, batches).accuracy
        mine = _Shares(self, batches)
        right = torch.zeros(2, dtype=torch.float64)
        try:
            found = evaluate(model, mine)
            right += torch.tensor([float((found.predictions == found.targets).sum()), float(found.samples)])
        except DataError:
            if mine.samples:
                raise
        total = self.sum_(right.to(self.device))
        if float(total[1]) == 0:
            raise DataError("evaluate: the loader gave no batch; expected at least one (input, target)")
        return float(total[0] / total[1])

    def _gathered(self, values: Tensor) -> list[Tensor]:
        found = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(found, values.contiguous())
        return found


ALONE = Processes(0, 1)
"""One process, with which nothing is exchanged."""


class _Shares:
    """The share of one process of all batches, as often as they are asked for."""

    def __init__(self, processes: Processes, batches: Batches) -> None:
        self.processes, self.batches, self.samples = processes, batches, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.samples = 0
        first, size = self.processes.rank, self.processes.size
        for x, y in pairs(self.batches):
            start, end = (len(y) * k // size for k in (first, first + 1))
            if end > start:
                self.samples += end - start
                yield x.narrow(_sample_axis(x, y, self.batches), start, end - start), y[start:end]


def _sample_axis(x: Tensor, y: Tensor, batches: Iterable[Any]) -> int:
    """The axis of `x` that counts samples."""
    said = getattr(batches, "batch_axis", None)
    if isinstance(said, int):
        return said
    axes = [axis for axis in (0, 1) if x.dim() > axis and x.shape[axis] == len(y)]
    if len(axes) != 1:
        raise DataError(
            f"fit: which axis of an input {tuple(x.shape)} counts its {len(y)} samples cannot be told; give the "
            "batches an attribute batch_axis, or another batch size"
        )
    return axes[0]


__all__ = ["ALONE", "Processes", "Share"]
