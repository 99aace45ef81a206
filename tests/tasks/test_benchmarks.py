"""tasks/benchmarks.py: the sets are complete and their answers can be graded. Tests of --bench are in test_eval.py."""

import json
from pathlib import Path

import pytest

import rewards
from tasks import addition, benchmarks

SHARED = Path(__file__).parents[3] / "shared" / "data"
SIZES = {"aime24": 30, "math500": 500, "amc23": 40, "minerva": 272, "olympiadbench": 675, "gsm8k": 1319}
PICTURES = {"cvbench": 788 + 650 + 600 + 600, "geoqa": 754, "lisa": 779, "lisa-val": 200}
PICTURES |= {"flowers102": 6149, "pets37": 3669, "fgvc": 3333, "cars196": 8041}  # of the sets' own test splits


def test_the_sizes_of_the_benchmarks():
    sizes = {name: benchmark.size for name, benchmark in benchmarks.BENCHMARKS.items()}
    assert sizes == SIZES | PICTURES | {"addition": 300, "shapes": 200}


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


def test_the_first_problems_of_a_set_in_two_files(monkeypatch):
    loaded = []

    def load(source, **_):
        loaded.append(source)
        return [{"problem": "?", "answer": "(A) a"}] * 6, 0

    monkeypatch.setattr(benchmarks.data, "load", load)
    problem_set = benchmarks.load_sets("cvbench[:3]", None, skip_bad_rows=False)["cvbench"]
    assert loaded == ["nyu-visionx/CV-Bench:test_2d.parquet[:3],nyu-visionx/CV-Bench:test_3d.parquet[:3]"]
    assert len(problem_set.rows) == problem_set.expected == 3 and not problem_set.whole


@pytest.mark.skipif(not SHARED.is_dir(), reason="the benchmarks are not here")
def test_w3_every_gold_of_the_six_benchmarks_equals_itself():
    sets = benchmarks.load_sets(",".join(SIZES), str(SHARED), skip_bad_rows=False)
    assert {name: len(problem_set.rows) for name, problem_set in sets.items()} == SIZES
    assert all(problem_set.whole and problem_set.unequal == 0 for problem_set in sets.values())
    for problem_set in sets.values():
        golds = [row["answer"] for row in problem_set.rows]
        assert all(rewards.accuracy(f"so \\boxed{{{gold}}}", gold) == 1.0 for gold in golds)


@pytest.mark.skipif(not SHARED.is_dir(), reason="GEOQA is not here")
def test_golds_of_geoqa_are_right_with_their_units_and_degrees_and_without():
    lines = (SHARED / "pictures" / "geoqa_text_200.jsonl").read_text().splitlines()
    golds = [json.loads(line)["solution"].removeprefix("<answer>").removesuffix("</answer>").strip() for line in lines]
    assert len(golds) == 200 and {"145°", "10cm"} & set(golds)
    for gold in golds:
        assert rewards.accuracy(f"<think>so</think> <answer>{gold}</answer>", f"<answer> {gold} </answer>") == 1.0
        bare = gold.removesuffix("°").removesuffix("cm").removesuffix("米")
        assert rewards.accuracy(f"<answer>{bare}</answer>", gold) == 1.0, gold
