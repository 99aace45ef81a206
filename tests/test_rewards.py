"""Tests of rewards.py: right and wrong answers, the other rewards, a batch. W1-W8 name known traps."""

import json
import math
import random
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grader.workers import Grader
from rewards import (
    accuracy,
    accuracy_boxed,
    check_columns,
    choice,
    compares_answers,
    cosine,
    format_reward,
    is_equiv,
    num_as_text,
    parse_rewards,
    score,
    source_of,
    tag_count,
)

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"

# ---------------------------------------------------------------- equality

EQUAL = [  # (candidate, gold)
    ("42", "$42$"), (r"\(42\)", "42."), (r"\boxed{42}", r"\text{42}"), ("042", "42.0"), ("1{,}000", r"1,\!000"),
    (r"1\,000", "1000"), ("0.5", r"\tfrac 1 2"), (".5", "1/2"), (r"\frac{35}{-9}", r"-\frac{35}9"),
    (r"1\frac{3}{4}", "1.75"), ("1 3/4", r"\frac74"), ("2^{10}", "1024"), ("2^10", "1024"), ("-3^2", "-9"),
    ("2^{-1}", "0.5"), ("(1+2)*3", "9"), (r"2\cdot3\times4", "24"), (r"8.7 \times 10^{8}", "870,000,000"),
    ("8.7e8", r"8.7 \cdot 10^8"), ("x=5", "5"), ("5 = x", "x = 5"), (r"f(x) = 2x+3", "2x + 3"), ("90^{\\circ}", "90"),
    ("90°", "90 degrees"), (r"17\text{ students}", "17"), ("17 students", "17 student"),
    (r"15\text{ cm}^2", r"15 \mbox{ cm}^{2}"), (r"\$18.9", "18.90 dollars"), (r"3 \text{ million}", "3,000,000"),
    (r"\sqrt{12}", r"2\sqrt3"), (r"\frac{9}{4\sqrt3}", r"\frac{3\sqrt{3}}{4}"), (r"\sqrt[3]{8}", "2"),
    ("2^{0.5}", r"\sqrt2"), ("sqrt(2)", r"\sqrt{2}"), (r"\frac{1}{1+\sqrt2}", r"\sqrt{2}-1"),
    (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"), (r"2\pi+18", r"18+2\pi"), ("7π", r"\pi \cdot 7"), (r"\pi/2", r"\frac12\pi"),
    ("1.4142135623", r"\sqrt2"), ("1, 2", "2,1"), (r"\{1,2\}", r"2 \text{ and } 1"), ("2 or 1", "1, 2"),
    (r"1 \pm \sqrt{2}", r"1-\sqrt2, 1+\sqrt2"), ("x = 1, x = 2", "2, 1"), ("(1, 0.5)", r"\left(1,\frac12\right)"),
    ("(1,2),(3,4)", "(3,4),(1,2)"), ("[0.5,8)", r"\left[\frac12, 8\right)"), (r"(-\infty, +\infty)", "(-∞,∞)"),
    (r"x \in [1,2]", "[1,2]"), ("(C)", r"\text{C}"), ("even", r"\text{Even}"), (r"x \leq 3", r"x \le 3"),
    ("x^{2}", "$x^2$"), (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
    ("1,000", "1000"),  # W8
    (r"\dfrac{1}{2}", r"\frac12"),  # W8: 1/2 = 0.5 = \frac12
    (r"-2\frac12", "-2.5"),  # the sign belongs to the whole
    ("−5", "-5"),  # a Unicode minus
    ("5 points", "5"),  # "point" makes a decimal, "points" are counted
    ("0.3333333333", r"\frac13"),  # ten digits that agree
    ("1,2", "(1,2)"),  # a bare list may be a tuple, in order
]  # fmt: skip
UNEQUAL = [
    ("42", "43"), ("-42", "42"), ("1,7", "17"), ("12", r"\frac12"), (r"x \geq 42", "42"), (r"x \neq 42", "42"),
    ("x=5", "y=5"), ("17!", "17"), ("17^2", "17"), ("17 squared", "17"), ("5 mod", "5"), ("2 thirds", "2"),
    (r"17 \text{ million}", "17"), (r"17 \text{ or } 18", "17"), (r"\pm 3", "3"), ("1,2", "1,1"),
    (r"5 \text{ cm}", r"5 \text{ m}"), ("18.90 cents", r"\$18.90"), ("90 radians", "90°"), ("204_6", "204_5"),
    ("0.333", r"\frac13"), ("1.414", r"\sqrt2"), ("0.1234567890", "0.12345678901"), ("0.3333333334333", r"\frac13"),
    (r"\frac{22}{7}", r"\pi"), ("10^{-21}", "10^{-20}"), ("1e-400", "0"), ("1e400", "1e500"),
    (r"\sqrt{2} + 10^{-60}", r"\sqrt{2}"), (r"\sqrt2\sqrt3", r"\sqrt5"), ("-1.5", r"-2\frac12"), ("(1,2)", "(2,1)"),
    ("[1,2)", "(1,2]"), ("2,1", "(1,2)"), ("primrose", "rose"), ("", ""), ("$$", "$"), (r"\text{}", "0"), ("²", "3"),
    ("1/0", r"\infty"), ("1/0", "1/(1-1)"), ("nan", "0"),
    ("4 2", "42"),  # two numbers, not one
    ("(100,200)", "100200"),  # no thousands within a pair
    ("41=42", "42"),  # graders.md: accepted by every grader measured
    ("1 or 2 or 3", "2"),  # W4
    ("1, 2, 3", "2"),  # W4; official.md: \boxed{41, 42} against 42
    ("1,1", "1,2"),  # each member matches a different one
    ("the answer could be 42 or maybe not", "42"),  # W4: the gold within a long answer
    ("0.9999999999", "1"),  # ten digits are for a gold without an end
    ("10^{-20}", "0"),  # relative, no absolute tolerance
    ("12345678901234567889", "12345678901234567890"),  # not through float
    (r"3/2\pi", r"\frac{3\pi}{2}"),  # ambiguous, so not parsed
    ("2", "2√3"),  # official.md: the gold 2√3 was read as 2
    ("ros", "rose"),  # official.md: substrings passed
    ("１", "2"),  # a digit of another alphabet
]  # fmt: skip


@pytest.mark.parametrize(("candidate", "gold"), EQUAL)
def test_equal(candidate, gold):
    assert is_equiv(candidate, gold)
    one_way = candidate in ("0.3333333333", "1.4142135623")  # a decimal may round an endless gold, not vice versa
    assert is_equiv(gold, candidate) is not one_way


@pytest.mark.parametrize(("candidate", "gold"), UNEQUAL)
def test_unequal(candidate, gold):
    assert not is_equiv(candidate, gold)
    assert not is_equiv(gold, candidate)


@pytest.mark.parametrize(
    ("candidate", "gold", "equal"),
    [  # W8: the policy of percent, which looks at the gold
        ("28", r"28\%", True),
        ("0.28", r"28\%", True),
        (r"28\%", r"28\%", True),
        ("28 percent", r"28\%", True),
        (r"0.28\%", r"28\%", False),
        ("10", "10%", True),  # official.md: 0 there
        (r"20\%", "20", True),
        (r"75\%", "0.75", True),
        (r"50\%", r"\frac12", True),
        (r"0.75\%", "0.75", False),
        ("0.2", "20", False),
        ("75", "0.75", False),
        ("0.75", "75", False),
        (r"\$5", r"5\%", False),
    ],
)
def test_percent(candidate, gold, equal):
    assert is_equiv(candidate, gold) is equal


def random_forms(rng, value):
    """The LaTeX styles of one exact number."""
    sign, n, d = "-" if value < 0 else "", abs(value.numerator), value.denominator
    k = rng.randrange(2, 9)
    forms = [
        f"{value}",
        rf"{sign}\frac{{{n}}}{{{d}}}",
        rf"$\dfrac{{{sign}{n}}}{{{d}}}$",
        f"({sign}{n})/{d}",
        rf"x = {value}",
    ]
    forms += [rf"{value.numerator * k}/{d * k}", rf"{value} \text{{ units}}", rf"{value - k} + {k}"]
    forms += [rf"{sign}\frac{{{n}\sqrt{{{k}}}}}{{{d}\sqrt{{{k}}}}}", rf"{sign}\frac{{{n}\pi}}{{{d}\pi}}"]
    if d > 1 and n > d:
        forms.append(rf"{sign}{n // d}\frac{{{n % d}}}{{{d}}}")
    if 10**6 % d == 0:
        forms.append(f"{value.numerator * (10**6 // d) // abs(value.numerator or 1) * abs(value.numerator or 0)}e-6")
    if d == 1:
        forms += [f"{n:,}".join((sign, "")), f"{value}.00", rf"{value}\times 10^{{0}}"]
    return forms


def test_every_spelling_of_a_number_is_that_number_and_no_near_miss():
    rng = random.Random(0)
    for _ in range(60):
        value = Fraction(rng.randrange(-(10**5), 10**5) or 1, rng.choice([1, 1, 2, 3, 7, 8, 40, 99]))
        miss = value + rng.choice([1, -1, Fraction(1, 10**9)])
        forms = random_forms(rng, value)
        form = rng.choice(forms)
        for other in forms:
            assert is_equiv(form, other), (form, other)
            assert not is_equiv(other, str(miss)), (other, miss)
            assert not is_equiv(str(miss), other), (other, miss)


# ---------------------------------------------------------------- hostile text (W1, W2)

BOMBS = [
    "9^9^9^9", "9**9**9", "9^{9^{9^{9}}}", "((2^{19999})^{19999})", "10^{10^{9}}", "1e9999",
    "1/3^{9999}" + "".join(f"+1/{p}^{{5000}}" for p in range(5, 30)), r"\sqrt{" * 60 + "2" + "}" * 60,
    "(" * 200 + "1" + ")" * 200, "-" * 400 + "1", "2" * 400, r"\frac" * 90 + "12", "^".join("2" * 200),
    ",".join("1" * 200), r"\pi^{9999}" * 20, r"\pm " * 100, "__import__('os').abort()", "1_0", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("text", BOMBS + [bomb * 20_000 for bomb in BOMBS[:3]] + [r"\boxed{" * 10**5, "answer" * 10**5])
def test_no_text_stalls_or_breaks(text):
    for judge in (is_equiv, lambda a, g: accuracy(rf"\boxed{{{a}}}", g), accuracy):
        start = time.perf_counter()
        assert not judge(text, "1,2")
        assert not judge("7", text)
        assert time.perf_counter() - start < 1


def test_grading_works_in_a_thread():  # W1: signal.alarm does not, and scored 0 without a word
    verdicts = []
    thread = threading.Thread(target=lambda: verdicts.append(is_equiv(r"\sqrt{8}", r"2\sqrt{2}")))
    thread.start()
    thread.join(60)
    assert verdicts == [True]


PIECES = st.sampled_from(
    [r"\frac", r"\boxed{", "{", "}", "(", ")", ",", "1", "2", "^", r"\sqrt", r"\pm", "%", r"\text{", "=", "/", "-"]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(PIECES, max_size=40).map("".join) | st.text() | st.binary().map(lambda b: b.decode("latin-1")), st.text()
)
def test_nothing_raises(text, other):
    assert accuracy(text, other) in (0.0, 1.0)
    assert is_equiv(text, text) in (True, False)
    assert is_equiv(text, other) in (True, False)
    assert format_reward(text) in (0.0, 1.0)


# ---------------------------------------------------------------- accuracy and format


def test_accuracy_reads_the_gold_bare_or_worked():
    assert accuracy(r"so \boxed{42}", "42") == 1.0
    assert accuracy(r"so \boxed{42}", r"Adding \boxed{41} and 1 gives \boxed{42}.") == 1.0
    assert accuracy(r"so \boxed{41}", r"Adding \boxed{41} and 1 gives \boxed{42}.") == 0.0
    assert accuracy("#### 42", "6*7=42\n#### 42") == 1.0
    assert accuracy("<answer>70</answer>", "70°") == 1.0  # official.md: 0 there, but 1 with spaces around


@pytest.mark.parametrize("gold", ["", " ", "$", r"\boxed{}", r"\boxed{4", "####"])
def test_unreadable_gold_is_never_a_gift(gold):  # W3; official.md: 1.0 for every sample
    assert accuracy(r"\boxed{4}", gold) == 0.0
    assert accuracy(r"\boxed{}", gold) == 0.0
    assert accuracy("", gold) == 0.0


def test_the_gold_is_the_second_argument():  # W3: the percent policy tells the order
    assert accuracy(r"\boxed{0.28}", r"28\%") == 1.0
    assert accuracy(r"\boxed{28\%}", "28") == 1.0
    assert accuracy(r"\boxed{28\%}", "0.28") == 1.0
    assert accuracy(r"\boxed{0.28}", "28") == 0.0


@pytest.mark.parametrize(
    "completion",
    [
        r"\boxed{1}\boxed{2}\boxed{42}\boxed{5}",
        r"\boxed{42} or \boxed{43}",
        r"\boxed{42 \text{ or } 43}",
        r"\boxed{41, 42}",
        r"Solve and put the answer in \boxed{}. 42",
        "I think 42",  # official.md: 1.0 there, without tags
        "42",
        r"\boxed{The answer 42 is one of many that were thought of, and so on}",
        "",
    ],
)
def test_hacks_score_zero(completion):  # W4
    assert accuracy(completion, "42") == 0.0


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        ("<think>\na\n</think>\n<answer>\nb\n</answer>", 1.0),
        (" <think>a</think>\n\n <answer>b</answer>\n", 1.0),  # official.md: a final newline costs all there
        ("a</think><answer>b</answer>", 1.0),  # W5: the template prefilled <think>
        ("<think>a</think><answer>b</answer>\nextra", 0.0),  # official.md: passed by MULTILINE
        ("x<think>a</think><answer>b</answer>", 0.0),
        ("<think>a</think> so <answer>b</answer>", 0.0),
        ("<think>a</think><answer>b</answer><answer>c</answer>", 0.0),
        ("<think>a<think>b</think><answer>c</answer>", 0.0),
        ("<think>a</think></think><answer>c</answer>", 0.0),
        ("<think>a</think><answer>c</answer></answer>", 0.0),
        ("<answer>b</answer><think>a</think>", 0.0),
        ("<think>a</think><answer>b", 0.0),
        ("<think>a<answer>b</answer>", 0.0),
        ("<answer>b</answer>", 0.0),
        ("\n</think>\n", 0.0),  # official.md: enough for format_v2
        ("<Think>a</Think><answer>b</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_format_reward(completion, expected):
    assert format_reward(completion) == expected


@pytest.mark.parametrize(
    ("completion", "boxed"),
    [
        (r"so \boxed{42}", 1.0),
        ("<answer>42</answer>", 1.0),
        ("#### 42", 1.0),
        ("The answer is 42.", 0.0),
        ("So there are 42.", 0.0),
        (r"The answer is 42. \boxed{41}", 0.0),
    ],
)
def test_accuracy_without_prose(completion, boxed):
    assert accuracy_boxed(completion, "42") == boxed
    assert accuracy(completion, "42") == (r"\boxed{41}" not in completion)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<think>a</think><answer>b</answer>", 1.0),
        ("<think>\na\n</think>\n<answer>\nb\n</answer>", 1.0),  # open-r1 demands these line breaks
        ("a</think><answer>b</answer>", 1.0),  # W5: the template prefilled <think>
        ("<answer>b</answer>", 0.5),  # nothing shows that it thought
        ("<think>a</think><answer>b", 0.75),  # truncated
        ("<think>a</think>", 0.5),
        ("<think>", 0.25),
        ("<think><think>a</think><answer>b</answer>", 0.75),  # twice is not once
        ("a</think></think><answer>b</answer>", 0.5),
        ("<answer></answer>" * 2, 0.0),
        ("", 0.0),
    ],
)
def test_tag_count(completion, expected):
    assert tag_count(completion) == expected


@pytest.mark.parametrize(
    ("right", "tokens", "expected"),
    [
        (True, 0, 1.0),
        (True, 250, 0.75 + math.sqrt(0.5) / 4),  # (1 + cos(pi/4)) / 2 of the way from 0.5 to 1
        (True, 500, 0.75),
        (True, 1000, 0.5),
        (True, 2000, 0.5),  # official.md: 1.0 again there, as it is periodic
        (False, 0, -0.5),
        (False, 500, -0.25),
        (False, 1000, 0.0),  # official.md: a longer wrong answer was worse there
        (False, 2000, 0.0),
    ],
)
def test_cosine(right, tokens, expected):
    assert cosine(right, tokens, 1000) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_cosine_never_pays_for_padding_a_right_answer_nor_for_a_short_wrong_one():
    values = [(cosine(True, n, 100), cosine(False, n, 100)) for n in range(300)]
    assert all(a >= b and c <= d for (a, c), (b, d) in zip(values, values[1:], strict=False))
    assert min(values)[0] >= 0.5 and max(wrong for _, wrong in values) <= 0.0


@pytest.mark.parametrize(
    ("completion", "gold", "expected"),
    [
        (r"\boxed{C}", "C", 1.0),
        (r"\boxed{c}", "(C)", 1.0),
        (r"\boxed{\text{(C)}}", "C", 1.0),
        (r"\boxed{\textbf{(C)}\ 42}", "C", 1.0),
        (r"\boxed{C. 42}", "C", 1.0),
        ("The answer is (C).", "C", 1.0),
        ("<answer>C) a rose</answer>", "C", 1.0),
        ("The correct option is B", r"\text{B}", 1.0),
        (r"\boxed{J}", "J", 1.0),
        (r"\boxed{(C) salt and pepper}", "C", 1.0),
        (r"\boxed{P}", "P", 0.0),
        (r"\boxed{B}", "C", 0.0),
        (r"\boxed{K}", "K", 0.0),  # A to J
        (r"\boxed{Cat}", "C", 0.0),  # official.md: substrings passed, either way
        (r"\boxed{C}", "Cat", 0.0),
        (r"\boxed{a cat}", "A", 0.0),
        (r"\boxed{ABCDE}", "C", 0.0),
        (r"\boxed{A, B, C}", "C", 0.0),  # W4: listing them all
        (r"\boxed{(A) or (C)}", "A", 0.0),
        (r"\boxed{(C) (A)}", "C", 0.0),
        (r"\boxed{C. or A.}", "C", 0.0),
        (r"\boxed{A} or \boxed{C}", "C", 0.0),
        (r"\boxed{}", "C", 0.0),  # official.md: an empty answer had 1.0
        ("", "", 0.0),
        ("C", "C", 0.0),  # no answer is marked
        (r"\boxed{42}", "42", 0.0),  # a gold that is no letter
    ],
)
def test_choice(completion, gold, expected):
    assert choice(completion, gold) == expected


def test_a_gold_that_cannot_be_parsed_is_compared_as_text():  # official.md: 1.0 for every sample
    gold = r"\heartsuit \% no formula \# at all"
    assert accuracy(rf"\boxed{{{gold}}}", gold) == 1.0
    assert accuracy(r"\boxed{\heartsuit \% no formula \# at  all.}", gold) in (0.0, 1.0)
    assert accuracy(r"\boxed{42}", gold) == 0.0
    assert num_as_text(["42", gold, gold, r"so \boxed{42}", rf"\boxed{{{gold}}}"]) == 3
    assert num_as_text([]) == 0


# ---------------------------------------------------------------- rewards of a batch


BUILT_IN = "accuracy, format, accuracy_boxed, tag_count, cosine, choice, class_name, iou"


def run(rewards_, completions, shown=None, **columns):
    n = len(completions)
    return score(rewards_, ["p"] * n, completions, [[1]] * n, columns, shown=shown)


def test_parse_rewards_names_and_weights():
    parsed = parse_rewards("accuracy, format = 0.5")
    assert [(name, weight) for name, _, weight in parsed] == [("accuracy", 1.0), ("format", 0.5)]
    assert parse_rewards("format=-1")[0][2] == -1.0  # a penalty


@pytest.mark.parametrize(
    "spec", ["", "acuracy", "accuracy,", "accuracy=", "accuracy=x", "accuracy=nan", "accuracy=inf", "format,format"]
)
def test_parse_rewards_refuses_in_one_line(spec):
    with pytest.raises(ValueError, match=BUILT_IN) as caught:
        parse_rewards(spec)
    assert "\n" not in str(caught.value)


def write(tmp_path, source):
    path = tmp_path / "mine.py"
    path.write_text(source)
    return path


def test_a_reward_of_the_users_is_called_as_trl_does(tmp_path):
    body = "    return [len(c) + k for c, k in zip(completions, columns['k'])]\n"
    path = write(tmp_path, "def length(prompts, completions, **columns):\n" + body)
    got = run(parse_rewards(f"{path}:length=0.5,format"), ["ab", "abcd"], k=[10, 20])
    by_name = {"length": [12.0, 24.0], "format": [0.0, 0.0]}
    assert got == {"total": [6.0, 12.0], "by_name": by_name, "errors": 0, "failed": {}, "counts": {}}


def test_a_reward_of_weight_0_is_only_logged_also_where_it_is_none():
    rewards = [("r", lambda **_: [1, 2], 1.0), ("log", lambda **_: [None, 5], 0.0)]
    got = score(rewards, ["p", "q"], ["a", "b"], [[1], [2]], {})
    assert got["total"] == [1.0, 2.0] and got["by_name"]["log"] == [None, 5.0]
    rewards[1] = ("log", rewards[1][1], -1.0)
    assert score(rewards, ["p", "q"], ["a", "b"], [[1], [2]], {})["total"] == [None, -3.0]


def test_every_reward_gets_the_same_keywords():
    calls = []
    score(
        [("r", lambda **kw: calls.append(kw) or [1], 1.0)],
        ["p"],
        ["c"],
        [[3, 4]],
        {"answer": ["a"], "prompts": ["not this"]},
    )
    assert calls == [{"prompts": ["p"], "completions": ["c"], "completion_ids": [[3, 4]], "answer": ["a"]}]


def test_a_dataclass_of_the_users_loads(tmp_path):  # needs the module in sys.modules while it is defined
    source = "from __future__ import annotations\nimport dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int\n"
    path = write(tmp_path, source + "def one(completions, **_):\n    return [A(1).x for _ in completions]\n")
    assert run(parse_rewards(f"{path}:one"), ["a"])["total"] == [1.0]


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        ("x = 1", "x", "no function 'x'"),
        ("x = 1", "y", "no function 'y'"),
        ("def f(:\n", "f", "SyntaxError"),
        ("raise RuntimeError('a\\nb')", "f", "RuntimeError: a b"),
        ("import sys\nsys.exit('no argument')", "f", r"SystemExit: no argument \(.*, line 2\)"),  # a script's last line
    ],
)
def test_a_bad_reward_file_says_so_in_one_line(tmp_path, source, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        parse_rewards(f"{write(tmp_path, source)}:{name}")
    assert "\n" not in str(caught.value)
    assert BUILT_IN in str(caught.value)


def test_an_error_names_the_line_of_the_users_file(tmp_path, capsys):
    path = write(tmp_path, "import json\n\ndef f(completions, **_):\n    return [json.loads(c) for c in completions]\n")
    got = run(parse_rewards(f"{path}:f,format"), ["{", "["])
    assert got["failed"].keys() == {"f"} and got["errors"] == 2
    assert got["failed"]["f"].startswith("JSONDecodeError: ") and got["failed"]["f"].endswith(f" ({path}, line 4)")
    assert run(parse_rewards(f"{path}:f"), ["{", "1"])["failed"] == {}  # one sample was scored
    capsys.readouterr()
    with pytest.raises(ValueError, match=r"ZeroDivisionError: .* \(.*mine.py, line 2\)"):
        parse_rewards(f"{write(tmp_path, 'x = 1' + chr(10) + 'x / 0')}:f")


def test_a_reward_that_exits_has_failed(tmp_path):
    path = write(tmp_path, "import sys\ndef f(completions, **_):\n    sys.exit(3)\n")
    assert run(parse_rewards(f"{path}:f"), ["a", "b"])["failed"] == {"f": f"SystemExit: 3 ({path}, line 3)"}


def test_reward_files_of_one_name_and_functions_of_one_file(tmp_path):
    source = "SEEN = []\ndef one(completions, **_):\n    SEEN.append(1)\n    return [{0}] * len(completions)\n"
    source += "def two(completions, **_):\n    return [float(len(SEEN))] * len(completions)\n"
    source += "import functools\nhalf = functools.partial(one)\nclass R:\n"
    source += "    async def __call__(self, completions, **_):\n        return [0.25] * len(completions)\nr = R()\n"
    for folder, value in (("a", 3.0), ("b", 5.0)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "r.py").write_text(source.format(value))
    a, b = tmp_path / "a" / "r.py", tmp_path / "b" / "r.py"
    parsed = parse_rewards(f"{a}:one,{a}:two,{b}:half,{b}:r")
    assert [source_of(function) for _, function, _ in parsed] == [str(a), str(a), str(b), str(b)]
    got = run(parsed, ["x"])["by_name"]
    assert got == {"one": [3.0], "two": [1.0], "half": [5.0], "r": [0.25]}  # one module for each file
    for folder in "ab":
        (tmp_path / folder / "helper.py").write_text(f"V = {ord(folder)}\n")
        (tmp_path / folder / f"x{folder}.py").write_text(
            "import helper\ndef f(completions, **_):\n    return [helper.V]\n"
        )
    mine = f"{tmp_path}/a/xa.py:f,{tmp_path}/b/xb.py:f"
    with pytest.raises(ValueError, match=r"helper.py beside it is .*/a/helper.py already; rename one"):
        parse_rewards(mine.replace("xb.py:f", "xb.py:g"))


def test_an_async_reward_is_run(tmp_path):
    source = "import asyncio\nasync def f(completions, **_):\n    await asyncio.sleep(0)\n"
    source += "    return [len(c) for c in completions]\n"
    assert run(parse_rewards(f"{write(tmp_path, source)}:f"), ["ab", "c"])["total"] == [2.0, 1.0]


def test_a_reward_may_import_its_neighbour(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "neighbour_of_mine.py").write_text("def g(c):\n    return 2 * len(c)\n")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (tmp_path / "colorsys.py").write_text("raise RuntimeError('hides what Python has')")
    source = "import colorsys\nfrom neighbour_of_mine import g\n"
    source += "def f(completions, **_):\n    return [g(c) for c in completions]\n"
    assert run(parse_rewards(f"{write(tmp_path, source)}:f"), ["ab"])["total"] == [4.0]


def test_what_a_reward_edits_is_its_own(tmp_path):
    source = """
def edits(completions, completion_ids, level, **_):
    completions[0], level[0]["x"] = "", 9
    completion_ids[0].append(7)
    return [1.0, 2.0]

def reads(completions, completion_ids, level, **_):
    return [len(completions[0]), level[0]["x"] + level[1]["x"] + len(completion_ids[0])]
"""
    path, level = write(tmp_path, source), [{"x": 3}] * 2
    got = run(parse_rewards(f"{path}:edits,{path}:reads"), ["abc", "d"], level=level)
    assert got["by_name"]["reads"] == [3.0, 7.0] and level == [{"x": 3}] * 2  # 3 letters; 3 + 3 and one token


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ("prompts, completions, **columns", None),
        ("completions, completion_ids, prompts, answer", None),
        ("completions, gold, **columns", "missing a required argument: 'gold'"),
        ("completions, answer", "got an unexpected keyword argument 'prompts'"),
    ],
)
def test_a_signature_that_cannot_take_the_columns_is_found_without_a_call(tmp_path, arguments, wrong):
    for kind in ("def", "async def"):
        rewards_ = parse_rewards(f"format,{write(tmp_path, f'{kind} f({arguments}):' + chr(10) + '    1 / 0')}:f")
        if wrong is None:
            check_columns(rewards_, ["answer"])
        else:
            with pytest.raises(
                ValueError, match=f"reward 'f' gets prompts, completions, completion_ids, answer: {wrong}"
            ):
                check_columns(rewards_, ["answer"])


