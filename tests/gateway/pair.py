"""Two real engines of one model, between which prompts are handed over; the gateway's code runs in
the test."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from django.conf import settings

from deployments.gateway import relay
from deployments.gateway.kv_transfer_plan import KvTransferReport, last_timings
from deployments.gateway.kv_transfer_state import lines
from deployments.gateway.slots import SlotPool
from deployments.gateway.table import KvTransferFacts, Passage, Peer, Serving, Table
from tests.gateway.engine import RealEngine

CHAT = "/v1/chat/completions"
# Roomy enough for 1,000 tokens and their answer in each of four slots. An engine looks at what else
# it should do only between batches.
FLAGS = ("-c", "8192", "-np", "4", "-b", "128", "-ub", "128")


@dataclass
class Answer:
    status: int
    raw: bytes
    report: KvTransferReport | None
    timings: dict[str, Any] = field(default_factory=dict)
    text: str = ""


class Pair:
    def __init__(
        self,
        folder: Path,
        slots: Path,
        *,
        model: str = "",
        flags: Sequence[str] = FLAGS,
        key: Path | None = None,
    ) -> None:
        key = key or settings.OMNI_HOME.secret_path("engine")
        every = (
            *flags,
            "--slot-save-path",
            str(slots),
            "--no-cache-idle-slots",
            "--no-warmup",
            "--device",
            "none",
        )
        self.prefill, self.decode = (
            RealEngine(folder, key, flags=every, model=model, name=name)
            for name in ("prefill", "decode")
        )
        self.prefill.wait_ready()
        self.decode.wait_ready()
        self.slots, count = slots, int(flags[flags.index("-np") + 1])
        peers = {
            role: Peer(engine.address, str(engine.process.pid))
            for role, engine in (("prefill", self.prefill), ("decode", self.decode))
        }
        # What a token of the tiny models takes at most; a plan says it exactly.
        facts = KvTransferFacts(count, 64, str(slots), token_bytes=64 << 10)
        self.serving = Serving(
            "pair", "ready", peers["decode"].address, "smol-alias",
            passage=Passage.KV_TRANSFER, peers=peers, kv_transfer=facts,
        )  # fmt: skip

    def change(self, **facts: Any) -> None:
        assert self.serving.kv_transfer
        self.serving = replace(
            self.serving, kv_transfer=replace(self.serving.kv_transfer, **facts)
        )

    async def table(self) -> Table:
        return Table({"pair": self.serving})

    # --- asking -----------------------------------------------------------------------------------
    async def ask(self, body: dict[str, Any], path: str = CHAT) -> Answer:
        """Through the gateway's own code. Raises what the gateway would tell its client."""
        async with relay.open_answer(path, {"model": "pair", **body}) as upstream:
            if upstream.is_stream and upstream.status == 200:
                raw = b"".join([events async for events in upstream.events()])
            else:
                raw = await upstream.body()
        return _answer(upstream.status, raw, upstream.kv_transfer)

    def direct(
        self,
        body: dict[str, Any],
        path: str = CHAT,
        *,
        read_by: RealEngine | None = None,
        cold: bool = False,
    ) -> Answer:
        """From an engine alone that reads the prompt itself.

        Not cold, it is asked twice: rounding differs between a last token computed with its prompt
        and one computed alone, and what was handed over is always the latter.
        """
        found = read_by or self.decode
        body = {**body, "model": "smol-alias", "cache_prompt": not cold}
        url, headers = (
            f"http://127.0.0.1:{found.port}{path}",
            {"authorization": f"Bearer {found.key}"},
        )
        if not cold:
            httpx.post(
                url, json={**body, "max_tokens": 1}, headers=headers, timeout=120
            ).read()
        got = httpx.post(url, json=body, headers=headers, timeout=120)
        return _answer(got.status_code, got.content, None)

    def forget(self) -> None:
        """The decode instance loses what its slots hold, and the gateway is not told."""
        url, headers = (
            f"http://127.0.0.1:{self.decode.port}",
            {"authorization": f"Bearer {self.decode.key}"},
        )
        assert self.serving.kv_transfer
        for slot in range(self.serving.kv_transfer.slots):
            assert (
                httpx.post(
                    f"{url}/slots/{slot}?action=erase", headers=headers, timeout=60
                ).status_code
                == 200
            )

    async def idle(self, limit_s: float = 15) -> None:
        """Until no slot is taken on either side, here and there, and no file is left."""
        for _ in range(int(limit_s / 0.1)):
            free = (
                all(is_idle(pool) for _, pool in lines().pools.values())
                and not lines().at_work
            )
            if free and not list(self.slots.iterdir()):
                alive = [
                    e for e in (self.prefill, self.decode) if e.process.poll() is None
                ]
                if not any([await asyncio.to_thread(engine.busy) for engine in alive]):
                    return
            await asyncio.sleep(0.1)
        raise AssertionError(
            f"a slot is stuck or a file is left: {list(self.slots.iterdir())}, {lines()}"
        )

    def kill(self) -> None:
        for engine in (self.prefill, self.decode):
            engine.kill()


def is_idle(pool: SlotPool) -> bool:
    """Whether every slot is free and nobody waits for one."""
    return len(pool._free) == len(pool.slots) and not pool._waiting


def _answer(status: int, raw: bytes, report: KvTransferReport | None) -> Answer:
    return Answer(status, raw, report, last_timings(raw), _text(raw))


def _text(raw: bytes) -> str:
    if not raw.startswith(b"data:"):
        choices = json.loads(raw).get("choices") or [{}]
        return str(
            choices[0].get("message", {}).get("content") or choices[0].get("text") or ""
        )
    events = [
        line[5:].strip() for line in raw.splitlines() if line.startswith(b"data:")
    ]
    chunks = [json.loads(event) for event in events if event != b"[DONE]"]
    deltas = [c["choices"][0].get("delta", {}) for c in chunks if c.get("choices")]
    return "".join(delta.get("content") or "" for delta in deltas)


@contextmanager
def pair(folder: Path, **options: Any) -> Iterator[Pair]:
    with tempfile.TemporaryDirectory(prefix="omni-test-", dir=_memory()) as slots:
        made = Pair(folder, Path(slots), **options)
        try:
            yield made
        finally:
            made.kill()


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
