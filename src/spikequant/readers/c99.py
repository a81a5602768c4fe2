"""``format="c99"``: the network as a C99 library of two files, with an example, build files and a size report.

docs/guides/export-c.md describes what is written; `readers/c/` holds the parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spikequant.law.footprint import network_memory
from spikequant.law.formats import IntArray
from spikequant.law.memory import FLASH_ROLES, RAM_ROLES
from spikequant.law.network import IntNet
from spikequant.readers import golden
from spikequant.readers.c.program import CProgram, build, digest, gains_table
from spikequant.readers.c.text import SelfTest, header, source, test_tables
from spikequant.readers.c.writer import plain_text
from spikequant.readers.names import identifier
from spikequant.readers.vectors import seeded

OPTIONS = ("inputs", "name")
MOST_TEST_CODES = 65536


def files(net: IntNet, *, inputs: Any = None, name: str = "snn") -> tuple[dict[str, bytes], dict[str, Any]]:
    """Contents by file name, and the facts of the manifest: name, sizes.

    Args:
        net: the network.
        inputs: data of the self-test (its first sample is embedded); the embedded test vectors where absent, and
            seeded noise where there are none.
        name: stands before every symbol and names the files.

    Raises:
        Unsupported: a name that is no C identifier.
        DataError: inputs that do not fit.
    """
    program = build(net, identifier(name))
    test = self_test(program, stimulus(net, inputs))
    sizes = measure(program, test)
    texts = {f"{name}.h": header(program), f"{name}.c": source(program, test), "sizes.txt": sizes.table()}
    for file, text in TEMPLATES.items():
        texts[file] = text.replace("@NAME", name.upper()).replace("@name", name)
    texts["README.md"] = texts["README.md"].replace("@sizes", sizes.table())
    facts = {"name": name, "sizes": sizes.record(), "self_test": {"samples": 1, "steps": test.steps}}
    return {file: text.encode() for file, text in texts.items()}, facts


def stimulus(net: IntNet, inputs: Any) -> IntArray:
    """Codes of one sample for the self-test, with few enough steps to be embedded."""
    static, size = net.input.static, math.prod(net.input.shape)
    if inputs is not None:
        codes = golden.encode(net, inputs)
    elif net.vectors is not None:
        codes = golden.check_codes(net, net.vectors.inputs)
    else:
        codes = seeded(net)
    return codes[:1] if static else codes[: max(4, MOST_TEST_CODES // size), :1]


def self_test(program: CProgram, codes: IntArray) -> SelfTest:
    """What the golden model gives for `codes`, in the order of the program's memory."""
    net = program.net
    run = golden.run(net, codes)
    steps = net.steps if net.input.static else codes.shape[0]
    trains = net.decoder.name.endswith("_train")
    scores = run.scores.swapaxes(0, 1) if trains else run.scores
    inputs = codes if net.input.static else codes.swapaxes(0, 1)
    return SelfTest(inputs, scores, steps, digest(program, run))


