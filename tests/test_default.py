"""The default job learns: one command, no download, one core, two minutes and a half at most."""

import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_default_job_learns_within_150_cpu_seconds(tmp_path):
    """Seed 5 is none of those that the settings were chosen or reported with. The bounds are those of the README."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), "--seed", "5", "--out", str(tmp_path / "out")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr[-2000:]
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 150

    rows = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    reward = [row["reward"] for row in rows]
    assert statistics.fmean(reward[:5]) < 0.45 and statistics.fmean(reward[-10:]) > 0.80
    assert rows[-1]["accuracy"] > 0.90 and rows[-1]["accuracy"] - rows[0]["accuracy_before"] > 0.40
    # as in Figure 2: at the start between a third and two thirds of the groups are mixed, so alpha is 1.5 to 4
    start = rows[:10]
    assert 0.3 < statistics.fmean(row["valid_share"] for row in start) < 0.7
    assert 1.5 < statistics.fmean(row["alpha"] for row in start) < 4
    for text in ("on purpose", "before (step 0)", "--- before, wrong", "--- after, right"):
        assert text in done.stdout

    left = sorted((tmp_path / "out").rglob("*"))
    done = subprocess.run([*command, "--doctor"], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "none of 13 checks found something wrong" in done.stdout, done.stdout + done.stderr
    assert sorted((tmp_path / "out").rglob("*")) == left
