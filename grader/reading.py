r"""The grammar of answers: tokens in, a tree out. Nothing else decides what a text means.

    answer    = item (("," | ";" | "and" | "or") item)*              a list, in any order
    item      = side (relation side)*                                = < > \le \ge \ne \approx \in …
    side      = ratio (("\cup" | "\cap" | "\setminus") ratio)*
    ratio     = quantity ((":" | "to") quantity)*
    quantity  = ["\$"] sum ["%" | unit]                              unit = words, "/", "per", "^" integer
    sum       = [sign] product (sign product)*                       sign = "+" | "-" | "\pm" | "\mp"
    product   = factor (["*" | "/"] factor)*
    factor    = sign factor | atom postfix*                          postfix = "^" a | "_" a | "!" | "^\circ" | "'"
    atom      = number | letter | letter "(" answer ")" | function argument | \frac a b | \sqrt[n] a | \binom a b
              | \sum_{k=a}^{b} product | matrix | "|" sum "|" | floor | ceiling | brackets
    brackets  = "(" answer ")" | "[" answer ")" … | "\{" answer ["|" answer] "\}"

Anything else is a text: words are compared as words, other text by its normal form. The functions below are the rules,
in this order; each takes its tokens from the end of a reversed list.
"""

import re
from fractions import Fraction
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

from grader import spelling, words
from grader.spelling import UPRIGHT, Refused, accept, expect, peek, refuse_if, text_of
from grader.trees import Node, number_node, show
from grader.words import DENIES, FUNCTIONS, MULTIPLIERS, NOT_A_UNIT, UNITS, is_english, is_row, words_of

# all far above any gold answer in the usual benchmarks (210 characters, 8 digits, nesting 4)
MAX_EXPRESSION = 500  # characters
MAX_NESTING = 60  # steps of the grammar: 30 brackets, or 15 roots
MAX_MEMBERS = 50  # per list or tuple
MAX_CELLS = 100  # per matrix
MAX_SERIES = 2  # sums and products over an index
MAX_DIGITS = 100  # per literal
MAX_EXPONENT = 1000  # of a literal such as 1e400


class Answer(NamedTuple):
    """A parsed answer."""

    node: Node
    key: str  # its normal form
    choice: str = ""  # the letter of the choice that it may be
    inner: "Answer | None" = None  # what it says without the letter of a choice or the words around it
    domain: str = ""  # what follows "for all", as letters


_SENTENCE = re.compile(  # the words before a value
    r"[a-zA-Z][a-zA-Z ,']*? (?:is|are|was|were|equals|equal to|has|have)(?: (?:exactly|only|just|equal to))* (?=\S)"
    r"|(?:[tT]here (?:is|are|were|was) )?(?:exactly|only|just) |(?:[sS]o|[tT]hus|[hH]ence|[tT]herefore),? "
    r"|[a-zA-Z ]{3,}: *(?=\S)|\\(?:int|lim|sum|max|min)[^a-zA-Z<>=][^<>=]*= *(?=\S)"
    r"|\\gcd *\([^()0-9]*\) *= *|P *\([^()<>=]*\) *= *(?=\S)"
)
_DOMAIN = re.compile(
    r"(?<=\S)[, ]*(?:\\text *\{ *)?,? *\bfor (?:(?:all|any|every|each)\b|(?=\}? *[a-zA-Z] *(?:\\[gln]e|[<>])))(.*)$"
)


@lru_cache(maxsize=512)
def read(text):
    """Parses at most MAX_EXPRESSION characters. A text outside the grammar becomes an "unreadable" node."""
    cleaned = ""
    try:
        cleaned = spelling.clean(text)
        tokens = spelling.tokenize(spelling.without_commas(cleaned))
    except Refused:
        key = re.sub(r"\s+", "", cleaned)
        return Answer(Node("unreadable", (), key), key)
    domain = _DOMAIN.search(cleaned)
    if domain and r"\begin" not in cleaned:
        bare = read(cleaned[: domain.start()])
        return bare._replace(domain=re.sub(r"\\(?:text|in)\b|[^a-zA-Z0-9<>=]", "", domain[1]))
    answer = _answer_of(tokens)
    sentence = answer.node.kind in ("text", "unreadable") and " ".join(UPRIGHT.sub(r" \1 ", cleaned).split())
    words_before = _SENTENCE.match(sentence) if sentence else None
    if words_before and not DENIES.search(words_before[0]):
        value = read(sentence[words_before.end() :])
        if value.node.kind not in ("text", "unreadable", "nothing"):
            answer = answer._replace(inner=value)
    return answer


