"""Which widths a target holds, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from spikequant.analyse.layer_facts import weight_errors
from spikequant.analyse.recount import Recount
from spikequant.analyse.score import Sensitivities
from spikequant.analyse.traces import Traces
from spikequant.law.errors import PlanError
from spikequant.nn import Synapse
from spikequant.plan import Plan
from spikequant.quantize.chips import has_one_scale, state_register
from spikequant.targets import Target


@dataclass(frozen=True)
class HeldWidths:
    """Of one network on one target.

    Attributes:
        target: the profile.
        weights: most bits of each layer's weights: what `quantize_` chooses where a plan leaves them open.
        state: bits of membranes, at most, or exactly where `state_is_fixed`.
        one_scale: one scale for all weights of a layer.
        recount: of the network.
    """

    target: Target
    weights: Mapping[str, int]
    state: int
    state_is_fixed: bool
    one_scale: bool
    recount: Recount

    @staticmethod
    def of(target: Target, recount: Recount) -> HeldWidths:
        """What the target makes of the network itself.

        Raises:
            Unsupported: it cannot do the network at all, with every reason.
        """
        dressed = recount.dressed(Plan(target=target.tag))
        most = {path: m.quantizer.bits for path, m in dressed.named_modules() if isinstance(m, Synapse)}
        state, fixed = state_register(target)
        return HeldWidths(target, most, state, fixed, has_one_scale(target), recount)

    def kept(self, layer: str, role: str, widths: Sequence[int]) -> list[int]:
        """Those that the target holds.

        Raises:
            PlanError: none of them.
        """
        most = self.state if role == "membrane" else self.weights.get(layer, 0)
        found = [bits for bits in widths if bits <= most]
        if not found:
            raise PlanError(
                f"allocate: {layer} {role}: none of the widths {list(widths)} fits the target {self.target.tag}, which "
                f"holds {most} bits there at most; allow fewer bits"
            )
        return found

    def check_states(self, asked: Iterable[int] | None) -> None:
        """Nothing is to be chosen where the target fixes its states.

        Raises:
            PlanError: widths are asked for all the same.
        """
        if self.state_is_fixed and asked is not None:
            raise PlanError(
                f"allocate: membrane_widths={sorted(asked)}; the target {self.target.tag} has states of {self.state} "
                "bits and no other: leave membrane_widths out"
            )

    def with_its_errors(self, sensitivities: Sensitivities) -> Sensitivities:
        """The same, with errors of one scale a layer where the target has but that."""
        if not self.one_scale or not isinstance(sensitivities, Traces) or sensitivities.facts is None:
            return sensitivities
        weights = self.recount.weights()
        rows = tuple(
            replace(row, squared_error=weight_errors(row.layer, weights[row.layer], per_channel=False))
            if row.role == "weight"
            else row
            for row in sensitivities.facts.rows
        )
        return replace(sensitivities, facts=replace(sensitivities.facts, rows=rows))
