"""C99 text of a recorded program: one statement per term, no branches, no undefined behaviour.

Every temporary is `int32_t` where the proof allows it and `int64_t` otherwise, so no sum overflows.  A right shift of
a negative integer is implementation-defined in C99; ``~(~a >> n)`` shifts a non-negative one and equals the floor
(fixed-width types are two's complement by definition); compilers turn it into one instruction.  An overflow that
wraps is computed in unsigned arithmetic.
"""

from __future__ import annotations

from collections.abc import Mapping

from spikequant.law.rounding import Rounding
from spikequant.readers.c.types import INT32, INT64, CType, literal, local
from spikequant.readers.emit import Program, Term

SYMBOL = {"add": "+", "sub": "-", "mul": "*"}


class StepPrinter:
    """Prints programs; remembers which shift functions they need."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.shifts: set[tuple[Rounding, int]] = set()

    def lines(self, program: Program, inputs: Mapping[str, str], tables: Mapping[int, str]) -> list[str]:
        """Statements that leave each output in the expression `name_of` gives.

        Args:
            program: what to print.
            inputs: C expression by input name.
            tables: C expression by ``id`` of a table's term.
        """
        self.names: dict[int, str] = {}
        lines: list[str] = []
        for term in program.terms:
            if term.constant is not None:
                self.names[id(term)] = literal(term.constant)
                continue
            name = f"t{len(self.names)}"
            if term.known is not None:
                known = f"{term.name}_int" if term.name else f"k{len(self.names)}"
                name, text = known if known not in self.names.values() else f"k{len(self.names)}", tables[id(term)]
            elif term.word == "input":
                name, text = local_name(term.name), inputs[term.name]
            else:
                text = self.expression(term)
            kind = "uint32_t" if name.startswith("noise_") else type_of(term).name
            lines.append(f"const {kind} {name} = {text};")
            self.names[id(term)] = name
        return lines

    def name_of(self, term: Term) -> str:
        """The expression of a term that was printed."""
        return self.names[id(term)]

    def expression(self, term: Term) -> str:
        """Right-hand side of a statement."""
        a, *rest = (self.names[id(x)] for x in term.args)
        values = term.args[:1] if term.word == "shr" else term.args
        wide = max(x.bits for x in (type_of(term), *map(type_of, values)))
        result = getattr(self, f"_word_{term.word}")(term, wide, a, *rest)
        return f"(int32_t)({result})" if wide == 64 and type_of(term) == INT32 and term.word != "ge" else str(result)

    def _arithmetic(self, term: Term, wide: int, a: str, b: str) -> str:
        widen = wide == 64 and all(type_of(x) == INT32 for x in term.args)
        return f"{'(int64_t)' if widen else ''}{a} {SYMBOL[term.word]} {bracket(b)}"

    _word_add = _word_sub = _word_mul = _arithmetic

    def _word_ge(self, term: Term, wide: int, a: str, b: str) -> str:
        return f"({a} >= {b})"

    def _word_where(self, term: Term, wide: int, condition: str, a: str, b: str) -> str:
        return f"{condition} ? {a} : {b}"

    def _word_max(self, term: Term, wide: int, a: str, b: str) -> str:
        return f"{a} > {b} ? {a} : {b}"

    def _word_clip(self, term: Term, wide: int, a: str) -> str:
        low, high = term.detail
        below, above = term.args[0].low < low, term.args[0].high > high
        inner = f"{a} > {literal(high)} ? {literal(high)} : {a}" if above else a
        return f"{a} < {literal(low)} ? {literal(low)} : {inner}" if below else inner

    def _word_wrap(self, term: Term, wide: int, a: str) -> str:
        bits, low = term.detail
        narrow, wide = wide, max(wide, 64 if bits > 31 else 32)
        unsigned = f"uint{wide}_t"
        minus = f" - ({unsigned}){bracket(literal(low))}" if low else ""
        inside = f"((({unsigned}){a}{minus}) & UINT{wide}_C({2**bits - 1}))"
        back = f"(int{wide}_t){inside}" + (f" {'-' if low < 0 else '+'} {literal(abs(low))}" if low else "")
        return f"(int32_t)({back})" if narrow < wide and type_of(term) == INT32 else back

    def _word_shr(self, term: Term, wide: int, a: str, n: str, noise: str = "") -> str:
        rounding: Rounding = term.detail[0]
        value, shift = term.args[0], term.args[1]
        if rounding == "floor" and value.low >= 0:
            return f"{a} >> {n}" if shift.high < wide else f"(int32_t)((int64_t){a} >> {n})"
        width = 64 if wide == 64 or shift.high > 31 else 32
        self.shifts.add((rounding, width))
        call = f"{self.prefix}_shr_{rounding}{width}({a}, {n}{', ' + noise if noise else ''})"
        return f"(int32_t){call}" if width == 64 and wide == 32 else call

    def functions(self) -> str:
        """Definitions of the shift functions that the printed programs call."""
        texts = []
        for width in (32, 64):
            kinds = sorted(rounding for rounding, w in self.shifts if w == width)
            if kinds:
                texts.append(_substitute(FLOOR, self.prefix, width))
                texts += [_substitute(REMAINDER, self.prefix, width)] if kinds != ["floor"] else []
                texts += [_substitute(HALF, self.prefix, width)] if any("half" in kind for kind in kinds) else []
                texts += [_substitute(ROUNDED[kind], self.prefix, width) for kind in kinds if kind != "floor"]
        return "\n".join(texts)


def local_name(name: str) -> str:
    """Name of the C variable of an input: ``v`` alone could be anything."""
    return f"old_{name}" if len(name) == 1 else name


def type_of(term: Term) -> CType:
    """Type of the C variable of a term."""
    return local(term.low, term.high) if term.high < 2**62 else INT64


def bracket(text: str) -> str:
    """A negative literal in parentheses."""
    return f"({text})" if text.startswith("-") else text


def _substitute(text: str, prefix: str, width: int) -> str:
    unsigned = f"uint{width}_t"
    for mark, value in (("@P", prefix), ("@I", f"int{width}_t"), ("@U", unsigned), ("@W", str(width))):
        text = text.replace(mark, value)
    return text


FLOOR = """/* floor(a / 2^n) without shifting a negative number */
static inline @I @P_shr_floor@W(@I a, int32_t n)
{
    return a < 0 ? ~(~a >> n) : a >> n;
}
"""
REMAINDER = """/* a - floor(a / 2^n) * 2^n: the bits that are cut off */
static inline @U @P_cut@W(@I a, int32_t n)
{
    return (@U)a & (((@U)1 << n) - 1u);
}
"""
HALF = """/* half of 2^n; for n = 0 nothing is cut off, so never a half */
static inline @U @P_half@W(int32_t n)
{
    return n > 0 ? (@U)1 << (n - 1) : 1u;
}
"""
ROUNDED: Mapping[Rounding, str] = {
    "toward_zero": """static inline @I @P_shr_toward_zero@W(@I a, int32_t n)
{
    return @P_shr_floor@W(a, n) + (a < 0 && @P_cut@W(a, n) != 0);
}
""",
    "half_up": """static inline @I @P_shr_half_up@W(@I a, int32_t n)
{
    return @P_shr_floor@W(a, n) + (@P_cut@W(a, n) >= @P_half@W(n));
}
""",
    "half_away": """static inline @I @P_shr_half_away@W(@I a, int32_t n)
{
    const @U cut = @P_cut@W(a, n);
    return @P_shr_floor@W(a, n) + (a < 0 ? cut > @P_half@W(n) : cut >= @P_half@W(n));
}
""",
    "half_even": """static inline @I @P_shr_half_even@W(@I a, int32_t n)
{
    const @I q = @P_shr_floor@W(a, n);
    const @U cut = @P_cut@W(a, n);
    return q + (cut > @P_half@W(n) || (cut == @P_half@W(n) && (q & 1) != 0));
}
""",
    "stochastic": """/* the lowest n bits of the noise word are added below the cut, n <= 32 */
static inline @I @P_shr_stochastic@W(@I a, int32_t n, uint32_t noise)
{
    const uint64_t low = (uint64_t)noise & ((UINT64_C(1) << n) - 1u);
    return @P_shr_floor@W(a, n) + ((uint64_t)@P_cut@W(a, n) + low >= (UINT64_C(1) << n));
}
""",
}

__all__ = ["INT32", "INT64", "StepPrinter", "bracket", "type_of"]
