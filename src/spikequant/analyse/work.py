"""What a sample costs to run, from the operations of its layers and what the network stores."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from spikequant.analyse.probe import Observation
from spikequant.law.errors import DataError
from spikequant.measure import EnergyPj, MemoryRow, energy_pj, moved_bits
from spikequant.measure.synops import SynOpsMean


@dataclass(frozen=True)
class Work:
    """Of one sample.

    Attributes:
        operations: effective operations of every weighted layer.
        steps: time steps, the mean where samples differ.
    """

    operations: Mapping[str, SynOpsMean]
    steps: float

    def weight_bits_read(self, rows: Iterable[MemoryRow]) -> float:
        """Operations times the bits of their weight, all layers: one weight is fetched for each.

        Raises:
            DataError: `rows` hold no weights of a layer that has operations.

        >>> work = Work({"fc": SynOpsMean(effective_macs=0, effective_acs=50, dense=100)}, steps=10)
        >>> work.weight_bits_read([MemoryRow("fc", "weight", 640, 4), MemoryRow("lif", "membrane", 10, 8)])
        200
        """
        widths = {row.layer: row.bits for row in rows if row.role == "weight"}
        lost = [path for path in self.operations if path not in widths]
        if lost:
            raise DataError(f"{lost[0]}: operations, but no stored weights; there are those of {', '.join(widths)}")
        return sum(widths[path] * (c.effective_acs + c.effective_macs) for path, c in self.operations.items())

    def only(self, paths: Collection[str]) -> Work:
        """That of some layers."""
        return Work({path: one for path, one in self.operations.items() if path in paths}, self.steps)

    def without(self, paths: Collection[str]) -> Work:
        """That of the others."""
        return Work({path: one for path, one in self.operations.items() if path not in paths}, self.steps)

    def operations_pj(self) -> float:
        """Energy of the integer operations alone, without their traffic, in pJ.

        >>> Work({"fc": SynOpsMean(effective_macs=0, effective_acs=50, dense=100)}, steps=10).operations_pj()
        5.0
        """
        macs = sum(one.effective_macs for one in self.operations.values())
        acs = sum(one.effective_acs for one in self.operations.values())
        return energy_pj(macs, acs, weight_bits_read=0, state_bits_moved=0).integer_ops

    def energy(self, rows: Iterable[MemoryRow]) -> EnergyPj:
        """The three estimates of `energy_pj` in pJ, with the bits that `rows` tell.

        >>> work = Work({"fc": SynOpsMean(effective_macs=0, effective_acs=50, dense=100)}, steps=10)
        >>> work.energy([MemoryRow("fc", "weight", 640, 4), MemoryRow("lif", "membrane", 10, 8)])
        EnergyPj(fp_ops=45.0, integer_ops=5.0, integer_ops_and_traffic=286.25)
        """
        rows = tuple(rows)
        return energy_pj(
            sum(c.effective_macs for c in self.operations.values()),
            sum(c.effective_acs for c in self.operations.values()),
            weight_bits_read=self.weight_bits_read(rows),
            state_bits_moved=moved_bits(rows, steps=self.steps),
        )


def work_of(seen: Observation) -> Work:
    """Of a network that was watched, per sample."""
    samples = len(seen.right)
    counts = {path: counter.count().per(samples) for path, counter in seen.operations.items()}
    return Work(counts, seen.sample_steps / samples)
