"""Equality: two answers in, a verdict out. Nothing else decides whether answers are equal.

The text was written by a model, so only our own tokenizer and grammar read it (spelling.py, reading.py). All work is
bounded before it is done, and there is no clock, signal or lasting state: any thread or process may call this. Trees
are compared member by member; numbers and expressions are compared by value.
"""

from fractions import Fraction
from functools import cmp_to_key
from typing import NamedTuple
from zlib import crc32

from grader.reading import MAX_EXPRESSION, MAX_MEMBERS, MAX_NESTING, read
from grader.spelling import Refused, refuse_if
from grader.trees import Node, number_node, show
from grader.values import MORE_PRECISION, PRECISION, SCALARS, At, agree, evaluate, quotient, sign_of
from grader.words import UNITS

MAX_SYMBOLS = 8
MAX_ENDS = 32  # of two sets of numbers


class Comparison(NamedTuple):
    """A verdict, the rule that decided, and how both sides were parsed, for people to read."""

    equal: bool
    rule: str
    candidate: str
    answer: str


def is_equiv(candidate: str, answer: str) -> bool:
    """Whether two bare expressions are the same answer; `answer` is the gold. Never raises.

    The same mathematical values or objects are equal in any form: numbers (exactly if rational, else to 1200 digits);
    expressions (at several points, their letters taken as positive reals); lists, in any order; tuples, intervals and
    matrices, in order; an inequality and its interval; equations, up to moved terms and a nonzero factor; `x=5` and 5.
    A unit missing on one side is ignored. `28\\%` is 28 or 0.28 if the gold has the percent sign; the gold 20 is
    `20\\%`, 0.75 is `75\\%`, but 20 is not 0.2. A decimal equals a fraction or root that it rounds only if it shows 10
    or more digits, all of which agree.

    If a bound is exceeded, the verdict is unequal: a wrong "equal" teaches the model, a missed one only slows it.
    """
    return compare(candidate, answer).equal


def compare(candidate: str, answer: str) -> Comparison:
    """`is_equiv`, with the rule that decided and both sides as they were parsed."""
    if max(len(candidate), len(answer)) > MAX_EXPRESSION:
        return Comparison(False, "over a bound", candidate[:40], answer[:40])
    try:
        one, gold = read(candidate), read(answer)
        rule = _decide(one, gold)
        return Comparison(rule != "", rule or "different", show(one.node), show(gold.node))
    except Exception as error:  # a bug of ours costs one verdict, not a run; tests check that there is none
        deep = isinstance(error, RecursionError)  # of the caller: our own depth is bounded
        return Comparison(False, "over a bound" if deep else f"fault: {type(error).__name__}", candidate, answer)


def is_parsed(answer: str) -> bool:
    """Whether an answer is parsed as a number, expression, structure or words; else only the same text equals it."""
    return reading_of(answer)[0] != "unreadable"


def reading_of(answer: str) -> tuple[str, str]:
    """(kind, how it is read, in one line) of an answer: "text" for words, "unreadable" for what only equals itself."""
    try:
        found = read(answer) if len(answer) <= MAX_EXPRESSION else None
        if found and found.key and found.node.kind != "nothing":
            node = found.node if found.node.kind != "unreadable" or not found.inner else found.inner.node
            return node.kind, f"choice {found.choice}" if found.choice and node.kind != "text" else show(node)
    except Exception:  # as in `compare`
        pass
    return "unreadable", repr(answer[:60])


def _decide(candidate, gold):
    """The first rule by which the two are equal, or ""."""
    if not candidate.key or not gold.key or (candidate.domain and gold.domain and candidate.domain != gold.domain):
        return ""
    if candidate.key == gold.key:
        return "same text"
    if gold.choice and candidate.choice and (gold.choice != candidate.choice or not (gold.inner and candidate.inner)):
        return "choice" if candidate.choice == gold.choice else ""
    labels = {side.key.removesuffix(side.inner.key) for side in (candidate, gold) if side.inner and not side.choice}
    if len(labels) > 1:  # \max = 5 and \min = 5
        return ""
    if candidate.inner or gold.inner:  # a choice or a sentence: what it says
        return _decide(candidate.inner or candidate, gold.inner or gold)
    nodes, gold_node = [_beside(candidate, gold.node)], _beside(gold, candidate.node)
    rounded = gold.node.args[0] if gold.node.kind == "quantity" else gold.node
    if rounded.kind == "decimal" and candidate.node.kind == "relation" and _settled(candidate.node).kind != "false":
        nodes += candidate.node.args if "≈" in candidate.node.value else ()  # 16 pi \approx 50.27
    return next(filter(None, (_same_if_defined(node, gold_node) for node in nodes)), "")


