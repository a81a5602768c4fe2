"""What every export must pass: ONNX's checker, strict shapes, integers only, and the golden model's integers."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

from spikequant.law.errors import MismatchError, Unsupported
from spikequant.law.formats import IntArray
from spikequant.readers import golden
from spikequant.readers.compared import ReaderReport, compare
from spikequant.readers.onnx_.graph import library
from spikequant.readers.onnx_.models import Model
from spikequant.readers.onnx_.runtime import OPTIMISATIONS, session, trace


def check_model(model: Model) -> None:
    """Full checker, strict shape inference, standard operators, no floating-point tensor anywhere.

    Raises:
        Unsupported: the model does not pass; that is a defect of the export, and the message says of which network.
    """
    onnx = library("onnx")
    proto = model.proto
    try:
        onnx.checker.check_model(proto, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise Unsupported(f"the {model.form} model of this network does not pass ONNX's checker: {error}") from error
    whole = {getattr(onnx.TensorProto, name) for name in KINDS if hasattr(onnx.TensorProto, name)}
    for graph in graphs(inferred.graph):
        kinds = {tensor.data_type for tensor in graph.initializer}
        kinds |= {v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
        other = {n.domain for n in graph.node} - {""}
        if not kinds <= whole or other:
            raise Unsupported(f"the {model.form} model holds tensors or operators it must not hold: {kinds}, {other}")


KINDS = ("INT64", "INT32", "INT8", "UINT8", "BOOL", "INT4", "UINT4", "INT2", "UINT2")


def graphs(graph: Any) -> Iterator[Any]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def runtime_missing() -> str:
    """Why models cannot be run here, or nothing."""
    for name in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            return f"the package {name} is not installed (pip install 'spikequant[onnx]')"
    return ""


def prove(models: list[Model], codes: IntArray) -> list[ReaderReport]:
    """Run every model with graph optimisation off and on, and compare with the golden model.

    Raises:
        MismatchError: one value differs; the message names the model and the place.
    """
    net, reports = models[0].net, []
    wanted = golden.run(net, codes)
    for model in models:
        expected = wanted if model.form == "step" or model.trace else golden.Run(wanted.scores)
        for name in OPTIMISATIONS:
            found = trace(model, session(model, optimise=name == "on"), codes)
            report = compare(f"{model.form}, optimisation {name}", net, found, expected, wanted.scores)
            if report.differences:
                raise MismatchError(
                    f"ONNX Runtime does not give the golden model's integers ({report}); nothing was written. "
                    "Try another version of onnxruntime, and please report the network"
                )
            reports.append(report)
    return reports
