"""Tests of the rewards of pictures: iou, iou>0.5, class_name. Hand-computed boxes, a pixel count, hostile text.

Tried by hand, each turns this file red: corners in any order, areas that may be negative, a union without minus the
shared part, runs of three corners, boxes of the whole text only or of the answer only, numbers of any length, sizes
swapped, a threshold that is met, counts lost behind a time limit, the A of A 380 as an article, empty names.
"""

import random
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grader.boxes import find_box
from rewards import class_name, iou, parse_rewards, score
from run.faults import limited

GOLD = "(100,200),(300,400)"
# 200 x 200 = 40000 each, shared from (200,300) to (300,400): 100 x 100, so 10000 / (40000 + 40000 - 10000)
SHIFTED, SEVENTH = "(200,300),(400,500)", 10_000 / 70_000

# ---------------------------------------------------------------- the value


@pytest.mark.parametrize(
    ("box", "gold", "expected"),
    [
        (GOLD, GOLD, 1),
        (SHIFTED, GOLD, SEVENTH),
        ("(100,200),(200,400)", GOLD, (100 * 200) / 40_000),  # the left half
        ("(150,250),(250,350)", GOLD, (100 * 100) / 40_000),  # inside
        ("(0,0),(1000,1000)", GOLD, 40_000 / 1_000_000),  # the whole picture
        ("(300,200),(500,400)", GOLD, 0),  # they touch
        ("(500,500),(600,600)", GOLD, 0),  # disjoint; the released code: 0.117
        ("(-100,-200),(300,400)", GOLD, 40_000 / (400 * 600)),  # beyond the picture is not cut off
        ("(0.5,0.5),(1.5,1.5)", "(0,0),(1,1)", 0.25 / 1.75),
        ("(300,400),(100,200)", GOLD, 0),  # swapped: the released code 2.0
        ("(100,400),(300,200)", GOLD, 0),  # one axis swapped
        ("(1000,1000),(0,0)", GOLD, 0),  # the released code: 26.0
        ("(9999,9999),(0,0)", GOLD, 0),  # the released code: 2500.5
        ("(100,200),(100,200)", GOLD, 0),  # no area; the released code: 1.0
        ("(100,200),(100,400)", GOLD, 0),
        ("(100,200)", GOLD, 0),  # one corner; the released code gave it an area
        (GOLD, "(300,400),(100,200)", 0),  # a gold that is none is never a gift
        (GOLD, "(100,200),(100,200)", 0),
        (GOLD, "", 0),
        ("", "", 0),
        ("(100,200),(100,200)", "(100,200),(100,200)", 0),
    ],
)
def test_iou_by_hand(box, gold, expected):
    assert iou(f"<think>so</think><answer>{box}</answer>", gold) == pytest.approx(expected, rel=1e-12)


def pixels(box):
    x1, y1, x2, y2 = box
    return {(x, y) for x in range(x1, x2) for y in range(y1, y2)}


def test_iou_is_a_count_of_pixels():
    rng = random.Random(0)
    seen = set()
    for _ in range(400):
        boxes = []
        for _ in range(2):
            (x1, x2), (y1, y2) = (sorted(rng.sample(range(-5, 12), 2)) for _ in "xy")
            boxes.append((x1, y1, x2, y2))
        (one, other), (a, b) = map(pixels, boxes), map(str, boxes)
        seen.add(value := iou(a, b))
        assert value == pytest.approx(len(one & other) / len(one | other), rel=1e-12)
        assert iou(b, a) == value and 0 <= value <= 1 and iou(a, a) == 1
    assert {0} < seen and len(seen) > 50


# ---------------------------------------------------------------- which box

SAME = (100.0, 200.0, 300.0, 400.0)


