"""A command started by ``torchrun``: several processes train together, the first one alone speaks and writes."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def joined(out: Path) -> Iterator[Path]:
    """Join the group that ``torchrun`` announces; gives the folder to write: for all but the first a passing one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield out
        return
    import torch.distributed as dist

    dist.init_process_group("gloo")
    try:
        if dist.get_rank() == 0:
            yield out
            return
        with (
            tempfile.TemporaryDirectory() as folder,
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            yield Path(folder) / "run"
    finally:
        dist.destroy_process_group()
