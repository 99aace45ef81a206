"""tools.scaling: the table of a run of two ranks, with shares that are shares."""

import pytest

from tools import scaling


def test_table_by_hand():
    one = {"step": 0.5, "gradients": 0.0, "groups": 0.005, "counts": 0.0}
    two = {"step": 0.625, "gradients": 0.0125, "groups": 0.00625, "counts": 0.003125}
    rows = scaling.table({1: one, 2: two}).splitlines()[2:]
    assert rows[0] == "| 1 | 0.500 | 100% | 0.00% | 1.00% | 0.00% |"
    assert rows[1] == "| 2 | 0.625 | 80% | 2.00% | 1.00% | 0.50% |"  # 0.5 / 0.625


def test_a_wrong_flag_is_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        scaling.main(["--ranks", "0"])
    assert stopped.value.code == 2 and capsys.readouterr().err.count("\n") == 1
