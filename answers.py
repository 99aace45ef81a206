"""Whether two answers are equal: text in, a verdict out. The one place for equality; a deeper grader goes here.

The text was written by a model: none is ever evaluated or given to a parser but ours, all work is bounded before it is
done, and there is no clock, signal or state, so that any thread may call it.
"""

import operator
import re
from dataclasses import dataclass
from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow, Underflow, localcontext
from fractions import Fraction
from itertools import accumulate

# All far above any gold answer seen in the usual benchmarks (204 characters, 8 digits, nesting 4).
MAX_EXPRESSION = 500  # characters
MAX_NESTING = 30
MAX_MEMBERS = 50  # of a list or tuple
MAX_DIGITS = 100  # of one literal
MAX_BITS = 20_000  # of one exact number

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


@dataclass(frozen=True)
class Comparison:
    """A verdict, the name of the rule that decided, and what was read of both sides, printed for people."""

    equal: bool
    rule: str
    candidate: str
    answer: str


def compare(candidate: str, answer: str) -> Comparison:
    """`is_equiv` with its reason."""
    equal = is_equiv(candidate, answer)
    return Comparison(equal, "equal" if equal else "different", candidate[:MAX_EXPRESSION], answer[:MAX_EXPRESSION])


def is_parsed(answer: str) -> bool:
    """Whether an answer is read as more than a text."""
    traps = [InvalidOperation, DivisionByZero, Overflow, Underflow]
    with localcontext(Context(prec=MAX_DIGITS + 20, traps=traps)):
        return len(answer) <= MAX_EXPRESSION and _quantity(_named(_clean(answer))[1])[0] is not None


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
