"""What other tools offer for quantizing spiking networks, asked of the installed packages.

    python benchmarks/peer_facts.py            # prints the table
    python benchmarks/peer_facts.py --write    # and writes benchmarks/peer_facts.md

A fact is the answer of a package, never a sentence from memory; a package that is absent says so.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import pkgutil
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

TARGET = Path(__file__).with_suffix(".md")
VALUES = 200_000
LEVELS_SEEN_ON = torch.linspace(-1.5, 1.5, 100_001)


def snntorch_grid() -> str:
    """Distance of 0 and of the threshold to the nearest level of snnTorch's default membrane grid."""
    from snntorch.functional.quant import state_quant

    parts = []
    for bits in (2, 4, 8):
        levels = torch.unique(state_quant(num_bits=bits, uniform=True, threshold=1.0)(LEVELS_SEEN_ON))
        zero, threshold = float(levels.abs().min()), float((levels - 1.0).abs().min())
        parts.append(f"{bits} bits: 0 is missed by {zero:.4f}, the threshold by {threshold:.4f}")
    return "membrane grid by `state_quant` (defaults, threshold 1); " + "; ".join(parts)


def snntorch_cost() -> str:
    """Time of `state_quant` at 8 bits beside round and clamp, median of five, same tensor."""
    from snntorch.functional.quant import state_quant

    x, quantizer = torch.randn(VALUES), state_quant(num_bits=8, uniform=True, threshold=1.0)
    searched = _median_seconds(lambda: quantizer(x))
    rounded = _median_seconds(lambda: (x * 100).round().clamp(-128, 127) / 100)
    return f"`state_quant` at 8 bits on {VALUES:,} values takes {searched / rounded:,.0f} x the time of round and clamp"


def snntorch_weights() -> str:
    """Whether snnTorch has a quantizer of weights."""
    names = _modules("snntorch", "quant")
    return f"modules with 'quant' in their name: {', '.join(names)}; it quantizes states, weights are left to Brevitas"


def spikingjelly_functions() -> str:
    """The quantization functions of SpikingJelly, and whether its neurons take bits."""
    from spikingjelly.activation_based import neuron, quantize

    functions = [n for n in dir(quantize) if n[0].islower() and n != "torch" and callable(getattr(quantize, n))]
    import inspect

    options = set(inspect.signature(neuron.LIFNode).parameters)
    bits = [name for name in options if "bit" in name or "quant" in name]
    return f"functions to call in an own layer: {', '.join(functions)}; options of `LIFNode` for bits: {len(bits)}"


def torch_ao_on_spikingjelly() -> str:
    """What torch.ao's QAT preparation does to SpikingJelly's layers."""
    import torch.ao.quantization as ao
    from spikingjelly.activation_based import layer, neuron

    net = torch.nn.Sequential(layer.Conv2d(1, 2, 3), neuron.IFNode(), layer.Flatten(), layer.Linear(72, 3)).train()
    net.qconfig = ao.get_default_qat_qconfig("x86")
    changed = sum("fake" in type(m).__module__ or "qat" in type(m).__module__ for m in ao.prepare_qat(net).modules())
    return f"torch.ao `prepare_qat` on a network of SpikingJelly layers exchanges {changed} modules and says nothing"


def norse_modules() -> str:
    """Whether Norse has anything for quantization."""
    return f"modules with 'quant' in their name: {len(_modules('norse', 'quant'))}"


def sinabs_bits() -> str:
    """Widths of sinabs' chip path."""
    spec = importlib.util.find_spec("sinabs")
    assert spec is not None
    assert spec.submodule_search_locations
    text = Path(spec.submodule_search_locations[0], "backend", "dynapcnn", "discretize.py").read_text(encoding="utf-8")
    widths = re.findall(r"DYNAPCNN_(\w+)_PRECISION_BITS = (\d+)", text)
    named = ", ".join(f"{role.lower()} {bits} bits" for role, bits in widths)
    return f"`discretize` for the DYNAP-CNN chips, after training; constants in its source: {named}"


def nir_fields() -> str:
    """Fields of NIR's LIF node: what of a quantized neuron it can say."""
    import nir

    fields = [f.name for f in dataclasses.fields(nir.LIF)]
    lacking = [name for name in ("bits", "dt", "reset", "rounding") if name not in fields]
    return f"fields of `nir.LIF`: {', '.join(fields)}; none for {', '.join(lacking)}"


def neurobench_footprint() -> str:
    """What NeuroBench's footprint says of a layer whose weights have 2 bits."""
    from neurobench.metrics.static import Footprint
    from neurobench.models import TorchModel

    net = torch.nn.Linear(100, 10, bias=False)
    with torch.no_grad():
        net.weight.copy_(torch.randint(-1, 2, net.weight.shape).float())
    counted = Footprint()(TorchModel(net))
    return f"footprint of 1,000 ternary weights (2 bits: 250 bytes): {counted:,} bytes, counted by tensor type"


def brevitas_states() -> str:
    """Whether Brevitas knows a spiking neuron."""
    names = [n for word in ("spik", "lif", "membrane", "neuron") for n in _modules("brevitas", word)]
    return f"weights and activations of torch layers; modules for spiking neurons: {len(names)}"


FACTS: tuple[tuple[str, tuple[Callable[[], str], ...]], ...] = (
    ("snntorch", (snntorch_weights, snntorch_grid, snntorch_cost)),
    ("spikingjelly", (spikingjelly_functions, torch_ao_on_spikingjelly)),
    ("norse", (norse_modules,)),
    ("sinabs", (sinabs_bits,)),
    ("brevitas", (brevitas_states,)),
    ("nir", (nir_fields,)),
    ("neurobench", (neurobench_footprint,)),
)


def facts(package: str, questions: tuple[Callable[[], str], ...]) -> list[tuple[str, str]]:
    """One row for each question; a package that is not there gives one row that says so."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return [(package, "not installed, not asked")]
    return [(f"{package} {version}", question()) for question in questions]


def _modules(package: str, word: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    found, folders = [], [(package, list(spec.submodule_search_locations))]
    while folders:
        name, places = folders.pop()
        for info in pkgutil.iter_modules(places):
            full = f"{name}.{info.name}"
            found += [full] if word in info.name else []
            if info.ispkg:
                folders.append((full, [str(Path(place, info.name)) for place in places]))
    return sorted(found)


def _median_seconds(work: Callable[[], object], runs: int = 5) -> float:
    work()
    times = []
    for _ in range(runs):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return sorted(times)[runs // 2]


def table() -> str:
    """The facts as Markdown."""
    torch.manual_seed(0)
    lines = ["| tool | fact |", "|---|---|"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the packages' own deprecations
        for package, questions in FACTS:
            lines += [f"| {tool} | {fact} |" for tool, fact in facts(package, questions)]
    return "\n".join(lines)


def main() -> None:
    """Print the table, and write it where asked."""
    text = table()
    print(text)
    if "--write" in sys.argv:
        by = "Asked of the installed packages by `python benchmarks/peer_facts.py --write`"
        where = f"torch {torch.__version__}, one thread of a 2-core x86 CPU"
        TARGET.write_text(f"# What other tools offer\n\n{by}; {where}.\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
