"""Nothing executes on load: an audit hook listens while files of every format are read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, sys, random
from pathlib import Path
from tests.hostile.formats import FORMATS, nir_file, spq_files

folder = Path(sys.argv[1])
cases = []
for name, target in FORMATS.items():
    sound = {"spq": lambda: spq_files()[0], "plan": lambda: b'{"rules": []}'}.get(name, lambda: nir_file()[0])()
    contents = [(sound, target.suffix or ".json")]
    for seed in range(25):
        case = target.damaged(random.Random(f"audit {name} {seed}"))
        contents.append((case.content, case.suffix or target.suffix))
    for k, (content, suffix) in enumerate(contents):
        path = folder / f"{name.replace(' ', '_')}{k}{suffix}"
        path.write_bytes(content)
        cases.append((target, path))
warm = set()
for target, path in cases:  # first use imports modules of ours and of torch: what counts is what a file makes happen
    if target.load not in warm:
        warm.add(target.load)
        target.load(path)
heard, listening = [], [True]

def hook(event, args):
    if listening and listening[0]:
        heard.append((event, str(args)[:120]))

sys.addaudithook(hook)
read = 0
for target, path in cases:
    try:
        target.load(path)
        read += 1
    except target.errors:
        pass
listening[0] = False
opened = [args for event, args in heard if event == "open"]
print(json.dumps({"events": sorted({event for event, _ in heard}), "read": read, "cases": len(cases),
                  "outside": [a for a in opened if str(folder) not in a], "heard": [h for h in heard if h[0] != "open"][:10]}))
"""
FORBIDDEN = ("exec", "compile", "import", "pickle", "subprocess", "os.system", "os.exec", "os.spawn", "os.fork", "socket",
             "ctypes", "code.", "marshal", "shutil", "os.remove", "os.rename", "os.unlink", "urllib")  # fmt: skip


def test_no_code_runs_and_no_other_file_is_opened(tmp_path):
    pytest.importorskip("h5py")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["cases"] == 104
    assert result["read"] >= 8
    found = [event for event in result["events"] if event.startswith(FORBIDDEN)]
    assert not found, (found, result["heard"])
    assert "open" in result["events"], "the hook hears"
    assert result["outside"] == []
