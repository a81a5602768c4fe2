"""Which float type carries the integers of a neuron group.

Proven when it is first needed behind a change of mode or of state; where an earlier proof still holds, by that one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from spikequant.law.bounds import StepBounds
from spikequant.nn.group_widths import SINGLE_BITS, Integers, Proven, prove_group, proven_single
from spikequant.nn.inference import ordinary_tensors
from spikequant.nn.layer import NeuronLayer
from spikequant.nn.program import ProgramCache

if TYPE_CHECKING:
    from spikequant.nn.quantized_neuron import QuantizedNeuron


class CarriedLayer(NeuronLayer):
    """The part of a `QuantizedNeuron` that knows its float type; abstract."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self.programs = ProgramCache()
        self._double, self._is_proven = False, True
        self._proven: Proven | None = None

    @property
    def needs_double(self) -> bool:
        """Whether float64 carries the integers; proven anew at the first question behind a change of mode or state."""
        if not self._is_proven:
            with ordinary_tensors():
                self._find(self._found())
        return self._double

    @needs_double.setter
    def needs_double(self, double: bool) -> None:
        self._double, self._is_proven = double, True

    @property
    def _whole(self) -> QuantizedNeuron:
        return cast("QuantizedNeuron", self)

    def _found(self) -> Integers:
        """The integers of now: for the program that is made next, too, if no batch norm changes them in between."""
        if all(branch.norm is None for branch in self._whole.branches):
            return self.programs.integers(self._whole)
        with torch.no_grad():
            return self._whole.integers()

    def _load_from_state_dict(self, *given: Any) -> None:
        super()._load_from_state_dict(*given)
        self._is_proven = not self._whole.branches  # also of stored integers: others may be wider

    def prove_later(self, *, at_once: bool) -> None:
        """Forget the float type.  Codes are then made once, with their graph where there is one.

        `at_once`: a batch norm changes what it folds in between.
        """
        self._is_proven = False
        if at_once:
            with torch.no_grad():
                self._find(self._whole.integers())

    def _find(self, found: Integers) -> None:
        """Prove which float type holds the integers; quickly where those of an earlier proof are close."""
        self._proven = proven_single(self._whole, found, self._proven)
        if self._proven is None:
            self.prove(found)
        else:
            self.needs_double = False

    def prove(self, found: Integers, *, reach: bool = False) -> StepBounds:
        """Widths of one step, from bit widths and the L1 bound of the codes; `reach` looks for dead neurons."""
        bounds = prove_group(self._whole, found, reach=reach)
        self.needs_double = bounds.accumulator_bits > SINGLE_BITS
        return bounds
