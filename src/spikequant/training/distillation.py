"""Distillation: a quantized network learns from the answers, or the firing rates, of the float network."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikequant.frontends.registry import read_
from spikequant.law.errors import DataError
from spikequant.nn.copying import copied
from spikequant.nn.reset import reset_states
from spikequant.training.evaluate import Forward, first_output, layerwise
from spikequant.training.step import LossTerm, Step, Watched, check_number, check_weight
from spikequant.training.watch import SpikeWatch


@final
class Teacher:
    """A copy of a network, in evaluation mode, that several terms may ask about the same batch; it runs once.

    Args:
        model: the float network, as it was before `quantize_`; it may be of another library.

    Raises:
        DataError: it is no module.
    """

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise DataError(f"Teacher: expected a torch nn.Module, got {type(model).__name__}")
        self.model = copied(model)
        read_(self.model)
        self.model.eval().requires_grad_(False)
        self._run: Forward | None = None
        self._seen: tuple[Tensor, int, Tensor, dict[str, Tensor]] | None = None

    @torch.no_grad()
    def answer(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Output for `x`, and the firing rates ``[N, *features]`` of every spiking layer by path.

        Raises:
            DataError: the teacher cannot take `x`.
        """
        if self._seen is not None and self._seen[0] is x and self._seen[1] == x._version:
            return self._seen[2], self._seen[3]
        first = next(self.model.parameters(), None)
        if first is not None and first.device != x.device:
            self.model.to(x.device)
        if self._run is None:
            self._run = layerwise(self.model, [(x, x)])
        reset_states(self.model)
        try:
            with SpikeWatch(self.model) as watch:
                output = first_output(self._run(x))
                rates = {path: train.mean(0) for path, train in watch.take().items()}
        except RuntimeError as error:
            raise DataError(f"the teacher cannot take an input of shape {tuple(x.shape)}: {error}") from error
        self._seen = (x, x._version, output, rates)
        return output, rates


@final
class Distillation(LossTerm):
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))``, the mean over samples.

    Source: Hinton, Vinyals and Dean, *Distilling the knowledge in a neural network*, 2015, section 2.

    Args:
        teacher: a `Teacher`, or the network to make one of.
        temperature: ``T``, more than 0.
        weight: factor of the term.

    Raises:
        DataError: a number out of its range.
    """

    def __init__(self, teacher: Teacher | nn.Module, *, temperature: float = 2.0, weight: float = 1.0) -> None:
        self.teacher = teacher if isinstance(teacher, Teacher) else Teacher(teacher)
        self.temperature = check_number("Distillation", "temperature", temperature, low=1e-3)
        self.weight = check_weight("Distillation", weight)

    def of(self, step: Step) -> Tensor:
        """Distance of the student's answer from the teacher's."""
        wanted, _ = self.teacher.answer(step.x)
        if wanted.shape != step.output.shape:
            raise DataError(
                f"Distillation: the teacher answers {tuple(wanted.shape)}, the model {tuple(step.output.shape)}; "
                "expected the same shape"
            )
        t = self.temperature
        target = F.log_softmax(wanted / t, dim=-1)
        own = F.log_softmax(step.output / t, dim=-1)
        return t * t * F.kl_div(own, target, log_target=True, reduction="none").sum(-1).mean()


@final
class RateDistillation(LossTerm):
    """``mean over layers of mean (r - r_teacher)^2``: rates over time of every sample and neuron, layers by path.

    Args:
        teacher: a `Teacher`, or the network to make one of; layers are matched by their path.
        layers: shell pattern of the paths.
        weight: factor of the term.

    Raises:
        DataError: a number out of its range, no layer of the model is in the teacher under the same path, or one of
            another shape.
    """

    watches: frozenset[Watched] = frozenset({"spikes"})

    def __init__(self, teacher: Teacher | nn.Module, *, layers: str = "*", weight: float = 1.0) -> None:
        self.teacher = teacher if isinstance(teacher, Teacher) else Teacher(teacher)
        self.layers = layers
        self.weight = check_weight("RateDistillation", weight)

    def prepare(self, model: nn.Module) -> None:
        """Match the layers."""
        own, theirs = SpikeWatch(model).layers, SpikeWatch(self.teacher.model).layers
        if not [path for path in own if path in theirs and fnmatchcase(path, self.layers)]:
            raise DataError(
                f"RateDistillation: no spiking layer {self.layers!r} that model ({', '.join(own)}) and teacher "
                f"({', '.join(theirs)}) share by path"
            )

    def of(self, step: Step) -> Tensor:
        """Mean squared distance of the rates."""
        _, wanted = self.teacher.answer(step.x)
        parts = [
            self._distance(path, train.mean(0), wanted[path])
            for path, train in step.spikes.items()
            if path in wanted and fnmatchcase(path, self.layers)
        ]
        return torch.stack(parts).mean()

    def _distance(self, path: str, rates: Tensor, wanted: Tensor) -> Tensor:
        if rates.shape != wanted.shape:
            raise DataError(
                f"RateDistillation: {path} fires with the shape {tuple(rates.shape[1:])}, in the teacher "
                f"{tuple(wanted.shape[1:])}; expected the network from before quantize_"
            )
        return (rates - wanted).square().mean()


__all__ = ["Distillation", "RateDistillation", "Teacher"]
