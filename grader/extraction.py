"""Extraction: a completion in, the answer that it submits out, verbatim; and whether that is right.

Completions are hostile text: only their end is read, every scan is linear, and the rules only search, never evaluate.
"""

import re
from functools import lru_cache

from grader.equality import MAX_EXPRESSION, is_equiv, reading_of
from grader.words import DENIES, MULTIPLIERS, NOT_A_UNIT, UNITS, in_english, singular

MAX_COMPLETION = 20_000  # characters read, from the end
MAX_PROSE = 4_000  # of these, if there is no box

RULES = ("boxed", "tagged", "hashes", "phrase", "closing", "none")

# turns of the chat, text that is not part of an answer, and pleas with the grader
_TURN = re.compile(
    r"<\|(?:im_start|im_end|endoftext|end_of_text|eot_id|start_header_id)\|>|</s>|<(?:start|end)_of_turn>"
)
_COMMENT = re.compile(r"(?m)(?:^|(?<=[.,;:!?})]\s))[ \t]*%.*$")
_PROMPT = re.compile(  # a paragraph with such a heading, up to the heading of the answer
    r"(?im)^[#* \t]*(?:problem|question|prompt|user|human|q) ?[0-9]*[* \t]*:[\s\S]*?"
    r"(?=\n[ \t]*\n|\b(?:solution|answer|response|assistant|a)[* \t]*:|\Z)"
)
_PLEA = re.compile(
    r"(?i)ignore (?:all |any )?(?:the |your )?(?:previous|prior|above) instructions"
    r"|(?:mark|grade|score|accept|count) (?:this|it|the answer|my answer) as (?:correct|right|true)"
)

_BRACE_OR_BOX = re.compile(
    r"\\\\(?![bf])|\\[{}]|[{}]|\\(?:boxed|fbox|framebox)\s*\{"
    r"|\\(?:boxed|fbox|framebox) *(?P<bare>[-+]?[0-9]+(?:[.,/][0-9]+)*|[A-Z](?![a-zA-Z]))"
)
_JOINT = re.compile(  # between the boxes of one list, or between alternatives
    r"(?:\n[ \t]*-|[\s,;/$&~()*]|\\\\|\\[,;:!()\[\]]|\\q?quad|\\text *\{[ ,]*(?:and|or)?[ ,]*\}"
    r"|(?:and|or|或|和|either|else|maybe|perhaps|possibly)\b|(?<=[\s$(])[a-zA-Z](?:_\{?[0-9]\}?)? *= *)*"
)
_TAKEN_BACK = re.compile(  # anywhere after the answer
    r"(?i)[.!?,;:…\n(—–-][ *]*(?:(?:oh|ah|um|but|or|though|although),? )?(?:not? ?(?:[,.:;!…—–-]|$)|(?:no wait|wait"
    r"|wrong|incorrect|actually|hmm*|oops|edit|sorry|rather|correction|never ?mind|on second thought|maybe|perhaps"
    r"|possibly|scratch that|(?:it|this|that) (?:could|might|may) (?:also |well )?be)\b)|\b(?:it|this|that|which|I)"
    r"(?: is|'s| was| am|'m)(?: \w+)? (?:wrong|incorrect|mistaken|false|not right|not correct)\b"
    r"|(?:n't|not) (?:be )?(?:right|correct)\b|\bI (?:mean\b|mis|made an? (?:mistake|error)|take)"
    r"|\bit should (?:be|have been)\b(?! noted)|\. +or\b(?! equivalently| in\b| as\b| simply\b)"
    r"|\bget\b[^.?!\n]{1,30} instead\b|\bkidding\b|\bI(?: am|'m) not (?:\w+ )?sure\b|\bbut it(?: is|'s) [$\\(]*[0-9]"
)
_CHANGED = re.compile(  # \boxed{8} million, \boxed{8} or 9, \boxed{8} is wrong
    r"(?i)[\s$*)\]\\]*(?:(?:hundred|thousand|[mb]illion|dozen|gross)s?|(?:text *\{ *)?or(?! equiv)"
    r"|is (?:not|wrong|incorrect)|wait|hmm+|oops|actually)\b"
)
_NOT_BEFORE = re.compile(r"(?i)(?:\b(?:not|never)|n't|\\neq?|≠)[\s$*(]*$")  # x \neq \boxed{8}

