"""What a finding costs a deployment: its plan on the machine as it is, beside its plan with what is
found mended.

One function for every finding: a finding says which figures of which device it holds down
(gpus.findings.Held), and the planner says what comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from deployments.planning.kv_transfer import hand_over_s
from deployments.planning.plan import DeviceFacts, Plan
from deployments.planning.speed import TYPICAL_PROMPT
from gpus.findings import HOST, Held, Quantity

Devices = Mapping[str, DeviceFacts]
# A deployment's plan on these devices.
Planner = Callable[[Devices], Plan]
METRICS = ("decode_tps", "prefill_tps", "first_token_ms")


@dataclass(frozen=True)
class Cost:
    """By how much a metric of a deployment differs from what it would be with the finding mended;
    None where nobody can say, the reason in `text`."""

    deployment: str
    metric: str
    change_percent: float | None
    now: float | None = None
    mended: float | None = None
    text: str = ""


def as_it_is(devices: Devices, held: Iterable[Held]) -> dict[str, DeviceFacts]:
    """The devices with every figure at what findings saw of it."""
    return mended(devices, held, ())


def mended(
    devices: Devices, held: Iterable[Held], cured: Iterable[Held]
) -> dict[str, DeviceFacts]:
    """The same with `cured` as they ought to be. Of two that hold the same figure down the lower
    one counts."""
    well = set(cured)
    found = dict(devices)
    for (card, quantity), group in _grouped([*held, *well]).items():
        values = [each.mended if each in well else each.now for each in group]
        others = max(each.now for each in group)
        for name, device in found.items():
            if _is_meant(device, card):
                found[name] = _with(device, quantity, values, others)
    return found


def _grouped(held: Iterable[Held]) -> dict[tuple[str, Quantity], set[Held]]:
    groups: dict[tuple[str, Quantity], set[Held]] = {}
    for each in held:
        groups.setdefault((each.card, each.quantity), set()).add(each)
    return groups


def _is_meant(device: DeviceFacts, card: str) -> bool:
    if card == HOST:
        return device.kind == "cpu" or device.is_stand_in
    return card in (device.gpu_uuid, device.name)


def _with(
    device: DeviceFacts, quantity: Quantity, values: list[float], others: float
) -> DeviceFacts:
    if quantity == Quantity.OTHERS_BYTES:
        return _beside_others(device, others, max(values))
    if quantity == Quantity.LINK_GBPS:
        return replace(device, link_gbps=min(values))
    if quantity == Quantity.MEMORY_GBPS:
        return replace(device, bandwidth_gbps=min(values))
    if device.tflops is None:
        return device
    return replace(device, tflops=device.tflops * min(values))


def _beside_others(device: DeviceFacts, seen: float, left: float) -> DeviceFacts:
    """What is free was counted with all that others hold, or is not known where the deployment runs
    already: then only they are taken off."""
    if device.free_bytes is not None:
        return replace(device, free_bytes=device.free_bytes + int(seen - left))
    if device.total_bytes is None or not left:
        return device
    return replace(device, free_bytes=max(device.total_bytes - int(left), 0))


def figures(plan: Plan, devices: Devices) -> dict[str, float | None]:
    """By METRICS, what the plan predicts for one request alone with a prompt of usual length."""
    predicted = plan.predicted
    first_ms = None
    if predicted.prefill_tps:
        read_s = TYPICAL_PROMPT / predicted.prefill_tps
        first_ms = (read_s + _hand_over_s(plan, devices)) * 1000
    return {
        "decode_tps": predicted.decode_tps,
        "prefill_tps": predicted.prefill_tps,
        "first_token_ms": first_ms,
    }


def _hand_over_s(plan: Plan, devices: Devices) -> float:
    """What a strategy that hands prompts over needs besides reading them."""
    cache = plan.transferred
    if cache is None:
        return 0.0
    file_bytes = int(TYPICAL_PROMPT * cache.token_bytes) + cache.state_bytes
    links = [
        [devices[name].link_gbps for name in instance.devices if name in devices]
        for instance in plan.instances
    ]
    return hand_over_s(file_bytes, links)


def costs(
    deployment: str, planned: Planner, now: Devices, better: Devices
) -> tuple[Cost, ...]:
    """One for each metric, from a plan on the devices as they are and one on the mended ones."""
    before = figures(planned(now), now)
    after = figures(planned(better), better)
    return tuple(
        _cost(deployment, metric, before[metric], after[metric]) for metric in METRICS
    )


def unknown_costs(deployment: str, text: str) -> tuple[Cost, ...]:
    """Of a deployment that cannot be planned, with the reason."""
    return tuple(Cost(deployment, metric, None, text=text) for metric in METRICS)


def _cost(
    deployment: str, metric: str, now: float | None, better: float | None
) -> Cost:
    if now is None and better is None:
        text = "Nothing is predicted for it."
        return Cost(deployment, metric, None, text=text)
    if now is None:
        text = "It cannot run as the machine is."
        return Cost(deployment, metric, None, mended=better, text=text)
    if not better:
        return Cost(deployment, metric, None, now, text="Its plan would be another.")
    return Cost(deployment, metric, (now - better) / better * 100, now, better)


# Below this a change is none.
LEAST_PERCENT = 0.05


def change_text(change_percent: float) -> str:
    """With its sign: −12 %, +0.4 %, 0 %."""
    if abs(change_percent) < LEAST_PERCENT:
        return "0 %"
    digits = 0 if abs(change_percent) >= 10 else 1
    sign = "−" if change_percent < 0 else "+"
    return f"{sign}{abs(change_percent):,.{digits}f} %"
