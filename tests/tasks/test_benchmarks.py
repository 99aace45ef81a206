"""tasks/benchmarks.py: the sets are complete and their answers can be graded. Tests of --bench are in test_eval.py."""

from pathlib import Path

import pytest

import rewards
from tasks import addition, benchmarks

SHARED = Path(__file__).parents[3] / "shared" / "data"
SIZES = {"aime24": 30, "math500": 500, "amc23": 40, "minerva": 272, "olympiadbench": 675, "gsm8k": 1319}


def test_the_sizes_of_the_benchmarks():
    sizes = {name: benchmark.size for name, benchmark in benchmarks.BENCHMARKS.items()}
    assert sizes == SIZES | {"addition": 300}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aime24", {"aime24": None}),
        ("gsm8k[:7], aime24 ,addition[:40]", {"gsm8k": 7, "aime24": None, "addition": 40}),
    ],
)
def test_parse_benches(text, expected):
    assert benchmarks.parse_benches(text) == expected


def test_addition_needs_no_file(tmp_path):
    problems = addition.problems("test")
    whole, part = (
        benchmarks.load_sets(text, str(tmp_path), skip_bad_rows=False) for text in ("addition", "addition[:5]")
    )
    assert whole["addition"].rows == problems and whole["addition"].whole
    assert part["addition"].rows == problems[:5] and not part["addition"].whole and part["addition"].expected == 5


@pytest.mark.skipif(not SHARED.is_dir(), reason="the benchmarks are not here")
def test_w3_every_gold_of_the_six_benchmarks_equals_itself():
    sets = benchmarks.load_sets(",".join(SIZES), str(SHARED), skip_bad_rows=False)
    assert {name: len(problem_set.rows) for name, problem_set in sets.items()} == SIZES
    assert all(problem_set.whole and problem_set.unequal == 0 for problem_set in sets.values())
    for problem_set in sets.values():
        golds = [row["answer"] for row in problem_set.rows]
        assert all(rewards.accuracy(f"so \\boxed{{{gold}}}", gold) == 1.0 for gold in golds)