_MATH = (
    r"\$\$[^$]{1,300}\$\$|\$(?:[^$\\\n]|\n(?!\s*\n)|\\[\s\S]){1,300}\$"
    r"|\\\((?:[^\\]|\\[^)]){1,300}\\\)|\\\[(?:[^\\]|\\[^\]]){1,300}\\\]"
)
_MATH_OR_END = re.compile(rf"(?P<math>{_MATH})|[.!?](?=[\s*\"')]|$)|\n|$")
_MARK = re.compile(
    r"(?im)(?<!#)####(?!#)"
    r"|^[#*_ \t]*(?:the )?(?:final |correct )?answers?[*_ \t]*\n"
    r"|\b(?:answers?|ans|(?:correct|right|best) (?:option|choice))\b[^.:=?!\n$\\0-9]{0,60}?"
    r"(?::|=|\b(?:is|are|was|be|equals|comes (?:out )?to)\b(?: not [^.;,\n]{1,40}[;,]? (?:it is|it's|but|rather)\b)?"
    r"(?! not\b| (?:correct|right|wrong)\b))"
    r"|^[*_ \t]*(?:final )?ans(?:wer|\.)?[*_]*(?: [–—→-])? (?=[-$0-9]|\\[(\[])"
    r"|(?<!:\n)^A: (?=[-$0-9][^\n]*\s*\Z)"
)
_NOT_STATED = re.compile(  # before "the answer is": a task, a question or a guess
    r"(?i)(?:\b(?:whether|your|maybe|perhaps|possibly|might|could|not sure|unsure)\b"
    r"|(?:^|[.:?!\n])[ *]*(?:show|prove|verify|check|find|compute|evaluate|suppose|assume)\b)[^.?!\n]*$"
    r"|(?:\b(?:wrong|incorrect|mistaken|false|tempting|naive|cannot|never|not (?:be|true)|guess|doubt|if|unless"
    r"|(?:first|initial|previous|old) answer)|n't|'s answer)\b[^.?!,;:\n]*$"
)
_FILLER = re.compile(
    r"(?i)(?:\n[ \t]*[-•] |[\s*_:>,]|\b(?:therefore|thus|then|hence|so|now|simply|just|indeed|clearly|exactly|roughly"
    r"|approximately|about|equal to|given by|either|both|option|choice|probably|likely|the|final|correct|is|are)\b,?)*"
)
_CLAUSE = re.compile(  # a remark that follows the answer
    r"(?i),? (?:because|since|which|where|when|although|though|but|i\.e\.|that is|as (?:we|shown|required|desired)"
    r"|and (?:so|we|this|the|it|i))\b|, (?:as|so|and not|not|if)\b| \((?![^()]*[0-9$\\])[^()]{3,}\)\s*$"
)
_WORDS_BEFORE = re.compile(r"^(?:[a-zA-Z' ]{1,60}\b(?:is|are|equals) |[一-鿿]{1,20}(?=[0-9]))")  # the total is 42
_UNSURE = re.compile(r"(?i)\b(?:maybe|perhaps|possibly|might|could|may be|unsure|not sure)\b")
_VALUE = re.compile(r"[-+−]?\s*(?:[0-9.$£€√π∞(\[{\\|]|[a-zA-Z](?![a-zA-Z]))")
_NUMBER = r"[-+−]?(?:\\?\$)?[0-9][0-9,]*(?:\.[0-9]+)?(?:/[0-9]+)?(?:\\?%|°)?"
_TERM = r"(?:\\?\$)?[0-9][0-9,.]*%?"
_CHAIN = rf"(?:{_TERM}(?:\s*[-+*/×]\s*{_TERM})*\s*=\s*)*"  # of 48+24 = 72
_ONE = rf"{_CHAIN}(?:{_MATH}|{_NUMBER}|\([A-J]\)|[A-J](?![a-zA-Z]))"
# what may follow a result, and is no part of it
_AFTER = r"(?:in|at|on|for|per(?! cent)|each|every|as|after|before|more(?! than)|an?|since|from|between|to(?! the))\b"
_ENDS = rf"(?:{_AFTER}|(?:and|or|of|to|by|is|are|but|does|fails|divides|contradicts|ha[sv]e?|was|were|can|will|must)\b)"
_RESULT = (
    rf"(?P<value>{_ONE}(?:(?:,| and|, and) {_ONE})*)"
    rf"(?P<unit>(?: ?(?!{_ENDS})[^\W\d_]+(?![^\W\d_])(?:/[a-z]+|\^?[23])?){{0,3}})"
    rf"(?:,? (?:{_AFTER}|(?<=[a-z] )(?<!cent )of )[^0-9$\\]*)?[*\s]*"
)
_CONCLUDES = r"(?i:\W*(?:(?:so|thus|therefore|hence|then|finally|in total|altogether|in conclusion)\b[\s,:]*)+)"
_IS = (
    r"(?:\b(?:is|are|was|were|equals|(?:must|will|would) be|total of)\b|[:是为有]"
    r"|^=|(?:[a-z]{2}|(?:^|[,a-z] |[^\x00-\x7f])[a-zA-Z]|[^\x00-\x7f]) ?=)"
)
_DOES = (
    r"\b(?:now has|(?:earn|make|get|give|sell|cost|pay|take|save|need|buy|spend|travel|receive|collect|use|eat)s?"
    r"|earned|made|got|sold|spent|paid|took|saved|gave|bought|drove|travell?ed|received|collected|used|ate)\b"
)
_MERELY = r"(?:,? (?:therefore|thus|then|exactly|equal to|also|just|only|a total of))*\s*"
_KNOWN = UNITS.keys() | MULTIPLIERS.keys() | NOT_A_UNIT
_STATES = re.compile(
    rf"(?:\*\*|{_CONCLUDES}(?:[^0-9$\\]*?\bha[sv]e?\s)?|[^0-9$\\]*?(?:{_DOES}|(?={_TERM}\s*[-+*/×]))|[\s\S]*?{_IS}){_MERELY}{_RESULT}"
)
_NO_WORDS = re.compile(r"(?![a-z]$|.*(?<![\\a-zA-Z])[a-zA-Z]{2})[^\n?]{1,200}(?<![=:,;])")


