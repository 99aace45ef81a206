"""run/problems.py: what a run says of its prompts, and which of their arguments a resumed run keeps."""

import json
from datetime import date

import pytest
from transformers import AutoTokenizer

import train
from run.problems import encode_row
from tasks import prompts


@pytest.fixture
def chat_model(world, tmp_path):
    """A folder with the world's model, whose tokenizer has this chat template."""

    def make(chat_template):
        (tmp_path / "model").mkdir()
        for file in (world.folder / "model").iterdir():
            (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
        tokenizer = AutoTokenizer.from_pretrained(world.folder / "model")
        tokenizer.chat_template = chat_template
        tokenizer.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    return make


def test_what_one_should_know_of_scoring_is_said_and_held_out_prompts_are_made_alike(
    world, tmp_path, monkeypatch, capsys
):
    """L5: sampling that is not what is scored. W3: answers that can't be parsed. E5: one way to make prompts."""
    rows = (world.folder / "test.jsonl").read_text().splitlines()[:3]
    rows.append(json.dumps(json.loads(rows[0]) | {"problem": "one?", "answer": "x )( ="}))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    seen, evaluate = [], train.evaluate
    monkeypatch.setattr(
        train, "evaluate", lambda trained, rows, args: seen.append(rows) or evaluate(trained, rows, args)
    )
    flags = {"steps": 1, "eval_data": tmp_path / "rows.jsonl", "system_prompt": "be brief please"}
    train.main(world(tmp_path / "out", **flags, top_p=0.9, prompts_per_step=2))
    said = capsys.readouterr().out
    assert "--top-p, --top-k: drawn from part of the distribution but scored under all of it" in said
    assert "1 of 4 answers of --eval-data can't be parsed: they are compared as text only" in said
    tokenizer = AutoTokenizer.from_pretrained(world.folder / "model")
    (shown,) = [line for line in said.splitlines() if line.startswith("a prompt: ")]  # of --data
    start = shown.removeprefix("a prompt: '").partition("be brief please")[0]
    for row in seen[0]:
        text = tokenizer.decode(row["prompt_ids"])
        assert text.startswith(f"{start}be brief please") and row["problem"] in text


def test_a_resumed_run_keeps_the_day_and_the_arguments_of_its_chat_template(
    world, chat_model, tmp_path, capsys, monkeypatch
):
    class Today(date):
        day_of_test = date(2026, 1, 7)

        @classmethod
        def today(cls):
            return cls.day_of_test

    monkeypatch.setattr(prompts, "date", Today)
    model = chat_model("{{ 3 if plus else 4 }}+{{ strftime_now('%d') }}+{{ messages[-1].content }}")
    flags = {"model": model, "steps": 1, "eval_data": "", "template_args": "plus=false"}
    train.main(world(tmp_path / "out", **flags))
    said = capsys.readouterr().out
    assert "the chat template asks for the date: 2026-01-07 in all of this run, also once it is resumed" in said
    (shown,) = [line for line in said.splitlines() if line.startswith("a prompt: ")]
    assert shown.startswith("a prompt: '4+07+") and len(shown) <= 80
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["template_args"] == {"strftime_now": "2026-01-07", "plus": False}

    Today.day_of_test = date(2026, 2, 9)
    seen = []
    monkeypatch.setattr(train, "collect", lambda _, problems, *__: seen.append(problems) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train.main(["--out", str(tmp_path / "out"), "--resume", "--steps", "2"])
    tokenizer = AutoTokenizer.from_pretrained(model)
    assert tokenizer.decode(seen[0][0]["prompt_ids"]).replace(" ", "").startswith("4+07+")
    assert "a prompt: " not in capsys.readouterr().out


def test_a_rows_own_system_message_is_used_unless_a_flag_gives_another(chat_model):
    model = chat_model("{% for m in messages %}{{ m.role[0] }}{{ m.content }}{% endfor %}")
    tokenizer = AutoTokenizer.from_pretrained(model)
    turns = [
        {"role": role, "content": content} for role, content in (("system", "1"), ("user", "2"), ("assistant", "3"))
    ]
    for system, wanted in (("", "s1u2a3u4"), ("5", "s5u2a3u4")):
        ids = encode_row({"problem": "4", "turns": turns}, 1, tokenizer, None, {"system": system})
        assert tokenizer.decode(ids).replace(" ", "") == wanted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"template_args": "thinking=false"}, "--template-args thinking: not in the chat template"),
        ({"template_args": "thinking"}, "--template-args: invalid"),
        ({}, "the model's chat template fails ("),
    ],
)
def test_what_is_wrong_with_a_chat_template_is_one_line(world, chat_model, tmp_path, capsys, changes, message):
    with pytest.raises(SystemExit) as ended:
        train.main(world(tmp_path / "out", model=chat_model("{{ messages.absent.content }}"), **changes))
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and message in said and "\n" not in said


def test_the_markers_of_another_models_chats_are_noticed(world, tmp_path, capsys):
    template = tmp_path / "template.txt"
    template.write_text("<|im_start|>user\n{problem}<|im_end|>")
    train.main(world(tmp_path / "out", template=template, steps=1, max_prompt_tokens=90))
    assert "warning: <|im_start|> in prompts is no token of this model" in capsys.readouterr().out


def test_a_reward_gets_a_column_that_only_some_rows_have_in_every_round(world, tmp_path):
    rows = [json.loads(line) for line in (world.folder / "train.jsonl").read_text().splitlines()][:4]
    rows[0]["tier"] = 2
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    body = "    return [float(len(c) % 2 + (t or 0)) for c, t in zip(completions, tier)]\n"
    (tmp_path / "tier.py").write_text(f"def tiered(completions, tier, **_):\n{body}")
    changes = {"data": tmp_path / "rows.jsonl", "rewards": f"{tmp_path / 'tier.py'}:tiered", "prompts_per_step": 1}
    train.main(world(tmp_path / "out", steps=4, eval_data=None, **changes))
    found = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [row["reward_errors"] for row in found] == [0] * 4
    assert sorted(row["reward"] >= 2 for row in found) == [False] * 3 + [True]