def _beside(answer, other):
    """The tree of an answer beside the other side's: 2i - j is a vector if that is one; 1A has a base if it has."""
    node = answer.node
    if node.kind in ("sum", "product") and other.kind in ("brackets", "matrix"):
        return _components(node, len(other.args))
    if other.kind == "base" and other.args[0].kind == "text" and node.kind != "base":
        return Node("text", (), answer.key.upper())
    return node


_AXES = {
    before + name + after: axis
    for axis, name in enumerate("ijk")
    for before, after in (("", ""), ("hat ", ""), ("vec ", ""), ("hat ", "math"), ("vec ", "math"))
}


def _components(node, size):
    """The vector of a sum of multiples of i, j and k; another tree as it is."""
    terms = node.args if node.kind == "sum" else (node,)
    axes = [
        [_AXES[part.value] for part in term.walk() if part.kind != "number" and part.value in _AXES] for term in terms
    ]
    used = {axis for found in axes for axis in found}
    if size not in (2, 3) or not {0} < used | {0} <= set(range(size)) or any(len(found) != 1 for found in axes):
        return node
    for kind in ("symbol", "constant"):
        terms = [term.rewritten(kind, lambda part: number_node(1) if part.value in _AXES else part) for term in terms]
    cells = [[term for term, found in zip(terms, axes, strict=True) if found == [axis]] for axis in range(size)]
    return Node("brackets", tuple(Node("sum", (number_node(0), *cell)) for cell in cells), "()")


_INFINITY = Node("constant", (), "infinity")


def _same(one, gold, depth=0):
    """The rule by which two trees are equal, or "". Members are compared recursively; kind and brackets must match."""
    refuse_if(depth > MAX_NESTING, "nested too deep")
    one, gold = _settled(_signs(one)), _settled(_signs(gold))
    kinds = {one.kind, gold.kind}
    for several, single in (one, gold), (gold, one):  # 1/2 or 0.5 is one answer
        if several.value == "or" and several.kind == "list" and single.kind not in ("list", "set"):
            pairs = [(each, single) for each in several.args]
            if all(_same_if_defined(*pair, depth + 1) or _same_if_defined(*pair[::-1], depth + 1) for pair in pairs):
                return "list"
    if not kinds & {"base", "text", "family", "congruence"} and (_is_region(one) or _is_region(gold)):
        return _same_regions(one, gold, depth)
    return next((rule for of_kinds, rule in _RULES if kinds & of_kinds), _same_quantities)(one, gold, depth)


def _same_texts(one, gold, _depth):
    """Words and dates; what is false, or not read, equals nothing."""
    return "words" if one == gold and one.kind in ("text", "date") else ""


def _settled(node):
    """A tree with its meaning in one form: no chains of relations, degrees as a unit."""
    if node.kind == "relation" and set(node.value) <= {"=", "≈"}:
        return _chain(node)
    if node.kind == "relation" and node.value == ("∈",) and node.args[1].kind == "set":
        return _settled(node.args[1])
    if node.kind in SCALARS and node.has("degrees"):
        return Node("quantity", (node,), (("degree", 1),))
    return node


def _chain(node):
    """x = 40 + 2 = 42 becomes the equation of x and 40 + 2. A chain whose links disagree is false; one without a name
    becomes its first exact value; two sides that differ are an equation. Formulas between a name and numbers, as in
    A = bh = 6, are not checked."""
    sides, operators = list(node.args), list(node.value)
    end = 0 if _is_label(sides[0], sides[1:]) else -1 if _is_label(sides[-1], sides[:-1]) else None
    kind = "plain" if end is None else "named"
    if end is None and len(sides) > 2 and sides[0].symbols() and not sides[-1].symbols():
        end = 0
    label = None if end is None else sides.pop(end)
    if label:
        operators.pop(end)
    while label and len(sides) > 1 and sides[0].symbols() and not sides[-1].symbols():
        sides, operators = sides[1:], operators[1:]
    links = zip(operators, sides, sides[1:], strict=False)
    true = all((_rounds if operator == "≈" else _same_if_defined)(*link) for operator, *link in links)
    value = next((side for side in sides if side.kind != "decimal"), sides[0])
    if true:
        return Node("equation", (label, value), kind) if label else _settled(value)
    if label or len(sides) > 2 or not (sides[0].symbols() or sides[1].symbols()):
        return Node("false")
    return Node("equation", tuple(sides), "plain")


