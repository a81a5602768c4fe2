"""A command started by ``torchrun``: several processes train together, the first one alone speaks and writes."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path


def is_first() -> bool:
    """Whether this process speaks: the only one, or the first of those that ``torchrun`` started."""
    return int(os.environ.get("RANK", "0")) == 0


@contextlib.contextmanager
def joined(out: Path) -> Iterator[Path]:
    """Join the group that ``torchrun`` announces; gives the folder to write: for all but the first a passing one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield out
        return
    import torch.distributed as dist

    dist.init_process_group("gloo")
    seen_by_people = sys.stderr
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
    except Exception as error:
        if dist.get_rank() > 0:
            print(f"process {dist.get_rank()} of {dist.get_world_size()}: {error}", file=seen_by_people)
        raise
    finally:
        dist.destroy_process_group()
