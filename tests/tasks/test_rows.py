"""tasks/rows.py: rows of public forms, as they are published, and what is asked and compared of each."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from test_data import SHARED, load_one, one_line, write

from grader.extraction import extract_gold
from tasks import data


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


def verl(prompt, gold, **more):
    """A row as verl writes it."""
    return {
        "prompt": prompt,
        "reward_model": {"ground_truth": gold, "style": "rule"},
        "extra_info": {"index": 0},
        **more,
    }


S, P, A = ("system", "S"), ("user", "p"), ("assistant", "4")
XY = "\nA) x\nB) y"
CHATML = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\np<|im_end|>\n<|im_start|>assistant\n"
LLAMA_3 = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"
LLAMA_3 = (
    "<|begin_of_text|>" + LLAMA_3.format("system", "S") + LLAMA_3.format("user", "p") + LLAMA_3.format("assistant", "")
)
WORKED = "First we add. Then we double. Therefore, the answer is: 180."

RIGHT = {  # form: (a row of it, the problem, the gold as the grader reads it, the turns before)
    "MMLU": ({"question": "q", "subject": "s", "choices": ["x", "y"], "answer": 1}, "q" + XY, "B"),
    "MMLU, numbers": ({"question": "q", "choices": ["1", "2", "0"], "answer": 2}, "q\nA) 1\nB) 2\nC) 0", "C"),
    "MMLU-Pro": ({"question": "q", "options": ["x", "y"], "answer": "B", "answer_index": 1}, "q" + XY, "B"),
    "ARC": ({"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"}, "q" + XY, "B"),
    "OpenBookQA": (
        {"question_stem": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "A"},
        "q" + XY,
        "A",
    ),
    "CommonsenseQA": (
        {
            "question": {"stem": "q", "choices": [{"label": "A", "text": "x"}, {"label": "B", "text": "y"}]},
            "answerKey": "B",
        },
        "q" + XY,
        "B",
    ),
    "AQuA": (
        {"question": "q", "options": ["A)21", "B)21.5"], "rationale": "r", "correct": "B"},
        "q\nA) 21\nB) 21.5",
        "B",
    ),
    "MathQA": (
        {"Problem": "q", "options": "a ) 38 , b ) 1,000 , c ) none", "correct": "b"},
        "q\nA) 38\nB) 1,000\nC) none",
        "B",
    ),
    "MedQA": ({"question": "q", "options": {"A": "x", "B": "y"}, "answer": "y", "answer_idx": "B"}, "q" + XY, "B"),
    "MedMCQA": ({"question": "q", "opa": "x", "opb": "y", "opc": "z", "cop": 2}, "q" + XY + "\nC) z", "C"),
    "C-Eval": ({"question": "q", "A": "x", "B": "y", "answer": "A"}, "q" + XY, "A"),
    "RACE": ({"article": "a", "question": "q", "options": ["x", "y"], "answer": "A"}, "a\n\nq" + XY, "A"),
    "LogiQA": ({"context": "c", "query": "q", "options": ["x", "y"], "correct_option": 0}, "c\n\nq" + XY, "A"),
    "ReClor": ({"context": "c", "question": "q", "answers": ["x", "y"], "label": 1}, "c\n\nq" + XY, "B"),
    "MathVista": ({"question": "q", "choices": ["x", "y"], "answer": "y"}, "q" + XY, "B"),
    "AGIEval": (
        {"passage": None, "question": "q", "options": ["(A)x", "(B)y"], "label": "B", "answer": None},
        "q" + XY,
        "B",
    ),
    "Bespoke-Stratos": (
        {
            "system": "S",
            "conversations": [{"from": "user", "value": "p"}, {"from": "assistant", "value": "\\boxed{3}"}],
        },
        "p",
        "3",
        turns(S),
    ),
    "NaturalReasoning": ({"question": "q", "reference_answer": "7", "responses": []}, "q", "7"),
    "a null answer": ({"question": "q", "answer": None, "solution": "\\boxed{3}"}, "q", "3"),
    "MathVision": ({"question": "q", "options": [], "answer": "4"}, "q", "4"),
    "NuminaMath-1.5": (
        {"problem": "Which? A) 1 B) 2", "answer": "A", "problem_is_valid": "Yes"},
        "Which? A) 1 B) 2",
        "A",
    ),
    "listed already": ({"question": "q\n(A) x (B) y", "options": ["x", "y"], "answer": "B"}, "q\n(A) x (B) y", "B"),
    "a letter in words": ({"question": "q", "options": ["x", "y"], "answer": "The answer is (B)."}, "q" + XY, "B"),
    "MMMU": ({"question": "q", "options": "['x', \"it's\"]", "answer": "B"}, "q\nA) x\nB) it's", "B"),
    "MMMU, open": ({"question": "q", "options": "[]", "answer": "12"}, "q", "12"),
    "We-Math": ({"question": "q", "option": "A. x; B. y", "answer": "A"}, "q" + XY, "A"),
    "options under a name of their own": ({"question": "q", "candidates": ["x", "y"], "answer": "B"}, "q" + XY, "B"),
    "no options for a number": ({"question": "q", "candidates": ["x", "y"], "answer": "4"}, "q", "4"),
    "options as JSON": ({"question": "q", "options": '{"A": "x", "B": "y"}', "answer": "B"}, "q" + XY, "B"),
    "ZebraLogic": ({"puzzle": "c", "question": "q", "choices": ["x", "y"], "answer": "y"}, "c\n\nq" + XY, "B"),
    "SQuAD": ({"context": "c", "question": "q", "answers": {"text": ["7"], "answer_start": [4]}}, "c\n\nq", "7"),
    "VQA": ({"question": "q", "multiple_choice_answer": "net", "answers": [{"answer": "nets"}]}, "q", "net"),
    "a count of answers": ({"question": "q", "answer": "7", "answers": 4}, "q", "7"),
    "OREAL": ({"question": "q", "gold_answer": "8"}, "q", "8"),
    "IMO-AnswerBench": ({"Problem": "p", "Short Answer": "3"}, "p", "3"),
    "SciBench": ({"problem_text": "p", "answer_number": "-1.5", "unit": " "}, "p", "-1.5"),
    "SYNTHETIC-1": ({"prompt": "p", "verification_info": '{"ground_truth": "9"}'}, "p", "9"),
    "Open-Reasoner-Zero": (
        {"0": {"from": "human", "value": "p"}, "1": {"from": "assistant", "ground_truth": {"value": "4"}}},
        "p",
        "4",
    ),
    "SVAMP": ({"Body": "b.", "Question": "q?", "Equation": "( 76.0 )", "Answer": 51.0}, "b. q?", "51.0"),
    "ASDiv": ({"body": "b.", "question": "q?", "answer": "9 (apples)", "formula": "f"}, "b. q?", "9 apples"),
    "Alpaca": ({"instruction": "i", "input": "n", "output": "4"}, "i\n\nn", "4"),
    "Alpaca, no input": ({"instruction": "i", "input": "", "output": "4"}, "i", "4"),
    "Dolly": ({"instruction": "i", "context": "c", "response": "4"}, "c\n\ni", "4"),
    "GSM8K-socratic": ({"question": "q", "answer": "How many? ** 8\n#### 8"}, "q", "8"),
    "MGSM": ({"question": "q", "answer": None, "answer_number": 11}, "q", "11"),
    "MultiArith": ({"question": "q", "final_ans": "13"}, "q", "13"),
    "MATH": ({"problem": "p", "level": "Level 5", "solution": "so $\\boxed{4}$."}, "p", "4"),
    "NuminaMath-CoT": ({"problem": "p", "solution": "so $\\boxed{4}$.", "messages": turns(P, A)}, "p", "4"),
    "MetaMath": ({"query": "q", "response": "5+5=10.\n#### 10\nThe answer is: 10"}, "q", "10"),
    "OpenMathInstruct": ({"problem": "p", "generated_solution": "s", "expected_answer": "7"}, "p", "7"),
    "DeepMath": ({"question": "q", "final_answer": "0", "r1_solution_1": "s"}, "q", "0"),
    "extracted": ({"question": "q", "solution": "s", "extracted_answer": "7"}, "q", "7"),
    "GPQA-like": ({"Question": "q", "Correct Answer": "7"}, "q", "7"),
    "worked, no box": ({"problem": "p", "solution": WORKED}, "p", "180"),
    "OlympiadBench": ({"question": "q", "final_answer": ["3", "5"], "solution": ["s"]}, "q", "3, 5"),
    "equal answers": ({"problem": "p", "answer": ["1/2", "0.5"]}, "p", "1/2"),
    "AReaL": (
        {"prompt": "<｜User｜>\np<｜Assistant｜><think>\n", "task": "math", "solutions": ["\\boxed{10\\%}"]},
        "p",
        "10\\%",
    ),
    "DAPO": (verl(turns(P), "34", ability="MATH"), "p", "34"),
    "Skywork-OR1": (verl(turns(P), '["42"]', ability="math"), "p", "42"),
    "PRIME": (verl(turns(S, P), "4", ability="math"), "p", "4", turns(S)),
    "ORZ": (
        [{"from": "human", "value": "p"}, {"from": "assistant", "ground_truth": {"value": "98", "pass_at_n": 0.6}}],
        "p",
        "98",
    ),
    "ShareGPT": (
        {
            "conversations": [
                {"from": "system", "value": "S"},
                {"from": "human", "value": "p"},
                {"from": "gpt", "value": WORKED},
            ]
        },
        "p",
        "180",
        turns(S),
    ),
    "OpenAI": ({"messages": [{"role": "user", "content": [{"type": "text", "text": "p"}]}, *turns(A)]}, "p", "4"),
    "OpenAI's evals": ({"input": turns(S, P), "ideal": "4"}, "p", "4", turns(S)),
    "TRL": ({"prompt": turns(P), "completion": turns(A)}, "p", "4"),
    "NeMo": ({"responses_create_params": {"input": turns(P)}, "expected_answer": "4 or -4"}, "p", "4 or -4"),
    "OpenOrca": ({"system_prompt": "S", "question": "p", "response": "4"}, "p", "4", turns(S)),
    "several turns": ({"messages": turns(P, A, ("user", "q")), "answer": "5"}, "q", "5", turns(P, A)),
    "an empty system": ({"messages": turns(("system", ""), P), "answer": "5"}, "p", "5"),
    "a chat as JSON": ({"prompt": json.dumps(turns(P)), "answer": "1"}, "p", "1"),
    "ChatML": ({"prompt": CHATML, "answer": "1"}, "p", "1", turns(S)),
    "ChatML in a turn": ({"prompt": turns(("user", CHATML + "<think>")), "answer": "1"}, "p", "1", turns(S)),
    "Llama 3": ({"prompt": LLAMA_3, "answer": "1"}, "p", "1", turns(S)),
    "Gemma": ({"prompt": "<start_of_turn>user\np<end_of_turn>\n<start_of_turn>model\n", "answer": "1"}, "p", "1"),
    "Phi": ({"prompt": "<|system|>\nS<|end|>\n<|user|>\np<|end|>\n<|assistant|>\n", "answer": "1"}, "p", "1", turns(S)),
}


@pytest.mark.parametrize("form", RIGHT)
def test_public_forms_are_read_as_a_person_reads_them(tmp_path, form):
    row, problem, gold, *before = RIGHT[form]
    read = load_one(tmp_path, row)
    assert read["problem"] == problem and gold in (read["answer"], extract_gold(read["answer"]))
    assert read.get("turns", []) == (before[0] if before else [])


REFUSED = {  # form: (a row of it, the reason)
    "TinyZero": (verl(turns(P), {"target": 98}, data_source="countdown"), "data_source is 'countdown'"),
    "Countdown": ({"prompt": "p", "target": 98, "nums": [44, 19]}, "nums is [44, 19]"),
    "Logic-RL": (verl(turns(P), {"names": ["Zoey"]}, data_source="kk_logic"), "(data_source kk_logic)"),
    "Search-R1": (verl(turns(P), {"target": ["a"]}), "reward_model.ground_truth is {'target': ['a']}"),
    "PRIME, code": (verl(turns(P), '{"inputs": ["1"]}', ability="code"), "ability is 'code'"),
    "a reward model's": ({"prompt": "p", "reward_model": {"style": "model", "ground_truth": "4"}}, "style is 'model'"),
    "code tests": ({"prompt": "p", "answer": '{"inputs": ["1"], "outputs": ["2"]}'}, "no answer that can be compared"),
    "MBPP": ({"prompt": "p", "answer": "x", "test_list": ["assert f(1)"]}, "test_list is"),
    "DeepCoder": ({"problem": "p", "solutions": ["s"], "tests": "[{}]"}, "tests is"),
    "SYNTHETIC-1": ({"prompt": "p", "task_type": "verifiable_code", "answer": "x"}, "task_type is"),
    "NuminaMath-1.5": ({"problem": "p", "answer": "notfound"}, "answer is 'notfound', no answer"),
    "a proof": ({"problem": "p", "answer": "proof", "solution": "s"}, "answer is 'proof', no answer"),
    "a boxed proof": ({"problem": "p", "solution": "\\boxed{proof}"}, "no answer that can be compared"),
    "an empty box": ({"problem": "p", "solution": "so \\boxed{}"}, "no answer that can be compared"),
    "half a problem": ({"problem": "p", "answer": "2", "problem_is_valid": "Incomplete"}, "problem_is_valid is 'Incom"),
    "prose": ({"problem": "p", "solution": "We add them and\nsee that it must hold for all"}, "without a final answer"),
    "a chat without an answer": ({"messages": turns(P, ("assistant", "Once\nupon a time"))}, "without a final answer"),
    "SocialIQA": ({"question": "q", "answerA": "x", "answerB": "y", "label": "1"}, "label is '1': none of 2 options"),
    "Math-Shepherd": ({"input": "p Step 1: a ки", "label": "p Step 1: a +"}, "label is 'p Step 1: a +'"),
    "a proof by type": ({"question": "q", "question_type": "Theorem proof", "solution": ["s"]}, "question_type is"),
    "MMLU-Redux": ({"question": "q", "answer": "4", "error_type": "wrong_groundtruth"}, "error_type is"),
    "a short proof": ({"problem": "p", "solution": "By SAS they are equal, so $AC = BD$."}, "without a final answer"),
    "a film under another name": ({"problem": "p", "path": "./v/1.mp4", "answer": "A"}, "path is './v/1.mp4': films"),
    "a picture that is not there": ({"problem": "p", "figure": "a/b.png", "answer": "1"}, "b.png"),
    "ms-swift": ({"query": "Find <ref-object>", "response": "<bbox>"}, "query or response holds <ref-object>"),
    "no option": ({"question": "q", "choices": ["x", "y"], "answer": "z"}, "answer is 'z': none of 2 options"),
    "two options": ({"question": "q", "choices": ["B", "A"], "answer": "A"}, "answer is 'A': more than one of 2"),
    "an index or a value": ({"question": "q", "choices": [1, 2, 3], "answer": 2}, "answer is 2: more than one of 3"),
    "beyond the options": ({"question": "q", "choices": ["x", "y"], "answer": 2}, "answer is 2: none of 2 options"),
    "a count of options": ({"question": "q", "choices": 4, "answer": 2}, "choices is 4, not a list"),
    "thirty options": ({"question": "q", "choices": ["x"] * 30, "answer": 2}, "choices is"),
    "options in prose": ({"question": "q", "options": "one of two", "answer": "A"}, "options is 'one of two', not"),
    "one option": ({"question": "q", "choices": ["x"], "answer": "x"}, "choices is"),
    "GPQA": ({"Question": "q", "Correct Answer": "x", "Incorrect Answer 1": "y"}, "Incorrect Answer 1 is 'y'"),
    "any of several": ({"prompt": "p", "solutions": ["\\boxed{1}", "\\boxed{2}"]}, "all of them, or any one?"),
    "names of one": ({"question": "q", "answer": ["Paris", "Paris, France"]}, "all of them, or any one?"),
    "HotpotQA": ({"question": "q", "context": {"title": []}, "answer": "a"}, "context is {'title': []}, not text"),
    "a mark without its picture": ({"problem": "<image>p", "answer": "1"}, "<image> is 1 times in problem"),
    "a film": ({"problem": "p", "video": "a.mp4", "answer": "1"}, "video is 'a.mp4'"),
    "Llama 2": ({"prompt": "<s>[INST] p [/INST]", "answer": "1"}, "prompt holds [INST]"),
    "a marker left": ({"prompt": "p<|im_end|>", "answer": "1"}, "prompt holds <|im_end|>"),
    "the answer begun": ({"prompt": CHATML + "Let me see", "answer": "1"}, "up to where the answer begins"),
    "an earlier picture": (
        {"messages": turns(("user", "<image>"), A, P), "answer": "1"},
        "messages holds <image>, which can't be within a turn",
    ),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_can_not_be_compared_or_read_whole_is_refused_in_a_line(tmp_path, form):
    row, reason = REFUSED[form]
    with pytest.raises(ValueError) as caught:
        load_one(tmp_path, row)
    assert reason in one_line(caught) and len(one_line(caught)) < 400 + len(str(tmp_path))
    assert data.load(write(tmp_path / "rows.jsonl", {"problem": "p", "answer": "1"}, row), skip_bad_rows=True)[1] == 1


def test_a_reward_of_ones_own_takes_what_answer_field_names(tmp_path):
    row = {**REFUSED["Countdown"][0], "proof": "So it\nholds."}
    assert load_one(tmp_path, row, answer_field="target")["answer"] == "98"
    assert load_one(tmp_path, row, answer_field="proof")["answer"] == "So it\nholds."


def test_columns_are_found_in_any_case_and_the_files_own_names_stay(tmp_path):
    read = load_one(
        tmp_path, {"Problem Statement": "x", "PROBLEM": "p", "Reward_Model": {"Ground_Truth": 4}, "Turns": 1}
    )
    assert (read["problem"], read["answer"], read["PROBLEM"], read["Turns"]) == ("p", "4", "p", 1)
    assert load_one(tmp_path, {"problem": "p", "answer": "4", "turns": 1})["turns_"] == 1  # ours are the earlier ones


@pytest.mark.parametrize(
    ("document", "split", "problem"),
    [
        ({"train": [{"problem": "p", "answer": "1"}], "test": [{"problem": "q", "answer": "2"}]}, "train", "p"),
        ({"train": [{"problem": "p", "answer": "1"}], "test": [{"problem": "q", "answer": "2"}]}, "test", "q"),
        ({"Train": [{"problem": "p", "answer": "1"}], "dev": []}, "train", "p"),
    ],
)
def test_splits_in_one_json(tmp_path, document, split, problem):
    (tmp_path / "rows.json").write_text(json.dumps(document))
    assert data.load(str(tmp_path / "rows.json"), split=split)[0][0]["problem"] == problem


SHARED_FILES = {  # ../shared/formats: the last good row's (start of its problem, its gold), or why there is none
    "aime_hf.jsonl": ("Every morning Aya", "204"),
    "alpaca.jsonl": ("Compute 2+2", "4"),
    "answer_null.jsonl": ("p", "3"),
    "bigmath_a.jsonl": ("What is the remainder when", "1"),
    "bigmath_b.jsonl": ("half of 20%", "10\\%"),
    "boba_areal.jsonl": ("What is 10% ...\nPlease reason", "10\\%"),
    "dapo17k.parquet": ("Solve the following math problem", "34"),
    "deepscaler.json": ("Let $a+1=...$", "-\\frac{10}{3}"),
    "geoqa_r1v.jsonl": "2.png': no such file",
    "gsm8k.jsonl": ("big", "1234"),
    "kk_logicrl.parquet": "(data_source kk_logic)",
    "mmlu.jsonl": ("What is the capital of France?\nA) Berlin\nB) Paris\nC) Madrid\nD) Rome", "B"),
    "nemorl.jsonl": ("Solve x", "4 or -4"),
    "numina15.jsonl": ("Which? A) 1 B) 2", "A"),
    "olympiadbench_multi.jsonl": ("two parts", "3, 5"),
    "orz57k.json": ("Find the angle", "45^\\circ"),
    "polaris.jsonl": ("Find", "$\\frac{1}{2}$"),
    "r1v_clevr.jsonl": "1.png': no such file",
    "s1k.jsonl": ("Prove", "\\text{not possible}"),
    "sat.jsonl": "1.png': no such file",
    "skywork_or1.parquet": ("Solve", "\\frac{1}{2}"),
    "svamp.jsonl": ("Each pack of dvds costs 76 dollars. How much do you have to pay?", "51.0"),
    "swift_clevr.jsonl": "CLEVR_1.png': no such file",
    "tinyzero_countdown.parquet": "data_source is 'countdown'",
    "two_splits.json": ("p", "1"),
    "verl_gsm8k.parquet": ("Natalia sold clips", "72"),
    "visual_rft.jsonl": "x.jpg': no such file",
    "vlm_r1_grounding.jsonl": "1.jpg': no such file",
}
FOLDER = SHARED.parent / "formats"


@pytest.mark.skipif(not FOLDER.exists(), reason="the public files are not here")
@pytest.mark.parametrize("name", SHARED_FILES)
def test_public_files(name):
    pytest.importorskip("pyarrow") if name.endswith("parquet") else None
    wanted, tried = SHARED_FILES[name], list(data.read(str(FOLDER / name), "train"))
    if isinstance(wanted, str):
        assert all(row is None for _, row, _ in tried) and wanted in str(tried[-1][2])
    else:
        *_, row = (row for _, row, _ in tried if row)
        assert row["problem"].startswith(wanted[0]) and wanted[1] in (row["answer"], extract_gold(row["answer"]))


def test_the_command_prints_what_would_be_read(tmp_path, capsys):
    rows = [{"Body": "b.", "Question": f"q{i}\x1b[2J", "Answer": i} for i in range(4)]
    source = write(tmp_path / "rows.jsonl", *rows, {"messages": turns(S, P), "answer": "1"}, {"problem": "p"})
    data.main(source)
    said = capsys.readouterr().out
    assert (
        "4 rows: problem from Question, Body; answer from Answer\n1 rows: problem from messages; answer from answer"
        in said
    )
    assert f"{source}, line 1\n  prompt    'b. q0\\x1b[2J'\n  gold      '0'\n" in said  # control characters are shown
    assert (
        "all columns are read" in said
        and "q2" in said
        and "q3" not in said
        and f"1 rows skipped\n  {source}, line 6: no answer" in said
    )
    data.main(source + "[:1]", "Question", "Body")
    said = capsys.readouterr().out
    assert "'q0\\x1b[2J'\n  gold      'b.'" in said and "not read: Answer\n" in said
    with pytest.raises(SystemExit, match=r"python -m tasks.data SOURCE .*: 'absent.jsonl': no such file"):
        data.main("absent.jsonl")
    with pytest.raises(SystemExit, match="File name too long"):
        data.main("x" * 300)


def test_the_command_prints_on_any_code_page(tmp_path):
    source = write(tmp_path / "rows.jsonl", {"problem": "漢 α", "answer": "1"})
    command = [sys.executable, "-m", "tasks.data", str(source)]
    env = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(Path(data.__file__).parents[1])}
    assert b"\\u6f22 \\u03b1" in subprocess.run(command, env=env, capture_output=True, check=True).stdout


def test_a_decimal_is_a_number_that_keeps_its_spelling():
    value = pickle.loads(pickle.dumps(data.parse_line(b'{"x": 0.50}')))  # also on its way to a worker
    assert repr(value) == "{'x': 0.5}" == json.dumps(value).replace('"', "'") and value["x"] == 0.5
    assert str(value["x"]) == "0.50"