def _answer_of(tokens):
    key = spelling.key_of(tokens)
    choice, rest = words.choice_of(tokens)
    return Answer(_tree(tokens, key), key, choice, _answer_of(list(rest)) if rest else None)


def _tree(tokens, key):
    """The tree of tokens: mathematics if the grammar allows, else words."""
    if not tokens:
        return Node("nothing")
    if all(token.kind == "word" or (token.text == "-" and tokens[0] != token != tokens[-1]) for token in tokens):
        number = words.number_in_words([token for token in tokens if token.kind == "word"])
        if number is not None:
            return number_node(number)
    date, digits = words.date_of(tokens), re.fullmatch(r"([0-9a-zA-Z]+)_\{?([0-9]{2})\}?", key)
    if date:
        return Node("date", (), date)
    if digits and re.search("[0-9][a-zA-Z]|[a-zA-Z][0-9A-Z]", digits[1]):  # 1A_{16}
        if all(int(digit, 36) < int(digits[2]) <= 36 for digit in digits[1]):
            return Node("base", (Node("text", (), digits[1].upper()),), int(digits[2]))
    members = _english_members(tokens)
    if members:
        return members
    try:
        refuse_if(sum(token.text in ("sum", "prod") for token in tokens) > MAX_SERIES, "too many sums")
        stack = spelling.bars(tokens)[::-1]
        node = _answer(stack, 0)
        if not stack:
            return node
    except (Refused, IndexError):  # IndexError: the text ends too early
        pass
    plain = all(token.kind != "command" and token.text not in _REFUSED_SIGNS for token in tokens)
    if plain and any(token.kind == "word" for token in tokens):
        return Node("text", (), words_of(tokens))
    return Node("unreadable", (), key)


def _english_members(tokens):
    """A text, or a list of texts, if there are only words and separators, and one of the words is English."""
    groups = groupby(tokens, lambda token: token.text.lower() in (",", ";", "and", "or"))
    members = [list(group) for separates, group in groups if not separates]
    every = [word for member in members for word in member]
    choices = len(every) > 2 and all(len(word.text) == 1 and word.text.isupper() for word in every)  # A C B
    if len(members) > MAX_MEMBERS or any(word.kind != "word" for word in every):
        return None
    if not (choices or any(map(is_english, every))):
        return None
    texts = tuple(Node("text", (), words_of(member)) for member in members)
    if len(texts) > 1:
        return Node("list", texts, ",")
    return _NAMED["R"] if texts[0].value in words.REALS else texts[0]


_UNIT_STARTS = words.BARE_UNITS | MULTIPLIERS.keys() | {"sq", "cu", "per"}
_NO_UNIT = re.compile("[不没非无多余以左约的の倍半超至于보배成]|[一-鿿぀-ヿ가-힣]{4}")
_LETTER_UNITS = frozenset("mgshLNJKWVACFT")  # a lone letter after a number and a space may be one of these
_REFUSED_SIGNS = frozenset('@#`"=<>^{}[]_\\*|~;')  # in no text of words
_ENGLISH = frozenset("It He She has was are the of th".split())  # not letters to be multiplied
TRIGONOMETRIC = frozenset("sin cos tan cot sec csc cis".split())


_OF_SETS = {r"\cup": "union", r"\bigcup": "union", "U": "union", r"\cap": "intersection", r"\setminus": "difference"}
_RELATIONS = {"=": "=", "<": "<", ">": ">", r"\le": "≤", r"\ge": "≥", r"\ne": "≠", r"\approx": "≈", r"\in": "∈"}
_RELATIONS |= {r"\notin": "∉", r"\equiv": "≡"}
_NAMED = {"pi": Node("constant", (), "pi"), "infty": Node("constant", (), "infinity"), "emptyset": Node("set")}
_NAMED |= {name: Node("symbol", (), "\\" + name) for name in "RZQNC"}
_NUMBER_SETS = [_NAMED[name] for name in "RZQNC"]
_SIGNS = ("+", "-", r"\pm", r"\mp")
_JOINTS = {r"\{": dict.fromkeys(["|", r"\mid", ":"], "builder")}  # of two parts in braces, and what they make
_JOINTS["{"] = _JOINTS[r"\{"] | {r"\choose": "binomial", r"\over": "fraction"}
_CLOSERS = {"(": (")", "]"), "[": ("]", ")"), "{": ("}",), r"\{": (r"\}",)}
_MONEY = {r"\dollar": "dollar", r"\euro": "euro", r"\pounds": "pound", r"\yen": "yen"}
_ACCENTS = "nabla dot ddot hat vec overline tilde widehat overrightarrow angle triangle".split()
_MATRICES = frozenset("cases pmatrix bmatrix matrix Bmatrix smallmatrix array".split())


