"""C text of `row`: add one row of packed codes, times an input, to the sums."""

from __future__ import annotations

from spikequant.readers.c.types import CType, literal
from spikequant.readers.c.weights import Packed

FIELD = """/* the {bytes} bytes that hold a field of up to {most} bits, lowest bits first */
static inline uint32_t {prefix}_field{bytes}(const uint8_t *p, size_t bit, uint32_t mask)
{{
    const uint8_t *const b = p + bit / 8u;
    return ({word} >> (bit % 8u)) & mask;
}}
"""
WORDS = {
    2: "((uint32_t)b[0] | (uint32_t)b[1] << 8)",
    3: "((uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16)",
}


def row_function(packed: Packed, prefix: str, name: str, sums: CType, *, binary: bool) -> str:
    """The function ``<name>_row(acc, k[, x])``; without `x` where the input is 0 or 1."""
    x = "" if binary else f", const {factor(sums)} x"
    head = f"static void {name}_row({sums.name} *restrict const acc, const size_t k{x})\n{{\n"
    body = _sparse(packed, prefix, name, sums, binary) if packed.sparse else _dense(packed, prefix, name, sums, binary)
    return head + "".join(f"    {line}\n" for line in body) + "}\n"


def factor(sums: CType) -> str:
    """Type in which an input is multiplied by a code."""
    return "int64_t" if sums.bits == 64 else "int32_t"


def field_functions(packings: list[Packed], prefix: str) -> str:
    """Definitions of the readers of fields that straddle bytes."""
    needed = sorted({field_bytes(p) for p in packings} - {0, 1})
    most = {2: 9, 3: 15}
    texts = [FIELD.format(prefix=prefix, bytes=n, most=most[n], word=WORDS[n]) for n in needed]
    return "\n".join(texts)


def field_bytes(packed: Packed) -> int:
    """How many bytes a field is read from; 0 for ordinary arrays."""
    width = packed.decode.width
    if packed.native:
        return 0
    return 1 if width in (1, 2, 4) else 2 if width <= 9 else 3


def _accumulate(target: str, code: str, sums: CType, binary: bool) -> str:
    """Statement that adds a code, times x."""
    term = code if binary else f"{code} * x"
    if sums.bits < 32:
        return f"{target} = ({sums.name})({target} + {term});"
    return f"{target} += {term};"


def _code(packed: Packed, name: str, field: str, sums: CType, column: str) -> str:
    """The code of a field of an output, an expression of the type in which it is multiplied."""
    decode, kind = packed.decode, factor(sums)
    if decode.per_output:
        return f"({kind}){name}_levels[({column}) * {2**decode.width}u + ({field})]"
    if decode.kind == "levels":
        return f"({kind}){name}_levels[{field}]"
    if decode.kind == "affine":
        scaled = f"({kind})({field})" + (f" * {decode.gain}" if decode.gain != 1 else "")
        sign = "-" if decode.low < 0 else "+"
        return f"({scaled} {sign} {literal(abs(decode.low))})" if decode.low else f"({scaled})"
    if packed.native:
        return f"({kind}){field}"
    half = 2 ** (decode.width - 1)
    return f"(({kind})(({field}) ^ {half}u) - {half})"


def _field(packed: Packed, prefix: str, data: str, index: str) -> str:
    """The field at a running index of all fields."""
    width, mask, n = packed.decode.width, 2**packed.decode.width - 1, field_bytes(packed)
    if packed.native:
        return f"{data}[{index}]"
    if n == 1:
        per = 8 // width
        return f"((uint32_t){data}[({index}) / {per}u] >> (({index}) % {per}u * {width}u)) & {mask}u"
    return f"{prefix}_field{n}({data}, ({index}) * {width}u, {mask}u)"


def _sparse(packed: Packed, prefix: str, name: str, sums: CType, binary: bool) -> list[str]:
    code = _code(packed, name, _field(packed, prefix, f"{name}_codes", "j"), sums, f"{name}_columns[j]")
    return [
        f"for (size_t j = {name}_starts[k]; j < {name}_starts[k + 1u]; ++j) {{",
        f"    {sums.name} *const a = acc + {name}_columns[j];",
        f"    {_accumulate('*a', code, sums, binary)}",
        "}",
    ]


def _dense(packed: Packed, prefix: str, name: str, sums: CType, binary: bool) -> list[str]:
    columns, width = packed.columns, packed.decode.width
    if packed.native:
        ctype = packed.tables[0].ctype.name
        head = f"const {ctype} *restrict const w = {name}_codes + k * {columns}u;"
        body = _accumulate("acc[o]", _code(packed, name, "w[o]", sums, "o"), sums, binary)
        return [head, f"for (size_t o = 0; o < {columns}u; ++o) {{", f"    {body}", "}"]
    if packed.aligned and width in (1, 2, 4):
        return _bytewise(packed, name, sums, binary)
    first = []
    if packed.aligned:
        first = [f"const uint8_t *restrict const w = {name}_codes + k * {packed.stride}u;"]
        field = f"{prefix}_field{field_bytes(packed)}(w, o * {width}u, {2**width - 1}u)"
    else:
        field = _field(packed, prefix, f"{name}_codes", f"k * {columns}u + o")
    code = _code(packed, name, field, sums, "o")
    body = _accumulate("acc[o]", code, sums, binary)
    return [*first, f"for (size_t o = 0; o < {columns}u; ++o) {{", f"    {body}", "}"]


def _bytewise(packed: Packed, name: str, sums: CType, binary: bool) -> list[str]:
    """A loop over whole bytes, then the fields of the last, incomplete one."""
    width, columns = packed.decode.width, packed.columns
    per, mask = 8 // width, 2**width - 1
    full, rest = columns // per, columns % per

    def at(byte: str, k: int) -> str:
        shifted = f"{byte} >> {k * width}" if k else byte
        return f"({shifted}) & {mask}u"

    lines = [f"const uint8_t *restrict const w = {name}_codes + k * {packed.stride}u;"]
    if full:
        lines.append(f"for (size_t o = 0; o < {full}u; ++o) {{")
        lines += ["    const uint32_t b = w[o];", f"    {sums.name} *const a = acc + o * {per}u;"]
        for k in range(per):
            code = _code(packed, name, at("b", k), sums, f"o * {per}u + {k}u")
            lines.append(f"    {_accumulate(f'a[{k}]', code, sums, binary)}")
        lines.append("}")
    if rest:
        lines.append(f"const uint32_t rest = w[{full}];")
        for k in range(rest):
            code = _code(packed, name, at("rest", k), sums, f"{full * per + k}u")
            lines.append(_accumulate(f"acc[{full * per + k}]", code, sums, binary))
    return lines
