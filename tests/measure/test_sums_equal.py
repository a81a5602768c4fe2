"""The memory that is printed is what is exported: random networks, the size report, the manifest and the compiler."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess

import pytest
import torch
from tests.conformance.graphs import graph
from tests.conformance.handmade import net as handmade
from torch import nn

import spikequant as sq
from spikequant.measure import FLASH_ROLES, RAM_ROLES, c_memory, network_memory
from spikequant.nn import LIF
from spikequant.readers.c.program import build
from spikequant.readers.c99 import measure


def networks(count):
    """Random graphs and random chains."""
    return [graph(seed)[0] for seed in range(count)] + [handmade(seed)[0] for seed in range(count)]


def test_layers_and_the_rest_add_up():
    for net in networks(25):
        found, program = c_memory(net), build(net, "snn")
        assert found.flash == sum(layer.weights + layer.parameters for layer in found.layers)
        tables = sum(table.bytes for table in program.tables)
        gains = found.flash - tables
        assert gains >= 0
        rest = found.ram - found.shared - sum(layer.state for layer in found.layers)
        outputs, counters = program.outputs * program.score.bytes, 9
        assert outputs + counters <= rest < outputs + counters + 16  # scores, counters, padding at the end


def test_reports_and_manifest_print_both_columns(tmp_path):
    for k, net in enumerate(networks(6)):
        done = sq.export(net, tmp_path / str(k), format="c99")
        sizes, found, rows = done.facts["sizes"], c_memory(net), network_memory(net)
        assert (sizes["flash"], sizes["state"], sizes["shared"]) == (found.flash, found.ram, found.shared)
        assert sizes["declared_flash_bits"] == sum(r.total_bits for r in rows if r.role in FLASH_ROLES)
        assert sizes["declared_ram_bits"] == sum(r.total_bits for r in rows if r.role in RAM_ROLES)
        text = (tmp_path / str(k) / "sizes.txt").read_text()
        assert f"flash (constant data): {found.flash:,} bytes" in text
        assert f"RAM (one instance): {found.ram:,} bytes" in text
        assert f"flash {sizes['declared_flash_bits']:,} bits" in text


@pytest.mark.skipif(shutil.which("gcc") is None or shutil.which("nm") is None, reason="no gcc or nm")
def test_the_compiler_says_the_same_layer_by_layer(tmp_path):
    """Constant tables by symbol, members of the state by sizeof: equal to the byte, so within 2 % per layer."""
    compared = 0
    for k, net in enumerate(networks(4)):
        folder = tmp_path / str(k)
        sq.export(net, folder, format="c99")
        program, sizes = build(net, "snn"), measure(build(net, "snn"))
        members = [*program.members, *(m for slot in program.slots for m in slot)]
        names = [m.name for m in program.members]
        probe = '#include <stdio.h>\n#include "snn.h"\nstatic snn_state s;\nint main(void)\n{\n'
        probe += "".join(f'    printf("{name} %zu\\n", sizeof s.{name});\n' for name in names)
        probe += '    printf("all %zu\\n", sizeof s);\n    return 0;\n}\n'
        (folder / "probe.c").write_text(probe)
        command = "gcc -std=c99 probe.c -o probe && ./probe && gcc -O0 -DSNN_SELF_TEST=0 -c snn.c && nm -S snn.o"
        done = subprocess.run(command, shell=True, cwd=folder, capture_output=True, text=True, check=True)
        held = dict(re.findall(r"^(\w+) (\d+)$", done.stdout, flags=re.MULTILINE))
        assert int(held.pop("all")) == sizes.state
        assert {m.name: m.bytes for m in members if m.name in held} == {n: int(v) for n, v in held.items()}
        symbols = re.findall(r"^[0-9a-f]+ ([0-9a-f]+) r (\w+)$", done.stdout, flags=re.MULTILINE)
        tables = {name: int(size, 16) for size, name in symbols}
        by_layer: dict[str, int] = {}
        for table in program.tables:
            assert tables[table.name] == table.bytes
            by_layer[table.layer] = by_layer.get(table.layer, 0) + tables[table.name]
        for layer, total in by_layer.items():
            weights, parameters, _ = sizes.layers[layer]
            extra = weights + parameters - total  # gains of the decoder are counted with the layer that it reads
            assert extra == 0 or layer == net.decoder.source
        compared += len(names) + len(tables)
    assert compared > 40


def test_compare_prints_what_is_exported(tmp_path):
    torch.manual_seed(0)
    real = nn.Sequential(nn.Linear(12, 20), LIF(threshold=0.3), nn.Linear(20, 4), LIF(threshold=0.3))

    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = real

        def forward(self, x):
            return self.layers(x).sum(0)

    reference = Counted()
    x, y = (torch.rand(6, 30, 12) < 0.5).float(), torch.randint(0, 4, (30,))
    model = copy.deepcopy(reference)
    sq.quantize_(model, sq.Plan.uniform(weight_bits=3, membrane_bits=7), x, quiet=True)
    before = sq.compare(reference, model, [(x, y)])
    assert before.quantized.in_c is None  # still soft
    sq.freeze(model)
    after = sq.compare(reference, model, [(x, y)])
    done = sq.export(sq.lower(model, x), tmp_path, format="c99")
    found = after.quantized.in_c
    assert found is not None
    assert (found.flash, found.ram) == (done.facts["sizes"]["flash"], done.facts["sizes"]["state"])
    assert f"exported as C: flash {found.flash:,} B, RAM {found.ram:,} B" in str(after)
    assert after.to_dict()["quantized"]["in_c"]["flash"] == found.flash
    after.save(tmp_path / "comparison.sqc")
    assert sq.Comparison.load(tmp_path / "comparison.sqc").quantized.in_c == found
    bits = 8 * after.quantized.flash_bytes
    assert bits == done.facts["sizes"]["declared_flash_bits"]
