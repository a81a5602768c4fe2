"""What an exploration works on, from a model and its batches; and what its results belong to."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from torch import Tensor, nn

from spikequant.capture import capture
from spikequant.explore.build import Materials
from spikequant.explore.direct import DirectEvaluator
from spikequant.explore.evaluator import SharedEvaluator
from spikequant.explore.records import Evaluator, Measured
from spikequant.frontends import read_
from spikequant.law.errors import CaptureError, Unsupported
from spikequant.nn import Neuron
from spikequant.nn.copying import copied
from spikequant.training import Batch, Loss, at_first_epoch, divided

EXAMPLES = 32
"""Samples of the input that graphs are captured on, at most."""


def materials_of(
    model: nn.Module,
    batches: Iterable[Batch],
    validation: Iterable[Batch] | None,
    example_input: Tensor | None,
    *,
    lr: float,
    loss: Loss,
    seed: int,
) -> tuple[Materials, Iterable[Batch]]:
    """What candidates are built from, and the batches that decide.

    Raises:
        DataError: no batch, or too few samples to hold any out.
    """
    model = copied(model).eval()

    def axis_of(first: Tensor) -> int:
        """Which axis of an input counts the samples, off the captured graph."""
        readable = copied(model)
        read_(readable)
        return 1 if capture(readable, first).input_layout == "time_first" else 0

    data = divided(batches, validation, axis_of=axis_of, seed=seed, who="explore")
    example = example_input
    if example is None:
        first = next(iter(at_first_epoch(data.learn)))[0]
        axis = axis_of(first)
        example = first.narrow(axis, 0, min(EXAMPLES, first.shape[axis]))
    return Materials(model=model, learn=data.learn, example=example, seed=seed, lr=lr, loss=loss), data.decide


@dataclass(frozen=True, kw_only=True)
class EvaluatorSpec:
    """What an evaluator is made of; it travels to other machines, where evaluators are made of it.

    Attributes:
        materials: what candidates are built from.
        decide: the batches to measure on.
        target_accuracy: candidates that will not keep it are given up early; None: none is.
    """

    materials: Materials
    decide: tuple[Batch, ...]
    target_accuracy: float | None = None

    def real(self) -> Measured:
        """Figures of the real network."""
        return DirectEvaluator(self.materials, self.decide).reference

    def build(self) -> Evaluator:
        """The evaluator: candidates share what they can; a network that shares nothing is measured plainly."""
        try:
            return SharedEvaluator(self.materials, self.decide, target_accuracy=self.target_accuracy)
        except (CaptureError, Unsupported):
            return DirectEvaluator(self.materials, self.decide)


def belonging(materials: Materials, decide: Iterable[Batch], learnt: int | None = None) -> dict[str, str]:
    """What the results of a study are a function of besides its settings: network and data, as hashes.

    `learnt`: batches that candidates learn from (None: all of them).
    """
    network = hashlib.sha256(_structure(materials.model).encode())
    for name, tensor in materials.model.state_dict().items():
        network.update(f"{name}:{tuple(tensor.shape)}".encode() + _bytes(tensor))
    data = hashlib.sha256(_bytes(materials.example))
    for x, y in (*islice(at_first_epoch(materials.learn), learnt), *decide):
        data.update(_bytes(x) + _bytes(y))
    return {"network": network.hexdigest()[:16], "data": data.hexdigest()[:16]}


def _structure(model: nn.Module) -> str:
    """What a network is besides its tensors: layers with their settings, time steps, what its neurons do."""
    readable = copied(model)
    with contextlib.suppress(CaptureError, Unsupported):  # whoever builds candidates says so
        read_(readable)
    lines = []
    for path, module in readable.named_modules():
        steps = vars(module).get("steps")
        spec = module.spec if isinstance(module, Neuron) else None
        lines.append(f"{path} {type(module).__qualname__} {module.extra_repr()} {steps} {spec}")
    return "\n".join(lines)


def _bytes(tensor: Tensor) -> bytes:
    found: bytes = tensor.detach().cpu().contiguous().numpy().tobytes()
    return found
