"""What a row of a file asks, and its answer, in the columns and forms of public data sets.

A row is read as a person would read it, or refused in one line; never half of it.
"""

import json
import re
from decimal import Decimal
from functools import lru_cache
from pathlib import Path

from grader.boxes import find_box
from grader.equality import is_equiv
from grader.extraction import MARKED, UNFINISHED, extract_answer, read_gold
from tasks.pictures import MARK, picture_of
from tasks.prompts import MARKER, TURN

# Columns by what they hold, of which the first that is not null is used: in any case, with or without "_", spaces and
# hyphens; a dot goes into a nested column. Worked solutions are the last resort.
PROBLEM_FIELDS = """problem question.stem question_stem question problem_text instruction prompt input query messages
message conversations conversation responses_create_params.input""".split()
ANSWER_FIELDS = """answer reward_model.ground_truth answer_number final_answer expected_answer correct_answer
gold_answer short_answer best_answer multiple_choice_answer extracted_answer reference_answer ground_truth gold
gt_answer answer_key correct correct_option correct_choice_idx cop final_ans ideal target label
verification_info.ground_truth extra_info.answer extra_info.ground_truth answers.text answers""".split()
WORKED_FIELDS = "solution solutions gold_standard_solution output response completion".split()
REPLY = "the assistant's message"  # the answer of a chat that has no other
IMAGE_FIELDS = "images image image_path img img_path image_url image_urls decoded_image".split()
OPTION_FIELDS = "options choices question.choices endings answer_choices answer_options answers".split()
LIKE_OPTIONS = re.compile("option|choice|candidate|answers")  # in the name of a list, if the gold is a letter
OPTION_COLUMN = re.compile(r"(?:option|choice|answer|op|sol|ending)?([a-f]|(?<=.)[0-5])")  # or one column for each
# What belongs to the problem {1}, and where; the input to an instruction only
PARTS = "context passage article premise premises paragraph document story scenario background puzzle table hint"
PARTS = dict.fromkeys(PARTS.split(), "{0}\n\n{1}")
PARTS |= {"body": "{0} {1}", "input": "{1}\n\n{0}"}
# What shows that there is no answer to compare, or more than is read: a column, and how its value begins
OTHER_KINDS = r"""reward_model.style=(?!rule) ability=cod(e|ing) task=code task_type=.*code data_source=.*countdown
nums= reward_model.ground_truth=\{['"] problem_is_valid=(?!yes|true) video= videos= audio= input_output= test_cases=
unit_tests= tests= test_list= entry_point= starter_code= incorrect_answer_1= distractor1= question_type=.*proof
error_type=(?!ok) label=[\s\S]*step.1:"""
OTHER_KINDS = dict(kind.split("=", 1) for kind in OTHER_KINDS.split())

MEDIA = re.compile(r"\S{1,300}\.(?:(png|jpe?g|webp|gif|bmp)|mp4|avi|mov|mkv|webm|mp3|wav|flac)", re.IGNORECASE)
FILLED_LATER = re.compile("<(?:bbox|ref-object|video|audio)>")
REST = "; not read: "
RESERVED = "prompts completions completion_ids turns box_size".split()  # a reward's arguments, and ours: "prompts_"
ROLES = {"human": "user", "gpt": "assistant", "model": "assistant", "developer": "system"}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
OPTION_MARK = re.compile(r"(?:^|[,;\s])\s*\(?([A-Ja-j]) ?[).:]\s*")  # in "a ) 38 , b ) 40"
WORDS = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2,}")
GSM8K_ANSWER = re.compile(r"^#### *(\S.*?)\s*\Z", re.MULTILINE)  # the last line of a worked answer
THOUSANDS_COMMA = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


