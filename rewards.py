"""Verifiers: text in, number out.

One completion goes through `extract_answer`, `is_equiv`, `accuracy`; a batch through `parse_rewards`, `score`. All text
was written by a model: none is ever evaluated or given to a parser but ours, all work is bounded before it is done,
and there is no clock, signal or state, so that any thread may call it.
"""

import importlib.util
import math
import operator
import re
import sys
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow, Underflow, localcontext
from fractions import Fraction
from itertools import accumulate
from pathlib import Path

# All far above any gold answer seen in the usual benchmarks (204 characters, 8 digits, nesting 4).
MAX_COMPLETION = 20_000  # characters read, from the end
MAX_EXPRESSION = 500  # characters
MAX_NESTING = 30
MAX_MEMBERS = 50  # of a list or tuple
MAX_DIGITS = 100  # of one literal
MAX_BITS = 20_000  # of one exact number

# ---------------------------------------------------------------- the answer of a completion

_COMMENT = re.compile(r"^[ \t]*%.*$", re.MULTILINE)
_BRACE_OR_BOX = re.compile(r"\\[{}]|[{}]|\\(?:boxed|fbox)\s*\{")
_BOX_SEPARATOR = re.compile(r"(?:[\s,;$]|\\[()]|\\q?quad|\\text\{ ?(?:and|or) ?\}|(?:and|or)\b)*")
_ANSWER_MARK = re.compile(r"####|answer[*_ ]*(?:is\b|:)[:*\s]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.\s|\.?$|\n", re.MULTILINE)


def extract_answer(completion: str) -> str | None:
    """The answer that a completion submits, as it is written there, or None.

    Only what follows the last `</think>` counts (an unclosed `<think>` has no answer), and of that the inside of the
    last `<answer>…</answer>`, if there is one. There: the last `\\boxed{}` or `\\fbox{}`; boxes joined by nothing but
    separators are one list; an empty or unclosed last box is no answer. Without a box: the last of `#### x`, `the
    answer is x`, `Answer: x` (bold or not), up to the end of the line or sentence; else the whole answer block. The
    last number is never guessed at: that would pay for truncated text.
    """
    thought_end = completion.rfind("</think>")
    if completion.find("<think>", max(thought_end, 0)) >= 0:
        return None
    text = completion[thought_end + len("</think>") :] if thought_end >= 0 else completion

    block_end = text.rfind("</answer>")
    block_start = text.rfind("<answer>", 0, max(block_end, 0))
    in_block = block_start >= 0
    if in_block:
        text = text[block_start + len("<answer>") : block_end]

    text = _COMMENT.sub("", text[-MAX_COMPLETION:])
    boxes, unclosed = _boxes(text)
    if boxes or unclosed:
        return None if unclosed else _last_boxes(text, boxes)

    marks = list(_ANSWER_MARK.finditer(text))
    if marks:
        start = marks[-1].end()
        text = text[start:].lstrip()
        text = text[: _SENTENCE_END.search(text).start()]
    elif not in_block:
        return None
    return text.strip("* \t\r\n") or None


def _boxes(text):
    """The outermost complete boxes as (start, start and end of the inside), and whether a later one is not closed."""
    opened, boxes = [], []
    for mark in _BRACE_OR_BOX.finditer(text):
        token = mark[0]
        if token == "{" or token[1:2] in ("b", "f"):
            opened.append((mark.start(), mark.end(), token != "{"))
        elif token == "}" and opened:
            start, inside, is_box = opened.pop()
            while is_box and boxes and boxes[-1][0] > start:  # it was within this one
                boxes.pop()
            if is_box:
                boxes.append((start, inside, mark.start()))
    last = boxes[-1][0] if boxes else -1
    return boxes, any(is_box and start > last for start, _, is_box in opened)


def _last_boxes(text, boxes):
    """The inside of the last box, or of all the boxes at the end that only separators join, as one list."""
    first = len(boxes) - 1
    while first > 0 and _BOX_SEPARATOR.fullmatch(text, boxes[first - 1][2] + 1, boxes[first][0]):
        first -= 1
    insides = [text[inside:end].strip() for _, inside, end in boxes[first:]]
    return ", ".join(dict.fromkeys(insides)) if insides[-1] else None  # the same box said twice is one answer