def is_right(completion: str, answer: str, *, prose: bool = True) -> bool:
    """Whether a completion submits the gold `answer`; False if either is missing: an unusable gold is never a gift."""
    candidate, gold = find_answer(completion, prose=prose)[1], extract_gold(answer)
    return bool(candidate and gold) and is_equiv(candidate, gold)


_NO_GOLD = re.compile(  # or no word and no sign of a value
    r"(?i)[^\w∅∞]*(?:(?:see )?(?:proof|solution)|not ?found|n/?a|nan|none|null|no answer|unknown|todo)?[^\w∅∞]*"
)
_DATA = re.compile(r"\s*(?:\{\s*[\"'}]|\[\s*[\"{]|assert\b|def |class |import |from \w+ import|#include|```)")
_LIST_OF_ONE = re.compile(r"""\[\s*(["'])((?:(?!\1)[^\\]|\\.)*)\1\s*\]""")
MARKED = re.compile(r"\\f?box|####|</answer>")
UNFINISHED = "a solution without a final answer"
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")


def extract_gold(answer: str) -> str:
    """The gold of a data set's answer, or "" if nothing can be checked against it; see `read_gold`."""
    return read_gold(answer)[0]


@lru_cache(maxsize=512)
def read_gold(answer: str) -> tuple[str, str]:
    """(gold, how it is read) of a data set's answer, or ("", why nothing can be checked against it).

    The answer is an expression or words, `["42"]`, or a worked solution with a box, `####`, an answer block, or a final
    sentence. "proof", "notfound", tests of code and a solution without a final answer cannot be checked.
    """
    single = _LIST_OF_ONE.fullmatch(answer.strip())
    gold = (single[2].replace("\\\\", "\\") if single else answer).strip()
    if _DATA.match(gold):
        return "", "code or data"
    num_words, marked = len(_WORD.findall(gold)), MARKED.search(gold)
    long = len(gold) > MAX_EXPRESSION or num_words > 12
    if marked or long or (num_words > 2 and re.search(r"[.!?](?=\s)|。|\n| answer", gold)):
        found = extract_answer(gold)
        if not found and (marked or long or "\n" in gold):
            return "", UNFINISHED
        gold = found or gold
    if _NO_GOLD.fullmatch(gold):
        return "", "no answer"
    kind, shown = reading_of(gold)
    return gold, shown if kind != "unreadable" else f"only the same text, {shown}"


