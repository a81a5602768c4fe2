"""How fast a quantized network trains and runs here, beside other libraries on the same network."""

from spikequant.bench.rows import Result, Row, measure
from spikequant.bench.session import Session, run
from spikequant.bench.workloads import WORKLOADS, Workload

__all__ = ["WORKLOADS", "Result", "Row", "Session", "Workload", "measure", "run"]
