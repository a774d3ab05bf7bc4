"""What a text shows of itself: code, maths, questions, talk. Every signal is a number with the
words or marks that it was counted from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from deployments.gateway.auto.language import language_of
from deployments.gateway.auto.lexicon import words_by_topic
from deployments.gateway.auto.prompt import excerpt

# So many of what was found are shown as evidence.
SHOWN = 4
# How much a question for an amount is something to work out, by how many numbers it has.
WORD_PROBLEM = (0.0, 0.5, 1.5, 2.0)
ENOUGH_TEXT_CHARACTERS = 15

# Chinese and Japanese are looked through for words as they are, without blanks.
_WORD = re.compile(r"[a-z\u00df-\u024f\u0370-\u058f\uac00-\ud7af]+")
# A line of more characters is judged by its two ends.
_LINE_CHARACTERS = 300
_NUMBER = re.compile(r"(?<![A-Za-z_\d.])\d+(?:[.,]\d+)*")
_FENCE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_CODE_LINE = re.compile(
    r"""^\s*(?:
        .*[;{}]\s*$
      | (?:def|class|async\ def|func|fn|function|interface|struct|enum|impl)\s+\w+.*[({:]
      | (?:package|namespace)\s+\w+.*[({:]
      | (?:from\s+\S+\s+)?import\s+[\w{*]+(?:[.,]\s*\w+)*\s*$
      | \#include\b | \#!/ | @\w+(?:\(.*\))?\s*$
      | (?:const|let|var|val|public|private|static|return|elif|else:|try:|except)\b.*[=;:({]
      | (?:if|for|while)\s*\(.*\) | (?:if|for|while)\s.+:\s*$
      | (?:SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER)\s.*\b(?:FROM|INTO|SET|TABLE|WHERE)\b
      | </?[a-z][\w-]*(?:\s[^>]*)?> | [\w.]+\s*=\s*\S+\(.*\) | [\w.]+\([^)]*\)\s*$
      | (?:\$|>>>|npm|pip|docker|git|sudo|curl|make)\s+[\w./-]+.*
      | [+-]\s{2,}\S
    )""",
    re.VERBOSE,
)
# Letters of other scripts may stand right before a name.
_BEGIN = r"(?<![A-Za-z\d_])"
_IDENTIFIER = re.compile(
    rf"{_BEGIN}(?:[a-z]{{2,}}[A-Z]\w*|[A-Za-z]\w{{0,60}}_\w+|\w{{2,60}}\(\)|\w{{1,60}}\.\w{{1,60}}\(|"
    r"(?:[A-Z][a-z]+){1,4}(?:Error|Exception)\b|\w{1,60}::\w+)|(?<!\w)--[a-z][\w-]+|\w=>",
    re.ASCII,
)
_TRACE = re.compile(
    r"Traceback \(most recent call last\)|^[ \t]*at [\w.$]+\(.*\)|^[ \t]*File \"[^\"]+\", line \d+|"
    r"\b(?:[A-Z]\w+)?(?:Error|Exception): |panicked at|core dumped|segmentation fault|"
    r"\berror(?:\[E\d+\]| TS\d+|: )",
    re.MULTILINE,
)
_FILE = re.compile(
    rf"{_BEGIN}[\w-]{{1,60}}\.(?:py|js|ts|tsx|jsx|java|kt|go|rs|c|cpp|h|hpp|cs|php|rb|swift|sql|sh|ya?ml|toml|"
    r"json|html|css|ipynb|lua|gradle|tf)\b",
    re.ASCII,
)
# Names of languages that are letters or everyday words, where the text says that it is one.
_IN_LANGUAGE = re.compile(
    r"(?<!\w)(?:C\+\+|C#|F#|\.NET|Node\.js|Vue\.js|Next\.js|ASP\.NET)(?!\w)|"
    r"\b(?:in|en|em|auf|mit|with|using|na|на|с)\s(?:C|Go|R|Rust|Swift|Python|Ruby|Perl|Dart|Bash|"
    r"PHP|SQL)\b|(?:Python|Java|Go|C|Rust|Ruby)(?=[\u3040-\u30ff\u4e00-\u9fff])|"
    r"[\u3040-\u30ff\u4e00-\u9fff](?:Python|Java|Go|C|Rust|Ruby)\b"
)
_FORMULA = re.compile(
    r"\d\s*[+*/^×÷·]\s*\d|\b\d*[a-z]\s*\^\s*[\dn]|\b\d*[xyzn]\s*[-+*/=<>≤≥]\s*\d*[a-z\d(]|[²³√∫∑∏≤≥≠∀∃]|"
    r"\\(?:frac|int|sum|sqrt|prod|lim)|\b[fg]\(x\)|\b(?:ln|log|exp|sin|cos|tan|sqrt)\s?\(|\b\d+[xyz]\b"
)

_MEASURE = re.compile(
    r"(?<![A-Za-z_\d.])\d+(?:[.,]\d+)?[ -]?(?:"
    r"k?m/h|mph|feet|foot|ft|inch(?:es)?|pounds?|"
    r"km|cm|mm|m|kg|g|l|ml|h|min|s|€|\$|%|euros?|dollars?|"
    r"lit(?:re|er|ro)s?|litr[io]|met(?:re|er|ro)s?|hours?|minutes?|days?|years?|miles?|"
    r"stunden?|minuten|tagen?|jahren?|heures?|jours?|ans|horas?|minutos?|días|años|"
    r"ore|minuti|giorni|anni|dias|anos|км/ч|км|м|кг|г|л|час\w*|минут\w*|дн\w+|лет|"
    r"小时|分钟|公里|米|升|元|天|岁|km|時間|分|円|日|歳)(?![\w])",
    re.IGNORECASE,
)

_SEQUENCE = re.compile(r"(?<![\d.])\d+(?:\s?[,，、]\s?\d+){2,}")
_COMPARING = frozenset(
    ["than", "als", "старше", "младше", "выше", "ниже", "больше", "меньше"]
)
_COMPARED = re.compile(
    r"\bplus \w+ que\b|\b(?:más|mais) \w+ (?:que|do que)\b|\bpiù \w+ di\b|"
    r"比[^，。]{1,8}[大小高重快多少]|より"
)
# Without one of these there is no need to look for what has them.
_HAS_DIGIT = re.compile(r"\d")
_HAS_MATHS = re.compile(r"[\d=^√²³∫∑∏≤≥≠∀∃\\(]")
_HAS_CODE = re.compile(r"[_:=>.(-]\S|[a-z][A-Z]")
_HAS_COMPARING = re.compile(r"plus |más |mais |più |比|より")
_HAS_TRACE = re.compile(
    r"Traceback|Error|Exception|error|\bat [\w.$]+\(|panicked|dumped|fault"
)


@dataclass(frozen=True)
class Signals:
    """What one text shows. `evidence` has, for each signal, some of what it was counted from."""

    values: Mapping[str, float] = field(default_factory=dict)
    evidence: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    language: str = ""
    # Which part of the text is code, from 0 to 1.
    code_share: float = 0.0
    words: int = 0


def signals_of(text: str) -> Signals:
    """The signals of a text; of a long one its beginning and end are read."""
    text = excerpt(text)
    code, prose = _parted(text)
    lowered = prose.lower()
    words = _WORD.findall(lowered)
    found = _marks(text, prose, words) | words_by_topic(words, lowered)
    share = len(code) / max(len(text), 1)
    values: dict[str, float] = {name: len(given) for name, given in found.items()}
    values["code_share"] = share
    return Signals(
        _with_company(values),
        {name: _shown(given) for name, given in found.items() if given},
        language_of(prose if len(prose) >= ENOUGH_TEXT_CHARACTERS else text, words),
        share,
        len(words),
    )


def _parted(text: str) -> tuple[str, str]:
    """The lines of a text that are code, and those that are not."""
    fenced = "\n".join(_FENCE.findall(text))
    rest = _FENCE.sub("\n", text) if fenced else text
    code = [fenced] if fenced else []
    prose: list[str] = []
    for line in rest.splitlines():
        (code if _CODE_LINE.match(_ends(line)) else prose).append(line)
    return "\n".join(code), "\n".join(prose)


def _ends(line: str) -> str:
    if len(line) <= _LINE_CHARACTERS:
        return line
    half = _LINE_CHARACTERS // 2
    return line[:half] + line[-half:]


def _marks(text: str, prose: str, words: list[str]) -> dict[str, list[str]]:
    """What can be seen without knowing what the text is about."""
    return {
        "fenced_code": ["```"] if "```" in text else [],
        "stack_trace": _found(_TRACE, text, _HAS_TRACE)[:1],
        "identifiers": _found(_IDENTIFIER, prose, _HAS_CODE),
        "file_names": _found(_FILE, prose, _HAS_CODE),
        "in_language": _IN_LANGUAGE.findall(prose),
        "formula": _found(_FORMULA, prose, _HAS_MATHS),
        "numbers": _found(_NUMBER, prose, _HAS_DIGIT),
        "sequence": _found(_SEQUENCE, prose, _HAS_DIGIT),
        "measures": _found(_MEASURE, prose, _HAS_DIGIT),
        # Two things are compared all the time; a third makes a puzzle.
        "comparisons": [
            *(word for word in words if word in _COMPARING),
            *_found(_COMPARED, prose, _HAS_COMPARING),
        ][1:],
    }


def _found(wanted: re.Pattern[str], text: str, sign: re.Pattern[str]) -> list[str]:
    return wanted.findall(text) if sign.search(text) else []


def _with_company(values: dict[str, float]) -> dict[str, float]:
    """Signals that only two others together make."""
    technical = values["programming_words"] + values["technical_words"]
    about_code = technical + values["in_language"]
    ambiguous = values["ambiguous_words"]
    values["ambiguous_together"] = float(ambiguous + about_code >= 2 and ambiguous > 0)
    talk = values["everyday"] + values["social"] + values["writing"]
    values["ambiguous_alone"] = float(ambiguous > 0 and talk == 0)
    values["double_meaning"] = min(values["everyday"], ambiguous)
    numbers = values["numbers"] + values["number_words"]
    asks = values["quantity"] > 0
    values["word_problem"] = asks * WORD_PROBLEM[min(int(numbers), 3)]
    return values


def _shown(found: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(" ".join(each.split())[:40] for each in found))[:SHOWN]
