"""A layer of another library that is more than its neurons: one module to its users, several to the law."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import nn

from spikequant.nn import NeuronLayer

INSIDE = "cell."


class CellReading(nn.Module):
    """A module with its neurons as the submodule `cell`, which `quantize_` exchanges.

    In a `state_dict` the names of the cell stand without ``cell.``, as they stood in the
    layer that was read.

    Attributes:
        names: what else is called differently inside: name here -> name in the layer that was read.
    """

    cell: NeuronLayer
    names: ClassVar[dict[str, str]] = {}

    def __init__(self, cell: NeuronLayer) -> None:
        super().__init__()
        self.cell = cell
        self.register_state_dict_post_hook(_outer_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_inner_names)  # type: ignore[no-untyped-call]

    @property
    def own_names(self) -> tuple[str, ...]:
        """What stands beside the cell's names in a `state_dict` and is not the cell's."""
        return tuple(self.names.values())

    def put_to_rest(self) -> None:
        """Forget all states."""
        self.cell.reset()


def _outer_names(module: nn.Module, record: dict[str, Any], prefix: str, _metadata: Any) -> None:
    assert isinstance(module, CellReading)
    start = f"{prefix}{INSIDE}"
    for name in [name for name in record if name.startswith(start)]:
        record[prefix + name[len(start) :]] = record.pop(name)
    for inner, outer in module.names.items():
        if prefix + inner in record:
            record[prefix + outer] = record.pop(prefix + inner)


def _inner_names(module: nn.Module, record: dict[str, Any], prefix: str, *_rest: Any) -> None:
    assert isinstance(module, CellReading)
    inside = {outer: inner for inner, outer in module.names.items()}
    inside.update({name: f"{INSIDE}{name}" for name in (*module.cell.state_dict(), "_extra_state")})
    for outer, inner in inside.items():
        if prefix + outer in record:
            record[prefix + inner] = record.pop(prefix + outer)