class Spelled(float):
    """A number whose text is as the file spells it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def to_row(columns: object, problem_field: str | None, answer_field: str | None, folder: Path) -> tuple[dict, str]:
    """-> (a row as data.load returns it, the columns that it was read from). folder: where its pictures' paths begin.
    ValueError: what is wrong with the row."""
    if isinstance(columns, dict) and list(columns) == ["0", "1"]:
        columns = [*columns.values()]
    columns = {"conversations": columns} if turns_of(columns) else columns
    if not isinstance(columns, dict):
        raise ValueError(f"a row is an object of columns, not {columns!r:.60}")
    known = by_name(columns)
    if not answer_field:
        check_kind(known)
    name, value = find(columns, known, problem_field, PROBLEM_FIELDS, "problem")
    turns, message, reply = as_chat(name, value)
    system = known.get("system") or known.get("systemprompt")
    if system and system[1] and all(turn["role"] != "system" for turn in turns):
        turns = [{"role": "system", "content": checked_text(*system)}, *turns]
    problem, pictures = flattened(message)
    problem, held, names = checked_text(name, problem), {name}, [name]
    for field, whole in {} if problem_field else PARTS.items():
        column, value = known.get(field, (name, None))
        if value and column != name and (field != "input" or plain(name) == "instruction"):
            problem, names = whole.format(checked_text(column, value), problem), [*names, column]
    if not pictures:
        usual = [known[field] for field in map(plain, IMAGE_FIELDS) if field in known]
        usual.sort(key=lambda column: isinstance(column[1], str))  # a picture itself goes before its path
        found = [({column}, value if isinstance(value, list) else [value]) for column, value in usual if value]
        coded = {} if problem_field else media_of({key: x for key, x in columns.items() if key != name})
        held, pictures = [*found, ({"images", *coded}, sum(coded.values(), []))][0]
    pictures = [picture_of(picture, folder) for picture in pictures]
    problem = re.sub(r"<image[ _]?\d>", MARK, problem)
    problem = problem if MARK in problem else MARK * len(pictures) + problem
    if problem.count(MARK) != len(pictures):
        raise ValueError(f"{MARK} is {problem.count(MARK)} times in {name}, but there are {len(pictures)} pictures")

    known |= {plain(REPLY): (REPLY, reply)} if reply is not None else {}
    name, value = find(columns, known, answer_field, [*ANSWER_FIELDS, *WORKED_FIELDS, REPLY], "answer")
    if mark := FILLED_LATER.search(f"{problem} {value}"):
        raise ValueError(f"{names[0]} or {name} holds {mark[0]}, which something else would have to fill")
    row = {column + "_" * (column in RESERVED): value for column, value in columns.items() if column not in held}
    row |= {column: value for column, value in (("images", pictures), ("turns", turns)) if value}
    asked, options = options_of(known, name, value)
    if options:
        problem, answer = as_choice(problem, name, value, options)
        names += asked
    else:
        listed = unpacked(value)
        answer = gold_of(name, listed if isinstance(listed, list) else value, bool(pictures))
        if worked := GSM8K_ANSWER.search(answer):
            row.setdefault("solution", answer)
            answer = THOUSANDS_COMMA.sub("", worked[1])
        answer = checked_gold(name, answer, as_it_is=bool(answer_field))
    used = {each.partition(".")[0] for each in (*names, *held, name)}
    rest = ", ".join(column for column, value in columns.items() if column not in used and value not in (None, "", []))
    found = f"problem from {', '.join(names)}; answer from {name}{REST}{rest}"
    return row | {"problem": problem, "answer": answer}, found


def media_of(columns: dict) -> dict[str, list]:
    """Encoded pictures, and paths of some, by column, whatever its name. ValueError: a film or a sound."""
    found = {}
    for name, value in columns.items():
        for each in value if isinstance(value, list) else [value]:
            path = MEDIA.fullmatch(each) if isinstance(each, str) else None
            if path and not path[1]:
                raise ValueError(f"{name} is {each!r:.40}: films and sounds can't be read")
            if path or isinstance(each, bytes) or (isinstance(each, dict) and each.get("bytes")):
                found.setdefault(name, []).append(each)
    return found


@lru_cache(10_000)
def plain(name: str) -> str:
    """A column's name without case, spaces, hyphens and underscores."""
    return re.sub(r"[\s_-]", "", name).lower()


def by_name(columns: dict, within: str = "") -> dict[str, tuple[str, object]]:
    """The columns and those nested in them, by their plain and, before that, by their own names: (name, value)."""
    known = {within + name: (within + name, value) for name, value in columns.items()}
    for name, value in list(known.values()):
        known.setdefault(plain(name), (name, value))
        inside = unpacked(value) if isinstance(value, str) and value[:1] == "{" else value
        if isinstance(inside, dict) and within.count(".") < 4:
            known = by_name(inside, name + ".") | known
    return known


def find(columns: dict, known: dict, field: str | None, usual: list[str], what: str) -> tuple[str, object]:
    """The given column, or else the first usual one that is not null -> (name, value), even if all are null."""
    found = [known[name] for name in ((field,) if field else map(plain, usual)) if name in known]
    if not found:
        looked = f"no {what} (looked for {', '.join(usual[:9])}, ...; --{what}-field names another)"
        looked = f"no column {field!r}" if field else looked
        raise ValueError(f"{looked}; the columns are {', '.join(columns) or 'none'}")
    return next((column for column in found if column[1] is not None), found[0])


def check_kind(known: dict) -> None:
    """ValueError: a row that has no answer to compare, or more than is read of it."""
    for field, start in OTHER_KINDS.items():
        name, value = known.get(plain(field), (field, None))
        if value and re.match(start, str(value), re.IGNORECASE) and not (field == "nums" and "answer" in known):
            source = f" (data_source {known['datasource'][1]})" if "datasource" in known else ""
            reason = f"{name} is {value!r:.40}{source}: not a problem whose answer is compared"
            raise ValueError(f"{reason}; for a reward of your own, name a column with --answer-field")


