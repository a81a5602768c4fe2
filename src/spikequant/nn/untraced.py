"""Methods that torch.compile calls between two graphs instead of tracing into them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
from torch._compile import _disable_dynamo

P = ParamSpec("P")
R = TypeVar("R")


def untraced(method: Callable[P, R]) -> Callable[P, R]:
    """`method`, opaque to torch.compile: what makes integers of parameters looks at their values.

    Outside of torch.compile nothing is added but one question, and the compiler is not imported.
    """

    @_disable_dynamo
    def outside(*args: P.args, **kwargs: P.kwargs) -> R:
        return method(*args, **kwargs)

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if torch.compiler.is_compiling():
            result: R = outside(*args, **kwargs)
            return result
        return method(*args, **kwargs)

    return call


__all__ = ["untraced"]
