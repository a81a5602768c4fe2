"""The network of an exploration, read once: its graph, its stages, and every stage quantized once per choice."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spikequant.analyse.counting import check_countable
from spikequant.capture import Graph, LayerwiseRunner, capture
from spikequant.explore.stages import Stage, calls_of, stages, summed_source
from spikequant.explore.tree import Node, Tree
from spikequant.frontends import read_or_undo
from spikequant.frontends.registry import put
from spikequant.law.errors import Unsupported
from spikequant.nn import Synapse
from spikequant.nn.copying import copied
from spikequant.plan import Plan
from spikequant.quantize import quantize_
from spikequant.quantize.calibrate import first_samples
from spikequant.quantize.choices import check_plan
from spikequant.quantize.groups import structure


class SharedNetwork:
    """A real network whose candidates share what they have in common.

    Args:
        model: the real network; it is copied.
        example: an input for the capture and for `quantize_`.
        calibration: inputs for `calibrate`.
        tree: keeps packed spikes; networks may share one.

    Raises:
        Unsupported: its layers do not stand in a row, so that nothing is shared; or it has no integer form.
        CaptureError: it has no static graph.
    """

    def __init__(self, model: nn.Module, example: Tensor, calibration: Sequence[Tensor], *, tree: Tree) -> None:
        self.model = copied(model).eval()
        self.calibration = tuple(calibration)
        self.few = len(first_samples(list(calibration)))
        self.example = example
        with read_or_undo(self.model), torch.no_grad():
            check_countable(self.model)
            self.graph: Graph = capture(self.model, self.example)
            self.found = structure(self.graph, self.model, self.example)
        self.runner = LayerwiseRunner(self.model, self.graph)
        self.stages: tuple[Stage, ...] = stages(self.found, self.model)
        self.summed = summed_source(self.stages, self.graph, self.model)
        self.calls, self.times, self.shown = calls_of(self.model, self.graph, self.example)
        if not all(self.runner.fits(x) for x in self.calibration):
            raise Unsupported("the calibration data have several numbers of time steps")
        self.tree, self.root = tree, Node(None, -1, "")
        self._fitted: dict[tuple[str, str], Tensor] = {}
        self._dressed: dict[tuple[int, str], dict[str, nn.Module]] = {}

    def skeleton(self) -> nn.Module:
        """A copy to put the layers of candidates in; parameters are shared."""
        return copy.deepcopy(self.model, self._memo())

    def dress(self, plan: Plan) -> None:
        """Quantize the stages of a plan that no earlier plan asked for; in one thread, as recording a graph is global.

        Raises:
            PlanError: a rule or a role of the plan applies to nothing.
            Unsupported, WidthError: as `quantize_` says it.
        """
        check_plan(plan, self.graph, self.model)
        if any((number, stage.key(plan)) not in self._dressed for number, stage in enumerate(self.stages)):
            model = self.skeleton()
            quantize_(model, plan, self.example, quiet=True)
            for number, stage in enumerate(self.stages):
                modules = {path: model.get_submodule(path) for path in stage.modules}
                self._dressed.setdefault((number, stage.key(plan)), modules)

    def dressed(self, number: int, plan: Plan) -> dict[str, nn.Module]:
        """Layers of a stage as `quantize_` makes them, ready to be calibrated; the plan was dressed before."""
        made, memo = self._dressed[number, self.stages[number].key(plan)], self._memo()
        return {path: copy.deepcopy(module, memo).eval() for path, module in made.items()}

    def fitted(self, path: str, weight_key: str, synapse: Synapse) -> Tensor:
        """The weight scale that a layer's quantizer fits, once for all candidates that give it the same one."""
        key = (path, weight_key)
        if key not in self._fitted:
            self._fitted[key] = synapse.fitted_scale()
        return self._fitted[key]

    def _memo(self) -> dict[int, nn.Parameter]:
        return {id(p): p for p in self.model.parameters()}


def place(model: nn.Module, modules: dict[str, nn.Module]) -> None:
    """Put layers in their places."""
    for path, module in modules.items():
        put(model, path, module)
