"""tasks/prompts.py: special tokens, chat templates, templates of the user's own, system prompts."""

from datetime import date

import pytest
from test_data import one_line
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from tasks import prompts

BOS, EOS = "<s>", "</s>"
CHATML = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
CHATML += "{% if add_generation_prompt %}<|assistant|>{% endif %}"
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML
IGNORES = CHATML.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
BROKEN_TEMPLATE = "{{ raise_exception('all is lost') }}"


def make_tokenizer(around="$A", chat_template=None):
    """Bytes, and two special tokens; around: what the tokenizer itself puts around a text, e.g. "<s> $A"."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([BOS, EOS])
    ids = [(token, tokenizer.token_to_id(token)) for token in (BOS, EOS)]
    tokenizer.post_processor = processors.TemplateProcessing(single=around, special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, chat_template=chat_template
    )


def prompt(tokenizer, problem="1+1=?", **options):
    """What the model sees, as text with its special tokens."""
    return tokenizer.decode(prompts.encode_prompt(tokenizer, problem, **options))


PLAIN = "Question: 1+1=?\nAnswer:"


@pytest.mark.parametrize(
    ("around", "expected"),
    [("$A", PLAIN), ("<s> $A", BOS + PLAIN), ("$A </s>", PLAIN), ("<s> $A </s>", BOS + PLAIN)],
)
def test_T1_plain_text_has_the_bos_that_the_tokenizer_wants_and_no_eos(around, expected):
    assert prompt(make_tokenizer(around)) == expected
    assert prompt(make_tokenizer(around), template="Question: {problem}\nAnswer:") == expected


@pytest.mark.parametrize("around", ["$A", "<s> $A", "$A </s>", "<s> $A </s>"])
def test_T1_a_chat_template_that_spells_the_bos_gets_no_second_one(around):
    tokenizer = make_tokenizer(around, "{{ bos_token }}" + CHATML)
    assert prompt(tokenizer) == "<s><|user|>1+1=?<|assistant|>"
    assert prompt(make_tokenizer(around, CHATML)) == "<|user|>1+1=?<|assistant|>"  # as transformers itself does it


@pytest.mark.parametrize("around", ["$A", "<s> $A", "<s> $A </s>"])
def test_T1_a_template_of_the_users_that_spells_the_bos_gets_no_second_one(around):
    assert prompt(make_tokenizer(around), template="<s>{problem}</s>A:") == "<s>1+1=?</s>A:"


def test_T1_an_eos_that_the_template_ends_in_is_the_users_and_stays():
    assert prompt(make_tokenizer("<s> $A </s>"), template="{problem}</s>") == "<s>1+1=?</s>"


def test_text_that_its_special_tokens_change_is_taken_without_them():
    class Odd:
        chat_template, bos_token_id = None, 1

        def encode(self, _text, add_special_tokens=True):
            return [1, 7, 8] if add_special_tokens else [5, 6]

    assert prompts.encode_prompt(Odd(), "p") == [5, 6]


def test_T3_a_chat_template_is_opened_for_the_assistant_and_agrees_with_transformers():
    tokenizer = make_tokenizer("<s> $A", "{{ bos_token }}" + CHATML)
    chat = [{"role": "system", "content": "be good"}, {"role": "user", "content": "1+1=?"}]
    expected = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    assert prompts.encode_prompt(tokenizer, "1+1=?", system="be good") == expected


def test_the_system_message_is_there_only_if_it_says_something():
    tokenizer = make_tokenizer(chat_template=CHATML)
    assert prompt(tokenizer, system="be good") == "<|system|>be good<|user|>1+1=?<|assistant|>"
    assert prompt(tokenizer, system="") == "<|user|>1+1=?<|assistant|>"
    assert prompt(make_tokenizer(), system="be good") == "be good\n\n" + PLAIN


@pytest.mark.parametrize("chat_template", [REFUSES, IGNORES])
def test_a_chat_template_without_system_messages_gets_it_in_front_of_the_users_text(chat_template):
    tokenizer = make_tokenizer(chat_template=chat_template)
    assert prompt(tokenizer, system="be good") == "<|user|>be good\n\n1+1=?<|assistant|>"
    assert prompt(tokenizer) == "<|user|>1+1=?<|assistant|>"


def test_a_chat_template_that_fails_is_one_line():
    for system in ("", "be good"):
        with pytest.raises(ValueError, match=r"the model's chat template fails \(all is lost\)") as caught:
            prompt(make_tokenizer(chat_template=BROKEN_TEMPLATE), system=system)
        one_line(caught)
    with pytest.raises(ValueError, match="chat template fails"):
        prompt(make_tokenizer(chat_template="{% for"))


TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def test_earlier_turns_reach_the_chat_template():
    tokenizer = make_tokenizer(chat_template=CHATML)
    assert prompt(tokenizer, turns=TURNS) == "<|user|>a<|assistant|>b<|user|>1+1=?<|assistant|>"
    assert prompt(tokenizer, system="S", turns=TURNS).startswith("<|system|>S<|user|>a<|assistant|>b<|user|>1+1=?")
    for chat_template in (REFUSES, IGNORES):
        text = prompt(make_tokenizer(chat_template=chat_template), system="S", turns=TURNS)
        assert text == "<|user|>S\n\na<|assistant|>b<|user|>1+1=?<|assistant|>"
    for options in ({}, {"template": "{problem}"}):
        with pytest.raises(ValueError, match="earlier turns need a chat template"):
            prompt(make_tokenizer(), turns=TURNS, **options)


THINKS = "{% if enable_thinking is defined and not enable_thinking %}no {% endif %}{{ messages[0].content }}"


def test_arguments_of_the_chat_template():
    assert prompt(make_tokenizer(chat_template=THINKS)) == "1+1=?"
    assert prompt(make_tokenizer(chat_template=THINKS), template_args={"enable_thinking": False}) == "no 1+1=?"
    tokenizer, given = make_tokenizer(chat_template=THINKS), {"enable_thinking": False}
    assert prompts.template_arguments(tokenizer, None, given) == given
    assert prompts.template_arguments(tokenizer, None, None) == {}
    for wrong in (
        (tokenizer, None, {"thinking": False}),
        (tokenizer, "{problem}", given),
        (make_tokenizer(), None, given),
    ):
        with pytest.raises(ValueError, match="thinking: not in the chat template") as caught:
            prompts.template_arguments(*wrong)
        one_line(caught)


def test_a_chat_template_that_asks_for_the_time_gets_one_day_for_the_whole_run():
    tokenizer = make_tokenizer(chat_template="{{ strftime_now('%d %b %Y') }}|" + CHATML)
    arguments = prompts.template_arguments(tokenizer, None, None)
    assert arguments == {"strftime_now": str(date.today())}
    arguments = prompts.template_arguments(tokenizer, None, {"strftime_now": "2024-07-26"})  # a resumed run's
    assert prompt(tokenizer, template_args=arguments) == "26 Jul 2024|<|user|>1+1=?<|assistant|>"
    with pytest.raises(ValueError, match="chat template fails"):
        prompt(tokenizer, template_args={"strftime_now": "yesterday"})


def test_the_suffix_follows_the_problem_everywhere():
    assert prompt(make_tokenizer(), suffix="!") == "Question: 1+1=?!\nAnswer:"
    assert prompt(make_tokenizer(), suffix="!", template="{problem}") == "1+1=?!"
    assert prompt(make_tokenizer(chat_template=CHATML), suffix="!") == "<|user|>1+1=?!<|assistant|>"


def test_a_template_goes_before_the_chat_template_and_its_braces_are_literal():
    tokenizer = make_tokenizer(chat_template=CHATML)
    problem = "Is \\frac{1}{2} {system} {problem} {0} {} \\1 %s?"
    text = prompt(tokenizer, problem, system="S {problem}", template="{system}|{problem}|{x}{{}}{problem}")
    assert text == f"S {{problem}}|{problem}|{{x}}{{{{}}}}{problem}"
    assert prompt(tokenizer, system="", template="{system}|{problem}") == "|1+1=?"


def test_a_system_prompt_that_the_template_has_no_place_for_is_an_error():
    with pytest.raises(ValueError, match=r"\{system\}.*--system-prompt none") as caught:
        prompt(make_tokenizer(), system="be good", template="{problem}")
    one_line(caught)


def test_load_template(tmp_path):
    path = tmp_path / "template.txt"
    path.write_text("Q: {problem} {{é}}\nA:\n", encoding="utf-8")
    assert prompts.load_template(path) == "Q: {problem} {{é}}\nA:"  # the editor's newline is no part of the prompt
    path.write_text("{problem}\n\n")
    assert prompts.load_template(str(path)) == "{problem}\n"
    path.write_text("Q: { problem } {Problem}")
    with pytest.raises(ValueError, match=r"no \{problem\}") as caught:
        prompts.load_template(path)
    assert str(path) in one_line(caught)
    path.write_bytes(b"\xff{problem}")
    for wrong in (path, tmp_path / "absent.txt", tmp_path):
        with pytest.raises(ValueError) as caught:
            prompts.load_template(wrong)
        assert one_line(caught).startswith(f"{wrong}: not a template")


def test_system_prompts_by_name_and_by_text():
    assert prompts.system_prompt("none") == ("", "")
    assert prompts.system_prompt("You are kind.") == ("You are kind.", "")
    assert prompts.system_prompt("") == ("", "")
    for name, pair in prompts.SYSTEM_PROMPTS.items():
        assert prompts.system_prompt(name) == pair
    for text in ("请逐步推理，并把最终答案放在\\boxed{}中。", "/no_think", "Думай.", "Think!"):
        assert prompts.system_prompt(text) == (text, "")
    with pytest.raises(ValueError) as caught:
        prompts.system_prompt("qwen-8b")
    assert all(name in one_line(caught) for name in ("'qwen-8b'", *prompts.SYSTEM_PROMPTS))


def test_the_prompts_of_paper_and_released_recipes_are_theirs_to_the_letter():
    ask = "Please reason step by step, and put your final answer within \\boxed{}."
    # paper B.3, "System Prompt for Qwen 7B Reasoning", in the model's own format
    turn = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    opened = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    chatml = make_tokenizer(chat_template="{% for m in messages %}" + turn + "{% endfor %}" + opened)
    system, suffix = prompts.system_prompt("qwen-7b")
    assert prompt(chatml, "Kelly can read?", system=system, suffix=suffix) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        f"<|im_start|>user\nKelly can read?\n{ask}<|im_end|>\n<|im_start|>assistant\n"
    )
    # paper B.3, "System Prompt for Reasoning for 1.5B Model", without the backticks around the tags; then the recipes
    for name, text in {"1.5b": PAPER_15B, "open-rs": OPEN_RS, "math-lighteval": LIGHTEVAL + TAGS}.items():
        assert prompts.system_prompt(name) == (" ".join(text.split()), "")
    assert prompts.system_prompt("math-lighteval-boxed") == (" ".join((LIGHTEVAL + ask).split()), "")


PAPER_15B = """
A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant first
thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning process and
answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process
here </think><answer> answer here </answer>
"""
OPEN_RS = """
A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant first
thinks about the reasoning process in the mind and then provides the user with the answer, and put your final answer
within \\boxed{{}} . The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags,
respectively, i.e., <think> reasoning process here </think> <answer> answer here </answer>. Note that respond by
English, NOT use other languages.
"""
LIGHTEVAL = """
You are a helpful AI Assistant, designed to provided well-reasoned and detailed responses. You FIRST think about the
reasoning process as an internal monologue and then provide the user with the answer.
"""
TAGS = "The reasoning process MUST BE enclosed within <think> and </think> tags."


def test_the_prompts_of_pictures_are_those_of_the_released_code():
    asked = "Output the thinking process in <think> </think> and "
    assert prompts.system_prompt("geoqa") == ("", f"  {asked}final answer (number) in <answer> </answer> tags.")
    box = 'your grouding box. Following "<think> thinking process </think>\n<answer>(x1,y1),(x2,y2)</answer>)" format.'
    assert prompts.system_prompt("lisa") == ("", f" {asked}{box}")
    sat = prompts.load_template("sat")
    assert sat.startswith(
        "<image>A conversation between User and Assistant. The user asks a question about the image, "
    )
    assert sat.endswith("with the answer.\nUser: {problem} \nAssistant: Let me solve this step by step.\n<think>")
    assert prompts.load_template("none") is None