@pytest.mark.parametrize(
    "text",
    [
        "(100,200),(300,400)",
        "(100, 200), (300, 400).",
        "(100,200) (300,400)",
        "from (100,200) to (300,400)",
        "(100.0,200.),(300.00,+400)",
        "[100, 200, 300, 400]",
        "[[100, 200, 300, 400]]",
        "[[100, 200], [300, 400]]",
        "[(100,200),(300,400)]",
        "(100,200,300,400)",
        "{100,200,300,400}",
        "[100 200 300 400]",
        "100, 200, 300, 400",
        "<box>100 200 300 400</box>",
        "<|box_start|>(100,200),(300,400)<|box_end|>",
        "<|object_ref_start|>the man<|object_ref_end|><|box_start|>(100,200),(300,400)<|box_end|><|im_end|>",
        '{"bbox_2d": [100, 200, 300, 400], "label": "man (left)"}',
        '```json\n[\n\t{"bbox_2d": [100, 200, 300, 400], "label": "man"}\n]\n```',
        "[{'Position': [100, 200, 300, 400], 'Confidence': 1}]",
        "<answer> [{'Position': [100, 200, 300, 400], 'Confidence': 1}] </answer>",
        r"\boxed{(100,200),(300,400)}",
        r"\boxed{100,200,300,400}",
        r"so \[ \left[100, 200, 300, 400\right] \]",
        "$(100,200)$, $(300,400)$",
        "The bounding box is [100, 200, 300, 400].",
        "The man stands near (50, 60). The answer is (100,200),(300,400).",  # a lone point is no box
        "The dog is at [1, 2, 3, 4]. The answer is [100, 200, 300, 400].",
        r"The dog is at [1, 2, 3, 4], the man at \boxed{[100, 200, 300, 400]}",
        "(1,2),(3,4) is a dog. <answer>(100,200),(300,400)</answer>",  # the block wins
        "<answer>(1,2),(3,4)</answer> no: <answer>(100,200),(300,400)</answer>",  # the last one
        "<ANSWER>[100,200,300,400]</ANSWER>",
        "<think>(1,2),(3,4)</think><answer>(100,200),(300,400)</answer>",
        "<think>(1,2),(3,4) or [5,6,7,8]</think>(100,200),(300,400)",
        "(1,2),(3,4)</think><answer>(100,200),(300,400)</answer>",  # W5: the template prefilled <think>
        "<answer>(100,200),(300,400) that is [100, 200, 300, 400]</answer>",  # twice the same
        "<answer>(100,200),(300,400)",  # cut off, but the box is whole
        "(100,200),(300,400)<|im_end|>(1,2),(3,4)",  # a turn that the model made up
    ],
)
def test_one_box(text):
    assert find_box(text) == ("one", SAME)
    assert iou(text, GOLD) == iou(GOLD, text) == 1.0


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<answer>(1,2),(3,4) (5,6),(7,8)</answer>", "several"),
        ("<answer>[1,2,3,4], [5,6,7,8]</answer>", "several"),
        ("<answer>[[1,2,3,4],[5,6,7,8]]</answer>", "several"),
        ("<answer>(1,2),(3,4),(5,6)</answer>", "several"),  # three corners
        ("(1,2),(3,4) or maybe [5,6,7,8]", "several"),
        ('[{"bbox_2d": [1, 2, 3, 4]}, {"bbox_2d": [1, 2, 3, 5]}]', "several"),
        ("<answer>(3,4),(1,2)</answer>", "unordered"),
        ("[1,1,1,1]", "unordered"),
        ("[1,2,1,4]", "unordered"),
        ("[1,2,3,2]", "unordered"),
        ("<think>(1,2),(3,4)</think>", "none"),
        ("<think>(1,2),(3,4)</think><answer>I see none</answer>", "none"),
        ("<think>(1,2),(3,4)", "none"),  # cut off in the thoughts
        ("<think>a</think><answer>(1,2),(3,4)</answer><think>(1,2),(3,4)", "none"),
        ("(1,2),(3,4) <answer></answer>", "none"),
        ("<answer>(1,2)</answer>", "none"),
        ("<answer>(1,2),(3,4</answer>", "none"),
        ("[1,2,3]", "none"),
        ("[1,2,3,4,5]", "none"),
        ("[1,2,,4]", "none"),
        ("(x1,y1),(x2,y2)", "none"),  # an echo of the prompt
        ("[10%, 20%, 30%, 40%]", "none"),
        ("[nan, nan, nan, nan]", "none"),
        ("[NaN, 0, 1, inf]", "none"),
        ("[0, 0, 1e400, 1e400]", "none"),
        ("[0,0,1e3,1e3]", "none"),
        (f"(0,0),({'9' * 400},{'9' * 400})", "none"),
        (f"(0,0),(0.{'0' * 400}1,0.{'0' * 400}1)", "none"),
        ("[1.2.3, 4, 5, 6]", "none"),
        ("[1-2, 3, 4, 5]", "none"),
        ("[--1, 3, 4, 5]", "none"),
        ("[0x1, 2, 3, 4]", "none"),
        ("[1_0, 2, 30, 40]", "none"),
        ("[１, 2, 3, 4]", "none"),  # digits of other alphabets
        ("[True, False, 1, 2]", "none"),
        ("I count 1, 2, 3, 4 men", "none"),
        ("", "none"),
        ("box", "none"),
    ],
)
def test_no_box(text, kind):
    assert find_box(text) == (kind, None)
    assert iou(text, text) == iou(text, GOLD) == iou(GOLD, text) == 0.0