# ---------------------------------------------------------------- equality of two expressions

_CHARACTERS = str.maketrans(
    dict(zip('−×·÷~"\u00a0', "-**/   ", strict=True))
    | {"π": r"\pi ", "∞": r"\infty ", "°": r"^\circ ", "√": r"\sqrt ", "±": r"\pm "}
    | {"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne "}
)
_COMMANDS = (
    dict.fromkeys(("dfrac", "tfrac", "cfrac"), r"\frac")
    | dict.fromkeys(("left", "right", "displaystyle", "boxed", "fbox", "mathbf"), "")
    | {"cdot": "*", "times": "*", "div": "/", "langle": "(", "rangle": ")", "quad": " ", "qquad": " "}
    | {"leq": r"\le", "leqslant": r"\le", "geq": r"\ge", "geqslant": r"\ge", "neq": r"\ne", "lt": "<", "gt": ">"}
    | {"degree": r"^\circ ", "varnothing": r"\emptyset"}
)
_SUBSTITUTIONS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\{,\}|,\\! *", ","),  # a comma of thousands, as LaTeX spaces it
        (r"(?<=[0-9])\\,(?=[0-9]{3})", ""),
        (r"(?<!\\)\\[,!;: ]", " "),
        (r"(?<!\\)\$|(?<!\\)\\[()\[\]]", " "),  # math delimiters, but not the \$ of money, nor \\[2pt] in a matrix
        (r"\\([{}%])", r"\1"),
        # from here on, a quotation mark says: words, not letters
        (r"\\(?:text[a-z]*|mbox|mathrm) *\{([^{}]*)\}", r'"\1"'),
        (r"\^ *(?:\{ *\\circ *\}|\\circ(?![a-z]))", '"degrees"'),
        (r"(?<![a-zA-Z])(?:percent|pct)(?![a-zA-Z])", "%"),
        (r"(?<![\\a-zA-Z])(?:and|or)(?![a-zA-Z])", ","),
        (r"(?<![\\a-z])sqrt", r"\\sqrt"),
        (r"\\sqrt +([0-9]+)", r"\\sqrt{\1}"),
        (r"([0-9]) +([0-9]+)/([0-9]+)", r"\1\\frac{\2}{\3}"),  # 1 3/4
        (r">=", r"\\ge"),
        (r"<=", r"\\le"),
        (r"\+ *\\infty", r"\\infty"),
    )
]
_THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_NAME = re.compile(r"[a-zA-Z](?:_[a-zA-Z0-9]|_\{[a-zA-Z0-9]+\})?(?:\([a-zA-Z]\))?|\\[a-z]+")
_NAMED = re.compile(r"([^=]*?)(=|\\in(?![a-z]))([^=]*)")
_UNIT_START = re.compile(r'"|(?<![\\a-zA-Z])[a-zA-Z]{3,}')  # shorter plain words are products of letters
_UNIT = re.compile(r'["a-zA-Z /.]*(?:\^\{?-?[0-9]\}?)?')
_MULTIPLIERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NOT_A_UNIT = re.compile(
    r"\b(?:not|point|plus|minus|times|over|mod|modulo|remainder|dozen|squared|cubed|factorial|infinity)\b"
    r"|\b(?:half|halves|thirds?|quarters?)\b"
)