def _stated(equation, of_gold):
    """The value that an equation states, as x = 5, m + n = 25, f(2) = 7, AB/CD = 3 do, or None if it may be meant as an
    equation: 2x + 1 = 7, x + y = 0; in the gold also a + b = 2."""
    name, value = equation.args if equation.args[0].symbols() else equation.args[::-1]
    letters = name.symbols()
    if equation.value == "named":
        return equation.args[1]
    spoken = any(part.kind in ("function", "apply") for part in name.walk())
    names = len(letters) > 1 and (not of_gold or all(letter[0].isupper() or " " in letter for letter in letters))
    of_points = letters & {"x", "y", "z"} and (of_gold or value == number_node(0)) and name.kind != "function"
    return value if (spoken or names) and not of_points and not value.symbols() else None


def _rounds(one, other):
    """Whether one of two numbers is the other one rounded."""
    one, other = (side.args[0] if side.kind == "quantity" else side for side in (_settled(one), _settled(other)))
    for exact, rounded in (one, other), (other, one):
        if rounded.kind in ("number", "decimal") and exact.kind in SCALARS and not exact.symbols():
            slack = Fraction(1, 10 ** (rounded.value[1] if rounded.kind == "decimal" else 0))
            distance = Node("abs", (exact - rounded,))
            try:
                cut_off = _order(Node("abs", (rounded,)), Node("abs", (exact,))) < 0
                return _order(distance, number_node(slack if cut_off else slack / 2)) <= 0
            except Refused:  # 2/0
                return False
    return False


def _is_label(node, others):
    """Whether a side of an equation only names the other: x, f(x), AB, |AB|, \\angle A, (p, q), a:b."""
    if node.kind == "symbol":
        return not any(node.value in other.symbols() for other in others)
    if node.kind == "apply":
        return not any((part.kind, part.value) == ("apply", node.value) for other in others for part in other.walk())
    if node.kind == "constant":
        return node.value == "e" and not any(other.has("constant") for other in others)
    if node.kind == "abs":
        inside = node.args[0]  # but |x| = 3 is to be solved
        return _is_label(inside, others) and (inside.kind == "product" or show(inside).startswith(("z", "w", "vec ")))
    if node.kind == "product":
        capitals = all(factor.kind == "symbol" and factor.value[0].isupper() for factor in node.args)
        return capitals and not any(other.symbols() for other in others)
    return node.kind in ("brackets", "ratio") and all(member.kind == "symbol" for member in node.args)


def _same_equations(one, gold, depth):
    """Named alike and equal in value, or equivalent: equal up to moved terms and a nonzero factor."""
    if one.kind != gold.kind:
        one, gold = (_stated(side, side is gold) if side.kind == "equation" else side for side in (one, gold))
        return _same(one, gold, depth + 1) if one and gold else ""
    (name, value), (gold_name, gold_value) = one.args, gold.args
    if one.value == gold.value == "named":
        renamed = _renamed(name, value, gold_name)
        if renamed:
            return _same(renamed, gold_value, depth + 1)
        if {name.kind, gold_name.kind} & {"apply", "brackets"}:
            return ""
    if all(side.kind in SCALARS for side in (*one.args, *gold.args)):
        return "equation" if _factor_between(name - value, gold_name - gold_value) else ""
    return ""


def _renamed(name, value, gold_name):
    """The value with the gold's letters, None if the names disagree: f(t) = t^2 is f(x) = x^2; y is f(x)."""
    kinds = {name.kind, gold_name.kind}
    shown, gold_shown = show(name), show(gold_name)
    same = shown in (gold_shown, gold_shown.partition("_")[0]) or gold_shown == shown.partition("_")[0]  # x_1 is x
    if same or (kinds == {"symbol", "apply"} and Node("symbol", (), "y") in (name, gold_name)):
        return value
    if kinds != {"apply"} or name.value != gold_name.value or len(name.args) != len(gold_name.args):
        return None
    letters = {letter.value: gold_letter for letter, gold_letter in zip(name.args, gold_name.args, strict=True)}
    captured = (value.symbols() - letters.keys()) & {letter.value for letter in gold_name.args}  # f(y) = x is not f(x)
    named = all(letter.kind == "symbol" and not letter.value[0].isupper() for letter in (*name.args, *gold_name.args))
    renamed = value.rewritten("symbol", lambda part: letters.get(part.value, part))
    return renamed if named and not captured else None


