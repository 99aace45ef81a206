r"""Spelling: characters in, tokens out; and what tokens mean that are words rather than mathematics.

LaTeX and plain text have many spellings for the same sign. Here they become one, so that the grammar of reading.py need
not know them. The text is hostile: the caller bounds its length, and every pattern is linear.
"""

import re
from typing import NamedTuple

MAX_TOKENS = 400  # per answer; the usual benchmarks have 210 characters at most


class Token(NamedTuple):
    kind: str  # number | word | command | sign
    text: str
    spaced: bool  # a space precedes it
    upright: bool = False  # from \text{} and the like: a word, not letters


class Refusal(Exception):
    """A text that the grader will not judge by its value."""

    @classmethod
    def raise_if(cls, condition, why):
        if condition:
            raise cls(why)


class Unreadable(Refusal):
    """The grammar does not cover this text, or a bound is exceeded."""


_SYMBOLS = r"""π \pi ∞ \infty ° ^\circ √ \sqrt ± \pm ∓ \mp θ \theta ≤ \le ≥ \ge ≠ \ne ≈ \approx ∈ \in ∪ \cup ∩ \cap
∅ \emptyset ℝ \R ℤ \Z ℕ \N α \alpha β \beta γ \gamma λ \lambda μ \mu ω \omega φ \phi ⟨ \langle ⟩ \rangle ⌊ \lfloor
⌋ \rfloor ⌈ \lceil ⌉ \rceil € \euro £ \pounds ¥ \yen ½ \frac12 ¼ \frac14 ¾ \frac34 ⅓ \frac13 ⅔ \frac23 … \ldots
º ^\circ ˚ ^\circ 度 ^\circ ∠ \angle""".split()
_CHARACTERS = str.maketrans(
    dict(zip("−–×·÷⋅∗\u00a0\u2009\u202f∣’“”⁄", '--**/**   |\'""/', strict=True))
    | {symbol: f"{command} " for symbol, command in zip(_SYMBOLS[::2], _SYMBOLS[1::2], strict=True)}
    | {"米": "meters", "厘": " centi", "毫": " milli"}  # the units of GEOQA, as are the degrees above
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_COMMANDS = {  # spelling used here: other spellings; "": what is ignored; text: what makes words upright
    "frac": "dfrac tfrac cfrac", "binom": "dbinom tbinom", "overline": "bar", "le": "leq leqslant", "ne": "neq",
    "ge": "geq geqslant", "<": "lt", ">": "gt", "%": "percent", "approx": "simeq sim", "*": "cdot times ast",
    "/": "div", "mod": "pmod", "or": "lor vee", "and": "land wedge", "setminus": "backslash", "emptyset": "varnothing",
    r"\{": "lbrace", r"\}": "rbrace", "[": "lbrack", "]": "rbrack", ":": "colon", "circ": "degree", "phi": "varphi",
    "|": "vert lvert rvert Vert lVert rVert", "ldots": "dots cdots", "rightarrow": "to", "theta": "vartheta",
    "epsilon": "varepsilon",
    "": "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr displaystyle textstyle scriptstyle limits "
        "nolimits boxed fbox quad qquad hspace thinspace space ensuremath rm bf it cal mathrel mathop mathbin mathopen "
        "mathclose mathord protect strut middle large Large normalsize underline",
    "text": "textbf textit textrm textnormal textsf texttt textup emph mbox hbox mathrm mathbf mathit mathsf mathtt "
            "boldsymbol bm operatorname pmb mathnormal",
}  # fmt: skip
_SPELLINGS = {name: sign for sign, names in _COMMANDS.items() for name in names.split()}
_SUBSTITUTIONS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"平方 *", " square "),
        (r"^([0-9.]+)m$", r"\1 m"),  # 5m, but not $5m$: perhaps metres
        (r"^([0-9.]+\\pi )m(?=\^)", r"\1meters"),  # 50πm^{2}
        (r"([⁰¹²³⁴-⁹⁻]+)", r"^{\1}"),
        (r"(?<=[0-9])\.([0-9]*)\(([0-9]+)\)", r".\1\\overline{\2}"),  # 0.1(6)
        (r"(?<![0-9a-z])\.(?= *\\(?:overline|bar)\b)", "0."),
        (r"(?<=[0-9]) *(\\text\{ *)?(?:in )?\(?base ([0-9]{1,2})\)?(?(1) *\})", r"_{\2}"),
        (r"(?<=[0-9]) *(?:\{ *, *\}|,\\!|\\,) *(?=[0-9]{3}(?![0-9]))", ""),  # a thousands separator, as LaTeX spaces it
        (r"\{ *, *\}", ","),
        (r"(?<!\\)\\[,!;:> ]|(?<!\\)~", " "),
        (r"\\\$", r"\\dollar "),  # money
        (r"\\\\ *\[[0-9.]+ *[a-z]{2}\]", r"\\\\"),  # the space between rows
        (r"\.\.\.", r"\\ldots "),
        (r"(?<=[0-9]) x (?=10 ?\^)", "*"),  # 3 x 10^8
        (r"(?<!\\)\$|(?<!\\)\\[()\[\]]", " "),  # math delimiters
        (r"\\math(?:bb|cal|frak) *(\{ *)?([A-Z])(?(1) *\})", r" \\\2 "),
        (r"(?<=[0-9]) (?=[0-9]{3}(?![0-9/]))(?<![0-9]{4} )", ""),  # 58 500
        (r"^\*\*([^*]*)\*\*$", r"\1"),  # bold
        (r"(?<![a-zA-Z])([apAP])\. ?([mM])(?![a-zA-Z])\.?", r"\1\2"),  # p.m.
        (r"\^ *(?:\{ *\\(?:circ|degree) *\}|\\(?:circ|degree)(?![a-z]))", r"\\circ "),
        (r"\^ *\{ *((?:\\prime *)+)\}", r"\1"),
        (r"(?:\^ *)?\\prime(?![a-z]) *", "'"),
        (r"\\textcolor *\{[a-zA-Z]*\}|\\color *\{[a-zA-Z]*\}|\\phantom *(?:\{[^{}]*\}|\S)", " "),
    )
]
_THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_TOKEN = re.compile(
    r"(?P<space> *)(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4}(?![0-9]))?)"
    r"|(?P<word>[a-zA-Z]+)|\\(?P<command>[a-zA-Z]+)\*?|(?P<sign>\\\\|\\[{}%&#_|]|<=|>=|!=|\*\*|\\.|\S))"
)
_NO_DELIMITER = re.compile(r"(?: *\.)?")  # as in `\left.`
_SIGNS = {r"\%": "%", r"\|": "|", "<=": r"\le", ">=": r"\ge", "!=": r"\ne", "**": "^", r"\&": "&"}


