"""The built-in sums with completions of different lengths: what demonstrations are, and that they fit the flags."""

import random

from rewards import accuracy
from tasks import addition, lengths
from tasks.built_in import DEFAULTS


def test_demonstrations_differ_fourfold_in_length_whether_right_or_wrong():
    tokenizer, rng = addition.make_tokenizer(), random.Random(0)
    sizes = {True: [], False: []}
    for row in lengths.problems("train")[:1000]:
        text = lengths.demonstration(row["problem"], rng)
        answer, dots = text.rstrip("."), len(text) - len(text.rstrip("."))
        assert answer.endswith("}") and dots <= lengths.RAMBLE
        tokens = len(tokenizer.encode(text)) + 1  # and EOS
        sizes[accuracy(text, row["answer"]) == 1].append((tokens, dots))
        assert tokens <= DEFAULTS["tiny-lengths"]["max_new_tokens"]
    every = [tokens for part in sizes.values() for tokens, _ in part]
    assert max(every) > 3.5 * min(every)
    for part in sizes.values():  # uniform from 0 to 40: a mean of 20, with an error of 11.8 / sqrt(200) = 0.8 at most
        assert len(part) > 200 and abs(sum(dots for _, dots in part) / len(part) - lengths.RAMBLE / 2) < 4


def test_kinds_are_sizes_and_splits_share_no_sum():
    train, test = (lengths.problems(split) for split in ("train", "test"))
    assert {row["kind"] for row in train} == {row["kind"] for row in test} == {"2 digits", "3 digits", "4 digits"}
    pairs = [{frozenset(row["problem"].removesuffix("=?").split("+")) for row in rows} for rows in (train, test)]
    assert not pairs[0] & pairs[1]
    assert all(int(row["answer"]) == sum(map(int, row["problem"][:-2].split("+"))) for row in test)
