"""What has come of an answer so far, and what pages are told of it meanwhile. No I/O."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from chat.figures import shown_live
from deployments.gateway.deltas import Delta
from deployments.gateway.timings import Figures, figures
from omni.errors import OmniError

TRACKS = ("content", "thinking")
# No model writes so much; a server that never ends would.
LONGEST_ANSWER = 500_000


@dataclass
class Written:
    """Times are of time.monotonic()."""

    tracks: dict[str, str] = field(default_factory=lambda: dict.fromkeys(TRACKS, ""))
    # When the gateway was asked, which is told once the engine answers as `sent_at`.
    asked_at: float | None = None
    sent_at: float | None = None
    first_at: float | None = None
    progress: dict[str, Any] = field(default_factory=dict)
    kv_transfer: dict[str, Any] = field(default_factory=dict)
    last: Delta = field(default_factory=Delta)

    @property
    def length(self) -> int:
        return sum(map(len, self.tracks.values()))

    def take(self, delta: Delta) -> None:
        """Raises OmniError for what ends an answer."""
        if delta.error:
            raise OmniError("engine_error", delta.error)
        if delta.content or delta.thinking:
            self.first_at = self.first_at or time.monotonic()
        if self.length > LONGEST_ANSWER:
            raise OmniError(
                "answer_too_long",
                f"The answer has more than {LONGEST_ANSWER} characters.",
                "Ask for less.",
            )
        self.tracks["content"] += delta.content
        self.tracks["thinking"] += delta.thinking
        self.last.finish_reason = delta.finish_reason or self.last.finish_reason
        self.last.usage = delta.usage or self.last.usage
        self.last.timings = delta.timings or self.last.timings
        self.progress = delta.progress or self.progress

    def figures(self, at: float, energy: Mapping[str, Any]) -> Figures:
        """As they are at this moment, which may be the end."""
        return figures(
            sent_at=self.sent_at,
            first_at=self.first_at,
            ended_at=at,
            usage=self.last.usage or self._known_of_the_prompt,
            timings=self.last.timings,
            kv_transfer=self.kv_transfer,
            energy=energy,
        )

    @property
    def _known_of_the_prompt(self) -> dict[str, Any]:
        """While it is read the engine counts what it has read as if that were all."""
        total = self._tokens("total")
        if self.first_at is None and total:
            return {"prompt_tokens": total}
        return {}

    # --- while it is made -------------------------------------------------------------------------
    def live(
        self, waits_for: str, energy: Mapping[str, Any], watts: float | None
    ) -> dict[str, Any]:
        """What a page shows of it beside its text; the same whenever it was opened."""
        now = time.monotonic()
        return {
            "doing": self._doing(waits_for),
            "counting_ms": self._counting_ms(now),
            "figures": [asdict(each) for each in self._shown(now, energy, watts)],
        }

    def _shown(
        self, now: float, energy: Mapping[str, Any], watts: float | None
    ) -> list[Any]:
        if self.asked_at is None:
            return []
        return shown_live(self.figures(now, energy), watts)

    def _doing(self, waits_for: str) -> str:
        """In words, as long as no text has come."""
        if self.first_at is not None:
            return ""
        if waits_for:
            return f"Waiting: {waits_for}…"
        read, total = self._tokens("processed"), self._tokens("total")
        if not total:
            return "Waiting for the engine…"
        return f"Reading the prompt: {100 * read // total} % of {total} tokens…"

    def _counting_ms(self, now: float) -> float | None:
        """For how long the first token has been waited for."""
        if self.asked_at is None or self.first_at is not None:
            return None
        return (now - self.asked_at) * 1000

    def _tokens(self, name: str) -> int:
        """Of the engine's word on its progress, which may be anything."""
        count = self.progress.get(name)
        if isinstance(count, int) and count > 0:
            return count
        return 0
