"""`diagnose`: which layers fell silent, or fire much too little or too much, and why.

Nothing is guessed.  A layer that fires unlike the reference is run again with one of its
roles given back its precision (`analyse/relief.py`), the layers before it as they are.
The role whose relief ends the symptom is the cause; if the layer misbehaves with all of
its roles relieved, the cause lies in what flows into it.  The advice is a field of the
plan and a value, taken from changes that were tried (`analyse/remedies.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from spikequant.analyse.evidence import activity, evidence_for, register_cause
from spikequant.analyse.records import Comparison
from spikequant.analyse.relief import (
    Change,
    Rates,
    enough_fraction_bits,
    fine_input,
    fine_weights,
    rates_after,
    rates_of,
    real_bias,
    real_leak,
    real_threshold,
    statistics_of,
    thawed,
    together,
    wide_current,
    wide_membrane,
)
from spikequant.analyse.remedies import remedies_for
from spikequant.frontends import read_
from spikequant.law.errors import DataError
from spikequant.measure import saturated_share, silent_share
from spikequant.nn import NeuronLayer, QuantizedNeuron
from spikequant.nn.copying import copied
from spikequant.training import check_batch

Symptom = Literal["silent", "collapsed", "raised", "saturated", "thinned"]
Cause = Literal[
    "reference",  # the float layer is silent, too
    "inflow",  # the layers before it give it too little, or too much
    "training",  # its own weights do that at full width: they moved in training
    "norm",  # its batch norm does that: calibrate measured it anew, and the reference's statistics were others
    "input",  # the codes of the network's input
    "weight",
    "threshold",
    "bias",
    "leak",
    "fraction_bits",
    "current",
    "membrane_reach",  # the register ends before the threshold
    "membrane_rounding",  # what is stored is rounded to nothing, or up
    "several",
]
MOST_SAMPLES = 256
COLLAPSED, RAISED, SHARE = 0.5, 2.0, 0.25
NEAR = 0.25
"""A remedy brings the rate back to within a quarter of what full precision gives."""


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """A change of the plan that was tried and ends the symptom; ``rate`` is the layer's rate with it."""

    field: str
    value: str
    rate: float

    def __str__(self) -> str:
        return f"{self.field} = {self.value} (rate {self.rate:.4f})"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One layer with a symptom, its cause, the numbers behind it, and what would mend it.

    Attributes:
        layer: path of the neuron layer.
        symptom: ``silent`` (no spike), ``collapsed`` (under half of the reference's rate),
            ``raised`` (over twice), ``saturated`` (a quarter more of its neurons fire in nearly
            every step), ``thinned`` (a quarter more of its neurons never fire).
        rate, reference_rate: mean spikes per step and neuron.
        cause: see `Cause`.
        evidence: the numbers, in a sentence.
        remedies: changes that were tried and work, cheapest first.
    """

    layer: str
    symptom: Symptom
    rate: float
    reference_rate: float
    cause: Cause
    evidence: str
    remedies: tuple[Remedy, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "remedies": [asdict(remedy) for remedy in self.remedies]}

    def __str__(self) -> str:
        word = {"silent": "is silent", "collapsed": "fires too little", "raised": "fires too much",
                "saturated": "is saturated", "thinned": "has lost neurons"}[self.symptom]  # fmt: skip
        text = f"{self.layer} {word}: rate {self.rate:.4f}, reference {self.reference_rate:.4f}. {self.evidence}."
        if not self.remedies:
            return text
        return f"{text} Tried, and it works: {' or '.join(str(remedy) for remedy in self.remedies)}."


def diagnose(
    reference: nn.Module,
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    comparison: Comparison | None = None,
    try_remedies: bool = True,
) -> tuple[Finding, ...]:
    """Every layer whose firing went wrong, in the order of the network, with the cause.

    Args:
        reference: the network before quantization.
        model: the same network after `quantize_`, frozen or not; neither is changed.
        batches: as `compare` takes them; the first 256 samples are used.
        comparison: of the two; then only layers that show a symptom in it are looked at.
        try_remedies: False skips the search for a change that works.

    Raises:
        DataError: no batch, NaN, or networks with different layers.
    """
    inputs = _first(batches)
    real, free = _evaluated(reference), thawed(model)
    paths = [p for p, m in free.named_modules() if isinstance(m, QuantizedNeuron) and m.real_spec.output == "spike"]
    if comparison is not None:
        seen = {x.layer: symptom(x.rates, x.reference_rates) for x in comparison.layers}
        paths = [p for p in paths if seen.get(p) is not None]
    findings: list[Finding] = []
    peak = max(float(x.abs().max()) for x in inputs)
    there = {p for p, m in real.named_modules() if isinstance(m, NeuronLayer)}
    for path in paths:
        if path not in there:
            raise DataError(
                f"diagnose: the reference has no neuron layer {path!r}; expected the network before quantize_"
            )
        wanted, found = rates_of(real, path, inputs), rates_of(free, path, inputs)
        kind = symptom(found, wanted)
        if kind is None and found.any():
            continue
        case = _Case(free, real, path, inputs, peak, found, wanted, kind or "silent")
        findings.append(case.finding([f.layer for f in findings], try_remedies))
    return tuple(findings)


def symptom(rates: npt.ArrayLike, reference: npt.ArrayLike) -> Symptom | None:
    """What is wrong with the rates of a layer, beside those of the reference.

    >>> import numpy as np
    >>> symptom(np.array([0.0, 0.0]), np.array([0.2, 0.4])), symptom(np.array([0.2, 0.3]), np.array([0.2, 0.4]))
    ('silent', None)
    """
    now, then = float(np.asarray(rates).mean()), float(np.asarray(reference).mean())
    if now == 0.0:
        return "silent" if then > 0.0 else None
    if saturated_share(rates) - saturated_share(reference) >= SHARE:
        return "saturated"
    if now < COLLAPSED * then:
        return "collapsed"
    if now > RAISED * then:
        return "raised"
    return "thinned" if silent_share(rates) - silent_share(reference) >= SHARE else None


def _first(batches: Iterable[Any]) -> list[Tensor]:
    inputs, samples = [], 0
    for batch in islice(batches, MOST_SAMPLES):
        x = batch[0] if isinstance(batch, (tuple, list)) else batch
        check_batch(x)
        inputs.append(x)
        samples += len(batch[1]) if isinstance(batch, (tuple, list)) and len(batch) > 1 else len(x)
        if samples >= MOST_SAMPLES:
            break
    if not inputs:
        raise DataError("diagnose: the loader gave no batch; expected at least one (input, target)")
    return inputs


def _evaluated(model: nn.Module) -> nn.Module:
    """A copy, its neurons of other libraries read."""
    real = copied(model).eval()
    read_(real)
    return real


@dataclass(frozen=True)
class _Case:
    """One layer with a symptom, and the experiments on it."""

    free: nn.Module
    real: nn.Module
    path: str
    inputs: list[Tensor]
    peak: float
    found: Rates
    wanted: Rates
    symptom: Symptom

    @property
    def neuron(self) -> QuantizedNeuron:
        neuron = self.free.get_submodule(self.path)
        assert isinstance(neuron, QuantizedNeuron)
        return neuron

    def finding(self, sick_before: list[str], try_remedies: bool) -> Finding:
        cause, role, evidence, healthy = self._cause(sick_before)
        remedies = self._remedies(role, healthy) if try_remedies and role and healthy is not None else ()
        return Finding(
            layer=self.path,
            symptom=self.symptom,
            rate=float(self.found.mean()),
            reference_rate=float(self.wanted.mean()),
            cause=cause,
            evidence=evidence,
            remedies=remedies,
        )

    def _cause(self, sick_before: list[str]) -> tuple[Cause, str, str, Rates | None]:
        if not self.wanted.any():
            return "reference", "", "The float layer does not fire on these data, either: train it, or prune it", None
        roles = self._roles()
        healthy = self._after(together(list(roles.values())))
        if healthy is None or symptom(healthy, self.wanted) is not None:
            return (*self._from_outside(sick_before, healthy), None)
        cured = {role: rates for role, change in roles.items() if (rates := self._after(change)) is not None}
        alone = [role for role, rates in cured.items() if symptom(rates, healthy) is None]
        if not alone:
            return "several", "", self._several(roles, healthy), healthy
        # Giving weights, leak or input back chooses fraction bits anew, so these come first.
        distance = {r: abs(float(cured[r].mean()) - float(healthy.mean())) for r in alone}
        role = "fraction_bits" if "fraction_bits" in alone else min(alone, key=lambda r: distance[r])
        cause: Any = role
        if role == "membrane":
            cause = register_cause(self.neuron, lambda change: self._is_well(change, healthy))
        evidence = evidence_for(cause, self.free, self.path, self.inputs)
        evidence += f"; with the {_spoken(role)} alone at full precision its rate is {cured[role].mean():.4f}"
        others = [_spoken(r) for r in alone if r != role]
        evidence += f" ({' or '.join(others)} at full precision would do it, too)" if others else ""
        return cause, role, evidence, healthy

    def _roles(self) -> dict[str, Change]:
        """Every role of the layer that is not exact already."""
        choice = self.neuron.choice
        roles: dict[str, Change] = {"membrane": wide_membrane, "weight": fine_weights, "leak": real_leak}
        if "leak" not in self.neuron.value_names:
            del roles["leak"]
        if choice.current is not None or choice.input is not None:
            roles["current"] = wide_current
        if choice.threshold is not None:
            roles["threshold"] = real_threshold
        if choice.bias is not None:
            roles["bias"] = real_bias
        if any(branch.synapse.input_format is not None for branch in self.neuron.branches):
            roles["input"] = fine_input(self.peak)
        roles["fraction_bits"] = enough_fraction_bits
        return roles

    def _after(self, change: Change) -> Rates | None:
        return rates_after(self.free, self.path, self.inputs, change)

    def _is_well(self, change: Change, healthy: Rates) -> bool:
        rates = self._after(change)
        return rates is not None and symptom(rates, healthy) is None

    def _from_outside(self, sick_before: list[str], healthy: Rates | None) -> tuple[Cause, str, str]:
        synapses = [branch.synapse for branch in self.neuron.branches]
        paths = [p for p, m in self.free.named_modules() if any(m is s for s in synapses)]
        now, then = activity(self.free, paths, self.inputs), activity(self.real, paths, self.inputs)
        if all(s.input_format is not None or s.checks_input for s in synapses):
            now = then  # it reads the data; a normalization of these is folded into its weights
        flow = f"what flows into its weights has a mean magnitude of {now:.4g}, in the reference {then:.4g}"
        rate = "" if healthy is None else f"with all of its roles at full precision its rate is {healthy.mean():.4f}; "
        if sick_before or not 0.67 * then <= now <= 1.5 * then:
            cured = f"; mend {', '.join(sick_before)} first" if sick_before else ""
            return "inflow", "", f"The layer itself is not the cause: {rate}{flow}{cured}"
        if self._is_norm():
            why = "calibrate measured it anew; the reference's statistics do not fit these data: train it longer"
            return (
                "norm",
                "",
                f"Its batch norm is the cause: {rate}{flow}; with the reference's it fires as there. {why}",
            )
        return "training", "", (
            f"Its weights are the cause, not their width: {rate}{flow}. They moved in training; "
            "train longer, or with a smaller learning rate"
        )  # fmt: skip

    def _is_norm(self) -> bool:
        """Whether the layer fires as in the reference once its batch norms have the reference's statistics."""
        names = {id(module): name for name, module in self.free.named_modules()}
        found = [b.norm for b in self.neuron.branches if b.norm is not None]
        sources = [self.real.get_submodule(names[id(norm)]) for norm in found]
        return bool(sources) and self._is_well(statistics_of(sources), self.wanted)

    def _several(self, roles: dict[str, Change], healthy: Rates) -> str:
        """Which roles are needed together: without the relief of any of them the symptom stays."""
        needed = []
        for role in roles:
            rates = self._after(together([change for name, change in roles.items() if name != role]))
            if rates is None or symptom(rates, healthy) is not None:
                needed.append(_spoken(role))
        names = " and ".join(needed) if needed else "several roles"
        return f"No role alone is the cause; {names} together are: give each of them more bits"

    def _remedies(self, role: str, healthy: Rates) -> tuple[Remedy, ...]:
        """Changes that work: at most two, of different fields."""
        works: list[Remedy] = []
        for field, value, change in remedies_for(role, self.neuron, self.peak):
            if any(remedy.field == field for remedy in works):
                continue
            rates = self._after(change)
            if rates is not None and symptom(rates, healthy) is None and _is_near(rates, healthy):
                works.append(Remedy(field=field, value=value, rate=float(rates.mean())))
            if len(works) == 2:
                break
        return tuple(works)


def _is_near(rates: Rates, healthy: Rates) -> bool:
    return abs(float(rates.mean()) - float(healthy.mean())) <= NEAR * float(healthy.mean())


def _spoken(role: str) -> str:
    return {"fraction_bits": "fraction bits", "weight": "weights"}.get(role, role)


__all__ = ["Cause", "Finding", "Remedy", "Symptom", "diagnose", "symptom"]
