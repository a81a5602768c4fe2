"""Integer networks built by hand, with neurons that no torch layer makes: every phase order and leak form.

``net(seed)`` gives a network and its input codes, ``neuron(dice, shape)`` a spec with its
parameters.  Sizes are chosen so that neurons fire, saturate and meet their thresholds.
"""

from __future__ import annotations

import random

import numpy as np

from spikequant.law.bounds import prove_step
from spikequant.law.errors import Unsupported, WidthError
from spikequant.law.formats import IntFormat
from spikequant.law.network import (
    DECODERS,
    Decoder,
    Edge,
    InputNode,
    IntNet,
    JoinNode,
    MatmulNode,
    NeuronNode,
    PoolNode,
    ReshapeNode,
    SynapseNode,
)
from spikequant.law.products import Product
from spikequant.law.rounding import ROUNDINGS
from spikequant.law.spec import Leak, NeuronSpec, StateFormat

ORDERS = {
    "leak first": ("leak", "integrate", "fire", "reset"),
    "leak between": ("integrate", "leak", "fire", "reset"),
    "leak last": ("integrate", "fire", "reset", "leak"),
    "old state": ("fire", "reset", "leak", "integrate"),
    "fire xor leak": ("integrate", "fire", "leak_unless_fired", "reset"),
    "delayed": ("leak", "integrate", "reset_delayed", "fire"),
    "delayed first": ("reset_delayed", "leak", "integrate", "fire"),
    "current": ("decay_current", "add_current", "leak", "integrate", "fire", "reset"),
    "current decays late": ("add_current", "decay_current", "leak", "integrate", "fire", "reset"),
    "readout": ("leak", "integrate"),
}
FORMS = ("none", "multiply", "multiply", "shift", "shift_forced", "two_shifts", "constant", "constant_signed")


def ints(value):
    """An int64 array."""
    return np.asarray(value, dtype=np.int64)


def register(dice, bits=None, *, sign=None):
    """A random register."""
    signed = dice.random() < 0.75 if sign is None else sign
    fmt = IntFormat(bits=bits or dice.randint(2, 16), signed=signed, narrow=signed and dice.random() < 0.2)
    return StateFormat(
        format=fmt, overflow="wrap" if dice.random() < 0.2 else "saturate", rounding=dice.choice(ROUNDINGS)
    )


def leak(dice):
    """A random leak."""
    form = dice.choice(FORMS)
    rounding = dice.choice((None, *ROUNDINGS[:-1])) if form not in ("none", "constant", "constant_signed") else None
    return Leak(form=form, bits=dice.randint(1, 8) if form == "multiply" else 0, rounding=rounding)


def spec(dice, *, name=None, like_readout=False):
    """A random spec; the name says which phase order it started from."""
    name = "readout" if like_readout else name or dice.choice([k for k in ORDERS if k != "readout"])
    order, changes = list(ORDERS[name]), {"v": register(dice), "leak": leak(dice), "fraction_bits": dice.randint(0, 8)}
    changes["reset"] = "none" if like_readout else dice.choice(("zero", "subtract", "value"))
    if "add_current" in order:
        changes |= {"i": register(dice), "leak_i": leak(dice)}
        if dice.random() < 0.3:
            order.insert(order.index("add_current") + 1, "narrow_current")
    if name in ("leak first", "current", "leak between") and dice.random() < 0.15:
        order.remove("reset")
        changes |= {"spikes_max": dice.randint(2, 4), "reset": "subtract"}
    elif dice.random() < 0.1 and not like_readout:
        order = [p for p in order if not p.startswith("reset")]
        changes["reset"] = "none"
    if dice.random() < 0.25:
        order.insert(order.index("integrate") + 1, "bound")
        changes["lower"] = dice.choice(("floor", "zero"))
    for chance in (0.3, 0.1):
        if dice.random() < chance:
            order.insert(dice.randint(order.index("integrate") + 1, len(order)), "narrow")
    if dice.random() < 0.2 and "add_current" not in order:
        order.insert(0, "narrow_input")
        changes["x"] = StateFormat(
            format=IntFormat(bits=dice.randint(4, 10)), overflow="saturate", rounding=dice.choice(ROUNDINGS)
        )
    if not like_readout and dice.random() < 0.2:
        order = ["decay_threshold", *order, "raise_threshold"]
        bits = dice.randint(1, 8)
        how = dice.choice((None, *ROUNDINGS[:-1]))
        changes |= {"a": register(dice, 16, sign=False), "leak_a": Leak(form="multiply", bits=bits, rounding=how)}
        changes |= {
            "adapt_every": dice.randint(1, 4),
            "adapt_in_reset": changes["reset"] == "subtract" and dice.random() < 0.5,
        }
    if not like_readout and dice.random() < 0.2:
        changes |= {"refractory": dice.randint(1, 5), "refractory_mode": dice.choice(("ignore_input", "hold_zero"))}
    changes["output"] = "state" if like_readout else "spike"
    return name, NeuronSpec(order=tuple(order), **changes)


