r"""Whether two answers are equal: text in, a verdict out. The one place for equality.

The text was written by a model: it goes through the tokenizer and the parser below and no other, all work is bounded
before it is done, and there is no clock, signal or lasting state, so that any thread or process may call it.

    answer    = item (("," | ";" | "and" | "or") item)*              a list, in any order
    item      = side (relation side)*                                = < > \le \ge \ne \approx \in …
    side      = ratio (("\cup" | "\cap" | "\setminus") ratio)*
    ratio     = quantity ((":" | "to") quantity)*
    quantity  = ["\$"] sum ["%" | unit]                              unit = words, "/", "per", "^" integer
    sum       = [sign] product (sign product)*                       sign = "+" | "-" | "\pm" | "\mp"
    product   = factor (["*" | "/" | "\bmod"] factor)*
    factor    = sign factor | atom postfix*                          postfix = "^" a | "_" a | "!" | "^\circ" | "'"
    atom      = number | letter | letter "(" answer ")" | function argument | \frac a b | \sqrt[n] a | \binom a b
              | \sum_{k=a}^{b} product | \gcd ( answer ) | matrix | "|" sum "|" | floor | ceiling | brackets
    brackets  = "(" answer ")" | "[" answer ")" … | "\{" answer ["|" answer] "\}"

What cannot be read so is a text: words are compared as words, anything else as its normalised spelling.
A number is exact (Fraction) as long as it is rational. Otherwise it is a ball: a complex midpoint and a bound on its
error, so that "these two differ" is proven, and "these two are equal" means: to within rounding, at 50 and 1200 digits.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial, gcd, lcm
from typing import NamedTuple
from zlib import crc32

from mpmath import libmp  # what sympy computes with; its functions of mpf tuples have no context, so no state

# All far above any gold answer seen in the usual benchmarks (210 characters, 8 digits, nesting 4).
MAX_EXPRESSION = 500  # characters
MAX_TOKENS = 400
MAX_NESTING = 60  # steps of the grammar: 30 brackets, or 15 roots
MAX_MEMBERS = 50  # of a list, tuple or side of a matrix
MAX_CELLS = 100  # of a matrix
MAX_DIGITS = 100  # of one literal
MAX_EXPONENT = 1000  # of a literal such as 1e400
MAX_BITS = 20_000  # of one exact number
MAX_FACTORIAL = 1000
MAX_TERMS = 200  # of a finite sum or product
MAX_SYMBOLS = 8

# precisions in bits: 50 digits tell almost all that differ apart, 1200 are asked before two are called equal
PRECISION, MORE_PRECISION = 190, 4000


class Node(NamedTuple):
    """One node of a parsed answer; what `value` holds depends on the kind."""

    kind: str
    args: tuple = ()
    value: object = None


class Answer(NamedTuple):
    """What is read of one text."""

    node: Node
    key: str  # its spelling in one normal form
    words: str  # if it is nothing else
    choice: str  # the letter of the choice that it may be, or ""
    alone: bool  # and that letter is all there is


class Token(NamedTuple):
    kind: str  # number | word | command | sign
    text: str
    spaced: bool  # a space stands before it
    upright: bool = False  # from \text{} and the like: a word, not letters


class Unreadable(ValueError):
    """This text is not of the grammar, or over one of its bounds."""


class Undefined(ArithmeticError):
    """This expression has no value there: a pole, 0/0, or too large to be computed."""


@dataclass(frozen=True)
class Comparison:
    """A verdict, the rule that decided, and what was read of both sides, printed for people."""

    equal: bool
    rule: str
    candidate: str
    answer: str


def is_equiv(candidate: str, answer: str) -> bool:
    """Whether two bare expressions are the same answer; `answer` is the gold. The one place that decides equality.

    Equal are the same mathematical values or objects, whatever their form: numbers, exactly if rational, else to 1200
    digits; expressions, at several points of their letters, taken as positive reals; lists in any order, tuples,
    intervals and matrices in theirs; an inequality and its interval; equations up to moved terms and a nonzero factor;
    `x=5` and 5. A unit that one side leaves out is ignored. `28\\%` is 28 or 0.28 if the gold has the percent sign; the
    gold 20 is `20\\%`, 0.75 is `75\\%`, but 20 is not 0.2. A decimal does not stand for a fraction or root that it
    rounds, unless it shows 10 or more digits that agree.

    What is over a bound is unequal: a wrong "equal" teaches the model, a missed one only slows it. Never raises.
    """
    return compare(candidate, answer).equal


def compare(candidate: str, answer: str) -> Comparison:
    """`is_equiv` with the rule that decided and both sides as they were read."""
    if max(len(candidate), len(answer)) > MAX_EXPRESSION:
        return Comparison(False, "over a bound", candidate[:40], answer[:40])
    try:
        one, gold = read(candidate), read(answer)
        rule = _decide(one, gold)
        return Comparison(rule != "", rule or "different", show(one.node), show(gold.node))
    except RecursionError:  # called from deep within another program; our own depth is bounded
        return Comparison(False, "over a bound", candidate, answer)
    except Exception as error:  # a fault of ours costs one verdict, not a run; tests hold that there is none
        return Comparison(False, f"fault: {type(error).__name__}", candidate, answer)


def is_parsed(answer: str) -> bool:
    """Whether an answer is read as a number, expression, structure or words, so that more than its spelling counts."""
    try:
        return len(answer) <= MAX_EXPRESSION and read(answer).node.kind not in ("unreadable", "nothing")
    except Exception:  # as in `compare`
        return False


def _decide(candidate, gold):
    """The name of the first rule by which the two are equal, or ""."""
    if not candidate.key or not gold.key:
        return ""
    if candidate.key == gold.key:
        return "same text"
    if gold.choice and candidate.choice and (gold.alone or candidate.alone):
        return "choice" if candidate.choice == gold.choice else ""
    kinds = {candidate.node.kind, gold.node.kind}
    if "text" in kinds and candidate.words and candidate.words == gold.words:
        return "words"
    if kinds & {"unreadable", "nothing"}:
        return ""
    for one, other in _readings(candidate.node, gold.node):
        try:
            rule = _same(_signs(one), _signs(other))
        except (Undefined, Unreadable):
            continue
        if rule:
            return rule
    return ""


def _readings(candidate, gold):
    """The pairs to compare: 100,200 is a number, or a list if the other side is one."""
    yield candidate, gold
    for thousands, other, first in (candidate, gold, True), (gold, candidate, False):
        if thousands.kind == "number" and thousands.args and other.kind in ("list", "brackets"):
            yield (thousands.args[0], other) if first else (other, thousands.args[0])


# ---------------------------------------------------------------- reading: characters to tokens

_CHARACTERS = str.maketrans(
    dict(zip("−–×·÷⋅∗\u00a0\u2009\u202f∣", "--**/**   |", strict=True))
    | {"π": r"\pi ", "∞": r"\infty ", "°": r"^\circ ", "√": r"\sqrt ", "±": r"\pm ", "∓": r"\mp ", "θ": r"\theta "}
    | {"≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∈": r"\in ", "∪": r"\cup ", "∩": r"\cap "}
    | {"∅": r"\emptyset ", "ℝ": r"\R ", "ℤ": r"\Z ", "ℕ": r"\N ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma "}
    | {"λ": r"\lambda ", "μ": r"\mu ", "ω": r"\omega ", "φ": r"\phi ", "⟨": r"\langle ", "⟩": r"\rangle "}
    | {"⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "€": r"\euro ", "£": r"\pounds "}
    | {"½": r"\frac12 ", "¼": r"\frac14 ", "¾": r"\frac34 ", "’": "'", "…": r"\ldots "}
    | {"“": '"', "”": '"', "⅓": r"\frac13 ", "⅔": r"\frac23 ", "⁄": "/", "¥": r"\yen ", "÷": "/"}
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_SPELLINGS = {"dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "leqslant": "le", "leqq": "le"}
_SPELLINGS |= {"geq": "ge", "geqslant": "ge", "geqq": "ge", "neq": "ne", "dbinom": "binom", "tbinom": "binom"}
_SPELLINGS |= {"varnothing": "emptyset", "lbrace": r"\{", "rbrace": r"\}", "lbrack": "[", "rbrack": "]", "colon": ":"}
_SPELLINGS |= {"cdot": "*", "times": "*", "div": "/", "ast": "*", "lt": "<", "gt": ">", "vert": "|", "lvert": "|"}
_SPELLINGS |= {"rvert": "|", "Vert": "|", "lVert": "|", "rVert": "|", "percent": "%", "degree": "circ", "dots": "ldots"}
_SPELLINGS |= {"cdots": "ldots", "simeq": "approx", "sim": "approx", "to": "rightarrow", "varphi": "phi"}
_SPELLINGS |= {"pmod": "mod", "arccosine": "arccos", "lor": "or", "vee": "or", "land": "and"}
_SPELLINGS |= {"wedge": "and", "backslash": "setminus", "smallsetminus": "setminus", "textdegree": "circ"}
_SPELLINGS |= {"Reals": "R", "reals": "R", "upi": "pi", "varepsilon": "epsilon", "vartheta": "theta", "bar": "overline"}
_IGNORED = frozenset(
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr displaystyle textstyle scriptstyle limits nolimits "
    "boxed fbox quad qquad hspace thinspace space ensuremath rm bf it cal mathrel mathop mathbin mathopen mathclose "
    "mathord protect strut middle large Large normalsize underline".split()
)
_UPRIGHT = frozenset(
    "text textbf textit textrm textnormal textsf texttt textup emph mbox hbox mathrm mathbf mathit mathsf "
    "mathtt boldsymbol bm operatorname pmb mathnormal".split()
)
_SUBSTITUTIONS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<![a-zA-Z])([kcm]?m|in|ft)(?=[²³])", r"\\text{ \1}"),  # a letter with a typographic square is a unit
        (r"([⁰¹²³⁴-⁹⁻]+)", r"^{\1}"),
        (r"(?<=[0-9])\.([0-9]*)\(([0-9]+)\)", r".\1\\overline{\2}"),  # 0.1(6)
        (r"(?<![0-9a-z])\.(?= *\\(?:overline|bar)\b)", "0."),
        (r"(?<=[0-9]) *(?:\\text\{ *)?(?:in )?\(?base ([0-9]{1,2})\)?(?: *\})?", r"_{\1}"),
        (r"\{ *, *\}|,\\! *|\\,(?=[0-9]{3}(?![0-9]))(?<=[0-9]\\,)", "\x01"),  # a comma of thousands, as LaTeX spaces it
        (r"(?<!\\)\\[,!;:> ]|(?<!\\)~", " "),
        (r"\\\$", r"\\dollar "),  # money
        (r"\\\\ *\[[0-9.]+ *[a-z]{2}\]", r"\\\\"),  # the space between rows
        (r"\.\.\.", r"\\ldots "),
        (r"(?<=[0-9]) x (?=10 ?\^)", "*"),  # 3 x 10^8
        (r"(?<!\\)\$|(?<!\\)\\[()\[\]]", " "),  # math delimiters
        (r"(?<=[0-9]) *\x01 *(?=[0-9]{3}(?![0-9]))", ""),
        (r"\x01", ","),
        (r"\\math(?:bb|cal|frak) *\{? *([A-Z]) *\}?", r" \\\1 "),
        (r"(?<=[0-9]) (?=[0-9]{3}(?![0-9/]))(?<![0-9]{4} )", ""),  # 58 500
        (r"\bnp\.|\bmath\.", ""),
        (r"^\*\*([^*]*)\*\*$", r"\1"),  # bold
        (r"(?<![a-zA-Z])([apAP])\. ?([mM])(?![a-zA-Z])\.?", r"\1\2"),  # p.m.
        (r"\^ *(?:\{ *\\(?:circ|degree) *\}|\\(?:circ|degree)(?![a-z]))", r"\\circ "),
        (r"\^ *(?:\{ *((?:\\prime *)+)\}|((?:\\prime(?![a-z]) *)+))", r"\1\2"),
        (r"\\prime(?![a-z])", "'"),
        (r"\\textcolor *\{[a-zA-Z]*\}|\\color *\{[a-zA-Z]*\}|\\phantom *(?:\{[^{}]*\}|\S)", " "),
    )
]
_THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4}(?![0-9]))?)"
    r"|(?P<word>[a-zA-Z]+)|\\(?P<command>[a-zA-Z]+)\*?|(?P<sign>\\\\|\\[{}%&#_|]|<=|>=|!=|\*\*|\\.|\S)"
)
_SIGNS = {r"\%": "%", r"\|": "|", "<=": r"\le", ">=": r"\ge", "!=": r"\ne", "**": "^", r"\&": "&"}


@lru_cache(maxsize=512)
def read(text):
    """An answer of at most MAX_EXPRESSION characters. Never raises Unreadable: the tree then says so."""
    try:
        cleaned = _cleaned(text)
    except Unreadable:
        return Answer(Node("unreadable", (), ""), "", "", "", False)
    joined = _THOUSANDS.sub(lambda number: _joined(number, cleaned), cleaned)
    try:
        tokens = _tokens(joined)
        key = _key(tokens)
        node = _tree(tokens, key)
        if node.kind == "number" and joined != cleaned:
            node = node._replace(args=(_tree(_tokens(cleaned), key),))
    except Unreadable:
        tokens, key = [], re.sub(r"\s+", "", cleaned)
        node = Node("unreadable", (), key)
    spoken = all(token.kind in ("word", "number") or token.text in ".'!?" for token in tokens)
    words = _words(tokens) if spoken and any(token.kind == "word" and len(token.text) > 1 for token in tokens) else ""
    return Answer(node, key, words, *_choice(tokens))


def _joined(number, text):
    """A number without its commas; but within brackets, as in (100,200), they separate."""
    before = text[: number.start()]
    inside = before.count("(") + before.count("[") + before.count(r"\{") > (
        before.count(")") + before.count("]") + before.count(r"\}")
    )
    return number[0] if inside else number[0].replace(",", "")


def _cleaned(text):
    """One spelling for spaces, commas of thousands, degrees; without the box around all."""
    text = " ".join(text.translate(_CHARACTERS).split())
    if not text.isprintable():
        raise Unreadable("characters that no answer has")
    for pattern, replacement in _SUBSTITUTIONS:
        text = pattern.sub(replacement, text)
    text = text.translate(_RAISED)
    text = text.strip().rstrip(".,; ").strip()
    box = re.match(r"\\(?:boxed|fbox) *(?=\{)", text)
    if box:
        inside, end = _group(text, box.end())
        text = inside.strip().rstrip(".,; ").strip() if end == len(text) else text
    return text


def _tokens(text, upright=False, depth=0):
    """The tokens of a cleaned text; the insides of \\text{…} are tokens too, and upright."""
    tokens, position, spaced = [], 0, False
    while position < len(text):
        if text[position] == " ":
            position, spaced = position + 1, True
            continue
        match = _TOKEN.match(text, position)
        kind, token, position = match.lastgroup, match[match.lastgroup], match.end()
        if kind == "command":
            token = _SPELLINGS.get(token, token)
            if token in _IGNORED:
                position = _after_delimiter(text, position) if token in ("left", "right") else position
                spaced = True
                continue
            if token in _UPRIGHT:
                inside, position = _group(text, position)
                if depth > 3:
                    raise Unreadable("nested text")
                inner = _tokens(inside, True, depth + 1)
                tokens += [inner[0]._replace(spaced=spaced or inner[0].spaced), *inner[1:]] if inner else []
                spaced = inside.endswith(" ")
                continue
            kind, token = ("command", token) if token.isalpha() else ("sign", token)
        token = _SIGNS.get(token, token) if kind == "sign" else token
        kind, token = ("command", token[1:]) if token in (r"\le", r"\ge", r"\ne") else (kind, token)
        tokens.append(Token(kind, token, spaced, upright))
        spaced = False
        if len(tokens) > MAX_TOKENS:
            raise Unreadable("too many tokens")
    return tokens


def _after_delimiter(text, position):
    """The position after `\\left.` and `\\right.`, which show nothing."""
    dot = re.compile(r" *\.").match(text, position)
    return dot.end() if dot else position


def _group(text, position):
    """The inside of the braces at a position, and the position after them; a single character does without."""
    while text[position : position + 1] == " ":
        position += 1
    if text[position : position + 1] != "{":
        return text[position : position + 1], position + 1
    depth = 0
    for end in range(position, len(text)):
        if text[end - 1] != "\\" or end == position:
            depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            return text[position + 1 : end], end + 1
    raise Unreadable("a brace is not closed")


def _key(tokens):
    """What equal texts have in common. Letters alone have no case: choices and words."""
    parts = []
    for i, token in enumerate(tokens):
        digits = token.kind == "number" and i > 0 and tokens[i - 1].kind == "number"
        parts.append((" " if digits else "") + ("\\" if token.kind == "command" else "") + token.text)
    key = re.sub(r"\{([0-9a-zA-Z])\}(?![0-9])", r"\1", "".join(parts))
    key = key[1:-1] if re.fullmatch(r"\{[^{}]*\}", key) else key
    return key.lower() if key.isalpha() else key


def _choice(tokens):
    """The letter of `C`, `(C)`, `(C) 42`, `C. 42`, and whether it is all; "" if there is none."""
    texts = [token.text for token in tokens]
    if len(texts) > 1 and texts[0].lower() in ("option", "choice"):
        del texts[0]
    texts = texts[:1] if len(texts) == 2 and texts[1] == ")" else texts
    if len(texts) == 1 and re.fullmatch("[a-jA-JP]", texts[0]):
        return texts[0].upper(), True
    if len(texts) == 3 and texts[0] == "(" and texts[2] == ")" and re.fullmatch("[a-jA-J]", texts[1]):
        return texts[1].upper(), True
    if len(texts) > 3 and texts[0] == "(" and texts[2] == ")":
        letter, rest = texts[1], texts[3:]
    elif len(texts) > 2 and (texts[1] == ")" or (texts[1] in (".", ":") and tokens[2].spaced)):
        letter, rest = texts[0], texts[2:]
    else:
        return "", False
    hedged = any(text.lower() in ("or", "and", "not") or re.fullmatch("[A-J]", text) for text in rest)
    return (letter, False) if re.fullmatch("[A-J]", letter) and not hedged else ("", False)


# ---------------------------------------------------------------- reading: words

_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc sinh cosh tanh coth sech csch arcsin arccos arctan arccot arcsec arccsc arcsinh arccosh "
    "arctanh asin acos atan arsinh arcosh artanh ln log lg exp".split()
)
_ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "arcsinh": "arsinh", "arccosh": "arcosh"}
_ALIASES |= {"arctanh": "artanh", "cosec": "csc"}
_GREEK = frozenset(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar mho aleph ldots".split()
)
_SETS = frozenset("RZQNC")
_OF_LISTS = frozenset("gcd lcm max min".split())
_INFINITE = frozenset("infinity inf infty oo".split())
_REALS = frozenset(["all real number", "all real", "real number", "set of real number", "set of all real number"])
_NUMBER_WORDS = {word: i for i, word in enumerate(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty".split()
)}  # fmt: skip
_NUMBER_WORDS |= dict(zip("thirty forty fifty sixty seventy eighty ninety".split(), range(30, 100, 10), strict=True))
_MULTIPLIERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_UNIT_SPELLINGS = (
    "m meter meters metre metres;cm centimeter centimeters centimetre centimetres;mm millimeter millimeters;"
    "km kilometer kilometers kilometre kilometres;inch inches in;foot feet ft;yard yards yd;mile miles mi;"
    "s second seconds sec secs;minute minutes min mins;hour hours hr hrs h;day days;week weeks;month months;"
    "year years yr yrs;gram grams g;kg kilogram kilograms;mg milligram milligrams;pound pounds lb lbs;"
    "ounce ounces oz;ton tons;liter liters litre litres L l;ml mL milliliter milliliters;gallon gallons gal;"
    "dollar dollars USD usd buck bucks;cent cents;euro euros;degree degrees deg;radian radians rad rads;unit units;"
    "N newton newtons;J joule joules;W watt watts;V volt volts;K kelvin kelvins;Hz hertz;Pa;mol moles mole;"
    "pm;am;erg ergs;eV;AU au;pc parsec parsecs;nm;AA angstrom angstroms;yuan;rupee rupees;acre acres;"
    "percent pct;C celsius;"
    "F fahrenheit"
)
_UNITS = {name: names.split()[0] for names in _UNIT_SPELLINGS.split(";") for name in names.split()}
_LETTER_UNITS = frozenset("mgshLNJKWV")  # which a lone letter after a number and a space may mean
_COMPOUND_UNITS = {
    "mph": (("mile", 1), ("hour", -1)),
    "kph": (("km", 1), ("hour", -1)),
    "fps": (("foot", 1), ("s", -1)),
}
_NOT_A_UNIT = frozenset(
    "not point plus minus times over mod modulo remainder squared cubed factorial infinity half halves third thirds "
    "quarter quarters is are was be but if when where because maybe perhaps probably about approximately roughly least "
    "most more less than else wrong incorrect unknown for only between from with without however so then as at by "
    "false true yes no none never either neither both except unless solution solutions answer digits base".split()
)
_REFUSED_SIGNS = frozenset('@#`"=<>^{}[]_\\*|~;')


def _tree(tokens, key):
    """The tree of tokens: of mathematics if they can be read so, else of words."""
    if not tokens:
        return Node("nothing")
    if all(token.kind == "word" or token.text == "-" for token in tokens):
        number = _number_in_words([token for token in tokens if token.kind == "word"])
        if number is not None:
            return _number(number)
    members = _spoken_members(tokens)
    if members:
        return members
    try:
        stack = _bars(tokens)[::-1]
        node = _answer(stack, 0)
        if not stack:
            return node
    except Unreadable:
        pass
    plain = all(token.kind != "command" and token.text not in _REFUSED_SIGNS for token in tokens)
    if plain and any(token.kind == "word" and (token.upright or len(token.text) > 1) for token in tokens):
        return Node("text", (), _words(tokens))
    return Node("unreadable", (), key)


def _spoken_members(tokens):
    """A text, or a list of texts, if there is nothing but words and their separators, one of them a real word."""
    separators = [i for i, token in enumerate(tokens) if token.text.lower() in (",", ";", "and", "or")]
    if not all(token.kind == "word" or i in separators for i, token in enumerate(tokens)):
        return None
    starts, ends = [0] + [i + 1 for i in separators], [*separators, len(tokens)]
    members = [tokens[start:end] for start, end in zip(starts, ends, strict=True) if end > start]
    if len(members) > MAX_MEMBERS or not any(_is_spoken(word) for member in members for word in member):
        return None
    texts = tuple(Node("text", (), _words(member)) for member in members)
    if texts[0].value in _REALS and len(texts) == 1:
        return Node("symbol", (), r"\R")
    return texts[0] if len(texts) == 1 else Node("list", texts, ",")


def _is_spoken(word):
    """Ted and east are words; ab, AB, xyz and pi are not."""
    text = word.text
    if text in _FUNCTIONS or text in _ALIASES or text in _GREEK or text in ("pi", "sqrt") or text.lower() in _INFINITE:
        return False
    return len(text) > 3 or (len(text) > 1 and word.upright) or (len(text) > 2 and text.istitle())


def _number_in_words(words):
    """ "twenty-one" -> 21, "three hundred" -> 300; None if it is no number."""
    texts = [word.text.lower() for word in words]
    total = current = 0
    for i, text in enumerate(texts):
        if text in _NUMBER_WORDS:
            value, previous = _NUMBER_WORDS[text], _NUMBER_WORDS.get(texts[i - 1], 0) if i else 0
            if i and texts[i - 1] in _NUMBER_WORDS and not (previous >= 20 > value and value < 10):
                return None
            current += value
        elif text in _MULTIPLIERS and i and text != "dozen":
            current *= _MULTIPLIERS[text]
            total, current = (total + current, 0) if text != "hundred" else (total, current)
        else:
            return None
    return total + current if texts else None


def _words(tokens):
    """Words without case, articles, points and spaces; a last plural s is dropped."""
    texts = [token.text.lower() for token in tokens if token.text not in (".", ",", "'", "-", "!", "?", "(", ")")]
    while len(texts) > 1 and texts[0] in ("the", "a", "an"):
        del texts[0]
    texts[-1] = _singular(texts[-1])
    return " ".join(texts)


def _singular(word):
    """An English word without the ending of its plural, or what looks like one."""
    if word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    return word if len(word) < 4 or word.endswith("ss") else word.removesuffix("s")


# ---------------------------------------------------------------- reading: the grammar

_OPERATORS = frozenset(["+", "-", "*", "/", "^", "_", "(", "[", "{", r"\{", ",", ";", "=", "<", ">", ":", "|(", "&"])
_RELATIONS = {"=": "=", "<": "<", ">": ">"}
_RELATION_COMMANDS = {"le": "≤", "ge": "≥", "ne": "≠", "approx": "≈", "in": "∈", "notin": "∉", "equiv": "≡"}
_NAMED = {"pi": Node("constant", (), "pi"), "infty": Node("constant", (), "infinity"), "emptyset": Node("set")}
_CLOSERS = {"(": ")]", "[": "])", "{": "}", r"\{": r"\}"}
_MONEY = {r"\dollar": "dollar", r"\euro": "euro", r"\pounds": "pound", r"\yen": "yen"}
_MATRICES = frozenset("pmatrix bmatrix matrix Bmatrix smallmatrix array".split())


def _bars(tokens):
    """Each | as what opens or closes an absolute value: it closes one that is open, unless an operand must follow."""
    count = sum(token.text == "|" for token in tokens)
    result, opened = [], 0
    for i, token in enumerate(tokens):
        if token.text == "|" and count % 2 == 0:
            operand = i > 0 and tokens[i - 1].text not in _OPERATORS and tokens[i - 1].text not in ("le", "ge", "ne")
            operand = operand and not (result and result[-1].text == "|(")
            closes = opened > 0 and operand
            opened += -1 if closes else 1
            token = token._replace(text=")|" if closes else "|(")
        result.append(token)
    return result


def _peek(tokens, *texts):
    """Whether the next token is one of these; commands are written with their backslash."""
    return bool(tokens) and _text(tokens[-1]) in texts


def _text(token):
    return "\\" + token.text if token.kind == "command" else token.text


def _accept(tokens, *texts):
    """The next token's text, taken, if it is one of these, else ""."""
    return _text(tokens.pop()) if _peek(tokens, *texts) else ""


