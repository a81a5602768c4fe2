"""Data sets with fixed splits, and batches of them.

``load("mnist")`` gives a `DataSet` by name: splits for training, validation and test that
never change, and ``batches(split)`` in the layout that models take.  ``names()`` lists them.

Below that, a loader such as `load_mnist` returns `ImageData`: uint8 pixels as they were
published, nothing scaled and nothing shuffled.  `ArrayBatches` turns arrays of your own into
the batches that the verbs of spikequant take.
"""

from spikequant.data.batches import ArrayBatches
from spikequant.data.cifar import load_cifar10, load_cifar100
from spikequant.data.dataset import Batches, DataSet, Source, Split
from spikequant.data.digits import load_digits
from spikequant.data.idx import read_idx
from spikequant.data.images import ImageData, ImageSplit
from spikequant.data.mnist import load_fashion_mnist, load_mnist
from spikequant.data.places import DATA_VARIABLE
from spikequant.data.registry import load, names

__all__ = [
    "DATA_VARIABLE",
    "ArrayBatches",
    "Batches",
    "DataSet",
    "ImageData",
    "ImageSplit",
    "Source",
    "Split",
    "load",
    "load_cifar10",
    "load_cifar100",
    "load_digits",
    "load_fashion_mnist",
    "load_mnist",
    "names",
    "read_idx",
]
