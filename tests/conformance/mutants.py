"""Semantic mutants of the law: wrong in one small place, as a porter of the law might be.

Each patches the golden model and must be found by a small suite of networks that the
unpatched scalar oracle has run.  ``python tests/conformance/mutants.py`` prints the table.
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np

if __name__ == "__main__":
    root = Path(__file__).resolve().parents[2]
    sys.path[:0] = [str(root / "src"), str(root)]

from tests.conformance.handmade import net as handmade
from tests.law.oracle import Oracle, differences

from spikequant.law import neurons, products, registers
from spikequant.law.errors import SpikequantError
from spikequant.law.ops import IntOps
from spikequant.readers import golden

SEEDS = range(0, 90)
FIRST_SAMPLE = 5
Machine, Registers, Runner = neurons._Machine, registers.Registers, golden.Machine


def suite(seeds=SEEDS):
    """Networks, their inputs, and what the oracle says."""
    cases = []
    for seed in seeds:
        net, codes, _ = handmade(seed)
        cases.append((seed, net, codes, Oracle(net, FIRST_SAMPLE).run(codes)))
    return cases


def killed_by(mutant, cases, *, first_only=False):
    """``(networks that see the mutant, how many values differ)``; a mutant that crashes was no mutant."""
    networks, values = [], 0
    with mutant():
        for seed, net, codes, wanted in cases:
            count, _ = differences(golden.run(net, codes, first_sample=FIRST_SAMPLE), wanted)
            if count:
                networks.append(seed)
                values += count
                if first_only:
                    break
    return networks, values


# -- ways to patch ------------------------------------------------------------------------


def method(owner, name, change):
    """Replace a method by ``change(original)``."""
    return lambda: patch.object(owner, name, change(getattr(owner, name)))


def rounding(name, other):
    """One rounding in the place of another."""

    def change(original):
        return lambda self, a, n, how, noise=None: original(self, a, n, other if how == name else how, noise)

    return method(IntOps, "shr", change)


def node(change):
    """Every neuron node is run as ``change(node)``; where that cannot run, as it is."""

    def wrap(original):
        def neuron(self, node, t, sources):
            kept, changed = self.states[node.name], change(node)
            if changed is node:
                return original(self, node, t, sources)
            params = self.params[node.name]
            try:
                self.params[node.name] = golden.prepare(golden.OPS, changed.spec, changed.params)
                return original(self, changed, t, sources)
            except (SpikequantError, KeyError):
                self.states[node.name], self.params[node.name] = kept, params
                return original(self, node, t, sources)
            finally:
                self.params[node.name] = params

        return neuron

    return method(Runner, "neuron", wrap)


def parameter(name, change):
    """One parameter is another number."""

    def changed(node):
        if name not in node.params:
            return node
        return dataclasses.replace(
            node, params={**node.params, name: np.asarray(change(node.params[name]), dtype=np.int64)}
        )

    return node(changed)


def spec(change):
    """Another spec, where `change` says so."""

    def changed(node):
        new = change(node.spec)
        return node if new is None or new == node.spec else dataclasses.replace(node, spec=new)

    return node(changed)


def order(change):
    """Another order of the phases."""

    def changed(old):
        phases = list(old.order)
        change(phases)
        return None if tuple(phases) == old.order else old.replace(order=tuple(phases))

    return spec(changed)


def swap(a, b):
    """Two phases change places."""

    def change(phases):
        if a in phases and b in phases:
            i, j = phases.index(a), phases.index(b)
            phases[i], phases[j] = phases[j], phases[i]

    return order(change)


def drop(name):
    """A phase is forgotten."""

    def change(phases):
        while name in phases:
            phases.remove(name)

    return order(change)


def move(name, place):
    """A phase comes last, or right after another one."""

    def change(phases):
        if name in phases and (place is None or place in phases):
            phases.remove(name)
            phases.insert(len(phases) if place is None else phases.index(place) + 1, name)

    return order(change)


def function(owner, name, change):
    """Replace a module's function, and its entry in the table of node types."""
    original = getattr(owner, name)

    @contextmanager
    def patched():
        replacement = change(original)
        table = {kind: replacement if f is original else f for kind, f in golden.APPLY.items()}
        with patch.object(owner, name, replacement), patch.object(golden, "APPLY", table):
            yield

    return patched


def joined(kind, change):
    """A join of one kind gets ``change(node, sources)``."""

    def wrap(original):
        return lambda node, sources: original(*(change(node, sources) if node.kind == kind else (node, sources)))

    return function(golden, "_join", wrap)


def pooled(kind, other):
    def wrap(original):
        return lambda node, sources: original(
            dataclasses.replace(node, kind=other) if node.kind == kind else node, sources
        )

    return function(golden, "_pool", wrap)


def overflow(name, other):
    """Registers of one overflow behave as another; None: as if they had no end."""

    def wrap(original):
        def fit(self, code, fmt):
            if fmt.overflow != name:
                return original(self, code, fmt)
            return code if other is None else original(self, code, dataclasses.replace(fmt, overflow=other))

        return fit

    return method(Registers, "fit", wrap)