def _expect(tokens, *texts):
    text = _accept(tokens, *texts)
    if not text:
        raise Unreadable(f"no {texts[0]}")
    return text


def _separator(tokens):
    """The separator of list members that comes next, taken: ",", ";", "or", "and", or "". `, and` is one."""
    found = ""
    while tokens:
        text = tokens[-1].text.lower() if tokens[-1].kind == "word" else _text(tokens[-1])
        if text not in (",", ";", "and", "or", r"\and", r"\or"):
            break
        found = text.lstrip("\\")
        tokens.pop()
    return found


def _answer(tokens, depth):
    """answer = item (separator item)*; where commas and semicolons both stand, a semicolon ends a list."""
    items, separators = [_item(tokens, depth)], []
    while tokens:
        separator = _separator(tokens)
        if not separator or not tokens or _peek(tokens, ")", "]", "}", r"\}"):
            break
        separators.append(separator)
        items.append(_item(tokens, depth))
        if len(items) > MAX_MEMBERS:
            raise Unreadable("too many members")
    if len(items) == 1:
        return items[0]
    if {",", ";"} <= set(separators):
        ends = [i + 1 for i, separator in enumerate(separators) if separator == ";"]
        groups = [items[start:end] for start, end in zip([0, *ends], [*ends, len(items)], strict=True)]
        items = [group[0] if len(group) == 1 else Node("list", tuple(group), ",") for group in groups]
    return Node("list", tuple(items), "and" if set(separators) == {"and"} else ",")


