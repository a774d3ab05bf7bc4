"""Handing a prompt's KV cache from one server to another through a file in memory.

The file is what POST /slots/{id}?action=save writes: keys and values of every token and 16 bytes
more (llama-kv-cache.cpp, state_write). Rates were measured on the packaged engine: 35.5 MB saved in
12 ms and restored in 3.5 ms.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deployments.planning.architecture import ModelShape
from deployments.planning.memory.settings import MemorySettings
from deployments.planning.speed import SpeedModel
from deployments.planning.work import kv_bytes_per_token

TOKEN_OVERHEAD_BYTES = 16
SAVE_GBPS = 3.0
RESTORE_GBPS = 10.0
# Two calls, a file made and removed, one token computed again.
FIXED_S = 0.010
# A prompt is handed over when reading it on the decode instance would hold up the others this many
# times longer.
WORTH = 2.0
SHORTEST = 128


def token_bytes(model: ModelShape, settings: MemorySettings) -> float:
    """What one token takes in the file."""
    return kv_bytes_per_token(model, settings) + TOKEN_OVERHEAD_BYTES


def state_bytes(model: ModelShape) -> int:
    """What recurrent states take in the file, however long the prompt is."""
    return sum(4 * (kind.state_r + kind.state_s) for kind in model.layer_kinds())


@dataclass(frozen=True)
class KvTransfer:
    """Seconds and bytes of handing over n tokens; None where a speed is not known."""

    prefill: SpeedModel
    decode: SpeedModel

    def file_bytes(self, tokens: int) -> int:
        return int(
            tokens * token_bytes(self.prefill.model, self.prefill.settings)
        ) + state_bytes(self.prefill.model)

    def transfer_s(self, tokens: int) -> float:
        """Saved, written, read and restored."""
        links = [
            [device.link_gbps for device in model.devices]
            for model in (self.prefill, self.decode)
        ]
        return hand_over_s(self.file_bytes(tokens), links)

    def read_s(self, tokens: int) -> float | None:
        """Until the decode instance has the prompt when the prefill instance reads it."""
        rate = self.prefill.prefill_tps(tokens)
        if rate is None:
            return None
        return tokens / rate + self.transfer_s(tokens)

    def recompute_s(self, tokens: int) -> float | None:
        """Until the decode instance has the prompt when it reads it itself; its other requests wait
        meanwhile."""
        rate = self.decode.prefill_tps(tokens)
        if rate is None:
            return None
        return tokens / rate

    def worth_from(self, most: int) -> int | None:
        """The shortest prompt that is worth a hand-over: recomputing takes twice as long as the
        transfer at least.

        None when that holds for no prompt up to `most` tokens, or no speed is known.
        """
        tokens = SHORTEST
        while tokens <= most:
            recompute = self.recompute_s(tokens)
            if recompute is None:
                return None
            if self.transfer_s(tokens) * WORTH <= recompute:
                return tokens
            tokens *= 2
        return None

    def faster_from(self, most: int) -> int | None:
        """The shortest prompt whose first token comes earlier, even when nothing else runs; None:
        never."""
        tokens = SHORTEST
        while tokens <= most:
            read = self.read_s(tokens)
            recompute = self.recompute_s(tokens)
            if read is None or recompute is None:
                return None
            if read < recompute:
                return tokens
            tokens *= 2
        return None


def hand_over_s(file_bytes: int, links_gbps: Iterable[Iterable[float | None]]) -> float:
    """Seconds for a file of that size; `links_gbps` are those of each instance's devices."""
    size = file_bytes / 1e9
    over_links = sum(_per_gb(links) for links in links_gbps)
    return FIXED_S + size / SAVE_GBPS + size / RESTORE_GBPS + size * over_links


def _per_gb(links_gbps: Iterable[float | None]) -> float:
    """Seconds per GB over the links of the cards that hold the cache."""
    links = [link for link in links_gbps if link]
    if links:
        return 1 / min(links)
    return 0.0
