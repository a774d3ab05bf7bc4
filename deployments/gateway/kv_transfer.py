"""One instance reads the prompt, another answers: the KV cache goes over as a file in memory.

The prompt's tokens are known before anything is computed: what the answering instance has already
is not read again, and short prompts stay with it. Whatever goes wrong on the way, the answering
instance reads the prompt itself: an answer is late then, never wrong.
"""

from __future__ import annotations

import asyncio
import logging
import time
from array import array
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from deployments.gateway import kv_transfer_plan as rules
from deployments.gateway.kv_transfer_calls import (
    FILE_GONE_S,
    act_on_slot,
    prompt_tokens,
    read_prompt,
)
from deployments.gateway.kv_transfer_plan import (
    Held,
    Kind,
    KvTransferFailed,
    KvTransferReport,
    Outcome,
    tokens_of,
)
from deployments.gateway.kv_transfer_state import (
    DECODE,
    PREFILL,
    counts,
    facts_of,
    lines,
)
from deployments.gateway.passing import Passing
from deployments.gateway.slots import Slot, SlotPool
from deployments.gateway.table import Peer, Serving
from deployments.instances import slots_folder

log = logging.getLogger(__name__)


@asynccontextmanager
async def transferred(
    path: str, serving: Serving, fields: Mapping[str, Any]
) -> AsyncIterator[Passing]:
    """Takes slots for the request and brings its prompt there, if that pays.

    Raises nothing of its own.
    """
    if (
        path in rules.SLOTLESS
        or serving.kv_transfer is None
        or DECODE not in serving.peers
    ):
        yield Passing(fields)
        return
    async with AsyncExitStack() as held:
        way = _Transfer(path, serving, fields, held)
        await way.prepare()
        try:
            yield way
        finally:
            way.settle()


