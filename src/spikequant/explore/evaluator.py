"""The evaluator of a study: candidates share what they have in common, and bad ones stop early.

What a candidate sets in a layer moves nothing in the layers before it.  So calibration and integer simulation go stage
by stage through a tree (`explore/tree.py`): one node for each choice behind equal choices, its spikes kept as bits.
The figures are those of `DirectEvaluator`, bit for bit; what cannot be shared goes through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import final

import torch
from torch import Tensor

from spikequant.capture import capture
from spikequant.explore.build import Materials, prepared, refusal
from spikequant.explore.direct import DirectEvaluator
from spikequant.explore.network import SharedNetwork
from spikequant.explore.records import Candidate, Measured
from spikequant.explore.sequential import ERROR
from spikequant.explore.tree import Tree
from spikequant.explore.validation import BATCH, Validation, validation
from spikequant.explore.walk import Racer, Walk, racer
from spikequant.frontends import read_
from spikequant.law.errors import CaptureError, Unsupported
from spikequant.nn.copying import copied
from spikequant.targets.reference import REFERENCE
from spikequant.targets.registry import target
from spikequant.training import Batch, at_first_epoch

CALIBRATION_BATCHES = 8
MEMORY = 2**30
HEATS = 6
"""Groups of candidates for each worker: it takes the next when it has done one."""
VARIES = ("steps", "sparsity")
"""Settings, besides forms of leaks and sparsity of single layers, that change the real network itself."""


@final
class SharedEvaluator:
    """Scores candidates; those that are quantized after training share calibration and simulation.

    Args:
        materials: what candidates are built from.
        decide: ``(input, target)`` batches to measure on; shuffled by the seed of the materials and cut anew.
        target_accuracy: what candidates are to keep; None: all of them see all samples.
        error: probability that a candidate which keeps the target is given up early.
        workers: threads; None: as many as torch uses.
        memory: bytes of results that are kept for later calls at most, of all networks together.
        batch_size: samples of a batch, after each of which a candidate may be given up.

    Raises:
        DataError: no data, or data that the network cannot take.
    """

    def __init__(
        self,
        materials: Materials,
        decide: Iterable[Batch],
        *,
        target_accuracy: float | None = None,
        error: float = ERROR,
        workers: int | None = None,
        memory: int = MEMORY,
        batch_size: int = BATCH,
    ) -> None:
        self.materials, self._tree = materials, Tree(memory)
        self.workers = workers or torch.get_num_threads()
        self.data: Validation = validation(
            materials.model,
            decide,
            target_accuracy=target_accuracy,
            error=error,
            seed=materials.seed,
            batch_axis=_batch_axis(materials),
            batch_size=batch_size,
        )
        self.direct = DirectEvaluator(materials, [(batch.x, batch.y) for batch in self.data.batches])
        self.reference = self.direct.reference
        self._calibration = _inputs(materials)
        self._networks: dict[str, SharedNetwork | str] = {}

    def measure(self, candidates: Sequence[Candidate]) -> Sequence[Measured]:
        """One result per candidate, in their order.

        Raises:
            PlanError: a candidate whose plan means nothing for this network.
        """
        results: dict[int, Measured] = {}
        shared: dict[str, list[tuple[int, Racer]]] = {}
        for place, candidate in enumerate(candidates):
            network = self.network_of(candidate)
            if isinstance(network, SharedNetwork):
                shared.setdefault(_variant(candidate), []).append((place, racer(candidate, network)))
            else:
                results[place] = self.direct.measure([candidate])[0]
        for variant, racers in shared.items():
            network = self._networks[variant]
            assert isinstance(network, SharedNetwork)
            self._race(network, [one for _, one in racers])
            results.update({place: _result(one) for place, one in racers})
        return [results[place] for place in range(len(candidates))]

    def network_of(self, candidate: Candidate) -> SharedNetwork | str:
        """What candidates of this kind share, or why they share nothing."""
        if candidate.scheme != "ptq":
            return f"{candidate.scheme} trains every candidate by itself"
        plan = candidate.plan()
        if not any(rule.asked() for rule in plan.rules):
            return "nothing is quantized"
        if plan.target is not None and target(plan.target) is not REFERENCE:
            return f"{plan.target} changes layers by what others are, and refuses networks as a whole"
        variant = _variant(candidate)
        if variant not in self._networks:
            try:
                model = prepared(self.materials.model, candidate, self.materials.example)
                network = SharedNetwork(model, self.materials.example, self._calibration, tree=self._tree)
                if not all(network.runner.fits(batch.x) for batch in self.data.batches):
                    raise Unsupported("the data have several numbers of time steps")
                self._networks[variant] = network
            except (Unsupported, CaptureError) as error:
                self._networks[variant] = str(error)
        return self._networks[variant]

    def _race(self, network: SharedNetwork, racers: Sequence[Racer]) -> None:
        heats = _heats(racers, self.workers)
        if len(heats) < 2:
            Walk(network, self.data).race(racers)
            return
        with _one_thread_each(), ThreadPoolExecutor(self.workers) as pool:
            waiting = [pool.submit(_run, network, self.data, heat) for heat in heats]
            for done in waiting:
                done.result()


def _run(network: SharedNetwork, data: Validation, heat: Sequence[Racer]) -> None:
    torch.set_num_threads(1)  # of this thread
    Walk(network, data).race(heat)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Torch goes back to the number of threads that it had, whatever happens."""
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _heats(racers: Sequence[Racer], workers: int) -> list[list[Racer]]:
    """Racers that walk together: those that agree in the first stages, in enough heats that no worker waits for long.

    A cut between equal weights makes each side compute their integer sums, so it comes only where workers would idle.
    """
    heats: dict[tuple[str, ...], list[Racer]] = {(): list(racers)}
    cuts = 2 * (len(racers[0].keys) - 1) if racers and workers > 1 else 0
    for depth in range(1, cuts + 1):
        between_neurons, last = depth % 2 == 0, depth == cuts
        if len(heats) >= workers * (2 if between_neurons and last else HEATS):
            break
        heats = {}
        for one in racers:
            heats.setdefault(tuple(key for keys in one.keys for key in keys)[:depth], []).append(one)
    return sorted(heats.values(), key=len, reverse=True)


def _result(one: Racer) -> Measured:
    if one.refused:
        return refusal(one.candidate, one.refused, one.seconds)
    assert one.result is not None
    return one.result


def _variant(candidate: Candidate) -> str:
    """The settings that change the real network before it is quantized."""
    settings = candidate.settings
    mine = [n for n in settings if n in VARIES or n.endswith((":leak.form", ":weight.sparsity"))]
    return Candidate({name: settings[name] for name in mine}).to_json()


def _inputs(materials: Materials) -> list[Tensor]:
    """What `calibrate` looks at."""
    return [x for x, _ in islice(iter(at_first_epoch(materials.learn)), CALIBRATION_BATCHES)]


def _batch_axis(materials: Materials) -> int:
    """Where the samples lie in an input of this network."""
    readable = copied(materials.model)
    try:
        read_(readable)
        layout = capture(readable, materials.example).input_layout
    except (CaptureError, Unsupported):
        return 0
    if layout == "batch_merged":
        raise Unsupported("explore: this network takes time and samples in one axis; give it an axis for each")
    return 1 if layout == "time_first" else 0
