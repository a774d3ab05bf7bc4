"""What is written of an answer while it is made: its text, its figures, how it ended."""

from __future__ import annotations

import logging
from typing import Any

from django.db import DatabaseError
from django.utils import timezone

from chat.models import Message
from chat.outcomes import INTERRUPTED_TEXT
from deployments.services.measurements import record
from omni.json_text import storable

log = logging.getLogger(__name__)

State = Message.State


def save(answer_id: int, **fields: Any) -> None:
    """A second's save that comes late must not undo the final one."""
    # Whatever an engine said, of the answer or of why there is none, can be kept.
    kept = {
        name: storable(value) if isinstance(value, str) else value
        for name, value in fields.items()
    }
    Message.objects.filter(pk=answer_id, state=State.STREAMING).update(**kept)


def measure(answer_id: int, timings: dict[str, Any], *, alone: bool) -> None:
    """Planning learns from what a deployment really took."""
    name = (
        Message.objects.filter(pk=answer_id)
        .values_list("deployment_name", flat=True)
        .first()
    )
    if name:
        record(name, timings, alone=alone)


def heal_interrupted() -> int:
    """Answers that no process is writing any more become 'interrupted'; returns how many."""
    try:
        found = Message.objects.filter(state=State.STREAMING)
        return found.update(
            state=State.INTERRUPTED, error=INTERRUPTED_TEXT, finished_at=timezone.now()
        )
    except DatabaseError as error:
        log.warning("interrupted answers were not looked for: %s", error)
        return 0