class _Transfer(Passing):
    """One request's way. `slot` is the one that answers, once it is chosen and there is only
    one."""

    def __init__(
        self,
        path: str,
        serving: Serving,
        fields: Mapping[str, Any],
        held: AsyncExitStack,
    ) -> None:
        self.sort = rules.sort_of(path, fields)
        self.report: KvTransferReport = KvTransferReport(why=self.sort.why)
        super().__init__(fields, self.report)
        self.path, self.serving, self.facts, self.held, self.lines = (
            path,
            serving,
            facts_of(serving),
            held,
            lines(),
        )
        self.decode = self.lines.pool(serving, DECODE)
        self.prompt: array[int] | None = None
        self.slot: Slot | None = None
        self._status = 0
        self._tail = b""

    async def prepare(self) -> None:
        if self.sort.kind == Kind.PLAIN and await self._is_worth_it():
            try:
                await self._transfer()
                self.report.outcome = Outcome.DONE
            except KvTransferFailed as error:
                self.report.outcome = error.outcome
                self.report.why = error.text
            self._tell()
        counts[self.serving.name, self.report.outcome] += 1
        if self.slot is None:
            slots = await self._wait(self.held, self.decode, self.sort.slots)
            if self.sort.kind == Kind.SEVERAL:
                # The engine chooses which of its free slots it gives them.
                for slot in self.decode.slots:
                    slot.held = rules.NOTHING
                return
            self.slot = slots[0]
        self.fields = {**self.fields, "id_slot": self.slot.id}
        if self.sort.kind == Kind.PLAIN:
            self.fields["cache_prompt"] = True

    def _tell(self) -> None:
        """A failure goes to the log once, however many requests it meets."""
        why = self.report.why if self.report.outcome == Outcome.FAILED else ""
        if why and why != self.lines.failures.get(self.serving.name):
            log.warning("%s: a prompt was not handed over: %s", self.serving.name, why)
        self.lines.failures[self.serving.name] = why

    async def _wait(
        self, held: AsyncExitStack, pool: SlotPool, count: int = 1
    ) -> list[Slot]:
        began = time.monotonic()
        slots = await held.enter_async_context(pool.taken(self.prompt, count))
        self.report.wait_ms += _ms_since(began)
        return slots

    async def _is_worth_it(self) -> bool:
        least = self.facts.least_tokens
        if rules.is_surely_short(self.fields, least):
            self.report.why = "short prompt"
            return False
        ids = await prompt_tokens(self.serving.peers[DECODE], self.path, self.fields)
        if not ids:
            # The engine itself will say what is wrong with it.
            self.report.why = "the prompt could not be read"
            return False
        self.prompt = tokens_of(ids)
        self.report.prompt_tokens = len(ids)
        self.report.reused_tokens = self.decode.reuse(self.prompt)
        new = len(ids) - self.report.reused_tokens
        if new < least:
            self.report.why = f"{new} new tokens of {len(ids)}, fewer than {least}"
        return new >= least

    # --- over -------------------------------------------------------------------------------------
    async def _transfer(self) -> None:
        """Leaves the prompt in a slot of the answering instance. Raises KvTransferFailed.

        The file is written when that slot is free and not before: nobody's conversation waits in
        memory.
        """
        assert self.prompt is not None
        if (reader := self.serving.peers.get(PREFILL)) is None:
            raise KvTransferFailed("the prefill instance is not ready")
        self._trust(reader)
        tokens = rules.prefilled(self.prompt, recurrent=self.facts.is_recurrent)
        expected_bytes = self._expected_bytes(len(tokens))
        self._check_room(expected_bytes)
        pool = self.lines.pool(self.serving, PREFILL)
        async with AsyncExitStack() as reading, AsyncExitStack() as turn:
            (from_slot,) = await self._wait(reading, pool)
            began = time.monotonic()
            await turn.enter_async_context(pool.turn)
            self.report.wait_ms += _ms_since(began)
            began = time.monotonic()
            # Also when nobody waits for it any more: who asks again finds there what has been read.
            from_slot.held = Held(tokens)
            self.report.read_tokens = await read_prompt(reader, from_slot.id, tokens)
            self.report.prefill_ms = _ms_since(began)
            if not self.decode.has_free:
                await turn.aclose()
            (self.slot,) = await self._wait(self.held, self.decode)
            # A restore that fails leaves an empty slot.
            self.slot.held = rules.NOTHING
            self._check_room(expected_bytes)
            reading.push_async_exit(turn.pop_all())
            over = asyncio.ensure_future(
                self._carry(
                    reader, from_slot, self.slot, expected_bytes, reading.pop_all()
                )
            )
            try:
                await asyncio.shield(over)
            except asyncio.CancelledError:
                # The engines cannot be told to stop here: the slots stay taken until they have
                # finished.
                self.lines.goes_on(_behind(over, self.held.pop_all()))
                raise
            self.slot.held = Held(tokens)

    def _trust(self, reader: Peer) -> None:
        """The engine restores other weights' caches of the same shape without a word, and answers
        nonsense."""
        if reader.file != self.serving.peers[DECODE].file:
            raise KvTransferFailed(
                "the model's file was replaced between the starts of the instances",
                Outcome.SKIPPED,
            )
        pair, unused = self.lines.unused.get(self.serving.name, (None, 0))
        if pair == (reader, self.serving.peers[DECODE]) and unused >= rules.MOST_UNUSED:
            raise KvTransferFailed(
                "the decode instance makes no use of what is handed over",
                Outcome.SKIPPED,
            )

    def _expected_bytes(self, tokens: int) -> int:
        each = (
            self.lines.token_bytes.get(self.serving.name)
            or self.facts.token_bytes
            or rules.UNKNOWN_TOKEN_BYTES
        )
        return int(tokens * each) + self.facts.fixed_bytes

    def _check_room(self, expected_bytes: int) -> None:
        try:
            room = slots_folder.room(Path(self.facts.folder))
        except OSError as error:
            raise KvTransferFailed(
                f"the folder between the instances: {error.strerror}"
            ) from None
        taken_bytes = max(room.taken_bytes, self.lines.reserved_bytes)
        problem = rules.room_problem(
            expected_bytes, room.free_bytes, taken_bytes, room.limit_bytes
        )
        if problem:
            raise KvTransferFailed(problem, Outcome.SKIPPED)

    async def _carry(
        self,
        reader: Peer,
        from_slot: Slot,
        to_slot: Slot,
        expected_bytes: int,
        reading: AsyncExitStack,
    ) -> None:
        """Saves, gives the reading slot back, restores, deletes. Raises KvTransferFailed."""
        path = Path(self.facts.folder) / slots_folder.new_name()
        self.lines.reserved_bytes += expected_bytes
        report = self.report
        count = len(from_slot.held.tokens)
        try:
            async with reading:
                began = time.monotonic()
                saved = await act_on_slot(
                    reader, from_slot.id, "save", path.name, expected_bytes
                )
                report.save_ms = _ms_since(began)
            if saved.get("n_saved") != count:
                raise KvTransferFailed(
                    f"{saved.get('n_saved')} tokens were saved instead of {count}"
                )
            report.size_bytes = int(saved.get("n_written") or 0)
            self.lines.token_bytes[self.serving.name] = (
                max(report.size_bytes - self.facts.fixed_bytes, 0) / count
            )
            began = time.monotonic()
            restored = await act_on_slot(
                self.serving.peers[DECODE],
                to_slot.id,
                "restore",
                path.name,
                report.size_bytes,
            )
            report.restore_ms = _ms_since(began)
            if restored.get("n_restored") != count:
                raise KvTransferFailed(
                    f"{restored.get('n_restored')} tokens were restored instead of {count}"
                )
        except KvTransferFailed as error:
            if error.is_late:
                # The engine may still write it.
                self.lines.goes_on(_delete_later(path))
            raise
        finally:
            self.lines.goes_on(self._delete(path, expected_bytes))

    async def _delete(self, path: Path, reserved_bytes: int) -> None:
        """In a thread: giving gigabytes back takes the kernel a while."""
        try:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        finally:
            self.lines.reserved_bytes -= reserved_bytes

    # --- the answer -------------------------------------------------------------------------------
    def status_received(self, status: int) -> None:
        self._status = status

    def data_received(self, data: bytes) -> None:
        self._tail = (self._tail + data[-rules.TAIL_BYTES :])[-rules.TAIL_BYTES :]

    def settle(self) -> None:
        """The answer has ended, one way or another: what its slot holds now, and whether the
        hand-over was of use."""
        if self.slot is None:
            return
        timings = rules.last_timings(self._tail)
        is_done = self.report.outcome == Outcome.DONE
        if self.prompt is None or self._status != 200:
            self.slot.held = rules.NOTHING
        elif timings:
            self.slot.held = rules.held_after(self.prompt, timings)
        elif not is_done:
            self.slot.held = rules.NOTHING
        if is_done:
            self._judge(timings)

    def _judge(self, timings: Mapping[str, Any]) -> None:
        assert self.prompt is not None
        count = len(rules.prefilled(self.prompt, recurrent=self.facts.is_recurrent))
        self.report.is_used = used = rules.is_used(timings, count)
        if used is None or PREFILL not in self.serving.peers:
            return
        name = self.serving.name
        pair = (self.serving.peers[PREFILL], self.serving.peers[DECODE])
        known, unused = self.lines.unused.get(name, (pair, 0))
        self.lines.unused[name] = (
            pair,
            0 if used else (unused if known == pair else 0) + 1,
        )
        if not used:
            counts[name, "unused"] += 1
            log.warning(
                "%s: %s of %d tokens handed over were used",
                name,
                timings.get("cache_n"),
                count,
            )


async def _behind(over: asyncio.Future[None], held: AsyncExitStack) -> None:
    async with held:
        await asyncio.wait({over})
        # Nobody waits for it any more; a failure has no one to be told to.
        if not over.cancelled():
            over.exception()


async def _delete_later(path: Path) -> None:
    await asyncio.sleep(FILE_GONE_S)
    path.unlink(missing_ok=True)


def _ms_since(began: float) -> float:
    return (time.monotonic() - began) * 1000