def extract_answer(completion: str) -> str | None:
    """The answer that a completion submits, verbatim, or None. See `find_answer`."""
    return find_answer(completion, prose=True)[1]


@lru_cache(maxsize=32)  # a verdict and the answer that is shown beside it ask one after the other
def find_answer(completion: str, *, prose: bool = True) -> tuple[str, str | None]:
    """Which of RULES found the answer that a completion submits, and that answer; ("none", None) if there is none.

    Only the first turn counts; in it, only what follows the last `</think>` (an unclosed `<think>` has no answer); and
    in that, only the inside of the last `<answer>…</answer>`, if there is one. LaTeX comments and a repeated prompt are
    dropped. If the model continues with problems of its own ("Problem: …"), the answer before them counts.

    boxed    the last `\\boxed{}`, `\\fbox{}` or `\\boxed 5`. Boxes with only separators between them are one list; if
             the last box is empty or unclosed, there is no answer and no other rule is tried
    hashes   the last `#### x`
    phrase   the last of `the answer is x`, `Answer: x` and the like, up to the end of the statement. Two adjacent ones
             that disagree are no answer
    tagged   the whole inside of `<answer>`
    closing  the last sentence, if it is finished and has a form that states a result; or a value that is all that
             follows `</think>`

    An answer that is taken back ("or maybe 43", "No, it is 9") counts as none, as does a plea with the grader.
    The last number is never guessed at: that would pay for truncated text. Without prose: boxed, hashes and tagged.
    """
    text, place = own_text(completion)
    if _PLEA.search(text):
        return "none", None
    first, *others = [part for part in _PROMPT.split(text) if part.strip()] or [""]
    rule, answer = _found(first, place, prose)
    if others and not answer:
        rule, answer = _found("\n".join((first, *others)), place, prose)
    quoted = re.fullmatch(r"([\"'`]|\*\*?)([^\"'`*]+)\1", answer or "")
    answer = (quoted[2] if quoted else answer or "").strip()
    return (rule, answer) if answer else ("none", None)


def _found(text, place, prose):
    """The rule that applies to the text, and the answer or None."""
    boxes, unclosed = _boxes(text)
    if boxes or unclosed:
        return "boxed", None if unclosed else _last_boxes(text, boxes)
    text = in_english(text[-MAX_PROSE:])
    rule, answer = _marked(text, prose)
    if not rule and place == "block":
        rule, answer = "tagged", text.strip("* \t\r\n")
    elif not rule and prose:
        bare = text.strip("* \t\r\n.")
        alone = place == "after a thought" and _VALUE.match(bare) and _NO_WORDS.fullmatch(bare)
        rule, answer = "closing", bare if alone else _closing(text)
    return rule, answer


def own_text(completion):
    """The part of a completion that may contain its answer, and its place: "block", "after a thought" or ""."""
    text = next((turn for turn in _TURN.split(completion) if turn.strip()), "")
    thought_end = text.rfind("</think>")
    if text.find("<think>", max(thought_end, 0)) >= 0:
        return "", ""
    text = text[thought_end + len("</think>") :] if thought_end >= 0 else text
    place = "after a thought" if thought_end >= 0 else ""
    block_end = text.rfind("</answer>")
    block_start = text.rfind("<answer>", 0, max(block_end, 0))
    if block_start >= 0:
        text, place = text[block_start + len("<answer>") : block_end], "block"
    return _COMMENT.sub("", text[-MAX_COMPLETION:]), place


def _boxes(text):
    """The outermost complete boxes as (start, start and end of the inside, end), and whether a later one is open."""
    opened, boxes = [], []
    for mark in _BRACE_OR_BOX.finditer(text):
        token = mark[0]
        if mark["bare"]:
            boxes.append((mark.start(), *mark.span("bare"), mark.end()))
        elif token == "{" or token[1:2] in ("b", "f"):
            opened.append((mark.start(), mark.end(), token != "{"))
        elif token == "}" and opened:
            start, inside, is_box = opened.pop()
            while is_box and boxes and boxes[-1][0] > start:  # nested in this one
                boxes.pop()
            if is_box:
                boxes.append((start, inside, mark.start(), mark.end()))
    last = boxes[-1][0] if boxes else -1
    return boxes, any(is_box and start > last for start, _, is_box in opened)