def _separator(tokens):
    """Takes the separator of list members that comes next: ",", ";", "or", "and", or "". `, and` counts as one."""
    found = ""
    while tokens:
        text = tokens[-1].text.lower() if tokens[-1].kind == "word" else text_of(tokens[-1])
        if text not in (",", ";", "and", "or", r"\land", r"\lor"):
            break
        found = text
        tokens.pop()
    return found


def _answer(tokens, depth):
    """answer = item (separator item)*; if there are commas and semicolons, a semicolon ends a list."""
    items, separators = [_item(tokens, depth)], []
    while tokens:
        if accept(tokens, r"\mod"):
            refuse_if(not re.fullmatch("[1-9][0-9]*", tokens[-1].text), "no modulus")
            modulus = int(tokens.pop().text)
            for i, item in enumerate(items):
                if item.kind != "congruence":
                    items[i] = Node("congruence", item.args if item.kind == "relation" else (item,), modulus)
        separator = _separator(tokens)
        refuse_if(separator not in ("", ",", ";") and not tokens, "cut off")
        if not separator or not tokens:
            break
        separators.append(separator)
        items.append(_item(tokens, depth))
        refuse_if(len(items) > MAX_MEMBERS, "too many members")
    if len(items) == 1:
        return items[0]
    items = [_member(item) for item in items]
    kinds = set(separators)
    formula = kinds & {r"\land", r"\lor"} and not all(item.kind in ("relation", "number", "decimal") for item in items)
    refuse_if(formula, "a formula of logic")
    kinds = {kind.lstrip("\\l") for kind in kinds}
    if {",", ";"} <= kinds:
        ends = [i + 1 for i, separator in enumerate(separators) if separator == ";"]
        groups = [items[start:end] for start, end in zip([0, *ends], [*ends, len(items)], strict=True)]
        items = [Node("list", tuple(group), ",") for group in groups]
    declared = _declared(items[-1])
    if declared:
        members = Node("list", tuple(items[:-1]), ",")  # k\pi, k \in \mathbb{Z}
        return Node("family", (members if len(items) > 2 else items[0],), declared)
    return Node("list", tuple(items), "and" if kinds == {"and"} else "or" if "or" in kinds else ",")


def _member(node):
    """A member of a list; letters in a row are a text, as in HT, TH."""
    return Node("text", (), node.value[1]) if node.kind == "product" and node.value and node.value[1] else node


def _declared(node):
    """(letter, set) of k \\in \\mathbb{Z}"""
    return tuple(side.value for side in node.args) if node.value == ("∈",) and node.args[1] in _NUMBER_SETS else None


def _item(tokens, depth):
    """item = side (relation side)*"""
    if accept(tokens, r"\approx", "="):
        return _side(tokens, depth)
    first, number = tokens[-1], len(tokens)
    sides, operators = [_word_label(tokens) or _side(tokens, depth)], []
    if len(tokens) == number - 1 and first.kind == "word" and is_row(first.text) and sides[0].kind == "product":
        sides[0] = sides[0]._replace(value=("row", first.text.lower()))  # a text, if it is a member of a list
    while tokens:
        token = tokens[-1]
        relation = _RELATIONS.get(text_of(token))
        if token.text == "in" and len(tokens) > 1 and tokens[-2].text in ("(", "[", "{", r"\{", "R"):
            relation = "∈"
        if relation is None:
            break
        tokens.pop()
        refuse_if(relation == "=" and accept(tokens, ">", "="), "an arrow")
        operators.append(relation)
        sides.append(_side(tokens, depth))
    return Node("relation", tuple(sides), tuple(operators)) if operators else sides[0]


def _side(tokens, depth):
    """side = ratio (set operator ratio)*"""
    node = part = _ratio(tokens, depth)
    while peek(tokens, *_OF_SETS) and (tokens[-1].text != "U" or part.kind in ("brackets", "set") and len(tokens) > 1):
        kind, part = _OF_SETS[text_of(tokens.pop())], _ratio(tokens, depth)
        node = Node(kind, (*node.args, part) if node.kind == kind == "union" else (node, part))
    return node


