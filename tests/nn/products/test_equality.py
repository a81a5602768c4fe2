"""Every path gives the same sums, bit for bit, wherever it is proven."""

from __future__ import annotations

import pytest
import torch
from tests.nn.products.cases import case

from spikequant.law.errors import Unsupported
from spikequant.nn.products import PATHS, Geometry, LayerProduct, Widths, kernels, use_path

SEEDS = range(12)
CASES_PER_SEED = 12


@pytest.mark.parametrize("path", [path for path in PATHS if path != "bf16"])
@pytest.mark.parametrize("seed", SEEDS)
def test_sums_are_those_of_float64(path, seed):
    ran, alive = 0, 0.0
    for k in range(CASES_PER_SEED):
        made = case(1000 * seed + k)
        with use_path(path):
            try:
                sums, taken = made.sums()
            except Unsupported:
                continue
        expected = made.plainly(made.x.double(), made.codes.double())
        assert taken == path
        assert torch.equal(sums.double(), expected), (made.geometry, tuple(made.x.shape))
        ran += 1
        alive += float(expected.abs().sum())
    assert alive > 0 or ran == 0


@pytest.mark.skipif(not kernels.has_vnni(), reason="rows of bytes are for processors with VNNI")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("outputs", [128, 131, 300])
def test_spikes_of_a_wide_matrix_add_rows_of_bytes(outputs, threads):
    generator = torch.Generator().manual_seed(outputs)
    x = (torch.rand(150, 203, generator=generator) < 0.2).float()
    codes = torch.randint(-128, 128, (outputs, 203), generator=generator).float()
    gain = torch.randint(1, 9, (outputs,), generator=generator).double()
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with use_path("events"):
            layer = LayerProduct(Geometry((outputs, 203)))
            sums = layer.sums(x, codes, gain, widths=Widths(0, 1, -128, 127, 203 * 128), packs={})
            assert layer.path == "events"
            soft = layer.sums(x, codes + 0.5, gain, widths=Widths(0, 1, -128, 127, 203 * 128), packs={})
    finally:
        torch.set_num_threads(before)
    assert torch.equal(sums.double(), (x.double() @ codes.double().t()) * gain)
    assert layer.path == "float32"  # no bytes
    torch.testing.assert_close(soft, (x @ (codes + 0.5).t()) * gain.float())


@pytest.mark.parametrize("seed", SEEDS)
def test_the_chosen_path_is_exact(seed):
    for k in range(CASES_PER_SEED):
        made = case(5000 + 1000 * seed + k)
        sums, _ = made.sums()
        assert torch.equal(sums.double(), made.plainly(made.x.double(), made.codes.double()))


@pytest.mark.parametrize("path", ["int8_onednn", "int8_vnni", "events", "float32"])
def test_what_was_not_promised_is_summed_in_float(path):
    made = case(3)
    x = made.x.clone()
    x.view(-1)[0] = 0.5
    expected, _ = made.sums(x) if path == "float32" else (made.plainly(x, made.codes), "")
    with use_path(path):
        try:
            sums, taken = made.sums(x)
        except Unsupported:
            pytest.skip("this path is not proven on this machine")
    assert taken == "float32"
    torch.testing.assert_close(sums, expected)


def test_sums_above_24_bits_take_float64():
    made = case(0)
    wide = type(made)(**{**made.__dict__, "widths": Widths(0, 2**20, -128, 127, 2**10)})
    sums, taken = wide.sums()
    assert taken == "float64"
    assert sums.dtype == torch.float64


def test_a_shown_input_is_summed_once():
    made = next(c for c in map(case, range(50)) if c.x.dim() == len(c.geometry.weight_shape) and c.geometry.is_conv)
    shown = made.x[None].expand(7, *made.x.shape)
    sums, _ = made.sums(shown)
    assert sums.stride(0) == 0
    assert sums.shape[0] == 7
    assert torch.equal(sums[3].double(), made.plainly(made.x.double(), made.codes.double()))


@pytest.mark.parametrize("path", [path for path in PATHS if path != "bf16"])
def test_a_gain_without_gained_weights_multiplies_the_sums(path):
    for seed in range(20):
        made, layer, packs = case(seed), LayerProduct(case(seed).geometry), {}
        for gain in (made.gain, -2 * made.gain):  # batch norm moves it while the codes stay
            try:
                with use_path(path):
                    sums = layer.sums(made.x, made.codes, gain, widths=made.widths, packs=packs, pad=made.pad)
            except Unsupported:
                continue
            wanted = type(made)(**{**made.__dict__, "gain": gain}).plainly(made.x.double(), made.codes.double())
            assert torch.equal(sums.double(), wanted)
