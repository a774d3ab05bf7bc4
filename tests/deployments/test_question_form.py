"""The form of a question: every limit beside its field, nothing typed is lost, and rows are added
and removed without scripts too."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from urllib.parse import urlencode

import pytest
from django.http import QueryDict
from django.template.loader import render_to_string
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.advice.purposes import Purpose, Question
from deployments.advice.what_if import CardSpec, RigSpec
from deployments.rig.purposes_file import parse_purposes, purposes_text
from deployments.web.question_form import QuestionForm
from deployments.web.question_rows import LINKS
from gpus.cards import CARDS, DataSheet, card_named, clear_name
from gpus.links import read_link
from omni.errors import OmniError
from tests.deployments.questions import questions, rigs

NAMES = ("coder", "small", "big")


@dataclass(frozen=True)
class Known:
    name: str
    n_params: int | None = 7_000_000_000
    quant: str = "Q4_K_M"
    size_bytes: int = 4 << 30


LIBRARY = [Known(name) for name in NAMES]
PLAIN: dict[str, str | list[str]] = {
    "purpose-0-name": "coding",
    "purpose-0-model": ["coder"],
    "purpose-0-users": "2",
    "purpose-0-context": "16384",
    "rig": "here",
}
WHAT_IF: dict[str, str | list[str]] = {
    **PLAIN,
    "rig": "what_if",
    "card-0-card": "RTX 5090",
    "card-0-link": "gen5 x8",
    "card-1-card": "",
    "card-1-link": "",
    "ram": "384 GiB",
    "ram_gbps": "236",
}
CARDS_HERE = (
    "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
    "NVIDIA GeForce RTX 5090",
    "A card of nobody",
)


def sent(
    changes: dict[str, str | list[str]], base: dict[str, str | list[str]] = PLAIN
) -> QueryDict:
    return QueryDict(urlencode({**base, **changes}, doseq=True))


def form_of(
    changes: dict[str, str | list[str]],
    base: dict[str, str | list[str]] = PLAIN,
    cards_here: tuple[str, ...] = CARDS_HERE,
) -> QuestionForm:
    return QuestionForm(sent(changes, base), library=LIBRARY, cards_here=cards_here)


def page_of(form: QuestionForm) -> str:
    return render_to_string("deployments/_question.html", {"form": form})


class Fields(HTMLParser):
    """What a browser would send of the form, its buttons left out."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.sent: list[tuple[str, str]] = []
        self.select = ""
        self.depth = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {key: value or "" for key, value in attrs}
        if tag == "template":
            self.depth += 1
        if self.depth:
            return
        if tag == "select":
            self.select = found["name"]
        if tag == "option" and self.select and "selected" in found:
            self.sent.append((self.select, found["value"]))
        if tag == "input" and found.get("name"):
            is_ticked = found["type"] not in ("checkbox", "radio") or "checked" in found
            if is_ticked:
                self.sent.append((found["name"], found["value"]))

    def handle_endtag(self, tag: str) -> None:
        self.select = "" if tag == "select" else self.select
        self.depth -= tag == "template"

    def query(self) -> QueryDict:
        return QueryDict(urlencode(self.sent))


# --- what is asked --------------------------------------------------------------------------------
def test_a_filled_form_is_a_question() -> None:
    assert form_of({}).question == Question(
        (Purpose("coding", ("coder",), 2, 16_384),), None
    )
    form = form_of({}, WHAT_IF)
    assert form.question.rig == RigSpec(
        (CardSpec("RTX 5090", "gen5 x8"),), 384 << 30, 236.0
    )


def test_what_nobody_filled_is_left_out() -> None:
    form = form_of({"purpose-1-name": " ", "purpose-1-users": "1", "purpose-2-hub": ""})
    assert len(form.question.purposes) == 1
    assert form_of({"purpose-0-users": ""}).question.purposes[0].users == 1


