"""NIR: graphs out of files and objects, and integer networks as graphs that carry their integers."""

from spikequant.readers.nir_.load import load_nir
from spikequant.readers.nir_.plain import PlainGraph, plain_graph
from spikequant.readers.nir_.write import OPTIONS, files

__all__ = ["OPTIONS", "PlainGraph", "files", "load_nir", "plain_graph"]
