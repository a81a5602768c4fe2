"""Trials on a Ray cluster: what an evaluator is made of travels once, every few candidates are a task.

Ray runs a task again where the machine that had it died; what a candidate scores does not depend on where it is
measured, so the study is the same.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, final

from spikequant.explore.engine import Runner
from spikequant.explore.records import Candidate, Evaluator, Measured
from spikequant.law.errors import Unsupported

LOCAL = "local"


class Buildable(Protocol):
    """What can travel, and be made an evaluator of where it arrives."""

    def build(self) -> Evaluator:
        """The evaluator."""
        ...


@contextlib.contextmanager
def running(spec: Buildable, address: str | None, *, chunk: int = 8) -> Iterator[Evaluator | Runner]:
    """Who measures: the evaluator here, or a cluster (``local`` starts one on this machine).

    Raises:
        Unsupported: Ray is not installed, or there is no cluster at the address.
    """
    if address is None:
        yield spec.build()
        return
    try:
        import ray
    except ImportError as error:
        raise Unsupported("--ray needs Ray; install it with: pip install 'spikequant[cluster]'") from error
    begun = not ray.is_initialized()
    if begun:
        try:
            ray.init(
                address=None if address == LOCAL else address, log_to_driver=False, include_dashboard=False,
                configure_logging=False,
            )  # fmt: skip
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise Unsupported(f"no Ray cluster at {address}: {error}; start one with `ray start --head`") from error
    try:
        yield RayRunner(spec, chunk=chunk)
    finally:
        if begun:
            ray.shutdown()


@final
class RayRunner:
    """Has candidates measured as tasks of a cluster that this process is connected to."""

    def __init__(self, spec: Buildable, *, chunk: int = 8, cpus: float = 1.0) -> None:
        import ray

        self._chunk, self._name = chunk, uuid.uuid4().hex
        self._spec = ray.put(spec)
        remote: Any = ray.remote(num_cpus=cpus, max_retries=-1)
        self._task = remote(_measure)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[tuple[int, Measured]]:
        """See `Runner`; results come as they are ready."""
        import ray

        starts = range(0, len(candidates), self._chunk)
        tasks = {
            self._task.remote(
                self._name, self._spec, [c.to_json() for c in candidates[start : start + self._chunk]]
            ): start
            for start in starts
        }
        while tasks:
            ready, _ = ray.wait(list(tasks), num_returns=1)
            start = tasks.pop(ready[0])
            for position, record in enumerate(ray.get(ready[0])):
                yield start + position, Measured.from_dict(record)


_BUILT: dict[str, Evaluator] = {}
"""In a worker process: the evaluator of the study that it works for."""


def _measure(name: str, spec: Buildable, texts: list[str]) -> list[dict[str, Any]]:
    """On a machine of the cluster, in one thread: tasks, not threads, fill its cores."""
    import torch

    torch.set_num_threads(1)
    if name not in _BUILT:
        _BUILT.clear()
        _BUILT[name] = spec.build()
    return [one.to_dict() for one in _BUILT[name].measure([Candidate.from_json(text) for text in texts])]
