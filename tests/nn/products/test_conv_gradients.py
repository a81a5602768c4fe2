"""Gradients of convolutions over many small pictures: by links and by events, those of oneDNN up to rounding."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from spikequant.nn.products import Geometry, Widths, conv_gradients, gradients, kernels
from spikequant.nn.products.byte_input import as_bytes

pytestmark = pytest.mark.skipif(not kernels.has_vnni(), reason="these kernels are for processors with VNNI")
CASES = [
    # images, inputs, outputs, size, kernel, stride, padding, dilation
    (17, 33, 70, (8, 8), (3, 3), (1, 1), (1, 1), (1, 1)),
    (9, 16, 32, (5, 7), (3, 3), (1, 1), (1, 1), (1, 1)),
    (70, 36, 40, (4, 4), (3, 3), (2, 2), (1, 1), (1, 1)),
    (65, 40, 33, (2, 2), (3, 3), (1, 1), (1, 1), (1, 1)),
    (16, 32, 64, (6, 5), (1, 1), (2, 2), (0, 0), (1, 1)),
    (16, 35, 64, (6, 5), (2, 3), (1, 1), (0, 2), (1, 1)),
    (20, 32, 33, (9, 9), (3, 3), (1, 1), (2, 2), (2, 2)),
    (20, 32, 33, (7, 1), (5, 1), (1, 1), (2, 0), (1, 1)),
    (16, 17, 50, (9, 7), (4, 5), (1, 1), (2, 2), (1, 1)),
    (3, 64, 64, (30, 30), (3, 3), (1, 1), (1, 1), (1, 1)),
]


def ways(case):
    return ("taps", "links") if case[5] == (1, 1) else ("links",)  # taps are for stride 1


def made(number, most):
    images, inputs, outputs, size, kernel, stride, padding, dilation = CASES[number]
    generator = torch.Generator().manual_seed(number)
    geometry = Geometry((outputs, inputs, *kernel), stride, padding, dilation)
    shape = (images, inputs, *size)
    x = (torch.rand(shape, generator=generator) < 0.2) * torch.randint(1, most + 1, shape, generator=generator)
    packed = as_bytes(x.float(), geometry, Widths(0, most, -8, 7, 10))
    g = torch.randn(packed.output_shape, generator=generator)
    weight = torch.randn(geometry.weight_shape, generator=generator)
    return geometry, x, packed, g, weight


def close(found, wanted):
    assert float(wanted.abs().max()) > 0.1
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max() + 1))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_input_gradient_of_links(number, threads):
    geometry, x, _, g, weight = made(number, 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = conv_gradients.input_gradient_of_links(g, x.shape, weight, geometry)
    finally:
        torch.set_num_threads(before)
    wanted = gradients._backward(g.double(), x.double(), weight.double(), geometry, (True, False))[0]
    assert found.is_contiguous(memory_format=torch.channels_last)
    close(found, wanted)


@pytest.mark.parametrize("most", [1, 3])
@pytest.mark.parametrize(("number", "how"), [(n, how) for n, c in enumerate(CASES) for how in ways(c)])
def test_the_weight_gradient_of_events(number, most, how):
    geometry, x, packed, g, weight = made(number, most)
    function = conv_gradients.weight_gradient_of_taps if how == "taps" else conv_gradients.weight_gradient_of_links
    wanted = gradients.weight_gradient(g.double(), x.double(), weight.double(), geometry)
    close(function(g, packed), wanted)


def test_the_number_of_threads_changes_no_bit():
    geometry, x, packed, g, weight = made(0, 1)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(
                (
                    conv_gradients.input_gradient_of_links(g, x.shape, weight, geometry),
                    conv_gradients.weight_gradient_of_taps(g, packed),
                    conv_gradients.weight_gradient_of_links(g, packed),
                )
            )
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_the_rule_is_of_shapes_and_density():
    square = Geometry((64, 64, 3, 3), (1, 1), (1, 1), (1, 1))
    strided = Geometry((64, 64, 3, 3), (2, 2), (1, 1), (1, 1))
    assert conv_gradients.gathered_by(square, (128, 64, 8, 8)) == "taps"
    assert conv_gradients.gathered_by(square, (128, 64, 2, 2)) == "links"
    assert conv_gradients.gathered_by(square, (32, 64, 2, 2)) == "taps"
    assert conv_gradients.gathered_by(strided, (128, 64, 8, 8)) == "links"
    assert conv_gradients.gathered_by(strided, (128, 64, 32, 32)) == ""
    assert conv_gradients.gathered_by(square, (128, 64, 64, 64)) == ""
    assert conv_gradients.suits_links(square, (128, 64, 8, 8))
    assert not conv_gradients.suits_links(square, (128, 64, 32, 32))
    sparse, dense = (as_bytes((torch.rand(16, 64, 8, 8) < live).float(), square, Widths(0, 1, -8, 7, 10))
                     for live in (0.1, 0.9))  # fmt: skip
    g = torch.randn(16, 64, 8, 8)
    assert conv_gradients.gathered(g, sparse) is not None
    assert conv_gradients.gathered(g, dense) is None


def test_sizes_are_those_of_the_kernels():
    text = Path(conv_gradients.__file__).with_suffix(".c").read_text(encoding="utf-8")
    for name in ("IMAGES", "NARROW", "NEAR_PLACES", "MOST_TAPS"):
        assert re.findall(rf"^#define {name} (\d+)", text, flags=re.MULTILINE) == [str(getattr(conv_gradients, name))]
