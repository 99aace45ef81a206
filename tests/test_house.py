"""The house's own rules: who imports whom, how large a room may be, no work on import, recipes that parse."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from eval import GRADER
from run import flags

ROOT = Path(flags.__file__).parents[1]
OURS = {path.stem for path in ROOT.glob("*.py")}

LOOP = {
    "balance",
    "baselines",
    "checkpoint",
    "data",
    "doctor",
    "faults",
    "flags",
    "gpg",
    "journal",
    "lora",
    "parallel",
    "plan",
    "policy",
    "record",
    "rewards",
    "rollout",
    "tiny",
    "update",
}

# file: (imports of ours, most lines). Data flows one way; raising a number is a commit that says why.
ROOMS = {
    "gpg.py": (set(), 310),
    "rollout.py": (set(), 370),
    "engine/policy.py": ({"gpg", "rollout"}, 260),
    "grader/spelling.py": (set(), 255),
    "grader/reading.py": ({"spelling"}, 1020),
    "grader/values.py": ({"reading"}, 450),
    "grader/equality.py": ({"reading", "values"}, 760),
    "grader/extraction.py": ({"answers"}, 270),
    "grader/workers.py": ({"answers"}, 200),
    "rewards.py": ({"answers", "extract", "grading"}, 415),
    "tasks/data.py": (set(), 400),
    "tasks/addition.py": (set(), 260),
    "run/checkpoint.py": (set(), 235),
    "run/faults.py": (set(), 225),
    "run/memory.py": (set(), 265),
    "run/flags.py": ({"baselines", "checkpoint", "data", "gpg", "record", "tiny"}, 310),
    "engine/methods.py": ({"gpg", "policy", "rollout"}, 200),
    "engine/balance.py": ({"rollout"}, 100),
    "engine/parallel.py": ({"policy"}, 160),
    # the method's update takes half of it, the noise of its gradient and what only the compared methods need the other
    "engine/update.py": ({"balance", "baselines", "gpg", "parallel", "policy", "rollout"}, 270),
    # samples of a step in a file, and read again: for --replay
    "run/record.py": ({"checkpoint", "rollout"}, 140),
    # rows, warnings, what is said: as long as the loop that they tell of
    "run/journal.py": ({"checkpoint", "gpg", "update"}, 280),
    "engine/lora.py": (set(), 100),
    # a check a function, and the table
    "tools/doctor.py": ({"gpg", "parallel", "plan", "rollout", "update"}, 330),
    # ranks, signals, a run on disk: each a step of its own, which the loop reads as one line
    "train.py": (LOOP, 720),
    "run/scores.py": (set(), 280),
    # six sets and their checks, three commands, ranks and resume: what a table of the paper takes
    "eval.py": ({"answers", "data", "flags", "rewards", "rollout", "scores"}, 540),
}


def imports(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("name", sorted(ROOMS))
def test_rooms_import_what_the_design_allows_and_are_not_too_full(name):
    allowed, lines = ROOMS[name]
    assert imports(ROOT / name) & OURS == allowed
    assert len((ROOT / name).read_text().splitlines()) <= lines


def test_every_room_is_listed():
    assert {path.name for path in ROOT.glob("*.py")} == set(ROOMS)


def test_the_method_imports_only_torch():
    assert imports(ROOT / "gpg.py") == {"math", "torch"}


def test_graders_import_no_torch_and_nothing_that_reads_code():
    for name in GRADER:
        assert not imports(ROOT / name) & {"torch", "numpy", "signal"}
        tree = ast.walk(ast.parse((ROOT / name).read_text()))
        called = [node.func for node in tree if isinstance(node, ast.Call)]
        names = {f.id for f in called if isinstance(f, ast.Name)} | {
            f.attr for f in called if isinstance(f, ast.Attribute)
        }
        assert not names & {"eval", "exec", "sympify", "parse_expr", "lambdify", "S", "simplify", "solve"}
        assert "sympy" not in imports(ROOT / name)


def test_the_graders_version_covers_all_that_a_verdict_depends_on():
    rooms, found = set(), {"rewards"}
    while found:
        rooms |= found
        found = {name for room in found for name in imports(ROOT / f"{room}.py") & OURS} - rooms
    assert {f"{room}.py" for room in rooms} == set(GRADER)


def test_one_place_names_a_device():
    places = [
        (path.name, number)
        for path in ROOT.glob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "cuda" in line and not line.lstrip().startswith("#")
    ]
    assert {name for name, _ in places} <= {"train.py", "eval.py"}
    for name in ("train.py", "eval.py"):
        lines = [number for place, number in places if place == name]
        assert max(lines) - min(lines) < 8  # one function


def test_importing_does_no_work():
    modules = ", ".join(sorted(OURS))
    code = (
        "import sys, torch, random, signal\n"
        "def look(): return random.getstate(), torch.get_default_dtype(), signal.getsignal(signal.SIGINT)\n"
        "before, generator = look(), torch.get_rng_state()\n"
        f"import {modules}\n"
        "assert look() == before and torch.equal(torch.get_rng_state(), generator)\n"
        "assert not torch.distributed.is_initialized()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "" and done.stderr == "", done.stderr


@pytest.mark.parametrize("recipe", sorted(path.name for path in (ROOT / "config").glob("*.args")))
def test_recipes_parse_and_carry_the_papers_number(recipe, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)  # recipes name each other from there
    args = flags.parse_args([f"@config/{recipe}", "--out", str(tmp_path)])
    text = (ROOT / "config" / recipe).read_text()
    assert text.startswith("# ") and ("aper" in text.split("--")[0])
    assert args.group_size in (6, 8) and args.lr in (1e-6, 3e-6)
    assert f"@config/{recipe}" in text or recipe == "math-7b.args"


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (
            "dapo-7b",
            {"f_norm": "none", "age": True, "beta_th": 0.6, "norm": "group", "prompts_per_step": 144, "steps": 1100},
        ),
        ("math-7b-gpg", {"f_norm": "none", "age": True, "beta_th": 0.6, "norm": "group", "prompts_per_step": 64}),
        ("math-7b-gpg-no-beta", {"f_norm": "none", "age": True, "beta_th": 0.0, "norm": "group"}),
        ("math-7b-gpg-std", {"f_norm": "group", "age": False, "beta_th": 0.0, "norm": "group"}),
        ("math-7b-gpg-plain", {"f_norm": "none", "age": False, "beta_th": 0.0, "norm": "group"}),
        ("math-7b-grpo", {"f_norm": "group", "age": False, "beta_th": 0.0, "norm": "sequence"}),
        ("math-7b-dr-grpo", {"f_norm": "none", "age": False, "beta_th": 0.0, "norm": "constant"}),
        ("math-7b-dapo", {"f_norm": "group", "age": False, "beta_th": 1.0, "norm": "valid_token"}),
        ("open-s1-1.5b", {"f_norm": "group", "age": False, "beta_th": 0.0, "steps": 100, "group_size": 6}),
        ("open-rs-1.5b", {"f_norm": "group", "age": False, "beta_th": 0.0, "steps": 50, "group_size": 6}),
    ],
)
def test_recipes_are_the_rows_of_the_paper(recipe, expected, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    args = flags.parse_args([f"@config/{recipe}.args", "--out", str(tmp_path)])
    assert {name: getattr(args, name) for name in expected} == expected
