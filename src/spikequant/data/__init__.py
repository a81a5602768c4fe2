"""Data sets as plain arrays, and batches of them.

A loader returns `ImageData`: uint8 pixels as they were published, nothing scaled and
nothing shuffled.  `ArrayBatches` turns a split into the batches that the verbs of
spikequant take.
"""

from spikequant.data.batches import ArrayBatches
from spikequant.data.digits import load_digits
from spikequant.data.idx import read_idx
from spikequant.data.images import ImageData, ImageSplit
from spikequant.data.mnist import load_fashion_mnist, load_mnist

__all__ = [
    "ArrayBatches",
    "ImageData",
    "ImageSplit",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "read_idx",
]