def _compare_again(original):
    def phase(self):
        self.reset_where(self.fired(self.ops.mul(self.state["v"], self.params["v_load"]), self.params["theta"]))

    return phase


def _reset_one_more(original):
    return lambda self: original(self) + 1


def _delay(change):
    def wrap(original):
        return lambda self, edge, values: original(
            self, dataclasses.replace(edge, delay=change(edge.delay)) if edge.delay else edge, values
        )

    return method(Runner, "edge", wrap)


def _no_fit_at_store(original):
    """The state keeps what its register cannot hold: shifted down, neither rounded nor held."""

    def narrow(self, register):
        if register.is_fresh or register.register is None:
            return original(self, register)
        register.code, register.value = (
            register.value >> (self.params[f"{register.name}_shift"] + register.pending),
            None,
        )
        register.pending = 0
        return None

    return narrow


def _leak_form(form, other):
    return spec(lambda s: s.replace(leak=dataclasses.replace(s.leak, form=other)) if s.leak.form == form else None)


def _pad_nothing(original):
    return lambda product, x: original(dataclasses.replace(product, pad_code=0), x)


def _without_dilation(original):
    def apply(self, x):
        if self.kind == "linear" or max(self.dilation) == 1:
            return original(self, x)
        grown = tuple(
            p - (d - 1) * (k - 1) // 2
            for p, d, k in zip(self.padding, self.dilation, self.codes.shape[2:], strict=True)
        )
        if min(grown) < 0:
            return original(self, x)
        return original(dataclasses.replace(self, dilation=(1,) * len(self.dilation), padding=grown), x)

    return apply


def _bias_to_membrane(old):
    """The bias of a current-based neuron skips the current."""
    if not old.spec.has_current or "bias" not in old.params:
        return old
    params = dict(old.params)
    bias = params.pop("bias")
    return dataclasses.replace(old, params={**params, "v_bias": params.get("v_bias", 0) + bias})


def _decoded(change):
    return lambda: patch.object(
        golden, "decode", (lambda original: lambda decoder, train: original(change(decoder), train))(golden.decode)
    )


def _key(change):
    return lambda: patch.object(
        golden, "step_key", (lambda original: lambda *place: original(*change(*place)))(golden.step_key)
    )


