"""What the rules see: of a frame of telemetry, of the host, of its deployments and of requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from deployments.alerts.watch import Reading
from deployments.states import InstanceState
from gpus.links import BUSY_PERCENT, link_gbps
from omni.units import GIB, bytes_text, ms_text, short_text

# Words in the reasons of a card's clocks; a power limit is somebody's wish.
HELD_DOWN = ("temperature", "thermal", "hardware", "brake")
LEAST_REQUESTS = 3
ERRORS_FROM = 500
# A frame that is older says nothing of now.
FRESH_MS = 15_000
XID_SHOWN_MS = 600_000

Values = Mapping[str, Any]


# --- cards ----------------------------------------------------------------------------------------
def card_readings(frame: Values, now_ms: float) -> Iterator[Reading]:
    """Of each card that telemetry tells of."""
    if abs(now_ms - frame.get("at", 0)) > FRESH_MS:
        return
    for card in frame.get("cards", ()):
        if card.get("is_stand_in"):
            continue
        for code, (value, text) in _of_card(card, now_ms).items():
            name = card.get("name", "")
            yield Reading(code, card["key"], name, value, f"{name} {text}")


def _of_card(card: Values, now_ms: float) -> dict[str, tuple[float | None, str]]:
    celsius, memory = card.get("temperature_celsius"), _memory_percent(card)
    held = [why for why in card.get("throttle", ()) if _is_held_down(why)]
    answers = card.get("state", "ok") == "ok"
    link, words = _link(card)
    errors = card.get("ecc_uncorrected")
    return {
        "gpu_temperature": (celsius, f"is at {short_text(celsius or 0)} °C."),
        "gpu_throttle": (
            float(bool(held)) if answers else None,
            f"is held down: {', '.join(held) or 'no more'}.",
        ),
        "gpu_link": (link, words),
        "gpu_memory": (
            memory,
            f"has {short_text(memory or 0)} % of its memory in use.",
        ),
        "gpu_xid": (_is_recent(card, now_ms), f"reported Xid {card.get('xid')}."),
        "gpu_ecc": (
            None if errors is None else float(errors > 0),
            f"had {errors} memory errors that could not be corrected.",
        ),
    }


def _is_recent(card: Values, now_ms: float) -> float:
    """Whether its driver reported an error in the last minutes."""
    at_ms = card.get("xid_at_ms")
    return float(at_ms is not None and now_ms - at_ms < XID_SHOWN_MS)


def _is_held_down(why: str) -> bool:
    return any(word in why for word in HELD_DOWN)


def _memory_percent(card: Values) -> float | None:
    used, total = card.get("memory_used_bytes"), card.get("memory_total_bytes")
    return None if used is None or not total else 100 * used / total


def _link(card: Values) -> tuple[float | None, str]:
    """Percent of the best; of an idle card only a link at its best says anything."""
    generation, width = card.get("pcie_generation"), card.get("pcie_width")
    now = link_gbps(generation, width)
    best = link_gbps(card.get("pcie_generation_max"), card.get("pcie_width_max"))
    if now is None or not best:
        return None, ""
    percent = min(100.0, 100 * now / best)
    is_busy = (card.get("utilisation_percent") or 0.0) >= BUSY_PERCENT
    text = (
        f"runs its link at generation {generation} ×{width} under load:"
        f" {now:.1f} of {best:.1f} GB/s."
    )
    return (percent if is_busy or percent >= 100 else None), text


@dataclass(frozen=True)
class KnownCard:
    """A card that was seen once; `error` says why it cannot be read now."""

    uuid: str
    name: str
    state: str
    error: str = ""


def lost_readings(cards: Iterable[KnownCard]) -> Iterator[Reading]:
    for card in cards:
        why = card.error or "it is not there any more"
        is_lost = card.state != "ok"
        text = f"{card.name} cannot be read: {why.rstrip('.')}."
        yield Reading("gpu_lost", card.uuid, card.name, float(is_lost), text)


# --- the host -------------------------------------------------------------------------------------
def host_readings(
    host: str, frame: Values, now_ms: float, disk_free_bytes: int | None
) -> Iterator[Reading]:
    free = None
    about = frame.get("host", {})
    if abs(now_ms - frame.get("at", 0)) <= FRESH_MS and about.get("ram_total_bytes"):
        total = about["ram_total_bytes"]
        free = 100 * (total - about["ram_used_bytes"]) / total
    text = f"{host} has {short_text(free or 0)} % of its main memory left."
    yield Reading("ram", host, host, free, text)
    gib = None if disk_free_bytes is None else disk_free_bytes / GIB
    text = f"{host} has {bytes_text(disk_free_bytes)} left on the disk of OMNI_HOME."
    yield Reading("disk", host, host, gib, text)


@dataclass(frozen=True)
class OtherHost:
    """Another host, and when its agent last reported in seconds since 1970."""

    name: str
    seen_s: float


def agent_readings(
    own: str, others: Iterable[OtherHost], now_s: float, silent_after_s: float
) -> Iterator[Reading]:
    """Of agents of other hosts. Of those that live one tells of one that is away."""
    found = list(others)
    away = {each.name for each in found if now_s - each.seen_s > silent_after_s}
    alive = {each.name for each in found} - away
    for host in found:
        is_away = host.name in away
        if is_away and min(alive | {own}) != own:
            value = None
        else:
            value = float(is_away)
        ago = short_text(round(now_s - host.seen_s))
        text = f"The agent of {host.name} has not reported for {ago} s."
        yield Reading("agent_away", host.name, host.name, value, text)


# --- deployments ----------------------------------------------------------------------------------
@dataclass(frozen=True)
class DeploymentFacts:
    """`failures` are those in a row of the process that has most."""

    name: str
    state: str
    failures: int
    error: str = ""
    ought_to_run: bool = True


def deployment_readings(rows: Iterable[DeploymentFacts]) -> Iterator[Reading]:
    for row in rows:
        has_failed = row.ought_to_run and row.state == InstanceState.FAILED
        error = row.error.strip().splitlines()
        why = f": {error[0]}" if error else "."
        text = f"{row.name} has failed{why}"
        yield Reading("deployment_failed", row.name, row.name, float(has_failed), text)
        again = float(row.failures if row.ought_to_run and not has_failed else 0)
        text = f"{row.name} ended by itself {row.failures} times in a row{why}"
        yield Reading("deployment_restarting", row.name, row.name, again, text)


# --- requests -------------------------------------------------------------------------------------
@dataclass(frozen=True)
class RequestFacts:
    deployment: str
    status: int
    first_token_ms: int | None


def request_readings(
    requests: Iterable[RequestFacts], running: Sequence[str]
) -> Iterator[Reading]:
    """Of the last minutes, of the deployments that ought to run.

    Too few requests say nothing; where none ended at all, nobody waits and nothing fails any more.
    """
    by_name: dict[str, list[RequestFacts]] = defaultdict(list)
    for request in requests:
        by_name[request.deployment].append(request)
    for name in running:
        found = by_name[name]
        if not found:
            text = f"No request to {name} has ended in the last five minutes."
            yield Reading("first_token", name, name, 0.0, text)
            yield Reading("gateway_errors", name, name, 0.0, text)
            continue
        first = [r.first_token_ms for r in found if r.first_token_ms is not None]
        value = median(first) / 1000 if len(first) >= LEAST_REQUESTS else None
        waits = ms_text(1000 * value) if value is not None else "N/A"
        text = (
            f"Half of {name}'s requests wait {waits} or longer for their first token."
        )
        yield Reading("first_token", name, name, value, text)
        failed = sum(request.status >= ERRORS_FROM for request in found)
        share = 100 * failed / len(found) if len(found) >= LEAST_REQUESTS else None
        text = f"{failed} of {len(found)} requests to {name} failed in five minutes."
        yield Reading("gateway_errors", name, name, share, text)