def _word_label(tokens):
    """The words before "=", in `Area = 5`, as one letter."""
    count = 0
    while count < min(len(tokens) - 1, 4) and tokens[-1 - count].kind == "word":
        count += 1
    texts = [token.text for token in tokens[-1 : -1 - count : -1]]
    if not count or text_of(tokens[-1 - count]) != "=" or any(text in FUNCTIONS | {"let", "Let"} for text in texts):
        return None
    if not any((len(text) > 2 and is_row(text) or tokens[-1].upright) and not text.isupper() for text in texts):
        return None
    del tokens[-count:]
    return Node("symbol", (), " ".join(texts).lower())


def _ratio(tokens, depth):
    """ratio = quantity ((":" | "to") quantity)*; 2:40 and 1:03 PM are times of the day."""
    parts, digits = [_quantity(tokens, depth)], []
    while peek(tokens, ":") or (peek(tokens, "to") and tokens[-1].kind == "word"):
        digits.append(tokens[-1].text if tokens.pop().text == ":" else "")
        parts.append(_quantity(tokens, depth))
    half = ""
    if parts[-1].value in ((("am", 1),), (("pm", 1),)):
        half, parts[-1] = parts[-1].value[0][0], parts[-1].args[0]
    clock = [part.value for part in parts if part.kind == "number" and part.value.denominator == 1]
    if (digits or half) and len(clock) == len(parts) < 4 and all(re.fullmatch("[0-5][0-9]", text) for text in digits):
        hour, minute, second = (*map(int, clock), 0, 0)[:3]
        if 0 <= hour < 24:
            day = hour % 12 + 12 * (half == "pm") if half else hour
            return Node("time", tuple(parts), (day, hour, 60 * minute + second, half))
    refuse_if(half, "no time of the day")
    return parts[0] if len(parts) == 1 else Node("ratio", tuple(parts))


def _quantity(tokens, depth):
    """quantity = ["\\$"] sum ["%" | unit]"""
    money = accept(tokens, *_MONEY)
    node = _sum(tokens, depth)
    if accept(tokens, "%"):
        return Node("quantity", (node,), (("%", 1),))
    money = _MONEY.get(accept(tokens, *_MONEY) or money)
    factor, unit = _unit(tokens) if tokens and _starts_unit(tokens) else (1, ())
    if factor != 1:
        node = Node("product", (number_node(factor), node))
    if money:
        unit = ((money, 1), *(part for part in unit if part != (money, 1)))
    return Node("quantity", (node,), unit) if unit else node


def _starts_unit(tokens):
    """Whether the next word is a unit, not letters to be multiplied."""
    token = tokens[-1]
    if token.kind != "word" or token.text.lower() in ("and", "or", "to"):
        return False
    if token.text in FUNCTIONS:
        return token.text == "sec" and len(tokens) == 1  # of what, if not seconds
    if token.text == "in" and len(tokens) > 1 and tokens[-2].text in ("(", "[", "{", r"\{", "R"):
        return False  # x in [0, 1]
    if len(token.text) == 1:
        return token.upright and (token.text in UNITS or not token.text.isascii())
    known = token.text in words.BARE_UNITS or token.text.lower() in _UNIT_STARTS
    return known or token.upright or (len(token.text) > 3 and is_english(token))


def _unit(tokens):
    """The factor and the unit of the next words: cm^2, square inches, m/s, miles per hour, million dollars.

    The unit is a tuple of (name, exponent). Refused if there are words that units do not contain.
    """
    parts, factor, sign, power = [], 1, 1, 1
    while tokens and len(parts) < 6:
        token = tokens[-1]
        word = token.text.lower() if token.kind == "word" else ""
        if word in ("and", "or") or not (word or token.text in ("/", "^", "*", ".", "-", "%")):
            break
        tokens.pop()
        if word[1:] and word[0] in MULTIPLIERS and word not in UNITS:  # 万元
            tokens.append(token._replace(text=word[1:]))
            word = word[0]
        if words.singular(word) in MULTIPLIERS:
            factor *= MULTIPLIERS[words.singular(word)]
        elif word in NOT_A_UNIT or _NO_UNIT.search(word) or (parts and word in words.NUMBER_WORDS):  # 8 in ten
            raise Refused(f"{word} is no unit")
        elif token.text == "/" or word == "per":
            sign = -1
        elif word in ("square", "sq", "cubic", "cu"):
            power = 2 if word[0] == "s" else 3
        elif word:
            parts.append((words.unit_name(token.text), sign * power))
            power = 1
        elif token.text == "^" and parts:  # a digit, in braces or not
            braces, minus = accept(tokens, "{"), accept(tokens, "-")
            parts[-1] = (parts[-1][0], (-sign if minus else sign) * int(expect(tokens, *"123456789")))
            refuse_if(braces and not accept(tokens, "}"), "an exponent of a unit")
    return factor, tuple(parts)


