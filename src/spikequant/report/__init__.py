"""One self-contained HTML page that shows what quantization changed."""

from spikequant.report.page import write_report
from spikequant.report.provenance import Provenance, versions_here
from spikequant.report.sensitivity_page import write_sensitivities

__all__ = ["Provenance", "versions_here", "write_report", "write_sensitivities"]
