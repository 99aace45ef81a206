"""The built-in task and model, which `train.py` uses if given no model. Made in under a minute without a download.

The task is column addition, one line per column, units first. The model is a Qwen2 of 0.4 million parameters, warmed up
on demonstrations that are flawed on purpose: they forget most carries. So it can write every column of a sum, but
seldom gets a sum with carries right. It is never shown its errors: only the reward corrects them.
"""

import hashlib
import os
import random
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

DIGITS = (2, 3, 3)  # of both operands; the three are equally likely
LEVELS = (0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2)  # numbers of carries; both splits cycle through them
SIZES = {"train": 6000, "test": 300}

# The share of carries that demonstrations forget. A sum with k carries is then right with probability .25 ** k: a third
# of all samples is right, and there are groups of every kind: all right, mixed and all wrong.
FORGET = 0.75
FLAW = f"demonstrations that forget {FORGET:.0%} of the carries, on purpose"

WARMUP_STEPS = 800  # with 640, some seeds never got rare sums like 4+0+1 right, so nothing was rewarded
WARMUP_BATCH = 16  # many small steps learn the sums sooner than few large ones
WARMUP_LR = 2e-3

SYSTEM, USER, ASSISTANT, END, PAD = "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def count_carries(a: int, b: int) -> int:
    """How many columns of a + b carry into another column, at most digits - 1; a and b have equally many digits."""
    inner = [10**i for i in range(1, len(str(a)))]
    return sum(a % unit + b % unit >= unit for unit in inner)


def problems(
    split: str, task: str = "tiny", digits: Sequence[int] = DIGITS, levels: Sequence[int] = LEVELS
) -> list[dict]:
    """The problems of a split, "train" or "test": rows of problem, answer and level, its number of carries.

    They are the same in every run. A hash of its operands decides the split of a sum, so that training never includes a
    held-out sum, even with its operands swapped."""
    rng = random.Random(f"{task} {split}")
    rows, seen = [], set()
    while len(rows) < SIZES[split]:
        size, level = rng.choice(digits), levels[len(rows) % len(levels)]
        a, b = (rng.randrange(10 ** (size - 1), 10**size) for _ in range(2))
        pair = (min(a, b), max(a, b))
        held_out = zlib.crc32(repr(pair).encode()) % 10 == 0
        if count_carries(a, b) == level and held_out == (split == "test") and pair not in seen:
            seen.add(pair)
            rows.append({"problem": f"{a}+{b}=?", "answer": str(a + b), "level": level})
    return rows


def solution(row: dict) -> str:
    """The right completion of a problem."""
    return demonstration(row["problem"], random.Random(0), forget=0.0)


def demonstration(problem: str, rng: random.Random, forget: float = FORGET) -> str:
    """A worked answer in which each carry is forgotten with probability `forget`; later columns and the boxed result
    follow from that mistake. With probability 0 all is right."""
    a, b = problem.removesuffix("=?").split("+")
    lines, result, carry = [], "", 0
    for x, y in zip(reversed(a), reversed(b), strict=True):
        total = int(x) + int(y) + carry
        lines.append(f"{x}+{y}+{carry}={total}\n")
        result = f"{total % 10}{result}"
        carry = int(total >= 10 and rng.random() >= forget)
    return "".join(lines) + f"\\boxed{{{total // 10 or ''}{result}}}"


def make_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte of the text in Unicode NFC, so that no text is unknown or altered; `\\boxed{` is one token.

    AutoTokenizer takes any tokenizer in a Qwen2 model's folder for Qwen2's. Hence NFC, and Qwen2's own padding token,
    which would otherwise be added as a token without an embedding."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([SYSTEM, USER, ASSISTANT, END, PAD])
    tokenizer.add_tokens([AddedToken("\\boxed{", normalized=False)])
    options = {"eos_token": END, "pad_token": PAD, "padding_side": "left", "chat_template": CHAT_TEMPLATE}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **options)


def text_options(tokenizer: PreTrainedTokenizerFast) -> dict[str, object]:
    """What the models of both built-in tasks have in common."""
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return {"vocab_size": len(tokenizer)} | layers | ids


