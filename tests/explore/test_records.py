import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikequant.explore import Candidate, Measured
from spikequant.law.errors import PlanError

NAMES = ("*:weight.bits", "*:membrane.bits", "conv*:weight.bits", "steps", "seed")


@given(st.permutations(NAMES))
def test_order_of_settings_changes_nothing(names: list[str]) -> None:
    ordered, shuffled = (Candidate({name: 4 for name in order}) for order in (NAMES, names))
    assert (ordered, ordered.key, hash(ordered)) == (shuffled, shuffled.key, hash(shuffled))
    assert Candidate.from_json(shuffled.to_json()) == ordered


def test_the_specific_pattern_stands_first_and_inherits_what_it_can_use() -> None:
    plan = Candidate({"*:weight.bits": 4, "*:weight.clipping": "mse", "*:membrane.bits": 8, "fc:weight.bits": 2}).plan()
    assert [rule.match for rule in plan.rules] == ["fc", "*"]
    first = plan.layer("fc")
    assert first.weight is not None
    assert (first.weight.bits, first.weight.clipping) == (2, "mse")
    assert first.asked() == ("weight",)


def test_settings_that_say_nothing_are_refused() -> None:
    for settings, words in (
        ({"bits": 4}, "pattern:role.field"),
        ({"*:colour.bits": 4}, "role of weight"),
        ({"*:weight.bits": object()}, "plain JSON"),
        ({"*:weight.bits": float("nan")}, "plain JSON"),
        ({"scheme": "later"}, "expected one of ptq"),
    ):
        with pytest.raises(PlanError, match=words):
            Candidate(settings)


def test_results_survive_json() -> None:
    one = Measured(accuracy=0.5, samples=4, flash_bytes=1.0, ram_bytes=2.0, energy_pj=3.0, emd=0.1, dead=0.0,
                   stopped_early=False, seconds=1.0, scheme="ptq")  # fmt: skip
    assert Measured.from_dict(one.to_dict()) == one
    assert one.same_as(Measured.from_dict({**one.to_dict(), "seconds": 9.0}))
