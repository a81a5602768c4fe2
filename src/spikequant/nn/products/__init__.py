"""Exact integer products by the fastest path that is proven for them."""

from spikequant.nn.products.choice import forget, timings
from spikequant.nn.products.force import PATHS, forced, use_path
from spikequant.nn.products.geometry import Geometry
from spikequant.nn.products.gradient_type import gradient_type, use_gradients
from spikequant.nn.products.layer import LayerProduct
from spikequant.nn.products.proof import Machine, Widths, layer_widths, refusal

__all__ = [
    "PATHS",
    "Geometry",
    "LayerProduct",
    "Machine",
    "Widths",
    "forced",
    "forget",
    "gradient_type",
    "layer_widths",
    "refusal",
    "timings",
    "use_gradients",
    "use_path",
]
