"""The pages of benchmarks: who may what, what the form takes and refuses, what each state shows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.handlers.asgi import ASGIRequest
from django.db import connection
from django.test import AsyncRequestFactory, Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from deployments.bench.candidates import candidates, shared_devices
from deployments.bench.prompt_files import lines_of, parse_prompts
from deployments.models import BenchmarkRun, Deployment, Model
from deployments.web import benchmark_form
from deployments.web.addresses import gateway_address
from deployments.web.views import benchmarks
from deployments.web.views.benchmarks import who_against_whom
from gpus.models import Host
from tests.deployments.benchmark_documents import document
from tests.helpers import squeezed

pytestmark = pytest.mark.django_db
Make = Callable[..., Deployment]
HTMX = {"HX-Request": "true"}
LIST, NEW = "/benchmarks/", "/benchmarks/new/"
TYPED = {
    "deployment": ["plain", "drafting"],
    "baseline": "plain",
    "scenario": "chat",
    "users": "",
    "rounds": "40",
    "minutes": "30",
    "called": "",
    "prompts": "",
    "max_tokens": "128",
}
PROMPTS = "".join(f'{{"prompt": "Question {number}?"}}\n' for number in range(8))


@pytest.fixture
def two(make_deployment: Make, model: Model) -> list[Deployment]:
    both = {"target": (model, ["RPC0"]), "draft": (model, ["CPU"])}
    return [
        make_deployment(
            "plain", members={"model": (model, ["RPC0"])}, settings={"context": 1024}
        ),
        make_deployment(
            "drafting",
            strategy="speculative",
            members=both,
            settings={"context": 4096, "parallel": 2},
        ),
    ]


@pytest.fixture
def run(two: list[Deployment], operator_user: User) -> BenchmarkRun:
    return BenchmarkRun.objects.create(
        host=two[0].host,
        scenario="chat",
        names=["plain", "drafting"],
        concurrency=[1, 4],
        most_rounds=20,
        seconds=90.0,
        swaps=True,
        gateway="http://127.0.0.1:1",
        requested_by=operator_user,
    )


def text_of(client: Client, path: str, **headers: str) -> str:
    answer = client.get(path, headers=headers)
    assert answer.status_code == 200
    return squeezed(answer.content.decode())


def errors(answer: Any) -> list[str]:
    text = answer.content.decode()
    return [
        squeezed(found)
        for found in re.findall(r'class="field-error"[^>]*>(.*?)<', text)
    ]


def own(text: str = PROMPTS, **changes: Any) -> dict[str, Any]:
    return TYPED | {"scenario": "own", "prompts": text} | changes


# --- who may --------------------------------------------------------------------------------------
def test_a_viewer_looks_on_and_an_operator_acts(
    run: BenchmarkRun, viewer: Client, operator: Client
) -> None:
    page = f"/benchmarks/{run.pk}/"
    assert "New benchmark" in text_of(operator, LIST)
    assert "New benchmark" not in text_of(viewer, LIST)
    assert "Cancel the benchmark" in text_of(operator, page)
    assert "Cancel the benchmark" not in text_of(viewer, page)
    assert viewer.get(NEW).status_code == 403
    for path in (NEW, f"{page}cancel/", f"{page}forget/"):
        assert viewer.post(path, TYPED).status_code == 403
    assert BenchmarkRun.objects.get().state == "queued"


def test_the_pages_of_deployments_lead_to_the_form(
    two: list[Deployment], operator: Client, viewer: Client
) -> None:
    for path, leads_to in (
        ("/deployments/", NEW),
        ("/deployments/plain/", f"{NEW}?deployment=plain"),
    ):
        assert f'href="{leads_to}"' in text_of(operator, path)
        assert leads_to not in text_of(viewer, path)


# --- the form -------------------------------------------------------------------------------------
def test_the_form_opens_with_what_the_address_says(
    two: list[Deployment], operator: Client
) -> None:
    text = text_of(operator, f"{NEW}?deployment=plain&scenario=cold_start&users=1,4")
    assert re.search(r'name="deployment" value="plain"[^>]* checked', text)
    assert not re.search(r'name="deployment" value="drafting"[^>]* checked', text)
    assert re.search(r'name="baseline" value="plain"[^>]* checked', text)
    assert re.search(r'name="scenario" value="cold_start"[^>]* checked', text)
    assert re.search(r'name="users" value="1,4"', text)


def test_a_scenario_that_does_not_fit_says_why_and_cannot_be_chosen(
    two: list[Deployment], operator: Client
) -> None:
    text = text_of(operator, f"{NEW}?deployment=plain&deployment=drafting")
    why = "It needs a context of 1,792 tokens for each request; plain has 1,024."
    assert why in text
    assert re.search(r'value="reasoning"[^>]* disabled', text)
    assert re.search(r'value="chat"[^>]* checked', text)
    assert "It needs a context" not in text_of(operator, NEW)
    roomy = text_of(operator, f"{NEW}?deployment=drafting")
    assert "drafting has 2,048" in roomy and "1,792" not in roomy


def test_deployments_that_share_a_device_are_taken_in_turn_and_it_says_why(
    two: list[Deployment], operator: Client
) -> None:
    shared = text_of(operator, f"{NEW}?deployment=plain&deployment=drafting")
    assert re.search(r'name="swaps"[^>]* checked', shared)
    assert "drafting and plain share RPC0." in shared
    alone = text_of(operator, f"{NEW}?deployment=plain")
    assert not re.search(r'name="swaps"[^>]* checked', alone)
    assert "share RPC0" not in alone


def test_deployments_that_cannot_be_up_together_are_swapped_and_it_says_why(
    two: list[Deployment], operator: Client
) -> None:
    for deployment in two:
        deployment.settings |= {"exclusive_group": "one-of-these"}
        deployment.save()
    text = text_of(operator, f"{NEW}?deployment=plain&deployment=drafting")
    assert re.search(r'name="swaps"[^>]* checked', text)
    assert "They cannot be up together: " in text and "one-of-these" in text
    operator.post(NEW, TYPED)
    assert BenchmarkRun.objects.get().swaps


def test_a_run_is_asked_for_with_the_baseline_first(
    two: list[Deployment], operator: Client
) -> None:
    answer = operator.post(NEW, TYPED | {"users": "1, 4,4", "swaps": "on"})
    run = BenchmarkRun.objects.get()
    assert answer["Location"] == f"/benchmarks/{run.pk}/"
    assert (run.names, run.scenario) == (["plain", "drafting"], "chat")
    assert (run.concurrency, run.most_rounds, run.seconds) == ([1, 4], 40, 1800.0)
    assert (run.swaps, run.prompts, run.state) == (True, None, "queued")
    assert run.gateway == "http://testserver:80"
    assert run.requested_by and run.requested_by.username == "oscar"

    operator.post(NEW, TYPED | {"baseline": "drafting", "minutes": ""})
    second = BenchmarkRun.objects.first()
    assert second and second.names == ["drafting", "plain"]
    # RPC0 serves one engine at a time: they are swapped without being asked for.
    assert (second.seconds, second.swaps) == (None, True)


def test_load_and_service_level_are_chosen_shown_and_filled_in_again(
    two: list[Deployment], operator: Client
) -> None:
    level = {"slo_first_token_ms": "500", "slo_token_ms": "50"}
    operator.post(NEW, TYPED | level | {"rates": "0.5, 1"})
    at_rates = BenchmarkRun.objects.get()
    assert (at_rates.rates, at_rates.think_s) == ([0.5, 1.0], 0.0)
    assert (at_rates.slo_first_token_ms, at_rates.slo_token_ms) == (500.0, 50.0)
    page = text_of(operator, f"/benchmarks/{at_rates.pk}/")
    assert "0.5, 1, at random moments" in page and "Users at once" not in page
    assert "first token within 500 ms, each output token within 50 ms" in page

    again = text_of(operator, f"{NEW}?again={at_rates.pk}")
    for name, value in {**level, "rates": "0.5,1"}.items():
        assert re.search(rf'name="{name}" value="{value}"', again), name

    operator.post(NEW, TYPED | {"users": "4", "think_s": "2"})
    thinking = BenchmarkRun.objects.first()
    assert thinking and (thinking.rates, thinking.think_s) == ([], 2.0)
    assert "Think time" in text_of(operator, f"/benchmarks/{thinking.pk}/")


def test_prompts_of_ones_own_are_kept_with_the_run(
    two: list[Deployment], operator: Client
) -> None:
    line = '{"messages": [{"role": "user", "content": "a\\u0000b"}], "max_tokens": 7}'
    answer = operator.post(NEW, own(PROMPTS + line, called="my questions"))
    assert answer.status_code == 302, errors(answer)
    run = BenchmarkRun.objects.get()
    assert run.scenario == "my questions" and run.prompts and len(run.prompts) == 9
    assert run.prompts[0] == {
        "name": "my questions/1",
        "messages": [{"role": "user", "content": "Question 0?"}],
        "max_tokens": 128,
    }
    assert run.prompts[8]["messages"][0]["content"] == "a\ufffdb"
    assert run.prompts[8]["max_tokens"] == 7
    page = text_of(operator, f"/benchmarks/{run.pk}/")
    assert "9 of one's own: my questions" in page


def test_a_file_takes_the_place_of_the_text_and_is_not_lost(
    two: list[Deployment], operator: Client
) -> None:
    def file() -> SimpleUploadedFile:
        return SimpleUploadedFile("mine.jsonl", f"\ufeff{PROMPTS}".encode())

    refused = operator.post(NEW, own("old", file=file(), rounds="0"))
    text = refused.content.decode()
    assert "Question 7?" in text and ">old<" not in text
    assert re.search(r'name="called" value="mine"', text)
    assert errors(refused) == ["Ensure this value is greater than or equal to 1."]
    assert operator.post(NEW, own("old", file=file())).status_code == 302
    run = BenchmarkRun.objects.get()
    assert run.scenario == "mine" and run.prompts and len(run.prompts) == 8


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"deployment": []}, ["Choose at least one deployment"]),
    ({"deployment": ["gone"], "baseline": ""}, ["gone is not there any more"]),
    ({"deployment": ["drafting"]}, ["Choose the baseline among those"]),
    ({"scenario": ""}, ["Choose what is asked."]),
    ({"scenario": "nonsense"}, ["Select a valid choice"]),
    ({"scenario": "reasoning"}, ["It needs a context of 1,792 tokens"]),
    ({"users": "0"}, ["Write numbers from 1 to 64"]),
    ({"users": "1,,4"}, ["Write numbers from 1 to 64"]),
    ({"users": "9" * 99}, ["Write numbers from 1 to 64"]),
    ({"users": "64"}, ["one round takes 128"]),
    ({"users": "", "rates": "0"}, ["Write numbers from 0.01 to 100"]),
    ({"users": "", "rates": "fast"}, ["Write numbers from 0.01 to 100"]),
    ({"users": "", "rates": "1,2,3,4,5,6,7,8,9"}, ["Write at most 8"]),
    ({"rates": "1"}, ["At a rate there are no users"]),
    ({"users": "", "rates": "1", "think_s": "2"}, ["Only users who wait"]),
    ({"users": "", "rates": "1", "scenario": "mixed"}, ["has a load of its own"]),
    ({"think_s": "-1"}, ["greater than or equal to 0"]),
    ({"think_s": "1", "scenario": "cold_start"}, ["One question is asked"]),
    ({"slo_first_token_ms": "0"}, ["Write more than 0"]),
    ({"slo_token_ms": "-5"}, ["Write more than 0"]),
    ({"rounds": "41"}, ["less than or equal to 40"]),
    ({"rounds": ""}, ["This field is required"]),
    ({"minutes": "0"}, ["Write more than 0"]),
    ({"minutes": "nan"}, ["Enter a number"]),
    ({"minutes": "1441"}, ["less than or equal to 1440"]),
    ({"scenario": "mixed", "swaps": "on"}, ["they have to be up together"]),
    ({"scenario": "mixed", "deployment": ["plain"]}, ["two deployments or more"]),
    ({"scenario": "cold_start", "users": "2"}, ["One user asks after each start"]),
    (own(" "), ["Write prompts, one a line, or choose a file."]),
    (
        own("{}\n7"),
        ["Prompts, line 1: It needs either", "Prompts, line 2: It is not a"],
    ),
    (own('{"prompt": "Why?"}'), ["There are 1 prompts"]),
    (own(max_tokens="0"), ["greater than or equal to 1"]),
]


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_what_is_wrong_is_said_beside_its_field_and_nothing_is_lost(
    two: list[Deployment], operator: Client, change: dict[str, Any], said: list[str]
) -> None:
    typed = TYPED | {"users": "1", "minutes": "17.5", "called": "mine"} | change
    answer = operator.post(NEW, typed)
    assert answer.status_code == 200 and not BenchmarkRun.objects.exists()
    found = errors(answer)
    assert len(found) == len(said)
    for error, words in zip(found, said, strict=True):
        assert words in error
    text = answer.content.decode()
    for name in ("users", "rounds", "minutes", "called"):
        if typed[name]:
            assert re.search(rf'name="{name}" value="{typed[name]}"', text), name
    for name in set(typed["deployment"]) - {"gone"}:
        assert re.search(rf'id="deployment-{name}"[^>]*checked', squeezed(text))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("large.jsonl", b"x" * ((1 << 20) + 1), "large.jsonl is larger than 1 MiB"),
        ("binary.jsonl", b"\xff\xfe\x00", "binary.jsonl is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_taken_says_why(
    two: list[Deployment], operator: Client, name: str, content: bytes, said: str
) -> None:
    answer = operator.post(NEW, own("", file=SimpleUploadedFile(name, content)))
    (error,) = errors(answer)
    assert said in error and not BenchmarkRun.objects.exists()


def test_many_wrong_lines_are_not_all_told(
    two: list[Deployment], operator: Client
) -> None:
    found = errors(operator.post(NEW, own("7\n" * 50)))
    assert len(found) == 21 and found[-1] == "… and 30 more lines."


def test_deployments_of_two_hosts_are_refused_and_the_host_is_shown(
    two: list[Deployment], operator: Client
) -> None:
    assert 'data-label="Host"' not in text_of(operator, NEW)
    Deployment.objects.filter(name="drafting").update(
        host=Host.objects.create(name="elsewhere")
    )
    assert 'data-label="Host"' in text_of(operator, NEW)
    (error,) = errors(operator.post(NEW, TYPED))
    assert "Choose those of one host" in error


def test_the_form_takes_what_answers_with_text_only(
    two: list[Deployment], operator: Client
) -> None:
    Deployment.objects.filter(name="plain").update(is_deleting=True)
    assert 'value="plain"' not in text_of(operator, NEW)
    Model.objects.update(kind="embedding")
    text = text_of(operator, NEW)
    assert "There is nothing to measure" in text and "<form method" in text
    assert 'name="scenario"' not in text


def test_run_again_fills_in_the_same_choices(
    run: BenchmarkRun, operator: Client, admin: Client
) -> None:
    text = text_of(operator, f"{NEW}?again={run.pk}")
    for name, value in (("users", "1,4"), ("rounds", "20"), ("minutes", "1.5")):
        assert re.search(rf'name="{name}" value="{value}"', text), name
    assert re.search(r'name="baseline" value="plain"[^>]* checked', text)
    assert re.search(r'name="swaps"[^>]* checked', text)

    prompts = parse_prompts(PROMPTS.encode(), 9, source="x", name="mine")
    kept = [
        {"name": one.name, "messages": one.messages, "max_tokens": 9} for one in prompts
    ]
    BenchmarkRun.objects.update(prompts=kept, scenario="mine")
    Deployment.objects.get(name="drafting").delete()
    text = operator.get(f"{NEW}?again={run.pk}").content.decode()
    assert "drafting is not there any more." in text
    assert (
        "&quot;prompt&quot;: &quot;Question 7?&quot;, &quot;max_tokens&quot;: 9" in text
    )
    others = admin.get(f"{NEW}?again={run.pk}").content.decode()
    assert 'value="mine"' in others and "Question 7?" not in others
    assert operator.get(f"{NEW}?again=99").status_code == 400


def test_prompts_that_are_written_as_lines_are_read_as_they_were() -> None:
    rest = '{"messages": [{"role": "system", "content": "é"}, {"role": "user", "content": "b"}]}'
    once = parse_prompts((PROMPTS + rest).encode(), 5, source="x", name="mine")
    kept = [
        {"name": p.name, "messages": list(p.messages), "max_tokens": p.max_tokens}
        for p in once
    ]
    again = parse_prompts(lines_of(kept).encode(), 6, source="x", name="mine")
    assert again == once


# --- what a choice depends on ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("settings", "context"),
    [
        ({"context": 4096}, 4096),
        ({"context": 4096, "parallel": 4}, 1024),
        ({"context": 4096, "parallel": 4, "kv_unified": "on"}, 4096),
        ({}, 8192),
        ({"context": "auto", "parallel": 2}, 4096),
    ],
)
def test_the_context_of_a_request(
    make_deployment: Make, settings: dict[str, Any], context: int
) -> None:
    Model.objects.update(n_ctx_train=8192)
    make_deployment(settings=settings)
    (found,) = candidates()
    assert found.context == context


def test_devices_of_two_hosts_are_not_shared(two: list[Deployment]) -> None:
    assert shared_devices(candidates()) == {"RPC0": ["drafting", "plain"]}
    Deployment.objects.filter(name="drafting").update(
        host=Host.objects.create(name="elsewhere")
    )
    assert shared_devices(candidates()) == {}


# --- where the panel listens ----------------------------------------------------------------------
@pytest.mark.parametrize(
    ("server", "address"),
    [
        (("127.0.0.1", 8000), "http://127.0.0.1:8000"),
        (("192.168.1.5", 80), "http://192.168.1.5:80"),
        (("::1", 9000), "http://[::1]:9000"),
        (("::ffff:10.0.0.1", 8000), "http://[::ffff:10.0.0.1]:8000"),
    ],
)
def test_the_gateway_is_where_the_request_came_in(
    server: tuple[str, int], address: str
) -> None:
    asked = AsyncRequestFactory().post(NEW, headers={"Host": "panel.example"})
    request = ASGIRequest(asked.scope | {"server": server}, BytesIO())
    assert gateway_address(request) == address


# --- one ------------------------------------------------------------------------------------------
def changed(run: BenchmarkRun, **values: Any) -> str:
    BenchmarkRun.objects.filter(pk=run.pk).update(**values)
    return f"/benchmarks/{run.pk}/"


def test_the_page_of_a_run_says_what_was_asked_for(
    run: BenchmarkRun, viewer: Client
) -> None:
    text = text_of(viewer, f"/benchmarks/{run.pk}/")
    for words in (
        "Single-user chat",
        "drafting against plain",
        '<a href="/deployments/plain/">plain</a><span class="chip">baseline</span>',
        "<dd>1, 4</dd>",
        "<dd>20</dd>",
        "<dd>1.5 min</dd>",
        "<dd>one at a time</dd>",
        "by oscar",
    ):
        assert words in text, words
    Deployment.objects.get(name="plain").delete()
    assert "(deleted)" in text_of(viewer, f"/benchmarks/{run.pk}/")


STATES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "queued": ({}, ["Waiting for the agent", "Cancel"], ["Run again", "Delete"]),
    "running": (
        {"step": "asking plain", "rounds_done": 3, "rounds_planned": 10},
        [
            "asking plain",
            "3 of 10 rounds done",
            'value="3"',
            "left",
            "Figures show here",
        ],
        ["Run again", "Delete"],
    ),
    "cancelling": ({}, ["Being cancelled: "], ["Run again", "Delete", "Cancel<"]),
    "done": ({}, ["Run again", "Delete"], ["Cancel<", "progress"]),
    "failed": (
        {
            "error": "It broke.",
            "fix": "Mend it.",
            "rounds_done": 2,
            "rounds_planned": 9,
        },
        ["It failed after 2 of 9 rounds.", "It broke.", "Mend it.", "Delete"],
        ["Cancel<"],
    ),
    "cancelled": ({}, ["It was cancelled", "Nothing had been measured"], ["Cancel<"]),
}


@pytest.mark.parametrize("state", STATES)
def test_each_state_says_what_it_is_and_has_its_buttons(
    run: BenchmarkRun, operator: Client, state: str
) -> None:
    values, says, not_says = STATES[state]
    started = timezone.now() - timedelta(seconds=30)
    page = changed(run, state=state, started_at=started, **values)
    live = text_of(operator, page, **HTMX)
    text = live.replace("<strong>", "").replace("</strong>", "")
    for words in says:
        assert words in text, words
    for words in not_says:
        assert words not in text, words
    # What is over is not fetched again.
    assert ("hx-get=" in live) is (state in BenchmarkRun.UNFINISHED)


def test_the_report_shows_as_soon_as_there_is_one(
    run: BenchmarkRun, viewer: Client
) -> None:
    made = document("plain", "drafting")
    for state in ("running", "done", "cancelled", "failed"):
        text = text_of(viewer, changed(run, state=state, document=made))
        assert "31.2 %" in text
    cancelled = text_of(viewer, changed(run, state="cancelled"))
    assert "What was measured until then stands below." in cancelled


def test_a_page_without_an_agent_says_so_while_something_is_wanted(
    run: BenchmarkRun, viewer: Client
) -> None:
    assert "has not reported for a while" in text_of(viewer, f"/benchmarks/{run.pk}/")
    assert "has not reported" not in text_of(viewer, changed(run, state="done"))


def test_a_run_that_is_not_there(viewer: Client, run: BenchmarkRun) -> None:
    assert viewer.get("/benchmarks/99/").status_code == 404
    answer = viewer.get("/benchmarks/99/", headers=HTMX)
    assert (answer.status_code, answer["HX-Redirect"]) == (204, LIST)
    assert "Benchmark 99 is deleted." in text_of(viewer, LIST)


def test_cancel_and_delete(run: BenchmarkRun, operator: Client) -> None:
    page = f"/benchmarks/{run.pk}/"
    early = operator.post(f"{page}forget/", headers=HTMX)
    assert b"is not over" in early.content and early["HX-Retarget"] == "#toasts"
    changed(run, state="running")
    answer = operator.post(f"{page}cancel/", headers=HTMX)
    news = json.loads(answer["HX-Trigger"])["acted"]["news"]
    assert (answer.status_code, news) == (204, ["benchmarks-changed"])
    assert BenchmarkRun.objects.get().state == "cancelling"
    changed(run, state="queued")
    assert operator.post(f"{page}cancel/")["Location"] == page
    assert BenchmarkRun.objects.get().state == "cancelled"
    assert b"by now" in operator.post(f"{page}cancel/", headers=HTMX).content
    assert operator.post(f"{page}forget/")["Location"] == LIST
    assert not BenchmarkRun.objects.exists()


# --- list -----------------------------------------------------------------------------------------
def test_an_empty_list_explains_and_offers_the_form(
    viewer: Client, operator: Client, make_deployment: Make
) -> None:
    text = text_of(operator, LIST)
    assert "Nothing has been measured yet" in text and f'href="{NEW}"' not in text
    make_deployment()
    assert text_of(operator, LIST).count(f'href="{NEW}"') == 2
    assert f'href="{NEW}"' not in text_of(viewer, LIST)


ROWS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["Waiting", "Not yet"]),
    (
        {"state": "running", "step": "asking", "rounds_done": 2, "rounds_planned": 10},
        ["Running", "round 3 of 10", "asking"],
    ),
    ({"state": "running", "step": "preparing"}, ["preparing"]),
    ({"state": "done", "document": document("a", "b")}, ["b against a: faster"]),
    (
        {"state": "done", "document": document("a", "b", valid=False)},
        ["disturbed", "Nothing is concluded"],
    ),
    ({"state": "failed", "error": "It broke."}, ["Failed", "It broke."]),
    ({"state": "cancelled"}, ["Cancelled", "N/A"]),
    ({"prompts": [], "scenario": "chat"}, [">chat<"]),
    ({"scenario": "of-a-later-version"}, ["of-a-later-version"]),
    ({"requested_by": None}, ["from the command line"]),
]


@pytest.mark.parametrize(("values", "says"), ROWS)
def test_a_row_says_how_a_run_is(
    run: BenchmarkRun, viewer: Client, values: dict[str, Any], says: list[str]
) -> None:
    changed(run, **values)
    text = text_of(viewer, LIST, **HTMX)
    assert "drafting against plain" in text
    for words in says:
        assert words in text, words


def test_the_newest_is_first_and_a_long_list_has_pages(
    run: BenchmarkRun, viewer: Client
) -> None:
    shared = {"host": run.host, "names": ["a"], "most_rounds": 1, "gateway": "x"}
    for number in range(60):
        BenchmarkRun.objects.create(scenario=f"file{number}", **shared)
    first, second = text_of(viewer, LIST), text_of(viewer, f"{LIST}?page=2")
    found = re.findall(r"file(\d+)", first + second)
    assert found == [str(number) for number in reversed(range(60))]
    assert "Single-user chat" in second and 'href="/benchmarks/?page=2"' in first


def test_a_list_of_many_asks_no_more_than_one_of_few_and_reads_no_report(
    run: BenchmarkRun, viewer: Client
) -> None:
    def add(count: int) -> None:
        for _ in range(count):
            run.pk = None
            run.document, run.state = document("a", "b"), "done"
            run.save(force_insert=True)

    add(2)
    viewer.get(LIST)
    with CaptureQueriesContext(connection) as few:
        viewer.get(LIST)
    add(30)
    with CaptureQueriesContext(connection) as many:
        assert text_of(viewer, LIST).count("b against a: faster") == 32
    assert len(many) == len(few) <= 12
    (listing,) = [q["sql"] for q in many if "rounds_planned" in q["sql"]]
    assert not re.search(r', "deployments_benchmarkrun"."(document|prompts)",', listing)


def test_the_form_asks_no_more_for_many_deployments_than_for_few(
    make_deployment: Make, operator: Client
) -> None:
    make_deployment("a")
    operator.get(NEW)
    with CaptureQueriesContext(connection) as few:
        operator.get(NEW)
    for number in range(6):
        make_deployment(f"d{number}")
    with CaptureQueriesContext(connection) as many:
        assert text_of(operator, NEW).count('name="deployment"') == 7
    assert len(many) == len(few) <= 12


def test_two_reports_that_are_ticked_are_compared(
    run: BenchmarkRun, viewer: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        benchmarks, "_compared_address", lambda: "/benchmarks/compared/"
    )
    assert "Compare two reports" not in text_of(viewer, LIST)
    made = {"state": "done", "document": document("plain", "drafting")}
    changed(run, **made)
    first = run.pk
    run.pk = None
    run.save(force_insert=True)
    changed(run, **made)
    assert "Compare two reports" in text_of(viewer, LIST)
    answer = viewer.get(f"{LIST}?compare={run.pk}&compare={first}")
    assert answer["Location"] == f"/benchmarks/compared/?a={first}&b={run.pk}"
    # The part that fetches itself keeps what is ticked.
    ticked = text_of(viewer, f"{LIST}?compare={run.pk}&compare={first}", **HTMX)
    assert len(re.findall(r'name="compare"[^>]*checked', ticked)) == 2
    for query in (f"compare={first}", "compare=x&compare=y"):
        assert viewer.get(f"{LIST}?{query}").status_code == 200


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a"], "a"),
        (["a", "b"], "b against a"),
        (["a", "b", "c"], "b, c against a"),
        ([], "nothing"),
    ],
)
def test_who_is_compared_with_whom(names: list[str], said: str) -> None:
    assert who_against_whom(names) == said


# --- administration -------------------------------------------------------------------------------
def test_the_administration_shows_runs_and_deletes_those_that_are_over(
    run: BenchmarkRun, admin: Client
) -> None:
    changed(run, document=document("plain", "drafting"), prompts=[{"a": "secret"}])
    page = f"/admin/deployments/benchmarkrun/{run.pk}/"
    text = admin.get(f"{page}change/").content.decode()
    assert "http://127.0.0.1:1" in text
    assert "secret" not in text and "+31.2" not in text
    assert admin.get(f"{page}delete/").status_code == 403
    chosen = {"action": "delete_selected", "post": "yes", "_selected_action": [run.pk]}
    admin.post("/admin/deployments/benchmarkrun/", chosen)
    assert BenchmarkRun.objects.exists()
    changed(run, state="done")
    assert admin.post(f"{page}delete/", {"post": "yes"}).status_code == 302
    assert not BenchmarkRun.objects.exists()


def test_the_limit_of_prompts_leaves_room_for_text_and_file() -> None:
    from django.conf import settings

    assert 2 * benchmark_form.LARGEST_PROMPTS_BYTES < settings.LARGEST_BODY_BYTES
