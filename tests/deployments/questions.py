"""Generated questions: whatever can stand in a purposes file."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from deployments.advice.purposes import Purpose, Question
from deployments.advice.what_if import CardSpec, RigSpec
from deployments.names import RESERVED
from deployments.rig.question_limits import (
    CORES,
    MOST_CARDS,
    NUMBERS,
    RAM_GBPS,
    NumberLimit,
    why_too_long,
)

# Long ones and many of them cost time and find nothing more.
LONGEST = 30
MOST_IN_LIST = 3
NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,29}", fullmatch=True).filter(
    lambda name: name not in RESERVED["deployments"]
)


def _texts() -> st.SearchStrategy[str]:
    return st.text(min_size=1, max_size=LONGEST).filter(str.strip)


def _numbers(limit: NumberLimit) -> st.SearchStrategy[Any]:
    if limit.is_whole:
        return st.integers(int(limit.low), int(limit.high))
    return st.floats(limit.low, limit.high)


def purposes(models: st.SearchStrategy[str]) -> st.SearchStrategy[Purpose]:
    some = st.lists(models, max_size=MOST_IN_LIST, unique=True).map(tuple)
    numbers = {key: _numbers(limit) for key, limit in NUMBERS.items()}
    return st.builds(Purpose, NAMES, some, **numbers).filter(
        lambda purpose: not why_too_long(purpose)
    )


def rigs(
    cards: st.SearchStrategy[str], links: st.SearchStrategy[str]
) -> st.SearchStrategy[RigSpec]:
    specs = st.lists(st.builds(CardSpec, cards, links), max_size=MOST_CARDS)
    return st.builds(
        RigSpec,
        specs.map(tuple),
        st.none() | st.integers(0, 10**15),
        st.none() | _numbers(RAM_GBPS),
        _numbers(CORES),
    )


def questions(
    models: st.SearchStrategy[str] | None = None,
    rig: st.SearchStrategy[RigSpec] | None = None,
) -> st.SearchStrategy[Question]:
    some = st.lists(
        purposes(_texts() if models is None else models),
        min_size=1,
        max_size=MOST_IN_LIST,
        unique_by=lambda purpose: purpose.name,
    )
    links = st.just("") | _texts()
    other = rigs(_texts(), links) if rig is None else rig
    return st.builds(Question, some.map(tuple), st.none() | other)