def _sum(tokens, depth):
    """sum = [sign] product (sign product)*"""
    terms, sign = [], accept(tokens, *_SIGNS) or "+"
    while sign:
        terms.append(_signed(sign, _product(tokens, depth)))
        sign = accept(tokens, *_SIGNS)
    return terms[0] if len(terms) == 1 else Node("sum", tuple(terms))


def _signed(sign, node):
    if sign == "+":
        return node
    return -node if sign == "-" else Node("signs", (node,), sign == r"\pm")


def _multiplied(factors):
    """A product; factors of a matrix or column go into its cells."""
    matrices = [factor for factor in factors if factor.kind == "matrix"]
    if len(matrices) != 1 or len(factors) == 1:
        return factors[0] if len(factors) == 1 else Node("product", tuple(factors))
    others = tuple(factor for factor in factors if factor.kind != "matrix")
    return matrices[0]._replace(args=tuple(Node("product", (*others, cell)) for cell in matrices[0].args))


def _product(tokens, depth):
    """product = factor (["*" | "/"] factor)*, but not a/bc, which is ambiguous, unless a and b are numbers"""
    factors, divided, unit = [_factor(tokens, depth)], False, False
    while tokens:
        sign = accept(tokens, "*", "/")
        if not sign and not _starts_factor(tokens, factors[-1]):
            break
        if not sign and divided:
            numbers = all(_is_number(factor) for factor in factors)
            if not (numbers and len(factors) == 2 and tokens[-1].kind == "word" and len(tokens[-1].text) == 1):
                raise Refused("a/bc")
        juxtaposed = not sign and factors[-1].kind in ("number", "decimal") and not divided
        refuse_if(juxtaposed and tokens[-1].kind == "number", "two numbers side by side")
        apart = juxtaposed and (tokens[-1].spaced or factors[-1].kind == "decimal")
        unit = unit or (apart and tokens[-1].text in _LETTER_UNITS and len(factors) == 1)
        factor = _factor(tokens, depth)
        divided = sign == "/"
        factors.append(Node("inverse", (factor,)) if divided else factor)
    node = _multiplied(factors)
    return node._replace(value=("unit", "")) if unit and node.kind == "product" else node


def _is_number(node):
    return node.kind in ("number", "decimal") or (node.kind == "inverse" and node.args[0].kind == "number")


def _starts_factor(tokens, previous):
    """Whether the next token starts a factor without a sign."""
    token = tokens[-1]
    if token.kind == "word":
        if token.text.lower() in ("and", "or", "to", "in") or _starts_unit(tokens):
            return False
        return not (token.text == "U" and previous.kind in ("brackets", "set"))
    if token.kind == "command":
        return token.text in _NAMED or token.text in _COMMAND_RULES
    if token.kind == "number":  # H2O and A13 are no products
        return token.spaced or not (previous.kind == "symbol" and previous.value.isupper())
    return token.text in _CLOSERS or token.text == "|("


def _factor(tokens, depth):
    """factor = sign factor | atom postfix*"""
    refuse_if(depth > MAX_NESTING, "nested too deep")
    sign = accept(tokens, *_SIGNS)
    if sign:
        return _signed(sign, _factor(tokens, depth + 1))
    node = _atom(tokens, depth + 1)
    while tokens:
        mark = accept(tokens, "^", "!", r"\circ")
        if mark == "^":
            node = _raised(node, tokens, depth)
            refuse_if(peek(tokens, "^"), "a^b^c")
        elif mark == "!":
            refuse_if(peek(tokens, "!"), "a!!")
            node = Node("factorial", (node,))
        elif mark:
            scale = tokens.pop().text if peek(tokens, "C", "F") else ""
            node = Node("quantity", (node,), (("degree", 1), (scale, 1))) if scale else Node("degrees", (node,))
        elif node.kind == "number" and accept(tokens, "_"):
            node = _based(node, tokens)
        else:
            break
    return node


def _raised(node, tokens, depth):
    """A power, and the transpose of a row or column."""
    exponent = _exponent(tokens, depth)
    if node.kind not in ("matrix", "brackets"):
        return Node("power", (node, exponent))
    refuse_if(exponent.value != "T" or (node.kind == "matrix" and 1 not in node.value), "a power of a matrix")
    return node if node.kind == "matrix" else node._replace(value="()")