def _item(tokens, depth):
    """item = side (relation side)*"""
    if _accept(tokens, r"\approx", "="):
        return _side(tokens, depth)
    sides, operators = [_side(tokens, depth, label=True)], []
    while tokens:
        token = tokens[-1]
        relation = _RELATION_COMMANDS.get(token.text) if token.kind == "command" else _RELATIONS.get(token.text)
        if token.text == "in" and len(tokens) > 1 and tokens[-2].text in ("(", "[", "{", r"\{", "R"):
            relation = "∈"
        if relation is None:
            break
        tokens.pop()
        if relation == "=" and _accept(tokens, ">", "="):
            raise Unreadable("an arrow")
        operators.append(relation)
        sides.append(_side(tokens, depth))
    return Node("relation", tuple(sides), tuple(operators)) if operators else sides[0]


def _side(tokens, depth, label=False):
    """side = ratio (set operator ratio)*; a word before "=" names what is equal."""
    if label:
        named = _word_label(tokens)
        if named:
            return named
    parts, operators = [_ratio(tokens, depth)], []
    while _peek(tokens, r"\cup", r"\cap", r"\setminus", r"\bigcup") or (
        _peek(tokens, "U") and parts[-1].kind in ("brackets", "set") and len(tokens) > 1
    ):
        operators.append(tokens.pop().text)
        parts.append(_ratio(tokens, depth))
    node = parts[0]
    for operator, part in zip(operators, parts[1:], strict=True):
        kind = {"cup": "union", "U": "union", "bigcup": "union", "cap": "intersection"}.get(operator, "difference")
        node = Node(kind, (*node.args, part) if node.kind == kind == "union" else (node, part))
    return node


def _word_label(tokens):
    """The words before "=", in `Area = 5`, as one letter."""
    words = 0
    while words < min(len(tokens) - 1, 4) and tokens[-1 - words].kind == "word":
        words += 1
    texts = [token.text for token in tokens[-1 : -1 - words : -1]]
    if not words or _text(tokens[-1 - words]) != "=" or any(text in _FUNCTIONS for text in texts):
        return None
    if not any((len(text) > 2 or tokens[-1].upright) and not text.isupper() for text in texts):
        return None
    del tokens[-words:]
    return Node("symbol", (), " ".join(texts).lower())


def _ratio(tokens, depth):
    """ratio = quantity ((":" | "to") quantity)*"""
    parts = [_quantity(tokens, depth)]
    while _peek(tokens, ":") or (_peek(tokens, "to") and tokens[-1].kind == "word"):
        tokens.pop()
        parts.append(_quantity(tokens, depth))
    if len(parts) > 1 and parts[-1].kind == "quantity" and parts[-1].value[0][0] in ("am", "pm"):
        raise Unreadable("a time is no ratio")
    return Node("ratio", tuple(parts)) if len(parts) > 1 else parts[0]


def _quantity(tokens, depth):
    """quantity = ["\\$"] sum ["%" | unit]"""
    if depth > MAX_NESTING:
        raise Unreadable("nested too deep")
    if len(tokens) > 1 and tokens[-1].text == "-" and _text(tokens[-2]) in _MONEY:
        tokens[-2:] = tokens[-1:-3:-1]  # -\$5 is \$-5
    money = _accept(tokens, *_MONEY)
    node = _sum(tokens, depth)
    if _accept(tokens, "%"):
        return Node("quantity", (node,), (("%", 1),))
    money = _MONEY.get(_accept(tokens, *_MONEY) or money)
    factor, unit = _unit(tokens, node) if tokens and _starts_unit(tokens) else (1, ())
    if factor != 1:
        node = Node("product", (_number(factor), node))
    if money:
        unit = ((money, 1), *(part for part in unit if part != (money, 1)))
    return Node("quantity", (node,), unit) if unit else node


def _starts_unit(tokens):
    """Whether a word comes next that is a unit, not letters to be multiplied."""
    token = tokens[-1]
    if token.kind != "word" or token.text.lower() in ("and", "or", "to"):
        return False
    if token.text == "in" and len(tokens) > 1 and tokens[-2].text in ("(", "[", "{", r"\{", "R"):
        return False  # x in [0, 1]
    if len(token.text) == 1:
        return token.upright and (token.text in _UNITS or (token.spaced and token.text.isupper()))
    low = token.text.lower()
    known = (
        token.text in _UNITS or low in _UNITS or low in _MULTIPLIERS or low in ("sq", "cu") or low in _COMPOUND_UNITS
    )
    return known or token.upright or (len(token.text) > 3 and _is_spoken(token))


def _unit(tokens, number):
    """The factor and the unit of the words that come next: cm^2, square inches, m/s, miles per hour, million dollars.

    The unit is a tuple of (name, exponent). Unreadable if the words say anything that units do not.
    """
    parts, factor, sign, power = [], 1, 1, 1
    while tokens and len(parts) < 6:
        token = tokens[-1]
        word = token.text.lower() if token.kind == "word" else ""
        if word in ("and", "or") or (not word and token.text not in ("/", "^", "*", ".", "-", "%")):
            break
        tokens.pop()
        if word in _MULTIPLIERS and not parts:
            factor *= _MULTIPLIERS[word]
        elif word in _NOT_A_UNIT:
            raise Unreadable(f"{word} is no unit")
        elif token.text in ("/",) or word == "per":
            sign = -1
        elif word in _COMPOUND_UNITS:
            parts += _COMPOUND_UNITS[word]
        elif word in ("square", "sq", "cubic", "cu"):
            power = 2 if word[0] == "s" else 3
        elif word:
            name = _UNITS.get(token.text) or _UNITS.get(word) or _singular(word)
            parts.append((name if name != "percent" else "%", sign * power))
            power = 1
        elif token.text == "^" and parts:
            parts[-1] = (parts[-1][0], sign * _unit_exponent(tokens))
    if tokens and number.kind == "list":
        raise Unreadable("a unit of a list")
    return factor, tuple(parts)


def _unit_exponent(tokens):
    """An integer of one digit, in braces or not."""
    braces = _accept(tokens, "{")
    sign = -1 if _accept(tokens, "-") else 1
    token = tokens.pop() if tokens else None
    if token is None or token.text not in tuple("123456789"):
        raise Unreadable("the exponent of a unit")
    if braces:
        _expect(tokens, "}")
    return sign * int(token.text)


def _sum(tokens, depth):
    """sum = [sign] product (sign product)*"""
    terms = []
    sign = _accept(tokens, "+", "-", r"\pm", r"\mp") or "+"
    while True:
        while _peek(tokens, "+", "-"):  # a sign may follow a sign
            sign = {"+": sign, "-": {"+": "-", "-": "+"}.get(sign, sign)}[tokens.pop().text]
        terms.append(_signed(sign, _product(tokens, depth)))
        sign = _accept(tokens, "+", "-", r"\pm", r"\mp")
        if not sign:
            return terms[0] if len(terms) == 1 else _added(terms)


def _signed(sign, node):
    if sign == "+":
        return node
    return _negative(node) if sign == "-" else Node("signs", (node,), sign == r"\pm")


def _negative(node):
    if node.kind == "number":
        return _number(-node.value)
    if node.kind == "decimal":
        return node._replace(value=(-node.value[0], *node.value[1:]))
    if node.kind == "matrix":
        return node._replace(args=tuple(_negative(cell) for cell in node.args))
    return Node("product", (_number(-1), node))


def _added(terms):
    """A sum; matrices and tuples are added by cell, and a set is taken away from another."""
    if len(terms) == 2 and terms[1].kind == "product" and terms[1].args[1].kind == "set":
        return Node("difference", (terms[0], terms[1].args[1]))
    shapes = {(term.kind, term.value, len(term.args)) for term in terms if term.kind in ("matrix", "brackets")}
    if not shapes:
        return Node("sum", tuple(terms))
    kind, value, _ = next(iter(shapes))
    if len(shapes) > 1 or any(term.kind != kind for term in terms):
        raise Unreadable("a sum of different shapes")
    cells = zip(*(term.args for term in terms), strict=True)
    return Node(kind, tuple(Node("sum", tuple(cell)) for cell in cells), value)


def _multiplied(factors):
    """A product; a matrix or column takes its factors inside."""
    matrices = [factor for factor in factors if factor.kind == "matrix"]
    if len(matrices) != 1 or len(factors) == 1:
        return factors[0] if len(factors) == 1 else Node("product", tuple(factors))
    others = tuple(factor for factor in factors if factor.kind != "matrix")
    return matrices[0]._replace(args=tuple(Node("product", (*others, cell)) for cell in matrices[0].args))


def _product(tokens, depth):
    """product = factor (["*" | "/"] factor)*, but not a/bc, which is read both ways, unless a and b are numbers"""
    factors, divided, unit = [_factor(tokens, depth)], False, False
    while tokens:
        if _accept(tokens, r"\bmod"):
            factors = [Node("mod", (_multiplied(factors), _factor(tokens, depth)))]
            continue
        sign = _accept(tokens, "*", "/")
        if not sign and not _starts_factor(tokens, factors[-1]):
            break
        if not sign and divided:
            numbers = all(_is_number(factor) for factor in factors)
            if not (numbers and len(factors) == 2 and tokens[-1].kind == "word" and len(tokens[-1].text) == 1):
                raise Unreadable("a/bc")
        juxtaposed = not sign and factors[-1].kind in ("number", "decimal") and not divided
        if juxtaposed and tokens[-1].kind == "number":
            raise Unreadable("two numbers side by side")
        apart = juxtaposed and (tokens[-1].spaced or factors[-1].kind == "decimal")
        unit = unit or (apart and tokens[-1].text in _LETTER_UNITS and len(factors) == 1)
        factor = _factor(tokens, depth)
        divided = sign == "/"
        factors.append(Node("inverse", (factor,)) if divided else factor)
    node = _multiplied(factors)
    return node._replace(value="perhaps a unit") if unit and node.kind == "product" else node


def _is_number(node):
    return node.kind in ("number", "decimal") or (node.kind == "inverse" and node.args[0].kind == "number")


_STARTS = frozenset(["(", "[", "{", "|(", r"\{"])
_STOPS = frozenset(
    r"\le \ge \ne \approx \in \notin \equiv \cup \cap \setminus \pm \mp \and \or \rfloor \rceil \rangle \end \choose "
    r"\over \circ \mid \dollar \euro \pounds \yen \bigcup \rightarrow \mod \bmod".split()
)


def _starts_factor(tokens, previous):
    """Whether what comes next is multiplied without a sign."""
    token = tokens[-1]
    if token.kind == "word":
        if token.text.lower() in ("and", "or", "to", "in") or _starts_unit(tokens):
            return False
        return not (token.text == "U" and previous.kind in ("brackets", "set"))
    if token.kind == "command":
        return _text(token) not in _STOPS
    return token.kind == "number" or token.text in _STARTS


