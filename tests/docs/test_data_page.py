"""docs/data.md against the loaders: names, splits, checksums."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

import pytest

import spikequant as sq
from spikequant.data import cifar, dvs128, mnist, nmnist, nmnist_raw, shd
from spikequant.data.folds import fold_splits
from spikequant.law.errors import DataError

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
SPLITS = re.findall(
    r"^\| `([\w-]+)` \| (validation|fold (\d)).* \| `[\w-]+` \| ([\d,]+) \| `(\w{64})` \|$", PAGE, flags=re.M
)


def test_the_first_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    block = re.search(r"```python\n(.*?)```", PAGE, flags=re.S)
    assert block is not None
    exec(block.group(1), {})
    assert "digits: 10 classes" in capsys.readouterr().out


def test_every_name_is_in_the_table() -> None:
    table = PAGE.split("## What there is")[1].split("##")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, flags=re.M) == list(sq.data.names())


def test_checksums_are_those_of_the_code() -> None:
    files = PAGE.split("## Files that are read")[1].split("## Download")[0]
    written = set(re.findall(r"`([0-9a-f]{32}|[0-9a-f]{64})`", files))
    used = {*mnist.MNIST.md5, *mnist.FASHION_MNIST.md5, *nmnist_raw.ZIP_MD5.values()}
    used |= {nmnist.FRAMES_SHA256, nmnist_raw.SUBSET_SHA256, shd.PACKED_SHA256, dvs128.OBJECTS_SHA256}
    used |= {version.md5 for data in (cifar._CIFAR10, cifar._CIFAR100) for version in (data.python, data.binary)}
    assert written == used


def test_there_are_splits_to_check() -> None:
    assert len(SPLITS) == 14


@cache
def loaded(name: str, folder: Path) -> sq.data.DataSet | str:
    try:
        return sq.data.load(name, folder=folder)
    except DataError as error:
        if "looked in" not in str(error):
            raise
        return str(error)


@pytest.mark.parametrize(("name", "part", "fold", "count", "digest"), SPLITS)
def test_splits_are_the_written_ones(
    data_folder: Path, name: str, part: str, fold: str, count: str, digest: str
) -> None:
    data = loaded(name, data_folder)
    if isinstance(data, str):
        pytest.skip(data)
    splits = fold_splits(name, data.splits["test"].source, int(fold)) if fold else data.splits
    indices = splits["test" if fold else "validation"].indices
    assert len(indices) == int(count.replace(",", ""))
    assert hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest() == digest