def parameters(dice, spec, shape):
    """Parameters under which a neuron of `spec` lives, per neuron, and its typical input."""
    generator = np.random.default_rng(dice.randint(0, 2**31))

    def per_neuron(low, high):
        size = shape if dice.random() < 0.7 else ()
        return ints(generator.integers(max(low, -(2**40)), max(high, low) + 1, size))

    shift = dice.randint(0, 6)
    for one in (spec.leak, spec.leak_i):
        shift = max(shift, one.bits if one is not None and one.form == "multiply" and one.rounding is None else 0)
    reach = spec.v.format.max << shift
    params = {"v_shift": ints(shift), "v_load": ints(1 << shift)}
    if dice.random() < 0.15 and spec.leak.form != "multiply":  # a register of another scale: load 3, store times 1/3
        params = {"v_shift": ints(shift + 8), "v_load": ints(3 << shift), "v_mul": ints(85)}
        reach *= 3
    params["theta"] = per_neuron(reach // 6 + 1, reach * 3 // 4)
    params["reset"] = (
        per_neuron(reach // 8, reach // 2) if spec.reset == "subtract" else per_neuron(-reach // 4, reach // 4)
    )
    for name, chance in (("bias", 0.6), ("v_bias", 0.2)):
        if dice.random() < chance:
            params[name] = per_neuron(-reach // 16, reach // 8)
    for state, one in (("v", spec.leak), ("i", spec.leak_i), ("a", spec.leak_a)):
        if one is None or one.form == "none":
            continue
        key = {"v": "leak", "i": "leak_i", "a": "leak_a"}[state]
        if one.form == "multiply":
            params[key] = per_neuron(2**one.bits // 2, 2**one.bits)
        elif one.form.startswith("constant"):
            params[key] = per_neuron(0, max(1, reach // 16))
        else:
            params[key] = per_neuron(0, 5)
            params[f"{key}2"] = per_neuron(2, 6)
    if spec.i is not None:
        params |= {"i_shift": ints(shift), "i_load": ints(1 << shift)}
    if spec.x is not None:
        size = max(0, reach.bit_length() - spec.x.bits)
        params |= {"x_shift": ints(size), "x_load": ints(1 << size)}
    if spec.a is not None:
        params |= {"a_shift": ints(dice.randint(0, 3)), "adapt": per_neuron(1, max(2, reach // 4))}
        if dice.random() < 0.3:
            params |= {"a_load": ints(4), "adapt": params["adapt"] // 4 + 1}
    if spec.lower != "none":
        params["floor"] = per_neuron(-reach // 2, 0)
    return params, max(1, reach // 5)


def neuron(dice, shape, **options):
    """``(name, spec, parameters, typical input)`` of a neuron layer that the bounds accept."""
    while True:
        name, found = spec(dice, **options)
        params, drive = parameters(dice, found, shape)
        if found.output == "state":
            params = {k: v for k, v in params.items() if k not in ("theta", "reset")}
        try:
            prove_step(found, params, -8 * drive, 8 * drive, check_reach=False)
        except (Unsupported, WidthError):
            continue
        return name, found, params, drive


class _Maker:
    """Adds nodes one by one."""

    def __init__(self, dice, shape, *, signed, static):
        self.dice, self.generator = dice, np.random.default_rng(dice.randint(0, 2**31))
        fmt = IntFormat(bits=dice.choice((1, 2, 4)) + signed, signed=signed)
        self.nodes, self.kinds = [InputNode(name="input", shape=shape, format=fmt, static=static)], set()

    def shape(self, name):
        return next(n.shape for n in self.nodes if n.name == name)

    def linear(self, name, source, outputs, *, delay=0, shape=None):
        shape = shape or self.shape(source)
        bits = self.dice.choice((1, 2, 4, 8, 16))
        fmt = IntFormat(bits=max(bits, 2))
        codes = ints(np.sign(self.generator.normal(0.4, 1, (outputs, shape[-1])))) if bits == 1 else ints(
            np.clip(np.rint(self.generator.normal(0.25, 0.5, (outputs, shape[-1])) * fmt.max), fmt.min, fmt.max)
        )  # fmt: skip
        product = Product(kind="linear", codes=codes)
        self.add(
            SynapseNode(
                name=name,
                shape=(*shape[:-1], outputs),
                inputs=(Edge(source, delay),),
                product=product,
                format=fmt,
                bits=bits,
            )
        )
        return max(1, int(np.abs(codes).max()))

    def conv(self, name, source, outputs, *, groups, axes):
        channels = self.shape(source)[0]
        codes = ints(self.generator.integers(-5, 8, (outputs, channels // groups, *(3,) * axes)))
        options = {
            n: tuple(self.dice.choice(c) for _ in range(axes))
            for n, c in (("stride", (1, 2)), ("padding", (0, 1, 2)), ("dilation", (1, 2)))
        }
        if source == "input":
            fmt = self.nodes[0].format
            options["pad_code"] = ints(self.generator.integers(fmt.min, fmt.max + 1, channels))
        product = Product(kind="conv", codes=codes, groups=groups, **options)
        shape = product.output_shape(self.shape(source))
        self.add(
            SynapseNode(
                name=name, shape=shape, inputs=(Edge(source),), product=product, format=IntFormat(bits=4), bits=4
            )
        )

    def neurons(self, name, *edges, units=(5,), **options):
        shape = self.shape(edges[0].source)
        kind, spec, params, drive = neuron(self.dice, shape, **options)
        gains = tuple(
            ints(self.generator.integers(max(1, drive // u // 2), drive // u + 2, self.dice.choice((shape, ()))))
            for u in units
        )
        self.kinds |= {f"order:{kind}", f"leak:{spec.leak.form}", f"reset:{spec.reset}", *spec.order}
        seed = self.dice.randint(0, 2**32 - 1)
        self.add(
            NeuronNode(
                name=name,
                shape=shape,
                inputs=tuple(edges),
                gains=gains[: len(edges)],
                spec=spec,
                params=params,
                seed=seed,
            )
        )

    def add(self, node):
        self.nodes.append(node)


def _recurrent(dice, make):
    a = make.linear("fc1", "input", 6)
    b = make.linear("back", "n2", 6, delay=dice.randint(1, 3), shape=(6,))
    make.neurons("n1", Edge("fc1"), Edge("back"), Edge("input", 2), units=(2 * a, 3 * b, 8))
    c = make.linear("fc2", "n1", 6)
    make.neurons("n2", Edge("fc2"), Edge("fc1", dice.randint(1, 2)), units=(2 * c, 4 * a))


def _image(dice, make):
    axes = len(make.shape("input")) - 1
    make.conv("conv1", "input", 4, groups=dice.choice((1, 2)), axes=axes)
    make.neurons("n1", Edge("conv1"), units=(20,))
    source, kind, pad = "n1", dice.choice(("sum", "max")), dice.choice((0, 1))
    shape = make.shape("n1")
    if min(shape[1:]) >= 2:
        pooled = (shape[0], *((n + 2 * pad - 2) // 2 + 1 for n in shape[1:]))
        edge, axis = Edge("n1", dice.choice((0, 0, 1))), (2,) * axes
        padding = (pad,) * axes
        make.add(
            PoolNode(name="pool", shape=pooled, inputs=(edge,), kind=kind, kernel=axis, stride=axis, padding=padding)
        )
        source = "pool"
    size = int(np.prod(make.shape(source)))
    make.add(ReshapeNode(name="flat", shape=(size,), inputs=(Edge(source),)))
    unit = make.linear("fc", "flat", 6)
    make.neurons("n2", Edge("fc"), units=(2 * unit,))


def _joins(dice, make):
    for name in ("a", "b"):
        unit = make.linear(f"fc_{name}", "input", 6)
        make.neurons(f"n_{name}", Edge(f"fc_{name}"), units=(2 * unit,))
    kind = dice.choice(("add", "concat", "product", "max", "iand", "iand"))
    gains = (1, 1) if kind == "iand" else (dice.randint(1, 3), dice.randint(1, 3))
    shape = (12,) if kind == "concat" else (6,)
    edges = (Edge("n_a", dice.choice((0, 1))), Edge("n_b"))
    make.add(JoinNode(name="join", shape=shape, inputs=edges, kind=kind, gains=gains))
    unit = make.linear("fc", "join", 6)
    make.neurons("n2", Edge("fc"), units=(2 * unit,))
    make.kinds.add(f"join:{kind}")


def _attention(dice, make):
    transpose = dice.random() < 0.5
    make.add(ReshapeNode(name="rows", shape=(4, 3), inputs=(Edge("input"),)))
    for name, outputs in (("q", 3), ("k", 3 if transpose else 5)):
        unit = make.linear(f"fc_{name}", "rows", outputs)
        make.neurons(f"n_{name}", Edge(f"fc_{name}"), units=(unit,))
    source = "n_k"
    if not transpose:
        make.add(ReshapeNode(name="turned", shape=(3, 5), inputs=(Edge("cut"),)))
        make.nodes.insert(
            -1,
            PoolNode(
                name="cut",
                shape=(3, 5),
                inputs=(Edge("n_k"),),
                kind="sum",
                kernel=(2, 1),
                stride=(1, 1),
                padding=(0, 0),
            ),
        )
        source = "turned"
    shape = (4, 4) if transpose else (4, 5)
    make.add(MatmulNode(name="mix", shape=shape, inputs=(Edge("n_q"), Edge(source)), transpose_second=transpose))
    make.neurons("n2", Edge("mix"), units=(2,))
    make.kinds.add("matmul")


def net(seed):
    """``(network, input codes, kinds)`` of a seed."""
    dice = random.Random(seed)
    build = dice.choice((_recurrent, _image, _joins, _attention))
    shape = {_recurrent: (6,), _joins: (6,), _attention: (12,)}.get(build) or dice.choice(((2, 6, 6), (2, 9)))
    static, steps, batch = dice.random() < 0.3, dice.choice((8, 12, 20)), dice.choice((1, 2))
    make = _Maker(dice, shape, signed=dice.random() < 0.4, static=static)
    build(dice, make)
    if dice.random() < 0.4:
        unit = make.linear("fc_out", "n2", 3)
        make.neurons("out", Edge("fc_out"), units=(unit,), like_readout=True)
    last = make.nodes[-1]
    wanted = [d for d in DECODERS if d.startswith("membrane") == (last.spec.output == "state")]
    gains = ints(make.generator.integers(1, 4, last.shape)) if dice.random() < 0.4 else None
    decoder = Decoder(name=dice.choice(wanted), source=last.name, gains=gains)
    result = IntNet(nodes=tuple(make.nodes), decoder=decoder, steps=steps)
    fmt, lead = make.nodes[0].format, (batch,) if static else (steps, batch)
    codes = make.generator.integers(fmt.min, fmt.max + 1, (*lead, *shape))
    return result, ints(codes * (make.generator.random(codes.shape) < 0.6)), make.kinds | {f"decoder:{decoder.name}"}
