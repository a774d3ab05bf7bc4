"""The figures of an answer in words: the same while it is written and once it has ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.gateway.timings import ENERGY, KV_TRANSFER, Figures, drafts_of
from omni.units import (
    bytes_text,
    joules_text,
    ms_text,
    percent_text,
    tps_text,
    watts_text,
)

FIRST_TOKEN = "first_token"
FIRST_TOKEN_TITLE = "From the request to the first token"


@dataclass(frozen=True)
class Shown:
    """One figure; `title` explains it.

    A wide one takes a line of its own where lanes are narrow.
    """

    name: str
    text: str
    title: str
    is_wide: bool = False


def shown(figures: Figures) -> list[Shown]:
    """Of an answer that has ended: what is always told, as N/A where nobody knows it."""
    first = f"First token {ms_text(figures['ttft_ms'])}"
    found: list[Shown | None] = [
        Shown(FIRST_TOKEN, first, FIRST_TOKEN_TITLE),
        _decode(figures["decode_tps"]),
        _prefill(figures),
        _tokens(figures["completion_tokens"]),
        Shown(
            "duration",
            f"{ms_text(figures['duration_ms'])} in all",
            "From the request to the end",
        ),
        *_energy(figures),
        _prompt(figures),
        _drafts(figures),
        _kv_transfer(figures),
    ]
    return [each for each in found if each]


def shown_live(figures: Figures, watts: float | None) -> list[Shown]:
    """Of an answer that is being made: what is known so far, in the same order.

    Until the first token has come the page itself counts the time to it.
    """
    ttft = figures["ttft_ms"]
    first = f"First token {ms_text(ttft)}" if ttft is not None else "First token"
    has_begun = ttft is not None
    found: list[Shown | None] = [
        Shown(FIRST_TOKEN, first, FIRST_TOKEN_TITLE),
        _decode(figures["decode_tps"]) if figures["decode_tps"] else None,
        _prefill(figures),
        _tokens(figures["completion_tokens"]) if figures["completion_tokens"] else None,
        _watts_now(watts),
        *_energy(figures, is_over=False),
        _prompt(figures) if has_begun and figures["prompt_tokens"] else None,
        _drafts(figures),
        _kv_transfer(figures),
    ]
    return [each for each in found if each]


def _decode(tps: float | None) -> Shown:
    title = "Tokens per second after the first, as the engine measured it"
    return Shown("decode", f"Decode {tps_text(tps)}", title)


def _prefill(figures: Figures) -> Shown | None:
    """None where another instance read the prompt: what was left to read is no rate of it."""
    if not figures["prefill_tps"] or "prefill_ms" in kv_transfer_of(figures["timings"]):
        return None
    title = "Tokens of the prompt per second, without those from the cache"
    return Shown("prefill", f"Prefill {tps_text(figures['prefill_tps'])}", title)


def _tokens(count: int | None) -> Shown:
    known = "N/A" if count is None else str(count)
    return Shown("tokens", f"{known} tokens", "Tokens of the answer")


def _prompt(figures: Figures) -> Shown:
    count = figures["prompt_tokens"]
    text = f"Prompt {'N/A' if count is None else count}"
    if figures["cached_tokens"]:
        text += f" ({figures['cached_tokens']} cached)"
    title = "Tokens of the prompt, and how many the engine still had in its cache"
    return Shown("prompt", text, title, is_wide=True)


def _drafts(figures: Figures) -> Shown | None:
    drafts = drafts_of(figures["timings"])
    if drafts is None:
        return None
    text = f"{drafts.accepted} of {drafts.drafted} drafts accepted ({percent_text(drafts.percent)})"
    return Shown("drafts", text, "Drafted tokens that the model kept", is_wide=True)


# --- KV transfer ----------------------------------------------------------------------------------
def kv_transfer_of(timings: Mapping[str, Any]) -> Mapping[str, Any]:
    return timings.get(KV_TRANSFER) or {}


def _kv_transfer(figures: Figures) -> Shown | None:
    facts = kv_transfer_of(figures["timings"])
    if not facts:
        return None
    if facts.get("outcome"):
        return Shown(
            "kv_transfer",
            f"KV not handed over: {facts.get('why') or facts['outcome']}",
            "The prompt was read where the answer is written",
            is_wide=True,
        )
    text = "KV handed over"
    spans = [facts[name] for name in ("save_ms", "restore_ms") if name in facts]
    if spans:
        text += f" in {ms_text(sum(spans))}"
    if facts.get("bytes"):
        text += f", {bytes_text(facts['bytes'])}"
    if facts.get("prefill_ms"):
        text += f"; prompt read in {ms_text(facts['prefill_ms'])}"
    return Shown(
        "kv_transfer",
        text,
        "From the GPU that reads the prompt to the one that writes the answer",
        is_wide=True,
    )


# --- energy ---------------------------------------------------------------------------------------
def _watts_now(watts: float | None) -> Shown | None:
    if watts is None:
        return None
    return Shown("watts", watts_text(watts), "What its cards draw now")


def _energy(figures: Figures, *, is_over: bool = True) -> list[Shown]:
    """Mean power and energy a token; empty for answers of which it was never asked."""
    facts = figures["timings"].get(ENERGY) or {}
    if "why" in facts:
        is_shared = bool(facts.get("shared_with"))
        text = "Energy shared" if is_shared else "Energy N/A"
        return [Shown("energy", text, facts["why"])]
    if not facts:
        return []
    title = _energy_title(facts)
    found = []
    if is_over:
        mean = watts_text(facts["joules"] / facts["seconds"])
        found.append(Shown("watts", mean, f"Mean power. {title}"))
    if figures["completion_tokens"]:
        each = joules_text(facts["joules"] / figures["completion_tokens"])
        found.append(Shown("energy", f"{each}/token", title))
    return found


def _energy_title(facts: Mapping[str, Any]) -> str:
    """Over what, of what, and what is not in it."""
    title = (
        f"{joules_text(facts['joules'])} in {ms_text(1000 * facts['seconds'])}"
        f" of {' and '.join(facts['devices'])}, idle power included"
    )
    silent = facts["silent"]
    if not silent:
        return f"{title}."
    return f"{title}; {' and '.join(silent)} {'tells' if len(silent) == 1 else 'tell'} none."
