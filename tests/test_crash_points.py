"""A run that is stopped at any write, in any way, ends equal to one that was not when it is given again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from networks import chain

from numpylrp import save

POINTS = int(os.environ.get("CRASH_POINTS", 2))
"""Writes at which each way is tried; all of them (some 400) with CRASH_POINTS=1000, in half an hour."""

WAYS = {"killed": 0, "disk full": 1, "error": 2, "half written": 3}
RUN = """
import sys
from numpylrp import cli
from numpylrp.jobs import relevance
relevance.CHUNK = 8
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """The library that makes writes go wrong."""
    if sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("writes are made to go wrong by a library that a C compiler makes on Linux")
    library = tmp_path_factory.mktemp("disk") / "disk.so"
    source = Path(__file__).with_name("disk.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.fixture(scope="module")
def program(disk, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    save(chain(), folder / "net.h5")
    np.save(folder / "x.npy", np.random.default_rng(1).uniform(-4, 4, (20, 2, 7, 8)))

    def run(out, **faults):
        preload = {"LD_PRELOAD": str(disk), **faults} if faults else {}
        words = ["explain", folder / "net.h5", folder / "x.npy", "--out", out, "--heatmaps", "0"]
        return subprocess.run(
            [sys.executable, "-c", RUN, *map(str, words)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **preload},
            capture_output=True,
            text=True,
        )

    return run


def content(out):
    found = {}
    with h5py.File(out / "relevance.h5") as file:
        file.visititems(lambda n, d: found.update({n: d[()]}) if isinstance(d, h5py.Dataset) else None)
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_run_stopped_anywhere_ends_equal(way, program, tmp_path):
    count = tmp_path / "count"
    assert program(tmp_path / "whole", DISK_COUNT=str(count)).returncode == 0
    expected, writes = content(tmp_path / "whole"), int(count.read_text())
    assert writes > 20
    rng = np.random.default_rng(list(WAYS).index(way))
    for at in sorted(rng.choice(writes, min(POINTS, writes), replace=False).tolist()):
        out = tmp_path / f"{at}"
        first = program(out, DISK_AT=str(at), DISK_HOW=str(WAYS[way]))
        if way in ("disk full", "error") and first.returncode:
            assert first.returncode == 1, (at, first.stderr)
            told = [line for line in first.stderr.splitlines() if not line[0].isdigit()]
            assert len(told) == 1 and told[0].startswith("numpylrp: "), (at, first.stderr)
            words = "No space left on device" if way == "disk full" else "Input/output error"
            assert words in told[0], (at, first.stderr)
        again = program(out)
        assert again.returncode == 0, (at, again.stderr)
        found = content(out)
        assert set(found) == set(expected)
        assert all(np.array_equal(found[name], expected[name]) for name in expected), at
        assert sorted(p.name for p in out.iterdir()) == ["audit.txt", "relevance.h5"], at