def is_equiv(candidate: str, answer: str) -> bool:
    """Whether two bare expressions are the same answer; `answer` is the gold. The one place that decides equality.

    Equal are: the same text but for spelling (`\\dfrac`, spaces, `1,000`, `x=5` for `5`, a unit that one side leaves
    out); the same number, exactly if rational, else (roots, pi) to 100 digits, relatively; lists in any order, tuples
    and intervals in theirs, member by member. `28\\%` is 28 or 0.28 if the gold has the percent sign; the gold 20 is
    `20\\%`, 0.75 is `75\\%`, but 20 is not 0.2. A decimal does not stand for a fraction or root that it rounds, unless
    it shows 10 or more digits that agree.

    What is not a number (algebra, functions, matrices, relations) is compared as text, and what is over a bound is
    unequal: a wrong "equal" teaches the model, a missed one only slows it. A deeper grader takes the place of `_same`;
    nothing else changes.
    """
    if max(len(candidate), len(answer)) > MAX_EXPRESSION:
        return False
    traps = [InvalidOperation, DivisionByZero, Overflow, Underflow]
    with localcontext(Context(prec=MAX_DIGITS + 20, traps=traps)):  # a context of this thread
        try:
            return _same(_clean(candidate), _clean(answer))
        except RecursionError:  # called from deep within another program; our own depth is bounded
            return False


def _clean(text):
    """One spelling for what is written in several ways. Words are left between quotation marks."""
    text = text.translate(_CHARACTERS)
    text = re.sub(r"\\([a-zA-Z]+)", lambda command: _COMMANDS.get(command[1], command[0]), text)
    for pattern, replacement in _SUBSTITUTIONS:
        text = pattern.sub(replacement, text)
    text = text.strip().rstrip(". \n")
    if not text.startswith(("(", "[", "{")):  # (100,200) is a pair
        text = _THOUSANDS.sub(lambda number: number[0].replace(",", ""), text)
    return text


def _key(text):
    """What equal texts have in common, of a cleaned text. Letters alone have no case: choices and words."""
    text = re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text.replace('"', " "))  # 4 2 is not 42
    text = re.sub(r"\{([0-9a-zA-Z])\}(?![0-9])", r"\1", text)
    return text.lower() if text.isalpha() else text


def _same(candidate, answer, depth=0):
    """Whether two cleaned expressions are equal: as text, as lists or tuples by member, as numbers."""
    if depth > MAX_NESTING:
        return False
    candidate_name, candidate = _named(candidate)
    answer_name, answer = _named(answer)
    if candidate_name and answer_name and candidate_name != answer_name:
        return False
    candidate_brackets, candidates = _members(candidate)
    answer_brackets, answers = _members(answer)
    if len(candidates) != len(answers) or not 0 < len(candidates) <= MAX_MEMBERS:
        return False
    if candidate_brackets != answer_brackets and {candidate_brackets, answer_brackets} != {"", "()"}:
        return False
    if candidate_brackets or answer_brackets:  # a bare list may stand for a tuple, in the same order
        return all(_same(one, other, depth + 1) for one, other in zip(candidates, answers, strict=True))
    if len(answers) > 1:
        return _same_in_any_order(candidates, answers, depth + 1)
    candidate, answer = candidates[0], answers[0]
    key = _key(candidate)
    return (key != "" and key == _key(answer)) or _same_quantity(candidate, answer)


def _same_in_any_order(candidates, answers, depth):
    """Whether each candidate has an answer of its own: greedy, as equality leaves no choice that matters."""
    answers = list(answers)
    for candidate in candidates:
        match = next((i for i, answer in enumerate(answers) if _same(candidate, answer, depth)), None)
        if match is None:
            return False
        del answers[match]
    return True


def _named(text):
    """`x=5`, `5=x`, `x \\in [0,1]` as the name and the rest; no name if anything else is said."""
    sides = _NAMED.fullmatch(text)
    if sides:
        left, relation, right = sides[1].strip('" \n'), sides[2], sides[3].strip('" \n')
        if _NAME.fullmatch(left):
            return _key(left), right
        if relation == "=" and _NAME.fullmatch(right):
            return _key(right), left
    return "", text


