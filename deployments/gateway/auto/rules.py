"""The ordered rules of a route: the first whose conditions all hold says who answers.

A rule is a mapping, as a rig file and the database have it: `to`, one deployment or several equals,
and conditions, all of which have to hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from deployments.gateway.auto.classifier import Classification, classify
from deployments.gateway.auto.decision import (
    PREFERENCES,
    Candidate,
    Decision,
    Step,
    Surroundings,
    View,
    preferred,
    reachable,
)
from deployments.gateway.auto.prompt import Prompt
from deployments.gateway.auto.purposes import purposes_of
from omni.errors import OmniError

MOST_RULES = 50
MOST_WORDS = 50
LONGEST_WORD = 200
LARGEST_NUMBER = 100_000_000
WORDS, NUMBER, FLAG = "words", "number", "flag"
TO = "to"


@dataclass(frozen=True)
class Facts:
    """What conditions look at."""

    prompt: Prompt
    classification: Classification
    around: Surroundings
    key: str = ""

    @property
    def last_turn(self) -> str:
        return self.prompt.last_turn.lower()


Holds = Callable[[Facts, Any, Sequence[Candidate]], bool]


@dataclass(frozen=True)
class Condition:
    """What may be asked of a request. A certain one holds whatever was said before: it may move a
    conversation."""

    kind: str
    help: str
    holds: Holds
    is_certain: bool = True


def _has_words(facts: Facts, words: Iterable[str]) -> bool:
    return any(word.lower() in facts.last_turn for word in words)


def _load(facts: Facts, candidate: Candidate) -> float:
    return facts.around.at_work.get(candidate.name, 0) / max(candidate.slots, 1)


CONDITIONS: Mapping[str, Condition] = {
    "purpose": Condition(
        WORDS,
        "what the prompt is taken for: coding, reasoning or chat",
        lambda facts, value, to: facts.classification.purpose in purposes_of(value),
        is_certain=False,
    ),
    "keywords": Condition(
        WORDS,
        "one of these stands in the last user turn",
        lambda facts, value, to: _has_words(facts, value),
        is_certain=False,
    ),
    "language": Condition(
        WORDS,
        "the last user turn is written in one of these, such as de",
        lambda facts, value, to: facts.classification.signals.language in value,
        is_certain=False,
    ),
    "code_share": Condition(
        NUMBER,
        "at least this part of the last user turn is code, from 0 to 1",
        lambda facts, value, to: facts.classification.signals.code_share >= value,
        is_certain=False,
    ),
    "system": Condition(
        WORDS,
        "one of these stands in the system prompt",
        lambda facts, value, to: any(
            word.lower() in facts.prompt.system.lower() for word in value
        ),
    ),
    "key": Condition(
        WORDS,
        "the request comes with an API key of one of these prefixes",
        lambda facts, value, to: facts.key in value,
    ),
    "images": Condition(
        FLAG,
        "whether it has images",
        lambda facts, value, to: (facts.prompt.images > 0) == value,
    ),
    "tools": Condition(
        FLAG,
        "whether it brings tools",
        lambda facts, value, to: facts.prompt.has_tools == value,
    ),
    "json_schema": Condition(
        FLAG,
        "whether it asks for JSON",
        lambda facts, value, to: facts.prompt.has_schema == value,
    ),
    "tokens_above": Condition(
        NUMBER,
        "its prompt has more tokens, by estimate",
        lambda facts, value, to: facts.prompt.tokens > value,
    ),
    "tokens_below": Condition(
        NUMBER,
        "its prompt has fewer tokens, by estimate",
        lambda facts, value, to: facts.prompt.tokens < value,
    ),
    "context_above": Condition(
        NUMBER,
        "prompt and answer need more tokens, by estimate",
        lambda facts, value, to: facts.prompt.context_tokens > value,
    ),
    "load_below": Condition(
        NUMBER,
        "one of `to` has fewer requests for each of its slots",
        lambda facts, value, to: any(_load(facts, each) < value for each in to),
        is_certain=False,
    ),
    "is_ready": Condition(
        FLAG,
        "whether one of `to` is ready at once",
        lambda facts, value, to: any(each.is_ready for each in to) == value,
        is_certain=False,
    ),
}


@dataclass(frozen=True)
class RouteRule:
    """`when` is by condition, in the order in which they are asked."""

    to: tuple[str, ...]
    when: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_certain(self) -> bool:
        return any(CONDITIONS[name].is_certain for name in self.when)

    def document(self) -> dict[str, Any]:
        """What JSON and YAML keep of it."""
        when = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.when.items()
        }
        return {**when, TO: list(self.to)}


@dataclass(frozen=True)
class RouteRules:
    """A route: its rules, who answers when none applies, and who is asked after that."""

    otherwise: str
    rules: tuple[RouteRule, ...] = ()
    fallbacks: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every deployment that it can lead to, each once."""
        to = [name for rule in self.rules for name in rule.to]
        return tuple(dict.fromkeys([*to, self.otherwise, *self.fallbacks]))


