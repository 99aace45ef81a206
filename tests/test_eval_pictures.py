"""eval.py on pictures: the paper's benchmarks in small files, a random model, and completions written by hand.

Changes that make this file fail: a box compared in the gold's pixels, mIoU over the completions with a box only, shares
with width and height exchanged, a name that is part of another, an option graded by its letter alone or its text alone,
the pictures of a batch in another order, a total that is the mean of its tasks, problems told apart by text alone.
"""

import json

import pytest
import torch
from forked import on_ranks
from PIL import Image
from test_eval import error_of, untimed
from test_scores import cells
from transformers import AutoModelForImageTextToText, Qwen2VLForConditionalGeneration

import eval as evaluation
from rewards import iou_or_name
from tasks import pictures, shapes
from tasks.pictures import load_processor
from tasks.prompts import SYSTEM_PROMPTS, TEMPLATES


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = shapes.make_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Qwen2VLForConditionalGeneration(shapes.make_config(tokenizer)).save_pretrained(folder)
    shapes.make_processor(tokenizer).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def bench(model, tmp_path, capsys, monkeypatch):
    """Calls the command on rows of one benchmark, with such completions -> (rows of the result, what it printed)."""

    def call(name, file, rows, texts, *flags, size=(32, 24)):
        for i, row in enumerate(rows):
            if not {"image", "image_path"} & row.keys():
                row["image"] = f"{i}.png"
            Image.new("RGB", size, (9 * i, 0, 0)).save(tmp_path / f"{i}.png")
        text = json.dumps(rows) if file.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / file).write_text(text)
        monkeypatch.setattr(evaluation, "completion_texts", lambda _, sampled: texts[: sampled.truncated.numel()])
        out = str(tmp_path / "out.jsonl")
        limits = ["--max-prompt-tokens", "480", "--max-new-tokens", "4"]
        places = ["--data-dir", str(tmp_path), "--out", out, "--overwrite"]
        evaluation.main(["--model", model, "--bench", name, *places, *limits, *flags])
        return untimed(out), capsys.readouterr().out

    return call


def cv_row(i, task, answer="(A)", choices=("left", "right")):
    prompt = f"Where is it {i}? Select from the following choices.\n(A) left\n(B) right"
    return {"task": task, "question": "Where?", "prompt": prompt, "choices": choices, "answer": answer}


def test_cv_bench_by_task_and_in_total(bench):
    rows = [cv_row(0, "Count"), cv_row(1, "Count"), cv_row(2, "Relation", "(B)"), cv_row(3, "Count")]
    texts = ["So left.</think> <answer>left</answer>", "<answer>B</answer>", "</think>The answer is (B).", "(A)"]
    rows, printed = bench("cvbench[:4]", "cvbench.jsonl", rows, texts)
    assert [row["answer"] for row in rows] == ["(A) left", "(A) left", "(B) right", "(A) left"]
    assert [row["greedy"][0]["verdict"] for row in rows] == [True, False, True, True]
    # 3 of 4: variance .25, over 4: .25; of Count 2 of 3: variance 1/3, over 3: 1/3
    assert cells(printed, "cvbench", "4") == ["75.0 ± 25.0"]
    assert cells(printed, "cvbench, Count", "3") == ["66.7 ± 33.3"]
    assert cells(printed, "cvbench, Relation", "1") == ["100.0"]
    # the training prompt of the base model: no chat, the picture in front of all
    before, after = TEMPLATES["sat"].removeprefix("<image>").split("{problem}")
    shown = f"<|vision_start|><|image_pad|><|vision_end|>{before}{cv_row(0, '')['prompt']}{after}"
    assert rows[0]["prompt"] == shown and rows[0]["prompt_tokens"] > 300
    assert "system prompt 'none', --template sat" in printed and "warning" not in printed


def test_a_wrong_count_is_a_warning(bench):
    _, printed = bench("cvbench", "cvbench.jsonl", [cv_row(0, "Count")], ["(A)"])
    assert "warning: cvbench has 1 problems instead of 2638" in printed


