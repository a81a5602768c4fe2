"""What is asked for here: by a context, else by an environment variable of the process, else nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import final

from spikequant.law.errors import Unsupported


@final
class Asked:
    """One setting with a few names; a context in force goes before the environment.

    >>> asked = Asked("path", "SPIKEQUANT_NO_SUCH_SETTING", ("float32", "events"))
    >>> with asked.within("events"):
    ...     asked.now()
    'events'
    >>> asked.now() is None
    True

    Args:
        what: the word for it in a refusal.
        environment: name of the variable.
        names: those that there are.
    """

    def __init__(self, what: str, environment: str, names: Sequence[str]) -> None:
        self.what, self.environment, self.names = what, environment, tuple(names)
        self._held: ContextVar[str | None] = ContextVar(environment, default=None)

    def now(self) -> str | None:
        """The name that is asked for, None if none is.

        Raises:
            Unsupported: the environment has a name that there is not.
        """
        held = self._held.get()
        if held is not None:
            return held
        given = os.environ.get(self.environment)
        return self._checked(given) if given else None

    @contextmanager
    def within(self, name: str | None) -> Iterator[None]:
        """Ask for a name; None asks for nothing new.

        Raises:
            Unsupported: there is no such name.
        """
        token = self._held.set(self._held.get() if name is None else self._checked(name))
        try:
            yield
        finally:
            self._held.reset(token)

    def _checked(self, name: str) -> str:
        if name not in self.names:
            raise Unsupported(f"no {self.what} {name!r}; expected one of {', '.join(self.names)}")
        return name
