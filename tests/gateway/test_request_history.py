"""What is kept of requests that are over: rows, and for how long."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone

from deployments.gateway.activity import (
    ClientGone,
    OpenRequest,
    followed,
    keep_bodies_until,
    open_requests,
)
from deployments.gateway.caller import Caller, Surface
from deployments.gateway.keys import Key
from deployments.gateway.usage import Usage
from deployments.models import ApiKey, GatewayRequest, KeptBody
from deployments.services.request_figures import Sums, quantile_of_counts
from deployments.services.request_history import RequestWriter, surface_of
from deployments.services.request_retention import MOST_AT_ONCE, prune_requests
from deployments.web.activity_plots import bar_plot, step_for
from omni.errors import OmniError
from tests.deployments.test_activity_pages import add

PATH = "/v1/chat/completions"
EVENT = b'data: {"choices":[{"delta":{"content":"word "}}]}\n\n'
PROGRESS = (
    b'data: {"choices":[{"delta":{"role":"assistant","content":null}}],'
    b'"prompt_progress":{"total":800,"cache":0,"processed":200,"time_ms":9}}\n\n'
)


def over(key: str = "", name: str = "", owner: str = "", **fields: Any) -> OpenRequest:
    """A request that has ended."""
    caller = Caller(key=Key(f"{key}.secret", key, name, owner) if key else None)
    request = OpenRequest(fields.pop("caller", caller), PATH)
    request.body_read({"model": "smol", "stream": True}, b"{}")
    request.status, request.ended_s = 200, time.monotonic()
    for name, value in fields.items():
        setattr(request, name, value)
    return request


# --- while it runs --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("came", "events", "progress", "has_begun"),
    [
        ([], 0, None, False),
        ([PROGRESS], 1, (200, 800), False),
        ([PROGRESS, EVENT], 2, (200, 800), True),
        ([EVENT, EVENT + EVENT], 3, None, True),
        ([b'data: {"prompt_progress":{"total":"x"}}\n\n'], 1, None, False),
    ],
)
def test_events_tell_how_far_an_answer_is(
    came: list[bytes], events: int, progress: Any, has_begun: bool
) -> None:
    request = OpenRequest(Caller(), PATH)
    for one in came:
        request.received(one)
    assert request.events == events
    assert request.prompt_progress == progress
    assert (request.first_token_ms is not None) == has_begun


@pytest.mark.parametrize(
    ("error", "surface", "status", "code"),
    [
        (None, Surface.GATEWAY, 200, ""),
        (ClientGone(), Surface.GATEWAY, 499, "client_left"),
        (OmniError("engine_died", "It died."), Surface.GATEWAY, 502, "engine_died"),
        (ValueError(), Surface.GATEWAY, 500, "internal"),
        # The server ends; in the chat somebody pressed Stop.
        (asyncio.CancelledError(), Surface.GATEWAY, 503, "gateway_stopping"),
        (asyncio.CancelledError(), Surface.CHAT, 499, "client_left"),
    ],
)
async def test_how_a_request_ended_is_known(
    error: BaseException | None, surface: Surface, status: int, code: str
) -> None:
    try:
        with followed(Caller(surface), PATH) as request:
            request.answered(200)
            assert request in open_requests()
            if error:
                raise error
    except BaseException as raised:
        assert raised is error
    assert (request.status, request.error_code) == (status, code)
    assert request not in open_requests()


def test_a_body_is_kept_only_while_it_is_wanted_and_up_to_a_limit() -> None:
    keep_bodies_until(time.time() + 60)
    try:
        request = OpenRequest(Caller(), PATH)
        request.body_read({}, b"x" * 100_000)
        for _ in range(3):
            request.received(b"y" * 50_000)
    finally:
        keep_bodies_until(0)
    assert len(request.kept_request) == len(request.kept_answer) == 64 << 10
    after = OpenRequest(Caller(), PATH)
    after.body_read({}, b"x")
    after.received(b"y")
    assert not after.keeps_bodies and not after.kept_request and not after.kept_answer


# --- rows -----------------------------------------------------------------------------------------
def test_a_row_has_the_key_its_owner_and_what_the_engine_counted(
    viewer_user: User,
) -> None:
    key, _ = ApiKey.objects.create_key(name="laptop", owner=viewer_user)
    writer = RequestWriter()
    writer.keep(over(key.prefix, "laptop", "vera", usage=Usage(30, 20, 10)))
    writer.keep(over(caller=Caller(Surface.CHAT, user="vera")))
    writer.keep(over("unknown"))
    assert writer.step()
    by_key, by_chat, by_unknown = GatewayRequest.objects.order_by("pk")
    assert (by_key.key, by_key.key_name, by_key.user) == (key, "laptop", viewer_user)
    assert (by_key.prompt_tokens, by_key.completion_tokens) == (30, 20)
    assert by_key.cached_tokens == 10 and by_key.user_name == "vera"
    assert by_chat.user == viewer_user and by_chat.surface == "chat"
    assert by_unknown.key is None and by_unknown.key_name == "unknown"


def test_a_benchmark_is_counted_as_one_also_when_its_key_is_gone(db: None) -> None:
    key, _ = ApiKey.objects.create_key(name="benchmark 7")
    writer = RequestWriter()
    writer.keep(over(key.prefix, key.name))
    assert writer.step()
    key.delete()
    writer.keep(over(key.prefix, key.name))
    assert writer.step()
    for row in GatewayRequest.objects.all():
        assert (row.key, row.key_name) == (None, "benchmark 7")
        assert row.surface == "benchmark"
    assert surface_of("gateway", "benchmark of mine") == "gateway"


def test_what_finds_no_room_is_counted() -> None:
    writer = RequestWriter(most_waiting=2)
    for _ in range(5):
        writer.keep(over())
    assert writer.not_kept == 3


def test_text_that_no_database_keeps_is_mended(db: None) -> None:
    keep_bodies_until(time.time() + 60)
    request = OpenRequest(Caller(), PATH)
    request.body_read({"model": "a\0b\ud800"}, b"\xff\0")
    keep_bodies_until(0)
    request.ended_s = time.monotonic()
    writer = RequestWriter()
    writer.keep(request)
    assert writer.step()
    assert "\0" not in GatewayRequest.objects.get().asked_name
    assert "\0" not in KeptBody.objects.get().asked


# --- for how long ---------------------------------------------------------------------------------
def test_old_requests_and_too_many_are_deleted_a_few_at_a_time(
    db: None, settings: Any
) -> None:
    settings.OMNI_REQUESTS_KEPT_DAYS = 3
    add(MOST_AT_ONCE + 5, at=timezone.now() - timedelta(days=4))
    recent = add(20)
    assert prune_requests()
    assert GatewayRequest.objects.count() == 25
    assert not prune_requests()
    assert GatewayRequest.objects.count() == 20

    settings.OMNI_REQUESTS_KEPT = 6
    prune_requests()
    kept = GatewayRequest.objects.order_by("pk")
    assert [row.pk for row in kept] == [row.pk for row in recent[-6:]]


def test_bodies_go_when_nobody_wants_them_any_more(db: None) -> None:
    [row] = add(1)
    KeptBody.objects.create(request=row, asked="{}", answered="")
    prune_requests()
    assert not KeptBody.objects.exists() and GatewayRequest.objects.exists()


# --- figures --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("counts", "share", "value"),
    [
        ([], 0.5, None),
        ([(7, 1)], 0.95, 7),
        ([(1, 1), (2, 1), (3, 1)], 0.5, 2),
        ([(1, 95), (900, 5)], 0.95, 1),
        ([(1, 94), (900, 6)], 0.95, 900),
        ([(0, 3)], 0.5, 0),
    ],
)
def test_a_quantile_is_a_value_that_occurred(
    counts: list[tuple[int, int]], share: float, value: int | None
) -> None:
    assert quantile_of_counts(counts, share) == value


@pytest.mark.parametrize(
    ("hours", "least_h", "step_h"),
    [(1, 1, 1), (96, 1, 1), (97, 1, 2), (720, 1, 12), (720, 24, 24), (10**6, 1, 672)],
)
def test_bars_are_as_many_as_there_is_room_for(
    hours: int, least_h: int, step_h: int
) -> None:
    assert step_for(hours, least_h) == step_h


def test_bars_stand_where_their_hours_are() -> None:
    sums = {100: Sums(3, 1), 102: Sums(4, 0), 99: Sums(50)}
    plot = bar_plot(sums, 100, 103, lambda s: s.requests - s.failed, lambda s: s.failed)
    assert [(bar.x, bar.lower, bar.upper) for bar in plot.bars] == [
        (2.5, 2, 1),
        (52.5, 4, 0),
    ]
    assert plot.most == 4 and plot.bars[1].lower_height == 100
    assert plot.bars[0].upper_y == 25 and plot.bars[0].lower_y == 50
    assert plot.step_text == "hour"
