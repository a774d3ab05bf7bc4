"""The agent's care for the library: fetches what is wanted, and notices what changes in the
folders."""

from __future__ import annotations

import logging
import threading
import time

from django.db import close_old_connections, connections
from django.db.models import Q

from deployments.announce import downloads_changed
from deployments.library.watch import LibraryWatch
from deployments.models import Download
from gpus.models import Host

log = logging.getLogger(__name__)

MAX_AT_A_TIME = 2
WATCH_EVERY_S = 10.0
WATCH_AGAIN_S = 4.0  # while something is on the move
# A folder that takes long to look through is looked at less often: at most this part of the time
# goes into it, and never so seldom that a person would think that nobody looks.
WATCH_REST = 20
WATCH_AT_LEAST_EVERY_S = 120.0


def pause_s(took_s: float, is_unsettled: bool) -> float:
    """How long to rest after a look that took so long."""
    wanted = WATCH_AGAIN_S if is_unsettled else WATCH_EVERY_S
    return min(max(wanted, took_s * WATCH_REST), WATCH_AT_LEAST_EVERY_S)


class LibraryKeeper:
    """Level-triggered: each tick compares the rows with what runs here, so that a restart simply
    goes on."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.watch = LibraryWatch()
        self.threads: dict[int, tuple[threading.Thread, str]] = {}
        self.next_watch = 0.0
        self.is_ending = threading.Event()

    def tick(self) -> None:
        self.tend_downloads()
        if time.monotonic() >= self.next_watch:
            began = time.monotonic()
            # Even when the check fails the next one is not at once.
            self.next_watch = began + WATCH_EVERY_S
            self.watch.check()
            took_s = time.monotonic() - began
            self.next_watch = began + took_s + pause_s(took_s, self.watch.is_unsettled)

    def rest_s(self) -> float:
        """How long it may wait for news before its next look at the folders."""
        return min(max(self.next_watch - time.monotonic(), 0.0), WATCH_EVERY_S)

    def tend_downloads(self) -> None:
        self.threads = {
            pk: entry for pk, entry in self.threads.items() if entry[0].is_alive()
        }
        is_unswept = Q(state=Download.State.CANCELLED, is_swept=False)
        is_wanted = Q(state__in=Download.WANTED)
        rows = Download.objects.filter(is_unswept | is_wanted, host=self.host)
        to_tend = list(rows.exclude(pk__in=self.threads).order_by("created_at", "pk"))
        for row in to_tend:
            if row.state == Download.State.CANCELLED:
                self._sweep(row)
        for row in to_tend:
            if row.state in Download.WANTED and self._has_room_for(row):
                self._start(row)

    @staticmethod
    def _sweep(row: Download) -> None:
        from deployments.library.fetching import remove_parts  # as below

        remove_parts(row)
        Download.objects.filter(pk=row.pk).update(is_swept=True, done_bytes=0)
        downloads_changed()

    def _has_room_for(self, row: Download) -> bool:
        # Two of one repository may want the same projector: they take turns.
        folders = {folder for _, folder in self.threads.values()}
        return len(self.threads) < MAX_AT_A_TIME and row.folder not in folders

    def _start(self, row: Download) -> None:
        # An agent that downloads nothing has no use for the hub's client and its 7 MB.
        from deployments.library.fetching import Fetching

        fetching = Fetching(row, self.is_ending.is_set)

        def run() -> None:
            try:
                fetching.run()
            finally:
                connections.close_all()

        thread = threading.Thread(target=run, name=f"download-{row.pk}", daemon=True)
        self.threads[row.pk] = (thread, row.folder)
        thread.start()

    def end(self, timeout_s: float = 2.0) -> None:
        """Downloads stop where they are; the rows stay as they are, so the next agent goes on."""
        self.is_ending.set()
        deadline = time.monotonic() + timeout_s
        for thread, _ in self.threads.values():
            thread.join(max(0.0, deadline - time.monotonic()))
        close_old_connections()