def _members(text):
    """A cleaned expression as brackets and members: ("[)", [a, b]), or ("", [...]) for a set, a bare list, a scalar.

    Mere grouping is not a bracket: `(5)`, `{5}`. In a bare list `\\pm` stands for two members.
    """
    text = text.strip('" \n')
    depths = list(accumulate((character in "([{") - (character in ")]}") for character in text))
    if (
        text[:1] in ("(", "[", "{") and 0 in depths and depths.index(0) == len(text) - 1
    ):  # the first bracket closes last
        brackets, members = text[0] + text[-1], _split(text[1:-1], [depth - 1 for depth in depths[1:-1]])
        if brackets == "{}" or (brackets == "()" and len(members) == 1):
            return _members(text[1:-1])
        return brackets, members

    members = []
    for member in _split(text, depths):
        twice = member.count(r"\pm") == 1
        members += [member.replace(r"\pm", sign) for sign in "+-"] if twice else [member]
    return "", members


def _split(text, depths):
    """The parts of a text between its commas at depth 0, without empty ones."""
    commas = [i for i, character in enumerate(text) if character == "," and depths[i] == 0]
    parts = [text[start:end] for start, end in zip([0] + [i + 1 for i in commas], commas + [len(text)], strict=True)]
    return [part for part in parts if part.strip('" \n')]


# ---------------------------------------------------------------- numbers with a unit


def _same_quantity(candidate, answer):
    """Whether two scalars are equal numbers, and of the same unit where both have one."""
    (value, unit), (gold, gold_unit) = _quantity(candidate), _quantity(answer)
    if value is None or gold is None:
        return False
    if unit == gold_unit:
        return _same_number(value, gold, candidate)
    if gold_unit == "%" and not unit:
        return any(_same_number(value, form, candidate) for form in (gold, gold / 100))
    if unit == "%" and not gold_unit:  # 0.5% for the gold 0.5 is not believed: a share below 1 is no percentage
        return _same_number(value / 100, gold) or (abs(gold) >= 1 and _same_number(value, gold))
    return not (unit and gold_unit) and _same_number(value, gold, candidate)


def _same_number(value, gold, written=""):
    """Exact between rationals, else to 100 digits. A decimal, as `written`, may agree with a gold without an end."""
    if isinstance(value, Fraction) and isinstance(gold, Fraction):
        if value == gold:
            return True
        endless = pow(10, gold.denominator.bit_length(), gold.denominator) != 0  # a prime factor other than 2 and 5
    else:
        value, gold = _decimal(value), _decimal(gold)
        if abs(value - gold) <= max(abs(value), abs(gold)).scaleb(-MAX_DIGITS):
            return True
        endless = True
    decimals = re.fullmatch(r"\s*[+-]?([0-9]*)\.([0-9]+)\s*", written)
    if not (endless and decimals and len((decimals[1] + decimals[2]).lstrip("0")) >= 10):
        return False
    return abs(_decimal(value) - _decimal(gold)) < Decimal(1).scaleb(-len(decimals[2]))


def _quantity(text):
    """A cleaned scalar as (number, unit), the number None if it is not one. Words that follow a number are its unit."""
    text = text.strip()
    if text.endswith("%"):
        return _number(text[:-1]), "%"
    unit = "dollar" if r"\$" in text else ""
    text = text.replace(r"\$", "", 1)
    words = _UNIT_START.search(text)
    if not words:
        return _number(text), unit

    tail = text[words.start() :]
    if not _UNIT.fullmatch(tail) or _NOT_A_UNIT.search(tail):
        return None, ""
    named, *rest = tail.replace('"', " ").lower().split() or [""]
    factor = _MULTIPLIERS.get(named, 1)
    number = _number(text[: words.start()])
    if number is not None:
        number *= factor
    return number, unit or " ".join(rest if named in _MULTIPLIERS else [named, *rest]).rstrip("s")


def _number(text):
    """The value of a numeric expression: a Fraction, or a Decimal if roots or pi are in it; None if it is not one."""
    tokens = _TOKEN.findall(text)[::-1]  # the next token is the last of the list
    try:
        value = _sum(tokens, 0)
    except (ArithmeticError, IndexError, ValueError):
        return None
    return None if tokens else value


_TOKEN = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4}(?![0-9]))?|\\[a-zA-Z]+|pi(?![a-z])|\S")
_PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798214808651328230664709384"
)
_DIGITS = frozenset("0123456789.")
_FACTOR_STARTS = ("(", r"\frac", r"\sqrt", r"\pi", "pi")  # what multiplies without a sign