def _same_lists(one, gold, depth):
    """Each member matches a different one of the other side. A bare list may be a tuple or x = 1, y = 2, in order."""
    for listed, other in (one, gold), (gold, one):
        names, values = _named(listed)
        if listed.kind == "list" and other.kind in ("brackets", "matrix"):
            ordered = Node("brackets", values, other.value if other.kind == "brackets" else "()")
            plain = other.kind == "matrix" or other.value == "()" or (other.value == "[]" and len(other.args) > 2)
            return _same_cells(ordered, other, depth) if plain else ""
        if len(names) > 1 and not _named(other)[0]:
            cells = (Node("brackets", side, "()") for side in (values, other.args))
            return _same_cells(*cells, depth) if other.kind == "list" and other.value != "or" else ""
    members, golds = (side.args if side.kind in ("list", "set") else (side,) for side in (one, gold))
    fraction = one.kind != gold.kind and len(members) == 1 and members[0].kind == "symbol"  # {x} is not x
    if len(members) != len(golds) or len(members) > 2 * MAX_MEMBERS or fraction:
        return ""
    return "list" if _matched(members, golds, lambda *pair: _same_if_defined(*pair, depth + 1)) else ""


def _named(node):
    """The letters of x = 1, y = 2, and the values in order; x_1 and x_2 are one letter. Without, the members."""
    members = [_settled(member) for member in node.args] if node.kind == "list" else []
    if not members or any(member.value != "named" for member in members):
        return set(), node.args
    pairs = [(show(member.args[0]).partition("_")[0], member.args[1]) for member in members]
    names = {name for name, _ in pairs}
    pairs = sorted(pairs, key=lambda pair: pair[0]) if names <= {*"xyz"} else pairs
    return names, tuple(value for _, value in pairs)


def _matched(ones, golds, same):
    """Whether each is the same as another one of the golds. Greedy is enough: equal ones are interchangeable."""
    rest = list(golds)
    for one in ones:
        match = next((i for i, gold in enumerate(rest) if same(one, gold)), None)
        if match is None:
            return False
        del rest[match]
    return not rest


def _same_if_defined(one, gold, depth=0):
    """`_same`, where what has no value equals nothing."""
    try:
        return _same(one, gold, depth)
    except Refused:
        return ""


def _same_cells(one, gold, depth):
    """Tuples, intervals and matrices, cell by cell; a column or row may be written as a tuple, rows as tuples."""
    shapes, cells = zip(*(_cells(node) for node in (one, gold)), strict=True)
    loose = {*shapes} <= {"()", "[]", "vector"} and ("vector" in shapes or len(cells[0]) > 2)
    if shapes[0] is None or (shapes[0] != shapes[1] and not loose) or len(cells[0]) != len(cells[1]):
        return ""
    same = all(_same(*pair, depth + 1) for pair in zip(*cells, strict=True))
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


def _same_families(one, gold, depth):
    """k pi, k in Z is n pi, n in Z; the letter may be declared on one side only."""
    if one.kind != gold.kind and _is_region((one if one.kind == "family" else gold).args[0]):
        return ""  # the whole numbers from 2 to 5 are not [2, 5]
    if one.kind == gold.kind:
        (letter, numbers), (gold_letter, gold_numbers) = one.value, gold.value
        if numbers != gold_numbers or (letter != gold_letter and gold_letter in one.symbols()):
            return ""
        renamed = Node("symbol", (), gold_letter)
        one = one.rewritten("symbol", lambda part: renamed if part.value == letter else part)
    return _same(*(side.args[0] if side.kind == "family" else side for side in (one, gold)), depth + 1)


def _same_congruences(one, gold, _depth):
    """The same modulus, and numbers that differ by a multiple of it; x may be missing: x = 3 (mod 7) is 10 (mod 7)."""
    if one.kind != gold.kind or one.value != gold.value:
        return ""
    (*names, value), (*gold_names, gold_value) = one.args, gold.args
    if (names and gold_names and names != gold_names) or value.symbols() or gold_value.symbols():
        return ""
    difference = evaluate(value - gold_value, At({}, PRECISION, True))
    same = isinstance(difference, Fraction) and (difference / one.value).denominator == 1
    return "congruence" if same else ""