def _factor(tokens, depth):
    """factor = sign factor | atom postfix*"""
    if depth > MAX_NESTING:
        raise Unreadable("nested too deep")
    if _peek(tokens, "+", "-", r"\pm", r"\mp"):
        sign = _text(tokens.pop())
        return _signed(sign, _factor(tokens, depth + 1))
    node = _atom(tokens, depth + 1)
    while tokens:
        token = tokens[-1]
        if token.text == "^" and token.kind == "sign":
            tokens.pop()
            node = _raised(node, tokens, depth)
            if _peek(tokens, "^"):
                raise Unreadable("a^b^c")
        elif token.text == "!" and token.kind == "sign":
            tokens.pop()
            if _peek(tokens, "!"):
                raise Unreadable("a!!")
            node = Node("factorial", (node,))
        elif _accept(tokens, r"\circ"):
            scale = tokens.pop().text if _peek(tokens, "C", "F") else ""
            node = Node("quantity", (node,), (("degree", 1), (scale, 1))) if scale else Node("degrees", (node,))
        elif token.text == "_" and node.kind == "number":
            tokens.pop()
            node = _based(node, tokens)
        else:
            return node
    return node


def _raised(node, tokens, depth):
    """A power, and the transpose of a matrix."""
    if node.kind in ("matrix", "brackets") and _peek(tokens, "T", r"\top", "{"):
        braces = _accept(tokens, "{")
        if _accept(tokens, "T", r"\top") and (not braces or _accept(tokens, "}")):
            return _transposed(node)
        raise Unreadable("a power of a matrix")
    return Node("power", (node, _exponent(tokens, depth)))


def _transposed(node):
    if node.kind == "brackets":  # a row; as a tuple it stands for the column too
        return node._replace(value="()")
    rows, columns = node.value
    cells = tuple(node.args[row * columns + column] for column in range(columns) for row in range(rows))
    return Node("matrix", cells, (columns, rows))


def _exponent(tokens, depth):
    """2^{10}, 2^10 as typed, e^-x, x^\\frac12"""
    if _accept(tokens, "-"):
        return _negative(_exponent(tokens, depth + 1))
    if depth > MAX_NESTING:
        raise Unreadable("nested too deep")
    if tokens and tokens[-1].kind == "number":
        return _literal(tokens.pop().text)
    return _argument(tokens, depth)


def _based(node, tokens):
    """204_5: the digits as they are written, and the base."""
    braces = _accept(tokens, "{")
    token = tokens.pop() if tokens else None
    if token and token.kind == "word" and token.text == "base" and tokens:
        token = tokens.pop()
    base = _NUMBER_WORDS.get(token.text.lower(), token.text) if token else ""
    if braces:
        _expect(tokens, "}")
    if not re.fullmatch("[0-9]{1,2}", str(base)) or node.value.denominator != 1 or node.value < 0:
        raise Unreadable("a base")
    return Node("base", (node,), int(base))


def _argument(tokens, depth):
    """What one LaTeX command takes: a group, a command, or one character (`\\frac12` is 1/2)."""
    if not tokens:
        raise Unreadable("no argument")
    token = tokens[-1]
    if token.kind in ("number", "word") and len(token.text) > 1 and not token.upright:
        if token.kind == "word" and (token.text in _FUNCTIONS or token.text in ("pi", "sqrt")):
            return _atom(tokens, depth + 1)
        if not token.text.isalnum():
            raise Unreadable("half a decimal")
        tokens.pop()
        tokens += [token._replace(text=token.text[1:], spaced=False), token._replace(text=token.text[0])]
    if tokens[-1].kind == "number":
        return _literal(tokens.pop().text)
    return _atom(tokens, depth + 1)


def _literal(text):
    """A number as it is written; a decimal keeps its places and significant digits."""
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > MAX_DIGITS or abs(int(exponent or 0)) > MAX_EXPONENT:
        raise Unreadable("too many digits")
    whole, point, places = mantissa.partition(".")
    value = Fraction(int(whole + places or "0"), 10 ** len(places)) * Fraction(10) ** int(exponent or 0)
    if not point or exponent:
        return _number(value)
    return Node("decimal", (), (value, len(places), len((whole + places).lstrip("0"))))


def _number(value):
    return Node("number", (), Fraction(value))


def _atom(tokens, depth):
    """An atom; see the grammar."""
    if depth > MAX_NESTING or not tokens:
        raise Unreadable("nested too deep, or nothing there")
    token = tokens[-1]
    if token.kind == "number":
        return _numeral(tokens, depth)
    if token.kind == "word":
        return _word(tokens, depth)
    if token.kind == "command":
        return _command(tokens, depth)
    tokens.pop()
    if token.text == "|(":
        node = _sum(tokens, depth + 1)
        _expect(tokens, ")|")
        return Node("abs", (node,))
    if token.text in _CLOSERS:
        return _bracketed(tokens, depth, token.text)
    raise Unreadable(f"{token.text} starts nothing")


def _numeral(tokens, depth):
    """A number: 0.1\\overline{6}, 1\\frac34, 1 3/4, or what a literal says."""
    token = tokens.pop()
    whole = _literal(token.text)
    if _peek(tokens, r"\overline", r"\dot") and re.fullmatch(r"[0-9]*\.[0-9]*", token.text):
        return _repeating(token.text, tokens)
    if _peek(tokens, r"\ldots") and re.search(r"\.[0-9]{3,}$", token.text):
        tokens.pop()
        return _continued(token.text)
    if _peek(tokens, r"\frac") and whole.kind == "number" and whole.value.denominator == 1:
        part = _command(tokens, depth)
        if [inner.kind for inner in part.args] != ["number", "number"] or part.args[1].value == 0:
            return Node("product", (whole, part))
        value = part.args[0].value / part.args[1].value
        if not 0 < value < 1:
            raise Unreadable("2 3/2 is neither a mixed number nor clearly a product")
        return _number(whole.value + value)
    slash = [other.text for other in tokens[-3:]][::-1]
    if len(slash) == 3 and slash[1] == "/" and slash[0].isdigit() and slash[2].isdigit() and tokens[-1].spaced:
        del tokens[-3:]
        top, bottom = _literal(slash[0]).value, _literal(slash[2]).value
        if not 0 < top < bottom or whole.kind != "number" or whole.value.denominator != 1:
            raise Unreadable("neither a mixed number nor clearly a product")
        return _number(whole.value + top / bottom)
    return whole


def _repeating(text, tokens):
    """0.1\\overline{6}: the digits under the line repeat."""
    tokens.pop()
    braces = _accept(tokens, "{")
    token = tokens.pop() if tokens else None
    if token is None or token.kind != "number" or not token.text.isdigit() or len(token.text) > 40:
        raise Unreadable("no digits repeat")
    if braces:
        _expect(tokens, "}")
    fixed = _literal(text + "0").value[0]
    places = len(text.partition(".")[2])
    return _number(fixed + Fraction(int(token.text), (10 ** len(token.text) - 1) * 10**places))


