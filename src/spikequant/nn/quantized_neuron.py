"""The quantized neuron: the law over integers, and how real values become them while training.

A neuron and the synapses that meet in it form a group with one LSB per channel,
``lsb = s * 2^-f`` (DESIGN rule 6).  `integers` gives thresholds, resets, biases and leaks
as straight-through functions of the scale; `freeze` stores its result, and nothing
computes it again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from spikequant.law.bounds import StepBounds
from spikequant.law.errors import NotFrozen, WidthError
from spikequant.law.rounding import ROUNDINGS
from spikequant.law.spec import NeuronSpec
from spikequant.nn.branch import Branch, NeuronChoice
from spikequant.nn.carrier import CarriedLayer
from spikequant.nn.chip import input_gain
from spikequant.nn.dialect import adopt
from spikequant.nn.fraction_bits import choose_fraction_bits
from spikequant.nn.group_widths import Integers
from spikequant.nn.integers import integer_params, integer_spec, on_grid
from spikequant.nn.loop import States
from spikequant.nn.membrane_levels import starting_table
from spikequant.nn.neuron import Neuron, over_features, run_neuron
from spikequant.nn.optional_buffers import take_optional
from spikequant.nn.program import ProgramCache, given_to
from spikequant.nn.synapse import Link
from spikequant.nn.untraced import untraced
from spikequant.quantizers import round_ste

DEFAULT_LIMIT = 8.0
ROUNDED = ("membrane", "current", "input")
"""Registers whose rounding `calibrate` may choose."""


class QuantizedNeuron(CarriedLayer):
    """A neuron layer over integers; takes the place of a `Neuron` and answers the same calls.

    Its input is the sum of its branches in accumulator LSBs.  Its output is spikes, or,
    for a readout, the real value of the stored membrane.

    Attributes:
        threshold_shift, bias_shift: real values per channel that `match_firing` adds to the compared threshold and
            to the bias; None where it did not.
    """

    v_limit: Tensor
    i_limit: Tensor
    v_levels: Tensor | None
    v_cuts: Tensor | None
    threshold_shift: Tensor | None
    bias_shift: Tensor | None

    def __init__(self, source: Neuron, choice: NeuronChoice, *, seed: int = 0) -> None:
        super().__init__(
            source.sources,
            step_mode=source.step_mode,
            surrogate=source.surrogate,
            detach_reset=source.detach_reset,
            spike_unit=source.spike_unit,
            carries=source.carries,
        )
        self.real_spec, self.choice, self.seed = source.spec, choice, seed
        for name, parameter in source.named_parameters(recurse=False):
            setattr(self, name, parameter)
        for name, buffer in source.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        for state in ("v_limit", "i_limit", "x_limit"):
            self.register_buffer(state, torch.ones(()))
        for table in ("v_levels", "v_cuts"):
            start = starting_table(choice.membrane.bits, choice.membrane.table) if choice.membrane.learned else {}
            self.register_buffer(table, start.get(table))
        for shift in ("threshold_shift", "bias_shift"):
            self.register_buffer(shift, None)
        self.peaks: dict[str, Tensor] = {}
        self.ended: frozenset[str] = frozenset()
        self.seen = [torch.zeros(1)]
        self.branches: list[Branch] = []
        self.fraction_bits, self.layer, self.first_sample, self.path = 0, 0, 0, "a neuron layer"
        self.last_axis = False
        self.spec: NeuronSpec | None = None
        self.units: States = {}
        if source.dialect is not None and source.foreign_class is not None:
            adopt(self, source.foreign_class, source.dialect)
            self.told = source.told
            self.__dict__.update(source.told)

    @property
    def neuron_spec(self) -> NeuronSpec:
        """What the neuron was over real numbers."""
        return self.real_spec

    # -- real values -------------------------------------------------------------------

    def value(self, name: str) -> Tensor:
        """A real value in float64, on the grid of its role if the plan gives it one."""
        return self._on_its_grid(name, self.real_value(name))

    def compared_threshold(self) -> Tensor:
        """The threshold that decides firing, float64; a soft reset still takes away the neuron's own."""
        shift = 0.0 if self.threshold_shift is None else self.threshold_shift
        return self._on_its_grid("threshold", self.real_value("threshold") + shift)

    def _on_its_grid(self, name: str, value: Tensor) -> Tensor:
        quantizer = {"threshold": self.choice.threshold, "leak": self.choice.leak, "leak_i": self.choice.leak}.get(name)
        if quantizer is not None:
            value = on_grid(quantizer, value)
        return value.to(torch.float64)

    def gained(self, value: Tensor) -> Tensor:
        """A value of the synapses as the membrane sees it: times the input gain (DESIGN rule 9)."""
        value = value * input_gain(self)
        return value * self.value("gain").to(value) if "gain" in self.sources else value

    def scale(self) -> Tensor:
        """Real value of one unit of the first branch's sum, ``[C]``, float64."""
        return self.branches[0].scale()

    def gain_of(self, branch: Branch) -> Tensor:
        """Signed accumulator LSBs in one unit of a branch's sum, ``[C]``, float64."""
        sign = branch.norm.sign().to(torch.float64) if branch.norm is not None else torch.ones(1, dtype=torch.float64)
        if branch is self.branches[0] or branch.shared:
            return sign * 2.0**self.fraction_bits
        ratio = branch.scale() / self.scale() * 2.0**self.fraction_bits
        return sign.to(ratio) * round_ste(ratio, "half_even")

    def real_bias(self) -> Tensor | None:
        """The sum of what all branches bring, quantized if the plan says so."""
        parts = [bias for bias in (branch.bias() for branch in self.branches) if bias is not None]
        parts += [] if self.bias_shift is None else [self.bias_shift.to(torch.float64)]
        if not parts:
            return None
        total = torch.stack([part.expand_as(self.scale()) for part in parts]).sum(0)
        return total if self.choice.bias is None else on_grid(self.choice.bias, total)

    # -- building the group ------------------------------------------------------------

    def add_branch(self, branch: Branch) -> None:
        """Link a synapse (and its batch norm) to this neuron."""
        self.branches.append(branch)
        branch.synapse.link = Link(branch)
        if branch.norm is not None:
            branch.norm.branch.append(branch)

    def share_scales(self) -> list[str]:
        """Give all synapses of the group one scale per channel, where their units allow it (rule 6)."""
        synapses = [branch.synapse for branch in self.branches]
        if len(synapses) < 2:
            return []
        kinds = {(b.real_unit(), b.synapse.weight_scale.shape, b.synapse.quantizer) for b in self.branches}
        alike = len(kinds) == 1 and not synapses[0].state_names  # a state belongs to the scale that it was started for
        if not alike or any(branch.norm is not None for branch in self.branches):
            return ["several scales meet in one neuron: its other inputs are rescaled by a rounded integer gain"]
        joint = self.branches[0].joint_scale()
        for branch in self.branches:
            branch.shared = True
            if isinstance(branch.synapse.weight_scale, nn.Parameter):
                branch.synapse.weight_scale = synapses[0].weight_scale
        for synapse in synapses:
            with torch.no_grad():
                synapse.weight_scale.copy_(joint)
        return []

    def default_limit(self) -> float:
        """The threshold, or a round number for a neuron without one."""
        threshold = self.largest_threshold()
        return threshold if threshold > 0 else DEFAULT_LIMIT

    def largest_threshold(self) -> float:
        """The threshold in real units; 0 for a neuron without one."""
        return float(self.real_value("threshold").detach().abs().max()) if "threshold" in self.sources else 0.0

    def set_limits(self) -> None:
        """Real reach of the registers before calibration: the threshold, or what the plan says."""
        default = self.default_limit()
        registers = (("v", self.choice.membrane), ("i", self.choice.current), ("x", self.choice.input))
        for state, register in registers:
            if register is not None:
                limit = register.limit if register.limit is not None else default
                getattr(self, f"{state}_limit").fill_(limit if register.asked else 0.0)

    @torch.no_grad()
    def set_given_limits(self) -> None:
        """Real reach of registers whose codes have a given worth: a chip counts LSBs, a shared scale weight codes."""
        found = self.integers()
        for state, choice in (("v", self.choice.membrane), ("i", self.choice.current), ("x", self.choice.input)):
            register = getattr(found.spec, state)
            if register is not None and choice is not None and (self.choice.counts_lsb or choice.unit == "weight"):
                worth = float((found.lsb * found.params[f"{state}_load"]).min())
                getattr(self, f"{state}_limit").fill_(worth * register.format.max)

    @torch.no_grad()
    def set_levels(self, levels: Tensor, cuts: Tensor) -> None:
        """Place the levels of a learned membrane: ascending, one of them 0, and their cuts, in real units."""
        assert self.v_levels is not None
        assert self.v_cuts is not None
        reach = float(levels.abs().max())
        self.v_limit.fill_(reach)
        self.v_levels.copy_(levels / reach)
        self.v_cuts.copy_(cuts / reach)

    def choose_fraction_bits(self, asked: int | None, where: str) -> list[str]:
        """Fraction bits of the accumulator; returns what a person should know of them."""
        return choose_fraction_bits(self, asked, where)

    # -- integers ----------------------------------------------------------------------

    def integers(self) -> Integers:
        """Spec, integer parameters and LSB; stored ones once frozen, straight-through ones before."""
        if self.is_frozen:
            return self._stored()
        lsb = self.scale() * 2.0**-self.fraction_bits
        spec = integer_spec(self)
        params = integer_params(self, spec, lsb)
        return Integers(spec, params, lsb, [self.gain_of(branch) for branch in self.branches])

    # -- freezing ----------------------------------------------------------------------

    @property
    def is_frozen(self) -> bool:
        """Whether the integers are stored."""
        return self.spec is not None

    def freeze(self) -> StepBounds:
        """Store the integers for good; returns the proven widths."""
        with torch.no_grad():
            found = self.integers()
        lost = [
            (gain == 0) & ~branch.constant_channels() for branch, gain in zip(self.branches, found.gains, strict=True)
        ]
        if any(bool(channels.any()) for channels in lost):
            raise WidthError(
                f"{self.path}: one input is so much finer than another that its integer gain is 0; "
                "use more fraction bits, or weights of similar width on all paths"
            )
        bounds = self.prove(found, reach=True)
        for name, value in found.params.items():
            self.register_buffer(f"int_{name}", value.detach().to(torch.int64))
        for k, gain in enumerate(found.gains):
            self.register_buffer(f"int_gain_{k}", gain.detach().to(torch.int64))
        self.register_buffer("lsb", found.lsb.detach())
        self.spec = found.spec
        return bounds

    def _stored(self) -> Integers:
        assert self.spec is not None
        params = {k[4:]: v for k, v in self.named_buffers(recurse=False) if k.startswith("int_") and "gain" not in k}
        gains = [getattr(self, f"int_gain_{k}") for k in range(len(self.branches))]
        return Integers(self.spec, {k: v.to(torch.float64) for k, v in params.items()}, self.get_buffer("lsb"), gains)

    def frozen_integers(self) -> Integers:
        """The stored integers.

        Raises:
            NotFrozen: they can still move.
        """
        if not self.is_frozen:
            raise NotFrozen("the thresholds of this neuron layer can still move; call spikequant.freeze(model) first")
        return self._stored()

    # -- running -----------------------------------------------------------------------

    @untraced
    def advance(self, x: Tensor) -> Tensor:
        """Spikes, or the real membrane of a readout, for integer input sums."""
        program, x, noise = given_to(self, x)
        output = run_neuron(self, program.ops, program.spec, program.params, x, bias=program.bias, noise=noise)
        self.units = program.units
        if program.spec.output == "state":
            output = output * self.units["v"]
        elif self.spike_unit != 1.0:
            output = output * self.spike_unit
        return output.to(torch.float32)

    def in_real_units(self, states: States) -> States:
        """Stored codes as real numbers."""
        return {n: (c * self.units[n] if n in self.units else c).to(torch.float32) for n, c in states.items()}

    def stored(self, states: States) -> States:
        """Real states as codes, rounded half to even."""
        found, kept = self.integers(), {}
        for name in (n for n in ("v", "i") if f"{n}_load" in found.params):
            unit, fmt = found.params[f"{name}_load"] * found.lsb, getattr(found.spec, name).format
            unit = over_features(unit, states[name].dim() - 1, last=self.last_axis)
            codes = round_ste(states[name] / unit, "half_even").clamp(fmt.min, fmt.max)
            kept[name] = codes.to(torch.float64 if self.needs_double else torch.float32)
        return kept

    @torch.no_grad()
    def real_peaks(self, states: list[States], name: str) -> Tensor:
        """Largest stored membrane (``v``) or current (``i``) of each neuron over steps and samples, in real units."""
        found = self.integers()
        features = states[0][name].dim() - 1
        unit = over_features(found.params[f"{name}_load"] * found.lsb, features, last=self.last_axis)
        peaks = torch.stack([(s[name].to(torch.float64) * unit).abs().amax(0) for s in states])
        return peaks.amax(0).reshape(-1)

    @torch.no_grad()
    def meets_the_end(self, states: list[States], name: str) -> bool:
        """Whether a stored membrane (``v``) or current (``i``) is the largest or smallest code of its register."""
        fmt = getattr(self.integers().spec, name).format
        return any(float(s[name].max()) >= fmt.max or float(s[name].min()) <= fmt.min for s in states)

    def train(self, mode: bool = True) -> QuantizedNeuron:
        """Set the mode; the float type that carries the integers is proven anew, before it is needed next."""
        super().train(mode)
        self.programs.clear()
        if self.branches and not self.is_frozen:
            self.prove_later(at_once=any(branch.norm is not None for branch in self.branches))
        return self

    def extra_repr(self) -> str:
        """Membrane width and state, for printing."""
        m = self.choice.membrane
        kind = "" if m.signed else "unsigned "
        return f"{' > '.join(self.real_spec.order)}, membrane {m.bits} {kind}bits{', frozen' if self.is_frozen else ''}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        take_optional(self, ("threshold_shift", "bias_shift"), state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def get_extra_state(self) -> Tensor:
        """What `quantize_` and `calibrate` chose besides the tensors: fraction bits, and how each register rounds."""
        found = [getattr(self.choice, name) for name in ROUNDED]
        return torch.tensor([self.fraction_bits, *(-1 if r is None else ROUNDINGS.index(r.rounding) for r in found)])

    def set_extra_state(self, state: Tensor) -> None:
        """Take over what another model of the same plan was given; older states tell of the membrane alone."""
        self.fraction_bits, *roundings = (int(number) for number in state)
        for name, at in zip(ROUNDED, roundings, strict=False):
            register = getattr(self.choice, name)
            if register is not None and at >= 0:
                self.choice = replace(self.choice, **{name: replace(register, rounding=ROUNDINGS[at])})

    def __getstate__(self) -> dict[str, Any]:
        """Copies start from rest."""
        return {**super().__getstate__(), "units": {}, "seen": [], "programs": ProgramCache()}
