"""Which language a text is written in: by its script, else by its small words."""

from __future__ import annotations

import re

SCRIPTS = (
    ("ja", re.compile(r"[\u3040-\u30ff]")),
    ("ko", re.compile(r"[\uac00-\ud7af\u1100-\u11ff]")),
    ("zh", re.compile(r"[\u4e00-\u9fff]")),
    ("uk", re.compile(r"[іїєґІЇЄҐ]")),
    ("ru", re.compile(r"[\u0400-\u04ff]")),
    ("ar", re.compile(r"[\u0600-\u06ff]")),
    ("el", re.compile(r"[\u0370-\u03ff]{3}")),
    ("he", re.compile(r"[\u0590-\u05ff]")),
    ("hi", re.compile(r"[\u0900-\u097f]")),
    ("th", re.compile(r"[\u0e00-\u0e7f]")),
)
# Words that stand in nearly every sentence, and hardly in another of these languages.
SMALL_WORDS = {
    "en": "the and of to is are was my your what how why when which who with this that for from "
    "it you do does did can could should would please i have has write explain about tell me",
    "de": "der die das und ist sind war ein eine einen mein meine wie warum was wann welche wer "
    "mit dieser diese nicht auf für von ich du sie kann kannst bitte den dem zu im schreib erkläre",
    "fr": "le la les des et est sont un une mon ma mes comment pourquoi que quel quelle quels qui "
    "avec ce cette pas pour dans je tu vous du au en l d écris combien",
    "es": "el los las y es son un una mi mis cómo por qué cuál quién con este esta no para del al "
    "yo tú usted en lo se escribe cuánto puedo hola",
    "it": "il lo gli e è sono un una mio mia come perché che quale chi con questo questa non per "
    "di del della nel al io puoi scrivi quanto ciao",
    "pt": "o os as e é são um uma meu minha como por que qual quem com este esta não para do da "
    "no na ao em eu você me quanto escreva olá",
    "nl": "de het een en is zijn mijn hoe waarom wat wanneer welke wie met deze dit niet voor van "
    "ik je kan kun schrijf",
    "pl": "i jest są w na z do nie jak dlaczego co kiedy który kto ten ta dla moje mój czy napisz",
    "tr": "ve bir bu ne nasıl neden için ile mi değil benim hangi kim yaz",
}
# Letters and endings that hardly another of these languages has.
MARKS = {
    "de": re.compile(r"[äöüß]|\w(?:ung|keit|heit|lich)\b"),
    "fr": re.compile(r"[êîœçèù]|\w(?:eux|aux|ement)\b|\b[dlj]['’]"),
    "es": re.compile(r"[ñ¿¡]|\w(?:ción|ciones|mente|ar)\b"),
    "it": re.compile(r"[òì]|\w(?:zione|zioni|mente|gli|ezza)\b|\bdell"),
    "pt": re.compile(r"[ãõ]|\w(?:ção|ções|mente)\b"),
    "nl": re.compile(r"\w(?:ij\w|aa\w|oo\w)\w*\b"),
    "pl": re.compile(r"[ąęłśźż]"),
    "tr": re.compile(r"[ğış]"),
}
MOST_MARKS = 3
_LANGUAGES_OF: dict[str, list[str]] = {}
for _language, _words in SMALL_WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_language)


def language_of(text: str, words: list[str]) -> str:
    """Its two letters, such as "de"; empty where nothing tells. `words` are in lower case."""
    if not text.isascii():
        for name, script in SCRIPTS:
            if script.search(text):
                return name
    counted: dict[str, float] = {}
    for word in words:
        languages = _LANGUAGES_OF.get(word, ())
        for name in languages:
            counted[name] = counted.get(name, 0) + 1 / len(languages)
    lowered = text.lower()
    for name, mark in MARKS.items():
        if name in counted:
            counted[name] += min(len(mark.findall(lowered)), MOST_MARKS) / 2
    return max(counted, key=lambda name: (counted[name], name), default="")
