"""Hand-made hostile files, one by one: refused at once, with the path, the field and the reason."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from tests.hostile.corpus import SPQ, forged, raw_spq

import spikequant as sq
from spikequant.law.artifact import network_hash

ROOT = Path(__file__).resolve().parents[2]
RAW = raw_spq()


def refusal(path: Path, content: bytes, load=sq.IntNet.load, error=sq.ArtifactError) -> str:
    path.write_bytes(content)
    started = time.perf_counter()
    with pytest.raises(error) as caught:
        load(path)
    assert time.perf_counter() - started < 10
    assert path.name in str(caught.value)
    return str(caught.value)


def test_the_corpus_is_large_enough():
    assert len(SPQ) + len(RAW) + len(PLANS) >= 100


def test_the_forger_makes_sound_files(tmp_path):
    (tmp_path / "a.spq").write_bytes(forged(lambda record, tensors: None))
    from tests.hostile.formats import small_net

    assert network_hash(sq.IntNet.load(tmp_path / "a.spq")) == network_hash(small_net())


@pytest.mark.parametrize("name", SPQ)
def test_a_forged_network_is_refused(name, tmp_path):
    change, words = SPQ[name]
    assert words in refusal(tmp_path / "forged.spq", forged(change))


@pytest.mark.parametrize("name", RAW)
def test_a_damaged_file_is_refused(name, tmp_path):
    content, words = RAW[name]
    assert words in refusal(tmp_path / "damaged.spq", content)


def test_all_of_it_without_asserts(tmp_path):
    """The same refusals under python -O."""
    program = (
        "import sys; from pathlib import Path; from tests.hostile.corpus import SPQ, forged, raw_spq\n"
        "from spikequant.law.artifact import load; from spikequant.law.errors import ArtifactError\n"
        "cases = [(forged(change), words) for change, words in SPQ.values()] + list(raw_spq().values())\n"
        "path, wrong = Path(sys.argv[1], 'a.spq'), 0\n"
        "for content, words in cases:\n"
        "    path.write_bytes(content)\n"
        "    try: load(path); wrong += 1; print('read:', words)\n"
        "    except ArtifactError as error:\n"
        "        if words not in str(error): wrong += 1; print(error)\n"
        "print(len(cases), 'cases'); sys.exit(wrong or (1 if __debug__ else 0))\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-O", "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_a_long_chain_is_read_soon(tmp_path):
    """4,080 nodes, each behind the last, took 11 s when the order of the nodes was found in rounds."""

    def chain(record, tensors):
        del tensors
        for k in range(4080):
            source = "lif2" if k == 0 else f"r{k - 1}"
            record["nodes"].append(
                {"type": "reshape", "name": f"r{k}", "shape": [4], "inputs": [{"source": source, "delay": 0}]}
            )

    path = tmp_path / "chain.spq"
    path.write_bytes(forged(chain))
    started = time.process_time()
    assert len(sq.IntNet.load(path).nodes) == 4087
    assert time.process_time() - started < 3


@pytest.mark.parametrize("name", ["x" * 5000, "\udcff.spq", "a/" * 3000])
def test_a_path_that_cannot_be(name):
    with pytest.raises(sq.ArtifactError, match="is not a file"):
        sq.IntNet.load(name)
    with pytest.raises(sq.ArtifactError, match="there is no such file"):
        sq.load_nir(name)
    with pytest.raises(sq.PlanError, match="cannot read the plan"):
        sq.Plan.load(name)


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize("place", ["node/edges", "node/metadata/more"])
def test_a_bomb_of_texts_is_refused_before_it_is_unpacked(place, varying, tmp_path):
    """Texts of 65,000 bytes, packed to some kB: 2.6 GB of them were unpacked."""
    h5py = pytest.importorskip("h5py")
    from tests.hostile.formats import nir_file

    path, count = tmp_path / "bomb.nir", 2000
    path.write_bytes(nir_file()[0])
    kind = h5py.string_dtype() if varying else "S65000"
    with h5py.File(path, "r+") as file:
        if place in file:
            del file[place]
        texts = [["x" * 60000] * 2] * count
        file.create_dataset(place, data=texts, dtype=kind, chunks=(count, 2), compression="gzip")
    if not varying:
        assert path.stat().st_size < 2**20
    tracemalloc.start()
    with pytest.raises(sq.ArtifactError, match="texts"):
        sq.load_nir(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < path.stat().st_size + 2**25


def test_a_folder_a_link_and_a_device_are_no_files(tmp_path):
    (tmp_path / "loop.spq").symlink_to(tmp_path / "loop.spq")
    (tmp_path / "dangling.spq").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder.spq").mkdir()
    for path in (*tmp_path.iterdir(), Path("/dev/zero")):
        with pytest.raises(sq.ArtifactError, match="is not a file"):
            sq.IntNet.load(path)
        with pytest.raises(sq.ArtifactError, match="there is no such file"):
            sq.load_nir(path)
        with pytest.raises(sq.PlanError, match="there is no such file"):
            sq.Plan.load(path)


# -- plans ---------------------------------------------------------------------------------

PLANS: dict[str, tuple[str, str, str]] = {
    "bits negative": (".toml", '[[rules]]\nmatch = "a"\nweight = { bits = -4 }', "rules.0.weight.bits"),
    "bits a text": (".json", '{"rules": [{"match": "a", "weight": {"bits": "4"}}]}', "rules.0.weight.bits"),
    "bits true": (".json", '{"rules": [{"match": "a", "weight": {"bits": true}}]}', "rules.0.weight.bits"),
    "bits a fraction": (".json", '{"rules": [{"match": "a", "weight": {"bits": 4.0}}]}', "rules.0.weight.bits"),
    "a limit of NaN": (".toml", '[[rules]]\nmatch = "a"\nmembrane = { bits = 4, limit = nan }', "rules.0.membrane.limit"),
    "a limit of infinity": (".toml", '[[rules]]\nmatch = "a"\nmembrane = { bits = 4, limit = inf }', "rules.0.membrane.limit"),
    "NaN in JSON": (".json", '{"seed": NaN}', "NaN is no number of JSON"),
    "1e999 in JSON": (".json", '{"rules": [{"match": "a", "membrane": {"bits": 4, "limit": 1e999}}]}', "rules.0.membrane.limit"),
    "a doubled key in JSON": (".json", '{"seed": 1, "seed": 2}', "the key 'seed' is there twice"),
    "a doubled key in TOML": (".toml", "seed = 1\nseed = 2", "is not valid TOML"),
    "a seed of 2^40": (".json", '{"seed": 1099511627776}', "field 'seed'"),
    "a long number": (".json", '{"seed": ' + "9" * 5000 + "}", "the plan is malformed (ValueError"),
    "100,000 brackets": (".json", "[" * 100_000, "the plan is malformed (RecursionError"),
    "100,000 brackets in TOML": (".toml", "a = " + "[" * 100_000, "is not valid TOML"),
    "a list": (".json", "[]", "field 'plan'"),
    "an unknown role": (".json", '{"rules": [{"match": "a", "__class__": {}}]}', "unknown field"),
    "no pattern": (".json", '{"rules": [{"match": ""}]}', "rules.0.match"),
    "no text": (".toml", "\x00", "is not valid TOML"),
    "2 MB": (".toml", "# " + "x" * 2**21, "has more than 1,048,576 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_a_hostile_plan_is_refused(name, tmp_path):
    suffix, text, words = PLANS[name]
    assert words in refusal(tmp_path / f"plan{suffix}", text.encode(), sq.Plan.load, sq.PlanError)
