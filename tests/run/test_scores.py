"""run/scores.py by hand: each expected number is derived in a comment.

Changes that make this file fail: pass@k as 1 - (1 - c/n)^k, a tie that goes to the last class, samples without
an answer that vote, the variance over P instead of P - 1, a comparison that pairs rows by their place alone, an average
that is the first set's, one token too many.
"""

import itertools
import json
import math
import re
from fractions import Fraction

import mpmath
import pytest

from run import scores


def completion(verdict, submitted="7", **more):
    return {"verdict": verdict, "submitted": submitted, "text": "", "tokens": 10, "truncated": False} | more


def row(name, place, greedy, samples=(), majority=None, **more):
    """A row of a result; greedy and samples are verdicts."""
    parts = {"greedy": [completion(greedy)], "samples": [completion(verdict) for verdict in samples]}
    seconds = {"greedy": 0.5, "samples": 2.0}
    usual = {"set": name, "place": place, "problem": f"{name} {place}", "answer": "7", "prompt": "", "prompt_tokens": 1}
    return usual | parts | {"majority": majority, "seconds": seconds} | more


def left_out(name, place):
    return row(name, place, False) | {"greedy": [], "samples": [], "seconds": {}}


def test_a_narrow_terminal_gets_stacked_heads_and_then_lines_as_columns(monkeypatch):
    lines = [["", "mean tokens", "per rank"], ["addition", "30.4", "7,326"]]
    monkeypatch.setattr(scores, "columns", lambda: 80)
    assert scores.table(lines) == "          mean tokens  per rank\naddition         30.4     7,326"
    monkeypatch.setattr(scores, "columns", lambda: 25)
    assert scores.table(lines) == "            mean    per\n          tokens   rank\naddition    30.4  7,326"
    monkeypatch.setattr(scores, "columns", lambda: 22)
    assert scores.table(lines) == "             addition\nmean tokens      30.4\nper rank        7,326"
    monkeypatch.setattr(scores, "columns", lambda: 5)  # nothing fits
    assert scores.table(lines) == "          mean tokens  per rank\naddition         30.4     7,326"


def cells(text, *names):
    """The cells that follow the given ones in their line of a table."""
    lines = [re.split(" {2,}", line) for line in text.splitlines()]
    (line,) = [line for line in lines if line[: len(names)] == list(names)]
    return line[len(names) :]


# ---------------------------------------------------------------------------------------------------------- a problem


def test_e1_pass_at_k_by_hand():
    assert scores.pass_at_k(5, 2, 1) == pytest.approx(2 / 5, rel=1e-15)
    assert scores.pass_at_k(5, 2, 3) == pytest.approx(1 - 1 / 10, rel=1e-15)  # C(3, 3) / C(5, 3)
    assert scores.pass_at_k(5, 2, 4) == 1.0  # four of five can't all be wrong
    assert scores.pass_at_k(4, 0, 4) == 0.0
    assert scores.pass_at_k(1000, 1, 500) == pytest.approx(0.5, rel=1e-12)  # no overflow


@pytest.mark.parametrize("n", [1, 3, 6])
def test_e1_pass_at_k_is_the_share_of_subsets_with_a_right_one(n):
    for c, k in itertools.product(range(n + 1), range(1, n + 1)):
        verdicts = [True] * c + [False] * (n - c)
        drawn = list(itertools.combinations(verdicts, k))
        assert scores.pass_at_k(n, c, k) == pytest.approx(float(Fraction(sum(map(any, drawn)), len(drawn))), rel=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(4, 2, 5), (4, 2, 0), (4, 5, 2), (4, -1, 2), (0, 0, 1)])
def test_e1_more_than_n_can_not_be_drawn(n, c, k):
    with pytest.raises(ValueError, match=f"pass@{k} of {n} samples, {c} right"):
        scores.pass_at_k(n, c, k)


