"""Exploring a space of quantized networks, and choosing among them.

The package is called like the verb, so it can be called: ``sq.explore(model, space, batches)`` is
`spikequant.explore.explore`.
"""

import sys
from types import ModuleType

from spikequant.explore.build import Materials, Refused, built, prepared
from spikequant.explore.direct import DirectEvaluator
from spikequant.explore.evaluator import SharedEvaluator
from spikequant.explore.records import Candidate, Evaluator, Measured
from spikequant.explore.result import Study
from spikequant.explore.search import explore
from spikequant.explore.space import Space
from spikequant.explore.study import Trial
from spikequant.explore.tolerance import Tolerance, ToleranceRow


class _Verb(ModuleType):
    __call__ = staticmethod(explore)


sys.modules[__name__].__class__ = _Verb

__all__ = [
    "Candidate",
    "DirectEvaluator",
    "Evaluator",
    "Materials",
    "Measured",
    "Refused",
    "SharedEvaluator",
    "Space",
    "Study",
    "Tolerance",
    "ToleranceRow",
    "Trial",
    "built",
    "explore",
    "prepared",
]
