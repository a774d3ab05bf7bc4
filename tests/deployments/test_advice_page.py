"""The first page: what is best here, the rig drawn, every layout, and what is done from there."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import yaml
from django.test import Client

from deployments.advice.purposes import Purpose, Question
from deployments.advice.what_if import CardSpec, RigSpec
from deployments.models import BenchmarkRun, Deployment, Engine, Model, RigQuestion
from deployments.rig import asked
from deployments.rig.asked import (
    advice_on,
    question_save,
    stored_question,
    usual_question,
)
from deployments.services.layout_results import identity_of
from deployments.web.advice_board import NOW, AdviceBoard, advice_board
from deployments.web.advice_drawing import drawing
from gpus.models import Host
from tests.helpers import squeezed

HTMX = {"HX-Request": "true"}


@pytest.fixture(autouse=True)
def nothing_known() -> None:
    asked._kept.clear()


@pytest.fixture
def small(host: Host, engine: Engine, model: Model) -> Model:
    """The packaged model on a machine whose memory was measured."""
    Host.objects.update(ram_bandwidth_gbps=40, cpu_count=8)
    return model


def answered(client: Client, pick: str = "") -> str:
    answer = client.get(f"/answer/?pick={pick}", headers=HTMX)
    assert answer.status_code == 200, answer.content
    return squeezed(answer.content.decode())


# --- the question ---------------------------------------------------------------------------------
def test_who_has_not_asked_is_answered_for_a_chat_with_the_largest_model_that_fits(
    owners_host: Host, owned: Callable[[str], Model]
) -> None:
    fits, _ = owned("llama-3.3-70b-instruct-q4_k_m"), owned("qwen3-235b-a22b-q4_k_m")
    question = usual_question(owners_host)
    assert question == Question((Purpose("chat", (fits.name,)),))


def test_without_a_model_there_is_no_question(host: Host) -> None:
    assert usual_question(host) is None


def test_a_question_is_kept_as_a_purposes_file(host: Host, small: Model) -> None:
    wanted = Question((Purpose("coding", (small.name,), users=3, context=6144),))
    question_save(host=host, question=wanted)
    assert stored_question(host) == wanted
    assert "users: 3" in RigQuestion.objects.get().text


def test_a_question_that_this_version_cannot_read_is_none(host: Host) -> None:
    RigQuestion.objects.create(host=host, text="purposes: {of: another version}")
    assert stored_question(host) is None


def test_a_question_with_mistakes_comes_again_with_what_was_typed(
    operator: Client, host: Host, small: Model
) -> None:
    wrong = {
        "purpose-0-name": "Coding!",
        "purpose-0-model": "a",
        "purpose-0-users": "x",
    }
    page = squeezed(operator.post("/answer/ask/", wrong).content.decode())
    assert "cannot be a deployment" in page and "There is no model" in page
    assert "Coding!" in page and not RigQuestion.objects.exists()


def test_a_question_that_is_right_is_kept_and_answered(
    operator: Client, host: Host, small: Model
) -> None:
    right = {"purpose-0-name": "coding", "purpose-0-model": small.name, "rig": "here"}
    assert operator.post("/answer/ask/", right)["Location"] == "/"
    assert "Best for coding" in answered(operator)


def test_a_what_if_begins_with_the_memory_of_this_machine(
    operator: Client, host: Host, small: Model
) -> None:
    Host.objects.update(ram_bytes=(384 << 30) - 5000, cpu_count=24)
    page = squeezed(operator.get("/").content.decode())
    assert 'value="384 GiB"' in page and 'value="40"' in page and 'value="24"' in page


# --- kept for as long as it holds -----------------------------------------------------------------
def test_advice_is_worked_out_once_until_what_it_rests_on_changes(
    host: Host, small: Model
) -> None:
    question = usual_question(host)
    assert question
    first = advice_on(question, host)
    assert advice_on(question, host) is first

    host.devices.filter(name="RPC0").update(memory_bytes=8 << 30)
    assert advice_on(question, host) is not first


# --- the page -------------------------------------------------------------------------------------
def test_the_page_comes_at_once_and_fetches_what_takes_seconds(
    viewer: Client, host: Host, small: Model
) -> None:
    page = squeezed(viewer.get("/").content.decode())
    assert "Working out every layout" in page and 'hx-trigger="load,' in page
    part = answered(viewer)
    assert small.name in part and "Working out" not in part
    assert small.name in squeezed(viewer.get("/").content.decode())


def test_nothing_is_there_yet_and_the_page_says_what_is_missing(
    viewer: Client, host: Host
) -> None:
    page = squeezed(viewer.get("/").content.decode())
    assert "The library is empty" in page and "Add models" in page
    assert "No engine is known" in page


def test_before_the_first_look_for_devices_nothing_is_said_to_lack_room(
    viewer: Client, host: Host, small: Model
) -> None:
    host.devices.all().delete()
    part = answered(viewer)
    assert "No device is known here yet" in part and "has room" not in part


def test_the_page_does_not_need_the_broker(
    viewer: Client, host: Host, small: Model, settings: object
) -> None:
    settings.CHANNEL_REDIS_URL = "unix:///nowhere.sock"  # type: ignore[attr-defined]
    assert small.name in answered(viewer)


def test_every_layout_is_a_row_with_its_figures(
    viewer: Client, host: Host, small: Model
) -> None:
    part = answered(viewer)
    rows = re.findall(r'<tr id="layout-', part)
    board = advice_board(host)
    assert len(rows) == len(board.rows) > 4
    assert {row.planned.layout.strategy for row in board.rows} >= {
        "independent",
        "layer_split",
        "tensor_split",
    }
    for row in board.rows:
        assert row.plan.predicted.decode_tps and row.first_token_ms and row.users_tps


def test_a_picked_row_is_drawn_and_no_picked_row_draws_the_best(
    host: Host, small: Model
) -> None:
    board = advice_board(host)
    assert board.best and board.picked == board.best.key
    split = next(
        row for row in board.rows if row.planned.layout.strategy == "layer_split"
    )
    shown = advice_board(host, split.key)
    assert blocks(shown).keys() == {"RPC0", "RPC1", "CPU"}
    whole = {use.name: use.needed_bytes for use in split.plan.devices}
    assert blocks(shown)["RPC0"] == whole["RPC0"]


def blocks(board: AdviceBoard) -> dict[str, int]:
    return {
        device.name: sum(block.bytes for block in device.blocks if block.owner)
        for device in drawing(board)
        if device.blocks
    }


def test_what_runs_now_is_drawn_when_it_is_asked_for(
    host: Host, small: Model, deployment: Deployment
) -> None:
    board = advice_board(host, NOW)
    assert blocks(board) == {} and board.running == ()


@pytest.mark.parametrize("key", ["nonsense", "x" * 3000, "<script>"])
def test_a_key_of_nothing_draws_nothing_and_deploys_nothing(
    operator: Client, host: Host, small: Model, key: str
) -> None:
    assert "<script>" not in answered(operator, key)
    refused = operator.post("/answer/deploy/", {"key": key}, headers=HTMX)
    assert "another one by now" in refused.content.decode()
    assert not Deployment.objects.exists()


# --- acting ---------------------------------------------------------------------------------------
def test_the_best_is_deployed_by_one_press(
    operator: Client, host: Host, small: Model
) -> None:
    board = advice_board(host)
    assert board.best
    answer = operator.post("/answer/deploy/", {"key": board.best.key})
    assert answer.status_code == 302 and answer["Location"] == "/deployments/chat/"
    made = Deployment.objects.get()
    assert (made.name, made.desired) == ("chat", "running")
    assert made.purposes == ["chat"]
    again = advice_board(host).best
    assert again and again.standing.is_deployed and not again.standing.changes


def test_what_is_on_its_way_up_is_shown_as_such_and_not_to_be_started_again(
    operator: Client, host: Host, small: Model
) -> None:
    best = advice_board(host).best
    assert best
    operator.post("/answer/deploy/", {"key": best.key})
    coming = answered(operator).split("best-sentence")[1].split("drawing-title")[0]
    assert 'data-state="starting"' in coming and "Start<" not in coming

    Deployment.objects.update(desired="stopped")
    stopped = answered(operator).split("best-sentence")[1].split("drawing-title")[0]
    assert "Start<" in stopped


def test_another_layout_of_the_same_name_says_what_it_would_change(
    operator: Client, host: Host, small: Model
) -> None:
    best, other = advice_board(host).answers[:2]
    operator.post("/answer/deploy/", {"key": best.key})
    shown = advice_board(host).answer_of(other.key)
    assert shown.standing.changes == ("chat",) and not shown.standing.is_deployed
    part = answered(operator, other.key)
    assert "This makes chat again with other settings" in part


def test_a_viewer_is_offered_nothing_to_do(
    viewer: Client, host: Host, small: Model
) -> None:
    part = answered(viewer)
    assert "Deploy" not in part and "Measure" not in part
    assert viewer.post("/answer/deploy/", {"key": "x"}).status_code == 403
    assert viewer.post("/answer/ask/", {}).status_code == 403


def test_an_answer_is_exported_as_a_rig_file(
    viewer: Client, host: Host, small: Model
) -> None:
    best = advice_board(host).best
    assert best
    answer = viewer.get(f"/answer/rig.yaml?key={best.key}")
    [entry] = yaml.safe_load(answer.content)["deployments"]
    assert entry["name"] == "chat" and entry["models"] == {"model": small.name}


# --- what if --------------------------------------------------------------------------------------
def test_what_is_not_here_is_marked_and_cannot_be_deployed(
    operator: Client, host: Host, small: Model
) -> None:
    cards = (CardSpec("RTX 5090"), CardSpec("RTX 5090", "gen4 x16"))
    rig = RigSpec(cards, 64 << 30, 90.0)
    question_save(host=host, question=Question((Purpose("chat", (small.name,)),), rig))
    part = answered(operator)
    assert "what if" in part and "Deploy" not in part
    assert "CUDA1" in part and "RTX 5090" in part
    best = advice_board(host).best
    assert best
    refused = operator.post("/answer/deploy/", {"key": best.key}, headers=HTMX)
    assert "for a rig that is not here" in refused.content.decode()
    assert not Deployment.objects.exists()


def test_an_unknown_card_is_said_where_the_answer_would_be(
    viewer: Client, host: Host, small: Model
) -> None:
    rig = RigSpec((CardSpec("RTX 9999"),), None, None)
    question_save(host=host, question=Question((Purpose("chat", (small.name,)),), rig))
    assert "RTX 9999" in answered(viewer)


def test_several_purposes_are_answered_together(
    viewer: Client, owners_host: Host, owned: Callable[[str], Model]
) -> None:
    coder = owned("qwen2.5-coder-32b-instruct-q4_k_m")
    big = owned("llama-3.3-70b-instruct-q4_k_m")
    purposes = (
        Purpose("coding", (coder.name,), users=2),
        Purpose("reasoning", (big.name,)),
    )
    question_save(host=owners_host, question=Question(purposes))
    board = advice_board(owners_host)
    assert board.best and board.best.standing.names == ("coding", "reasoning")
    drawn = {device.name: device for device in drawing(board)}
    owners = {block.owner for block in drawn["CUDA1"].blocks if block.owner}
    assert owners == {"coding"}
    # To scale: the small card is a third of the large one; main memory is cut and says so.
    assert drawn["CUDA1"].width == pytest.approx(33.3, abs=0.2)
    assert drawn["CUDA0"].width == 100 and drawn["CPU"].is_shortened
    part = answered(viewer)
    assert "Ways to serve all of it" in part and "Layouts for coding alone" in part


# --- measuring ------------------------------------------------------------------------------------
def test_a_row_that_nobody_deployed_is_measured_by_a_deployment_for_the_time_of_it(
    operator: Client, host: Host, small: Model
) -> None:
    row = advice_board(host).rows[0]
    answer = operator.post("/answer/measure/", {"only": row.key})
    run = BenchmarkRun.objects.get()
    assert answer.status_code == 302, answer.content
    assert answer["Location"] == f"/benchmarks/{run.pk}/"
    trial = Deployment.objects.get()
    assert trial.trial_of == run.pk and run.names == [trial.name]
    assert identity_of(trial).key == identity_of(row.planned).key


def test_each_ticked_row_is_a_run_of_its_own_and_all_are_asked_for_or_none(
    operator: Client, host: Host, small: Model
) -> None:
    first, second = (row.key for row in advice_board(host).rows[:2])
    operator.post("/answer/measure/", {"row": [first, second]})
    assert [len(run.names) for run in BenchmarkRun.objects.all()] == [1, 1]

    BenchmarkRun.objects.all().delete()
    Engine.objects.update(state=Engine.State.MISSING)
    operator.post("/answer/measure/", {"row": [first, second]}, headers=HTMX)
    assert not BenchmarkRun.objects.exists()


def test_nothing_ticked_is_said(operator: Client, host: Host, small: Model) -> None:
    answer = operator.post("/answer/measure/", {}, headers=HTMX)
    assert "No layout is ticked" in answer.content.decode()