def _sum(tokens, depth):
    """sum = product (("+" | "-") product)*"""
    value = _product(tokens, depth)
    while tokens and tokens[-1] in ("+", "-"):
        apply = operator.add if tokens.pop() == "+" else operator.sub
        value = _exactly(apply, value, _product(tokens, depth))
    return value


def _product(tokens, depth):
    """product = factor (("*" | "/")? factor)*, but not a/bc, which is read both ways"""
    value = _factor(tokens, depth)
    divided = False
    while tokens and (tokens[-1] in ("*", "/") or tokens[-1] in _FACTOR_STARTS):
        sign = tokens.pop() if tokens[-1] in ("*", "/") else ""
        if divided and not sign:
            raise ValueError("a/bc")
        divided = sign == "/"
        value = _exactly(operator.truediv if divided else operator.mul, value, _factor(tokens, depth))
    return value


def _factor(tokens, depth):
    """factor = ("+" | "-") factor | atom ("^" ["-"] argument)?"""
    if depth > MAX_NESTING:
        raise ValueError("nested too deep")
    if tokens[-1] in ("+", "-"):
        return _factor(tokens, depth + 1) if tokens.pop() == "+" else -_factor(tokens, depth + 1)
    base = _atom(tokens, depth + 1)
    if not tokens or tokens[-1] != "^":
        return base
    tokens.pop()
    negative = tokens[-1] == "-" and tokens.pop() == "-"
    plain = tokens[-1][0] in _DIGITS  # 2^10, as typed, is not 2^1 0
    exponent = _literal(tokens.pop()) if plain else _argument(tokens, depth + 1)
    if tokens and tokens[-1] == "^":
        raise ValueError("a^b^c")
    return _power(base, -exponent if negative else exponent)


def _atom(tokens, depth):
    """atom = number | number fraction | "(" sum ")" | "{" sum "}" | \\frac a b | \\sqrt[n] a | \\pi"""
    token = tokens[-1]
    if token[0] in _DIGITS:
        whole = _literal(tokens.pop())
        if not (tokens and tokens[-1] == r"\frac"):
            return whole
        part = _atom(tokens, depth)
        mixed = isinstance(part, Fraction) and whole.denominator == 1
        if mixed and not 0 < part < 1:
            raise ValueError("2 3/2 is neither a mixed number nor clearly a product")
        return _exactly(operator.add if mixed else operator.mul, whole, part)
    if token == r"\frac":
        tokens.pop()
        numerator = _argument(tokens, depth)
        return _exactly(operator.truediv, numerator, _argument(tokens, depth))
    if token == r"\sqrt":
        tokens.pop()
        degree = Fraction(2)
        if tokens[-1] == "[":
            tokens.pop()
            degree = _closed(tokens, depth, "]")
        return _power(_argument(tokens, depth), 1 / degree)
    return _argument(tokens, depth)


def _argument(tokens, depth):
    """What one LaTeX command takes: a group, pi, or one digit (`\\frac12` is 1/2, `\\sqrt13` is sqrt(1) 3)."""
    token = tokens.pop()
    if token in ("(", "{"):
        return _closed(tokens, depth, {"(": ")", "{": "}"}[token])
    if token in (r"\pi", "pi"):
        return _PI
    if token[0] not in "0123456789":
        raise ValueError(f"{token} is not a number")
    if len(token) > 1:
        tokens.append(token[1:])
    return Fraction(int(token[0]))


def _closed(tokens, depth, bracket):
    """A sum and the bracket that ends it."""
    value = _sum(tokens, depth + 1)
    if tokens.pop() != bracket:
        raise ValueError(f"no {bracket}")
    return value


def _literal(token):
    if len(token) > MAX_DIGITS:
        raise ValueError("too many digits")
    return _bounded(Fraction(token))