def test_geoqa_golds_have_units_and_degrees(bench):
    golds = ["145°", "<answer> 10 cm </answer>", "9米", "2√3", "60°"]
    rows = [{"image_path": f"{i}.png", "question": f"angle {i}", "ground_truth": g} for i, g in enumerate(golds)]
    answers = ["145", "10 cm", "9", "2", "60 cm"]
    texts = [f"<think>so</think> <answer>{answer}</answer>" for answer in answers]
    rows, printed = bench("geoqa[:5]", "geoqa_test_prompts.jsonl", rows, texts)
    assert [row["greedy"][0]["verdict"] for row in rows] == [True, True, True, False, False]
    assert "angle 0" + SYSTEM_PROMPTS["geoqa"][1] + "<|assistant|>" in rows[0]["prompt"]
    assert "compares as text only" not in printed


LISA = [{"instruction": ["the dog", "another"], "boxes": [[8, 6, 24, 18], [0, 0, 1, 1]]} for _ in range(4)]


def lisa_rows(count=4):
    return [{"image_path": f"{i}.png", **LISA[i]} for i in range(count)]


def test_lisa_is_the_mean_iou_of_all_and_writes_the_boxes(bench, tmp_path):
    """The gold, (8,6),(24,18) of 32 x 24 pixels, is (250,250),(750,750) of 1000 x 1000."""
    texts = [
        "<think>x</think> <answer>(250,250),(750,750)</answer>",
        "<answer>(250,250),(500,750)</answer>",  # half of it
        "nothing there",
        "<answer>(8,6),(24,18)</answer>",  # pixels, which this model does not use: far away
    ]
    rows, printed = bench("lisa[:4]", "lisa_test.json", lisa_rows(), texts)
    assert [row["greedy"][0]["verdict"] for row in rows] == [1.0, 0.5, 0.0, 0.0]
    assert rows[0]["answer"] == "(250.0,250.0),(750.0,750.0)" and rows[0]["box_size"] == [1000, 1000]
    # mean 3/8; squares (5/8)^2 + (1/8)^2 + 2 (3/8)^2 = 44/64, over 3 * 4: 0.0573, its root 0.239
    assert cells(printed, "lisa", "4") == ["37.5 ± 23.9"] and "mIoU, %" in printed
    question = "Output the bounding box in the image corresponding to the instruction: the dog"
    assert question + SYSTEM_PROMPTS["lisa"][1] in rows[0]["prompt"]

    boxes = json.loads((tmp_path / "out.lisa.boxes.json").read_text())
    assert [box["pred_bbox"] for box in boxes] == [
        [0.25, 0.25, 0.75, 0.75],
        [0.25, 0.25, 0.5, 0.75],
        [0.008, 0.006, 0.024, 0.018],
    ]
    assert [box["image_pth"] for box in boxes] == [str(tmp_path / f"{i}.png") for i in (0, 1, 3)]
    assert f"lisa: 3 boxes are in {tmp_path}/out.lisa.boxes.json" in printed


