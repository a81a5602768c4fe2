"""`sensitivity`: how much each layer suffers from few bits, by any of five methods behind one interface."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from spikequant.analyse.curvature import Loss
from spikequant.analyse.hessian import hessian_trace
from spikequant.analyse.rises import Rises, measured_rises
from spikequant.analyse.traces import Traces
from spikequant.law.errors import Unsupported, nearest

CURVATURES = ("hessian", "gauss-newton", "fisher")
RISES = {"loss-rise": "loss", "emd-rise": "emd"}
SENSITIVITY_METHODS = (*CURVATURES, *RISES)


def sensitivity(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    method: str = "gauss-newton",
    roles: Sequence[str] = ("weight", "membrane"),
    **options: Any,
) -> Traces | Rises:
    """Sensitivity of every layer and role; `allocate` and `side_by_side` take any of them.

    ================  ======================================================================
    ``hessian``       trace of the loss's second derivative: `hessian_trace`
    ``gauss-newton``  the same without the network's own curvature; never negative
    ``fisher``        mean squared gradient of a sample
    ``loss-rise``     rise of the loss when this layer alone is quantized: `measured_rises`
    ``emd-rise``      rise of the EMD of the firing rates, likewise
    ================  ======================================================================

    Args:
        model: real; left as it is.
        loss: of outputs and targets, a mean over samples.
        batches: ``(input, target)``.
        method: see above.
        roles: ``"weight"``, ``"membrane"``; of the first three methods also ``"threshold"``.
        options: of `hessian_trace` or `measured_rises`.

    Raises:
        Unsupported: an unknown method, or an option that it does not take.
        SpikequantError: as the method's function says.
    """
    if method not in SENSITIVITY_METHODS:
        raise Unsupported(
            f"method {method!r}; expected one of {', '.join(SENSITIVITY_METHODS)}{nearest(method, SENSITIVITY_METHODS)}"
        )
    if method in RISES:
        _check_options(measured_rises, {*options, "roles"}, method)
        return measured_rises(model, loss, batches, measure=RISES[method], roles=roles, **options)  # type: ignore[arg-type]
    _check_options(hessian_trace, options, method)
    return hessian_trace(model, loss, batches, curvature=method, roles=roles, **options)  # type: ignore[arg-type]


def _check_options(function: Callable[..., Any], options: Iterable[str], method: str) -> None:
    fixed = ("model", "loss", "batches", "measure", "curvature")
    known = [name for name in inspect.signature(function).parameters if name not in fixed]
    for name in options:
        if name not in known:
            raise Unsupported(
                f"sensitivity: the method {method!r} has no option {name!r}; expected some of {', '.join(known)}"
                f"{nearest(name, known)}"
            )