def _continued(text):
    """0.333\\ldots: a decimal that goes on as its last digits repeat: three times, or twice if they are many."""
    places = text.partition(".")[2]
    for length in range(1, len(places) // 2 + 1):
        block, times = places[-length:], 3 if length == 1 else 2
        if places.endswith(block * times) and (length > 1 or block != "0"):
            fixed = _literal(text).value[0]
            return _number(fixed + Fraction(int(block), (10**length - 1) * 10 ** len(places)))
    raise Unreadable("nothing repeats")


def _word(tokens, depth):
    """A function, a constant, or letters: the first of them, the others are put back."""
    token = tokens.pop()
    text = token.text
    if text in _FUNCTIONS or _ALIASES.get(text):
        return _function(text, tokens, depth)
    if text in _OF_LISTS:
        return _of_list(text, tokens, depth)
    if text in ("sqrt", "cbrt"):
        return _root(tokens, depth, 3 if text == "cbrt" else 2)
    if text in ("pi", "Pi"):
        return Node("constant", (), "pi")
    if text.lower() in _INFINITE:
        return Node("constant", (), "infinity")
    if text in _GREEK:
        return _letter(text, tokens, depth)
    if len(text) > 1:
        start = next((name for name in ("sin", "cos", "tan", "ln", "log", "sqrt") if text.startswith(name)), None)
        if start and len(text) == len(start) + 1:
            tokens += [token._replace(text=text[-1], spaced=False), token._replace(text=start)]
            return _word(tokens, depth)
        if token.upright or (len(text) > 2 and text.istitle()) or len(text) > (6 if text.isupper() else 3):
            raise Unreadable(f"{text} is a word")
        tokens.append(token._replace(text=text[1:], spaced=False))
    return _letter(text[0], tokens, depth)


def _letter(name, tokens, depth):
    """A letter with its subscript and primes; or a function of the letter's name, applied."""
    if name == "e" or (name == "i" and not _peek(tokens, "_")):
        if not _peek(tokens, "_", "'"):
            return Node("constant", (), name)
    if _accept(tokens, "_"):
        name += "_" + _subscript(tokens)
    while _accept(tokens, "'"):
        name += "'"
    inverse = [token.text for token in tokens[-6:]][::-1] == ["^", "{", "-", "1", "}", "("]
    if inverse and name in "fgh":
        del tokens[-5:]
        name += "^-1"
    base = name[0] if len(name) < 3 or name[1] in "'^" else ""
    if (
        _peek(tokens, "(")
        and ((base and base in "fghFGHP") or _lone_argument(tokens))
        and (len(name) == 1 or name[1] != "_")
    ):
        tokens.pop()
        inside = _answer(tokens, depth + 1)
        _expect(tokens, ")")
        return Node("apply", inside.args if inside.kind == "list" else (inside,), name)
    return Node("symbol", (), name)


def _lone_argument(tokens):
    """Whether "(" and one letter or number and ")" come next: x(t) is a function of t, not a product."""
    if len(tokens) < 3 or tokens[-3].text != ")":
        return False
    inside = tokens[-2]
    return inside.kind in ("number", "command") or (inside.kind == "word" and len(inside.text) == 1)


def _subscript(tokens):
    """The text of a subscript: one token, or a group without braces in it."""
    if not _accept(tokens, "{"):
        if not tokens or tokens[-1].kind == "sign":
            raise Unreadable("no subscript")
        token = tokens.pop()
        if token.kind == "word" and len(token.text) > 1 and not token.upright:  # x_ab is x_a b
            tokens.append(token._replace(text=token.text[1:]))
            return token.text[0]
        return token.text
    parts = []
    while tokens and not _peek(tokens, "}"):
        parts.append(tokens.pop().text)
        if parts[-1] == "{":
            raise Unreadable("a group in a subscript")
    _expect(tokens, "}")
    return "".join(parts)


def _bar_of_builder(tokens, opening, closing):
    """The colon of {x : x > 3} is its bar."""
    depth = 0
    for i in range(len(tokens) - 1, -1, -1):
        text = tokens[i].text
        depth += (text in ("(", "[", opening)) - (text in (")", "]", closing))
        if depth < 0:
            return
        if depth == 0 and text == ":":
            tokens[i] = tokens[i]._replace(kind="command", text="mid")
            return


def _bracketed(tokens, depth, opening):
    """( … ), [ … ), { … } and \\{ … \\}: grouping, if there is one member, else a tuple, an interval, a set."""
    closers = _CLOSERS[opening]
    if opening == r"\{":
        _bar_of_builder(tokens, opening, closers)
    if _accept(tokens, r"\}" if opening == r"\{" else closers[0]):
        return Node("set") if opening in (r"\{", "{") else Node("brackets", (), opening + closers[0])
    inside = _answer(tokens, depth + 1)
    if opening in ("{", r"\{"):
        stacked = _accept(tokens, r"\choose", r"\over") if opening == "{" else ""
        if stacked:
            lower = _answer(tokens, depth + 1)
            _expect(tokens, "}")
            return Node("binomial" if stacked == r"\choose" else "fraction", (inside, lower))
        if _accept(tokens, "|", r"\mid", ":"):
            condition = _answer(tokens, depth + 1)
            _expect(tokens, closers)
            return Node("builder", (inside, condition))
        _expect(tokens, r"\}" if opening == r"\{" else "}")
        if opening == "{" and inside.kind != "list":
            return inside
        return Node("set", inside.args if inside.kind == "list" else (inside,))
    closing = _expect(tokens, *closers)
    if inside.kind == "list":
        return Node("brackets", inside.args, opening + closing)
    if opening + closing not in ("()", "[]"):
        raise Unreadable("half an interval")
    return inside if inside.kind != "quantity" or not inside.value else Node("group", (inside,))


def _command(tokens, depth):
    """A LaTeX command and what belongs to it."""
    name = tokens.pop().text
    if name == "frac":
        top = _argument(tokens, depth)
        return _fraction(top, _argument(tokens, depth))
    if name == "sqrt":
        return _root(tokens, depth)
    if name == "binom":
        top = _argument(tokens, depth)
        return Node("binomial", (top, _argument(tokens, depth)))
    if name in _FUNCTIONS or name in _ALIASES:
        return _function(name, tokens, depth)
    if name in ("pi", "infty", "emptyset") or name in _SETS:
        return _NAMED[name] if name in _NAMED else Node("symbol", (), "\\" + name)
    if name in ("lfloor", "lceil", "langle"):
        return _paired(name, tokens, depth)
    if name in ("sum", "prod"):
        return _series(name, tokens, depth)
    if name in _OF_LISTS:
        return _of_list(name, tokens, depth)
    if name == "begin":
        return _matrix(tokens, depth)
    if name in ("dot", "ddot", "hat", "vec", "overline", "tilde", "widehat", "overrightarrow", "angle", "triangle"):
        return _accented(name, tokens, depth)
    if name in _GREEK:
        return _letter(name, tokens, depth)
    raise Unreadable(f"\\{name}")


def _fraction(top, bottom):
    """A fraction; \\frac{dx}{dt} is a letter of that name, as x' is."""
    letters = [node.args[0] if node.kind == "product" else node for node in (top, bottom)]
    letters[0] = letters[0].args[0] if letters[0].kind == "power" else letters[0]
    if letters == [Node("symbol", (), "d")] * 2 and bottom.kind == "product":
        return Node("symbol", (), f"{show(top)}/{show(bottom)}")
    return Node("fraction", (top, bottom))


def _accented(name, tokens, depth):
    """\\dot{x}, \\overline{AB}, \\angle ABC: one letter of that name."""
    if _accept(tokens, "{"):
        parts = []
        while tokens and tokens[-1].kind in ("word", "command", "number") or _peek(tokens, "_"):
            parts.append(tokens.pop().text)
        _expect(tokens, "}")
    else:
        parts = []
        while tokens and (tokens[-1].kind == "word" or (_peek(tokens, "_") and name == "angle")) and len(parts) < 8:
            parts.append(tokens.pop().text if parts[-1:] != ["_"] else _subscript(tokens))
            if parts[-1] == "_":
                parts.append(_subscript(tokens))
            if name not in ("angle", "triangle"):
                break
        if not parts and tokens and tokens[-1].kind == "command":
            parts.append(tokens.pop().text)
    if not parts:
        raise Unreadable("nothing under an accent")
    return _letter(name + " " + "".join(parts), tokens, depth)


def _of_list(name, tokens, depth):
    """\\gcd(12, 18), \\max\\{1, 2\\}"""
    opening = _expect(tokens, "(", r"\{", "{")
    inside = _answer(tokens, depth + 1)
    _expect(tokens, _CLOSERS[opening][0] if opening == "(" else _CLOSERS[opening])
    return Node(name, inside.args if inside.kind == "list" else (inside,))


def _paired(name, tokens, depth):
    """Floor, ceiling, and the angle brackets of a vector."""
    inside = _answer(tokens, depth + 1)
    _expect(tokens, "\\r" + name[1:])
    if name == "langle":
        return Node("brackets", inside.args if inside.kind == "list" else (inside,), "()")
    return Node("floor" if name == "lfloor" else "ceiling", (inside,))


def _root(tokens, depth, degree=2):
    """\\sqrt{a}, \\sqrt[n]{a}, sqrt(a), \\sqrt13 as it is meant"""
    exponent = Node("fraction", (_number(1), _number(degree)))
    if _accept(tokens, "["):
        exponent = Node("fraction", (_number(1), _sum(tokens, depth + 1)))
        _expect(tokens, "]")
    if tokens and tokens[-1].kind == "number":
        return Node("power", (_literal(tokens.pop().text), exponent))
    return Node("power", (_argument(tokens, depth), exponent))


def _function(name, tokens, depth):
    """sin x, \\sin^2 x, \\sin^{-1} x, \\log_{10} 2, \\ln(x): without brackets the argument is all that follows."""
    if depth > MAX_NESTING:
        raise Unreadable("nested too deep")
    name = _ALIASES.get(name, name)
    base = _argument(tokens, depth) if name == "log" and _accept(tokens, "_") else None
    power = _exponent(tokens, depth + 1) if _accept(tokens, "^") else None
    if base is None and name == "log" and _accept(tokens, "_"):
        base = _argument(tokens, depth)
    if power == _number(-1) and (name in _TRIGONOMETRIC or name in ("sinh", "cosh", "tanh")):
        name, power = ("ar" if name.endswith("h") else "arc") + name, None
    if _peek(tokens, "(", "{", "[", "|("):
        argument = _atom(tokens, depth + 1)
        if _accept(tokens, "!"):
            argument = Node("factorial", (argument,))
    else:
        factors = [_factor(tokens, depth + 1)]
        while tokens and _starts_factor(tokens, factors[-1]) and not _peek(tokens, "(", "["):
            token = tokens[-1]
            if token.text in _FUNCTIONS and token.kind in ("command", "word") or token.text in _ALIASES:
                break
            factors.append(_factor(tokens, depth + 1))
        if (
            _peek(tokens, "/")
            and len(tokens) > 1
            and all(_is_number(f) or f == Node("constant", (), "pi") for f in factors)
        ):
            raise Unreadable("sin a/b is read both ways")
        argument = _multiplied(factors)
    if argument.kind in ("brackets", "set", "list", "relation", "quantity"):
        raise Unreadable("a function of a list")
    node = Node("function", (argument,) if base is None else (argument, base), name)
    return node if power is None else Node("power", (node, power))


def _series(name, tokens, depth):
    """\\sum_{k=1}^{n} product"""
    _expect(tokens, "_")
    _expect(tokens, "{")
    index = _word(tokens, depth) if tokens and tokens[-1].kind == "word" else None
    _expect(tokens, "=")
    first = _sum(tokens, depth + 1)
    _expect(tokens, "}")
    _expect(tokens, "^")
    last = _exponent(tokens, depth)
    body = _product(tokens, depth + 1)
    if index is None or index.kind not in ("symbol", "constant") or index.value in _symbols(first) | _symbols(last):
        raise Unreadable("no index")
    return Node(name, (first, last, body), index.value)


def _matrix(tokens, depth):
    """\\begin{pmatrix} a & b \\\\ c & d \\end{pmatrix}"""
    _expect(tokens, "{")
    name = tokens.pop().text if tokens else ""
    _expect(tokens, "}")
    if name not in _MATRICES:
        raise Unreadable(f"environment {name}")
    if name == "array" and _accept(tokens, "{"):
        while tokens and tokens.pop().text != "}":
            pass
    rows = [[]]
    while not _accept(tokens, r"\end"):
        rows[-1].append(_item(tokens, depth + 1))
        if sum(map(len, rows)) > MAX_CELLS:
            raise Unreadable("too many cells")
        if _accept(tokens, "\\\\"):
            if not _peek(tokens, r"\end"):
                rows.append([])
        elif not _accept(tokens, "&"):
            _expect(tokens, r"\end")
            break
    _expect(tokens, "{")
    _expect(tokens, name)
    _expect(tokens, "}")
    if len({len(row) for row in rows}) != 1:
        raise Unreadable("rows of different lengths")
    return Node("matrix", tuple(cell for row in rows for cell in row), (len(rows), len(rows[0])))


# ---------------------------------------------------------------- equality of structures

_INEQUALITIES = frozenset("<>≤≥")
_FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}
_SCALARS = frozenset(
    "number decimal symbol constant sum product inverse fraction power function degrees factorial binomial abs floor "
    "ceiling prod apply group gcd lcm max min mod".split()
)
_INFINITY = Node("constant", (), "infinity")
_MINUS_INFINITY = _negative(_INFINITY)


def _same(one, gold, depth=0):
    """The name of the rule by which two trees are equal, or "". Recursive by member; kind and brackets must match."""
    if depth > MAX_NESTING:
        raise Unreadable("nested too deep")
    one, gold = _settled(one), _settled(gold)
    kinds = {one.kind, gold.kind}
    if "text" in kinds or "false" in kinds or "nothing" in kinds:
        return "words" if one == gold and one.kind == "text" else ""
    if _is_region(one) or _is_region(gold):
        return _same_regions(one, gold, depth)
    if "equation" in kinds:
        return _same_equations(one, gold, depth)
    if kinds & {"list", "set"}:
        return _same_lists(one, gold, depth)
    if kinds & {"brackets", "matrix"}:
        return _same_cells(one, gold, depth)
    if "ratio" in kinds:
        return _same_ratios(one, gold)
    if "base" in kinds:
        return _same_bases(one, gold)
    return _same_quantities(one, gold)


def _settled(node):
    """A tree without what does not change its meaning: a list of one, a label's chain, degrees as a unit."""
    while node.kind in ("list", "group") and len(node.args) == 1:
        node = node.args[0]
    if node.kind == "relation" and set(node.value) <= {"=", "≈"}:
        return _chain(node)
    if node.kind == "relation" and node.value == ("∈",) and node.args[1].kind == "set":
        return _settled(node.args[1])
    if node.kind in _SCALARS and _has(node, "degrees"):
        return Node("quantity", (node,), (("degree", 1),))
    if node.kind == "quantity" and node.args[0].kind == "quantity":  # 5 dollars and \$5 in one
        inner = node.args[0]
        return Node("quantity", inner.args, inner.value + node.value)
    return node


def _chain(node):
    """x = 40 + 2 = 42 as the equation of x and 40 + 2; a chain whose links disagree is false, one without a name is
    its first exact value; two sides that differ are an equation."""
    sides, operators = list(node.args), list(node.value)
    label = None
    if _is_label(sides[0], sides[1:]):
        label = sides.pop(0)
        operators.pop(0)
    elif _is_label(sides[-1], sides[:-1]):
        label = sides.pop()
        operators.pop()
    true = all(
        _rounds(sides[i], sides[i + 1]) if operator == "≈" else _same(_signs(sides[i]), _signs(sides[i + 1]))
        for i, operator in enumerate(operators)
    )
    value = next((side for side in sides if side.kind != "decimal"), sides[0])
    if true:
        return Node("equation", (label, value), "named") if label else _settled(value)
    if label or len(sides) > 2 or not (_symbols(sides[0]) or _symbols(sides[1])):
        return Node("false")
    return Node("equation", tuple(sides), "plain")


def _rounds(one, other):
    """Whether one of two numbers is the other, rounded."""
    one, other = (side.args[0] if side.kind == "quantity" else side for side in (_settled(one), _settled(other)))
    for exact, rounded in (one, other), (other, one):
        if rounded.kind in ("number", "decimal") and exact.kind in _SCALARS and not _symbols(exact):
            slack = Fraction(1, 10 ** (rounded.value[1] if rounded.kind == "decimal" else 0))
            return _order(Node("abs", (Node("sum", (exact, _negative(rounded))),)), _number(slack)) < 0
    return False


def _is_label(node, others):
    """Whether a side of an equation only names the other: x, f(x), AB, |AB|, \\angle A, (p, q), a:b."""
    if node.kind == "symbol":
        return not any(node.value in _symbols(other) for other in others)
    if node.kind == "apply":
        return not any(node.value in _applied(other) for other in others)
    if node.kind == "constant":
        return node.value == "e" and not any(_has(other, "constant") for other in others)
    if node.kind == "abs":
        return _is_label(node.args[0], others) and node.args[0].kind == "product"
    if node.kind == "product":
        return all(factor.kind == "symbol" and factor.value[0].isupper() for factor in node.args) and not any(
            _symbols(other) for other in others
        )
    if node.kind in ("brackets", "ratio"):
        return all(member.kind == "symbol" for member in node.args)
    return False


def _same_equations(one, gold, depth):
    """Named alike and equal in value, or equivalent: equal up to moved terms and a nonzero factor."""
    if one.kind != gold.kind:
        equation, other = (one, gold) if one.kind == "equation" else (gold, one)
        if equation.value != "named":
            return ""
        value = equation.args[1]
        return _same(other, _signs(value), depth + 1) if equation is gold else _same(_signs(value), other, depth + 1)
    (name, value), (gold_name, gold_value) = one.args, gold.args
    if one.value == gold.value == "named":
        value, named = _renamed(name, value, gold_name)
        if named:
            return _same(_signs(value), _signs(gold_value), depth + 1)
        if {name.kind, gold_name.kind} & {"apply", "brackets"}:
            return ""
    if all(side.kind in _SCALARS for side in (*one.args, *gold.args)):
        difference = Node("sum", (name, _negative(value)))
        gold_difference = Node("sum", (gold_name, _negative(gold_value)))
        return "equation" if _factor_between(difference, gold_difference) else ""
    return ""


def _renamed(name, value, gold_name):
    """(value, whether the names agree), a function's letter put as in the gold: f(t) = t^2 is f(x) = x^2; y is f(x)."""
    if name == gold_name:
        return value, True
    kinds = {name.kind, gold_name.kind}
    if kinds == {"symbol", "apply"}:
        return value, (name if name.kind == "symbol" else gold_name).value == "y"
    if kinds != {"apply"} or name.value != gold_name.value or len(name.args) != len(gold_name.args):
        return value, False
    pairs = list(zip(name.args, gold_name.args, strict=True))
    if any(letter.kind != "symbol" for pair in pairs for letter in pair):
        return value, False
    return _substituted(value, {letter.value: gold_letter for letter, gold_letter in pairs}), True


