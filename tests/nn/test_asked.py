"""Settings by context and environment."""

from __future__ import annotations

import pytest

from spikequant.law.errors import Unsupported
from spikequant.nn.asked import Asked


def test_a_context_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked("reader", "SPIKEQUANT_TEST_ASKED", ("a", "b"))
    assert asked.now() is None
    monkeypatch.setenv("SPIKEQUANT_TEST_ASKED", "a")
    assert asked.now() == "a"
    with asked.within("b"):
        with asked.within(None):  # nothing new
            assert asked.now() == "b"
        with pytest.raises(RuntimeError), asked.within("a"):
            raise RuntimeError
        assert asked.now() == "b"
    assert asked.now() == "a"


def test_names_that_there_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked("reader", "SPIKEQUANT_TEST_ASKED", ("a", "b"))
    with pytest.raises(Unsupported, match="no reader 'c'; expected one of a, b"), asked.within("c"):
        pass
    monkeypatch.setenv("SPIKEQUANT_TEST_ASKED", "c")
    with pytest.raises(Unsupported, match="no reader 'c'; expected one of a, b"):
        asked.now()
    monkeypatch.setenv("SPIKEQUANT_TEST_ASKED", "")
    assert asked.now() is None