def _same_ratios(one, gold, _depth):
    """3:2 is 6:4 and 3/2; 1:2:3 is 2:4:6. Of two times, 1:03 PM is 13:03 and 1:03, but 2:40 is not 1:20."""
    if one.kind == gold.kind == "time":
        (day, hour, rest, half), (gold_day, gold_hour, gold_rest, gold_half) = one.value, gold.value
        same = day == gold_day or (bool(half) != bool(gold_half) and hour == gold_hour)
        return "time" if same and rest == gold_rest else ""
    if any(node.kind == "time" and node.value[3] for node in (one, gold)):
        return ""
    parts, golds = (node.args if node.kind in ("ratio", "time") else (node, number_node(1)) for node in (one, gold))
    if len(parts) != len(golds) or any(part.kind not in SCALARS for part in (*parts, *golds)):
        return ""
    same = number_node(0) not in (*parts, *golds) and all(
        _same_scalars(Node("product", (part, golds[0])), Node("product", (gold, parts[0])))
        for part, gold in zip(parts[1:], golds[1:], strict=True)
    )
    return "ratio" if same else ""


def _same_bases(one, gold, _depth):
    """204_5: base and digits agree. The base may be missing if the gold has one."""
    one = one if one.kind == "base" else Node("base", (one,), gold.value)
    gold = gold if gold.kind == "base" else Node("base", (gold,), 10)
    return "base" if one == gold else ""


def _is_region(node):
    """Whether a node is a set of numbers. A plain bracket (a, b) is one only if the other side is."""
    if node.kind == "relation":
        return not set(node.value) <= {"=", "≈", "≡"}
    if node.kind == "list":
        return all(member.kind == "relation" and set(member.value) <= _FLIPPED.keys() for member in node.args)
    return node.value == r"\R" or node.kind in ("union", "intersection", "difference", "builder")


def _same_regions(one, gold, depth):
    """The same set of numbers in any form: of all ends, and of what is between them, both have the same. Else the same
    inequalities."""
    regions = _region(one), _region(gold)
    if None in regions:
        return _same_relations(one, gold, depth)
    ends = [end for region in regions for end in region[1]]
    if len({region[0] for region in regions} - {None}) > 1 or len(ends) > MAX_ENDS:
        return ""
    probes = _around(ends)
    inside, gold_inside = ([has(probe) for probe in probes] for _, _, has in regions)
    return "interval" if inside == gold_inside and any(inside) else ""


def _around(ends):
    """The ends, the middles between them, and a number below and above."""
    ends = sorted((end for end in ends if not _infinity(end)), key=cmp_to_key(_order)) or [number_node(0)]
    middles = [Node("fraction", (Node("sum", pair), number_node(2))) for pair in zip(ends, ends[1:], strict=False)]
    return [ends[0] - number_node(1), *ends, *middles, ends[-1] - number_node(-1)]


def _region(node):
    """A set of numbers as (subject, ends, has), or None: the letter that is in it or None, where it may begin and end,
    without letters, and whether it has a number."""
    subject, ends, has = None, node.args, None
    if node.kind == "brackets" and len(ends) == 2:
        closed = node.value[0] == "[", node.value[1] == "]"
        has = lambda number: _order(ends[0], number) < closed[0] and _order(number, ends[1]) < closed[1]  # noqa: E731
    elif node.kind == "set":
        has = lambda number: any(_order(number, end) == 0 for end in ends)  # noqa: E731
    elif node.value == r"\R":
        has = lambda _: True  # noqa: E731
    elif node.kind in ("union", "intersection", "difference", "list"):
        return _combined(node)
    elif node.kind == "builder" or (node.kind == "relation" and node.value == ("∈",)):  # x \in […], \{x \in R | …\}
        name, rule = node.args if node.kind == "builder" else (node.args[0], _settled(node.args[1]))
        letter, inside = name.args[0] if name.kind == "relation" else name, _region(rule)
        if inside and inside[0] in (None, letter):
            subject, ends, has = None if node.kind == "builder" else letter, *inside[1:]
    elif node.kind == "relation":
        subject, ends, has = _inequality(node)
    return (subject, ends, has) if has and all(end.kind in SCALARS and not end.symbols() for end in ends) else None