def test_a_gold_may_be_a_list():  # VLM-R1's
    assert iou("[100.0, 20.5, 300.0, 410.2]", [100.0, 20.5, 300.0, 410.2]) == 1.0
    assert iou(GOLD, [100, 200, 300, 400]) == iou(GOLD, [[100, 200, 300, 400]]) == 1.0
    assert iou(GOLD, [[100, 200, 300, 400], [1, 2, 3, 4]]) == 0.0  # one box a problem
    assert iou(GOLD, None) == 0.0


def test_the_largest_and_smallest_numbers_stay_within_bounds():
    big, small = "9" * 20, "0." + "0" * 19 + "1"
    for box in (f"[0,0,{big},{big}]", f"[-{big},-{big},{big},{big}]", f"[0,0,{small},{small}]"):
        assert iou(box, box) == 1.0
        assert 0 <= iou(box, GOLD) < 1e-9 and 0 <= iou(GOLD, box) <= 1


BOMBS = [
    "[", "(", "{", "[[1,2],", "(1,2),", "(1,2,3,4),", "[1,", "1" * 50, "1,", "[1 ", "<", "<|", "[ ", "- ", "and", ", ",
    "[0,0,1,1", r"\boxed{[", "\\", "<answer>[1,2,3,4]", "</think>", '{"bbox_2d": ', ".", "[.", "[+", "\n", "\x00", "−",
]  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_text_stalls_or_breaks(bomb):
    for text in (bomb * 200_000, "[1" + bomb * 20_000, "(1,2)" + bomb * 20_000 + "(3,4)"):
        for judge in (iou, class_name):
            start = time.perf_counter()
            assert 0 <= judge(text, GOLD) <= 1 and 0 <= judge(GOLD, text) <= 1
            assert time.perf_counter() - start < 2, len(text)


PIECES = st.sampled_from(["(", ")", "[", "]", ",", " ", "1", "2", "30", "4.5", "-", ".", "<answer>", "</answer>", "a"])


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PIECES, max_size=40).map("".join) | st.text(), st.text())
def test_nothing_raises(text, other):
    assert 0 <= iou(text, GOLD) <= 1 and 0 <= iou(text, other) <= 1 and iou(GOLD, text) == iou(text, GOLD)
    assert class_name(text, other) in (0.0, 1.0)
    kind, box = find_box(text)
    assert (box is not None) == (kind == "one") == (iou(text, text) == 1)