def _same_lists(one, gold, depth):
    """Each member has one of its own on the other side; a bare list may stand for a tuple in its order."""
    for listed, other in (one, gold), (gold, one):
        if listed.kind == "list" and other.kind in ("brackets", "matrix"):
            ordered = Node("brackets", listed.args, other.value if other.kind == "brackets" else "()")
            plain = other.kind == "matrix" or other.value == "()" or (other.value == "[]" and len(other.args) > 2)
            return _same_cells(ordered, other, depth) if plain else ""
    members = one.args if one.kind in ("list", "set") else (one,)
    golds = list(gold.args if gold.kind in ("list", "set") else (gold,))
    if len(members) != len(golds) or len(members) > 2 * MAX_MEMBERS:
        return ""
    for member in members:  # greedy: equality leaves no choice that matters
        match = next((i for i, other in enumerate(golds) if _same_or_undefined(member, other, depth + 1)), None)
        if match is None:
            return ""
        del golds[match]
    return "list"


def _same_or_undefined(one, gold, depth):
    """`_same`; a member without a value equals none."""
    try:
        return _same(one, gold, depth)
    except Undefined:
        return ""


def _same_cells(one, gold, depth):
    """Tuples, intervals and matrices, cell by cell; a column or row may be written as a tuple, rows as tuples."""
    shapes, cells = zip(*(_cells(node) for node in (one, gold)), strict=True)
    loose = "vector" in shapes and {*shapes} <= {"()", "[]", "vector"}
    if shapes[0] is None or (shapes[0] != shapes[1] and not loose) or len(cells[0]) != len(cells[1]):
        return ""
    same = all(_same(_signs(a), _signs(b), depth + 1) for a, b in zip(*cells, strict=True))
    return ("matrix" if one.kind == "matrix" or gold.kind == "matrix" else "tuple") if same else ""


def _cells(node):
    """(shape, cells): the brackets of a tuple, "vector" of a column or row, the sides of a matrix."""
    if node.kind == "matrix":
        return ("vector", node.args) if 1 in node.value else (node.value, node.args)
    if node.kind != "brackets":
        return None, ()
    rows = node.args
    columns = {len(row.args) for row in rows if row.kind == "brackets"}
    if node.value == "[]" and rows and len(columns) == 1 and all(row.kind == "brackets" for row in rows):
        cells = tuple(cell for row in rows for cell in row.args)
        return (len(rows), columns.pop()), cells
    return node.value, node.args


def _same_ratios(one, gold):
    """3:2 is 6:4 and 3/2; 1:2:3 is 2:4:6."""
    parts, golds = (node.args if node.kind == "ratio" else (node, _number(1)) for node in (one, gold))
    if len(parts) != len(golds) or any(part.kind not in _SCALARS for part in (*parts, *golds)):
        return ""
    products = (
        (Node("product", (parts[i], golds[0])), Node("product", (golds[i], parts[0]))) for i in range(1, len(parts))
    )
    zeros = any(part == _number(0) for part in (*parts, *golds))
    return "ratio" if not zeros and all(_same_scalars(a, b) for a, b in products) else ""


def _same_bases(one, gold):
    """204_5: base and digits agree; a gold with a base may be answered without it."""
    if one.kind == gold.kind:
        return "base" if (one.args, one.value) == (gold.args, gold.value) else ""
    if gold.kind == "base":
        return "base" if gold.args[0] == one else ""
    return "base" if one.value == 10 and one.args[0] == gold else ""


# ---------------------------------------------------------------- equality of intervals and inequalities


def _is_region(node):
    """Whether a node says where a letter may be. A plain bracket (a, b) may too, if the other side does."""
    if node.kind == "relation":
        return not set(node.value) <= {"=", "≈", "≡"}
    if node.kind == "list":
        return all(member.kind == "relation" and set(member.value) <= _INEQUALITIES for member in node.args)
    known = node.kind == "symbol" and node.value == r"\R"
    return known or node.kind in ("union", "intersection", "difference", "builder")


def _same_regions(one, gold, depth):
    """The same set of numbers, however it is said; or the same inequality up to moved terms and a positive factor."""
    try:
        region, gold_region = _region(one), _region(gold)
    except Unreadable:
        region = gold_region = None
    if region is None or gold_region is None:
        return _same_relations(one, gold, depth)
    (subject, pieces), (gold_subject, gold_pieces) = region, gold_region
    if subject and gold_subject and subject != gold_subject:
        return ""
    if len(pieces) != len(gold_pieces):
        return ""
    pairs = zip(pieces, gold_pieces, strict=True)
    for (low, closed, high, closes), (gold_low, gold_closed, gold_high, gold_closes) in pairs:
        if (closed, closes) != (gold_closed, gold_closes):
            return ""
        if not (_same_scalars(low, gold_low) and _same_scalars(high, gold_high)):
            return ""
    return "interval"


def _region(node):
    """(subject, pieces) of a set of numbers: pieces (low, is it in, high, is it in) in order and apart; the subject is
    the letter that is said to be there, or None. None if it is not such a set."""
    subject, pieces = None, None
    if node.kind == "brackets" and len(node.args) == 2:
        low, high = node.args
        pieces = ((low, node.value[0] == "[", high, node.value[1] == "]"),)
    elif node.kind == "set":
        pieces = tuple((member, True, member, True) for member in _signs(node).args)
    elif node.kind == "symbol" and node.value == r"\R":
        pieces = ((_MINUS_INFINITY, False, _INFINITY, False),)
    elif node.kind in ("union", "intersection", "difference", "list"):
        return _combined(node)
    elif node.kind == "builder":
        inside = _region(node.args[1])
        letter = node.args[0].args[0] if node.args[0].kind == "relation" else node.args[0]
        return (None, inside[1]) if inside and inside[0] in (None, letter) else None
    elif node.kind == "relation":
        subject, pieces = _inequality(node)
    if pieces is None or any(end.kind not in _SCALARS for piece in pieces for end in (piece[0], piece[2])):
        return None
    return subject, _ordered(pieces)


def _combined(node):
    """Unions, intersections and differences; a list of inequalities is a union, unless it says "and"."""
    regions = [_region(part) for part in node.args]
    if any(region is None for region in regions):
        return None
    subjects = {subject for subject, _ in regions if subject is not None}
    if len(subjects) > 1:
        return None
    subject = subjects.pop() if subjects else None
    parts = [pieces for _, pieces in regions]
    if node.kind == "union" or (node.kind == "list" and node.value != "and"):
        return subject, _ordered(tuple(piece for pieces in parts for piece in pieces))
    if node.kind == "difference":
        parts[1:] = [_complement(pieces) for pieces in parts[1:]]
    outside = tuple(piece for pieces in parts for piece in _complement(pieces))
    return subject, _complement(_ordered(outside))


def _complement(pieces):
    """The real numbers that are in none of the ordered pieces."""
    gaps, low, closed = [], _MINUS_INFINITY, False
    for piece in pieces:
        gaps.append((low, closed, piece[0], not piece[1]))
        low, closed = piece[2], not piece[3]
    gaps.append((low, closed, _INFINITY, False))
    proper = []
    for gap in gaps:
        order = _order(gap[0], gap[2])
        if order < 0 or (order == 0 and gap[1] and gap[3]):
            proper.append(gap)
    return tuple(proper)


def _ordered(pieces):
    """Pieces in rising order, those that touch made one. As they are if they have letters in them."""
    if len(pieces) < 2:
        return pieces
    if any(_symbols(end) for piece in pieces for end in (piece[0], piece[2])):
        return tuple(sorted(pieces, key=repr))
    ordered = []
    for piece in pieces:  # insertion: at most MAX_MEMBERS
        place = len(ordered)
        while place and _before(piece, ordered[place - 1]):
            place -= 1
        ordered.insert(place, piece)
    merged = [ordered[0]]
    for piece in ordered[1:]:
        low, closed, high, closes = merged[-1]
        order = _order(high, piece[0])
        if order > 0 or (order == 0 and (closes or piece[1])):
            end = _order(high, piece[2])
            upper = (high, closes) if end > 0 else (piece[2], piece[3] or (end == 0 and closes))
            merged[-1] = (low, closed, *upper)
        else:
            merged.append(piece)
    return tuple(merged)


def _before(piece, other):
    order = _order(piece[0], other[0])
    return order < 0 or (order == 0 and piece[1] and not other[1])


def _inequality(node):
    """(subject, pieces) of 1 < x \\le 3, x > 5, x \\ne 2, x \\in …; |x| < 3 is -3 < x < 3."""
    sides, operators = list(node.args), node.value
    if operators == ("∈",):
        region = _region(_settled(sides[1]))
        return (sides[0], region[1]) if region else (None, None)
    if operators == ("≠",):
        named = next((i for i in (0, 1) if _is_label(sides[i], [sides[1 - i]])), None)
        if named is None:
            return None, None
        other = sides[1 - named]
        return sides[named], ((_MINUS_INFINITY, False, other, False), (other, False, _INFINITY, False))
    if len(sides) > 3 or not set(operators) <= _INEQUALITIES:
        return None, None
    if operators[0] in ">≥":
        sides, operators = sides[::-1], tuple(_FLIPPED[operator] for operator in operators[::-1])
    if not set(operators) <= set("<≤"):
        return None, None
    if len(sides) == 3:
        low, subject, high = sides
        piece = (low, operators[0] == "≤", high, operators[1] == "≤")
    elif _is_subject(sides[0], sides[1]):
        subject, piece = sides[0], (_MINUS_INFINITY, False, sides[1], operators[0] == "≤")
    else:
        subject, piece = sides[1], (sides[0], operators[0] == "≤", _INFINITY, False)
    if not _is_subject(subject, sides[0] if subject is not sides[0] else sides[-1]):
        return None, None
    if subject.kind == "abs" and subject.args[0].kind == "symbol":
        low, closed, high, closes = piece
        if low == _MINUS_INFINITY:
            return subject.args[0], ((_negative(high), closes, high, closes),)
        return subject.args[0], ((_negative(high), closes, _negative(low), closed), piece)
    return subject, (piece,)


def _is_subject(node, other):
    return _is_label(node, [other]) or (node.kind == "abs" and _is_label(node.args[0], [other]))


def _same_relations(one, gold, depth):
    """Inequalities that are no intervals: link by link, each up to moved terms and a positive factor."""
    if one.kind == gold.kind and one.kind in ("union", "list", "intersection", "difference", "builder"):
        if len(one.args) != len(gold.args):
            return ""
        if one.kind not in ("difference", "builder"):
            return _same_lists(one._replace(kind="set"), gold._replace(kind="set"), depth)
        same = all(_same(a, b, depth + 1) for a, b in zip(one.args, gold.args, strict=True))
        return "set" if same else ""
    if one.kind != "relation" or gold.kind != "relation":
        return ""
    links, gold_links = _links(one), _links(gold)
    if len(links) != len(gold_links):
        return ""
    return "relation" if all(_same_links(*pair, depth) for pair in zip(links, gold_links, strict=True)) else ""


def _links(node):
    """(operator, left, right) of each link, turned so that the smaller side is on the left."""
    links = [
        (_FLIPPED[operator], node.args[i + 1], node.args[i])
        if operator in ">≥"
        else (operator, node.args[i], node.args[i + 1])
        for i, operator in enumerate(node.value)
    ]
    return links[::-1] if node.value[0] in ">≥" else links


def _same_links(link, gold_link, depth):
    (operator, left, right), (gold_operator, gold_left, gold_right) = link, gold_link
    if operator != gold_operator:
        return False
    if operator in "<≤≠" and all(side.kind in _SCALARS for side in (left, right, gold_left, gold_right)):
        factor = _factor_between(Node("sum", (right, _negative(left))), Node("sum", (gold_right, _negative(gold_left))))
        return factor > 0 or (operator == "≠" and factor < 0)
    return bool(_same(left, gold_left, depth + 1) and _same(right, gold_right, depth + 1))


# ---------------------------------------------------------------- equality of numbers with a unit, and of expressions


def _same_quantities(one, gold):
    """Equal numbers, of the same unit where both have one; percent by the gold's sign."""
    (value, unit), (gold_value, gold_unit) = _quantified(one, gold), _quantified(gold, one)
    if value.kind not in _SCALARS or gold_value.kind not in _SCALARS:
        return ""
    percent = (("%", 1),)
    hundredth = Node("fraction", (gold_value, _number(100)))
    if gold_unit == percent and not unit:
        return _same_scalars(value, gold_value) or _same_scalars(value, hundredth)
    if unit == percent and not gold_unit:  # 0.5% for the gold 0.5 is not believed: a share below 1 is no percentage
        share = Node("fraction", (value, _number(100)))
        return _same_scalars(share, gold_value) or (
            _order(Node("abs", (gold_value,)), _number(1)) >= 0 and _same_scalars(value, gold_value)
        )
    if unit and gold_unit and not _same_units(unit, gold_unit):
        return ""
    return _same_scalars(value, gold_value)


def _quantified(node, other):
    """(number, unit). Letters after a number and a space, as in 3 m/s, are a unit if the other side has a unit in
    words, or is a bare number."""
    if node.kind == "quantity":
        return node.args[0], node.value
    bare = other.kind in ("number", "decimal") and node.value == "perhaps a unit"
    if node.kind == "product" and (other.kind == "quantity" or bare) and node.args[0].kind in ("number", "decimal"):
        unit = []
        for factor in node.args[1:]:
            sign, letter = (-1, factor.args[0]) if factor.kind == "inverse" else (1, factor)
            if letter.kind == "power" and letter.args[1].kind == "number":
                sign, letter = int(sign * letter.args[1].value), letter.args[0]
            if letter.kind != "symbol" or letter.value not in _UNITS:
                return node, ()
            unit.append((_UNITS[letter.value], sign))
        return node.args[0], tuple(unit)
    return node, ()


