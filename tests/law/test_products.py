"""Linear maps of codes against torch's convolution in float64, and against plain Python."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.law.oracle import conv_rows, linear_rows

from spikequant.law.errors import Unsupported, WidthError
from spikequant.law.products import Product


def random_convolution(seed):
    """A convolution with everything that it may have, and an input."""
    dice, generator = random.Random(seed), np.random.default_rng(seed)
    axes, groups = dice.choice((1, 2)), dice.choice((1, 1, 2, 3))
    ins, outs = groups * dice.randint(1, 3), groups * dice.randint(1, 3)
    kernel = tuple(dice.randint(1, 4) for _ in range(axes))
    options = {
        "stride": tuple(dice.randint(1, 3) for _ in range(axes)),
        "padding": tuple(dice.randint(0, 3) for _ in range(axes)),
        "dilation": tuple(dice.randint(1, 3) for _ in range(axes)),
    }
    space = tuple((k - 1) * d + dice.randint(1, 5) for k, d in zip(kernel, options["dilation"], strict=True))
    pad = dice.choice((0, generator.integers(-3, 4, ins), generator.integers(-3, 4, ins)))
    codes = generator.integers(-8, 8, (outs, ins // groups, *kernel))
    product = Product(kind="conv", codes=codes, groups=groups, pad_code=pad, **options)
    return product, generator.integers(-5, 6, (2, ins, *space))


def by_torch(product, x):
    """The same with `torch.nn.functional`: the border is filled channel by channel."""
    x = torch.from_numpy(x).double()
    widths = [p for axis in reversed(product.padding) for p in (axis, axis)]
    pads = np.broadcast_to(np.asarray(product.pad_code), (x.shape[1],))
    x = torch.cat([F.pad(x[:, c : c + 1], widths, value=float(pads[c])) for c in range(x.shape[1])], dim=1)
    convolve = F.conv1d if len(product.padding) == 1 else F.conv2d
    weight = torch.from_numpy(product.codes).double()
    return convolve(x, weight, stride=product.stride, dilation=product.dilation, groups=product.groups).numpy()


@pytest.mark.parametrize("seed", range(150))
def test_convolutions(seed):
    product, x = random_convolution(seed)
    got = product.apply(x)
    assert got.dtype == np.int64
    assert np.array_equal(got, by_torch(product, x))
    assert got.shape[1:] == product.output_shape(x.shape[1:])
    if seed < 40:
        rows = conv_rows(product, x.shape[1:], got.shape[1:])
        flat = x.reshape(2, -1).tolist()
        assert got.reshape(2, -1).tolist() == [
            [c + sum(w * sample[k] for k, w in row) for c, row in rows] for sample in flat
        ]


def test_linear_maps_over_leading_axes():
    generator = np.random.default_rng(0)
    codes, x = generator.integers(-8, 8, (5, 7)), generator.integers(-3, 4, (2, 4, 7))
    product = Product(kind="linear", codes=codes)
    assert np.array_equal(product.apply(x), np.einsum("nsi,oi->nso", x, codes))
    assert product.output_shape((4, 7)) == (4, 5)
    rows = linear_rows(product, (4, 7))
    assert product.apply(x).reshape(2, -1).tolist() == [
        [sum(w * s[k] for k, w in row) for _, row in rows] for s in x.reshape(2, -1).tolist()
    ]


def test_sums_beyond_float64_stay_exact():
    codes = np.array([[2**30, -(2**30), 1]])
    x = np.array([[2**28, 2**28 - 1, 1]])  # 2^58 - (2^58 - 2^30) + 1
    product = Product(kind="linear", codes=codes)
    assert int(product.l1()[0]) * 2**28 >= 2**53
    assert product.apply(x).tolist() == [[2**30 + 1]]
    conv = Product(kind="conv", codes=codes[:, :, None], stride=(1,), padding=(0,), dilation=(1,))
    assert conv.apply(x[:, :, None]).tolist() == [[[2**30 + 1]]]


def test_sums_that_do_not_fit_are_refused():
    product = Product(kind="linear", codes=np.array([[2**31]]))
    assert product.apply(np.array([[2**30]])).tolist() == [[2**61]]
    with pytest.raises(WidthError, match=f"a sum of up to {2**62} does not fit 62 bits; use narrower codes or inputs"):
        product.apply(np.array([[2**31]]))


def test_row_sums():
    product = Product(kind="linear", codes=np.array([[3, -2, 0], [-1, -1, -5]]))
    assert product.l1().tolist() == [5, 7]
    positive, negative = product.positive_negative()
    assert (positive.tolist(), negative.tolist()) == ([3, 0], [-2, -7])


def test_the_pad_code_counts_in_the_bound():
    codes = np.array([[[2**30, 2**30]]])
    product = Product(
        kind="conv", codes=codes, stride=(1,), padding=(1,), dilation=(1,), pad_code=np.array([2**24 + 1])
    )
    assert product.apply(np.array([[[1]]])).tolist() == [[[2**30 * (2**24 + 2), 2**30 * (2**24 + 2)]]]


CONV = {"kind": "conv", "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1)}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"kind": "linear", "codes": np.zeros((2, 3, 1), int)},
            "a linear product takes codes [out, in], got the shape (2, 3, 1)",
        ),
        (
            {"kind": "lookup", "codes": np.zeros((2, 3), int)},
            "a product of the kind 'lookup'; expected 'linear' or 'conv'",
        ),
        ({**CONV, "codes": np.zeros((2, 3, 1), int)}, "a convolution takes 1 or 2 spatial axes with"),
        ({**CONV, "codes": np.zeros((1,) * 5, int)}, "a convolution takes 1 or 2 spatial axes with"),
        ({**CONV, "codes": np.zeros((1,) * 4, int), "stride": (1,)}, "'stride': (1,)"),
    ],
)
def test_refusals(options, text):
    with pytest.raises(Unsupported) as caught:
        Product(**options)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("product", "shape", "text"),
    [
        (
            Product(kind="linear", codes=np.zeros((2, 3), int)),
            (4,),
            "a linear product of 3 inputs was given the shape (4,)",
        ),
        (
            Product(**CONV, codes=np.zeros((2, 3, 2, 2), int)),
            (4, 5, 5),
            "a convolution of 3 channels was given the shape (4, 5, 5)",
        ),
        (
            Product(**CONV, codes=np.zeros((2, 3, 2, 2), int)),
            (3, 5),
            "a convolution of 3 channels was given the shape (3, 5)",
        ),
        (
            Product(**CONV, codes=np.zeros((2, 3, 2, 2), int)),
            (3, 1, 5),
            "a convolution with the kernel (2, 2) leaves nothing of the shape (3, 1, 5)",
        ),
        (
            Product(**CONV, codes=np.zeros((4, 1, 1, 1), int), groups=2),
            (4, 5, 5),
            "a convolution of 2 channels was given the shape (4, 5, 5)",
        ),
    ],
)
def test_shapes_that_do_not_fit(product, shape, text):
    with pytest.raises(Unsupported) as caught:
        product.output_shape(shape)
    assert text in str(caught.value)
