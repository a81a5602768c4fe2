"""The header and the C file as text."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikequant.law.artifact import network_hash
from spikequant.law.formats import IntArray
from spikequant.law.network import NETWORK_VERSION
from spikequant.readers.c.program import MOST_STEPS, CProgram, gains_table
from spikequant.readers.c.types import literal
from spikequant.readers.c.weights import Table
from spikequant.readers.c.writer import plain_text

HEADER = """/* {name}: a quantized spiking network as integers, written by spikequant.

   No floating point, no allocation, no global state; several instances may run at once.
   Profile {target}, network format {version}, content SHA-256
   {sha256}

   Overflow: every sum is proven to fit its type; stored states saturate or wrap as their neuron says.
   Input: {inputs} codes a step, {low} to {high}{input_unit}{static}.
   Scores: {decoder} of {outputs} outputs{score_unit}; sums over time hold {most_steps} steps. */
#ifndef {guard}
#define {guard}

#include <stdint.h>

#ifdef __cplusplus
extern "C" {{
#endif

#define {upper}_INPUTS {inputs}
#define {upper}_INPUT_MIN {low_literal}
#define {upper}_INPUT_MAX {high_literal}
#define {upper}_OUTPUTS {outputs}
#define {upper}_STEPS {steps}
#define {upper}_STATIC_INPUT {is_static}
#define {upper}_STATE_BYTES {state_bytes}
#define {upper}_PROFILE "{target}"
#define {upper}_FORMAT {version}
#define {upper}_SHA256 "{sha256}"

/* The self-test and its vectors; compile with -D{upper}_SELF_TEST=0 to leave them out. */
#ifndef {upper}_SELF_TEST
#define {upper}_SELF_TEST 1
#endif

typedef {input_type} {name}_input;
typedef {score_type} {name}_score;

/* All memory of one instance; owned by the caller. */
typedef struct {name}_state {{
{members}}} {name}_state;

/* Begin with sample number `sample` (it seeds stochastic rounding; 0 is fine). */
void {name}_init({name}_state *s, uint32_t sample);

/* Forget the sample that was shown; the next one has the next number. */
void {name}_reset({name}_state *s);

/* One time step on {upper}_INPUTS codes{step_note}. */
void {name}_step({name}_state *s, const {name}_input *x);

/* {upper}_OUTPUTS scores after the last step. */
const {name}_score *{name}_scores(const {name}_state *s);

#if {upper}_SELF_TEST
/* 0 if the embedded vectors give their scores and every spike and state is as computed; uses `s`. */
int {name}_self_test({name}_state *s);
#endif

#ifdef __cplusplus
}}
#endif

#endif
"""

SOURCE = """/* {name}: see {name}.h.  Written by spikequant; do not edit. */
#include "{name}.h"

#include <stddef.h>
#include <string.h>

/* the state is not larger than the header says */
typedef char {name}_size_check[sizeof({name}_state) <= {upper}_STATE_BYTES ? 1 : -1];

{tables}{functions}
void {name}_init({name}_state *const s, const uint32_t sample)
{{
    unsigned char *const bytes = (unsigned char *)s;
    for (size_t i = 0; i < sizeof *s; ++i) {{
        bytes[i] = 0;
    }}
    s->sample = sample;
}}

void {name}_reset({name}_state *const s)
{{
    {name}_init(s, s->sample + 1u);
}}

void {name}_step({name}_state *const s, const {name}_input *const x)
{{
{step}}}

const {name}_score *{name}_scores(const {name}_state *const s)
{{
    return s->scores;
}}
"""

SELF_TEST = """
#if {upper}_SELF_TEST
{tables}
/* one word more in the hash of all spikes and states */
static uint32_t {name}_hash(const uint32_t hash, const uint32_t word)
{{
    return (hash ^ word) * UINT32_C(16777619);
}}