def _power(base, exponent):
    """base ** exponent, sized before it is made."""
    bits = _bits(base) if isinstance(base, Fraction) else 4 * (abs(base.adjusted()) + 1)
    if bits * abs(exponent) > MAX_BITS:
        raise ValueError("power too large")
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        return base ** int(exponent)
    if base <= 0:
        raise ValueError("the root of a number that is not positive")
    if exponent == Fraction(1, 2):
        return _decimal(base).sqrt()
    return _decimal(base) ** _decimal(exponent)


def _exactly(apply, left, right):
    """apply(left, right), exact while both are rational."""
    if isinstance(left, Fraction) and isinstance(right, Fraction):
        return _bounded(apply(left, right))
    return apply(_decimal(left), _decimal(right))


def _bounded(number):
    if _bits(number) > MAX_BITS:
        raise ValueError("number too large")
    return number


def _bits(fraction):
    return max(fraction.numerator.bit_length(), fraction.denominator.bit_length())


def _decimal(number):
    """A Fraction at the precision of the context; a Decimal as it is."""
    return number if isinstance(number, Decimal) else Decimal(number.numerator) / number.denominator


# ---------------------------------------------------------------- rewards of one completion


def accuracy(completion: str, answer: str) -> float:
    """1.0 if the completion submits the answer, else 0.0.

    `answer` is a bare expression, or a worked solution whose last box, `####` or answer block counts. A gold from
    which nothing can be read, and a completion without an answer, are 0.0, never a gift. Never raises on text.
    """
    worked = any(mark in answer for mark in (r"\boxed", r"\fbox", "####", "</answer>"))
    gold = extract_answer(answer) if worked else answer
    candidate = extract_answer(completion)
    return float(bool(gold) and bool(candidate) and is_equiv(candidate, gold))


def format_reward(completion: str) -> float:
    """1.0 if the whole completion is `<think>…</think>`, then `<answer>…</answer>`, each tag exactly once, else 0.0.

    Whitespace may stand around and between the two. A template may have put the opening `<think>` into the prompt, so a
    completion that begins inside of it, without that tag, is as good. Otherwise than in the released code, text after
    `</answer>` is refused (MULTILINE let `$` match before it), no line breaks are demanded, a final one costs nothing,
    and repeated tags are refused (a lazy `.*?` ran over them).
    """
    thought, thought_end, rest = completion.strip().removeprefix("<think>").partition("</think>")
    rest = rest.strip()
    if not (thought_end and rest.startswith("<answer>") and rest.endswith("</answer>")):
        return 0.0
    inside = thought + rest[len("<answer>") : -len("</answer>")]
    return float(not any(tag in inside for tag in ("<think>", "</think>", "<answer>", "</answer>")))


# ---------------------------------------------------------------- rewards of a batch


def _accuracy_rewards(completions, answer, **_):
    return [accuracy(completion, gold) for completion, gold in zip(completions, answer, strict=True)]


def _format_rewards(completions, **_):
    return [format_reward(completion) for completion in completions]


_BUILT_IN = {"accuracy": _accuracy_rewards, "format": _format_rewards}


def parse_rewards(spec: str) -> list:
    """`accuracy=1.0,format=0.5,path/to/file.py:function=2` as [(name, function, weight)]; a weight left out is 1.

    Every function, built in or the user's, is called as TRL calls its own, by keyword: f(prompts, completions,
    completion_ids, **columns) -> list of numbers, or None where a sample cannot be scored; columns are lists, one entry
    a completion. A user's reward goes by its function's name. A negative weight makes a penalty, 0 only logs.
    ValueError, in one line, for whatever cannot be used.
    """
    rewards = []
    for entry in spec.split(","):
        source, equals, weight = entry.strip().partition("=")
        source = source.strip()
        path, colon, function_name = source.rpartition(":")
        name = function_name if colon else source
        known = f"use {', '.join(_BUILT_IN)} or path/to/file.py:function, with =WEIGHT if not 1"
        if not colon and name not in _BUILT_IN:
            raise ValueError(f"reward {name!r} is unknown: {known}")
        if name in [other for other, _, _ in rewards]:
            raise ValueError(f"reward {name!r} is given twice: name each once; {known}")
        try:
            number = float(weight) if equals else 1.0
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"reward {name!r} has the weight {weight.strip()!r}, not a finite number: {known}")
        rewards.append((name, _load(path, name, known) if colon else _BUILT_IN[name], number))
    return rewards