def _same_units(unit, gold_unit):
    """The same names and exponents, or the same last word: 7 integers, 7 distinct integers."""
    if sorted(unit) == sorted(gold_unit):
        return True
    named = all(exponent == 1 and name not in _UNITS.values() for name, exponent in (*unit, *gold_unit))
    return named and unit[-1] == gold_unit[-1] and (set(unit) <= set(gold_unit) or set(gold_unit) <= set(unit))


def _same_scalars(one, gold):
    """The rule by which two expressions are equal, or ""."""
    if one == gold:
        return "same tree"
    infinities = _infinity(one), _infinity(gold)
    if infinities != (0, 0):
        return "infinity" if infinities[0] == infinities[1] else ""
    symbols = sorted(_symbols(one) | _symbols(gold))
    if len(symbols) > MAX_SYMBOLS:
        return ""
    bases = (True, False) if _has_plain_log(one) or _has_plain_log(gold) else (True,)
    for natural in bases:  # log without a base is read either way, but the same way on both sides
        rule = _same_at_points(one, gold, symbols, natural) if symbols else _same_constants(one, gold, natural)
        if rule:
            return rule
    return ""


def _infinity(node):
    """1 or -1 for an infinity, else 0."""
    if node == _INFINITY:
        return 1
    return -1 if node == _MINUS_INFINITY else 0


def _same_constants(one, gold, natural=True):
    """Exact between rationals, else at both precisions. A decimal may agree with a gold that has no end."""
    at = At({}, PRECISION, natural)
    value, gold_value = _value(one, at), _value(gold, at)
    if isinstance(value, Fraction) and isinstance(gold_value, Fraction):
        if value == gold_value:
            return "exact number"
    elif _agree(value, gold_value, PRECISION):
        at = At({}, MORE_PRECISION, natural)
        if _agree(_value(one, at), _value(gold, at), MORE_PRECISION):
            return "numeric probe"
    return "enough digits" if _is_rounded(one, gold, gold_value) else ""


def _is_rounded(one, gold, gold_value):
    """Whether a decimal of 10 or more digits agrees with a gold that no decimal can write, to all the digits shown."""
    if one.kind != "decimal" or gold.kind == "decimal" or one.value[2] < 10:
        return False
    value, places, _ = one.value
    if isinstance(gold_value, Fraction) and pow(10, gold_value.denominator.bit_length(), gold_value.denominator) == 0:
        return False
    difference = Node("abs", (Node("sum", (_number(value), _negative(gold))),))
    return _order(difference, _number(Fraction(1, 10**places))) < 0


def _same_at_points(one, gold, symbols, natural):
    """Equal at three points or more, and wherever both have a value."""
    integers = _of_integers(one) or _of_integers(gold)
    points = _integer_points(symbols) if integers else _points(symbols)
    if not integers and not (_needs_positive(one) or _needs_positive(gold)):
        mixed = [
            {name: value * (-1) ** (i + 1) for i, (name, value) in enumerate(point.items())} for point in points[::4]
        ]
        points += mixed
    found = []
    for letters in points:
        at = At(letters, PRECISION, natural)
        try:
            agree = _agree(_value(one, at), _value(gold, at), PRECISION)
        except Undefined:
            continue
        if not agree:
            return ""
        found.append(letters)
    if len(found) < 3:
        return ""
    at = At(found[0], MORE_PRECISION, natural)
    return "numeric probe" if _agree(_value(one, at), _value(gold, at), MORE_PRECISION) else ""


def _factor_between(one, gold):
    """The sign (1, -1) of the constant factor by which two expressions differ, 0 if there is none."""
    symbols = sorted(_symbols(one) | _symbols(gold))
    if not symbols or len(symbols) > MAX_SYMBOLS:
        return 0
    integers = _of_integers(one) or _of_integers(gold)
    first, found = None, 0
    for letters in _integer_points(symbols) if integers else _points(symbols):
        at = At(letters, PRECISION, True)
        try:
            ratio = _divided(_value(one, at), _value(gold, at), PRECISION)
            first = ratio if first is None else first
            agree = _agree(first, ratio, PRECISION)
        except Undefined:
            continue
        if not agree:
            return 0
        found += 1
    if found < 3:
        return 0
    try:
        return _sign(first)
    except Undefined:
        return 0


_SCALES = (1, 1, 1, Fraction(1, 40), 12, 100)  # so that |x - 3| is not taken for 3 - x


def _points(symbols):
    """Points between 0.3 and 3 and, by scale, far from there: fixed by the letters' names, in no simple relation."""
    return [
        {name: scale * Fraction(2903 + crc32(f"{name} {k}".encode()) % 27_000, 9973) for name in symbols}
        for k, scale in enumerate(_SCALES)
    ]


def _integer_points(symbols):
    """Small whole numbers: letters under a floor, in a factorial or a sign (-1)^n are such."""
    if len(symbols) == 1:
        return [{symbols[0]: Fraction(n)} for n in range(1, 19)]
    return [{name: Fraction(1 + crc32(f"{name} {k}".encode()) % 12) for name in symbols} for k in range(24)]


def _order(one, other):
    """-1, 0 or 1: which of two real constants is larger. Undefined if they are no such."""
    low, high = _infinity(one), _infinity(other)
    if low or high:
        return (low > high) - (low < high)
    if _symbols(one) or _symbols(other):
        raise Undefined("letters have no order")
    if _same_constants(one, other):
        return 0
    at = At({}, MORE_PRECISION, True)
    return _sign(_added_values([_value(one, at), _negated(_value(other, at))], MORE_PRECISION))


# ---------------------------------------------------------------- trees


def _walk(node):
    """All nodes of a tree."""
    stack = [node]
    while stack:
        node = stack.pop()
        yield node
        stack += node.args


def _has(node, kind):
    return any(part.kind == kind for part in _walk(node))


def _has_plain_log(node):
    return any(part.kind == "function" and part.value == "log" and len(part.args) == 1 for part in _walk(node))


def _applied(node):
    return {part.value for part in _walk(node) if part.kind == "apply"}


def _symbols(node):
    """The names of the letters in a tree that no sum binds."""
    if node.kind == "symbol":
        return {node.value}
    names = set()
    for part in node.args:
        names |= _symbols(part)
    return names - {node.value} if node.kind in ("sum", "prod") else names


_WHOLE = frozenset("symbol number sum product".split())


def _of_integers(node):
    """Whether the letters of a tree count: they are under a floor, in a factorial, or say how often a sign turns."""
    for part in _walk(node):
        if part.kind in ("factorial", "binomial", "prod", "gcd", "lcm", "mod") or (part.kind == "sum" and part.value):
            return True
        if part.kind in ("floor", "ceiling") and not all(inner.kind in _WHOLE for inner in _walk(part.args[0])):
            return True  # but the letters in the floor of x are not whole
        if part.kind == "power" and _symbols(part.args[1]) and part.args[0].kind == "number" and part.args[0].value < 0:
            return True
    return False


def _needs_positive(node):
    """Whether a tree has a root, a logarithm or a power that asks for positive letters."""
    for part in _walk(node):
        if part.kind == "function":
            return True
        if part.kind == "power" and not (part.args[1].kind == "number" and part.args[1].value.denominator == 1):
            return True
    return False


def _substituted(node, letters):
    """A tree with letters exchanged."""
    if node.kind == "symbol":
        return letters.get(node.value, node)
    return node._replace(args=tuple(_substituted(part, letters) for part in node.args))


def _signs(node):
    """A tree in which each member with \\pm is two, for + and for -; all the signs of one member turn together."""
    if not _has(node, "signs"):
        return node
    if node.kind in ("list", "set"):
        members = tuple(both for member in node.args for both in _both(member))
        return node._replace(args=members)
    if node.kind == "relation" and node.args[-1].kind in ("list", "set"):
        return node._replace(args=(*node.args[:-1], _signs(node.args[-1])))
    return Node("list", _both(node), ",")


def _both(node):
    if not _has(node, "signs"):
        return (node,)
    if sum(part.kind == "signs" for part in _walk(node)) > 4:
        raise Unreadable("too many signs")
    return _signed_once(node, True), _signed_once(node, False)


def _signed_once(node, plus):
    if node.kind == "signs":
        inner = _signed_once(node.args[0], plus)
        return inner if node.value == plus else _negative(inner)
    return node._replace(args=tuple(_signed_once(part, plus) for part in node.args))


# ---------------------------------------------------------------- values: exact, or a ball


class Ball(NamedTuple):
    """A complex number, known to within 2^error: the pair of mpf tuples that mpmath's libmp computes with."""

    pair: tuple
    error: int


class At(NamedTuple):
    """Where an expression is evaluated: the letters' values, the bits, whether log is ln, and degrees are radians."""

    letters: dict
    precision: int
    natural: bool
    radians: bool = False


_NOTHING = -(10**9)  # the size of an exact zero
MAX_SIZE = 2000  # bits before the point of a value that is no longer exact, so that its ones are known too


def _value(node, at):
    """The value of an expression: a Fraction as long as it is rational and small, else a Ball. Undefined if none."""
    kind, args = node.kind, node.args
    if kind == "number":
        return node.value
    if kind == "decimal":
        return node.value[0]
    if kind == "symbol":
        return at.letters[node.value]
    if kind == "constant":
        return _constant(node.value, at)
    if kind == "sum" and node.value is None:
        return _added_values([_value(term, at) for term in args], at.precision)
    if kind in ("sum", "prod"):
        return _series_value(node, at)
    if kind == "power":
        return _power_value(args, at)
    if kind == "function":
        return _function_value(node, at)
    evaluate = _EVALUATE.get(kind)
    if evaluate is None:
        raise Undefined(f"{kind} is no number")
    return evaluate([_value(part, at) for part in args], node, at)


def _constant(name, at):
    if name in at.letters:  # the index of a sum may be called i
        return at.letters[name]
    if name == "i":
        return Ball((libmp.fzero, libmp.fone), _NOTHING)
    if name == "infinity":
        raise Undefined("infinity")
    value = libmp.mpf_pi(at.precision) if name == "pi" else libmp.mpf_e(at.precision)
    return Ball((value, libmp.fzero), 2 - at.precision)


def _product_value(values, _node, at):
    result = values[0]
    for value in values[1:]:
        result = _times(result, value, at.precision)
    return result


def _apply_value(values, node, at):
    """A function that is only named, as some quadratic polynomial of its name: f(2x) is f(x+x), and not 2 f(x)."""
    seed = crc32(node.value.encode())
    terms = [Fraction(seed % 991 + 7, 101)]
    for i, value in enumerate(values):
        linear, square = Fraction(seed % (641 + i) + 3, 53), Fraction(seed % (757 + i) + 5, 97)
        terms += [_times(linear, value, at.precision), _times(square, _times(value, value, at.precision), at.precision)]
    return _added_values(terms, at.precision)


def _degrees_value(values, _node, at):
    if not at.radians:
        return values[0]
    return _times(
        _divided(values[0], Fraction(180), at.precision), _constant("pi", at._replace(letters={})), at.precision
    )


def _factorial_value(values, _node, _at):
    number = _whole(values[0])
    if not 0 <= number <= MAX_FACTORIAL:
        raise Undefined("a factorial")
    return Fraction(factorial(number))


def _binomial_value(values, _node, _at):
    top, bottom = map(_whole, values)
    if not 0 <= top <= MAX_FACTORIAL or bottom < 0:
        raise Undefined("a binomial")
    return Fraction(comb(top, bottom))


def _whole(value):
    """A whole number, exact or so near that it can't be told from one."""
    number = value if isinstance(value, Fraction) else _nearest(value)
    if number.denominator != 1:
        raise Undefined("not a whole number")
    return number.numerator


def _nearest(ball):
    """The whole number within a ball's error, or else the midpoint as a fraction."""
    real = _real(ball)
    if _size(ball) > 2000:
        raise Undefined("too large for a floor")
    numerator, denominator = libmp.to_rational(real)
    number = Fraction(numerator, denominator)
    nearest = Fraction(round(number))
    return nearest if abs(number - nearest) <= Fraction(2) ** max(ball.error + 2, -5000) else number


def _abs_value(values, _node, at):
    if isinstance(values[0], Fraction):
        return abs(values[0])
    return Ball((libmp.mpc_abs(values[0].pair, at.precision), libmp.fzero), values[0].error + 1)


def _floor_value(values, node, _at):
    number = values[0] if isinstance(values[0], Fraction) else _nearest(values[0])
    return Fraction(number.__floor__() if node.kind == "floor" else number.__ceil__())


def _list_value(values, node, _at):
    """The largest, the smallest, the greatest common divisor or the least common multiple of rational numbers."""
    if not all(isinstance(value, Fraction) for value in values):
        raise Undefined("no exact numbers")
    if node.kind in ("max", "min"):
        return max(values) if node.kind == "max" else min(values)
    numbers = [_whole(value) for value in values]
    if sum(number.bit_length() for number in numbers) > MAX_BITS:
        raise Undefined("too large")
    return Fraction(gcd(*numbers) if node.kind == "gcd" else lcm(*numbers))