def _combined(node):
    """Unions, intersections, differences. In a list of inequalities, a comma is "and", or else "or": x < 1, x > 2."""
    regions = [_region(part) for part in node.args]
    if None in regions or len({region[0] for region in regions} - {None}) > 1:
        return None
    ends, parts = [end for region in regions for end in region[1]], [region[2] for region in regions]
    rules = {
        "and": lambda number: all(has(number) for has in parts),
        "or": lambda number: any(has(number) for has in parts),
        "without": lambda number: parts[0](number) and not parts[1](number),
    }
    kind = {"union": "or", "intersection": "and", "difference": "without"}.get(node.kind, node.value)
    if kind == ",":
        kind = "and" if any(map(rules["and"], _around(ends))) else "or"
    return next((region[0] for region in regions if region[0]), None), ends, rules[kind]


_FLIPPED = {"<": ">", ">": "<", "≤": "≥", "≥": "≤"}
_HOLDS = {"<": (-1,), "≤": (-1, 0), ">": (1,), "≥": (0, 1), "≠": (-1, 1)}  # relation -> orders of its sides


def _inequality(node):
    """The region of 1 < x \\le 3, x > 5, x \\ne 2; |x| < 3 is -3 < x < 3."""
    sides, operators, named = node.args, node.value, None
    for side in sides[1:2] if len(sides) == 3 else sides:
        letter = side.args[0] if side.kind == "abs" else side
        if _is_label(letter, [other for other in sides if other is not side]):
            named = side
            break
    if named is None or len(sides) > 3 or not set(operators) <= _HOLDS.keys():
        return None, (), None
    ends = [side for side in sides if side is not named]

    def has(number):
        number = number if letter is named else Node("abs", (number,))
        row = [number if side is named else side for side in sides]
        return all(_order(*row[i : i + 2]) in _HOLDS[operator] for i, operator in enumerate(operators))

    return letter, ends if letter is named else ends + [-end for end in ends], has


def _same_relations(one, gold, depth):
    """Other inequalities: each link is one of the other side's, up to moved terms and a positive factor."""
    parts, golds = (side.args if side.kind == "list" else (side,) for side in (one, gold))
    if any(part.kind != "relation" for part in (*parts, *golds)) or (one.value == "or") != (gold.value == "or"):
        return ""
    if one.value == "or" and any(len(part.value) > 1 for part in (*parts, *golds)):  # a chain is "and"
        return ""
    links, gold_links = ([link for part in side for link in _links(part)] for side in (parts, golds))
    return "relation" if _matched(links, gold_links, lambda *pair: _same_links(*pair, depth)) else ""


def _links(relation):
    """(operator, smaller side, larger side) of each link of a chain."""
    return [
        (_FLIPPED[operator], right, left) if operator in ">≥" else (operator, left, right)
        for operator, left, right in zip(relation.value, relation.args, relation.args[1:], strict=False)
    ]


def _same_links(link, gold_link, depth):
    (operator, left, right), (gold_operator, gold_left, gold_right) = link, gold_link
    if operator != gold_operator:
        return False
    if operator in "<≤≠" and all(side.kind in SCALARS for side in (left, right, gold_left, gold_right)):
        factor = _factor_between(right - left, gold_right - gold_left)
        return factor > 0 or (operator == "≠" and factor < 0)
    return _same_if_defined(left, gold_left, depth + 1) and _same_if_defined(right, gold_right, depth + 1)


def _same_quantities(one, gold, _depth):
    """Equal numbers, with the same unit if both have one; percent depends on the gold's sign."""
    (value, unit), (gold_value, gold_unit) = _quantified(one, gold), _quantified(gold, one)
    if value.kind not in SCALARS or gold_value.kind not in SCALARS:
        return ""
    percent = (("%", 1),)
    hundredth = Node("fraction", (gold_value, number_node(100)))
    if gold_unit == percent and not unit:
        return _same_scalars(value, gold_value) or _same_scalars(value, hundredth)
    if unit == percent and not gold_unit:  # 0.5% is not accepted for the gold 0.5: a share below 1 is no percentage
        share = Node("fraction", (value, number_node(100)))
        return _same_scalars(share, gold_value) or (
            _order(Node("abs", (gold_value,)), number_node(1)) >= 0 and _same_scalars(value, gold_value)
        )
    if unit and gold_unit and not _same_units(unit, gold_unit):
        return ""
    return _same_scalars(value, gold_value)