def test_a_missing_reward_file_is_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere.py' does not exist"):
        parse_rewards(f"{tmp_path}/nowhere.py:f")
    with pytest.raises(ValueError, match="not a Python file"):
        path = tmp_path / "mine.txt"
        path.write_text("")
        parse_rewards(f"{path}:f")


def test_weights_are_applied_once():  # W7
    right, wrong = "<think>a</think><answer>4</answer>", r"\boxed{5}"
    got = run(parse_rewards("accuracy=2,format=0.5"), [right, wrong], answer=["4", "4"])
    assert got["total"] == [2.5, 0.0]
    assert got["by_name"] == {"accuracy": [1.0, 0.0], "format": [1.0, 0.0]}


def test_none_makes_the_sample_unscorable_and_no_other():  # W7
    got = run([("a", lambda **_: [None, 1.0], 1.0), ("b", lambda **_: [1, 2], 3.0)], ["x", "y"])
    assert got["total"] == [None, 7.0]
    assert got["by_name"] == {"a": [None, 1.0], "b": [1.0, 2.0]}


def fails_on_bad(completions, **_):
    if "bad" in completions:
        raise KeyError("no\nluck")
    return [1.0] * len(completions)


def test_one_bad_completion_costs_only_itself_and_is_shown_once(capsys):
    shown, reward = set(), [("mine", fails_on_bad, 2.0), ("one", lambda completions, **_: [1] * len(completions), 1.0)]
    got = run(reward, ["x", "bad", "y", "bad"], shown)
    assert got["total"] == [3.0, 1.0, 3.0, 1.0] and got["errors"] == 2
    assert got["by_name"] == {"mine": [1, 0, 1, 0], "one": [1, 1, 1, 1]}
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert all(part in line for part in ("'mine'", "KeyError", "'bad'"))

    assert run(reward, ["bad"], shown)["errors"] == 1  # counted again, not shown again
    assert capsys.readouterr().err == ""
    assert run(reward, ["bad"])["total"] == [1.0]  # without the set: once a call
    assert "KeyError" in capsys.readouterr().err