def test_a_purpose_may_leave_its_models_to_its_name() -> None:
    question = form_of({"purpose-0-model": []}).question
    assert question.purposes[0].models == ()
    again = QuestionForm(question=question, library=LIBRARY)
    sent_again = Fields(page_of(again)).query()
    assert QuestionForm(sent_again, library=LIBRARY).question == question


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("hub:owner/name@dev:Q8_0", "hub:owner/name@dev:Q8_0"),
        ("owner/name@dev", "hub:owner/name@dev"),
        ("hub:some.org/name@refs/pr/7:Q8_0", "hub:some.org/name@refs/pr/7:Q8_0"),
        ("https://hub.example/owner/name/tree/dev", "hub:owner/name@dev"),
        ("https://hub.example/owner/name/blob/v2/a.gguf", "hub:owner/name@v2:a.gguf"),
        ("hub:owner/name:sub/a@b.gguf", "hub:owner/name:sub/a@b.gguf"),
    ],
)
def test_the_branch_of_a_model_at_the_hub_comes_back_as_it_was(
    typed: str, name: str
) -> None:
    question = form_of({"purpose-0-hub": [typed]}).question
    assert question.purposes[0].models == ("coder", name)
    again = QuestionForm(question=question, library=LIBRARY)
    sent_again = Fields(page_of(again)).query()
    assert QuestionForm(sent_again, library=LIBRARY).question == question
    assert parse_purposes(purposes_text(question)) == question


def test_models_of_a_hub_stand_beside_those_of_the_library() -> None:
    typed = ["hub:owner/name-GGUF:Q4_K_M", "", "owner/other:Q8_0"]
    form = form_of({"purpose-0-hub": typed})
    assert form.question.purposes[0].models == (
        "coder",
        "hub:owner/name-GGUF:Q4_K_M",
        "hub:owner/other:Q8_0",
    )


BAD = [
    ("purpose-0-name", "", "Give it a name"),
    ("purpose-0-name", "Code Review", "Such as code-review."),
    ("purpose-0-name", "auto", "another meaning"),
    ("purpose-0-name", "x" * 61, "at most 60"),
    ("purpose-0-name", "x" * 200_000, "cannot be a deployment's"),
    ("purpose-0-users", "0", "Write a whole number from 1 to 64."),
    ("purpose-0-users", "65", "Write a whole number from 1 to 64."),
    ("purpose-0-users", "1.5", "Write a whole number"),
    ("purpose-0-users", "many", "Write a whole number"),
    ("purpose-0-users", "9" * 100_000, "Write a whole number"),
    ("purpose-0-context", "255", "from 256 to 16,777,216"),
    ("purpose-0-context", "16777217", "from 256 to 16,777,216"),
    ("purpose-0-context", "1000", "do not fit"),
    ("purpose-0-prompt_tokens", "0", "from 1 to 16,777,216"),
    ("purpose-0-answer_tokens", "nan", "from 1 to 16,777,216"),
    ("purpose-0-weight", "0", "a number from 0.001 to 1,000"),
    ("purpose-0-weight", "inf", "a number from 0.001 to 1,000"),
    ("card-0-card", "RTX 5091", "Near ones are: GeForce RTX 5090"),
    ("card-0-card", "RTX 3060", "GeForce RTX 3060 12 GB"),
    ("card-0-card", "", "Name the card that has this link."),
    ("card-0-card", "x" * 200_000, "longer than 120 characters"),
    ("card-0-link", "gen9 x3", "cannot be read"),
    ("card-0-link", "gen6 x16", "gen5 x16 at most"),
    ("card-0-link", "x" * 200_000, "longer than 120 characters"),
    ("ram", "384", "64 GiB"),
    ("ram", "much", "64 GiB"),
    ("ram_gbps", "0", "a number from 1 to 100,000"),
    ("cores", "0", "from 1 to 4,096"),
]


