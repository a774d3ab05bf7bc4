"""Requests that were on their way when an engine crashed: whoever does it twice is not let in
again.

What is counted are the parts of a request that have crashed engines before: grammars and schemas,
then tools. A request without them is only suspected when it was alone.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from omni.errors import OmniError

MOST_CRASHES = 2
REMEMBERED_S = 600.0
MOST_REMEMBERED = 1024
# Requests to one engine that break off within this time break off over the same crash.
SAME_CRASH_S = 2.0
GROUPS = (("grammar", "json_schema", "response_format", "text"), ("tools",))


@dataclass(frozen=True)
class Suspect:
    """Part of a request; the lower the rank, the likelier that it was the cause."""

    rank: int
    digest: str


@dataclass
class Suspects:
    on_their_way: dict[str, dict[int, Suspect]] = field(default_factory=dict)
    crashed_s: dict[str, float] = field(default_factory=dict)
    crashes: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)

    @asynccontextmanager
    async def watching(
        self,
        deployment: str,
        fields: Mapping[str, Any],
        is_dead: Callable[[], Awaitable[bool]],
    ) -> AsyncIterator[None]:
        """Raises OmniError (request_crashes_engine) for one that has done it twice.

        `is_dead` is asked when a connection broke off, which happens for other reasons, too.
        """
        suspect = suspect_of(fields)
        now_s = time.monotonic()
        if (
            len(
                [
                    at
                    for at in self.crashes.get(suspect.digest, ())
                    if now_s - at < REMEMBERED_S
                ]
            )
            >= MOST_CRASHES
        ):
            text = f"The engine crashed {MOST_CRASHES} times while it worked on this request."
            fix = (
                "Change its grammar, schema, tools or prompt; the Deployments page shows the"
                " engine's log."
            )
            raise OmniError("request_crashes_engine", text, fix)
        together = self.on_their_way.setdefault(deployment, {})
        together[id(suspect)] = suspect
        try:
            yield
        except OmniError as error:
            if error.code == "engine_died":
                suspects = list(together.values())
                if await is_dead():
                    self._crashed(deployment, suspects)
            raise
        finally:
            together.pop(id(suspect), None)
            if not together:
                self.on_their_way.pop(deployment, None)

    def _crashed(self, deployment: str, together: list[Suspect]) -> None:
        now_s = time.monotonic()
        if now_s - self.crashed_s.get(deployment, -SAME_CRASH_S) < SAME_CRASH_S:
            return
        self.crashed_s[deployment] = now_s
        rank = min(suspect.rank for suspect in together)
        likely = {suspect.digest for suspect in together if suspect.rank == rank}
        if rank == len(GROUPS) and len(together) > 1:
            return
        for digest in likely:
            self.crashes.setdefault(digest, []).append(now_s)
            self.crashes.move_to_end(digest)
        while len(self.crashes) > MOST_REMEMBERED:
            self.crashes.popitem(last=False)


def suspect_of(fields: Mapping[str, Any]) -> Suspect:
    for rank, names in enumerate(GROUPS):
        given = {name: fields[name] for name in names if name in fields}
        if given:
            return Suspect(rank, _digest(given))
    return Suspect(len(GROUPS), _digest(fields))


def _digest(fields: Mapping[str, Any]) -> str:
    return sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


suspects = Suspects()
