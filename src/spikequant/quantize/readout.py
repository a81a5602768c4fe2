"""What a stored membrane of a readout is worth, where its channels differ (DESIGN rule 7)."""

from __future__ import annotations

import numpy as np

from spikequant.law.errors import Unsupported
from spikequant.law.formats import IntArray
from spikequant.nn import QuantizedNeuron

GAIN_BITS = 14
MOST_RATIO = 2**10


def membrane_worth(module: QuantizedNeuron, shape: tuple[int, ...], where: str) -> tuple[IntArray | None, float]:
    """Integer gains that bring the channels to one scale, and that scale; ``(None, scale)`` where they share one.

    An input gain per channel (``1 - leak``) lies in the scale of its channel.  ``gains = round(worth / unit)`` with
    ``unit = min(worth) / 2^14``, so that no score is off by more than 2^-15 of itself.

    Args:
        module: a frozen readout.
        shape: its features, channels first.
        where: its name.

    Raises:
        Unsupported: channels whose scales are more than a factor of 1,024 apart.
    """
    found = module.frozen_integers()
    worth = (found.params["v_load"] * found.lsb).reshape(-1).numpy(force=True).astype(np.float64)
    if (worth == worth[0]).all():
        return None, float(worth[0])
    if worth.max() > MOST_RATIO * worth.min():
        raise Unsupported(
            f"{where}: one unit of its channels is worth from {worth.min():g} to {worth.max():g}, too far apart for "
            "scores in whole numbers; scale the weights before it"
        )
    unit = float(worth.min()) / 2**GAIN_BITS
    channels = np.rint(worth / unit).astype(np.int64)
    gains = np.broadcast_to(channels.reshape(-1, *([1] * (len(shape) - 1))), shape).copy()
    return gains, unit
