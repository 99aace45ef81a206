"""Words: tables of names, units, numbers and dates, and what words mean that are no mathematics."""

import re
from itertools import product

FUNCTIONS = frozenset("sin cos tan cot sec csc arcsin arccos arctan ln log lg exp cis".split())
ALIASES = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "cosec": "csc"}
GREEK = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi
psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar mho aleph ldots det dim deg Pr""".split()
INFINITE = frozenset("infinity inf infty oo".split())
REALS = frozenset(["all real number", "all real", "real number", "set of real number", "set of all real number"])

_METRIC = """m meter metre 米;g gram 克;s second sec 秒;L l liter litre 升;N newton;J joule;W watt;V volt;A ampere amp;
Hz hertz;Pa pascal;F farad;C coulomb celsius;T tesla;eV electronvolt;Ω ohm;mol mole;cal calorie;B byte;bit;K kelvin"""
_PREFIXES = "k kilo 千;M mega;G giga;T tera;c centi 厘;d deci 分;m milli 毫;u micro 微;n nano 纳;p pico"
_OTHER = """km 公里;cm 厘米;mm 毫米;kg 公斤;ms;mile mi 英里;nmi 海里;inch in;foot feet ft;yard yd;minute min mins 分钟;
hour h hr hrs 小时;day 天;week 周;month 个月;year yr yrs 年;cc;pound lb lbs;ounce oz;ton 吨;gallon gal;jin 斤;
dollar USD buck 美元;cent 美分;euro EUR;yuan 元;jiao 角;degree deg 度;radian rad;unit 单位;pm;am;erg;AU au;pc parsec;
AA angstrom;rupee;acre;% percent pct;F fahrenheit;atm;bar;dB decibel;mmHg"""
UNITS = {}
for _unit, _prefix in product(_METRIC.replace("\n", "").split(";"), _PREFIXES.split(";")):
    (_symbol, *_names), (_sign, *_before) = _unit.split(), _prefix.split()
    UNITS |= {_sign + name: _sign + _symbol for name in (_symbol, *_names)}
    UNITS |= {before + name: _sign + _symbol for before, name in product(_before, _names)}
for _names in (_METRIC + ";" + _OTHER).replace("\n", "").split(";"):
    UNITS |= dict.fromkeys(_names.split(), _names.split()[0])
# right after a number, without \text, these are units of two letters; 2MN and 3ns may be products
BARE_UNITS = frozenset(
    """cm mm km nm um kg mg ms us ml mL ft yd in mi hr yr lb oz eV Hz Pa AU au pc pm am AA kW MW mW GW kV mV kN kJ MJ mJ
    kA mA uA uC uF nF pF mT dB kB MB GB TB cc""".split()
) | {name for name in UNITS if len(name) > 2}
NOT_A_UNIT = frozenset(
    """not point plus minus times over mod modulo remainder squared cubed factorial infinity half halves third thirds
    quarter quarters fourth fourths fifth fifths sixth sixths seventh sevenths eighth eighths ninth ninths tenth tenths
    hundredth hundredths thousandth thousandths tens score below above under away double twice triple is are was be but
    if when where because maybe perhaps probably about approximately roughly least most more less fewer than else wrong
    incorrect unknown for only between from with without however so then as at by nicht oder ou или mehr más больше
    более weniger menos moins pas не нет false true yes no none never either neither both except unless answer digits
    base""".split()
)
DENIES = re.compile(  # a sentence with one of these states something else than the value in it
    r"(?i)\b(?:not|never|no|none|neither|cannot|or|if|let|suppose|assume|whether|might|could|may be|probably|guess"
    r"|wrong|incorrect|false|mistake|bounds?|half|twice|thrice|double|triple|(?<!number of )times|digit|we set"
    r"|number of digits|(?:third|quarter|square|cube|root|negative) of [a-z]+|at first|initially|originally"
    r"|first (?:root|solution))\b|n't"
)

NUMBER_WORDS = {word: i for i, word in enumerate(
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty".split()
)}  # fmt: skip
NUMBER_WORDS |= dict(zip("thirty forty fifty sixty seventy eighty ninety".split(), range(30, 100, 10), strict=True))
MULTIPLIERS = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_POWERS = """1 十 십;2 百 백 hundert;3 千 천 тысяча тысяч тысячи тыс mil mille tausend;4 万 만 萬;5 lakh;6 млн миллион
миллиона миллионов mln mio millionen millón millone milhão milhõe;7 crore;8 亿 억 億;9 млрд миллиард миллиарда
миллиардов mrd milliard milliarde milliarden"""
MULTIPLIERS |= {"gross": 144} | {word: 10 ** int(row[0]) for row in _POWERS.split(";") for word in row[2:].split()}
_MONTHS = "january february march april may june july august september october november december".split()
_MONTHS = {name: i for i, month in enumerate(_MONTHS, 1) for name in (month, month[:3])} | {"sept": 9}
# what a completion in Chinese, Japanese, Korean, German, French, Spanish, Portuguese or Russian says, in English
_PHRASES = {
    "the answer is ": r"(?:答案|结果|选项|解答|答え|正解|정답|답|(?<!回)答(?=:))(?:应?[为是选]|は|은|:)+"
    r"|(?<![不未])选 ?:?(?= ?\(?[A-J])|\b(?:Antwort|Lösung|Ergebnis|réponse|résultat|solution|respuesta|resultado"
    r"|soluci[oó]n|resposta|solução|ответ(?:ом)?)(?: final[e]?| correct?[ae])?"
    r" ?(?:\b(?:ist|lautet|beträgt|est|es|é|равен|является)\b|[:—])|\bist d(?:ie|as) (?:Antwort|Lösung|Ergebnis)\b",
    "therefore ": r"所以|因此|综上|故|得到?|よって|したがって|따라서|그러므로|\b(?:also(?= ist)|daher|folglich|somit"
    r"|donc|por (?:lo )?tanto|portanto|следовательно|таким образом|итак|значит|получаем)\b",
    " wrong ": r"错误的?|等等|算错|错了|不对|間違|誤った|틀렸|\b(?:falsche|fausse|incorrecta|неправильный|неверный)\b",
    " not ": r"[没非]|不(?!同)|ない|ません|아[니닙님]|至少|[至最][多少]|超[过え]|[多少大小高低]于|以[上下]"
    r"|未[満满]|보다|이[상하]|\b(?:nicht|nein|non(?![-\w])|keine?|pas|não|не|нет|mindestens|höchstens|больше|меньше"
    r"|(?:mehr|weniger) als|au (?:moins|plus)|(?:plus|moins|más|menos|mais) de|al menos|pelo menos|более|менее)\b",
    " times ": r"倍|절반|半(?![径圆])|[두세0-9] ?배|\b(?:doppelte|hälfte|moitié|doble|mitad|dobro|metade|удвоенн\w+)\b",
    " maybe ": r"可能|也许|大[概约]|约[为是]|かもしれ|아마|\b(?:vielleicht|peut-être|quizás?|talvez|возможно)\b",
    "": "一共|共有?",
    " if ": r"如果|假设|若|もし|만약|\b(?:wenn|если)\b",
    ". Prove ": r"证明|証明|\b(?:beweise|докажите)\b",
    ". ": r"(?:です|である|となる|になる|입니다|이다) *\.?|。",
}
_PHRASE = re.compile("(?i)" + "|".join(f"({pattern})" for pattern in _PHRASES.values()))
_WIDE = {0xFF01 + i: 0x21 + i for i in range(94)} | {ord("。"): ". ", ord("，"): ", ", ord("、"): ", "}
CHOICE_BEFORE = re.compile(r"(?<!\w)([A-J])(?:[．、] ?|\.)(?=[-−0-9$\\(√π])")  # B．12, B、12, B.12


def in_english(text):
    """The text with the phrases that decide what an answer is in English, and plain punctuation."""
    return _PHRASE.sub(
        lambda found: [*_PHRASES][found.lastindex - 1], CHOICE_BEFORE.sub(r"\1) ", text).translate(_WIDE)
    )


def unit_name(word):
    """The name of a unit; the case of a short one that is in no table counts, as in mN and MN."""
    low = word.lower()
    found = UNITS.get(word) or (len(word) > 1 and (UNITS.get(low) or UNITS.get(singular(low))))
    return found or (word if len(word) < 4 and not word[1:].islower() else singular(low))


def number_in_words(words):
    """ "twelve" -> 12, "twenty-one" -> 21; None if it is no number below a hundred."""
    tens, ones = [0, *(NUMBER_WORDS.get(word.text.lower(), -1) for word in words)][-2:]
    if len(words) > 2 or min(tens, ones) < 0 or (tens and not (tens > 19 and 0 < ones < 10)):
        return None
    return tens + ones


def date_of(tokens):
    """(year, month, day) of 2024-03-05, March 5, the 20th of June, 2024; None for what it lacks, None if it is none."""
    texts = [token.text.lower() for token in tokens if token.text.lower() not in (",", ".", "the", "of")]
    iso = re.fullmatch(r"([0-9]{4})([-/])([0-9]{1,2})\2([0-9]{1,2})", "".join(texts))
    if iso:
        return int(iso[1]), int(iso[3]), int(iso[4])
    if re.fullmatch(r"[0-9]{1,2}([-/])[0-9]{1,2}\1[0-9]{4}", "".join(texts)):
        return tuple(texts)  # 3/5/2024 is March 5 or 3 May: only itself
    texts = [text for text in texts if text not in ("st", "nd", "rd", "th")]
    months = [_MONTHS[text] for text in texts if text in _MONTHS]
    days = [int(text) for text in texts if re.fullmatch("[0-9]{1,2}", text)]
    years = [int(text) for text in texts if re.fullmatch("[0-9]{4}", text)]
    if len(months) != 1 or max(len(days), len(years)) > 1 or not 1 < len(texts) == 1 + len(days) + len(years):
        return None
    return (*(years or [None]), *months, *(days or [None]))


def words_of(tokens):
    """The words in lower case, without leading articles, punctuation, and the plural of the last word."""
    texts = [token.text for token in tokens if token.text not in (".", ",", "'", "-", "!", "?", "(", ")")]
    while len(texts) > 1 and texts[0].lower() in ("the", "a", "an"):
        del texts[0]
    texts[-1] = texts[-1] if texts[-1].isupper() else singular(texts[-1].lower())
    return " ".join(texts).lower()


def singular(word):
    """An English word without its plural ending, or what looks like one."""
    if word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    return word if len(word) < 4 or word.endswith("ss") else word.removesuffix("s")


def choice_of(tokens):
    """The letter of `C`, `(C)`, `(C) 42`, `C. 42`, or "", and the tokens that follow it."""
    texts = [token.text for token in tokens]
    if len(texts) > 1 and texts[0].lower() in ("option", "choice"):
        return choice_of(tokens[1:])
    if len(texts) == 1 and re.fullmatch("[a-jA-J]", texts[0]):
        return texts[0].upper(), ()
    if len(texts) > 2 and texts[0] == "(" and texts[2] == ")":
        letter, rest = texts[1], tokens[3:]
    elif len(texts) > 1 and (texts[1] == ")" or (len(texts) > 2 and texts[1] in (".", ":") and tokens[2].spaced)):
        letter, rest = texts[0], tokens[2:]
    else:
        return "", ()
    hedged = rest and (rest[0].text.lower() in ("or", "and", "not") or {*"ABCDEFGHIJ"} & {token.text for token in rest})
    lower = not rest or (texts[0] == "(" and rest[0].kind == "number" and rest[0].spaced)  # (c) 8
    if not re.fullmatch("[a-jA-J]" if lower else "[A-J]", letter) or hedged:
        return "", ()
    return letter.upper(), tuple(rest)


def is_english(word):
    """Whether a token is an English word: Ted and east are; ab, xyz and pi are not."""
    text = word.text
    if text in FUNCTIONS or text in ALIASES or text in GREEK or text in ("pi", "sqrt") or text.lower() in INFINITE:
        return False
    return len(text) > 1 and (word.upright or is_row(text))


def is_row(text):
    """Whether letters in a row are a text, as HTT, RGB, red, bca, not a product, as xy, ab, pqr."""
    return not re.fullmatch("[b-df-hj-np-tv-z]{2}|[k-np-tv-z]{3}|a[b-d]|[b-d]a", text)
