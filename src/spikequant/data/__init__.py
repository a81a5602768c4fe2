"""Data sets with fixed splits, and batches of them.

``load("mnist")`` gives a `DataSet` by name: splits for training, validation and test that
never change, and ``batches(split)`` in the layout that models take.  ``names()`` lists them.

Below that, a loader such as `load_mnist` returns `ImageData`: uint8 pixels as they were
published, nothing scaled and nothing shuffled.  `ArrayBatches` turns arrays of your own into
the batches that the verbs of spikequant take.
"""

from spikequant.data.aedat2 import read_aedat2
from spikequant.data.aedat3 import read_aedat3
from spikequant.data.augment import EVENTS, IMAGES, Augment
from spikequant.data.batches import ArrayBatches
from spikequant.data.cifar import load_cifar10, load_cifar100
from spikequant.data.dataset import Batches, DataSet, Source, Split
from spikequant.data.digits import load_digits
from spikequant.data.dvs128 import load_aedat2, load_dvs128_objects
from spikequant.data.event_files import load_cifar10_dvs, load_ncaltech101
from spikequant.data.frames import Events
from spikequant.data.gesture import load_dvs_gesture
from spikequant.data.idx import read_idx
from spikequant.data.images import ImageData, ImageSplit
from spikequant.data.mnist import load_fashion_mnist, load_mnist
from spikequant.data.nmnist import load_nmnist
from spikequant.data.nmnist_events import read_nmnist
from spikequant.data.nmnist_raw import load_nmnist_raw
from spikequant.data.places import DATA_VARIABLE
from spikequant.data.registry import load, names
from spikequant.data.shd import load_shd, load_shd_train_test
from spikequant.data.shd_hdf5 import read_shd_hdf5

__all__ = [
    "DATA_VARIABLE",
    "EVENTS",
    "IMAGES",
    "ArrayBatches",
    "Augment",
    "Batches",
    "DataSet",
    "Events",
    "ImageData",
    "ImageSplit",
    "Source",
    "Split",
    "load",
    "load_aedat2",
    "load_cifar10",
    "load_cifar10_dvs",
    "load_cifar100",
    "load_digits",
    "load_dvs128_objects",
    "load_dvs_gesture",
    "load_fashion_mnist",
    "load_mnist",
    "load_ncaltech101",
    "load_nmnist",
    "load_nmnist_raw",
    "load_shd",
    "load_shd_train_test",
    "names",
    "read_aedat2",
    "read_aedat3",
    "read_idx",
    "read_nmnist",
    "read_shd_hdf5",
]
