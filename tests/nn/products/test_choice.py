"""How a path is chosen, forced, refused and remembered; and that nothing global is left changed."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch

from spikequant.law.errors import Unsupported
from spikequant.nn.products import (
    PATHS,
    Geometry,
    LayerProduct,
    Machine,
    Widths,
    choice,
    float_paths,
    forced,
    refusal,
    use_path,
)  # fmt: skip

SPIKES = Widths(0, 1, -128, 127, 1000)
LAYER, CONV = Geometry((4, 8)), Geometry((4, 8, 3, 3), (1, 1), (1, 1), (1, 1))
FULL = Machine(vnni=True, bf16=True, compiled=True, compiled_vnni=True)
BARE = Machine(vnni=False, bf16=False, compiled=False, compiled_vnni=False)


@pytest.fixture
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKEQUANT_CACHE", str(tmp_path))
    monkeypatch.setattr(choice, "_chosen", {})
    return tmp_path


def test_all_paths_are_proven_for_spikes():
    assert [p for p in PATHS if refusal(p, SPIKES, CONV, FULL) is not None] == []


@pytest.mark.parametrize(
    ("path", "widths", "geometry", "machine", "reason"),
    [
        ("float32", Widths(0, 2**14, -8, 7, 2**10), LAYER, FULL, "sums reach 16777216, float32 is exact below 2^24"),
        ("float64", Widths(0, 2**43, -8, 7, 2**10), LAYER, FULL, "float64 is exact below 2^53"),
        ("float32_last", SPIKES, LAYER, FULL, "channels last is for convolutions"),
        ("bf16", Widths(0, 257, -8, 7, 10), LAYER, FULL, "operands reach 257, bfloat16 is exact to 256"),
        ("bf16", SPIKES, LAYER, BARE, "no bfloat16"),
        ("int8_vnni", Widths(0, 1, -129, 128, 10), LAYER, FULL, "codes from -129 to 128 do not fit 8 bits"),
        ("int8_vnni", Widths(-1, 128, -8, 7, 10), LAYER, FULL, "inputs from -1 to 128 do not fit 8 bits"),
        ("int8_onednn", SPIKES, LAYER, BARE, "saturate at 16 bits"),
        ("int8_onednn", Widths(0, 128, -8, 7, 10), CONV, BARE, "saturate at 16 bits"),
        ("events", SPIKES, CONV, BARE, "there is no C compiler"),
        ("events", Widths(-1, 1, -8, 7, 10), CONV, FULL, "events are counts from 0 up"),
        ("int8_vnni", SPIKES, Geometry((4, 8), groups=2), FULL, "groups are not in this kernel"),
    ],
)
def test_refusals_say_why(path, widths, geometry, machine, reason):
    assert reason in (refusal(path, widths, geometry, machine) or "")


def test_byte_convolutions_without_vnni_hold_to_127():
    assert refusal("int8_onednn", Widths(0, 127, -128, 127, 10), CONV, BARE) is None


def test_a_forced_path_that_is_not_proven_is_refused():
    layer = LayerProduct(LAYER)
    wide = Widths(0, 2**14, -8, 7, 2**10)
    with use_path("int8_onednn"), pytest.raises(Unsupported, match="path int8_onednn is not proven exact .* 2\\^24"):
        layer.sums(torch.ones(2, 8), torch.ones(4, 8), None, widths=wide, packs={})


def test_forcing_nests_and_ends(monkeypatch):
    assert forced() is None
    with use_path("float32"):
        with contextlib.suppress(RuntimeError), use_path("float64"):
            assert forced() == "float64"
            raise RuntimeError
        assert forced() == "float32"
    assert forced() is None
    monkeypatch.setenv("SPIKEQUANT_PATH", "events")
    assert forced() == "events"
    monkeypatch.setenv("SPIKEQUANT_PATH", "int9")
    with pytest.raises(Unsupported, match="no path 'int9'; expected one of float32, "):
        forced()


def test_times_are_kept_in_memory_and_on_disk(empty_cache, monkeypatch):
    ran = []
    candidates = {"slow": lambda: ran.append("slow") or torch.ones(2**20).cumsum(0), "fast": lambda: torch.ones(1)}
    assert choice.fastest("shape", candidates) == "fast"
    timed = len(ran)
    assert timed > 0
    assert choice.fastest("shape", candidates) == "fast"
    assert len(ran) == timed
    (file,) = empty_cache.glob("paths-*.json")
    assert set(json.loads(file.read_text())["shape"]) == {"slow", "fast"}
    monkeypatch.setattr(choice, "_chosen", {})
    assert choice.fastest("shape", candidates) == "fast"
    assert len(ran) == timed
    choice.forget()
    assert not list(empty_cache.glob("paths-*.json"))
    assert choice.timings("shape") == {}


def test_a_broken_or_unwritable_file_costs_only_time(empty_cache, monkeypatch):
    choice._file().write_text("[1, 2", encoding="utf-8")
    candidates = {"a": lambda: torch.ones(1), "b": lambda: torch.ones(1)}
    assert choice.fastest("shape", candidates) in candidates
    monkeypatch.setenv("SPIKEQUANT_CACHE", str(choice._file()))  # a file where a folder should be
    monkeypatch.setattr(choice, "_chosen", {})
    assert choice.fastest("shape", candidates) in candidates


def test_a_candidate_without_a_result_never_wins(empty_cache):
    assert choice.fastest("shape", {"none": lambda: None, "some": lambda: torch.ones(1)}) == "some"


@pytest.mark.parametrize("precision", ["bf16", "ieee"])
def test_precision_flags_come_back_after_an_exception(precision):
    backends = (torch.backends.mkldnn.conv, torch.backends.mkldnn.matmul)
    before = [backend.fp32_precision for backend in backends]
    try:
        torch.set_float32_matmul_precision("medium")
        held = [backend.fp32_precision for backend in backends]
        assert "bf16" in held
        with contextlib.suppress(RuntimeError), float_paths.float32_products(precision):
            assert {backend.fp32_precision for backend in backends} == {precision}
            raise RuntimeError
        assert [backend.fp32_precision for backend in backends] == held
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.fp32_precision = value


def test_taps_that_see_only_padding_are_left_out():
    geometry = Geometry((2, 3, 3, 3), (1, 1), (1, 1), (1, 1))
    smaller, part = geometry.trimmed((1, 5))
    assert smaller.kernel == (1, 3)
    assert smaller.padding == (0, 1)
    x, w = torch.rand(4, 3, 1, 5), torch.rand(2, 3, 3, 3)
    torch.testing.assert_close(smaller.apply(x, w[part]), geometry.apply(x, w))
    assert geometry.trimmed((2, 2)) is None