def test_a_batch_that_fails_only_together_is_shown_too(capsys):
    def alone(completions, **_):
        assert len(completions) == 1, "one at a time"
        return [1.0]

    assert run([("alone", alone, 1.0)], ["x", "y"]) == {
        "total": [1.0, 1.0],
        "by_name": {"alone": [1.0, 1.0]},
        "errors": 0,
        "failed": {},
        "counts": {},
    }
    assert "a whole batch" in capsys.readouterr().err


@pytest.mark.parametrize(
    "returned", [[1.0], [1.0, 2.0, 3.0], None, 1.0, ["a", "b"], "ab", [1j, 1j], [np.ones(2), np.ones(2)]]
)
def test_a_reward_that_returns_nonsense_is_named(returned):
    with pytest.raises(ValueError, match="'mine' returned"):
        run([("mine", lambda **_: returned, 1.0)], ["x", "y"])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_nan_is_an_error_of_a_named_sample(value):  # never silently 0
    with pytest.raises(ValueError, match="'mine' returned .* for sample 1"):
        run([("mine", lambda **_: [1.0, value], 1.0)], ["x", "y"])


def test_nan_is_found_at_its_index_in_the_retry_too():
    def mine(completions, **_):
        if len(completions) > 1:
            raise RuntimeError
        return [math.nan if completions == ["y"] else 1.0]

    with pytest.raises(ValueError, match="for sample 1"):
        run([("mine", mine, 1.0)], ["x", "y"])


