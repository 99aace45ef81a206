"""Trees: what the grammar makes of an answer."""

from fractions import Fraction
from typing import NamedTuple


class Node(NamedTuple):
    """A node of a parsed answer; the meaning of `value` depends on the kind."""

    kind: str
    args: tuple = ()
    value: object = None

    def __neg__(self):
        if self.kind == "number":
            return number_node(-self.value)
        if self.kind == "decimal":
            return self._replace(value=(-self.value[0], *self.value[1:]))
        if self.kind == "matrix":
            return self._replace(args=tuple(-cell for cell in self.args))
        return Node("product", (number_node(-1), self))

    def __sub__(self, other):
        return Node("sum", (self, -other))

    def walk(self):
        """All nodes of the tree."""
        stack = [self]
        while stack:
            node = stack.pop()
            yield node
            stack += node.args

    def has(self, kind):
        return any(part.kind == kind for part in self.walk())

    def rewritten(self, kind, rule):
        """The tree with `rule(node)` in place of each node of a kind."""
        node = self._replace(args=tuple(part.rewritten(kind, rule) for part in self.args))
        return rule(node) if self.kind == kind else node

    def symbols(self):
        """The names of the free letters and unknown functions; a sum or product binds its index."""
        if self.kind == "symbol":
            return {self.value}
        names = {self.value + "()"} if self.kind == "apply" else set()
        for part in self.args:
            names |= part.symbols()
        return names - {self.value} if self.kind in ("sum", "prod") else names


def number_node(value):
    return Node("number", (), Fraction(value))


_JOINTS = {"sum": " + ", "product": "·", "fraction": " / ", "power": " ^ ", "union": " ∪ ", "intersection": " ∩ "}
_JOINTS |= {"difference": " ∖ ", "ratio": " : ", "list": ", ", "set": ", ", "brackets": ", ", "time": ":"}
_AROUND = {"set": "{}", "list": ("", ""), "ratio": ("", ""), "time": ("", "")}


def show(node):
    """A tree in one line."""
    parts, (kind, _, value) = [show(part) for part in node.args], node
    if kind in ("number", "decimal"):
        number = value if kind == "number" else value[0]
        return str(number) if number.numerator.bit_length() < 400 else "a number of many digits"
    if kind in ("symbol", "constant", "text", "unreadable", "date"):
        return value if kind in ("symbol", "constant") else repr(value)
    if kind == "relation":
        return parts[0] + "".join(f" {operator} {part}" for operator, part in zip(value, parts[1:], strict=True))
    if kind == "quantity":
        return " ".join([parts[0], *(name + (f"^{power}" if power != 1 else "") for name, power in value)])
    if kind == "inverse":
        return "1/" + parts[0]
    if kind not in _JOINTS or (kind == "sum" and value):  # a sum over an index is shown as a function
        name = value if kind in ("function", "apply") else {True: "+", False: "-"}.get(value, kind)
        return f"{name}({', '.join(parts)}{f'; {value}' if isinstance(value, int) and value > 1 else ''})"
    opening, closing = value if kind == "brackets" else _AROUND.get(kind, "()")
    return opening + _JOINTS[kind].join(parts).replace("·1/", "/") + closing