def _exponent(tokens, depth):
    """2^{10}, 2^10 as typed, e^-x, x^\\frac12"""
    if accept(tokens, "-"):
        return -_exponent(tokens, depth + 1)
    refuse_if(depth > MAX_NESTING, "nested too deep")
    return _literal(tokens.pop().text) if tokens[-1].kind == "number" else _argument(tokens, depth)


def _based(node, tokens):
    """204_5: the digits as written, and the base."""
    braces, text = accept(tokens, "{"), tokens.pop().text
    base, whole = str(words.NUMBER_WORDS.get(text, text)), node.value.denominator == 1 and node.value >= 0
    refuse_if((braces and not accept(tokens, "}")) or not whole or not re.fullmatch("[0-9]{1,2}", base), "a base")
    return Node("base", (node,), int(base))


def _argument(tokens, depth):
    """The argument of a LaTeX command: a group, a command, or one character (`\\frac12` is 1/2)."""
    token = tokens[-1]
    if token.kind in ("number", "word") and len(token.text) > 1 and not token.upright:
        refuse_if(not token.text.isalnum(), "half a decimal")
        tokens.pop()
        tokens += [token._replace(text=token.text[1:], spaced=False), token._replace(text=token.text[0])]
    if tokens[-1].kind == "number":
        return _literal(tokens.pop().text)
    return _atom(tokens, depth + 1)


def _literal(text):
    """A number as written; a decimal keeps its places and significant digits."""
    mantissa, _, exponent = text.lower().partition("e")
    refuse_if(len(mantissa) > MAX_DIGITS or abs(int(exponent or 0)) > MAX_EXPONENT, "too many digits")
    whole, point, places = mantissa.partition(".")
    value = Fraction(int(whole + places or "0"), 10 ** len(places)) * Fraction(10) ** int(exponent or 0)
    if not point or exponent:
        return number_node(value)
    return Node("decimal", (), (value, len(places), len((whole + places).lstrip("0"))))


def _atom(tokens, depth):
    """An atom; see the grammar."""
    refuse_if(depth > MAX_NESTING, "nested too deep")
    rule = {"number": _numeral, "word": _word, "command": _command}.get(tokens[-1].kind)
    if rule:
        return rule(tokens, depth)
    if accept(tokens, "|("):
        node = _sum(tokens, depth + 1)
        expect(tokens, ")|")
        return Node("abs", (node,))
    return _bracketed(expect(tokens, *_CLOSERS), tokens, depth)


def _numeral(tokens, depth):
    """A number: 0.1\\overline{6}, 1\\frac34, or a literal."""
    text = tokens.pop().text
    whole = _literal(text)
    places = re.fullmatch(r"[0-9]*\.([0-9]*)", text)
    if places and accept(tokens, r"\overline", r"\dot"):  # the digits under it repeat
        braces, block = accept(tokens, "{"), tokens.pop().text
        refuse_if(not block.isdecimal() or len(block) > 40 or (braces and not accept(tokens, "}")), "no digits repeat")
        repeated = Fraction(int(block), (10 ** len(block) - 1) * 10 ** len(places[1]))
        return number_node(whole.value[0] + repeated)
    if not peek(tokens, r"\frac") or whole.kind != "number" or whole.value.denominator != 1:
        return whole
    part = _command(tokens, depth)
    if [inner.kind for inner in part.args] != ["number", "number"] or part.args[1].value == 0:
        return Node("product", (whole, part))
    share = part.args[0].value / part.args[1].value
    refuse_if(not 0 < share < 1, "2 3/2 is neither a mixed number nor clearly a product")
    return number_node(whole.value + share)


def _word(tokens, depth):
    """A function, a constant, or letters: the first is taken, the others are put back."""
    token = tokens.pop()
    text = token.text
    if text in ("pi", "Pi") or text.lower() in words.INFINITE:
        return _NAMED["infty" if text.lower() in words.INFINITE else "pi"]
    if text in _RULES:
        return _RULES[text](text, tokens, depth)
    if len(text) > 1:
        if (
            token.upright
            or text in _ENGLISH
            or (len(text) > 2 and text.istitle())
            or len(text) > (6 if text.isupper() else 3)
        ):
            raise Refused(f"{text} is a word")
        tokens.append(token._replace(text=text[1:], spaced=False))
    return _letter(text[0], tokens, depth)


