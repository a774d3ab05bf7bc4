"""Advice as documents: for `advise --json`, for rig files, and in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deployments.planning.memory.placement import CPU
from deployments.planning.plan import DeviceFacts, Reason, Severity
from deployments.services.advising import Advice
from deployments.services.hub_candidates import HubCandidate
from deployments.services.layout_plans import Planned
from deployments.services.rig_answers import Answer, Served, proposals
from omni.units import bytes_text


def advice_document(advice: Advice) -> dict[str, Any]:
    """`proposals` are ranks of the answers that are worth a look beside each other."""
    ranks = {id(answer): rank for rank, answer in enumerate(advice.answers, 1)}
    return {
        "proposals": [ranks[id(answer)] for answer in proposals(advice.answers)],
        "answers": [
            _answer_document(rank, answer, advice.devices)
            for rank, answer in enumerate(advice.answers, 1)
        ],
        "rejected": [
            {"title": each.title, "reasons": _why_not(each)} for each in advice.rejected
        ],
        "not_downloaded": [
            {"purpose": purpose, **_hub_document(each)}
            for purpose, some in advice.at_hub.items()
            for each in some
        ],
    }


def _hub_document(each: HubCandidate) -> dict[str, Any]:
    return {
        "model": each.model.name,
        "size_bytes": each.model.size_bytes,
        "needed_bytes": each.needed_bytes,
        "params": each.model.n_params,
        "n_layer": each.model.n_layer,
        "n_ctx_train": each.model.n_ctx_train,
        "devices": list(each.places),
        "most_tps": each.most_tps,
    }


def _answer_document(
    rank: int, answer: Answer, devices: Mapping[str, DeviceFacts]
) -> dict[str, Any]:
    names = {
        each.purpose.name: name
        for name, some in answer.deployed.items()
        for each in some
    }
    return {
        "rank": rank,
        "title": answer.title,
        "score": answer.per_hour,
        "deployments": deployments_of(answer),
        "purposes": [
            _purpose_document(each, names.get(each.purpose.name))
            for each in answer.served
        ],
        "devices": [
            {
                "name": name,
                "total_bytes": device.total_bytes,
                "used_bytes": answer.used_bytes.get(name, 0),
            }
            for name, device in devices.items()
        ],
        "reasons": [_reason_document(reason) for reason in answer.reasons],
    }


def deployments_of(answer: Answer) -> list[dict[str, Any]]:
    """As in a rig file."""
    found = []
    for name, some in answer.deployed.items():
        planned = some[0].planned
        assert planned
        purposes = [each.purpose.name for each in some]
        found.append(deployment_entry(name, planned, purposes))
    return found


def deployment_entry(
    name: str, planned: Planned, purposes: Sequence[str]
) -> dict[str, Any]:
    """A layout under this name for these purposes, as in a rig file."""
    return {
        "name": name,
        "strategy": planned.layout.strategy,
        "engine": planned.engine.name,
        "models": {role: model.name for role, (model, _) in planned.members.items()},
        "devices": {
            role: list(names) for role, (_, names) in planned.members.items() if names
        },
        "settings": dict(planned.settings),
        "purposes": list(purposes),
    }


def _purpose_document(each: Served, deployment: str | None) -> dict[str, Any]:
    plan = each.planned.plan if each.planned else None
    speed = plan.predicted if plan else None
    low, high = (speed.decode_range if speed else None) or (None, None)
    first_s = each.first_token_s
    return {
        "name": each.purpose.name,
        "deployment": deployment,
        "prefill_tps": speed.prefill_tps if speed else None,
        "decode_tps": speed.decode_tps if speed else None,
        "first_token_ms": None if first_s is None else first_s * 1000,
        "low_tps": low,
        "high_tps": high,
        "measured": bool(speed and speed.basis == "measured"),
        "seconds": each.seconds,
    }


def _why_not(planned: Planned) -> list[dict[str, str]]:
    if planned.error:
        return [
            {
                "code": planned.error.code,
                "severity": "error",
                "text": str(planned.error),
            }
        ]
    assert planned.plan
    errors = [r for r in planned.plan.reasons if r.severity == Severity.ERROR]
    return [_reason_document(reason) for reason in errors or planned.plan.reasons]


def _reason_document(reason: Reason) -> dict[str, str]:
    text = f"{reason.text} {reason.fix}".rstrip()
    return {"code": reason.code, "severity": str(reason.severity), "text": text}


def room_text(answer: Answer, devices: Mapping[str, DeviceFacts]) -> Iterator[str]:
    """What each device that is used has left."""
    for name, used in answer.used_bytes.items():
        total = devices[name].total_bytes
        of = f" of {bytes_text(total)}" if total is not None else ""
        if used and (name != CPU or used > 1 << 30):
            yield f"{name} {bytes_text(used)}{of}"