def turns_of(value: object) -> list[dict]:
    """A chat's turns as role and content, however these are called; [] if it is none."""
    turns = value if isinstance(value, list) and all(isinstance(turn, dict) for turn in value) else []
    roles = [str(turn.get("role") or turn.get("from")).lower() for turn in turns]
    texts = [turn.get("content", turn.get("value", turn.get("ground_truth"))) for turn in turns]
    chat = [{"role": ROLES.get(role, role), "content": text} for role, text in zip(roles, texts, strict=True)]
    return chat if any(turn["role"] in ("user", "assistant") for turn in chat) else []


def as_chat(name: str, value: object) -> tuple[list[dict], object, object]:
    """A chat -> (the turns before its last user message, that message, the reply to it or None); any other value is
    the message, unchanged. A prompt that a chat template has made is taken apart into its turns.
    ValueError: other chat markers, a picture in an earlier turn."""
    chat = turns_of(unpacked(value))
    last = max((i for i, turn in enumerate(chat) if turn["role"] == "user"), default=-1)
    earlier, message = (chat[:last], chat[last]["content"]) if last >= 0 else ([], value)
    reply = next((turn["content"] for turn in chat[last + 1 :]), None)
    if isinstance(message, str) and TURN.search(message):
        start, *parts = (MARKER.sub("", part).strip() for part in TURN.split(message))
        *inner, opening = zip(parts[::2], parts[1::2], strict=True)
        if start or not inner or opening[0].lower() not in ("assistant", "model") or opening[1] not in ("", "<think>"):
            raise ValueError(f"{name} holds chat markers, but is no chat up to where the answer begins")
        inner, message, _ = as_chat(name, [{"role": role, "content": text} for role, text in inner])
        earlier = earlier + inner
    earlier = [turn | {"content": flattened(turn["content"])[0]} for turn in earlier if turn["content"] != ""]
    for text in [checked_text(name, turn["content"]) for turn in earlier] + [str(message)]:
        if wrong := MARKER.search(text) or (text != str(message) and re.search(MARK, text)):
            raise ValueError(f"{name} holds {wrong[0]}, which can't be within a turn")
    return earlier, message, flattened(reply)[0]


def flattened(content: object) -> tuple[object, list]:
    """A chat's content in parts, text or pictures -> (its text, with marks; its pictures, as far as they are in it).
    Any other value is unchanged."""
    parts = content if isinstance(content, list) and all(isinstance(part, dict) for part in content) else []
    texts = [MARK if part.get("type") in ("image", "image_url", "input_image") else part.get("text") for part in parts]
    if not parts or not all(isinstance(text, str) for text in texts):
        return content, []
    keys = ("image", "image_url", "url", "path", "base64")
    found = [next(filter(None, map(part.get, keys)), None) for part in parts if not isinstance(part.get("text"), str)]
    return "".join(texts), [picture for picture in found if picture]


def options_of(known: dict, but: str, gold: object) -> tuple[list[str], list[tuple[object, object]]]:
    """The columns of the options beside a question, not `but`, which has the gold; and the options: (label, option)."""
    usual = [known[field] for field in map(plain, OPTION_FIELDS) if field in known]
    if isinstance(gold, str) and re.fullmatch(r"\W*[A-J]\W*", gold):
        others = [known[field] for field in known if LIKE_OPTIONS.search(plain(field))]
        usual += [(name, x) for name, x in others if OPTION_MARK.findall(str(x))[1:] or isinstance(unpacked(x), list)]
    usual = [(name, unpacked(x)) for name, x in usual if x and x != "[]" and name != but.partition(".")[0]]
    # VQA's answers are those of its annotators
    usual = [(name, x) for name, x in usual if name != "answers" or isinstance(x, list) and isinstance(x[0], str)]
    name, value = next(iter(usual), ("options", None))
    labels, found = LETTERS, value
    if value is None:
        columns = [(OPTION_COLUMN.fullmatch(key), *column) for key, column in known.items()]
        found = sorted((match[1], option, name) for match, name, option in columns if match and isinstance(option, str))
        found = found if len(found) > 1 else []
        return [name for *_, name in found], [(label, option) for label, option, _ in found]
    if isinstance(value, str):
        found = OPTION_MARK.split(value)[2::2] or re.findall(r"""(?<=[\[,\s])(?:'(.*?)'|"(.*?)")(?=\s*[,\]])""", value)
        found = ["".join(each) for each in found]
    elif isinstance(value, dict):
        labels, found = (value.get("label"), value["text"]) if "text" in value else (list(value), list(value.values()))
    elif isinstance(value, list) and all(isinstance(option, dict) for option in value):
        labels, found = ([option.get(key) for option in value] for key in ("label", "text"))
    is_list = isinstance(found, list | tuple) and 1 < len(found) <= len(LETTERS)
    if not is_list or not all(isinstance(spelled(option), str) for option in found):
        raise ValueError(f"{name} is {value!r:.60}, not a list of options")
    return [name], list(zip(labels if isinstance(labels, list) else LETTERS, found, strict=False))