# --- reading --------------------------------------------------------------------------------------
def read_rules(documents: object) -> tuple[RouteRule, ...]:
    """Raises OmniError (bad_route_rule) that says which rule is wrong, and in what."""
    if not isinstance(documents, list) or len(documents) > MOST_RULES:
        raise _bad(f"The rules are not a list of at most {MOST_RULES}.")
    found = []
    for number, document in enumerate(documents, start=1):
        try:
            found.append(read_rule(document))
        except OmniError as error:
            raise _bad(f"Rule {number}: {error}") from None
    return tuple(found)


def read_rule(document: object) -> RouteRule:
    """Raises OmniError (bad_route_rule)."""
    if not isinstance(document, Mapping):
        raise _bad("A rule is not a mapping of conditions.")
    unknown = sorted(str(name) for name in document if name not in {*CONDITIONS, TO})
    if unknown:
        raise _bad(
            f"There is no condition {unknown[0][:60]!r}.",
            f"Use {TO} and any of: {', '.join(CONDITIONS)}.",
        )
    when = {
        name: _value(name, condition.kind, document[name])
        for name, condition in CONDITIONS.items()
        if name in document
    }
    return RouteRule(read_names(document.get(TO), TO), when)


def read_names(value: object, what: str) -> tuple[str, ...]:
    """One name or several. Raises OmniError (bad_route_rule)."""
    names = [value] if isinstance(value, str) else value
    is_right = (
        isinstance(names, (list, tuple))
        and 1 <= len(names) <= MOST_WORDS
        and all(
            isinstance(name, str) and 1 <= len(name) <= LONGEST_WORD for name in names
        )
    )
    if not is_right or not isinstance(names, (list, tuple)):
        raise _bad(f"{what} is not a text or a list of 1 to {MOST_WORDS} texts.")
    return tuple(names)


def _value(name: str, kind: str, value: object) -> Any:
    if kind == WORDS:
        return read_names(value, name)
    if kind == FLAG:
        if isinstance(value, bool):
            return value
        raise _bad(f"{name} is neither true nor false.")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _bad(f"{name} is not a number.")
    if not 0 <= value <= LARGEST_NUMBER:
        raise _bad(f"{name} is not from 0 to {LARGEST_NUMBER}.")
    return value


def _bad(text: str, fix: str = "") -> OmniError:
    return OmniError("bad_route_rule", text, fix)


# --- deciding -------------------------------------------------------------------------------------
# What a rule leaves open; what the prompt is for is the rule's own matter.
AMONG_EQUALS = tuple(rule for rule in PREFERENCES if rule.name != "purpose")