@pytest.mark.parametrize(("name", "typed", "said"), BAD)
def test_a_bad_field_says_what_is_wrong_and_keeps_what_was_typed(
    name: str, typed: str, said: str
) -> None:
    form = form_of({name: typed}, WHAT_IF)
    assert not form.is_valid()
    assert set(form.errors) == {name}
    assert said in " ".join(form.errors[name])
    page = page_of(form)
    assert said in html.unescape(page)
    assert Fields(page).query().getlist(name) == [typed]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"purpose-0-model": ["gone"]}, "There is no model 'gone'"),
        ({"purpose-0-hub": "nothing"}, "is no repository"),
        ({"purpose-0-hub": "hub:a/b:" + "x" * 300}, "too long a name"),
        ({"purpose-0-hub": [f"a/b:{n}" for n in range(12)]}, "at most 12; these are 13"),
    ],
)  # fmt: skip
def test_bad_models_are_told_and_kept(
    changes: dict[str, str | list[str]], said: str
) -> None:
    form = form_of(changes)
    assert set(form.errors) == {"purpose-0-model"}
    assert said in form.errors["purpose-0-model"][0]
    page = page_of(form)
    ((name, typed),) = changes.items()
    kept = [each for each in Fields(page).query().getlist(name) if each]
    assert kept == ([typed] if isinstance(typed, str) else typed)


def test_two_purposes_of_one_name_are_told() -> None:
    form = form_of({"purpose-4-name": "coding", "purpose-4-model": ["big"]})
    assert set(form.errors) == {"purpose-0-name", "purpose-1-name"}


def test_too_many_rows_are_told_and_kept() -> None:
    many = {f"purpose-{n}-name": f"p{n}" for n in range(13)}
    models = {f"purpose-{n}-model": ["coder"] for n in range(13)}
    cards = {f"card-{n}-card": "RTX 5090" for n in range(9)}
    form = form_of({**many, **models, **cards}, WHAT_IF)
    assert form.errors[""] == [
        "Ask for at most 12 purposes.",
        "A rig has at most 8 cards here.",
    ]
    assert len(form.purposes) == 13 and len(form.cards) == 9


def test_a_what_if_of_nothing_is_told() -> None:
    form = form_of({"rig": "what_if"})
    assert "Name a card" in form.errors["card-0-card"][0]
    assert form_of({"rig": "what_if", "ram": "64 GiB"}).is_valid()


def test_a_form_that_says_nothing_is_told() -> None:
    form = QuestionForm(QueryDict(""), library=LIBRARY)
    assert set(form.errors) == {"purpose-0-name"}


def test_hostile_rows_end_in_errors() -> None:
    form = form_of(
        {
            "purpose-99999-name": "x",
            "purpose--1-name": "x",
            "purpose-٣-name": "<script>",
            "card-0-card-card": "x",
        }
    )
    assert "<script>" not in page_of(form)
    named = form_of({"purpose-0-name": '"><script>alert(1)</script>'})
    assert "<script>" not in page_of(named)


# --- rows without scripts -------------------------------------------------------------------------
def test_rows_are_added_and_removed_by_sending_the_form() -> None:
    form = form_of({"add": "purpose", "purpose-0-users": "many"})
    assert form.is_redrawn and not form.is_valid() and not form.errors
    assert len(form.purposes) == 2 and form.purposes[0].numbers["users"].value == "many"

    two = {"purpose-3-name": "chat", "purpose-3-model": ["small"]}
    form = form_of({**two, "remove": "purpose-0"})
    assert [row.name.value for row in form.purposes] == ["chat"]
    assert form.purposes[0].chosen == ["small"]
    assert form.purposes[0].name.name == "purpose-0-name"

    form = form_of({"remove": "purpose-0"})
    assert [row.is_blank for row in form.purposes] == [True]

    form = form_of({"add": "card"})
    assert len(form.cards) == 2 and form.is_what_if
    form = form_of({"remove": "card-1", "card-1-card": "B"}, WHAT_IF)
    assert [row.card.value for row in form.cards] == ["RTX 5090"]
    for hostile in ("card-77", "purpose", "", "-", "x" * 10_000):
        assert form_of({"remove": hostile}, WHAT_IF).is_redrawn


