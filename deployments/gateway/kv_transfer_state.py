"""What this process knows of the instances between which it hands prompts over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from deployments.gateway.slots import SlotPool
from deployments.gateway.table import KvTransferFacts, Peer, Serving

PREFILL = "prefill"
DECODE = "decode"


@dataclass
class Lines:
    """What one event loop knows of the instances it sends prompts through."""

    pools: dict[tuple[str, str], tuple[Peer, SlotPool]] = field(default_factory=dict)
    # Hand-overs in a row that were of no use, by the processes between which they went.
    unused: dict[str, tuple[tuple[Peer, Peer], int]] = field(default_factory=dict)
    token_bytes: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    reserved_bytes: int = 0
    at_work: set[asyncio.Future[Any]] = field(default_factory=set)

    def pool(self, serving: Serving, role: str) -> SlotPool:
        """A process that was started again has empty slots."""
        peer = serving.peers[role]
        facts = facts_of(serving)
        known = self.pools.get((serving.name, role))
        if known is None or known[0] != peer:
            known = (peer, SlotPool(facts.slots, recurrent=facts.is_recurrent))
            self.pools[serving.name, role] = known
        return known[1]

    def goes_on(self, work: Coroutine[Any, Any, None]) -> None:
        """It ends by itself: whoever asked for it may be gone."""
        task = asyncio.ensure_future(work)
        self.at_work.add(task)
        task.add_done_callback(self.at_work.discard)


_lines: WeakKeyDictionary[asyncio.AbstractEventLoop, Lines] = WeakKeyDictionary()
# (deployment, outcome) → requests, of this process.
counts: Counter[tuple[str, str]] = Counter()


def lines() -> Lines:
    return _lines.setdefault(asyncio.get_running_loop(), Lines())


def facts_of(serving: Serving) -> KvTransferFacts:
    assert serving.kv_transfer is not None
    return serving.kv_transfer
