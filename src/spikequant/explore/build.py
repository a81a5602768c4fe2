"""The network of a candidate: the real one changed where a plan has no say, then quantized, calibrated, trained."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikequant.capture import capture
from spikequant.explore.proposals import derived_seed
from spikequant.explore.records import Candidate, Measured
from spikequant.frontends import read_
from spikequant.law.errors import PlanError, Unsupported, WidthError
from spikequant.law.spec import Leak
from spikequant.nn import SYNAPSES, Delay, Neuron, QuantizedNeuron, Synapse, ValueSource
from spikequant.nn.copying import copied
from spikequant.quantize import QuantizeReport, calibrate, freeze, quantize_
from spikequant.training import Batch, Loss, at_first_epoch, fit

LEAKS = ("leak", "leak_unless_fired")
STEP_NAMES = ("steps", "T", "num_steps", "n_steps", "time_steps", "timesteps", "time_window", "seq_length")
"""What networks call their number of time steps: ours, SpikingJelly's `T`, snnTorch's `num_steps`, Norse's."""


class Refused(Exception):
    """There is no such network: a width that does not fit, a training that diverged."""


@dataclass(frozen=True, kw_only=True)
class Materials:
    """What every candidate is built from.

    Attributes:
        model: the trained real network; copies are worked on.
        learn: batches to calibrate and train on.
        example: an input for the capture.
        seed: of the study; a candidate's own is derived from it and its settings.
        lr, loss: of trainings.
    """

    model: nn.Module
    learn: Iterable[Batch]
    example: Tensor
    seed: int = 0
    lr: float = 1e-3
    loss: Loss = F.cross_entropy

    def seed_of(self, candidate: Candidate) -> int:
        """The seed of a candidate."""
        return derived_seed(self.seed, int(candidate.key, 16))


