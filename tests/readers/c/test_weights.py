"""Packing: every width and length, there and back in Python and in C; the bytes of ONNX at 2 and 4 bits."""

from __future__ import annotations

import ctypes
import os
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikequant.readers.c.rows import field_functions, row_function
from spikequant.readers.c.text import table_text
from spikequant.readers.c.types import CType
from spikequant.readers.c.weights import choose, pack, pack_bits, unpack_bits
from spikequant.readers.native import find_compiler


@pytest.mark.parametrize("width", range(1, 17))
def test_bits_come_back_at_every_length(width):
    generator = np.random.default_rng(width)
    for length in range(258):
        for fields in (
            generator.integers(0, 2**width, length),
            np.full(length, 2**width - 1),
            np.zeros(length, dtype=np.int64),
        ):
            data = pack_bits(fields.reshape(1, -1), width)
            assert len(data) == -(-length * width // 8)
            assert np.array_equal(unpack_bits(data, length, width), fields)


def test_bytes_of_onnx():
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    codes = np.random.default_rng(0).integers(-8, 8, 33)
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.INT4, [33], codes.tolist())
    held = tensor.raw_data or bytes(v & 255 for v in tensor.int32_data)
    assert bytes(pack_bits((codes & 15).reshape(1, -1), 4).tolist()) == held


@given(st.integers(1, 16), st.data())
def test_chosen_fields_stay_inside_the_declared_width(bits, data):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if bits > 1 else (-1, 0)
    codes = np.array(data.draw(st.lists(st.integers(low, high), min_size=1, max_size=20)), dtype=np.int64)
    decode = choose(codes, bits)
    fields = decode.fields(codes)
    assert decode.width <= bits
    assert 0 <= int(fields.min()) <= int(fields.max()) < 2**decode.width


def rows_of(bits, columns, kind, generator):
    """Codes of three rows, with the extremes of their width."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if bits > 1 else (-1, 1)
    codes = generator.integers(low, high + 1, (3, columns)) if bits > 1 else generator.choice([-1, 1], (3, columns))
    if kind == "levels" and bits < 8:
        codes = np.sort(generator.choice(np.arange(-3000, 3000), 2**bits, replace=False))[
            generator.integers(0, 2**bits, (3, columns))
        ]
    if kind == "sparse":
        codes = np.where(generator.random(codes.shape) < 0.1, codes, 0)
    if bits > 1 and kind == "plain":
        codes[0, 0], codes[-1, -1] = low, high
    return codes


def test_rows_come_back_in_c(tmp_path):
    compiler = find_compiler()
    if compiler is None:
        pytest.skip("no C compiler was found")
    generator, cases, texts = np.random.default_rng(0), [], []
    for bits in range(1, 17):
        for columns in (*range(1, 18), 31, 32, 33, 64, 255, 257):
            for kind in ("plain", "levels", "sparse") if columns > 30 else ("plain",):
                name = f"w{bits}_{columns}_{kind}"
                codes = rows_of(bits, columns, kind, generator)
                packed = pack(codes, bits, name, "fc")
                cases.append((name, codes, packed))
                texts += [table_text(table) for table in packed.tables]
                text = row_function(packed, "p", name, CType(32, True), binary=False)
                texts.append(f"{text.split(')')[0].removeprefix('static ')});\n{text.removeprefix('static ')}")
    assert {p.decode.kind for _, _, p in cases} == {"twos", "affine", "levels"}
    assert sum(p.sparse for _, _, p in cases) > 10
    source = (
        "#include <stdint.h>\n#include <stddef.h>\n" + field_functions([p for _, _, p in cases], "p") + "\n".join(texts)
    )
    (tmp_path / "rows.c").write_text(source)
    sanitize = ["-std=c99", "-O1", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-fPIC", "-shared"]
    subprocess.run([compiler, *sanitize, "-o", "rows.so", "rows.c"], cwd=tmp_path, check=True)
    loaded = ctypes.CDLL(os.fspath(tmp_path / "rows.so"))
    for name, codes, _ in cases:
        for k in range(len(codes)):
            sums = np.full(codes.shape[1] + 2, 7, dtype=np.int32)
            getattr(loaded, f"{name}_row")(ctypes.c_void_p(sums.ctypes.data), ctypes.c_size_t(k), ctypes.c_int32(-3))
            assert np.array_equal(sums[:-2], 7 - 3 * codes[k]), name
            assert sums[-2:].tolist() == [7, 7], f"{name} writes beyond its row"
