"""Models run by ONNX Runtime, as the other readers are run: every spike and every stored state."""

from __future__ import annotations

from typing import Any

import numpy as np

from spikequant.law.errors import Unsupported
from spikequant.law.formats import IntArray
from spikequant.law.network import IntNet
from spikequant.law.noise import noise_words, step_key
from spikequant.readers import golden
from spikequant.readers.onnx_.body import Port
from spikequant.readers.onnx_.graph import library
from spikequant.readers.onnx_.models import Model, after

OPTIMISATIONS = {"off": "ORT_DISABLE_ALL", "on": "ORT_ENABLE_ALL"}


def session(model: Model, *, optimise: bool = True, threads: int = 1) -> Any:
    """A session of ONNX Runtime on the CPU.

    Raises:
        Unsupported: onnxruntime is not installed, or too old for the model.
    """
    ort = library("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    level = OPTIMISATIONS["on" if optimise else "off"]
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    try:
        return ort.InferenceSession(model.data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class
        raise Unsupported(
            f"onnxruntime {ort.__version__} does not run the {model.form} model ({error}); "
            "update it, or choose an older opset"
        ) from error


def noise_inputs(model: Model, step: int, samples: IntArray) -> dict[str, IntArray]:
    """The words of rounding noise of one step, by input name."""
    net = model.net
    layer = {node.name: k for k, node in enumerate(net.neurons)}
    words = {}
    for name, state, port in model.step.noise:
        node = net.neurons[layer[name]]
        words[port.name] = noise_words(step_key(node.seed, layer[name], state, step), samples, node.shape)
    return words


def trace(model: Model, opened: Any, codes: IntArray, *, first_sample: int = 0) -> golden.Run:
    """Run a model on input codes; every spike, state and score as the golden model gives them."""
    codes = golden.check_codes(model.net, np.asarray(codes, dtype=np.int64))
    run = _run_sequence if model.form == "sequence" else _run_steps
    return run(model, opened, codes, first_sample)


def _batch(net: IntNet, codes: IntArray, first_sample: int) -> tuple[int, IntArray]:
    """Number of steps, and the numbers of the samples."""
    steps, batch = (net.steps, codes.shape[0]) if net.input.static else codes.shape[:2]
    return steps, np.arange(first_sample, first_sample + batch, dtype=np.int64)


def _run_sequence(model: Model, opened: Any, codes: IntArray, first_sample: int) -> golden.Run:
    steps, samples = _batch(model.net, codes, first_sample)
    feed = {"x": codes.astype(model.step.x.kind)}
    if model.step.noise:
        words = [noise_inputs(model, t, samples) for t in range(steps)]
        feed |= {name: np.stack([w[name] for w in words]) for name in words[0]}
    names = [output.name for output in opened.get_outputs()]
    found = dict(zip(names, opened.run(names, feed), strict=True))
    trains = {port.name: found[port.name] for _, _, port, _ in model.step.trace if port.name in found}
    return _as_run(model, found["scores"], trains)


def _run_steps(model: Model, opened: Any, codes: IntArray, first_sample: int) -> golden.Run:
    net, step = model.net, model.step
    steps, samples = _batch(net, codes, first_sample)
    state = {port.name: _zeros(port, len(samples)) for port, _ in step.states}
    names = [output.name for output in opened.get_outputs()]
    seen: dict[str, list[Any]] = {port.name: [] for _, _, port, _ in step.trace}
    scores = []
    for t in range(steps):
        x = (codes if net.input.static else codes[t]).astype(step.x.kind)
        found = dict(zip(names, opened.run(names, {"x": x, **state, **noise_inputs(model, t, samples)}), strict=True))
        state = {name: found[after(name)] for name in state}
        for _, what, port, _ in step.trace:
            seen[port.name].append(found[port.name if what == "out" else after(port.name)])
        scores.append(found["scores"])
    whole = np.stack(scores) if net.decoder.name.endswith("_train") else scores[-1]
    return _as_run(model, whole, {name: np.stack(parts) for name, parts in seen.items()})


def _zeros(port: Port, batch: int) -> Any:
    return np.zeros(() if port.shape is None else (batch, *port.shape), dtype=port.kind)


def _as_run(model: Model, scores: Any, trains: dict[str, Any]) -> golden.Run:
    outputs: dict[str, IntArray] = {}
    states: dict[str, dict[str, IntArray]] = {}
    for node, what, port, _ in model.step.trace:
        if port.name not in trains:
            continue
        train = trains[port.name].astype(np.int64)
        if what == "out":
            outputs[node] = train
        else:
            states.setdefault(node, {})[what] = train
    for layer in model.net.neurons:
        if layer.spec.output == "state" and layer.name in states:
            outputs[layer.name] = states[layer.name]["v"]
    ordered = {layer.name: outputs[layer.name] for layer in model.net.neurons if layer.name in outputs}
    return golden.Run(scores.astype(np.int64), ordered, states)
