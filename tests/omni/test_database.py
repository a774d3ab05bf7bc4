"""The counter that tells an idle process whether the database changed."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import connection, connections

from gpus.models import Host
from omni.database import DatabaseChanges
from tests.helpers import HandClock

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        "connection.vendor != 'sqlite'", reason="only SQLite has such a counter"
    ),
]
AT_LEAST_EVERY_S = 30.0


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def changes(clock: HandClock) -> DatabaseChanges:
    """One that has looked at everything."""
    changes = DatabaseChanges(AT_LEAST_EVERY_S, clock)
    assert is_due(changes)
    return changes


def is_due(changes: DatabaseChanges) -> bool:
    with changes.look() as due:
        return due


def in_another_thread(work: Callable[[], object]) -> None:
    def run() -> None:
        work()
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def write() -> None:
    Host.objects.create(name="written")


def test_look_when_nobody_wrote_is_not_due(changes: DatabaseChanges) -> None:
    assert not is_due(changes)
    assert Host.objects.count() == 0
    assert not is_due(changes)


def test_look_after_a_write_of_this_connection_is_due_once(
    changes: DatabaseChanges,
) -> None:
    write()
    assert is_due(changes)
    assert not is_due(changes)


def test_look_after_a_write_of_another_connection_is_due_once(
    changes: DatabaseChanges,
) -> None:
    in_another_thread(write)
    assert is_due(changes)
    assert not is_due(changes)


def test_look_after_a_write_that_is_not_counted_is_not_due(
    changes: DatabaseChanges,
) -> None:
    with changes.not_counting():
        write()
    assert not is_due(changes)


def test_write_of_another_connection_while_not_counting_is_due(
    changes: DatabaseChanges,
) -> None:
    with changes.not_counting():
        in_another_thread(write)
        Host.objects.update(name="renamed")
    assert is_due(changes)


def test_look_on_a_new_connection_is_due(changes: DatabaseChanges) -> None:
    connection.close()
    assert is_due(changes)


def test_look_after_the_longest_time_is_due_without_a_write(
    changes: DatabaseChanges, clock: HandClock
) -> None:
    clock.now_s += AT_LEAST_EVERY_S
    assert is_due(changes)
    assert not is_due(changes)


def test_look_whose_work_failed_is_due_again(changes: DatabaseChanges) -> None:
    write()
    with pytest.raises(ValueError, match="no"), changes.look() as due:
        assert due
        raise ValueError("no")
    assert is_due(changes)
