"""What goes wrong behind the pages: logged, and kept on the host's row until the same work
succeeds."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from django.conf import settings
from django.db import DatabaseError, transaction

from gpus.models import Host

log = logging.getLogger(__name__)

# What this process has written last, so that a turn that goes as the one before costs nothing.
_recorded: dict[str, str] = {}


@contextmanager
def recording_problems(work: str) -> Iterator[None]:
    """One bad turn must not end a loop.

    `work` is one of gpus.doctor.WORK, whose words the Rig page uses.
    """
    text = ""
    try:
        yield
    except DatabaseError as error:
        # It could not be written down either; the next turn tells whether it lasts.
        log.warning("%s: the database did not take part: %s", work, error)
        return
    except Exception as error:
        log.exception("%s failed", work)
        text = f"{type(error).__name__}: {error}"[:300]
    if _recorded.get(work) != text:
        try:
            record_problem(work, text)
        except DatabaseError as error:
            log.warning(
                "%s: what went wrong could not be written down: %s", work, error
            )


def record_problem(work: str, text: str) -> None:
    """Writes what went wrong with this work on this host; an empty text says that it goes again."""
    with transaction.atomic():
        host = (
            Host.objects.select_for_update()
            .filter(name=settings.OMNI_HOST_NAME)
            .first()
        )
        if host is None:
            return
        others = {name: said for name, said in host.problems.items() if name != work}
        problems = others | ({work: text} if text else {})
        if problems != host.problems:
            Host.objects.filter(pk=host.pk).update(problems=problems)
    _recorded[work] = text
