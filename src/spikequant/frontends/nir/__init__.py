"""NIR graphs and files as networks: the parts of the reader, from the file to the torch module."""

from spikequant.frontends.nir.network import NirNetwork, NirReading
from spikequant.frontends.nir.read import from_nir

__all__ = ["NirNetwork", "NirReading", "from_nir"]