MUTANTS = {
    "> instead of >=": method(IntOps, "ge", lambda _: lambda self, a, b: (a > b).astype(np.int64)),
    "theta one higher": parameter("theta", lambda v: v + 1),
    "theta one lower": parameter("theta", lambda v: v - 1),
    "one number for compare and reset": node(
        lambda n: (
            dataclasses.replace(n, params={**n.params, "reset": n.params["theta"]}) if n.spec.reset == "subtract" else n
        )
    ),
    "reset one more": method(Machine, "reset_amount", _reset_one_more),
    "reset to zero instead of subtract": spec(
        lambda s: s.replace(reset="zero") if s.reset == "subtract" and s.spikes_max == 1 else None
    ),
    "reset to zero instead of value": spec(lambda s: s.replace(reset="zero") if s.reset == "value" else None),
    "delayed reset compares again": method(Machine, "phase_reset_delayed", _compare_again),
    "delayed reset acts at once": order(
        lambda p: p.append(p.pop(p.index("reset_delayed")).replace("_delayed", "")) if "reset_delayed" in p else None
    ),
    "floor becomes toward zero": rounding("floor", "toward_zero"),
    "toward zero becomes floor": rounding("toward_zero", "floor"),
    "half even becomes half up": rounding("half_even", "half_up"),
    "half up becomes half away": rounding("half_up", "half_away"),
    "half away becomes half even": rounding("half_away", "half_even"),
    "stochastic becomes half up": rounding("stochastic", "half_up"),
    "noise without the step": _key(lambda seed, layer, role, t: (seed, layer, role, 0)),
    "noise without the layer": _key(lambda seed, layer, role, t: (seed, 0, role, t)),
    "noise without the role": _key(lambda seed, layer, role, t: (seed, layer, "v", t)),
    "noise without the seed": _key(lambda seed, layer, role, t: (0, layer, role, t)),
    "noise counts samples from zero": lambda: patch.object(
        golden,
        "noise_words",
        (lambda original: lambda key, samples, shape: original(key, samples - FIRST_SAMPLE, shape))(golden.noise_words),
    ),
    "leak and integrate swapped": swap("leak", "integrate"),
    "leak forgotten": drop("leak"),
    "leak factor one lower": parameter("leak", lambda v: np.maximum(v - 1, 0)),
    "leak shift one more": node(
        lambda n: (
            dataclasses.replace(n, params={**n.params, "leak": n.params["leak"] + 1})
            if n.spec.leak.form.startswith("shift")
            else n
        )
    ),
    "leak of the current forgotten": spec(
        lambda s: s.replace(leak_i=None, order=tuple(p for p in s.order if p != "decay_current")) if s.leak_i else None
    ),
    "leak rounded where it is exact": spec(
        lambda s: (
            s.replace(leak=dataclasses.replace(s.leak, rounding="floor"))
            if s.leak.form == "multiply" and s.leak.rounding is None
            else None
        )
    ),
    "leak although it fired": order(
        lambda p: p.__setitem__(p.index("leak_unless_fired"), "leak") if "leak_unless_fired" in p else None
    ),
    "forced shift not forced": _leak_form("shift_forced", "shift"),
    "second shift forgotten": _leak_form("two_shifts", "shift"),
    "constant leak not toward zero": _leak_form("constant", "constant_signed"),
    "saturation dropped": overflow("saturate", None),
    "wrap instead of saturate": overflow("saturate", "wrap"),
    "saturate instead of wrap": overflow("wrap", "saturate"),
    "last narrowing dropped": method(Registers, "narrow", _no_fit_at_store),
    "narrowing before fire dropped": drop("narrow"),
    "narrowed before fire though not asked": order(
        lambda p: p.insert(p.index("fire"), "narrow") if "fire" in p and "narrow" not in p else None
    ),
    "narrowing of the current dropped": drop("narrow_current"),
    "narrowing of the input dropped": spec(
        lambda s: s.replace(x=None, order=tuple(p for p in s.order if p != "narrow_input"))
    ),
    "bias dropped": parameter("bias", lambda v: 0 * v),
    "bias doubled": parameter("bias", lambda v: 2 * v),
    "bias skips the current": node(_bias_to_membrane),
    "membrane bias dropped": parameter("v_bias", lambda v: 0 * v),
    "membrane sees the current of the last step": order(
        lambda p: p.append(p.pop(p.index("add_current"))) if "add_current" in p and "narrow_current" not in p else None
    ),
    "lower bound dropped": spec(lambda s: s.replace(lower="none", order=tuple(p for p in s.order if p != "bound"))),
    "lower bound: floor and zero mixed up": spec(
        lambda s: None if s.lower == "none" else s.replace(lower="zero" if s.lower == "floor" else "floor")
    ),
    "refractory one shorter": spec(lambda s: s.replace(refractory=s.refractory - 1) if s.refractory > 1 else None),
    "refractory one longer": spec(lambda s: s.replace(refractory=s.refractory + 1) if s.refractory else None),
    "refractory holds instead of ignoring": spec(
        lambda s: (
            s.replace(refractory_mode="hold_zero") if s.refractory and s.refractory_mode == "ignore_input" else None
        )
    ),
    "threshold raised before it is compared": move("decay_threshold", None),
    "threshold decays on every step": spec(lambda s: s.replace(adapt_every=1) if s.adapt_every > 1 else None),
    "adaptation left out of the reset": spec(lambda s: s.replace(adapt_in_reset=False) if s.adapt_in_reset else None),
    "adaptation step doubled": parameter("adapt", lambda v: 2 * v),
    "one spike a step": spec(lambda s: s.replace(spikes_max=s.spikes_max - 1) if s.spikes_max > 2 else None),
    "gain one more": node(lambda n: dataclasses.replace(n, gains=(n.gains[0] + 1, *n.gains[1:]))),
    "gains of two inputs swapped": node(lambda n: dataclasses.replace(n, gains=n.gains[::-1])),
    "delay dropped": _delay(lambda d: d - 1 if d > 1 else d),
    "delay one more": method(
        Runner,
        "edge",
        lambda original: (
            lambda self, edge, values: original(
                self, dataclasses.replace(edge, delay=edge.delay + 1) if 0 < edge.delay < self.longest else edge, values
            )
        ),
    ),
    "border padded with 0": lambda: patch.object(products, "_pad", _pad_nothing(products._pad)),
    "dilation forgotten": method(products.Product, "apply", _without_dilation),
    "pool: maximum becomes sum": pooled("max", "sum"),
    "pool: sum becomes maximum": pooled("sum", "max"),
    "concatenation in the other order": joined(
        "concat", lambda n, s: (dataclasses.replace(n, gains=n.gains[::-1]), s[::-1])
    ),
    "iand with its operands swapped": joined("iand", lambda n, s: (n, s[::-1])),
    "product becomes sum": joined("product", lambda n, s: (dataclasses.replace(n, kind="add"), s)),
    "join without its gains": joined("add", lambda n, s: (dataclasses.replace(n, gains=(1,) * len(s)), s)),
    "maximum becomes sum": joined("max", lambda n, s: (dataclasses.replace(n, kind="add"), s)),
    "decoder reads the last step": _decoded(
        lambda d: dataclasses.replace(d, name="membrane_last") if d.name in ("spike_count", "membrane_sum") else d
    ),
    "decoder without its gains": _decoded(lambda d: dataclasses.replace(d, gains=None)),
}


def main():
    """Print who was killed by what."""
    cases = suite()
    survivors = 0
    print(f"{'mutant':44} networks of {len(cases)}  values that differ")
    for name, mutant in MUTANTS.items():
        networks, values = killed_by(mutant, cases)
        survivors += not networks
        shown = f"{len(networks):3d} (first: {networks[0]})" if networks else "SURVIVED"
        print(f"{name:44} {shown:22} {values:8,d}")
    print(f"{len(MUTANTS) - survivors} of {len(MUTANTS)} mutants killed")
    return survivors


if __name__ == "__main__":
    sys.exit(main() > 0)