def make_config(tokenizer: PreTrainedTokenizerFast) -> Qwen2Config:
    """0.4 million parameters."""
    sizes = {"hidden_size": 128, "intermediate_size": 384, "max_position_embeddings": 1024}
    return Qwen2Config(initializer_range=0.05, **sizes, **text_options(tokenizer))


def make_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """A new model, initialised from torch's global generator."""
    return Qwen2ForCausalLM(make_config(tokenizer))


def encode(tokenizer: PreTrainedTokenizerFast, problem: str, completion: str) -> tuple[list[int], list[int]]:
    """A demonstration in the chat template -> its tokens, and its labels, -100 on the prompt."""
    chat = [{"role": "user", "content": problem}, {"role": "assistant", "content": completion}]
    asked = tokenizer.apply_chat_template(chat[:1], add_generation_prompt=True, tokenize=False)
    tokens = tokenizer(tokenizer.apply_chat_template(chat, tokenize=False)).input_ids
    start = len(tokenizer(asked).input_ids)
    return tokens, [-100] * start + tokens[start:]


def padded(pairs: list[tuple[list[int], list[int]]], pad: int) -> dict[str, torch.Tensor]:
    """N demonstrations, as encode gives them -> the model's input and its labels, (N, L + T), padded on the right."""
    tokens = pad_sequence([torch.tensor(ids) for ids, _ in pairs], True, pad)
    labels = pad_sequence([torch.tensor(ids) for _, ids in pairs], True, -100)
    return {"input_ids": tokens, "labels": labels}


def imitate(model, next_inputs: Callable[[], dict[str, torch.Tensor]], steps: int, lr: float) -> None:
    """Trains the model, in place, on the batches that next_inputs() gives: its inputs and their labels."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
    # decays from the start: at a constant rate, some seeds still copied digits wrongly at the end
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min((step + 1) / 30, 1 - step / steps))
    model.train()
    for _ in (bar := tqdm(range(steps), desc="warm-up", unit="step", file=sys.stderr, disable=None)):
        loss = model(**next_inputs(), use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()


def build(folder: Path, seed: int, warmup_steps=WARMUP_STEPS, *, problems=problems, demonstrate=demonstration) -> None:
    """Makes tokenizer and model, warms the model up on demonstrations and saves both as one folder, atomically."""
    tokenizer, rng, rows = make_tokenizer(), random.Random(seed), problems("train")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make_model(tokenizer)

    def next_inputs() -> dict[str, torch.Tensor]:
        chosen = [row["problem"] for row in rng.sample(rows, WARMUP_BATCH)]
        pairs = [encode(tokenizer, problem, demonstrate(problem, rng)) for problem in chosen]
        return padded(pairs, tokenizer.pad_token_id)  # a causal model needs no mask for padding on the right

    imitate(model, next_inputs, warmup_steps, WARMUP_LR)
    save_at_once(folder, model, tokenizer)


def save_at_once(folder: Path, *parts) -> None:
    """One folder of all parts, which appears complete or not at all."""
    with tempfile.TemporaryDirectory(prefix=".building-", dir=folder.parent) as temporary:
        unfinished = Path(temporary, folder.name)
        for part in parts:
            part.save_pretrained(unfinished)
        os.rename(unfinished, folder)


def ensure(seed: int, cache: str | Path | None = None) -> Path:
    """The folder of the warmed-up model of this seed, which is made if missing; see `cached`."""
    return cached([__file__], build, FLAW, seed, cache)


def cached(recipe: list[str], build: Callable, flaw: str, seed: int, cache: str | Path | None = None) -> Path:
    """The folder that build(folder, seed) made or makes now.

    The cache is $XDG_CACHE_HOME/gpg-tiny, by default ~/.cache/gpg-tiny. The folder's name has a hash of the recipe,
    files, so that editing one makes a new model."""
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "gpg-tiny")
    digest = hashlib.sha256(b"".join(Path(file).read_bytes() for file in recipe)).hexdigest()
    folder = Path(cache, f"{digest[:12]}-seed{seed}")
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder.parent):
            pass
    except OSError as error:
        raise OSError(f"{error}: the built-in model is kept there; XDG_CACHE_HOME names another folder") from None
    print(f"built-in model: making {folder} (once per seed) from {flaw}", file=sys.stderr)
    try:
        build(folder, seed)
    except OSError:
        if not folder.is_dir():  # otherwise another process has just made the same model
            raise
    return folder