def _load(path, name, known):
    """The function of that name in the user's Python file."""
    if not Path(path).is_file():
        raise ValueError(f"reward file {path!r} does not exist: {known}")
    module_name = f"rewards_of_{Path(path).stem}"
    module_spec = importlib.util.spec_from_file_location(module_name, path)
    if module_spec is None:
        raise ValueError(f"reward file {path!r} is not a Python file: {known}")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_name] = module  # as the import system does: dataclasses look there
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(f"reward file {path!r} cannot be imported: {_one_line(error)}; {known}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ValueError(f"reward file {path!r} has no function {name!r}: {known}")
    return function


def score(rewards, prompts, completions, completion_ids, columns, *, shown=None) -> dict:
    """What the rewards of `parse_rewards` give to a batch of B completions:

    total    B weighted sums; None where any reward is None: that sample cannot be scored
    by_name  {name: B numbers or None}, without the weights
    errors   how often a reward raised on a sample: that one gets 0 from it, the others what they would have got

    A reward's first error is shown on stderr, and not again if the caller passes the same set as `shown` each time: it
    holds the names that have been. ValueError if a reward returns anything but B finite numbers or None.
    """
    shown = set() if shown is None else shown
    by_name, errors = {}, 0
    for name, function, _ in rewards:
        batch = {**columns, "prompts": prompts, "completions": completions, "completion_ids": completion_ids}
        by_name[name], failures = _call(name, function, batch)
        errors += sum(index is not None for index, _ in failures)
        if failures and name not in shown:
            shown.add(name)
            index, error = failures[0]
            where = "a whole batch" if index is None else f"the completion {completions[index][:80]!r}, which scores 0"
            print(
                f"reward {name!r} raised {_one_line(error)} on {where}; further errors are only counted",
                file=sys.stderr,
            )

    weights = [weight for _, _, weight in rewards]
    total = []
    for values in zip(*by_name.values(), strict=True):
        scorable = all(value is not None for value in values)
        total.append(
            math.fsum(weight * value for weight, value in zip(weights, values, strict=True)) if scorable else None
        )
    return {"total": total, "by_name": by_name, "errors": errors}


def _call(name, function, batch, first=0):
    """A reward's B values, and [(index, error)] of the samples on which it raised; `first` is the index of the first.

    If the batch raises, each sample is tried alone, so that one bad completion costs only itself; if then none raises,
    the failures are [(None, the batch's error)].
    """
    size = len(batch["completions"])
    if size == 0:
        return [], []
    try:
        returned = function(**batch)
    except Exception as error:
        if size == 1:
            return [0.0], [(first, error)]
        batch_error = error
    else:
        return _checked(name, returned, size, first), []

    values, failures = [], []
    for i in range(size):
        value, failure = _call(name, function, {key: column[i : i + 1] for key, column in batch.items()}, first + i)
        values += value
        failures += failure
    return values, failures or [(None, batch_error)]


def _checked(name, returned, size, first):
    """What a reward returned, as `size` floats or None; numpy's and torch's scalars are numbers."""
    try:
        values = list(returned)
    except TypeError:
        values = None
    if values is None or len(values) != size:
        what = type(returned).__name__ if values is None else f"{len(values)} values"
        raise ValueError(
            f"reward {name!r} returned {what} for {size} completions: return a list of one number or None each"
        )
    for i, value in enumerate(values):
        if value is None:
            continue
        try:
            values[i] = float(value) if hasattr(value, "__float__") else None
        except (TypeError, ValueError, RuntimeError):  # an array of several numbers has a __float__ too
            values[i] = None
        if values[i] is None or not math.isfinite(values[i]):
            raise ValueError(
                f"reward {name!r} returned {repr(value)[:80]} for sample {first + i}: return a finite number or None"
            )
    return values


def _one_line(error):
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