def test_a_row_that_is_added_is_sent_and_read() -> None:
    form = form_of({"add": "purpose"})
    query = Fields(page_of(form)).query().copy()
    query["purpose-1-name"] = "chat"
    query.appendlist("purpose-1-model", "small")
    asked = QuestionForm(query, library=LIBRARY)
    assert [purpose.name for purpose in asked.question.purposes] == ["coding", "chat"]


PRO = "RTX PRO 6000 Blackwell Workstation Edition"


@pytest.mark.parametrize(
    ("quick", "cards"),
    [
        ("second-1", [(PRO, ""), ("GeForce RTX 5090", ""), ("GeForce RTX 5090", "")]),
        ("pair-0", [(PRO, ""), (PRO, "")]),
        ("gen5", [(PRO, "gen5 x16"), ("GeForce RTX 5090", "gen5 x16")]),
    ],
)
def test_a_quick_what_if_fills_the_cards(
    quick: str, cards: list[tuple[str, str]]
) -> None:
    form = form_of({"quick": quick})
    assert [(row.card.value, row.link.value) for row in form.cards] == cards
    assert form.is_what_if and form.is_redrawn
    query = Fields(page_of(form)).query()
    assert QuestionForm(query, library=LIBRARY).question.rig


def test_without_known_cards_no_what_if_is_offered() -> None:
    assert not form_of({}, cards_here=("A card of nobody",)).quick
    old = form_of({}, cards_here=("GeForce RTX 3090", "GeForce RTX 3090"))
    assert [quick.value for quick in old.quick] == ["second-0", "pair-0"]
    assert old.quick[0].label == "one more GeForce RTX 3090"


@pytest.mark.parametrize("sheet", CARDS, ids=clear_name)
def test_every_name_that_is_suggested_is_clear(sheet: DataSheet) -> None:
    assert card_named(clear_name(sheet)) is sheet


# --- round trips ----------------------------------------------------------------------------------
AT_HUB = ("hub:owner/name-GGUF:Q4_K_M", "hub:owner/name-GGUF@dev:Q4_K_M")
MODELS = st.sampled_from((*NAMES, *AT_HUB))
RIGS = rigs(
    st.sampled_from([clear_name(c) for c in CARDS]),
    st.sampled_from(("", *LINKS, "pcie 4")),
)


def with_usable_links(rig: RigSpec) -> RigSpec:
    """Without the links that are faster than their cards: the form refuses those."""
    return replace(rig, cards=tuple(map(with_usable_link, rig.cards)))


def with_usable_link(spec: CardSpec) -> CardSpec:
    wanted = read_link(spec.link or "gen1")
    try:
        card_named(spec.card).check_link(wanted.generation, wanted.width)
    except OmniError:
        return CardSpec(spec.card)
    return spec


@settings(max_examples=25, deadline=None)
@given(
    questions(
        MODELS,
        RIGS.filter(lambda rig: rig.cards or rig.ram_bytes is not None).map(
            with_usable_links
        ),
    )
)
def test_a_question_survives_form_page_and_file(question: Question) -> None:
    shown = QuestionForm(question=question, library=LIBRARY)
    form = QuestionForm(Fields(page_of(shown)).query(), library=LIBRARY)
    assert not form.errors
    # Those of the hub come after those of the library.
    for asked, typed in zip(question.purposes, form.question.purposes, strict=True):
        assert set(asked.models) == set(typed.models)
    assert form.question.rig == question.rig
    assert parse_purposes(purposes_text(form.question)) == form.question


def test_ids_of_the_form_are_there_once() -> None:
    form = form_of({"purpose-1-name": "x"}, WHAT_IF)
    page = re.sub(r"<template.*?</template>", "", page_of(form), flags=re.DOTALL)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