def _quantified(node, other):
    """(number, unit). Letters after a number and a space, as in 3 m/s, are a unit if the other side is a bare number or
    has a unit in words."""
    if node.kind == "quantity":
        return node.args[0], node.value
    bare = other.kind in ("number", "decimal") and node.value == ("unit", "")
    if node.kind == "product" and (other.kind == "quantity" or bare):
        numbers, unit = tuple(factor for factor in node.args if not factor.symbols()), []
        for factor in (factor for factor in node.args if factor.symbols()):
            sign, letter = (-1, factor.args[0]) if factor.kind == "inverse" else (1, factor)
            if letter.kind == "power" and letter.args[1].kind == "number":
                sign, letter = int(sign * letter.args[1].value), letter.args[0]
            if letter.kind != "symbol" or letter.value not in UNITS:
                return node, ()
            unit.append((UNITS[letter.value], sign))
        if numbers:
            return numbers[0] if len(numbers) == 1 else Node("product", numbers), tuple(unit)
    return node, ()


def _same_units(unit, gold_unit):
    """The same names and exponents, or the same last word: 7 integers, 7 distinct integers."""
    if sorted(unit) == sorted(gold_unit):
        return True
    named = all(exponent == 1 and name not in (*UNITS.values(), "of") for name, exponent in (*unit, *gold_unit))
    return named and unit[-1] == gold_unit[-1] and (set(unit) <= set(gold_unit) or set(gold_unit) <= set(unit))


def _same_scalars(one, gold):
    """The rule by which two expressions are equal, or ""."""
    if one == gold:
        return "same tree"
    if _infinity(one) or _infinity(gold):
        return "infinity" if _infinity(one) == _infinity(gold) else ""
    letters, orders = one.symbols() | gold.symbols(), {_order_of_matrices(one), _order_of_matrices(gold)} - {()}
    if len(letters) > MAX_SYMBOLS or len(orders) > 1:
        return ""
    same = _same_at_points if letters else _same_constants
    log = any(len(part.args) == 1 and part.value == "log" for part in (*one.walk(), *gold.walk()))
    # log without a base may be either, but the same on both sides
    return same(one, gold, natural=True) or (same(one, gold, natural=False) if log else "")


def _order_of_matrices(node):
    """The capital letters of A^{-1}B or A^T B in order, which matters if they are matrices; else ()."""
    powers = [part.args for part in node.walk() if part.kind == "power" and part.args[0].kind == "symbol"]
    inverse = number_node(-1), Node("symbol", (), "T")
    if any(base.value.isupper() and exponent in inverse for base, exponent in powers):
        return tuple(part.value for part in node.walk() if part.kind == "symbol" and part.value.isupper())
    return ()


def _infinity(node):
    """1 or -1 for an infinity, else 0."""
    return (node == _INFINITY) - (node == -_INFINITY)


def _same_constants(one, gold, natural=True):
    """Exact between rationals, else at both precisions. A decimal may round a gold that never ends."""
    at = At({}, PRECISION, natural)
    value, gold_value = evaluate(one, at), evaluate(gold, at)
    if isinstance(value, Fraction) and isinstance(gold_value, Fraction):
        if value == gold_value:
            return "exact number"
    elif agree(value, gold_value, PRECISION):
        at = At({}, MORE_PRECISION, natural)
        if agree(evaluate(one, at), evaluate(gold, at), MORE_PRECISION):
            return "numeric probe"
    return "enough digits" if _is_rounded(one, gold, gold_value) else ""


def _is_rounded(one, gold, gold_value):
    """Whether a decimal of 10 or more digits agrees, in all of them, with a gold that no finite decimal equals."""
    if one.kind != "decimal" or gold.kind == "decimal" or one.value[2] < 10:
        return False
    value, places, _ = one.value
    if isinstance(gold_value, Fraction) and pow(10, gold_value.denominator.bit_length(), gold_value.denominator) == 0:
        return False
    return _order(Node("abs", (number_node(value) - gold,)), number_node(Fraction(1, 10**places))) < 0


def _same_at_points(one, gold, natural):
    """Equal at three points or more, and wherever both have a value."""

    def same(letters, precision=PRECISION):
        at = At(letters, precision, natural)
        return agree(evaluate(one, at), evaluate(gold, at), precision)

    found = _where(same, _points(one, gold, turned=True))
    return "numeric probe" if found and same(found[0], MORE_PRECISION) else ""


