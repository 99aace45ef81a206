"""tools/gpu.py with sizes for a CPU: every part runs, and a part that fails does not stop the others."""

import json

import pytest
import torch

from tools import gpu

CPU = torch.device("cpu")


def test_a_step_is_the_same_on_the_same_device():
    found = gpu.same_step(CPU, tiny=True)
    assert found["samples"] == found["same_samples"] == 32 and found["gradient_difference"] == 0
    assert all(0 < gap < 1e-4 for gap in found["logprob_gap"])


@pytest.mark.slow
def test_speeds_with_levers_off(monkeypatch):
    monkeypatch.setitem(gpu.QWEN, "vocab_size", 512)
    found = gpu.speed(CPU, tiny=True)["tiny"]
    assert found["6 rows of 12"]["tokens_s"] > 0
    off = found["decoding, levers off"]
    assert list(off) == ["all on", "graphs", "fixed shapes", "bfloat16 copy", "one loop", "generate"]
    assert all(each["seconds"] > 0 for each in off.values())
    assert found["update"]["grad_norm"] > 0 and 0 < found["update"]["logprob_gap"] < 0.5
    assert {"all on", "slices of 2^25 logits", "forwards for 256 tokens", "AdamW, fused", "AdamW"} < set(
        found["update"]
    )


def test_a_part_that_fails_is_recorded(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "same_step", lambda *_: 1 / 0)
    monkeypatch.setattr(gpu, "speed", lambda *_: {"tiny": 1})
    gpu.main(["--tiny", "--parts", "step", "speed", "--out", str(tmp_path / "gpu")])
    found = json.loads((tmp_path / "gpu" / "cpu.json").read_text())
    assert "ZeroDivisionError" in found["step"]["error"] and found["speed"] == {"tiny": 1} and found["torch"]