def built(materials: Materials, candidate: Candidate) -> tuple[nn.Module, QuantizeReport | None]:
    """The frozen network of a candidate; the random state of the caller stays as it was.

    Without a role in its plan nothing is quantized: the network stays real, the report is None.

    Raises:
        Refused: there is no such network.
        PlanError: settings that mean nothing for this network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(materials.seed_of(candidate))
        model = prepared(materials.model, candidate, materials.example)
        plan = candidate.plan()
        if not any(rule.asked() for rule in plan.rules):
            return model.eval(), None
        try:
            report = quantize_(model, plan, materials.example, quiet=True)
            if candidate.scheme != "itq":
                calibrate(model, at_first_epoch(materials.learn))
            if candidate.scheme in ("qat", "itq"):
                train(model, materials, int(candidate.settings["epochs"]))
            _freeze(model.eval())
        except (WidthError, Unsupported) as error:
            if isinstance(error, Unsupported) and plan.target is None:
                raise  # it is the network that has no integer form, not this candidate
            raise Refused(str(error)) from error
    return model, report


def _freeze(model: nn.Module) -> None:
    """`freeze`; also a network of which the weights of a readout alone are asked for, and whose neurons stay real."""
    if any(isinstance(module, QuantizedNeuron) for module in model.modules()):
        freeze(model)
        return
    for module in model.modules():
        if isinstance(module, Synapse) and not module.is_frozen:
            module.freeze()


def prepared(model: nn.Module, candidate: Candidate, example: Tensor) -> nn.Module:
    """A copy with the candidate's time steps, forms of leaks and zeros among its weights.

    Raises:
        PlanError: the network has no number of steps to set, or no leak to give another form.
    """
    result = copied(model)
    steps = candidate.settings.get("steps")
    if steps is not None:
        set_steps(result, int(steps), example)
    if any(name.endswith(":leak.form") for name in candidate.settings):
        read_(result)
        reform_leaks(result, candidate)
    sparsify(result, candidate)
    return result


def set_steps(model: nn.Module, steps: int, example: Tensor) -> None:
    """Set the number of time steps: every number called one of `STEP_NAMES` that is the number of steps now.

    Raises:
        PlanError: there is none, or the network runs another number of steps all the same.
    """
    now = _steps_of(model, example)
    owners = [
        (path, module, name)
        for path, module in model.named_modules()
        if not isinstance(module, Delay)  # its steps are how late its spikes come
        for name in STEP_NAMES
        if isinstance(vars(module).get(name), int) and vars(module)[name] == now
    ]
    if not owners:
        raise PlanError(
            f"explore: steps are asked for; the network runs {now}, and none of its modules holds that number under "
            f"one of the names {', '.join(STEP_NAMES)}; give it one that forward reads, or leave steps out of the space"
        )
    for _, module, name in owners:
        vars(module)[name] = steps
    runs = _steps_of(model, example)
    if runs != steps:
        names = ", ".join(f"{path}.{name}" if path else name for path, _, name in owners)
        raise PlanError(
            f"explore: {names} was set to {steps}, and the network runs {runs} steps all the same (its data may have "
            "the time axis, or its loop another count); let forward read the number, or leave steps out of the space"
        )


def _steps_of(model: nn.Module, example: Tensor) -> int:
    readable = copied(model)
    read_(readable)
    return capture(readable, example).steps


def reform_leaks(model: nn.Module, candidate: Candidate) -> None:
    """Give leaks the form that the candidate asks for.

    ``shift``: ``v - (v >> k)`` with the k whose ``1 - 2^-k`` is nearest to the leak on a logarithmic scale; ``none``:
    no leak at all; ``multiply``: as they are.

    Raises:
        PlanError: no layer has a leak.
    """
    leaky = {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, Neuron) and module.spec.leak.form == "multiply"
    }
    if not leaky:
        raise PlanError("explore: leak.form is asked for, and no neuron layer of the network has a leak")
    for path, module in leaky.items():
        form = candidate.of_layer(path, "leak", "form")
        if form == "shift":
            kept = [min(max(v, 0.0), 1.0 - 2.0**-16) for v in module.real_value("leak").detach().reshape(-1).tolist()]
            shifts = torch.tensor([float(max(1, round(-math.log2(1.0 - v)))) for v in kept])
            shape = module.real_value("leak").shape
            module.register_buffer("leak_shift", shifts.reshape(shape))
            module.sources = {**module.sources, "leak": ValueSource(("leak_shift",))}
            module.spec = module.spec.replace(leak=Leak(form="shift"))
        elif form == "none":
            module.sources = {name: source for name, source in module.sources.items() if name != "leak"}
            order = tuple(phase for phase in module.spec.order if phase not in LEAKS)
            module.spec = module.spec.replace(leak=Leak(), order=order)


@torch.no_grad()
def sparsify(model: nn.Module, candidate: Candidate) -> None:
    """Set the smallest weights of each layer to zero, the share that the candidate asks for."""
    for path, module in model.named_modules():
        if isinstance(module, SYNAPSES):
            own = candidate.of_layer(path, "weight", "sparsity")
            share = own if own is not None else candidate.settings.get("sparsity") or 0.0
            count = int(share * module.weight.numel())
            if count:
                order = module.weight.abs().reshape(-1).argsort(stable=True)[:count]
                module.weight.reshape(-1)[order] = 0.0


def train(model: nn.Module, materials: Materials, epochs: int) -> None:
    """Train on with Adam; weights that are 0 because of `sparsify` stay 0.

    Raises:
        Refused: the loss is no number any more.
        KeyboardInterrupt: it was interrupted.
    """
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=materials.lr)
    holes = [(m.weight, m.weight.detach() == 0) for m in model.modules() if isinstance(m, Synapse)]

    def keep_holes(*_: Any) -> None:
        with torch.no_grad():
            for weight, is_zero in holes:
                weight.masked_fill_(is_zero, 0.0)

    optimizer.register_step_post_hook(keep_holes)

    def loss(output: Tensor, target: Tensor) -> Tensor:
        value = materials.loss(output, target)
        if not bool(torch.isfinite(value)):
            raise Refused(f"the training diverged to a loss of {float(value.detach())}")
        return value

    done = fit(model, at_first_epoch(materials.learn), epochs=epochs, optimizer=optimizer, loss=loss, quiet=True)
    if done.interrupted:
        raise KeyboardInterrupt


def refusal(candidate: Candidate, why: str, seconds: float) -> Measured:
    """The record of a candidate of which there is no network."""
    nan = math.nan
    return Measured(
        accuracy=nan, samples=0, flash_bytes=nan, ram_bytes=nan, energy_pj=nan, emd=nan, dead=nan,
        stopped_early=False, seconds=seconds, scheme=candidate.scheme, refused=why,
    )  # fmt: skip
