"""`quantize_`: put quantized layers in the place of real ones, and say what was done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from spikequant.capture import capture, check_arguments
from spikequant.frontends import read_or_undo
from spikequant.law.errors import DataError, PlanError, Unsupported
from spikequant.law.formats import IntArray, IntFormat
from spikequant.nn import (
    Branch,
    FoldedNorm,
    Neuron,
    Normalize,
    QuantizedNeuron,
    Synapse,
)
from spikequant.nn.hooks import move_hooks_
from spikequant.nn.max_pool import SpikeMaxPool2d
from spikequant.plan import InputRole, LayerPlan, Plan
from spikequant.quantize.chips import Chip, named_target
from spikequant.quantize.choices import check_plan, kept_grid, neuron_choice, weight_grid
from spikequant.quantize.finite import check_tensor
from spikequant.quantize.groups import NORMALIZING, Path, Structure, gives_membrane, module_of, structure
from spikequant.quantize.order_free_bits import weight_bits
from spikequant.quantize.rehearsal import rehearse
from spikequant.quantize.report import QuantizedRow, QuantizeReport
from spikequant.quantize.rows import neuron_rows, skipped_rows, sqnr_db, synapse_row, threshold_notes
from spikequant.quantizers import Quantizer, Uniform

WIDE_WEIGHT_BITS = 16
INPUT_BITS = 8
LEAST_FRACTION_BITS = 4


@dataclass
class _Dresser:
    """One call of `quantize_`."""

    model: nn.Module
    plan: Plan
    found: Structure
    chip: Chip
    rows: list[QuantizedRow] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    spikes: dict[str, IntArray] = field(default_factory=dict)
    """Most spikes of each neuron in a step, where the target asks for them."""

    def asked(self, node_name: str) -> LayerPlan:
        """What the plan says of a layer."""
        return self.plan.layer(self.found.graph.node(node_name).path)

    def layer(self, node_name: str) -> LayerPlan:
        """The same, with what the target adds."""
        return self.chip.layer(self.asked(node_name), module_of(self.found.graph.node(node_name), self.model))


def quantize_(
    model: nn.Module, plan: Plan, example_input: Tensor, *, target: str | None = None, quiet: bool = False
) -> QuantizeReport:
    """Quantize `model` in place by `plan`; returns (and prints) what was done to every module.

    Weighted layers become `Synapse`, neurons `QuantizedNeuron`, batch norms `FoldedNorm`;
    parameters keep their names and objects.  In a group of layers and neurons of which
    the plan asks only a part, the rest is kept wide (16-bit weights, 20-bit states), which
    the report says.  A plan without any role leaves the model as it is.

    Args:
        model: any torch module with `spikequant.nn` neurons.
        plan: see `Plan`.
        example_input: a batch of at least 2 samples, as `model` takes it.
        target: name of a hardware profile (`spikequant.targets`), instead of ``plan.target``.  It chooses the form and
            the widths of every neuron, and the widths that the plan leaves open; every layer is quantized.
        quiet: do not print the report; a layer that the plan asks for and that stays real is still warned of.

    Raises:
        PlanError: a rule or a role of the plan applies to nothing.
        DataError: weights or example are NaN or infinite.
        CaptureError, Unsupported: the network has no integer form, or none that the target can do; the message says
            where, and for a target lists everything at once.
    """
    check_arguments(model, example_input)
    check_finite(model, example_input)
    if not isinstance(plan, Plan):
        raise PlanError(f"expected a Plan, got {type(plan).__name__}; Plan.load(file), Plan.uniform(...) make one")
    if any(isinstance(m, (Synapse, QuantizedNeuron)) for m in model.modules()):
        raise Unsupported(
            "this model is quantized already; start again from the real one (for example a deep copy of it)"
        )
    chip = Chip(named_target(plan, target))
    with read_or_undo(model) as readings:
        graph = capture(model, example_input)
        check_plan(plan, graph, model)
        chip.refuse(graph, model, plan)
        with chip.restated(graph, model), _whole_or_not_at_all(model):
            work = _Dresser(model, plan, structure(graph, model, example_input), chip)
            report = _dress(work, example_input)
    if not report.quantized:
        readings.undo()
    report.tell(quiet=quiet)
    return report


def _dress(work: _Dresser, example_input: Tensor) -> QuantizeReport:
    for neuron, paths in work.found.paths.items():
        _dress_group(work, neuron, paths, example_input)
    for name in work.found.readouts:
        _dress_readout(work, name, example_input)
    work.rows += skipped_rows(work.model, work.found.graph, {row.module for row in work.rows}, work.plan)
    if not work.chip.is_free:
        work.notes.append(rehearse(work.model, example_input, work.chip.target))
    report = QuantizeReport(tuple(work.rows), tuple(work.notes))
    if not report.quantized and any(rule.asked() for rule in work.plan.rules):
        raise PlanError("the plan quantized nothing; its roles apply to no layer of this model")
    pools = [(p, m) for p, m in work.model.named_modules() if p and type(m) is nn.MaxPool2d and report.quantized]
    for path, module in pools:  # the same values and gradients in compiled passes
        replace_module(work.model, path, SpikeMaxPool2d(module))
    return report


@contextmanager
def _whole_or_not_at_all(model: nn.Module) -> Iterator[None]:
    """Put every module back in its place if the block raises."""
    before = dict(model.named_modules())
    try:
        yield
    except BaseException:
        for path, module in before.items():
            if path and model.get_submodule(path) is not module:
                parent, _, name = path.rpartition(".")
                setattr(model.get_submodule(parent), name, module)
            if isinstance(module, Normalize):
                module.folded = False
        raise


def check_finite(model: nn.Module, example_input: Tensor) -> None:
    """Raise `DataError` on NaN or infinite weights or data."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers(), ("example_input", example_input)):
        check_tensor(name, tensor)
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise DataError(
                f"{name} is {parameter.dtype}; spikequant quantizes float32 models, call model.float() first"
            )


