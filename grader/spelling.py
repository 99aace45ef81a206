r"""Spelling: characters in, tokens out; and what tokens mean that are words rather than mathematics.

LaTeX and plain text have many spellings for the same sign. Here they become one, so that the grammar of reading.py need
not know them. The text is hostile: the caller bounds its length, and every pattern is linear.
"""

import re
import unicodedata
from typing import NamedTuple

from grader.words import CHOICE_BEFORE

MAX_TOKENS = 400  # per answer; the usual benchmarks have 210 characters at most


class Token(NamedTuple):
    kind: str  # number | word | command | sign
    text: str
    spaced: bool  # a space precedes it
    upright: bool = False  # from \text{} and the like: a word, not letters


class Refused(Exception):
    """The grammar does not cover a text, an expression has no value (a pole, 0/0), or a bound is exceeded."""


def refuse_if(condition, why):
    if condition:
        raise Refused(why)


_SYMBOLS = r"""π \pi ∞ \infty ° ^\circ √ \sqrt ∛ \sqrt[3] ∜ \sqrt[4] ± \pm ∓ \mp θ \theta ≤ \le ≥ \ge
≠ \ne ≈ \approx ∈ \in ∉ \notin ∑ \sum ∪ \cup ∩ \cap ∅ \emptyset ℝ \R ℤ \Z ℕ \N α \alpha β \beta γ \gamma
λ \lambda μ \mu µ \mu ω \omega φ \phi Ω \Omega ⟨ \langle ⟩ \rangle ⌊ \lfloor ⌋ \rfloor ⌈ \lceil ⌉ \rceil
€ \euro £ \pounds ¥ \yen … \ldots º ^\circ ˚ ^\circ ∠ \angle ≡ \equiv ∧ \land ∨ \lor ¬ \neg → \to
⇒ \implies ∇ \nabla △ \triangle ℃ ^\circ{C} ≅ \cong""".split()


class _Characters(dict):
    """Unicode's signs in the spelling of LaTeX; digits of any script, wide and mathematical letters in ASCII."""

    def __missing__(self, code):
        plain = unicodedata.normalize("NFKC", chr(code))
        if "⁄" in plain:  # ⅛
            plain = r"\frac{{{}}}{{{}}} ".format(*plain.split("⁄"))
        elif not (0xFE50 <= code < 0xFFEF or 0x1D400 <= code < 0x1D800):
            plain = str(unicodedata.decimal(chr(code), chr(code)))
        return "".join(self.get(ord(char), char) for char in plain)


_CHARACTERS = _Characters(
    {code: chr(code) for code in range(128)}
    | str.maketrans("−–‒×·÷⋅∙•∗\u00a0\u2009\u202f∣’′“”⁄、。", "---**/****   |''\"\"/,.")
    | {ord(symbol): f"{command} " for symbol, command in zip(_SYMBOLS[::2], _SYMBOLS[1::2], strict=True)}
    | dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff"), "")
    | {ord("″"): "''"}
)
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻₀₁₂₃₄₅₆₇₈₉", "0123456789-0123456789")
_COMMANDS = {  # spelling used here: other spellings; "": what is ignored; text: what makes words upright
    "frac": "dfrac tfrac cfrac", "binom": "dbinom tbinom", "overline": "bar", "le": "leq leqslant", "ne": "neq",
    "ge": "geq geqslant", "<": "lt", ">": "gt", "%": "percent", "approx": "simeq sim", "*": "cdot times ast",
    "/": "div", "lor": "vee", "land": "wedge", "neg": "lnot", "implies": "Rightarrow", "setminus": "backslash",
    "emptyset": "varnothing", "epsilon": "varepsilon",
    r"\{": "lbrace", r"\}": "rbrace", "[": "lbrack", "]": "rbrack", ":": "colon", "circ": "degree", "phi": "varphi",
    "|": "vert lvert rvert Vert lVert rVert", "ldots": "dots cdots", "rightarrow": "to", "theta": "vartheta",
    "": "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr displaystyle textstyle scriptstyle limits "
        "nolimits boxed fbox quad qquad hspace thinspace space ensuremath rm bf it cal mathrel mathop mathbin mathopen "
        "mathclose mathord protect strut middle large Large normalsize underline therefore",
    "text": "textbf textit textrm textnormal textsf texttt textup emph mbox hbox mathrm mathbf mathit mathsf mathtt "
            "boldsymbol bm operatorname pmb mathnormal",
}  # fmt: skip
_SPELLINGS = {name: sign for sign, names in _COMMANDS.items() for name in names.split()}