@pytest.mark.parametrize("scale, golds", [("pixels", [8, 6, 24, 18]), (None, [250, 250, 750, 750])])
def test_boxes_of_your_own_are_scored_as_in_training(model, tmp_path, capsys, monkeypatch, scale, golds):
    """The same box of 32 x 24 pixels, in pixels and in this model's units, thousandths."""
    for i in range(2):
        Image.new("RGB", (32, 24), (9 * i, 0, 0)).save(tmp_path / f"{i}.png")
    rows = [{"problem": f"find {i}", "image": f"{i}.png", "answer": str(golds)} for i in range(2)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    texts = ["(250,250),(750,750)", "(250,250),(500,750)"]
    monkeypatch.setattr(evaluation, "completion_texts", lambda _, sampled: texts[: sampled.truncated.numel()])
    words = ["--model", model, "--data", str(tmp_path / "own.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    words += ["--box-scale", scale] if scale else []
    evaluation.main([*words, "--max-prompt-tokens", "480", "--max-new-tokens", "4"])
    printed = capsys.readouterr().out
    assert cells(printed, "data", "2") == ["75.0 ± 25.0"] and "mIoU, %" in printed
    assert (tmp_path / "out.data.boxes.json").exists() == bool(scale)  # only then a picture's size in units is known


def test_shares_are_of_width_and_height(tmp_path):
    """As Qwen2.5-VL states boxes: in pixels of a picture resized to 88 x 40."""
    row = {
        "set": "lisa",
        "grade": "iou",
        "images": ["a.jpg"],
        "box_size": [88, 40],
        "greedy": [{"text": "(22,10),(66,30)"}],
    }
    too_long = row | {"images": ["b.jpg"], "greedy": []}
    said = evaluation.write_boxes(str(tmp_path / "r.jsonl"), [row, too_long, {"set": "gsm8k", "greedy": []}])
    assert said == f"\n\nlisa: 1 boxes are in {tmp_path}/r.lisa.boxes.json"
    boxes = json.loads((tmp_path / "r.lisa.boxes.json").read_text())
    assert boxes == [{"image_pth": "a.jpg", "pred_bbox": [0.25, 0.25, 0.75, 0.75]}]


def test_what_is_submitted_is_what_is_graded():
    """Names and options may be all that is said; a box has neither tag nor mark."""

    def vote(grade, gold, texts):
        samples = [{"text": text, "tokens": 1, "truncated": False} for text in texts]
        row = evaluation.graded({"grade": grade, "answer": gold, "greedy": samples[:1], "samples": samples})
        assert [bool(each["submitted"]) for each in row["samples"]] == [bool(text) for text in texts]
        return row["samples"][row["majority"]]["verdict"], row["samples"][0]["submitted"]

    assert vote("class_name", "daisy", ["daisy", "A rose", "daisy", ""]) == (True, "daisy")
    assert vote("choice_or_name", "(A) left", ["(A)", "(A)", "<answer>B</answer>"]) == (True, "(A)")
    assert vote("iou_or_name", "[1, 2, 3, 4]", ["(1,2),(3,4)", "[1, 2, 3, 4]"])[0] == 1.0
    assert vote("accuracy", "7", ["\\boxed{7}", ""]) == (True, "7")


def test_samples_of_boxes_have_a_mean_but_no_vote(bench):
    texts = ["(250,250),(750,750)", "(250,250),(500,750)", "none", "none"]  # the first two are the greedy ones
    rows, printed = bench("lisa[:2]", "lisa_test.json", lisa_rows(2), texts, "--samples", "2")
    assert [[sample["verdict"] for sample in row["samples"]] for row in rows] == [[1.0, 0.5], [0.0, 0.0]]
    # greedy 1 and 1/2; of the samples 3/4 and 0: (3/8)^2 * 2 over 1 * 2
    assert cells(printed, "lisa", "2") == ["75.0 ± 25.0", "37.5 ± 37.5"]
    assert "maj@2" not in printed and "pass@2" not in printed


def test_whole_names_decide(bench):
    golds = ["737-200", "rose", "primrose", "Cat_Siamese", "rose"]
    texts = ["<answer>737 200</answer>", "<answer>primrose</answer>", "<answer>rose</answer>"]
    texts += ["<answer>cat siamese</answer>", "<answer></answer>"]
    rows, printed = bench("flowers102[:5]", "flowers102.jsonl", [{"answer": gold} for gold in golds], texts)
    assert [row["greedy"][0]["verdict"] for row in rows] == [True, False, False, True, False]
    assert cells(printed, "flowers102", "5") == ["40.0 ± 24.5"]  # variance .3, over 5: .06, its root .245
    asked = "This is an image containing a plant. Please identify the species of the plant based on the image.\n"
    assert asked in rows[0]["prompt"] and rows[0]["prompt"].endswith("Please strictly follow the format.<|assistant|>")


@pytest.mark.parametrize(("name", "words"), [("pets37", "a pet. Please identify the species of the pet"),
    ("fgvc", "an aircraft. Please identify the model of the aircraft"),
    ("cars196", "a car. Please identify the model of the car")])  # fmt: skip
def test_each_set_of_names_has_its_question(bench, name, words):
    rows, _ = bench(f"{name}[:1]", f"{name}.jsonl", [{"answer": "x"}], ["x"])
    assert f"This is an image containing {words} based" in rows[0]["prompt"]


def test_a_flag_replaces_the_prompt_of_the_benchmark(bench):
    rows, _ = bench("geoqa[:1]", "geoqa_test_prompts.jsonl", [{"question": "a", "ground_truth": "1"}], ["1"],
                    "--system-prompt", "Look at it.")  # fmt: skip
    assert rows[0]["prompt"].startswith("<|system|>Look at it.<|user|>") and "thinking" not in rows[0]["prompt"]


def test_greedy_is_what_generate_says(bench, model, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "rollout", spied := Spy(evaluation.rollout))
    for i, row in enumerate(shapes.problems("test")[:3]):
        (tmp_path / f"s{i}.png").write_bytes(row["images"][0])
    rows = [{"image": f"s{i}.png", "question": "count", "ground_truth": "1"} for i in range(3)]
    bench("geoqa[:3]", "geoqa_test_prompts.jsonl", rows, ["1"] * 3, "--dtype", "float64")
    processor = load_processor(model)
    whole = AutoModelForImageTextToText.from_pretrained(model, dtype=torch.float64).eval()
    ids, mask = spied.result.completion_ids[:, 0], spied.result.completion_mask[:, 0]
    said = []
    for i, row in enumerate(
        sorted(shapes.problems("test")[:3], key=lambda row: -row["box_size"][0] * row["box_size"][1])
    ):
        prompt = processor.prompt("<image>count", row["images"], suffix=SYSTEM_PROMPTS["geoqa"][1])
        features = processor.features(row["images"])
        types = torch.tensor([[int(token == processor.image_id) for token in prompt]])
        inputs = {"input_ids": torch.tensor([prompt]), "mm_token_type_ids": types} | features
        inputs["pixel_values"] = inputs["pixel_values"].double()
        made = whole.generate(**inputs, do_sample=False, max_new_tokens=4)[0, len(prompt) :].tolist()
        assert made == ids[i][mask[i].bool()].tolist()
        said.append(made)
    assert len({tuple(tokens) for tokens in said}) > 1  # else a mix-up would not show


class Spy:
    """A function that keeps its last result."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments, **options):
        self.result = self.function(*arguments, **options)
        return self.result


@pytest.mark.slow
def test_two_ranks_make_the_result_of_one(model, tmp_path, capsys):
    for i, row in enumerate(shapes.problems("test")[:4]):
        (tmp_path / f"{i}.png").write_bytes(row["images"][0])
    lines = [json.dumps({"image": f"{i}.png", "answer": "rose"}) + "\n" for i in range(4)]
    (tmp_path / "pets37.jsonl").write_text("".join(lines))
    (tmp_path / "lisa_val.json").write_text(json.dumps(lisa_rows()))
    flags = ["--model", model, "--bench", "pets37,lisa-val", "--data-dir", str(tmp_path), "--dtype", "float64"]
    flags += ["--max-prompt-tokens", "480", "--max-new-tokens", "6", "--samples", "2", "--cache-tokens", "1"]
    evaluation.main([*flags, "--out", str(tmp_path / "one.jsonl")])
    printed = capsys.readouterr().out
    first, _ = on_ranks(2, tmp_path, evaluation.main, [*flags, "--out", str(tmp_path / "two.jsonl")])
    assert untimed(tmp_path / "two.jsonl") == untimed(tmp_path / "one.jsonl")
    assert (tmp_path / "two.lisa-val.boxes.json").read_text() == (tmp_path / "one.lisa-val.boxes.json").read_text()
    assert cells(first, "lisa-val", "4") == cells(printed, "lisa-val", "4")


def test_regrade_and_compare(bench, tmp_path, capsys, monkeypatch):
    golds = [{"answer": "rose"}, {"answer": "rose"}]  # the same question twice, of two pictures
    bench("flowers102[:2]", "flowers102.jsonl", golds, ["rose", "lily"])
    (tmp_path / "out.jsonl").rename(tmp_path / "old.jsonl")
    bench("flowers102[:2]", "flowers102.jsonl", golds, ["lily", "rose"])
    evaluation.main(["--compare", str(tmp_path / "old.jsonl"), str(tmp_path / "out.jsonl")])
    assert cells(capsys.readouterr().out, "flowers102", "2", "greedy pass@1")[4] == "1, 1"

    bench("lisa[:2]", "lisa_test.json", lisa_rows(2), ["(250,250),(750,750)", "none"])
    (tmp_path / "out.lisa.boxes.json").unlink()
    monkeypatch.setattr(evaluation, "read_model", None)
    evaluation.main(["--regrade", str(tmp_path / "out.jsonl"), "--out", str(tmp_path / "again.jsonl")])
    printed = capsys.readouterr().out
    assert printed.startswith("0 of 2 verdicts changed") and cells(printed, "lisa", "2") == ["50.0 ± 50.0"]
    assert len(json.loads((tmp_path / "again.lisa.boxes.json").read_text())) == 1
    monkeypatch.setattr(evaluation.rewards, "iou", lambda *_: 0.25)
    evaluation.main(["--regrade", str(tmp_path / "out.jsonl")])
    assert "lisa 0, greedy: now 0.25" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------------- errors


def refusal(capsys, model, tmp_path, name, *flags):
    limits = ["--max-prompt-tokens", "480", "--max-new-tokens", "4", "--out", str(tmp_path / "o")]
    return error_of(capsys, "--model", model, "--bench", name, *limits, *flags)


@pytest.mark.parametrize("name", ["geoqa", "lisa", "lisa-val", "flowers102", "pets37", "fgvc", "cars196"])
def test_without_files_one_line_names_them(model, tmp_path, capsys, name):
    file = evaluation.benchmarks.BENCHMARKS[name].file
    assert f"{name}: not on the hub in a readable form; --data-dir must hold {file}" in refusal(
        capsys, model, tmp_path, name
    )
    assert f"has no file {file}, from which {name} is read" in refusal(
        capsys, model, tmp_path, name, "--data-dir", str(tmp_path)
    )


def test_without_the_hub_one_line_says_so(model, tmp_path, capsys):
    error = refusal(capsys, model, tmp_path, "cvbench")
    assert "nyu-visionx/CV-Bench:test_2d.parquet: no local file, and the hub can't be reached" in error


@pytest.mark.parametrize(
    ("name", "row", "words"),
    [
        (
            "cvbench",
            cv_row(0, "Count", "(C)"),
            "cvbench.jsonl, line 1: not a row of cvbench (KeyError: 'C')",
        ),
        ("cvbench", cv_row(0, "Count", "left"), "cvbench.jsonl, line 1: not a row of cvbench (KeyError: 'left')"),
        (
            "lisa_test",
            LISA[0] | {"boxes": [[9, 9, 1, 1]]},
            "1 answers do not equal themselves; the first is problem 0's, '[9, 9, 1, 1]'",
        ),
        ("lisa_test", LISA[0] | {"boxes": []}, "lisa_test.json, row 1: not a row of lisa (IndexError: list index"),
        ("flowers102", {"name": "rose"}, "flowers102.jsonl, line 1: no answer (looked for answer, "),
        ("cvbench", {"question": "?", "answer": "(A)"}, "not a row of cvbench (KeyError: 'choices')"),
        (
            "flowers102",
            {"answer": "rose", "image": None},
            "flowers102.jsonl, line 1: no picture (looked for images, image, image_path)",
        ),
        ("flowers102", {"answer": "rose", "image": "absent.png"}, "flowers102.jsonl, line 1: picture 1: "),
    ],
)
def test_a_wrong_row_is_one_line(model, tmp_path, capsys, name, row, words):
    Image.new("RGB", (32, 24)).save(tmp_path / "0.png")
    rows = [{"image": "0.png"} | row]
    file = evaluation.benchmarks.BENCHMARKS[name.removesuffix("_test")].file
    (tmp_path / file).write_text(json.dumps(rows if file.endswith(".json") else rows[0]))
    error = refusal(capsys, model, tmp_path, name.removesuffix("_test"), "--data-dir", str(tmp_path))
    assert words in error


def test_prompts_that_are_too_long_say_what_their_pictures_take(model, tmp_path, capsys):
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    row = {"image_path": "0.png", "question": "a", "ground_truth": "1"}
    (tmp_path / "geoqa_test_prompts.jsonl").write_text(json.dumps(row))
    error = refusal(capsys, model, tmp_path, "geoqa", "--data-dir", str(tmp_path), "--max-prompt-tokens", "120")
    assert "all prompts are longer, from" in error and "pictures take 64 tokens of one, --max-pixels" in error


def test_a_model_whose_boxes_are_in_unknown_units_is_refused(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pictures, "BOX_SIZES", {"qwen3_vl": (1000, 1000)})
    Image.new("RGB", (32, 24)).save(tmp_path / "0.png")
    (tmp_path / "lisa_test.json").write_text(json.dumps([{"image_path": "0.png"} | LISA[0]]))
    error = refusal(capsys, model, tmp_path, "lisa", "--data-dir", str(tmp_path))
    assert "the units in which qwen2_vl states boxes are not known, only those of qwen3_vl" in error


def test_a_built_in_model_is_evaluated_on_its_own_job_as_train_does(model, tmp_path, capsys, monkeypatch):
    rows = shapes.problems("test")[:5]
    monkeypatch.setattr(shapes, "ensure", lambda _: model)
    monkeypatch.setattr(shapes, "problems", lambda split: rows if split == "test" else None)
    texts = [rows[0]["answer"], "7", "(0,0),(9,9)", "(0,0),(9,9)", "no box"]
    monkeypatch.setattr(evaluation, "completion_texts", lambda *_: texts)
    evaluation.main(["--model", "tiny-pictures", "--out", str(tmp_path / "out.jsonl")])
    graded = [(row["greedy"][0], row["answer"]) for row in untimed(str(tmp_path / "out.jsonl"))]
    scored = [iou_or_name(completion["text"], answer) for completion, answer in graded]
    assert [completion["verdict"] for completion, _ in graded] == scored and any(0 < score < 1 for score in scored)
    printed = capsys.readouterr().out
    assert cells(printed, "shapes", "5")[0].startswith(f"{100 * sum(scored) / 5:.1f} ±")
    assert cells(printed, "shapes, count", "2")[0].startswith(f"{100 * sum(scored[:2]) / 2:.1f} ±")
    assert cells(printed, "shapes, find", "3")[0].startswith(f"{100 * sum(scored[2:]) / 3:.1f} ±")


@pytest.mark.parametrize("flag", ["--min-pixels", "--max-pixels"])
def test_limits_of_pixels_change_the_prompt_and_are_kept(bench, tmp_path, flag):
    row = {"question": "a", "ground_truth": "1"}
    plain, _ = bench("geoqa[:1]", "geoqa_test_prompts.jsonl", [row], ["1"])
    limits = {"--min-pixels": "2048", "--max-pixels": "256"}
    rows, _ = bench("geoqa[:1]", "geoqa_test_prompts.jsonl", [row], ["1"], flag, limits[flag])
    assert (rows[0]["prompt_tokens"] > plain[0]["prompt_tokens"]) == (flag == "--min-pixels")
    assert rows[0]["prompt_tokens"] != plain[0]["prompt_tokens"] and rows[0]["prompt"] == plain[0]["prompt"]
    settings = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["settings"]
    assert settings[flag[2:].replace("-", "_")] == int(limits[flag])


def test_a_text_model_is_refused(tmp_path, capsys, world):
    Image.new("RGB", (32, 24)).save(tmp_path / "0.png")
    (tmp_path / "flowers102.jsonl").write_text(json.dumps({"image": "0.png", "answer": "rose"}))
    error = refusal(capsys, str(world.folder / "model"), tmp_path, "flowers102", "--data-dir", str(tmp_path),
                    "--max-prompt-tokens", "32")  # fmt: skip
    assert "rows have pictures, but" in error and "reads text only" in error