def _dress_group(work: _Dresser, neuron: str, paths: tuple[Path, ...], example: Tensor) -> None:
    graph, model = work.found.graph, work.model
    source = module_of(graph.node(neuron), model)
    asked = [work.layer(neuron).asked(), *(work.layer(p.synapse).asked() for p in paths)]
    given = [weight_grid(module_of(graph.node(path.synapse), model)) for path in paths]
    if not any(asked) and not any(given):
        return
    assert isinstance(source, Neuron)
    per_channel_values = [name for name in source.value_names if source.real_value(name).numel() > 1]
    if per_channel_values and len(graph.node(neuron).shape) > 1 and _is_linear(work, paths):
        raise Unsupported(
            f"{graph.node(neuron).path}: {per_channel_values[0]} has one value per channel, but a linear layer has its "
            f"channels on the last of the axes {graph.node(neuron).shape}; give the neuron one value for all"
        )
    per_tensor = gives_membrane(graph.node(neuron), graph, model)
    if per_tensor and any(path.norm is not None for path in paths):
        raise Unsupported(
            f"{graph.node(neuron).path}: batch norm in front of a readout gives every channel a scale of its own, "
            "and a readout across channels needs one; fold it into the layer's weights first"
        )
    bits = _order_free_bits(work, neuron, source, paths)
    synapses = [_dress_synapse(work, p.synapse, example, per_channel=not per_tensor, bits=bits) for p in paths]
    bias = next((work.layer(p.synapse).bias for p in paths if work.layer(p.synapse).bias is not None), None)
    choice = neuron_choice(work.layer(neuron), source, bias, graph.node(neuron).path, work.chip.rule(source.spec))
    quantized = QuantizedNeuron(source, choice, seed=work.plan.seed)
    quantized.layer = list(work.found.paths).index(neuron)
    quantized.path = graph.node(neuron).path
    quantized.last_axis = synapses[0].kind == "linear"
    several = len(paths) > 1
    for path, synapse in zip(paths, synapses, strict=True):
        norm = _dress_norm(work, path.norm, several=several)
        branch = Branch(synapse, norm, quantized, pool_unit=float(path.pool_unit))
        quantized.add_branch(branch)
    work.notes += [f"{graph.node(neuron).path}: {note}" for note in quantized.share_scales()]
    quantized.set_limits()
    work.notes += quantized.choose_fraction_bits(work.plan.fraction_bits, graph.node(neuron).path)
    quantized.set_given_limits()
    work.notes += threshold_notes(graph.node(neuron).path, quantized)
    replace_module(model, graph.node(neuron).path, quantized)
    work.rows += neuron_rows(graph.node(neuron).path, quantized)


