"""The Plan page: choices in the query, one row per strategy, and a press that deploys what is
shown."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from django.test import Client

from deployments.library import folders
from deployments.models import Deployment, Engine, Model
from deployments.planning.plan import (
    DeviceUse,
    Plan,
    PlanRequest,
    Predicted,
    Reason,
    Severity,
    Verdict,
)
from deployments.strategies import STRATEGIES
from deployments.strategies.base import Strategy
from deployments.web import planboard
from gpus.models import Host
from omni.errors import OmniError
from tests.deployments.plan_page import card_of, page, shown_commands
from tests.vision_models import Eye, write_projector

HTMX = {"HX-Request": "true"}
pytestmark = pytest.mark.usefixtures("engine", "model")


def only_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in STRATEGIES if name != "independent"]:
        monkeypatch.delitem(STRATEGIES, name)


class Made(Strategy):
    """A strategy that answers with the plan it is given."""

    name, title, summary, serving_role = "layer_split", "Made up", "For tests.", "model"
    roles = ("model",)

    def __init__(self, answer: Plan | OmniError) -> None:
        self.answer = answer

    def plan(self, request: PlanRequest) -> Plan:
        if isinstance(self.answer, OmniError):
            raise self.answer
        return self.answer


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """Puts one made-up strategy beside the independent one."""
    only_independent(monkeypatch)

    def put(answer: Plan | OmniError) -> None:
        monkeypatch.setitem(STRATEGIES, "layer_split", Made(answer))

    return put  # type: ignore[return-value]


# --- what is shown --------------------------------------------------------------------------------
def test_a_bare_address_plans_the_first_model_on_every_accelerator(
    viewer: Client, model: Model
) -> None:
    text = page(viewer)
    assert f'<option value="{model.name}" selected' in text
    assert re.findall(r'name="device" value="(\w+)" checked', text) == ["RPC0", "RPC1"]
    assert "Independent" in text and "fits" in text
    assert f"--alias {model.name}" in " ".join(shown_commands(text)[0])


def test_every_strategy_has_a_row(viewer: Client) -> None:
    text = page(viewer, "device=RPC0&device=RPC1")
    assert set(re.findall(r'<article [^>]*id="plan-(\w+)"', text)) == set(STRATEGIES)


def test_htmx_gets_the_results_and_the_short_address(
    viewer: Client, model: Model
) -> None:
    query = (
        f"model={model.name}&device=&device=RPC0&context=4096&parallel=1&kv_cache_k=f16"
    )
    answer = viewer.get(f"/plan/?{query}", headers=HTMX)
    text = answer.content.decode()
    assert (
        "<html" not in text
        and 'id="plan-results"' in text
        and 'id="context-errors" hx-swap-oob' in text
    )
    short = parse_qs(urlsplit(answer["HX-Replace-Url"]).query)
    assert short == {"model": [model.name], "device": ["RPC0"], "context": ["4096"]}
    assert "HX-Request" in answer["Vary"]
    again = page(viewer, urlsplit(answer["HX-Replace-Url"]).query)
    assert shown_commands(again) == shown_commands(text)


def test_going_back_gets_the_whole_page(viewer: Client) -> None:
    assert "<html" in page(viewer, **HTMX, **{"HX-History-Restore-Request": "true"})


def test_every_setting_has_a_knob(viewer: Client) -> None:
    from deployments.planning.settings import SETTINGS

    text = page(viewer)
    assert all(f'name="{key}"' in text for key in SETTINGS)


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("context=many", "context", "context is"),
        ("context=1", "context", "It takes auto, or 256 to"),
        ("parallel=0", "parallel", "1 to 64"),
        ("kv_cache_v=q8_0&flash_attention=off", "kv_cache_v", "flash attention"),
        ("batch=1&ubatch=512", "ubatch", "At most|at most"),
        ("model=nothing-like-it", "model", "There is no model nothing-like-it"),
        ("draft=nothing-like-it", "draft", "There is no model nothing-like-it"),
        ("device=CUDA7", "device", "There is no device CUDA7"),
        ("device=", "device", "Choose at least one"),
        ("device=RPC0&draft_device=RPC1", "draft_device", "not among the chosen"),
        ("engine=99", "engine", "no such engine"),
    ],
)
def test_what_is_wrong_stands_at_its_field_and_nothing_else_is_lost(
    viewer: Client, query: str, field: str, says: str
) -> None:
    text = page(
        viewer,
        f"{query}&threads=3"
        if "device=" in query
        else f"{query}&device=RPC1&threads=3",
    )
    (place,) = re.findall(rf'<div id="{field}-errors">(.*?)</div>', text, re.S)
    assert re.search(says, html.unescape(place)), place
    assert re.search(r'name="threads" value="3"', text)
    assert not shown_commands(text)
    part = page(viewer, query, **HTMX)
    assert re.search(says, html.unescape(part))


def test_hostile_values_are_shown_as_text(viewer: Client) -> None:
    text = page(
        viewer, "context=%3Cscript%3Ealert(1)%3C/script%3E&model=%22%3E%3Cimg+src=x%3E"
    )
    assert "<script>alert" not in text and "<img" not in text


def test_a_model_s_page_leads_to_its_plan(viewer: Client, model: Model) -> None:
    assert (
        f'href="/plan/?model={model.name}"'
        in viewer.get(f"/models/{model.name}/").content.decode()
    )


def test_without_models_the_page_sends_to_the_library(
    viewer: Client, model: Model
) -> None:
    model.delete()
    assert "There is no model to plan with" in page(viewer)
    assert "There is no model to plan with" in page(viewer, "model=gone&context=4096")


def test_without_engine_the_page_says_so(viewer: Client, engine: Engine) -> None:
    engine.delete()
    assert "There is no engine to plan with" in page(viewer)


# --- verdicts -------------------------------------------------------------------------------------
def test_a_strategy_that_cannot_be_planned_says_what_to_choose(
    viewer: Client, beside: object
) -> None:
    beside(OmniError("no_draft", "There is no draft.", "Choose a draft model."))  # type: ignore[operator]
    text = page(viewer)
    card = card_of(text, "layer_split")
    assert (
        "incomplete" in card
        and "Choose a draft model." in card
        and "Deploy" not in card
    )


def test_the_better_plan_comes_first_and_says_why(
    viewer: Client, beside: object
) -> None:
    use = DeviceUse("RPC0", 100, weights_bytes=40)
    fast = Plan(
        "layer_split",
        Verdict.VIABLE,
        devices=(use,),
        predicted=Predicted(None, 55.5, None, (50.0, 60.0)),
    )
    beside(fast)  # type: ignore[operator]
    text = page(viewer)
    assert re.findall(r'<article [^>]*id="plan-(\w+)"', text) == [
        "layer_split",
        "independent",
    ]
    assert (
        text.count("Best of these.") == 1
        and "55.5 tokens/s" in text
        and "between 50 and 60" in text
    )


def test_a_proposed_fix_is_a_link_with_the_changed_settings(
    viewer: Client, beside: object, model: Model
) -> None:
    reason = Reason(
        "does_not_fit",
        Severity.ERROR,
        "Too much.",
        "Less.",
        {"context": 4096, "kv_cache_k": "q8_0"},
    )
    over = DeviceUse("RPC0", 100, weights_bytes=140)
    beside(Plan("layer_split", Verdict.NOT_VIABLE, (reason,), (over,)))  # type: ignore[operator]
    text = page(viewer, "device=RPC0&context=65536&threads=2")
    card = card_of(text, "layer_split")
    (address,) = re.findall(r'href="([^"]+)" data-card', card)
    wanted = {
        "model": [model.name],
        "device": ["RPC0"],
        "context": ["4096"],
        "kv_cache_k": ["q8_0"],
        "threads": ["2"],
    }
    assert parse_qs(urlsplit(html.unescape(address)).query) == wanted
    assert "Use context 4,096 and KV cache, keys q8_0" in card
    assert (
        'fill="url(#plan-hatch)"' in card
        and "too much for" in card
        and "Deploy" not in card
    )


def test_a_context_that_does_not_fit_proposes_one_that_does(viewer: Client) -> None:
    text = page(
        viewer,
        "device=RPC0&gpu_layers=all&context=16000000&parallel=64&kv_cache_k=f32&kv_cache_v=f32",
    )
    address = re.findall(r'href="([^"]+)" data-card="plan-independent"', text)[0]
    fixed = page(viewer, urlsplit(html.unescape(address)).query)
    state = r'<article [^>]*id="plan-independent"[^>]*data-state="(\w+)"'
    assert re.findall(state, text) == ["not_viable"] and re.findall(state, fixed) != [
        "not_viable"
    ]


def test_what_others_hold_counts(viewer: Client, in_use: Callable[..., None]) -> None:
    in_use(RPC0=16 << 30, host=3 << 30)
    text = page(viewer, "device=RPC0")
    assert "used by others 16 GiB" in text
    assert "<b>16 GiB</b>" in text and "<b>3 GiB</b>" in text


@pytest.mark.parametrize(
    ("code", "severity", "word", "has_bars"),
    [
        ("does_not_fit", Severity.ERROR, "does not fit", True),
        ("does_not_fit needs_cuda", Severity.ERROR, "not possible", False),
        ("needs_cuda", Severity.ERROR, "not possible", False),
        ("tight_fit", Severity.CAUTION, "caution", True),
        ("good_to_know", Severity.INFO, "fits", True),
    ],
)
def test_a_card_says_in_a_word_what_stands_against_it(
    viewer: Client,
    beside: object,
    code: str,
    severity: Severity,
    word: str,
    has_bars: bool,
) -> None:
    reasons = tuple(Reason(each, severity, "Because of this.") for each in code.split())
    verdicts = {
        Severity.ERROR: Verdict.NOT_VIABLE,
        Severity.CAUTION: Verdict.CAUTION,
        Severity.INFO: Verdict.VIABLE,
    }
    beside(
        Plan(
            "layer_split",
            verdicts[severity],
            reasons,
            (DeviceUse("RPC0", 100, kv_bytes=40),),
        )
    )  # type: ignore[operator]
    card = card_of(page(viewer), "layer_split")
    assert re.search(rf"</svg>{word}</span>", card) and "Because of this." in card
    assert ('class="bars"' in card) == has_bars
    assert ("Good to know" in card) == (severity == Severity.INFO)


# --- rows -----------------------------------------------------------------------------------------
def line_of(card: str) -> str:
    """What a row shows while it is closed."""
    (line,) = re.findall(r'<summary class="plan-line".*?</summary>', card, re.S)
    return line


def folded(text: str) -> str:
    """What is folded, with its title."""
    return text.partition('<details class="plan-rest"')[2]


FITS = Plan(
    "layer_split",
    Verdict.VIABLE,
    devices=(
        DeviceUse("RPC0", 100 << 30, weights_bytes=40 << 30, held_bytes=10 << 30),
        DeviceUse("RPC1", 30 << 30, kv_bytes=20 << 30),
        DeviceUse("odd", None, weights_bytes=1),
    ),
    predicted=Predicted(700.0, 55.5),
)
TOO_MUCH = Plan(
    "layer_split",
    Verdict.NOT_VIABLE,
    (Reason("does_not_fit", Severity.ERROR, "RPC0 has 40 GiB too little.", "Less."),),
    (DeviceUse("RPC0", 100 << 30, weights_bytes=140 << 30),),
)
IMPOSSIBLE = Plan(
    "layer_split",
    Verdict.NOT_VIABLE,
    (Reason("needs_cuda", Severity.ERROR, "It needs CUDA cards.", "Buy one."),),
)
TOO_LONG = "device=RPC0&gpu_layers=all&context=16000000&parallel=64&kv_cache_k=f32&kv_cache_v=f32"


def test_a_row_has_both_speeds_a_bar_per_device_and_what_is_left_on_the_tightest(
    viewer: Client, beside: Callable[[object], None]
) -> None:
    beside(FITS)
    line = line_of(card_of(page(viewer, "device=CPU"), "layer_split"))
    assert re.search(r"Answer</span><b>55\.5</b> ?<span[^>]*>tokens/s", line)
    assert re.search(r"Prompt</span><b>700</b> ?<span[^>]*>tokens/s", line)
    assert line.count('class="bar"') == 2, "of the third nobody knows the size"
    assert 'class="part-held"' in line and 'class="part-kv"' in line
    assert re.search(r"<b>10 GiB</b> ?<span[^>]*>on RPC1</span>", line)


def test_only_the_best_row_is_open_at_first(
    viewer: Client, beside: Callable[[object], None]
) -> None:
    beside(FITS)
    text = page(viewer, "device=CPU")
    assert re.findall(r'<details id="row-(\w+)" open>', text) == ["layer_split"]
    assert '<details id="row-independent">' in text and not folded(text)


@pytest.mark.parametrize(
    ("answer", "title", "says"),
    [
        (IMPOSSIBLE, "1 that cannot, with what it lacks", "It needs CUDA cards."),
        (TOO_MUCH, "1 that cannot, with what it lacks", "RPC0 has 40 GiB too little."),
        (
            OmniError("no_draft", "There is no draft.", "Choose one."),
            "1 that cannot, with what it lacks",
            "There is no draft.",
        ),
    ],
)
def test_what_cannot_is_folded_under_one_line_with_what_it_lacks(
    viewer: Client,
    beside: Callable[[object], None],
    answer: Plan | OmniError,
    title: str,
    says: str,
) -> None:
    beside(answer)
    text = page(viewer, "device=CPU")
    rest = folded(text)
    assert rest.startswith(f' id="plan-rest"><summary>{title}</summary>')
    assert says in line_of(card_of(rest, "layer_split"))
    assert 'id="plan-independent"' not in rest


def test_where_nothing_fits_what_lacks_memory_stays_in_sight(
    viewer: Client, beside: Callable[[object], None]
) -> None:
    beside(TOO_MUCH)
    text = page(viewer, TOO_LONG)
    assert not folded(text)
    for key in ("independent", "layer_split"):
        line = line_of(card_of(text, key))
        assert "too little." in line
    assert "too much for RPC0" in line_of(card_of(text, "layer_split"))
    beside(IMPOSSIBLE)
    text = page(viewer, TOO_LONG)
    assert 'id="plan-layer_split"' in folded(text)
    assert 'id="plan-independent"' not in folded(text)


def test_one_press_deploys_the_open_row(
    operator: Client, beside: Callable[[object], None]
) -> None:
    beside(IMPOSSIBLE)
    card = card_of(page(operator, "device=CPU"), "independent")
    (form,) = re.findall(r'<form method="post".*?</form>', card, re.S)
    assert 'name="strategy" value="independent"' in form
    assert re.search(r'<button class="btn btn-primary">.*Deploy this', form)
    assert "<details" not in card.partition("<form")[0].rpartition("</details>")[2]


def test_a_strategy_that_comes_to_another_s_command_says_whose(
    operator: Client, beside: Callable[[object], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Again(type(STRATEGIES["independent"])):  # type: ignore[misc]
        name, title, takes_one_device = "layer_split", "Again", False

    beside(IMPOSSIBLE)
    monkeypatch.setitem(STRATEGIES, "layer_split", Again())
    text = page(operator, "device=CPU")
    rest = folded(text)
    assert "<summary>1 with the same command as another</summary>" in rest
    card = card_of(rest, "layer_split")
    assert "Here it comes to the same command as Independent." in line_of(card)
    assert "the same</span>" in card and "Deploy this" not in card
    answer = operator.post("/plan/?device=CPU", {"strategy": "layer_split"})
    assert answer.status_code == 200 and not Deployment.objects.exists()


def test_a_projector_is_offered_as_that_alone(viewer: Client, model: Model) -> None:
    assert 'name="projector"' not in page(viewer)
    Model.objects.create(
        name="eyes", path="/eyes.gguf", facts=model.facts, kind="projector"
    )
    text = page(viewer)
    offered = re.findall(r'<select name="(\w+)"(.*?)</select>', text, re.S)
    assert [name for name, inner in offered if 'value="eyes"' in inner] == ["projector"]


def test_a_model_with_its_projector_is_planned_together(
    viewer: Client, model: Model, tmp_path: Path
) -> None:
    path = write_projector(tmp_path / "mmproj.gguf", Eye(n_embd=1024, n_layer=8))
    folders.register(path)
    text = page(viewer, "device=CPU&projector=mmproj")
    card = card_of(text, "independent")
    assert f"--mmproj {path}" in html.unescape(card)
    assert "part-projector" in card and "up to 16 tokens" in card
    assert "Projector mmproj" in card
    assert "answers texts only" in card_of(text, "speculative")
    bare = page(viewer, "device=CPU")
    assert "--mmproj" not in bare and "part-projector" not in bare
    folders.register(write_projector(tmp_path / "wide.gguf", Eye(width=960)))
    wide = card_of(page(viewer, "device=CPU&projector=wide"), "independent")
    assert "wide was made for models of mlp with vectors of 960" in wide


def test_the_board_needs_no_request(host: Host) -> None:
    from django.http import QueryDict

    found = planboard.board(host, QueryDict("device=CPU"))
    assert {outcome.strategy.name for outcome in found.outcomes} == set(STRATEGIES)


# --- presets --------------------------------------------------------------------------------------
def test_presets_turn_the_knobs_and_leave_layers_to_each_strategy(
    viewer: Client, model: Model
) -> None:
    answer = viewer.get(f"/plan/presets/?model={model.name}&device=RPC0&gpu_layers=3")
    text = html.unescape(answer.content.decode())
    links = re.findall(r'href="(/plan/\?[^"]*)"', text)
    assert len(links) == 4
    for link in links:
        query = parse_qs(urlsplit(link).query)
        assert query["device"] == ["RPC0"]
        assert "gpu_layers" not in query
        assert page(viewer, urlsplit(link).query).count('id="plan-independent"') == 1
    assert "load" not in text.split("hx-trigger")[1].split(",")[0]


def test_presets_of_nothing_are_none(viewer: Client) -> None:
    text = viewer.get("/plan/presets/?model=ghost&device=RPC0").content.decode()
    assert "<li>" not in text
