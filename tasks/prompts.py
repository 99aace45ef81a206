"""How a problem becomes the token ids that the model sees."""

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

CONVERSATION = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer"
)
MONOLOGUE = (
    "You are a helpful AI Assistant, designed to provided well-reasoned and detailed responses. You FIRST think about "
    "the reasoning process as an internal monologue and then provide the user with the answer. "
)
THINK = "Output the thinking process in <think> </think> and "
IN_A_BOX = "Please reason step by step, and put your final answer within \\boxed{}."

# What chat templates put between turns: where a turn begins, with its role; any of it
TURN = r"(?:<\|im_start\|>|<start_of_turn>|<\|start_header_id\|>|<[|｜])(system|user|human|assistant|model)"
TURN = re.compile(TURN + r"(?:<\|end_header_id\|>|[|｜]>|(?=\n))", re.IGNORECASE)
MARKER = r"im_(?:start|end)|(?:start|end)_header_id|eot_id|end|endoftext|begin_of_text|user|assistant|system"
MARKER = re.compile(rf"<\|(?:{MARKER})\|>|<｜[^｜\n]{{1,30}}｜>|<(?:start|end)_of_turn>|\[/?INST\]|<</?SYS>>")
CLOCK = re.compile(r"""\bstrftime_now\(\s*(["'])(.*?)\1\s*\)""")  # where a chat template asks for the time

# Name -> (system message, suffix: what follows the problem in the user's message).
SYSTEM_PROMPTS: dict[str, tuple[str, str]] = {
    "none": ("", ""),
    # paper B.3, Qwen 7B: the example without its chat markers; "\boxed{}" was lost in the paper's typesetting
    "qwen-7b": ("You are a helpful assistant.", "\n" + IN_A_BOX),
    # paper B.3, 1.5B
    "1.5b": (
        CONVERSATION + ". The reasoning process and answer are enclosed within <think> </think> and <answer> </answer> "
        "tags, respectively, i.e., <think> reasoning process here </think><answer> answer here </answer>",
        "",
    ),
    # released code, open-rs/recipes/gpg.yaml, used for the 1.5B runs; the doubled braces are in the recipe
    "open-rs": (
        CONVERSATION + ", and put your final answer within \\boxed{{}} . The reasoning process and answer are enclosed "
        "within <think> </think> and <answer> </answer> tags, respectively, i.e., <think> reasoning process here "
        "</think> <answer> answer here </answer>. Note that respond by English, NOT use other languages.",
        "",
    ),
    # released code, open-r1/recipes: MATH-lighteval, 7B; and config_simple_rl_gpg.yaml, which asks for a box instead
    "math-lighteval": (MONOLOGUE + "The reasoning process MUST BE enclosed within <think> and </think> tags.", ""),
    "math-lighteval-boxed": (MONOLOGUE + IN_A_BOX, ""),
    # released code, R1-V and Visual-RFT, with its spelling
    "geoqa": ("", f"  {THINK}final answer (number) in <answer> </answer> tags."),
    "lisa": (
        "",
        f' {THINK}your grouding box. Following "<think> thinking process </think>\n<answer>(x1,y1),(x2,y2)</answer>)" '
        "format.",
    ),
}

TEMPLATES: dict[str, str | None] = {
    "none": None,
    # released code, VisualThinker: a base model, trained on SAT and evaluated on CV-Bench, with the picture in front
    "sat": "<image>A conversation between User and Assistant. The user asks a question about the image, and the "
    "Assistant solves it. The assistant first thinks about the reasoning process in the mind and then provides the "
    "user with the answer.\nUser: {problem} \nAssistant: Let me solve this step by step.\n<think>",
}


def system_prompt(name_or_text: str) -> tuple[str, str]:
    """A name in SYSTEM_PROMPTS, or else the system message itself -> (system, suffix) for encode_prompt.
    ValueError: a word such as names are that is none."""
    if name_or_text in SYSTEM_PROMPTS:
        return SYSTEM_PROMPTS[name_or_text]
    if re.fullmatch(r"[a-z0-9.-]+", name_or_text):
        names = ", ".join(SYSTEM_PROMPTS)
        raise ValueError(f"no system prompt {name_or_text!r}; there are {names}; or write a text of several words")
    return name_or_text, ""