def _only_reshaped(work: _Dresser, name: str) -> bool:
    """Whether a value is the network's input, at most reshaped."""
    node = work.found.graph.node(name)
    while node.kind == "reshape":
        node = work.found.graph.node(node.inputs[0].source)
    return node.kind == "input"


def _is_linear(work: _Dresser, paths: tuple[Path, ...]) -> bool:
    return isinstance(module_of(work.found.graph.node(paths[0].synapse), work.model), nn.Linear)


def _order_free_bits(work: _Dresser, neuron: str, source: Neuron, paths: tuple[Path, ...]) -> int | None:
    """Weight bits of a group on a target that saturates at every event; None on every other."""
    state_bits = work.chip.target.each_event_saturates
    if state_bits is None:
        return None
    weights = []
    for path in paths:
        node = work.found.graph.node(path.synapse)
        layer, reads = module_of(node, work.model), node.inputs[0].source
        most = work.spikes.get(reads, np.array([work.found.flows[reads].bound]))
        assert isinstance(layer, nn.Module) and isinstance(layer.weight, Tensor)
        weights.append((layer.weight.detach().flatten(1), np.broadcast_to(most, (layer.weight[0].numel(),))))
    role, where = work.layer(paths[0].synapse).weight, work.found.graph.node(neuron).path
    assert role is not None
    bits, work.spikes[neuron] = weight_bits(weights, source, role, state_bits=state_bits, where=where)
    return bits


def _dress_synapse(
    work: _Dresser, name: str, example: Tensor, *, per_channel: bool, bits: int | None = None
) -> Synapse:
    node = work.found.graph.node(name)
    source, plan, asked = module_of(node, work.model), work.layer(name), work.asked(name).weight
    role = plan.weight
    if role is not None and bits is not None and (asked is None or asked.bits is None):
        role = role.model_copy(update={"bits": bits})
    assert source is not None
    _check_weight(node.path, source)
    quantizer: Quantizer = Uniform(WIDE_WEIGHT_BITS) if role is None else role.build(f"{node.path}.weight")
    grid, by_channel = weight_grid(source), per_channel and (role is None or role.per_channel)
    if grid is not None:
        quantizer, by_channel = kept_grid(
            node.path, grid, quantizer if role is not None else None, per_channel=per_channel
        )
        work.notes.append(f"{node.path}: keeps the {quantizer.bits}-bit weights that {grid.library} made")
    synapse = Synapse(source, quantizer, per_channel=by_channel)
    if plan.bias is not None:
        if source.bias is None and work.plan.rules and not _has_norm(work, name):
            work.notes.append(f"{node.path}: the plan asks for a bias quantizer, but the layer has no bias")
        synapse.bias_quantizer = plan.bias.build(f"{node.path}.bias")
    flow = work.found.flows[node.inputs[0].source]
    synapse.unit, synapse.input_bound = float(flow.unit), flow.bound
    synapse.checks_input = flow.domain == "spikes" and _only_reshaped(work, node.inputs[0].source)
    if flow.domain == "analog":
        _dress_input(work, synapse, plan, example)
    elif plan.input is not None and work.found.graph.node(node.inputs[0].source).kind == "input":
        work.notes.append(f"{node.path}: the input is whole numbers already; its bits are counted, nothing is rounded")
    if synapse.input_std is not None:  # the fit of the constructor did not know the folded weights
        synapse.refit()
    replace_module(work.model, node.path, synapse)
    if synapse._forward_hooks:
        work.notes.append(f"{node.path}: its forward hooks stay; what they see is now whole numbers in units of an LSB")
    work.rows.append(synapse_row(node.path, synapse, asked=role is not None or grid is not None))
    return synapse