def _remainder_value(values, _node, _at):
    number, modulus = map(_whole, values)
    if modulus == 0:
        raise Undefined("modulo 0")
    return Fraction(number % modulus)


_EVALUATE = {
    **dict.fromkeys(_OF_LISTS, _list_value),
    "mod": _remainder_value,
    "product": _product_value,
    "inverse": lambda values, _node, at: _divided(Fraction(1), values[0], at.precision),
    "fraction": lambda values, _node, at: _divided(*values, at.precision),
    "group": lambda values, _node, _at: values[0],
    "degrees": _degrees_value,
    "factorial": _factorial_value,
    "binomial": _binomial_value,
    "abs": _abs_value,
    "floor": _floor_value,
    "ceiling": _floor_value,
    "apply": _apply_value,
}


def _series_value(node, at):
    """A finite sum or product, term by term."""
    first, last = (_whole(_value(end, at)) for end in node.args[:2])
    body = node.args[2]
    nested = sum(1 for part in _walk(body)) * max(last - first + 1, 0)
    if (
        nested > 10 * MAX_TERMS
        or last - first >= MAX_TERMS
        or any(part.kind == "prod" or (part.kind == "sum" and part.value) for part in _walk(body))
    ):
        raise Undefined("too many terms")
    terms = [_value(body, at._replace(letters=at.letters | {node.value: Fraction(k)})) for k in range(first, last + 1)]
    if node.kind == "sum":
        return _added_values(terms, at.precision) if terms else Fraction(0)
    return _product_value(terms, node, at) if terms else Fraction(1)


def _power_value(args, at):
    """base ^ exponent: exact if it is rational and small; the odd root of a negative number is real."""
    exponent = _value(args[1], at)
    if args[0].kind == "constant" and args[0].value == "e":
        return _exponential(exponent, at.precision)
    base = _value(args[0], at)
    if isinstance(exponent, Fraction) and exponent.denominator == 1 and isinstance(base, Fraction):
        power = exponent.numerator
        if base == 0 and power <= 0:
            raise Undefined("0^0 or 1/0")
        if _bits(base) * abs(power) <= MAX_BITS:
            return base**power
    if isinstance(exponent, Fraction) and exponent.denominator % 2 == 1 and _is_negative(base):
        turned = exponent.numerator % 2 == 1
        base = _negated(base)
        positive = _exponential(_times(exponent, _logarithm(base, at.precision), at.precision), at.precision)
        return _negated(positive) if turned else positive
    if _is_zero(base):
        if isinstance(exponent, Fraction) and exponent > 0:
            error = _NOTHING if isinstance(base, Fraction) else int(base.error * min(exponent, 1))
            return Ball((libmp.fzero, libmp.fzero), error)
        raise Undefined("a power of 0")
    if exponent == Fraction(1, 2):
        ball = _ball(base, at.precision)
        root = libmp.mpc_sqrt(ball.pair, at.precision)
        return _rounded(root, max(ball.error - _size(ball) // 2, _pair_size(root) - at.precision) + 4)
    return _exponential(_times(exponent, _logarithm(base, at.precision), at.precision), at.precision)


def _function_value(node, at):
    """A named function of mathematics."""
    name, precision = node.value, at.precision
    at = at._replace(radians=name in _TRIGONOMETRIC)
    value = _value(node.args[0], at)
    if name == "exp":
        return _exponential(value, precision)
    if name in ("ln", "log", "lg"):
        logarithm = _logarithm(value, precision)
        if len(node.args) == 2:
            return _divided(logarithm, _logarithm(_value(node.args[1], at), precision), precision)
        if name == "ln" or (name == "log" and at.natural):
            return logarithm
        return _divided(logarithm, _logarithm(Fraction(10), precision), precision)
    if name in _RECIPROCALS:
        return _divided(Fraction(1), _elementary(_RECIPROCALS[name], value, precision), precision)
    if name in ("tan", "tanh"):
        sine, cosine = ("sin", "cos") if name == "tan" else ("sinh", "cosh")
        return _divided(_elementary(sine, value, precision), _elementary(cosine, value, precision), precision)
    if name in ("cot", "coth"):
        sine, cosine = ("sin", "cos") if name == "cot" else ("sinh", "cosh")
        return _divided(_elementary(cosine, value, precision), _elementary(sine, value, precision), precision)
    if name in _INVERSE_RECIPROCALS:
        value, name = _divided(Fraction(1), value, precision), _INVERSE_RECIPROCALS[name]
    return _elementary(name, value, precision)


_TRIGONOMETRIC = frozenset("sin cos tan cot sec csc".split())
_RECIPROCALS = {"sec": "cos", "csc": "sin", "sech": "cosh", "csch": "sinh"}
_INVERSE_RECIPROCALS = {"arcsec": "arccos", "arccsc": "arcsin", "arccot": "arctan"}
_ENTIRE = {"sin": libmp.mpc_sin, "cos": libmp.mpc_cos, "sinh": libmp.mpc_sinh, "cosh": libmp.mpc_cosh}
_INVERSES = {
    "arcsin": libmp.mpc_asin,
    "arccos": libmp.mpc_acos,
    "arctan": libmp.mpc_atan,
    "arsinh": libmp.mpc_asinh,
    "arcosh": libmp.mpc_acosh,
    "artanh": libmp.mpc_atanh,
}


def _elementary(name, value, precision):
    """An entire function, or an inverse one, whose error is taken as the root of its argument's, as it is at ±1."""
    ball = _ball(value, precision)
    size, error = _size(ball), max(ball.error, _size(ball) - precision, -precision)
    if size > precision // 2 or error > -20:
        raise Undefined("an argument too large")
    if name in _ENTIRE:
        growing = ball.pair[1] if name in ("sin", "cos") else ball.pair[0]
        if _mpf_size(growing) > 12:
            raise Undefined("an argument too large")
        result = _ENTIRE[name](ball.pair, precision)
        return _rounded(result, error + max(_pair_size(result), 0) + 4)
    if name not in _INVERSES:
        raise Undefined(name)
    if name in ("arctan", "artanh") and _at_pole(name, ball, precision):
        raise Undefined("a pole")
    return _rounded(_INVERSES[name](ball.pair, precision), error // 2 + 4)


def _at_pole(name, ball, precision):
    one = _ball(Fraction(1), precision)
    square = _times(ball, ball, precision)
    return _is_zero(_added_values([square, one if name == "arctan" else _negated(one)], precision))


def _exponential(value, precision):
    ball = _ball(value, precision)
    size = _size(ball)
    if size > 24 or ball.error > -20:
        raise Undefined("a power too large")
    result = libmp.mpc_exp(ball.pair, precision)
    return _rounded(result, _pair_size(result) + max(ball.error, max(size, 0) - precision) + 4)


def _logarithm(value, precision):
    ball = _ball(value, precision)
    if _is_zero(ball):
        raise Undefined("the logarithm of 0")
    result = libmp.mpc_log(ball.pair, precision)
    return _rounded(result, max(ball.error - _size(ball), _pair_size(result) - precision, -precision) + 4)


def _added_values(values, precision):
    """The sum of values, exact while all are rational."""
    if all(isinstance(value, Fraction) for value in values):
        total = Fraction(0)
        for value in values:
            total += value
            if _bits(total) > MAX_BITS:
                break
        else:
            return total
    total, error = libmp.mpc_zero, _NOTHING
    for value in values:
        ball = _ball(value, precision)
        total = libmp.mpc_add(total, ball.pair, precision, "n")
        error = max(error, ball.error, _pair_size(total) - precision) + 1
    return _rounded(total, error)


def _times(one, other, precision):
    """A product, exact while both are rational and it is small."""
    if isinstance(one, Fraction) and isinstance(other, Fraction) and _bits(one) + _bits(other) <= MAX_BITS:
        return one * other
    one, other = _ball(one, precision), _ball(other, precision)
    result = libmp.mpc_mul(one.pair, other.pair, precision, "n")
    errors = _size(one) + other.error, _size(other) + one.error, one.error + other.error, _pair_size(result) - precision
    return _rounded(result, max(errors) + 3)


def _divided(one, other, precision):
    """A quotient; Undefined if the divisor can't be told from 0."""
    if _is_zero(other):
        raise Undefined("a division by 0")
    if isinstance(one, Fraction) and isinstance(other, Fraction) and _bits(one) + _bits(other) <= MAX_BITS:
        return one / other
    one, other = _ball(one, precision), _ball(other, precision)
    result = libmp.mpc_div(one.pair, other.pair, precision, "n")
    size = _size(other)
    errors = one.error - size, _size(one) + other.error - 2 * size, _pair_size(result) - precision
    return _rounded(result, max(errors) + 5)


def _negated(value):
    return -value if isinstance(value, Fraction) else Ball(libmp.mpc_neg(value.pair), value.error)


def _ball(value, precision):
    """A Fraction as a ball; a ball as it is."""
    if isinstance(value, Ball):
        return value
    if value == 0:
        return Ball(libmp.mpc_zero, _NOTHING)
    real = libmp.from_rational(value.numerator, value.denominator, precision, "n")
    return Ball((real, libmp.fzero), _mpf_size(real) - precision)


def _rounded(pair, error):
    """A ball whose parts that can't be told from 0 are 0: so a real number stays one. Undefined if out of size."""
    if _pair_size(pair) > MAX_SIZE:
        raise Undefined("too large")
    return Ball(tuple(libmp.fzero if _mpf_size(part) <= error else part for part in pair), error)


def _mpf_size(number):
    """The exponent of the power of 2 above |number|."""
    _, mantissa, exponent, bits = number
    if mantissa:
        return exponent + bits
    if exponent:
        raise Undefined("infinite")
    return _NOTHING


def _pair_size(pair):
    return max(_mpf_size(pair[0]), _mpf_size(pair[1]))


def _size(ball):
    return _pair_size(ball.pair)


def _is_zero(value):
    """Whether a value is 0, or can't be told from it."""
    return value == 0 if isinstance(value, Fraction) else _size(value) <= value.error + 1


def _real(ball):
    if ball.pair[1] != libmp.fzero:
        raise Undefined("not real")
    return ball.pair[0]


def _is_negative(value):
    if isinstance(value, Fraction):
        return value < 0
    return value.pair[1] == libmp.fzero and value.pair[0][0] == 1


def _sign(value):
    if isinstance(value, Fraction):
        return (value > 0) - (value < 0)
    if _is_zero(value):
        return 0
    return -1 if _real(value)[0] else 1


def _agree(one, other, precision):
    """Whether two values can't be told apart, though both are known to a third of the digits or better."""
    if isinstance(one, Fraction) and isinstance(other, Fraction):
        return one == other
    one, other = _ball(one, precision), _ball(other, precision)
    error, size = max(one.error, other.error), max(_size(one), _size(other))
    if error > max(size, 0) - precision // 3:
        raise Undefined("known too badly")
    return _pair_size(libmp.mpc_sub(one.pair, other.pair, precision, "n")) <= error + 2


def _bits(fraction):
    return max(fraction.numerator.bit_length(), fraction.denominator.bit_length())


# constants are remembered by mpmath in two steps that threads could mix up: asked once for more bits than ever needed,
# they are only read from then on
for _constant_of in libmp.mpf_pi, libmp.mpf_e, libmp.mpf_ln2, libmp.mpf_ln10:
    _constant_of(2 * MORE_PRECISION)


# ---------------------------------------------------------------- trees, printed for people

_INFIX = {
    "sum": " + ",
    "product": "·",
    "list": ", ",
    "ratio": " : ",
    "union": " ∪ ",
    "intersection": " ∩ ",
    "difference": " ∖ ",
}


def show(node):
    """A tree in one line."""
    parts = [show(part) for part in node.args]
    kind, value = node.kind, node.value
    if kind in ("number", "decimal"):
        number = value if kind == "number" else value[0]
        return str(number) if _bits(number) < 400 else "a number of many digits"
    if kind in ("symbol", "constant"):
        return value
    if kind in ("text", "unreadable"):
        return repr(value)
    if kind == "relation":
        return parts[0] + "".join(f" {operator} {part}" for operator, part in zip(value, parts[1:], strict=True))
    if kind == "brackets":
        return value[0] + ", ".join(parts) + value[1]
    if kind == "set":
        return "{" + ", ".join(parts) + "}"
    if kind == "base":
        return f"{parts[0]} in base {value}"
    if kind == "quantity":
        return parts[0] + " " + " ".join(name + (f"^{power}" if power != 1 else "") for name, power in value)
    if kind in _INFIX and (kind != "sum" or value is None):
        return f"({_INFIX[kind].join(parts)})" if kind in ("sum", "product") else _INFIX[kind].join(parts)
    if kind in ("fraction", "power"):
        return f"({parts[0]} {'/' if kind == 'fraction' else '^'} {parts[1]})"
    if kind == "signs":
        return ("±" if value else "∓") + parts[0]
    name = value if kind in ("function", "apply") else kind
    return f"{name}({', '.join(parts)})"
