"""run/journal.py: rows, the lines for who watches, and warnings.

Tried by hand, each turns this file red: the error of all samples in place of that of groups, entropy over padding,
rewards for lengths, a warning that comes twice, a count of steps that is not begun anew, a bar in a file.
"""

import io
import json
import math
import sys
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import train
from rollout import rollout
from run import journal
from tasks import addition, data

ROW = {
    "step": 1, "reward": 0.25, "reward_se": 0.05, "valid_share": 0.5, "easy_share": 0.25, "hard_share": 0.25,
    "alpha": 2.0, "grad_norm": 0.125, "entropy": 0.5, "truncated_share": 0.0, "logprob_gap": 1e-6,
    "trained_tokens": 500, "seconds_rollout": 2.0, "seconds_reward": 0.05, "seconds_update": 4.0,
}  # fmt: skip


def rows_of(out, name="metrics"):
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]


def test_the_error_of_the_mean_reward_is_that_of_groups():
    rewards = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]], dtype=torch.float64)
    # means 1, 0, 1/2: variance ((1/2)^2 + (1/2)^2 + 0) / 2 = 1/4, over three groups: sqrt(1/12)
    assert journal.standard_error(rewards) == pytest.approx(math.sqrt(1 / 12), rel=1e-12)
    assert journal.standard_error(rewards[:1]) is None


def test_rows_and_groups_are_those_of_the_samples(world, tmp_path, monkeypatch):
    """Entropy, error, rewards and lengths of two rounds a step, against the batch itself."""
    batches = []
    collect = train.collect
    monkeypatch.setattr(train, "collect", lambda *a: batches.append(collect(*a)) or batches[-1])
    train.main(world(tmp_path, beta_th=1, max_rounds=2, eval_data=None))
    assert max(batch.rounds for batch in batches) == 2
    for batch, row, groups in zip(batches, rows_of(tmp_path), rows_of(tmp_path, "groups"), strict=True):
        mask = batch.rollout.completion_mask.bool()
        drawn = batch.rollout.logprobs[mask].tolist()
        assert row["entropy"] == pytest.approx(-sum(drawn) / len(drawn), rel=1e-12) and row["entropy"] > 0
        assert groups == {"step": row["step"], "rewards": batch.rewards.tolist(), "tokens": mask.sum(2).tolist()}
        means = [sum(group) / len(group) for group in groups["rewards"]]
        mean = sum(means) / len(means)
        variance = sum((x - mean) ** 2 for x in means) / (len(means) - 1)
        assert row["reward_se"] == pytest.approx(math.sqrt(variance / len(means)), rel=1e-10)
        advantages = batch.rewards - batch.rewards.mean(dim=1, keepdim=True)  # of quarters: exact
        assert row["trained_tokens"] == mask[advantages != 0].sum()


