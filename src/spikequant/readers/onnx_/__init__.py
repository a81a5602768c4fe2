"""``format="onnx"``: the network as ONNX models of integers, one step and a whole sequence.

docs/guides/export-onnx.md describes what is written.  `graph` builds, `step` prints the law, `sums` linear maps,
`body` one time step, `models` both forms; `runtime` runs them and `check` compares.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from spikequant.law.formats import IntArray
from spikequant.law.network import IntNet
from spikequant.readers import golden, vectors
from spikequant.readers.onnx_.check import check_model, prove, runtime_missing
from spikequant.readers.onnx_.guide import README
from spikequant.readers.onnx_.models import BASELINE, NEWEST, Model, ModelWriter
from spikequant.readers.onnx_.runtime import noise_inputs, session, trace

OPTIONS = ("inputs", "opset", "packed", "trace")


def files(
    net: IntNet, *, inputs: Any = None, opset: int | None = None, packed: bool = False, trace: bool = True
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Contents by file name, and the facts of the manifest.

    Args:
        net: the network.
        inputs: data of the check; the embedded test vectors where absent, and seeded noise where there are none.
        opset: 17 to 25; where not given 17, and 25 for packed weights.
        packed: weights of up to 4 bits as int4 (opset 21), of up to 2 bits as int2 (opset 25).
        trace: whether the sequence model also gives spikes and states of every step.

    Raises:
        Unsupported: onnx is not installed, or the network cannot be expressed.
        MismatchError: ONNX Runtime gives other integers than the golden model.
        DataError: inputs that do not fit.
    """
    chosen = opset if opset is not None else NEWEST if packed else BASELINE
    models = build(net, opset=chosen, packed=packed, trace=trace)
    for model in models:
        check_model(model)
    given = inputs is not None or net.vectors is not None
    codes = vectors.stimulus(net, inputs) if given else vectors.seeded(net)
    stored = {"x": codes.astype(models[0].step.x.kind), "scores": golden.run(net, codes).scores}
    facts = {"opset": chosen, "packed": packed, "trace": trace, "check": _proof(models, codes)}
    contents = {f"{model.form}.onnx": model.data for model in models}
    contents |= {"vectors.npz": _npz(stored, models[1], codes), "README.md": README.encode()}
    return contents, facts


def build(net: IntNet, *, opset: int = BASELINE, packed: bool = False, trace: bool = True) -> tuple[Model, Model]:
    """The step model and the sequence model of a network, unchecked.

    Raises:
        Unsupported: onnx is not installed, or the network cannot be expressed.
    """
    writer = ModelWriter(net, opset=opset, packed=packed, trace=trace)
    return writer.step_model(), writer.sequence_model()


def run(net: IntNet, codes: IntArray, *, first_sample: int = 0) -> golden.Run:
    """The sequence model run by ONNX Runtime, every spike and stored state."""
    model, opened = _opened(net)
    return trace(model, opened, codes, first_sample=first_sample)


@lru_cache(maxsize=1)
def _opened(net: IntNet) -> tuple[Model, Any]:
    """The sequence model of a network and its session; a network is the key by identity."""
    _, model = build(net)
    return model, session(model)


def _proof(models: Sequence[Model], codes: IntArray) -> dict[str, Any]:
    """What was checked, for the manifest."""
    passed = {"checker": "full", "shape_inference": "strict"}
    if reason := runtime_missing():
        return {**passed, "runtime": f"not run: {reason}"}
    from importlib.metadata import version

    reports = prove(list(models), codes)
    runs = {report.reader: report.to_dict() for report in reports}
    return {**passed, "runtime": f"onnxruntime {version('onnxruntime')}", "runs": runs}


def _npz(stored: dict[str, Any], model: Model, codes: IntArray) -> bytes:
    """Inputs of the sequence model and the scores that it must give."""
    static = model.net.input.static
    steps, samples = (model.net.steps, len(codes)) if static else codes.shape[:2]
    words = [noise_inputs(model, t, np.arange(samples)) for t in range(steps)] if model.step.noise else [{}]
    stored = {**stored, **{name: np.stack([w[name] for w in words]) for name in words[0]}}
    stream = io.BytesIO()
    np.savez_compressed(stream, **stored)
    return stream.getvalue()


__all__ = ["Model", "ModelWriter", "build", "files", "noise_inputs", "run", "runtime_missing", "session", "trace"]
