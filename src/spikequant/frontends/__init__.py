"""Front-ends: neurons of other libraries become neurons of the law; one file per library, none imported before use.

`from_ann` converts a ReLU network by rates.
"""

from spikequant.frontends.ann import ConvertedLayer, RateCodedNetwork, from_ann
from spikequant.frontends.cell import CellReading
from spikequant.frontends.check import check_reading
from spikequant.frontends.lava import from_lava
from spikequant.frontends.library import Library, Reading
from spikequant.frontends.nir import NirNetwork, NirReading, from_nir
from spikequant.frontends.recurrent import RecurrentReading
from spikequant.frontends.registry import Readings, Replacement, library_of, read_, read_or_undo
from spikequant.frontends.report import LayerReading, ReadingReport

__all__ = [
    "CellReading",
    "ConvertedLayer",
    "LayerReading",
    "Library",
    "NirNetwork",
    "NirReading",
    "RateCodedNetwork",
    "Reading",
    "ReadingReport",
    "Readings",
    "RecurrentReading",
    "Replacement",
    "check_reading",
    "from_ann",
    "from_lava",
    "from_nir",
    "library_of",
    "read_",
    "read_or_undo",
]