_VECTOR = r"\\(?:vec|overrightarrow|mathbf|boldsymbol|bm)(?: *\{ *[a-zA-Z]+ *\}| +[a-zA-Z])"
_SUBSTITUTIONS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"或", " or "),
        (r"[和与及]", " and "),
        (r"平方 *", " square "),
        (r"立方 *", " cubic "),
        (r"(?<![a-zA-Z])mph(?![a-zA-Z])", " miles per hour"),
        (r"(?<![a-zA-Z])([ckm]m)([23])(?![0-9a-zA-Z])", r"\1^\2"),  # cm2
        (r"^([^a-zA-Z$]*(?:\\(?:sqrt|d?frac|pi)[^a-zA-Z$]*)*[0-9}) ])m$", r"\1\\text{m}"),  # 5m, but not $5m$
        (r"^([0-9.]*(?:\\pi |\\sqrt *\{?[0-9]+\}? *))m(?=[\^²³])", r"\1meters"),  # 50πm^{2}
        (r"([⁰¹²³⁴-⁹⁻]+)", r"^{\1}"),
        (r"([₀-₉]+)", r"_{\1}"),
        (r"(?<=[0-9])\.([0-9]*)\(([0-9]+)\)", r".\1\\overline{\2}"),  # 0.1(6)
        (r"(?<![0-9a-z])\.(?= *\\(?:overline|bar)\b)", "0."),
        (r"(?<=[0-9A-F]) *(\\text\{ *)?(?:in )?\(?base ([0-9]{1,2})\)?(?(1) *\})", r"_{\2}"),
        (r"(?<=[0-9]) *(?:\{ *, *\}|,\\!|\\,) *(?=[0-9]{3}(?![0-9]))", ""),  # a thousands separator, as LaTeX spaces it
        (r"\{ *([,:]) *\}", r"\1"),
        (r"(?<!\\)\\[,!;:> ]|(?<!\\)~", " "),
        (r"(-?) *\\\$", r"\\dollar \1"),  # money
        (r"(?:%|\bpercent) of\b", r"\\of "),
        (r"\\\\ *\[[0-9.]+ *[a-z]{2}\]", r"\\\\"),  # the space between rows
        (r"\\top(?![a-z])", "T"),
        (r"(\.[0-9]*?)(?:([0-9])\2\2+|([0-9]{2,}?)\3+) *(?:\\ldots|\.\.\.)", r"\1\\overline{\2\3}"),  # 0.333...
        (r"(?<=[0-9]) x (?=10 ?\^)", "*"),  # 3 x 10^8
        (r"(?<![0-9.])([0-9]+) +([0-9]+)/([0-9]+)(?![0-9/.])", r"\1\\frac{\2}{\3}"),  # 1 3/4
        (r"(?<!\\)\$|(?<!\\)\\[()\[\]]", " "),  # math delimiters
        (r"\\math(?:bb|cal|frak) *(\{ *)?([RZQNC])(?(1) *\})", r" \\\2 "),
        (r"\\math(?:bb|cal|frak) *(\{ *)?([A-Z])(?(1) *\})", r" \2 "),
        (r"(?<=[0-9]) (?=[0-9]{3}(?![0-9/]))(?<![0-9]{4} )", ""),  # 58 500
        (r"^\*\*([^*]*)\*\*$", r"\1"),  # bold
        (r"(?<![a-zA-Z])([apAP])\. ?([mM])(?![a-zA-Z])\.?", r"\1\2"),  # p.m.
        (r"(?<=[a-zA-Z)]) *\\circ *(?=[a-zA-Z(])", r" \\composed "),
        (rf"({_VECTOR}(?:\^\{{?[-0-9T]+\}}?)?) *(?:\\times *)?(?={_VECTOR})", r"\1\\cross "),  # products with an order
        (r"\^ *(?:\{ *\\(?:circ|degree) *\}|\\(?:circ|degree)(?![a-z]))", r"\\circ "),
        (r"\^ *\{ *((?:\\prime *)+)\}", r"\1"),
        (r"(?:\^ *)?\\prime(?![a-z]) *", "'"),
        (r"(?<![0-9.])([0-9]+) *\\circ *([0-9.]+) *' *([0-9.]+) *''", r"(\1+\2/60+\3/3600)\\circ "),  # 30° 15' 20''
        (r"(?<![0-9.])([0-9]+) *\\circ *([0-9.]+) *'(?!')", r"(\1+\2/60)\\circ "),
        (
            r"\(? *(?:\\p?mod|(?<![a-zA-Z\\])mod|\\(?:text|mathrm) *\{ *mod *\})(?![a-zA-Z])[ ({]*([0-9]+)[ }]*\)?",
            r" \\mod \1 ",
        ),
        (r"\{?\}?(?<!\w)[_^] *\{?([0-9]+)\}? *C *_ *\{?([0-9]+)\}?", r"\\binom{\1}{\2}"),  # {}_{10}C_3
        (r"(?<!\w)([0-9]+|[a-zA-Z]) choose ([0-9]+|[a-zA-Z])(?!\w)", r"\\binom{\1}{\2}"),
        (r"(?:(?<=[0-9}])|\\(?:mathrm|text|rm) *(\{)) *([kMmGu]?) *\\(?:Omega|ohm) *(?(1)\}|$)", r" \\text{\2Ω}"),
        (r"(?:\\(?:mathrm|text|rm) *\{ *\\mu|\\mu *\\(?:mathrm|text|rm) *\{?) *([a-zA-Z]+) *\}?", r"\\text{u\1}"),
        (r"(?<=[0-9]) *\\mu *([msgALFCVWHJNT])$", r" \\text{u\1}"),
        (
            r"(?<=[^,;( ]) *[,;]? *\(?(?:\\text *\{ *)?(?:where|for|with)?(?: (?:all|any|every))? *\}? *"
            r"([a-zA-Z]) *\\in *(?:\\mathbf *\{|\\)? *([ZNQR])\}? *\)?$",
            r", \1 \\in \\\2",
        ),  # k\pi \; (k \in \mathbb{Z})
        (
            r"\\left *\\\{ *\\begin *\{array\} *(?:\{[a-z|]*\})?(.*)\\end *\{array\} *\\right *\.",
            r"\\begin{cases}\1\\end{cases}",
        ),
        (r"\\(?:left|right) *(?:\.|(?=[\[\]]))", ""),
        (r"(^|\\cup *|\\in *|= *)\](?=[^()\[\]]+[,;])", r"\1("),  # ]2,5[
        (r"([,;][^()\[\],;]+)\[(?=$| *\\cup)", r"\1)"),
        (r"^ *\\(?:boxed|fbox) *\{((?:[^{}]|\{[^{}]*\})*)\}[ .]*$", r"\1"),
        (r"(?<!\\)\\$", ""),
        (r"((?<![a-zA-Z])\{ *[a-zA-Z][^{}:|]*(?:\{[A-Z]\})?[^{}:|]*):(?!=)", r"\1\\mid "),  # {x : x > 3}
        (r"\\textcolor *\{[a-zA-Z]*\}|\\color *\{[a-zA-Z]*\}|\\phantom *(?:\{[^{}]*\}|\S)", " "),
    )
]
UPRIGHT = re.compile(r"\\(?:text[a-z]*|mbox|mathrm) *\{([^{}]*)\}")
_INTEGER = re.compile(  # k\pi, where k is an integer; k\pi for any integer k
    r"(?<=\S)[,;( ]*(?:where|for|with)? *(?:\$?([a-zA-Z])\$? is (?:an|any)(?: arbitrary)? integer"
    r"|(?:any|all|every|each|some|an)? *integers? +\$?([a-zA-Z])\$?)[.) ]*$"
)
_THOUSANDS = re.compile(r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")
_TOKEN = re.compile(
    r"(?P<space> *)(?:(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4}(?![0-9]))?)"
    r"|(?P<word>[^\W\d_]+)|\\(?P<command>[a-zA-Z]+)\*?|(?P<sign>\\\\|\\[{}%&#_|]|<=|>=|!=|\*\*|\\.|\S))"
)
_SIGNS = {r"\%": "%", r"\|": "|", "<=": r"\le", ">=": r"\ge", "!=": r"\ne", "**": "^", r"\&": "&"}


def clean(text):
    """The text with one spelling for spaces, thousands separators and degrees, and without a box around all of it."""
    text = " ".join(CHOICE_BEFORE.sub(r"\1) ", text).translate(_CHARACTERS).split())
    refuse_if(not text.isprintable(), "characters that no answer has")
    text = _INTEGER.sub(r", \1\2 \\in \\Z", " ".join(UPRIGHT.sub(r" \1 ", text).split())) if "integer" in text else text
    for pattern, replacement in _SUBSTITUTIONS:
        text = pattern.sub(replacement, text)
    return text.translate(_RAISED).strip(' "').rstrip(".,; \\")


def without_commas(text):
    """A cleaned text without thousands separators; in brackets, as in (100,200), commas separate members."""

    def joined(number):
        before = text[: number.start()]
        opened, closed = (sum(map(before.count, brackets)) for brackets in (("(", "[", r"\{"), (")", "]", r"\}")))
        return number[0] if opened > closed else number[0].replace(",", "")

    return _THOUSANDS.sub(joined, text)


def tokenize(text, upright=False, depth=0):
    """The tokens of a cleaned text; those inside \\text{…} are upright."""
    refuse_if(re.match(r"\[[0-9., ]*\] ?\* ?[0-9]|0[xb][0-9a-fA-F]+$", text), "a list or number of Python")
    tokens, position, spaced = [], 0, False
    while match := _TOKEN.match(text, position):
        spaced = spaced or match["space"] != ""
        kind, token, position = match.lastgroup, match[match.lastgroup], match.end()
        if kind == "command":
            token = _SPELLINGS.get(token, token)
            if not token:
                spaced = True
                continue
            if token == "text":
                inside, position = _group(text, position)
                refuse_if(depth > 3, "nested text")
                inner = tokenize(inside, True, depth + 1)
                tokens += [inner[0]._replace(spaced=spaced or inner[0].spaced), *inner[1:]] if inner else []
                spaced = inside.endswith(" ")
                continue
            kind, token = ("command", token) if token.isalpha() else ("sign", token)
        token = _SIGNS.get(token, token) if kind == "sign" else token
        kind, token = ("command", token[1:]) if token in (r"\le", r"\ge", r"\ne") else (kind, token)
        tokens.append(Token(kind, token, spaced, upright or not token.isascii()))
        spaced = False
    refuse_if(len(tokens) > MAX_TOKENS, "too many tokens")
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
    raise Refused("a brace is not closed")


def peek(tokens, *texts):
    """Whether the next token is one of these; commands include their backslash."""
    return bool(tokens) and text_of(tokens[-1]) in texts


def text_of(token):
    return "\\" + token.text if token.kind == "command" else token.text


def accept(tokens, *texts):
    """Takes the next token if it is one of these; its text, else an empty one."""
    text = text_of(tokens[-1]) if tokens else ""
    if text not in texts:
        return ""
    tokens.pop()
    return text


def expect(tokens, *texts):
    text = accept(tokens, *texts)
    refuse_if(not text, "something else must come next")
    return text


_OPERATORS = frozenset(r"+ - * / ^ _ ( [ { \{ , ; = < > : |( & le ge ne".split())


def bars(tokens):
    """Each | becomes "|(" or ")|". It closes an absolute value if one is open, unless an operand must follow."""
    if sum(token.text == "|" for token in tokens) % 2:
        return tokens
    result, opened = [], 0
    for token in tokens:
        if token.text == "|":
            closes = opened > 0 and result[-1].text not in _OPERATORS
            opened += -1 if closes else 1
            token = token._replace(text=")|" if closes else "|(")
        result.append(token)
    return result


def key_of(tokens):
    """A normal form: texts that share it are equal. Case is ignored if there are only letters: choices and words."""
    key, previous = "", ""
    for kind, text, *_ in tokens:
        key += " " * (kind == previous == "number") + "\\" * (kind == "command") + text
        previous = kind
    key = re.sub(r"\{([0-9a-zA-Z])\}(?![0-9])", r"\1", key)
    key = key[1:-1] if re.fullmatch(r"\{[^{}]*\}", key) else key
    return key.lower() if key.isalpha() else key