def _last_boxes(text, boxes):
    """The inside of the last box, or of all last boxes with only separators between them, as one list."""
    first = len(boxes) - 1
    start, _, _, end = boxes[first]
    if _NOT_BEFORE.search(text[:start][-20:]) or _CHANGED.match(text, end) or _TAKEN_BACK.search(text, end):
        return None
    while first > 0 and _JOINT.fullmatch(text, boxes[first - 1][3], boxes[first][0]):
        first -= 1
    insides = [text[inside:end].strip() for _, inside, end, _ in boxes[first:]]
    if 1 < len(insides) < 9 and all(is_equiv(insides[0], each) or is_equiv(each, insides[0]) for each in insides[1:]):
        return insides[0]  # the same in several forms
    return ", ".join(dict.fromkeys(insides)) if insides[-1] else None  # the same box twice is one answer


def _marked(text, prose):
    """What the last mark states, as (rule, answer): ("", None) without a mark, (rule, None) if that is ambiguous."""
    later = None  # of the mark that follows: rule, start, answer
    for mark in reversed(list(_MARK.finditer(text))):
        hashes = "####" in mark[0]
        if not (prose or hashes) or _NOT_STATED.search(text, max(0, mark.start() - 100), mark.end()):
            continue
        if later and later[0] == "hashes" and not hashes:  # made for graders: no words before it matter
            return later[0], later[2]
        answer, stop, end = _statement(text, mark.end())
        if text[end : end + 1] == "?":
            continue
        is_value = _VALUE.match(answer) and not (hashes and re.match(r"[0-9]+[.:)]\s", answer))  # a heading
        if not is_value and (text[end:].strip(" .\n") if hashes else not 0 < len(answer.split()) < 4):
            continue
        if later:
            alone = _FILLER.sub("", text[end : later[1]]).strip(" .,;#*-")
            stated = answer.rpartition("=")[2]
            settled = alone not in ("", "or", "and") or is_equiv(stated, later[2]) or is_equiv(later[2], stated)
            return later[0], later[2] if settled else None
        rule = "hashes" if hashes else "phrase"
        if _UNSURE.search(answer) or _TAKEN_BACK.search(text, stop):
            return rule, None
        later = rule, mark.start(), answer
    return (later[0], later[2]) if later else ("", None)


def _statement(text, start):
    """What is stated from `start` on, without the words around it; where that ends, and where its sentence ends."""
    start = _FILLER.match(text, start).end()
    end = next(match.start() for match in _MATH_OR_END.finditer(text, start) if not match["math"])
    stop = start
    for piece in re.split(f"({_MATH})", text[start:end]):
        clause = None if re.fullmatch(_MATH, piece) else _CLAUSE.search(piece)
        stop += clause.start() if clause else len(piece)
        if clause:
            break
    stated = text[start:stop].replace("**", "").strip("*_ \t\r\n").removeprefix("}").rstrip(".,;:")
    stated = _WORDS_BEFORE.sub("", stated)
    return (len(stated.split()) > 4 and _result(_RESULT, stated)) or stated, stop, end


def _result(pattern, sentence):
    """The value that ends a sentence, and the words after it unless they only name what is counted; or None."""
    found = re.fullmatch(pattern, sentence)
    if not found or DENIES.search(sentence):
        return None
    forms = [form for word in found["unit"].split() for form in (word, word.lower(), singular(word))]
    return found["value"] + found["unit"] * any(not form.isascii() or form in _KNOWN for form in forms)


def _closing(text):
    """The one value that the last sentence states; None if it is unfinished, asks, doubts, or has several values."""
    text = re.sub(r"\s*\n\s*(?=\$\$|\\\[)", " ", text[-600:].rstrip())  # displayed math ends the sentence before it
    ends = [match.start() for match in _MATH_OR_END.finditer(text) if not match["math"]]
    start, last = 0, ""
    for end in ends:
        if text[start:end].strip(".!?)*\"' \n"):
            last, stop = text[start:end].strip(), text[end : end + 1]
        start = end + 1
    finished = last and (stop in (".", "!") or last.endswith(("**", "$", r"\]", r"\)")))
    if not finished or _NOT_STATED.search(last):
        return None
    last = re.sub(r"<<[^<>]*>>|(?<!^)\*\*", "", last)
    several = sum(map(bool, re.findall(rf"{_MATH}|({_IS}{_MERELY}{_ONE})", last))) > 1
    return None if several else _result(_STATES, last)
