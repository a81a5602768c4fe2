"""lava-dl's HDF5 networks (``.net``), read without lava: h5py alone."""

from spikequant.frontends.lava.network import from_lava

__all__ = ["from_lava"]
