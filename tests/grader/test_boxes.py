"""Boxes and names: IoU by hand and against counted pixels, and texts that try to be paid for no box."""

import random

import pytest

import rewards
from grader.boxes import find_box
from rewards import class_name, iou, parse_rewards, score

GOLD = "(0,0),(4,2)"


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("(0,0),(4,2)", 1.0),
        ("[0, 0, 4, 2]", 1.0),
        ("<answer>(2,0),(6,2)</answer>", 4 / 12),  # shared 2 x 2; 8 + 8 - 4
        ("the box is (2.0, 1.0), (6, 3.)", 2 / 14),  # shared 2 x 1; 8 + 8 - 2
        ("<|box_start|>(0,0),(2,2)<|box_end|>", 4 / 8),
        ('```json\n[{"bbox_2d": [0, 0, 2, 1], "label": "cat"}]\n```', 2 / 8),
        ("<think>maybe (9,9),(12,12)</think><answer>(0,0),(4,2)</answer>", 1.0),
        ("(0,0),(4,2) so (0,0),(4,2)", 1.0),  # the same box twice
        ("(4,0),(8,2)", 0.0),  # beside it
        ("(10,10),(20,20)", 0.0),
        ("(4,2),(0,0)", 0.0),  # swapped corners
        ("(4,0),(0,2)", 0.0),
        ("(0,0),(4,0)", 0.0),  # no area
        ("(1,1),(1,1)", 0.0),
        ("(-4,-2),(4,2)", 8 / 32),
        ("(0,0),(4,2) or (1,1),(3,2)", 0.0),  # two answers
        ("<think>(0,0),(4,2)</think>", 0.0),  # only thought
        ("<think>(0,0),(4,2)", 0.0),
        ("<think>(0,0),(4,2)</think> I don't know", 0.0),
        ("(0,0),(1e400,2)", 0.0),
        ("(0,0),(" + "9" * 400 + ",2)", 0.0),
        ("(nan,nan),(nan,nan)", 0.0),
        ("(0,0),(inf,inf)", 0.0),
        ("[0, 0, 4]", 0.0),
        ("[[0, 0, 4, 2]]", 1.0),
        ("", 0.0),
        ("(" * 100_000, 0.0),
        ("[" + "0, " * 50_000, 0.0),
    ],
)
def test_iou_by_hand(completion, expected):
    assert iou(completion, GOLD) == pytest.approx(expected, rel=1e-12)


def test_iou_is_that_of_counted_pixels():
    rng = random.Random(0)
    for _ in range(300):
        boxes = [sorted(rng.sample(range(12), 2)) + sorted(rng.sample(range(12), 2)) for _ in range(2)]
        pixels = [{(x, y) for x in range(x1, x2) for y in range(y1, y2)} for x1, x2, y1, y2 in boxes]
        texts = [f"({x1},{y1}),({x2},{y2})" for x1, x2, y1, y2 in boxes]
        expected = len(pixels[0] & pixels[1]) / len(pixels[0] | pixels[1])
        assert iou(*texts) == iou(*reversed(texts)) == pytest.approx(expected, rel=1e-12)


def test_scales_are_compared_in_shares():
    # (0, 0) to half of each side of 640 x 480, said in thousandths and in pixels of a picture resized to 320 x 240
    assert iou("(0,0),(500,500)", "(0,0),(320,240)", (640, 480), (1000, 1000)) == 1
    assert iou("(0,0),(160,120)", "(0,0),(320,240)", (640, 480), (320, 240)) == 1
    assert iou("(0,0),(320,240)", "(0,0),(320,240)", (640, 480), (1000, 1000)) == pytest.approx(0.32 * 0.24 / 0.25)


def test_an_answer_that_is_no_box_is_graded():
    assert iou("<answer>3</answer>", "3") == iou("3", "3") == 1 and iou("(0,0),(4,2)", "3") == iou("", "3") == 0


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("<answer>Siamese cat</answer>", True),
        ("siamese_cat", True),
        ("It purrs. The answer is Siamese-Cat.", True),
        ("<answer>cat</answer>", False),  # a part of the name
        ("<answer>Siamese cat, Persian cat</answer>", False),
        ("<answer></answer>", False),
        ("", False),
        ("<think>Siamese cat</think>", False),
    ],
)
def test_class_names(completion, right):
    assert class_name(completion, "<answer>siamese_cat</answer>") == class_name(completion, "Siamese Cat") == right


def test_an_empty_name_is_never_right():
    assert class_name("", "") == class_name("-", "_") == 0


def test_rewards_of_a_batch_and_the_share_without_a_box():
    texts = ["(0,0),(4,2)", "(2,0),(6,2)", "no box"]
    chosen = parse_rewards("iou,iou>0.3=0,class_name=0")
    result = score(chosen, ["p"] * 3, texts, [[1]] * 3, {"answer": [GOLD] * 3})
    assert result["by_name"]["iou"] == pytest.approx([1, 1 / 3, 0])
    assert result["by_name"]["iou>0.3"] == [1, 1, 0]
    assert result["counts"] == {"box": 4, "none": 2, "given_up": 0}  # of two rewards
    for wrong in ("iou>2", "iou>", "iou>0"):
        with pytest.raises(ValueError, match="is unknown"):
            parse_rewards(wrong)


def test_a_box_is_found_in_time():
    for text in ("(1,2),(" * 20_000, "[1,1,1," * 20_000, "1" * 100_000):
        assert find_box(text) is None
    assert rewards.iou("(0,0)" * 10_000, GOLD) == 0