@pytest.mark.parametrize(
    ("submitted", "winner"),
    [
        (["1", "2", "2"], 1),
        (["1", "2", "2", "1"], 0),  # a tie: who came first
        (["2", "1", "1", "2", "3"], 0),
        ([None, None, "3"], 2),  # no answer, no vote
        ([None, None], None),
        ([], None),
        (["1", "0.5", "1/2"], 1),  # one class, by the grader
        (["0.5", "1", "1/2", "1"], 0),
    ],
)
def test_e2_majority(submitted, winner):
    def same(candidate, answer):
        return Fraction(candidate) == Fraction(answer)

    assert scores.majority(submitted, same) == winner


def test_measures_of_a_problem():
    assert scores.measures(row("a", 0, True, (True, False, False, True), majority=1), (2, 4)) == {
        "greedy pass@1": 1.0,
        "avg@4": 0.5,
        "maj@4": 0.0,  # sample 1 is wrong
        "pass@2": pytest.approx(5 / 6),  # 1 - C(2, 2) / C(4, 2)
        "pass@4": 1.0,
    }
    assert scores.measures(row("a", 0, False, (True, False), majority=None), ())["maj@2"] == 0.0
    assert scores.measures(row("a", 0, False), ()) == {"greedy pass@1": 0.0}


# ---------------------------------------------------------------------------------------------------- means and errors


def test_e3_the_error_is_clustered_by_problem():
    # means of three problems of four samples: 1, 1/4, 0; their mean 5/12; deviations 7/12, -2/12, -5/12
    # variance (49 + 4 + 25) / 144 / 2 = 39/144; error sqrt(39/144 / 3) = sqrt(13) / 12
    assert scores.mean_and_error([1.0, 0.25, 0.0]) == pytest.approx((5 / 12, 13**0.5 / 12), rel=1e-12)
    mean, error = scores.mean_and_error([1.0])
    assert mean == 1.0 and math.isnan(error)