int {name}_self_test({name}_state *const s)
{{
    uint32_t hash = UINT32_C({start});
    int wrong = 0;
    {name}_init(s, 0);
    for (size_t n = 0; n < {samples}u; ++n) {{
        for (size_t t = 0; t < {steps}u; ++t) {{
            {name}_step(s, {name}_test_inputs + {offset});
{hashes}{trains}        }}
{totals}        {name}_reset(s);
    }}
    return wrong != 0 ? 1 : hash != UINT32_C({digest}) ? 2 : 0;
}}
#endif
"""


@dataclass(frozen=True, eq=False)
class SelfTest:
    """Vectors embedded in the program: codes ``[N, T or 1, inputs]``, scores ``[N, T or 1, outputs]``, the hash."""

    inputs: IntArray
    scores: IntArray
    steps: int
    digest: int


def header(program: CProgram) -> str:
    """The text of the header."""
    net, source = program.net, program.net.input
    unit = f", each worth {source.scale:.9g}" if source.scale is not None else ""
    worth = f", each worth {net.decoder.scale:.9g}" if net.decoder.scale != 1.0 else ""
    static = source.static
    return HEADER.format(
        name=program.prefix,
        upper=program.prefix.upper(),
        guard=f"{program.prefix.upper()}_H",
        target=plain_text(net.target, also="/"),
        version=NETWORK_VERSION,
        sha256=network_hash(net),
        inputs=int(np.prod(source.shape)),
        low=source.format.min,
        high=source.format.max,
        low_literal=literal(source.format.min) if source.format.min >= 0 else f"({literal(source.format.min)})",
        high_literal=literal(source.format.max),
        most_steps=MOST_STEPS,
        input_unit=unit,
        static=", the same at every step" if static else "",
        decoder=net.decoder.name,
        outputs=program.outputs,
        score_unit=worth,
        steps=net.steps,
        is_static=int(static),
        state_bytes=program.state_bytes,
        input_type=program.input_type.name,
        score_type=program.score.name,
        members="".join(f"    {text}\n" for text in _members(program)),
        step_note="; a static input is read in the first step only" if static else "",
    )


def _members(program: CProgram) -> list[str]:
    """Declarations of the state struct, the widest types first."""
    texts = [(member.ctype.bytes, member.text) for member in program.members]
    for k, slot in enumerate(program.slots):
        inner = "".join(f"        {member.text}\n" for member in slot)
        kind = "union" if len(slot) > 1 else "struct"
        texts.append((max(m.ctype.bytes for m in slot), f"{kind} {{\n{inner}    }} slot{k};"))
    return [text for _, text in sorted(texts, key=lambda pair: -pair[0])]


def source(program: CProgram, test: SelfTest | None) -> str:
    """The text of the C file."""
    tables = [*program.tables, *gains_table(program.net, program.prefix)]
    text = SOURCE.format(
        name=program.prefix,
        upper=program.prefix.upper(),
        tables="".join(table_text(table) + "\n" for table in tables),
        functions=program.functions,
        step=program.step,
    )
    return text + (_self_test(program, test) if test is not None else "")


def table_text(table: Table) -> str:
    """A constant array."""
    words = [literal(int(v)) for v in table.values.reshape(-1)]
    lines, line = [], ""
    for word in words:
        if len(line) + len(word) > 108:
            lines.append(line)
            line = ""
        line += f"{word}, "
    body = "\n    ".join([*lines, line.rstrip(", ")])
    return f"static const {table.ctype.name} {table.name}[{table.values.size}] = {{\n    {body}\n}};\n"


def test_tables(program: CProgram, test: SelfTest) -> list[Table]:
    """The embedded vectors."""
    return [
        Table(f"{program.prefix}_test_inputs", program.input_type, test.inputs, "", "vectors"),
        Table(f"{program.prefix}_test_scores", program.score, test.scores, "", "vectors"),
    ]


def _self_test(program: CProgram, test: SelfTest) -> str:
    net, name = program.net, program.prefix
    inputs, trains = int(np.prod(net.input.shape)), net.decoder.name.endswith("_train")
    hashes = []
    for node in net.neurons:
        size = program.layout.values[node.name].size
        for member, _ in program.neurons[node.name].values():
            hashes += [f"for (size_t i = 0; i < {size}u; ++i) {{"]
            hashes += [f"    hash = {name}_hash(hash, (uint32_t)s->{member}[i]);", "}"]
    rows = f"(n * {test.steps}u + t)" if trains else "n"
    check = [f"for (size_t i = 0; i < {program.outputs}u; ++i) {{"]
    check += [f"    wrong |= s->scores[i] != {name}_test_scores[{rows} * {program.outputs}u + i];", "}"]
    return SELF_TEST.format(
        name=name,
        upper=name.upper(),
        tables="".join(table_text(table) for table in test_tables(program, test)),
        samples=test.inputs.shape[0],
        steps=test.steps,
        offset=f"n * {inputs}u" if net.input.static else f"(n * {test.steps}u + t) * {inputs}u",
        hashes="".join(f"            {line}\n" for line in hashes),
        trains="".join(f"            {line}\n" for line in check) if trains else "",
        totals="" if trains else "".join(f"        {line}\n" for line in check),
        start=0x811C9DC5,
        digest=test.digest,
    )