def as_choice(problem: str, name: str, value: object, options: list[tuple[object, object]]) -> tuple[str, str]:
    """-> (the problem with its options as lines "A) ...", unless it lists them itself; the letter of the gold, which is
    an option, its label or letter, or, as a number, its index from 0). ValueError: it is none, or may be two."""
    value = spelled(value, numbers=False)
    label = re.sub(r"\W|_|text", "", extract_answer(value) or value).upper() if isinstance(value, str) else str(value)
    places, lines, listed = set(), [problem], True
    for i, (letter, (own, option)) in enumerate(zip(LETTERS, options, strict=False)):
        is_index = type(value) is int and value == i  # which True is not
        if is_index or value in (option, spelled(option)) or label in (str(own).upper(), letter):
            places.add(i)
        mark = rf"\(?[{letter}{letter.lower()}]\s*[).:]\s*"
        text = re.sub("^" + mark, "", spelled(option).strip(" ,;\n"))
        listed = listed and re.search(mark + re.escape(text), problem)
        lines.append(f"{letter}) {text}")
    if len(places) != 1:
        raise ValueError(f"{name} is {value!r:.60}: {'more than one' if places else 'none'} of {len(options)} options")
    return problem if listed else "\n".join(lines), LETTERS[places.pop()]


def gold_of(name: str, value: object, has_pictures: bool) -> str:
    """An answer's text: a number as the file spells it; several answers as one list; with a picture, a box."""
    value = turns_of(value)[-1]["content"] if turns_of(value) else spelled(value)
    if isinstance(value, list) and has_pictures and len(value) == 4:
        box = f"[{', '.join(map(str, value))}]"
        value = box if find_box(box)[0] != "none" else value
    if isinstance(value, list) and len(value) > 1:
        texts = [checked_text(name, spelled(each)) for each in value]
        same = all(is_equiv(text, texts[0]) for text in texts)
        if not same and (has_pictures or any(WORDS.search(text) or "\\boxed" in text for text in texts)):
            raise ValueError(f"{name} is {value!r:.60}: all of them, or any one?")
        value = texts[0] if same else ", ".join(texts)
    return checked_text(name, value)


def checked_gold(name: str, answer: str, as_it_is: bool) -> str:
    """The answer, or the final one of a solution in words. ValueError: nothing in it can be compared."""
    answer = re.sub(r"(?<=\d) \(([a-zA-Z ]+)\)$", r" \1", answer)  # 9 (apples)
    gold, reading = read_gold(answer)
    if gold == answer and plain(name) in map(plain, (*WORKED_FIELDS, REPLY)) and len(WORDS.findall(gold)) > 2:
        gold, reading = "", UNFINISHED
    if not gold and not (as_it_is and reading == UNFINISHED):
        raise ValueError(f"{name} is {answer!r:.60}, no answer that can be compared: {reading}")
    return answer if as_it_is or MARKED.search(answer) else gold


def unpacked(value: object) -> object:
    """A text that is a JSON object, or a list of texts or objects -> that; any other value is unchanged."""
    try:
        packed = isinstance(value, str) and re.match(r"""\s*(?:\[\s*["{]|\{\s*")""", value)
        return json.loads(value) if packed else value
    except (ValueError, RecursionError):
        return value


def spelled(value: object, numbers: bool = True) -> object:
    """A number as text, a list of one as its element, an object's "value"; any other value is unchanged."""
    if isinstance(value, dict) and "value" in value or isinstance(value, list) and len(value) == 1:
        return spelled(value["value" if isinstance(value, dict) else 0], numbers)
    is_number = isinstance(value, float | Decimal) or numbers and isinstance(value, int) and not isinstance(value, bool)
    return str(value) if is_number and value - value == 0 else value  # inf - inf and nan - nan are nan


def checked_text(name: str, value: object) -> str:
    """The value, if it is a text that is not blank. ValueError: it isn't."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r:.60}, not text")
    if not value.strip():
        raise ValueError(f"{name} is empty")
    if re.search("[\ud800-\udfff]", value):  # JSON can spell half a character, which no tokenizer accepts
        raise ValueError(f"{name} holds half a UTF-16 character")
    return value
