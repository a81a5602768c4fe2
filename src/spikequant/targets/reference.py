"""``reference/1``: everything that the law can express, at any width."""

from __future__ import annotations

from spikequant.targets.profile import LeakRule, NeuronRule, Target

ANY_LEAK = LeakRule(
    forms=("none", "multiply", "shift", "shift_forced", "two_shifts", "constant", "constant_signed"), bits=(0, 64)
)
REFERENCE = Target(
    name="reference",
    version=1,
    title="the law itself: every spec, every width that the golden model carries",
    promise="equal",
    sources=("spikequant, docs/semantics.md", "src/spikequant/law/neurons.py"),
    neurons=(NeuronRule(name="any", leak=ANY_LEAK, leak_i=ANY_LEAK, adapts=True, refractory=2**16),),
    notes=("what every network follows that names no other target",),
)
