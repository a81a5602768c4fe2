"""The suite can see errors: every semantic mutant of the law is killed by a few dozen small networks."""

from __future__ import annotations

import pytest
from tests.conformance.mutants import MUTANTS, killed_by, suite


@pytest.fixture(scope="module")
def cases():
    return suite()


def test_the_law_itself_survives(cases):
    from contextlib import nullcontext

    assert killed_by(nullcontext, cases) == ([], 0)


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_killed(name, cases):
    networks, values = killed_by(MUTANTS[name], cases, first_only=True)
    assert networks, f"no network of the suite sees: {name}"
    assert values


def test_there_are_enough_mutants():
    assert len(MUTANTS) >= 20