# the usual table, for 1 to 30 degrees of freedom
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
T_95 += (2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


def test_t_quantile_is_that_of_the_tables():
    assert [round(scores.t_quantile(degrees), 3) for degrees in range(1, 31)] == list(T_95)


def test_t_quantile_is_exact():
    # closed forms: P(|T| < t) is 2/pi atan(t) for 1 degree, t / sqrt(t^2 + 2) for 2
    assert scores.t_quantile(1) == pytest.approx(math.tan(0.475 * math.pi), rel=1e-9)
    assert scores.t_quantile(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-9)
    for degrees in (3, 4, 7, 29, 100, 1318):  # the density, integrated
        density = mpmath.gamma((degrees + 1) / 2) / mpmath.gamma(degrees / 2) / mpmath.sqrt(degrees * mpmath.pi)
        inside = mpmath.quad(lambda x, n=degrees: (1 + x * x / n) ** (-(n + 1) / 2), [0, scores.t_quantile(degrees)])
        assert 2 * density * inside == pytest.approx(0.95, abs=1e-9)
    assert scores.t_quantile(10**5) == pytest.approx(1.959988, abs=1e-6)  # of the normal distribution: 1.959964


def test_sign_test_by_hand():
    assert scores.sign_test(3, 0) == 2 / 8
    assert scores.sign_test(1, 4) == 2 * (1 + 5) / 32
    assert scores.sign_test(2, 2) == 1.0 and scores.sign_test(0, 0) == 1.0
    assert scores.sign_test(9900, 10100) == pytest.approx(0.15938, abs=1e-5)  # 2 (1 - Phi(199 / sqrt(20000))) = .15939


# -------------------------------------------------------------------------------------------------------------- tables


@pytest.fixture
def rows():
    """a: two problems of 2 samples and one left out; b: one problem."""
    return [
        row("a", 0, True, (True, True), majority=0),
        row("a", 1, False, (True, False), majority=1),
        left_out("a", 2),
        row("b", 0, True, (False, False), majority=0),
    ]


def test_columns_are_aligned():
    assert scores.table([["", "n", "mean, %"], ["math500", "500", "9.1"], ["a", "3", "10.0 ± 1.5"]]).splitlines() == [
        "           n     mean, %",
        "math500  500         9.1",
        "a          3  10.0 ± 1.5",
    ]


def test_score_table(rows):
    text = scores.score_table(rows, ["a", "b"], [1, 2])
    assert cells(text, "") == ["problems", "greedy pass@1, %", "avg@2, %", "maj@2, %", "pass@1, %", "pass@2, %"]
    # greedy 1, 0: variance 1/2, error sqrt(1/2 / 2) = .5; avg 1, 1/2: variance 1/8, error .25; pass@2 1, 1
    assert cells(text, "a") == ["2", "50.0 ± 50.0", "75.0 ± 25.0", "50.0 ± 50.0", "75.0 ± 25.0", "100.0 ± 0.0"]
    assert cells(text, "b") == ["1", "100.0", "0.0", "0.0", "0.0", "0.0"]  # one problem tells no error


def test_completion_table(rows):
    rows[0]["samples"][0] |= {"truncated": True, "submitted": None, "tokens": 20}
    text = scores.completion_table(rows, ["a", "b"])
    assert cells(text, "a", "greedy") == ["2", "0.0", "0.0", "10.0", "20"]  # 20 tokens in twice .5 s
    assert cells(text, "a", "sampled") == ["4", "25.0", "25.0", "12.5", "12"]  # 50 tokens in 4 s, to even
    assert len(text.splitlines()) == 5


def test_the_papers_rows_have_the_papers_averages():
    text = scores.paper_table("mine", [], [])
    assert cells(text, "paper, Table 3: GPG-RS1 (1.5B)") == ["55.7", "33.3", "87.6", "77.5", "29.4", "50.5"]
    assert cells(text, "paper, Table 4: GPG-7B") == ["57.7", "36.7", "84.6", "82.5", "39.0", "45.8"]
    assert cells(text, "paper, Table 4: Qwen2.5-Math-7B")[0] == "30.9"


def test_paper_table_marks_parts_and_averages_five_sets_only():
    right = {"aime24": (1, 0), "math500": (1, 1), "amc23": (1, 0), "minerva": (0, 0), "olympiadbench": (0, 0)}
    rows = [row(name, place, bool(v)) for name, verdicts in right.items() for place, v in enumerate(verdicts)]
    text = scores.paper_table("mine", rows, list(right))
    # sets 50, 100, 50, 0, 0: mean 40; errors .5, 0, .5, 0, 0: sqrt(.5) / 5 = .1414
    assert cells(text, "mine, greedy pass@1") == ["40.0 ± 14.1", "50.0 ± 50.0", "100.0 ± 0.0", "50.0 ± 50.0",
                                                  "0.0 ± 0.0", "0.0 ± 0.0"]  # fmt: skip
    assert "not the whole set" not in text

    text = scores.paper_table("mine", rows, ["aime24"])
    assert cells(text, "mine, greedy pass@1")[:3] == ["40.0 ± 14.1 *", "50.0 ± 50.0", "100.0 ± 0.0 *"]
    assert text.endswith("\n* not the whole set, so not comparable with the paper")

    text = scores.paper_table("mine", rows[:2] + [row("gsm8k", 0, True)], ["aime24"])
    assert cells(text, "mine, greedy pass@1") == ["–", "50.0 ± 50.0", "–", "–", "–", "–"]


# ---------------------------------------------------------------------------------------------------------- comparison


def test_compare_by_hand():
    before = [row("a", i, verdict) for i, verdict in enumerate([1, 0, 0, 0, 1, 0])]
    after = [row("a", i, verdict) for i, verdict in enumerate([0, 1, 1, 0, 1, 1])]
    text = scores.compare(before, list(reversed(after)))
    # differences -1, 1, 1, 0, 0, 1: mean 1/3; squares of deviations 16/9 + 3 * 4/9 + 2 * 1/9 = 30/9
    # variance 2/3; error sqrt(2/3 / 6) = 1/3; t(5) = 2.5706: 1/3 -+ .8569
    # sign test of 3 and 1: 2 (1 + 4) / 16 = .625
    expected = ["33.3", "66.7", "+33.3", "-52.4 to +119.0", "3, 1", "0.625"]
    assert cells(text, "a", "6", "greedy pass@1") == expected
    assert "wrong before, right after: 3" in text and "right before, wrong after: 1\n  a 0: gold '7'" in text


def test_compare_pairs_the_same_problems_only():
    before = [row("a", 0, True), row("a", 1, True), row("b", 0, False), left_out("a", 2)]
    after = [
        row("a", 5, False, problem="a 0"),  # the same problem in another place
        row("a", 1, True, problem="another"),
        row("b", 0, True, answer="8"),  # another gold
        row("a", 2, True),
    ]
    assert cells(scores.compare(before, after), "a", "1", "greedy pass@1")[:3] == ["100.0", "0.0", "-100.0"]
    with pytest.raises(ValueError, match="no problem in common"):
        scores.compare(before[:1], after[1:])


def test_compare_takes_the_measures_that_both_have():
    before = [row("a", i, True, (True, False), majority=0) for i in range(2)]
    text = scores.compare(before, [row("a", i, True, (True, True), majority=0) for i in range(2)])
    assert cells(text, "a", "2", "avg@2")[:4] == ["50.0", "100.0", "+50.0", "–"]  # two problems tell no interval
    assert cells(text, "a", "2", "maj@2")[2] == "+0.0"
    text = scores.compare(before, [row("a", i, True, (True,) * 4, majority=0) for i in range(2)])
    assert text.count("\na  ") == 1  # of 2 and of 4 samples: only greedy is the same measure


def test_a_result_compared_with_itself_shows_no_difference_whatever_is_twice_in_it():
    same = [row("a", i, i % 3 == 0, (i % 2 == 0, True), majority=0, problem=f"p{i % 4}") for i in range(12)]
    chats = [row("c", i, i == 1, problem="and now?", turns=[{"role": "user", "content": f"{i}"}]) for i in range(5)]
    text = scores.compare(same + chats, same + chats[::-1])
    for measure, count in (("greedy pass@1", "12"), ("avg@2", "12")):
        assert cells(text, "a", count, measure)[2:5] == ["+0.0", "+0.0 to +0.0", "0, 0"]
    assert cells(text, "c", "5", "greedy pass@1")[2] == "+0.0" and "wrong before, right after: 0" in text


# ------------------------------------------------------------------------------------------------------------ the file


def test_a_cut_line_and_parts_of_other_ranks(tmp_path):
    out = tmp_path / "r.jsonl"
    lines = [json.dumps(each) + "\n" for each in ({"settings": {"n": 0}}, row("a", 0, True), row("a", 1, True))]
    out.write_text("".join(lines) + '{"set": "a", "pla')
    scores.rank_file(out, 2).write_text(lines[1] + json.dumps(row("a", 3, False)) + "\n" + lines[2][:-1])
    (tmp_path / "r.jsonl.rank2.bak").write_text("not ours")
    settings, rows = scores.read_result(out)
    assert settings == {"n": 0} and [each["place"] for each in rows] == [0, 1, 3]  # a row that is in both counts once
    scores.write_result(out, settings, rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.jsonl", "r.jsonl.rank2.bak"]
    assert scores.read_result(out) == (settings, rows) and out.read_text().endswith("}\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a result"),
        ('{"step": 1}\n', "not a result"),
        ('{"settings": {}}\nnonsense\n{}\n', "line 2: not an object"),
        ('{"settings": {}}\n5\n', "line 2"),
        ('{"settings": {}}\n{"step": 1}\n', "not a result"),
    ],
)
def test_another_file_is_refused(tmp_path, text, words):
    (tmp_path / "r").write_text(text)
    with pytest.raises(ValueError, match=words):
        scores.read_result(tmp_path / "r")
    with pytest.raises(ValueError, match="no such file"):
        scores.read_result(tmp_path / "missing")