def decide_route(
    route: RouteRules,
    prompt: Prompt,
    candidates: Sequence[Candidate],
    around: Surroundings | None = None,
    key: str = "",
) -> Decision | None:
    """Who answers by the rules of a route; None when nobody of those it leads to can."""
    by_name = {each.name: each for each in candidates}
    known = [by_name[name] for name in route.names if name in by_name]
    step, able = reachable(around or Surroundings(), known)
    facts = Facts(prompt, classify(prompt), _staying(around, able), key)
    view = View(prompt, facts.classification, facts.around)
    asked, left = _by_rules(route.rules, facts, known, able)
    last, left = _otherwise(route, facts, able, left)
    steps = [step, *asked, last]
    if not left:
        return None
    chain = _chain(route, view, able, left)
    for preference in AMONG_EQUALS:
        step, left = preferred(preference, view, left)
        steps.append(step)
    steps.append(Step("order", len(left) > 1, "the first in order", (left[0].name,)))
    return Decision(chain, tuple(steps), facts.classification, prompt)


def _staying(around: Surroundings | None, able: Sequence[Candidate]) -> Surroundings:
    """A conversation can only stay where it can be answered."""
    around = around or Surroundings()
    if around.conversation in _names(able):
        return around
    return replace(around, conversation="")


def _by_rules(
    rules: Sequence[RouteRule],
    facts: Facts,
    known: Sequence[Candidate],
    able: list[Candidate],
) -> tuple[list[Step], list[Candidate]]:
    """A step for each rule, and whom the one that applies leaves; all that are able where none
    applies, or where those that it leads to cannot be reached."""
    steps: list[Step] = []
    left = able
    is_over = False
    for number, rule in enumerate(rules, start=1):
        to = [each for each in known if each.name in rule.to]
        applies, reason = _applies(rule, facts, to, is_over=is_over)
        if applies:
            is_over = True
            left = [each for each in to if each in able] or able
        kept, name = _names(left), f"rule {number}"
        steps.append(
            Step(name, applies, reason, kept, rule.is_certain, is_written=True)
        )
    return steps, left


def _names(candidates: Iterable[Candidate]) -> tuple[str, ...]:
    return tuple(each.name for each in candidates)


def _applies(
    rule: RouteRule, facts: Facts, to: Sequence[Candidate], *, is_over: bool
) -> tuple[bool, str]:
    if is_over:
        return False, "a rule before it applies"
    if facts.around.conversation and not rule.is_certain:
        return False, "the conversation stays where it is"
    if not to:
        return False, f"{', '.join(rule.to)} cannot answer now"
    for name, value in rule.when.items():
        if not CONDITIONS[name].holds(facts, value, to):
            return False, f"{name} is not {_shown(value)}"
    said = ", ".join(f"{name} is {_shown(value)}" for name, value in rule.when.items())
    return True, said or "it has no condition"


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return " or ".join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _otherwise(
    route: RouteRules, facts: Facts, able: list[Candidate], left: list[Candidate]
) -> tuple[Step, list[Candidate]]:
    """Where no rule applies: where the conversation is, else the route's own deployment, else the
    first of its fall-backs that can answer."""
    if left is not able:
        return Step("otherwise", False, "a rule applies", _names(left)), left
    stays = [each for each in able if each.name == facts.around.conversation]
    if stays:
        said = f"{stays[0].name} has answered this conversation before"
        return Step("otherwise", True, said, _names(stays)), stays
    after = (route.otherwise, *route.fallbacks)
    found = [each for name in after for each in able if each.name == name][:1]
    return Step("otherwise", True, "no rule applies", _names(found)), found


def _chain(
    route: RouteRules,
    view: View,
    able: Sequence[Candidate],
    left: Sequence[Candidate],
) -> tuple[str, ...]:
    """Equals as they are liked, then the route's deployment, then its fall-backs."""

    def liked(candidate: Candidate) -> tuple[float, ...]:
        return tuple(rule.rank(view, candidate) for rule in AMONG_EQUALS)

    after = [
        name for name in (route.otherwise, *route.fallbacks) if name in _names(able)
    ]
    return tuple(dict.fromkeys([*_names(sorted(left, key=liked)), *after]))