def _letter(name, tokens, depth):
    """A letter with its subscript and primes; or an unknown function of that name, applied."""
    if name in ("e", "i") and not peek(tokens, "_", "'"):
        return Node("constant", (), name)
    if accept(tokens, "_"):
        name += "_" + _subscript(tokens)
    while accept(tokens, "'"):
        name += "'"
    if name in ("f", "g", "h") and [token.text for token in tokens[:-7:-1]] == ["^", "{", "-", "1", "}", "("]:
        del tokens[-5:]
        name += "^-1"
    inside = tokens[-2] if len(tokens) > 2 and tokens[-3].text == ")" else None  # x(t) is a function, not a product
    alone = inside and (inside.kind in ("number", "command") or (inside.kind == "word" and len(inside.text) == 1))
    if peek(tokens, "(") and "_" not in name and (alone or re.fullmatch(r"[fghCEFGHP]'*(?:\^-1)?", name)):
        tokens.pop()
        inside = _answer(tokens, depth + 1)
        expect(tokens, ")")
        members = _members(inside)
        if name == "C" and len(members) == 2 and all(n.kind == "number" or n.value in ("n", "k") for n in members):
            return Node("binomial", members)
        return Node("apply", members, name)
    return Node("symbol", (), name)


def _subscript(tokens):
    """The text of a subscript, or under an accent: one token, or a group without nested braces."""
    if not accept(tokens, "{"):
        refuse_if(tokens[-1].kind == "sign", "no subscript")
        return tokens.pop().text
    parts = []
    while not accept(tokens, "}"):
        parts.append(tokens.pop().text)
        refuse_if(parts[-1] == "{", "a group in a subscript")
    return "".join(parts)


def _bracketed(opening, tokens, depth):
    """( … ), [ … ), { … } and \\{ … \\}: a group if there is one member, else a tuple, an interval or a set."""
    closers, braces, joints = _CLOSERS[opening], "{" in opening, _JOINTS.get(opening, {})
    if accept(tokens, closers[0]):
        return Node("set") if braces else Node("brackets", (), opening + closers[0])
    inside = _answer(tokens, depth + 1)
    kind = joints.get(accept(tokens, *joints))
    if kind:
        rule = _answer(tokens, depth + 1)
        declared = _declared(rule)  # {k\pi | k \in \mathbb{Z}}, {x | x = k\pi, k \in \mathbb{Z}}
        family = Node("family", (inside,), declared) if declared else rule
        inside = family if family.kind == "family" else Node(kind, (inside, rule))
    closing = expect(tokens, *closers)
    if kind or (opening == "{" and inside.kind != "list"):
        return inside
    if braces:
        return Node("set", tuple(map(_member, _members(inside))))
    if inside.kind == "list":
        return Node("brackets", inside.args, opening + closing)
    refuse_if(opening + closing not in ("()", "[]"), "half an interval")
    return inside


def _members(inside):
    return inside.args if inside.kind == "list" else (inside,)


def _command(tokens, depth):
    """A LaTeX command with its arguments."""
    name = tokens.pop().text
    if name in _NAMED:
        return _NAMED[name]
    refuse_if(name not in _COMMAND_RULES, f"\\{name}")
    return _COMMAND_RULES[name](name, tokens, depth)


def _stacked(name, tokens, depth):
    """\\binom{a}{b}, \\frac{a}{b}; \\frac{dx}{dt} is a letter of that name, like x'."""
    top, bottom = _argument(tokens, depth), _argument(tokens, depth)
    letters = [node.args[0] if node.kind == "product" else node for node in (top, bottom)]
    letters[0] = letters[0].args[0] if letters[0].kind == "power" else letters[0]
    if letters == [Node("symbol", (), "d")] * 2 and bottom.kind == "product":
        return Node("symbol", (), f"{show(top)}/{show(bottom)}")
    return Node("fraction" if name == "frac" else "binomial", (top, bottom))


def _accented(name, tokens, depth):
    """\\dot{x}, \\overline{AB}, \\angle ABC, \\angle 2: one letter of that name."""
    return _letter(f"{name} {_subscript(tokens)}", tokens, depth)


def _paired(name, tokens, depth):
    """Floor, ceiling, and the angle brackets of a vector."""
    inside = _answer(tokens, depth + 1)
    expect(tokens, "\\r" + name[1:])
    kind = {"lfloor": "floor", "lceil": "ceiling"}.get(name)
    return Node(kind, (inside,)) if kind else Node("brackets", _members(inside), "()")


