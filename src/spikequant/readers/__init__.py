"""Readers run or print an `IntNet`; none of them imports torch.  They are loaded when they are named."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikequant.readers import golden as golden
    from spikequant.readers import onnx_ as onnx_
    from spikequant.readers import registry as registry

_READERS = ("golden", "onnx_", "registry")


def __getattr__(name: str) -> Any:
    if name in _READERS:
        return importlib.import_module(f"spikequant.readers.{name}")
    raise AttributeError(f"module 'spikequant.readers' has no attribute {name!r}; it has {', '.join(_READERS)}")