def clean(text):
    """The text with one spelling for spaces, thousands separators and degrees, and without a box around all of it."""
    text = " ".join(text.translate(_CHARACTERS).split())
    Unreadable.raise_if(not text.isprintable(), "characters that no answer has")
    for pattern, replacement in _SUBSTITUTIONS:
        text = pattern.sub(replacement, text)
    text = text.translate(_RAISED).strip().rstrip(".,; ")
    box = re.match(r"\\(?:boxed|fbox) *(?=\{)", text)
    if box:
        inside, end = _group(text, box.end())
        text = inside.strip().rstrip(".,; ") if end == len(text) else text
    return text


def without_commas(text):
    """A cleaned text without thousands separators; in brackets, as in (100,200), commas separate members."""

    def joined(number):
        before = text[: number.start()]
        opened, closed = (sum(map(before.count, brackets)) for brackets in (("(", "[", r"\{"), (")", "]", r"\}")))
        return number[0] if opened > closed else number[0].replace(",", "")

    return _THOUSANDS.sub(joined, text)


def tokenize(text, upright=False, depth=0):
    """The tokens of a cleaned text; those inside \\text{…} are upright."""
    tokens, position, spaced = [], 0, False
    while match := _TOKEN.match(text, position):
        spaced = spaced or match["space"] != ""
        kind, token, position = match.lastgroup, match[match.lastgroup], match.end()
        if kind == "command":
            if token in ("left", "right"):
                position = _NO_DELIMITER.match(text, position).end()
            token = _SPELLINGS.get(token, token)
            if not token:
                spaced = True
                continue
            if token == "text":
                inside, position = _group(text, position)
                Unreadable.raise_if(depth > 3, "nested text")
                inner = tokenize(inside, True, depth + 1)
                tokens += [inner[0]._replace(spaced=spaced or inner[0].spaced), *inner[1:]] if inner else []
                spaced = inside.endswith(" ")
                continue
            kind, token = ("command", token) if token.isalpha() else ("sign", token)
        token = _SIGNS.get(token, token) if kind == "sign" else token
        kind, token = ("command", token[1:]) if token in (r"\le", r"\ge", r"\ne") else (kind, token)
        tokens.append(Token(kind, token, spaced, upright))
        spaced = False
    Unreadable.raise_if(len(tokens) > MAX_TOKENS, "too many tokens")
    return tokens


def _group(text, position):
    """The inside of the braces at a position, or a single character without braces; and the position after it."""
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


def key_of(tokens):
    """A normal form: texts that share it are equal. Case is ignored if there are only letters: choices and words."""
    key, previous = "", ""
    for kind, text, *_ in tokens:
        key += " " * (kind == previous == "number") + "\\" * (kind == "command") + text
        previous = kind
    key = re.sub(r"\{([0-9a-zA-Z])\}(?![0-9])", r"\1", key)
    key = key[1:-1] if re.fullmatch(r"\{[^{}]*\}", key) else key
    return key.lower() if key.isalpha() else key


NUMBER_WORDS = {word: i for i, word in enumerate(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty".split()
)}  # fmt: skip
NUMBER_WORDS |= dict(zip("thirty forty fifty sixty seventy eighty ninety".split(), range(30, 100, 10), strict=True))
MULTIPLIERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}


def number_in_words(words):
    """ "twenty-one" -> 21, "three hundred" -> 300; None if not a number."""
    texts = [word.text.lower() for word in words]
    total = current = 0
    for text, previous in zip(texts, ["", *texts], strict=False):
        if text in NUMBER_WORDS:
            if previous in NUMBER_WORDS and (NUMBER_WORDS[previous] < 20 or NUMBER_WORDS[text] > 9):
                return None
            current += NUMBER_WORDS[text]
        elif text in MULTIPLIERS and previous and text != "dozen":
            current *= MULTIPLIERS[text]
            total, current = (total + current, 0) if text != "hundred" else (total, current)
        else:
            return None
    return total + current if texts else None


def words_of(tokens):
    """The words in lower case, without leading articles, punctuation, and the plural of the last word."""
    texts = [token.text.lower() for token in tokens if token.text not in (".", ",", "'", "-", "!", "?", "(", ")")]
    while len(texts) > 1 and texts[0] in ("the", "a", "an"):
        del texts[0]
    texts[-1] = singular(texts[-1])
    return " ".join(texts)


def singular(word):
    """An English word without its plural ending, or what looks like one."""
    if word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    return word if len(word) < 4 or word.endswith("ss") else word.removesuffix("s")


def choice_of(tokens):
    """The letter of `C`, `(C)`, `(C) 42`, `C. 42`, or "", and whether nothing follows it."""
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