def _factor_between(one, gold):
    """The sign (1, -1) of the constant factor between two expressions, 0 if there is none."""
    ratios, names = [], one.symbols() | gold.symbols()
    if not 0 < len(names) <= MAX_SYMBOLS:
        return 0
    if all(name.endswith("()") for name in names):  # f(2) - f(1) is a number, not a multiple of f(4) - f(1)
        return bool(_same_constants(one, gold)) - bool(_same_constants(one, -gold))

    def same(letters):
        at = At(letters, PRECISION, True)
        ratios.append(quotient(evaluate(one, at), evaluate(gold, at), PRECISION))
        return agree(ratios[0], ratios[-1], PRECISION)

    try:
        return sign_of(ratios[0]) if _where(same, _points(one, gold)) else 0
    except Refused:  # it is not real
        return 0


def _where(same, points):
    """The points, at least three, where both sides have a value and it is the same; none if it differs anywhere."""
    found = []
    for letters in points:
        try:
            if not same(letters):
                return []
            found.append(letters)
        except Refused:
            continue
    return found if len(found) > 2 else []


def _points(one, gold, turned=False):
    """Where to compare: determined by the letters' names, and in no simple relation.

    Small whole numbers for letters under a floor, in a factorial or in a sign (-1)^n. Else from 0.3 to 3, some scaled;
    if `turned`, and no root or function may need positive letters, with other signs too.
    """
    names, parts = sorted(one.symbols() | gold.symbols()), [*one.walk(), *gold.walk()]
    if any(map(_of_integers, parts)):
        if len(names) == 1:
            return [{names[0]: Fraction(n)} for n in range(1, 19)]
        return [{name: Fraction(1 + crc32(f"{name} {k}".encode()) % 12) for name in names} for k in range(24)]
    scales = (1, 1, 1, Fraction(1, 40), 12, 100)  # so that |x - 3| differs from 3 - x
    points = [
        {name: scale * Fraction(2903 + crc32(f"{name} {k}".encode()) % 27_000, 9973) for name in names}
        for k, scale in enumerate(scales)
    ]
    powers = [part.args[1] for part in parts if part.kind == "power"]
    whole = all(power.kind == "number" and power.value.denominator == 1 for power in powers)
    if turned and whole and not any(part.kind == "function" for part in parts):
        points += [
            {name: value * (-1) ** (i + 1) for i, (name, value) in enumerate(point.items())} for point in points[::4]
        ]
    return points


def _order(one, other):
    """-1, 0 or 1: which of two real constants is larger. Refused for anything else."""
    low, high = _infinity(one), _infinity(other)
    if low or high:
        return (low > high) - (low < high)
    refuse_if(one.symbols() or other.symbols(), "letters have no order")
    if _same_constants(one, other):
        return 0
    return sign_of(evaluate(one - other, At({}, MORE_PRECISION, True)))


def _of_integers(part):
    """Whether it makes letters whole numbers: a floor, a factorial, or the exponent of a negative base."""
    if part.kind in ("floor", "ceiling"):  # but x in the floor of x need not be whole
        return not all(inner.kind in ("symbol", "number", "sum", "product") for inner in part.args[0].walk())
    if part.kind == "power" and part.args[1].symbols():
        return part.args[0].kind == "number" and part.args[0].value < 0
    return part.kind in ("factorial", "binomial", "prod") or (part.kind == "sum" and part.value)


def _signs(node):
    """A tree in which each member with \\pm becomes two, for + and for -; the signs within a member change together."""
    if not node.has("signs"):
        return node
    if node.kind in ("list", "set"):
        return node._replace(args=tuple(both for member in node.args for both in _both(member)))
    return Node("list", _both(node), "or")


def _both(node):
    if not node.has("signs"):
        return (node,)
    refuse_if(sum(part.kind == "signs" for part in node.walk()) > 4, "too many signs")
    plus = node.rewritten("signs", lambda part: part.args[0] if part.value else -part.args[0])
    return plus, node.rewritten("signs", lambda part: -part.args[0] if part.value else part.args[0])


_RULES = (  # kinds, and the rule if either tree is of one of them; the first counts, else they are quantities
    ({"base"}, _same_bases),
    ({"text", "date", "false", "nothing", "unreadable"}, _same_texts),
    ({"family"}, _same_families),
    ({"congruence"}, _same_congruences),
    ({"equation"}, _same_equations),
    ({"list", "set"}, _same_lists),
    ({"brackets", "matrix"}, _same_cells),
    ({"ratio", "time"}, _same_ratios),
)
