"""What processes write at their exit, decoded."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from hakmem import residency
from hakmem.builds.build import Build
from hakmem.builds.build import build as compile_native


@pytest.fixture(scope="module")
def native() -> Build:
    return compile_native()


def test_direct_mappings_and_larger_blocks_have_places(native: Build, tmp_path: Path) -> None:
    code = "import ctypes; c = ctypes.CDLL(None); c.malloc.restype = ctypes.c_void_p\n"
    code += "a = c.malloc(100_000); b = c.malloc(5 << 20); ctypes.memset(ctypes.c_void_p(b), 1, 5 << 20)"
    env = {"LD_PRELOAD": str(native.libs["libhakmem.so"]), "HAKMEM_STATS_JSON": str(tmp_path / "%p.json")}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    [path] = tmp_path.iterdir()
    found = residency.of_json(json.loads(path.read_text()), str(path)).places()
    assert found.loc["direct", "out_mb"] >= 5 and found.loc["direct", "resident_mb"] >= 5
    assert found.loc["large", "out_mb"] * 2**20 >= 100_000


def test_a_dump_is_plain_json(native: Build, tmp_path: Path) -> None:
    path = tmp_path / "end.json"
    command = [str(native.driver("soak", "hakmem")), "--ws=20000", "--seconds=0.05"]
    subprocess.run(command, env={"HAKMEM_STATS_JSON": str(path)}, check=True, stdout=subprocess.DEVNULL)
    found = residency.of_json(json.loads(path.read_text()), str(path))
    told = json.loads(json.dumps(found.dump(), allow_nan=False))
    assert pd.DataFrame(told["units"])["resident_kb"].sum() == found.units["resident_kb"].sum() > 0
    assert [each["place"] for each in told["places"]] == list(found.places().index)