def test_deep_text_does_not_recurse():
    depth = 5 * sys.getrecursionlimit()
    assert iou("[" * depth + "1,2,3,4" + "]" * depth, [1, 2, 3, 4]) == 1.0
    assert iou('{"a": ' * depth + "[1,2,3,4]", [1, 2, 3, 4]) == 1.0


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("completion", "gold", "expected"),
    [
        ("<answer>rose</answer>", "rose", 1.0),
        ("<think>a tulip?</think> <answer> Black-Eyed  Susan. </answer>", "<answer>black_eyed susan</answer>", 1.0),
        ("<answer>A 380</answer>", "A380", 1.0),
        ("<answer>737-200</answer>", "737 200", 1.0),
        ("<answer>BMW M3 Coupe 2012</answer>", "bmw_m3_coupe_2012", 1.0),
        (r"\boxed{\text{water lily}}", "water lily", 1.0),
        (r"\boxed{water\_lily}", "water_lily", 1.0),
        ("The answer is: the rose.", "rose", 1.0),
        ("**Rose**", "rose", 1.0),
        ("rose", "rose", 1.0),  # the whole text
        ("<think>tulip</think>a rose", "rose", 1.0),
        ("<answer>colt’s foot</answer>", "colt's foot", 1.0),
        ("<answer>ros</answer>", "rose", 0.0),  # official.md: a substring passed, either way
        ("<answer>primrose</answer>", "rose", 0.0),
        ("<answer>rose</answer>", "primrose", 0.0),
        ("<answer></answer>", "rose", 0.0),  # official.md: 1.0 there
        ("", "rose", 0.0),
        ("", "", 0.0),
        ("<answer> - </answer>", "_", 0.0),
        ("<answer>rose, tulip</answer>", "rose", 0.0),  # listing them
        ("<answer>rose or tulip</answer>", "rose", 0.0),
        ("It looks like a rose to me", "rose", 0.0),
        ("<think>rose</think>", "rose", 0.0),
        ("<think>rose", "rose", 0.0),
        ("<answer>A-320</answer>", "A-321", 0.0),
        ("<answer>320</answer>", "A 320", 0.0),  # its A is no article
    ],
)
def test_class_name(completion, gold, expected):
    assert class_name(completion, gold) == expected


# ---------------------------------------------------------------- a batch


def run(spec, completions, **columns):
    n = len(completions)
    return score(parse_rewards(spec), ["p"] * n, completions, [[1]] * n, columns)


def test_iou_of_a_batch_counts_what_was_found():
    completions = [GOLD, SHIFTED, "none", "[1,2,3,4] [2,3,4,5]", "(3,4),(1,2)"]
    got = run("iou,iou>0.1=2,format", completions, answer=[GOLD] * 5)
    assert got["by_name"]["iou"] == [1.0, pytest.approx(SEVENTH), 0.0, 0.0, 0.0]
    assert got["by_name"]["iou>0.1"] == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert got["total"][:3] == [3.0, pytest.approx(2 + SEVENTH), 0.0]
    # each of two rewards has counted
    assert got["counts"] == {"box/one": 4, "box/several": 2, "box/unordered": 2, "box/none": 2}


def test_a_threshold_is_exceeded_not_met():
    half = "(100,200),(200,400)"  # 20000 of 40000
    assert run("iou>0.5,iou>.49", [half], answer=[GOLD])["by_name"] == {"iou>0.5": [0.0], "iou>.49": [1.0]}


@pytest.mark.parametrize("spec", ["iou>", "iou>0", "iou>0.0", "iou>1", "iou>1.5", "iou>-0.5", "iou>nan", "class>0.5"])
def test_a_threshold_that_is_none_is_refused(spec):
    with pytest.raises(ValueError, match="iou>0.5"):
        parse_rewards(spec)


def test_a_time_limit_does_not_hide_the_counts():
    bounded = [(name, limited(name, reward, 60), weight) for name, reward, weight in parse_rewards("iou,accuracy")]
    got = score(bounded, ["p"], [GOLD], [[1]], {"answer": [GOLD]})
    assert got["counts"]["box/one"] == 1 and "none" in got["counts"]


def test_names_of_a_batch():
    got = run("class_name,choice", ["<answer>A rose</answer>", "<answer>b</answer>"], answer=["rose", "B"])
    assert got["by_name"] == {"class_name": [1.0, 1.0], "choice": [0.0, 1.0]}
