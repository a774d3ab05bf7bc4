"""How an answer ended and why, and what the gateway said about it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from chat.models import Message
from deployments.gateway.relay import Upstream
from deployments.gateway.shapes import engine_message
from deployments.gateway.timings import parse_kv_transfer
from omni.errors import OmniError

log = logging.getLogger(__name__)

INTERRUPTED_TEXT = "The panel was restarted while this was written."
State = Message.State


def outcome_of(reading: asyncio.Future[None], if_stopped: str) -> tuple[str, str]:
    """The state that an answer ends in, and why."""
    if reading.cancelled():
        return if_stopped, INTERRUPTED_TEXT if if_stopped == State.INTERRUPTED else ""
    error = reading.exception()
    if error is None:
        return State.DONE, ""
    if isinstance(error, OmniError):
        return State.FAILED, str(error)
    log.error("an answer failed", exc_info=error)
    return State.FAILED, "The panel made a mistake; its log says which."


def kv_transfer_facts(upstream: Upstream) -> dict[str, Any]:
    """What became of handing over the KV cache; empty for a deployment that does not.

    Where another panel answers, its header tells.
    """
    if upstream.kv_transfer:
        return upstream.kv_transfer.facts
    return parse_kv_transfer(upstream.answer.headers.get("x-omni-handover", ""))


async def refused(upstream: Upstream) -> OmniError:
    text = (
        engine_message(await upstream.body())
        or f"The engine answered with status {upstream.status}."
    )
    return OmniError("engine_refused", text)