def test_kinds_have_their_reward_valid_share_and_alpha(world, tmp_path):
    """Two rounds of two prompts, at the places 2 to 5 of the stream; the last kind is no text."""
    args, state = SimpleNamespace(seed=0, prompts_per_step=2), SimpleNamespace(position=2)
    places = data.order(6, 0, 2, 4)
    problems = [{} for _ in range(6)]
    for place, kind in zip(places, ["a", "b", "a", None], strict=True):
        problems[place] = {"kind": kind}
    rewards = torch.tensor([[1, 0], [1, 1], [1, 1], [0, 0]], dtype=torch.float64)
    # a: (1/2 + 1) / 2 = 3/4, one group of two is valid; of a round's 2 prompts 1 is an a, so alpha = 1 / 1
    expected = {"reward_of/a": 0.75, "valid_share/a": 0.5, "alpha/a": 1.0}
    expected |= {"reward_of/b": 1.0, "valid_share/b": 0.0, "alpha/b": None}
    assert journal.by_kind(problems, rewards, args, state) == expected
    # in one round of four prompts two are an a: alpha = 2 / 1
    args.prompts_per_step = 4
    assert journal.by_kind(problems, rewards, args, state) == expected | {"alpha/a": 2.0}
    assert journal.by_kind([{}] * 6, rewards, args, state) == {}

    rows = [{"problem": f"{a}+1=?", "answer": str(a + 1), "kind": "odd" if a % 2 else "even"} for a in range(8)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train.main(world(tmp_path / "run", data=tmp_path / "rows.jsonl", steps=1, prompts_per_step=8, eval_data=None))
    (row,), (groups,) = rows_of(tmp_path / "run"), rows_of(tmp_path / "run", "groups")
    odd = [sum(x) / len(x) for x, i in zip(groups["rewards"], data.order(8, 0, 0, 8), strict=False) if i % 2]
    assert row["reward_of/odd"] == pytest.approx(sum(odd) / len(odd), rel=1e-12)
    assert row["valid_share"] == pytest.approx((row["valid_share/odd"] + row["valid_share/even"]) / 2, rel=1e-12)


@pytest.mark.parametrize("rewards", ["iou", "iou>0.5,accuracy"])
def test_boxes_are_counted_apart_from_the_rules_of_answers(world, tmp_path, rewards):
    train.main(world(tmp_path, rewards=rewards, steps=1, eval_data=None))
    (row,) = rows_of(tmp_path)
    assert sum(n for key, n in row.items() if key.startswith("box/")) == row["box/none"] == 1  # a random model's
    rules = [n for key, n in row.items() if key.startswith("answer_rule/")]
    assert rules == [] and "given_up" not in row if rewards == "iou" else sum(rules) == 1 and row["given_up"] == 0


def test_a_step_is_a_line_of_100_columns_under_its_head():
    head = journal.HEAD.split("\n")
    usual = journal.step_line(ROW | {"accuracy": 0.25, "grad_cosine": 0.3}, 30_000)
    # 30,000 tokens in 2 s and in 0.05 s, 500 in 4 s
    assert usual.split() == "1 0.250 ±0.050 25.0 50 25 25 2.000 0.500 0 0.125 +0.30 15k 600k 125".split()
    extreme = ROW | {"step": 1100, "reward": -0.5, "alpha": 144.0, "grad_norm": 1.234e-05, "entropy": 11.9}
    extreme |= {"valid_share": 1.0, "truncated_share": 1.0, "accuracy": 1.0}
    extreme |= {"grad_cosine": -1.0}
    nothing = {"step": 0, "reward": None}
    for line in (usual, journal.step_line(extreme, 400_000), journal.step_line(nothing, 0)):
        assert len(line) == len(head[1]) == 100
    for name in "step,se,out %,valid,easy,hard,alpha,tropy,off %,norm,cos,draw,grade,train".split(","):
        end = head[1].rindex(name) + len(name)
        assert usual[end - 1] != " " and (end == 100 or usual[end] == " ")  # numbers end where their name does


def watched(rows, dtype="float32", before="/nowhere"):
    args = SimpleNamespace(dtype=dtype, max_new_tokens=8)
    watch = journal.make_watch(args, Path(before))
    return [watch(ROW | row | {"step": i}) for i, row in enumerate(rows, 1)]


def test_warnings_come_once_after_five_steps_in_a_row_with_advice():
    easy, hard = ({"valid_share": 0.0, "easy_share": x, "hard_share": 1 - x, "grad_norm": 0.0} for x in (1.0, 0.0))
    said = watched([easy] * 4 + [{}] + [easy] * 12)
    assert [i for i, lines in enumerate(said, 1) if lines] == [10]
    assert said[9][0].startswith("warning, step 10: no group was valid for 5 steps") and "too easy" in said[9][0]
    assert "samples.jsonl" in watched([hard] * 5)[4][0] and "too easy" not in watched([hard] * 5)[4][0]
    assert watched([hard | {"grad_norm": 0.1}] * 9) == [[]] * 9  # ReMax, say, which learns from any group
    said = watched([{"truncated_share": 0.5}, {"truncated_share": 0.51}, {"truncated_share": 0.9}])
    assert [len(lines) for lines in said] == [0, 1, 0] and "51% of the completions hit --max-new-tokens 8" in said[1][0]


def test_entropy_is_held_against_the_first_step_of_the_run(tmp_path):
    low = [{"entropy": 0.049}] * 6
    said = watched([{}, *low])
    assert [len(lines) for lines in said] == [0, 0, 0, 0, 0, 1, 0] and "below 10% of the first step's" in said[5][0]
    assert watched([{}, *[{"entropy": 0.051}] * 6]) == [[]] * 7
    assert watched(low) == [[]] * 6 == watched([{"entropy": None}] * 6)  # of demonstrations
    (tmp_path / "metrics.jsonl").write_text(json.dumps(ROW) + "\n")  # a run that goes on
    assert len(watched(low, before=tmp_path / "metrics.jsonl")[4]) == 1


def test_each_reward_has_its_mean_below_the_step():
    assert journal.reward_lines(ROW) == [] == journal.reward_lines(ROW | {"reward/accuracy": 0.25})
    assert journal.reward_lines(ROW | {"reward/mine": 0.5}) == ["      mine 0.500"]  # of weight 1/2
    assert journal.reward_lines(ROW | {"reward/mine": None}) == ["      mine -"]
    means = {f"reward/reward_{i}": i / 10 for i in range(12)}
    lines = journal.reward_lines(ROW | means)
    assert max(map(len, lines)) <= 80 and lines[0].startswith("      reward_0 0.000, reward_1 0.100, ")
    assert [word for line in lines for word in line.replace(",", "").split()][-1] == "1.100"


def test_a_reward_that_scores_nothing_is_named_at_once():
    none = {"reward/a": None, "reward/b": 0.0, "valid_share": 0.0, "easy_share": 0.0, "hard_share": 1.0, "grad_norm": 0}
    said = watched([none] * 6)
    assert [len(lines) for lines in said] == [1, 0, 0, 0, 0, 0] and "a returned None for every sample" in said[0][0]


def test_weights_and_biases_goes_on_in_the_same_run(world, tmp_path, monkeypatch):
    calls = []

    def init(**options):
        calls.append(options | {"steps": []})
        return SimpleNamespace(log=lambda _, step: calls[-1]["steps"].append(step))

    stub = ModuleType("wandb")
    stub.__spec__, stub.init = ModuleSpec("wandb", None), init
    monkeypatch.setitem(sys.modules, "wandb", stub)
    train.main(world(tmp_path, steps=2, eval_data=None, wandb="project"))
    train.main(["--out", str(tmp_path), "--resume", "--steps", "3"])
    train.main(world(tmp_path, steps=1, eval_data=None, wandb="project", overwrite=True))
    assert [call["steps"] for call in calls] == [[1, 2], [3], [1]] and calls[0]["project"] == "project"
    names = [call["id"] for call in calls]
    assert names[0] == names[1] != names[2] and all(call["resume"] == "allow" for call in calls)


def test_a_gap_is_told_from_rounding():
    said = watched([{"logprob_gap": 1e-3}, {"logprob_gap": None}, {"logprob_gap": 4e-3}])
    assert [len(lines) for lines in said] == [0, 0, 1] and "logprob_gap is 0.004" in said[2][0]
    assert "1e-5" in said[2][0] and "0.25" not in said[2][0]
    said = watched([{"logprob_gap": 0.1}, {"logprob_gap": 0.2}], dtype="bfloat16")
    assert said[0] == [] and "in bfloat16 rounding alone has made 0.25" in said[1][0]


@pytest.mark.parametrize(("columns", "width"), [(None, 100), (200, 100), (99, 94), (80, 75), (81, 81), (40, 38)])
def test_a_line_ends_with_the_last_column_that_fits(monkeypatch, columns, width):
    monkeypatch.setattr(journal, "columns", lambda: columns)
    line = journal.step_line(ROW | {"accuracy": 1.0, "grad_cosine": 0.3}, 30_000)
    lines = journal.fitted(f"{journal.HEAD}\n{line}").split("\n")
    assert max(map(len, lines)) == width and lines[2] == line[:width] and line[width:][:1] in ("", " ")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_run_says_that_the_loss_is_no_progress_and_prints_a_line_a_step(world, tmp_path, capsys, monkeypatch):
    train.main(world(tmp_path / "log", steps=2))
    printed, bar = capsys.readouterr()
    assert "the loss does not measure progress" in printed and bar == ""  # a bar would be rubbish in a file
    lines = printed.splitlines()
    start = lines.index(journal.HEAD.split("\n")[1])
    assert start + 1 <= 5  # lines before the first row, its head among them
    assert [line.split()[0] for line in lines[start + 1 :] if line[:4].strip().isdecimal()] == ["0", "1", "2"]
    train.main(["--out", str(tmp_path / "log"), "--resume", "--steps", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("resuming from ") and lines[1] == "--resume changes --steps from 2 to 3"
    assert lines[2:4] == journal.HEAD.split("\n")

    monkeypatch.setattr("sys.stderr", Terminal())
    train.main(world(tmp_path / "terminal", steps=2, rank_timeout=60))
    bar = journal.sys.stderr.getvalue()
    assert "2/2" in bar and all(what in bar for what in ("evaluation", "rewards of step 1", "update of step 2"))


def test_how_many_completions_have_ended_is_shown(monkeypatch):
    told = []
    monkeypatch.setattr(journal, "show", lambda *words: told.append(words))
    model, tokenizer = addition.make_model(addition.make_tokenizer()), addition.make_tokenizer()
    options = {"cache_tokens": 4 * 12, "progress": partial(journal.show, "sampling")}
    monkeypatch.setattr("rollout.eos_ids", lambda *_: list(range(131)))  # half of the vocabulary ends a completion
    sampled = rollout(model, tokenizer, [[1, 2]] * 3, 4, 10, **options)
    assert [words[:3] for words in told] == sorted(words[:3] for words in told)
    for done in (0, 4, 8):  # a batch is a prompt
        ended = [count for _, total, before, count in told if (total, before) == (12, done)]
        assert ended == sorted(set(ended)) and ended[-1] == 4 - int(sampled.truncated[done // 4].sum())


def test_the_bar_says_how_much_is_done_but_not_too_often(monkeypatch):
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr(journal.dist, "get_rank", lambda: 0)
    journal.start_bar(3, 1)
    journal.show("rollout of step 2")
    for ended in range(100):
        journal.show("sampling", 128, 8, ended)
    journal.BAR[0].refresh()
    journal.BAR[0].close()
    bar = journal.sys.stderr.getvalue()
    assert "rollout of step 2" in bar and "sampling 107 of 128" in bar and bar.count("\r") < 20


def test_what_a_model_wrote_cannot_command_the_terminal(monkeypatch, capsys):
    journal.say("a\x1b[2J\u202eb\n" + "word " * 30)
    assert capsys.readouterr().out == "a\\x1b[2J\\u202eb\n" + "word " * 30 + "\n"
    monkeypatch.setattr(journal, "columns", lambda: 80)
    journal.say("  word" * 30)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and max(map(len, lines)) <= 80 and lines[0].startswith("  word  word")


def test_the_problem_that_is_shown_is_one_that_changed(capsys, monkeypatch):
    monkeypatch.setattr(journal.dist, "get_rank", lambda: 0)

    def evaluated(right):
        rows = [{"problem": f"problem {i}"} for i in range(3)]
        texts = [f"said {right[i]}" for i in range(3)]
        return journal.Evaluation(sum(right) / 3, 0.1, {}, rows, texts, right)

    args = SimpleNamespace(out="out", steps=5, keep_best=False)
    for before, after, shown in (
        ([1.0, 0.0, 0.0], [1.0, 0.0, 1.0], "problem 2\n--- before, wrong:\nsaid 0.0\n--- after, right:"),
        ([1.0, 1.0, 0.0], [1.0, 0.0, 0.0], "problem 1\n--- before, right:\nsaid 1.0\n--- after, wrong:"),
        ([0.0, 0.2, 0.3], [0.1, 0.7, 0.3], "problem 1\n--- before, 0.20:\nsaid 0.2\n--- after, 0.70:"),
        ([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], "no held-out problem is answered better or worse than before\n"),
    ):
        journal.report(args, None, 0, evaluated(before), evaluated(after), {})
        printed = capsys.readouterr().out
        assert shown in printed and ("one that changed" in printed) == (before != after)


def test_a_run_of_before_goes_on(world, tmp_path):
    """Its rows lack entropy, and groups.jsonl is not there."""
    train.main(world(tmp_path, steps=2))
    rows = rows_of(tmp_path)
    for row in rows:
        del row["entropy"]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "groups.jsonl").unlink()
    train.main(["--out", str(tmp_path), "--resume", "--steps", "3"])
    assert [row["step"] for row in rows_of(tmp_path, "groups")] == [3]