def _root(_name, tokens, depth):
    """\\sqrt{a}, \\sqrt[n]{a}, sqrt(a); \\sqrt13 is the root of 13"""
    degree = number_node(2)
    if accept(tokens, "["):
        degree = _sum(tokens, depth + 1)
        expect(tokens, "]")
    inside = _literal(tokens.pop().text) if tokens[-1].kind == "number" else _argument(tokens, depth)
    return Node("power", (inside, Node("fraction", (number_node(1), degree))))


def _function(name, tokens, depth):
    """sin x, \\sin^2 x, \\sin^{-1} x, \\log_{10} 2, \\ln(x): without brackets, all that follows is the argument."""
    name = words.ALIASES.get(name, name)
    base = _argument(tokens, depth) if name == "log" and accept(tokens, "_") else None
    power = _exponent(tokens, depth + 1) if accept(tokens, "^") else None
    if power == number_node(-1) and name in TRIGONOMETRIC:
        name, power = "arc" + name, None
    if peek(tokens, "(", "{", "[", "|("):
        argument = _atom(tokens, depth + 1)
    else:
        factors = [_factor(tokens, depth + 1)]
        while tokens and _starts_factor(tokens, factors[-1]) and not peek(tokens, "(", "["):
            if _RULES.get(tokens[-1].text) is _function:
                break
            factors.append(_factor(tokens, depth + 1))
        numbers = all(_is_number(factor) or factor == _NAMED["pi"] for factor in factors)
        refuse_if(peek(tokens, "/") and len(tokens) > 1 and numbers, "sin a/b is ambiguous")
        argument = _multiplied(factors)
    node = Node("function", (argument,) if base is None else (argument, base), name)
    return node if power is None else Node("power", (node, power))


def _series(name, tokens, depth):
    """\\sum_{k=1}^{n} product"""
    expect(tokens, "_")
    expect(tokens, "{")
    index = _word(tokens, depth)
    expect(tokens, "=")
    first = _sum(tokens, depth + 1)
    expect(tokens, "}")
    expect(tokens, "^")
    last = _exponent(tokens, depth)
    body = _product(tokens, depth + 1)
    known = index.kind in ("symbol", "constant") and index.value not in first.symbols() | last.symbols()
    refuse_if(not known, "no index")
    return Node(name, (first, last, body), index.value)


def _matrix(_name, tokens, depth):
    """\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}"""
    expect(tokens, "{")
    name = tokens.pop().text
    expect(tokens, "}")
    refuse_if(name not in _MATRICES, f"environment {name}")
    if name == "array" and accept(tokens, "{"):
        while tokens.pop().text != "}":
            pass
    rows = [[]]
    while not accept(tokens, r"\end"):
        rule = _condition if name == "cases" and rows[-1] else _item
        rows[-1].append(rule(tokens, depth + 1))
        accept(tokens, *",;.")
        refuse_if(sum(map(len, rows)) > MAX_CELLS, "too many cells")
        if accept(tokens, "\\\\") and not peek(tokens, r"\end"):
            rows.append([])
        elif not accept(tokens, "&") and not peek(tokens, r"\end"):
            raise Refused("no end of a matrix")
    for text in ("{", name, "}"):
        expect(tokens, text)
    if name == "cases" and all(len(row) == 2 for row in rows):  # in any order
        return Node("set", tuple(Node("brackets", tuple(row), "()") for row in rows))
    refuse_if(len({len(row) for row in rows}) != 1, "rows of different lengths")
    return Node("matrix", tuple(cell for row in rows for cell in row), (len(rows), len(rows[0])))


def _condition(tokens, depth):
    """The condition of a case: a relation, or words, without `if` and the like before it."""
    part = []
    while not peek(tokens, "\\\\", r"\end"):
        part.append(tokens.pop())
    while part[0].text.lower() in ("if", "for", "when", "where", ","):
        del part[0]
    while part[-1].text in (",", ".", ";"):
        part.pop()
    if any(token.upright and len(token.text) > 1 for token in part):
        return Node("text", (), spelling.key_of(part).replace("else", "otherwise"))
    part.reverse()
    node = _answer(part, depth)
    refuse_if(part, "no condition")
    return node


_RULES = dict.fromkeys(words.GREEK, _letter) | dict.fromkeys((*FUNCTIONS, *words.ALIASES), _function) | {"sqrt": _root}
_COMMAND_RULES = _RULES | {"frac": _stacked, "binom": _stacked, "begin": _matrix, "sum": _series, "prod": _series}
_COMMAND_RULES |= dict.fromkeys(("lfloor", "lceil", "langle"), _paired)
_COMMAND_RULES |= dict.fromkeys(_ACCENTS, _accented)