def _check_weight(path: str, source: nn.Module) -> None:
    """Refuse a weight that is no parameter: what computes it would be lost."""
    if "weight" not in source._parameters:
        raise Unsupported(
            f"{path}: its weight is computed of other tensors (pruning, weight_norm, spectral_norm, parametrize); make "
            "it permanent first, with torch.nn.utils.prune.remove, remove_weight_norm, or "
            "torch.nn.utils.parametrize.remove_parametrizations"
        )


def _has_norm(work: _Dresser, synapse: str) -> bool:
    return any(p.norm is not None for paths in work.found.paths.values() for p in paths if p.synapse == synapse)


def _dress_input(work: _Dresser, synapse: Synapse, plan: LayerPlan, example: Tensor) -> None:
    """DESIGN rule 9: one scale for the input; normalization folds."""
    role = plan.input or InputRole(bits=INPUT_BITS)
    signed = role.signed and bool((example < 0).any())
    synapse.input_format = IntFormat(bits=role.bits, signed=signed, narrow=signed)
    synapse.input_bound = synapse.input_format.max
    limit = role.limit if role.limit is not None else float(example.abs().max())
    synapse.input_limit = role.limit
    synapse.set_input_limit(limit)
    for path, module in work.model.named_modules():
        if isinstance(module, Normalize):
            if synapse.kind == "linear" and module.mean.numel() != synapse.weight.shape[1]:
                raise Unsupported(
                    f"{path}: Normalize has {module.mean.numel()} channels, the first layer {synapse.weight.shape[1]}"
                )
            if synapse.groups != 1:
                raise Unsupported(
                    f"{path}: Normalize in front of a grouped convolution does not fold; normalize the data instead"
                )
            synapse.input_mean, synapse.input_std = module.mean, module.std
            module.folded = True
    work.rows.append(
        QuantizedRow(module="(input)", kind="input", role="input", quantizer="uniform", bits=role.bits,
                     low=-limit if signed else 0.0, high=limit, note="" if plan.input else "not asked: 8 bits")
    )  # fmt: skip


def _dress_norm(work: _Dresser, name: str | None, *, several: bool) -> FoldedNorm | None:
    if name is None:
        return None
    node = work.found.graph.node(name)
    source = module_of(node, work.model)
    assert isinstance(source, NORMALIZING)
    norm = FoldedNorm(source)
    if several:
        norm.statistics = "running"
        work.notes.append(
            f"{node.path}: several paths meet in one neuron, so running statistics form its thresholds in training"
        )
    constant = int(norm.constant_channels().sum())
    if constant:
        work.notes.append(f"{node.path}: gamma is (nearly) 0 in {constant} channels; their neurons see a constant")
    replace_module(work.model, node.path, norm)
    work.rows.append(
        QuantizedRow(module=node.path, kind="BatchNorm", role="fold", quantizer="-", note="folded into thresholds")
    )
    return norm


def _dress_readout(work: _Dresser, name: str, example: Tensor) -> None:
    """A last layer without a neuron: its currents are summed exactly; one scale for all classes (rule 7)."""
    if not work.layer(name).asked() and weight_grid(module_of(work.found.graph.node(name), work.model)) is None:
        return
    synapse = _dress_synapse(work, name, example, per_channel=False)
    synapse.readout_bits = LEAST_FRACTION_BITS if work.plan.fraction_bits is None else work.plan.fraction_bits


def replace_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Put `module` at `path`, in the training mode and with the hooks of what stood there."""
    parent_path, _, name = path.rpartition(".")
    parent = model.get_submodule(parent_path)
    replaced = getattr(parent, name)
    module.train(replaced.training)
    move_hooks_(replaced, module)
    setattr(parent, name, module)


__all__ = ["check_finite", "quantize_", "replace_module", "sqnr_db"]