def load_template(path: str | Path | None) -> str | None:
    """A name in TEMPLATES, or else a file: a text with {problem} and, optionally, {system} and, for models that read
    pictures, <image>; other braces have no meaning. One newline at its end is the editor's and is dropped. None stays
    None. ValueError: no such file, or no {problem}."""
    if path is None or path in TEMPLATES:
        return TEMPLATES.get(path)
    try:
        template = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a template, a text file with {{problem}} in it ({error})") from None
    if "{problem}" not in template:
        raise ValueError(f"{path}: no {{problem}} in the template; it marks where the problem goes")
    return template.removesuffix("\n")


def template_arguments(tokenizer, template: str | None, given: dict | None) -> dict:
    """What the chat template is called with: what is given, and, if it asks for the time, the day, to stay the same.
    ValueError: a name that is not in the template."""
    chat_template = str(tokenizer.chat_template) if template is None else ""
    for name in given or {}:
        if not re.search(rf"\b{re.escape(name)}\b", chat_template):
            raise ValueError(f"--template-args {name}: not in the chat template, if one is used at all; leave it out")
    return ({"strftime_now": str(date.today())} if "strftime_now" in chat_template else {}) | (given or {})


def encode_prompt(
    tokenizer, problem: str, *, system="", suffix="", template: str | None = None, turns=(), template_args=None
) -> list[int]:
    """The prompt's token ids. The user's message is problem + suffix. turns: {"role", "content"} of those before it.

    Formatted by the template, if given; else by the tokenizer's chat template, up to the assistant's turn; else as
    plain text: system, an empty line, "Question: ...", "Answer:". A chat template contains its special tokens; other
    text gets those that the tokenizer puts in front, but none at its end and no second BOS.
    ValueError: a chat template that fails; a system message or earlier turns that the template has no place for."""
    user = problem + suffix
    if template is None and tokenizer.chat_template:
        text = chat_text(tokenizer, user, system, turns, template_args)
        return tokenizer.encode(text, add_special_tokens=False)
    return encode_text(tokenizer, plain_text(user, system, template, turns))


def plain_text(user: str, system: str, template: str | None, turns: Sequence[dict] = ()) -> str:
    """System and user message in the user's own template, or in the plain one. ValueError: as encode_prompt."""
    if turns:
        raise ValueError("earlier turns need a chat template, and none is used")
    if template is None:
        template = "{system}\n\nQuestion: {problem}\nAnswer:" if system else "Question: {problem}\nAnswer:"
    if system and "{system}" not in template:
        raise ValueError("the template has no {system} for the system prompt; add it, or use --system-prompt none")
    # in one pass, and not with str.format: problems contain braces
    return re.sub(r"\{(problem|system)\}", lambda hole: user if hole[1] == "problem" else system, template)


def encode_text(tokenizer, text: str) -> list[int]:
    """Token ids with what the tokenizer puts in front, but no second BOS, and no EOS: the answer is still to come."""
    bare = tokenizer.encode(text, add_special_tokens=False)
    if bare[:1] == [tokenizer.bos_token_id]:  # the text contains it
        return bare
    ids = tokenizer.encode(text)
    start = next((i for i in range(len(ids)) if ids[i : i + len(bare)] == bare), 0)
    return ids[:start] + bare


def chat_text(tokenizer, user: str, system: str, turns: Sequence[dict] = (), template_args=None, content=str) -> str:
    """System message, earlier turns and user message in the chat template, up to the assistant's turn. A template that
    refuses or ignores system messages gets the text at the start of the first message. content: makes a message's
    content of its text. ValueError: the template fails."""
    messages = [*turns, {"role": "user", "content": user}]

    def render(messages: list[dict]) -> str:
        chat = [message | {"content": content(message["content"])} for message in messages]
        try:
            options = {"tokenize": False, "add_generation_prompt": True} | (template_args or {})
            if "strftime_now" in options:
                day = date.fromisoformat(options.pop("strftime_now"))
                template = tokenizer.get_chat_template()
                options["chat_template"] = CLOCK.sub(lambda call: repr(day.strftime(call[2])), template)
            return tokenizer.apply_chat_template(chat, **options)
        except Exception as error:  # a class of jinja, or what Python's own types raise inside a template
            raise ValueError(f"the model's chat template fails ({' '.join(str(error).split())})") from None

    if not system.strip():
        return render(messages)
    try:
        text = render([{"role": "system", "content": system}, *messages])
    except ValueError:  # a broken template fails again below
        text = ""
    first = messages[0] | {"content": f"{system}\n\n{messages[0]['content']}"}
    return text if system.strip() in text else render([first, *messages[1:]])