def test_scalars_of_other_libraries_are_numbers():
    got = run([("mine", lambda **_: [np.float32(0.5), True, np.int64(2)], 1.0)], ["x", "y", "z"])
    assert got["total"] == [0.5, 1.0, 2.0]
    assert all(type(value) is float for value in got["total"])
    assert run([("mine", lambda **_: np.array([1.0, 2.0]), 1.0)], ["x", "y"])["total"] == [1.0, 2.0]


def test_an_interrupt_is_not_swallowed():
    def mine(**_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([("mine", mine, 1.0)], ["x", "y"])


def test_a_batch_without_completions():  # a rank may hold none
    got = run(parse_rewards("accuracy,format"), [], answer=[])
    assert got["total"] == [] and got["by_name"] == {"accuracy": [], "format": []} and got["errors"] == 0
    # all of them, always: ranks add them up key by key
    assert got["counts"] == dict.fromkeys(("boxed", "tagged", "hashes", "phrase", "closing", "none", "given_up"), 0)


def test_rules_that_found_the_answers_are_counted():
    rewards_ = parse_rewards("accuracy,format")
    completions = [r"\boxed{4}", r"\boxed{5}", "The answer is 4.", "#### 4", "4"]
    for _ in range(2):  # of each batch, not since the start
        got = run(rewards_, completions, answer=["4"] * 5)
        assert got["by_name"]["accuracy"] == [1.0, 0.0, 1.0, 1.0, 0.0]
        assert {rule: n for rule, n in got["counts"].items() if n} == {"boxed": 2, "phrase": 1, "hashes": 1, "none": 1}


def test_comparisons_given_up_are_counted(monkeypatch):
    def gives_up(self, pairs):
        self.num_given_up += len(pairs)
        return [False] * len(pairs)

    monkeypatch.setattr(Grader, "verdicts", gives_up)
    got = run(parse_rewards("accuracy"), [r"\boxed{4}", "nothing", r"\boxed{5}"], answer=["4"] * 3)
    assert got["total"] == [0.0, 0.0, 0.0] and got["counts"]["given_up"] == 2


def test_a_large_batch_is_graded_as_completions_one_by_one():
    golds = [str(i % 7) for i in range(300)]
    completions = [rf"\boxed{{{i % 5}}}" if i % 3 else f"Answer: {i % 7 + i}" for i in range(300)]
    got = run(parse_rewards("accuracy,accuracy_boxed"), completions, answer=golds)["by_name"]
    assert got["accuracy"] == [accuracy(*pair) for pair in zip(completions, golds, strict=True)]
    boxed = [accuracy_boxed(*pair) for pair in zip(completions, golds, strict=True)]
    assert got["accuracy_boxed"] == boxed and 0 < sum(boxed) < sum(got["accuracy"])


def test_cosine_counts_tokens_up_to_the_most_of_the_run():
    # right, at 0, half and all of 8 tokens: 1/2 + 1/2 * (1, 1/2, 0); beyond the end it stays there
    right, wrong = r"\boxed{4}", r"\boxed{5}" + "x" * 500
    ids = [[], [1] * 4, [1] * 8, [1] * 16]
    rewards_ = parse_rewards("cosine=2", 8)
    got = score(rewards_, ["p"] * 8, [right] * 4 + [wrong] * 4, ids * 2, {"answer": ["4"] * 8})["by_name"]["cosine"]
    assert got == pytest.approx([1, 0.75, 0.5, 0.5, -0.5, -0.25, 0, 0], rel=1e-12, abs=1e-15)


def test_built_in_rewards_by_name():
    text = "<think>a</think><answer>(B) 4</answer>"
    spec = "accuracy,format,accuracy_boxed,tag_count,cosine,choice,class_name,iou"
    got = run(parse_rewards(spec), [text, "<think>"], answer=["B", "B"])["by_name"]
    assert got["choice"] == [1.0, 0.0] and got["format"] == [1.0, 0.0] and got["tag_count"] == [1.0, 0.25]
    assert got["accuracy"] == got["accuracy_boxed"] == [1.0, 0.0]
    assert got["class_name"] == got["iou"] == [0.0, 0.0]  # see test_boxes.py
    assert got["cosine"] == [pytest.approx(1, abs=1e-5), pytest.approx(-0.5, abs=1e-5)]  # one token of 2048
    assert spec.replace(",", ", ") == BUILT_IN
    compare = {name: compares_answers(parse_rewards(name)) for name in spec.split(",")}
    assert [name for name, compares in compare.items() if compares] == ["accuracy", "accuracy_boxed", "cosine"]


def test_reward_text_decides_not_ids():  # W6: the ids are passed on, never read here
    got = score(parse_rewards("accuracy"), ["p"], [r"\boxed{4}"], [[]], {"answer": ["4"]})
    assert got["total"] == [1.0]


# ---------------------------------------------------------------- labelled cases, if available


def read(name):
    path = CASES / name
    if not path.exists():
        pytest.skip(f"no ../shared/cases/{name}")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("name", ["equiv.jsonl", "equiv_2.jsonl"])
def test_labelled_pairs(name):  # W8
    rows = read(name)
    verdicts = [(is_equiv(row["answer"], row["gold"]), row["expected"]) for row in rows]
    assert not any(equal and not expected for equal, expected in verdicts)
    assert sum(equal == expected for equal, expected in verdicts) / len(rows) >= 0.99


@pytest.mark.parametrize("name", ["completion.jsonl", "completion_2.jsonl"])
def test_labelled_completions(name):
    rows = read(name)
    verdicts = [(accuracy(row["completion"], row["gold"]) == 1.0, row["expected"]) for row in rows]
    assert not any(equal and not expected for equal, expected in verdicts)
    assert sum(equal == expected for equal, expected in verdicts) / len(rows) >= 0.98


def test_hostile_rows(tmp_path):  # W1, W2
    marker = tmp_path / "marker"
    pairs = []
    for row in read("hostile.jsonl"):
        answer = row["answer"].replace("<MARKER>", str(marker))
        pairs.append((answer, row["gold"]))
        for judge, text in ((is_equiv, answer), (accuracy, rf"\boxed{{{answer}}}"), (accuracy, answer)):
            start = time.perf_counter()
            assert not judge(text, row["gold"]), row["id"]
            assert time.perf_counter() - start < 1, row["id"]

    grader = Grader(1)  # nor do its workers ever need their clock
    try:
        assert not any(grader.verdicts(pairs))
        assert grader.num_given_up == 0 and grader._workers
    finally:
        grader.close()
    assert not marker.exists()


def test_no_labelled_pair_needs_the_clock():
    pairs = [(row["answer"], row["gold"]) for row in read("equiv.jsonl")]
    grader = Grader(1)
    try:
        assert grader.verdicts(pairs) == [is_equiv(*pair) for pair in pairs]
        assert grader.num_given_up == 0 and grader._workers
    finally:
        grader.close()