@dataclass(frozen=True)
class Sizes:
    """Bytes of constant data and state of a program, per layer.

    Attributes:
        layers: name -> (weights, parameters, state), in bytes.
        ideal_weight_bits: the codes at their declared width, without anything else.
        shared: memory for values of one step, shared by the layers.
        state: the whole state struct.
        test: the embedded vectors.
        declared: bits that the network must store, flash and RAM, by `law/footprint.py`: the same numbers at their
            declared widths.  C stores whole words, begins rows at a byte where that is cheap, prints what all
            neurons share into the code, and holds the sums of a step and counters; the caller holds the input.
    """

    layers: Mapping[str, tuple[int, int, int]]
    ideal_weight_bits: int
    shared: int
    state: int
    test: int
    declared: tuple[int, int]

    @property
    def flash(self) -> int:
        """Constant data without the self-test."""
        return sum(weights + parameters for weights, parameters, _ in self.layers.values())

    @property
    def weights(self) -> int:
        """Weight codes as stored, with positions of the sparse form and levels."""
        return sum(weights for weights, _, _ in self.layers.values())

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        layers = [{"layer": k, "weights": w, "parameters": p, "state": s} for k, (w, p, s) in self.layers.items()]
        totals = {"flash": self.flash, "weights": self.weights, "ideal_weight_bits": self.ideal_weight_bits}
        totals |= {"declared_flash_bits": self.declared[0], "declared_ram_bits": self.declared[1]}
        return {"layers": layers, **totals, "shared": self.shared, "state": self.state, "self_test": self.test}

    def table(self) -> str:
        """For people."""
        lines = [f"{'layer':32} {'weights':>10} {'parameters':>10} {'state':>10}"]
        lines += [f"{plain_text(k)[:32]:32} {w:10,} {p:10,} {s:10,}" for k, (w, p, s) in self.layers.items()]
        ideal = -(-self.ideal_weight_bits // 8)
        lines += [
            f"flash (constant data): {self.flash:,} bytes; weights {self.weights:,}, ideal {ideal:,}",
            f"RAM (one instance): {self.state:,} bytes, of them {self.shared:,} shared by the layers",
            f"as declared, bit by bit: flash {self.declared[0]:,} bits ({-(-self.declared[0] // 8):,} bytes), "
            f"RAM {self.declared[1]:,} bits ({-(-self.declared[1] // 8):,} bytes), with the input",
            f"self-test, if compiled in: {self.test:,} bytes of flash",
        ]
        return "bytes, without machine code\n" + "\n".join(lines) + "\n"


def measure(program: CProgram, test: SelfTest | None = None) -> Sizes:
    """The sizes of a program's tables and state."""
    layers = {node.name: [0, 0, 0] for node in program.net.nodes}
    for table in [*program.tables, *gains_table(program.net, program.prefix)]:
        layers[table.layer][0 if table.role == "weights" else 1] += table.bytes
    for member in program.members:
        if member.layer:
            layers[member.layer][2] += member.bytes
    used = {name: (a, b, c) for name, (a, b, c) in layers.items() if a or b or c}
    shared = sum(max(member.bytes for member in slot) for slot in program.slots)
    ideal = sum(node.product.codes.size * node.bits for node in program.net.synapses)
    vectors = sum(table.bytes for table in test_tables(program, test)) if test is not None else 0
    rows = network_memory(program.net)
    flash, ram = (sum(row.total_bits for row in rows if row.role in roles) for roles in (FLASH_ROLES, RAM_ROLES))
    return Sizes(used, ideal, shared, program.state_bytes, vectors, (flash, ram))


def sizes(net: IntNet) -> Sizes:
    """The sizes of a network's C without its self-test; nothing is written."""
    return measure(build(net, "snn"))


MAIN = """/* Example: the self-test, then one sample step by step. */
#include <stdio.h>

#include "@name.h"

static @name_state state;           /* all memory of one instance */
static @name_input x[@NAME_INPUTS]; /* put the codes of a step here */

int main(void)
{
    int failed = 0;
#if @NAME_SELF_TEST
    failed = @name_self_test(&state);
    printf("self-test: %s\\n", failed ? "FAILED" : "passed");
#endif
    @name_init(&state, 0);
    for (int t = 0; t < @NAME_STEPS; ++t) {
        @name_step(&state, x);
    }
    for (int i = 0; i < @NAME_OUTPUTS; ++i) {
        printf("%ld ", (long)@name_scores(&state)[i]);
    }
    printf("\\n");
    return failed;
}
"""
MAKEFILE = """CC      ?= cc
CFLAGS  ?= -O2
WARN    := -std=c99 -Wall -Wextra -Wpedantic -Wconversion

@name_example: main.c @name.c @name.h
\t$(CC) $(CFLAGS) $(WARN) -o $@ main.c @name.c

.PHONY: test size clean
test: @name_example
\t./@name_example

size: @name.c @name.h
\t$(CC) $(CFLAGS) $(WARN) -D@NAME_SELF_TEST=0 -c -o @name.o @name.c
\tsize -A @name.o

clean:
\trm -f @name_example @name.o
"""
CMAKE = """cmake_minimum_required(VERSION 3.10)
project(@name C)
set(CMAKE_C_STANDARD 99)
set(CMAKE_C_EXTENSIONS OFF)

add_library(@name STATIC @name.c @name.h)
target_include_directories(@name PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})

add_executable(@name_example main.c)
target_link_libraries(@name_example PRIVATE @name)
enable_testing()
add_test(NAME @name_self_test COMMAND @name_example)
"""
README = """# @name

A quantized spiking network as C99, written by spikequant. `@name.c` and `@name.h` are all that a firmware needs:
no floating point, no allocation, no global state, nothing of libc but `memcpy` and `memset`.

```c
static @name_state state;
@name_init(&state, 0);
for (...) {
    @name_step(&state, x);       /* @NAME_INPUTS codes */
}
const @name_score *scores = @name_scores(&state);
@name_reset(&state);             /* before the next sample */
```

`make test` builds the example and runs the self-test: embedded inputs, their scores, and a hash of every spike and
stored state. `-D@NAME_SELF_TEST=0` leaves the self-test out. `make size` shows what the compiler makes of it.

## Sizes

```
@sizes```
"""
TEMPLATES = {"main.c": MAIN, "Makefile": MAKEFILE, "CMakeLists.txt": CMAKE, "README.md": README}

__all__ = ["Sizes", "files", "measure", "sizes"]
