"""Every layer cut over all devices, which work at the same time: llama.cpp's -sm tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deployments.planning.memory.fit import DEFAULT_MARGIN_BYTES
from deployments.planning.memory.settings import parsed_split, split_text
from deployments.planning.memory.shares import small_ratio
from deployments.planning.memory.tensor_parallel import (
    REFUSED_ARCHS,
    kv_pieces,
    rotations,
)
from deployments.planning.memory.use import MemorySettings, MemoryUse, memory_use, place
from deployments.planning.plan import (
    DeviceFacts,
    Figure,
    InstancePlan,
    Member,
    Plan,
    PlanRequest,
    Predicted,
    Reason,
)
from deployments.planning.settings import ALL, AUTO, SHARES
from deployments.planning.speed import TYPICAL_DEPTH, SpeedModel
from deployments.states import StrategyName
from deployments.strategies.asked_settings import (
    asked_settings,
    check_shares,
    own_settings,
)
from deployments.strategies.base import (
    Strategy,
    caution,
    error,
    info,
    outlook,
    processes,
    verdict_of,
)
from deployments.strategies.figures import device_uses
from deployments.strategies.independent import common_figures
from deployments.strategies.layer_split import needs_two
from deployments.strategies.placed_model import (
    PlacedModel,
    host_of,
    instance,
    place_model,
)
from deployments.strategies.remedies import room_of
from omni.units import bytes_text, ms_text


class TensorSplit(Strategy):
    name = StrategyName.TENSOR_SPLIT
    title = "Tensor split"
    summary = (
        "Every layer is cut over all devices and they work at the same time, in step"
        " (-sm tensor)."
    )
    roles = ("model",)
    serving_role = "model"
    devices_help = "Every layer is cut over the devices you tick."

    def plan(self, request: PlanRequest) -> Plan:
        member = self.only_member(request)
        shares = self.shares(request, member)
        if request.settings.get("gpu_layers", AUTO) == AUTO:
            # Whole or not at all: with layers on the CPU the engine stops at an assertion for some
            # models.
            request = replace(request, settings={**request.settings, "gpu_layers": ALL})
        found = place_model(
            request, member, self, split_mode="tensor", open_keys=(), shares=shares
        )
        found = replace(
            found,
            chosen=(
                {**found.chosen, SHARES: split_text(shares)} if shares else found.chosen
            ),
        )
        reasons = (
            *self.refusals(request, found),
            *self._reasons(request, found),
            *found.reasons,
        )
        return Plan(
            self.name,
            verdict_of(reasons),
            reasons,
            device_uses(found),
            processes(self.instances(request, found), reasons),
            outlook(
                found.speed.predicted() if len(found.cards) > 1 else Predicted(),
                reasons,
            ),
            (*common_figures(found), *self._figures(found)),
            found.chosen,
        )

    def instances(
        self, request: PlanRequest, found: PlacedModel
    ) -> tuple[InstancePlan, ...]:
        return (instance(request, found, "model", split_mode="tensor"),)

    def shares(self, request: PlanRequest, member: Member) -> tuple[float, ...]:
        """What is asked for, else the fastest shares that fit and leave no device without KV
        heads."""
        cards = tuple(device for device in member.devices if device.kind != "cpu")
        given = parsed_split(own_settings(request, self).get(SHARES, AUTO))
        check_shares(given, cards)
        if given:
            return (*given, *(0.0,) * len(cards))[: len(cards)]
        if len(cards) < 2:
            return ()
        return best_shares(
            member,
            cards,
            host_of(request),
            asked_settings(request, member, self, "tensor"),
        )

    # --- what the engine refuses ------------------------------------------------------------------
    def refusals(self, request: PlanRequest, found: PlacedModel) -> list[Reason]:
        if len(found.cards) < 2:
            return [needs_two(found)]
        reasons = []
        if found.member.shape.arch in REFUSED_ARCHS:
            text = (
                "llama.cpp's tensor split is not implemented for the architecture"
                f" {found.member.shape.arch}"
            )
            fix = (
                "Use layer split or expert offload; ik_llama.cpp's graph split has more"
                " architectures."
            )
            reasons.append(
                error("arch_refused", f"{text}: it stops while loading.", fix)
            )
        if _has_single_kv_heads(found.member):
            text = (
                f"{found.member.name} has layers with one KV head, which cannot be cut:"
                " the engine stops at an assertion while it loads."
            )
            reasons.append(error("one_kv_head", text, "Use layer split."))
        if request.settings.get("flash_attention") == "off":
            text = (
                "Tensor split needs flash attention; with flash_attention off the"
                " engine stops."
            )
            reasons.append(
                error(
                    "needs_flash_attention", text, "Switch it on.", flash_attention=AUTO
                )
            )
        if found.settings.gpu_layers is not None:
            text = (
                "Tensor split takes the whole model; with layers on the CPU the engine"
                " may stop at an assertion."
            )
            reasons.append(
                caution(
                    "partial_offload",
                    text,
                    "Put every layer on devices.",
                    gpu_layers=ALL,
                )
            )
        return reasons

    def _reasons(self, request: PlanRequest, found: PlacedModel) -> list[Reason]:
        cards = found.cards
        shares = found.speed.shares
        if len(cards) < 2 or not shares:
            return []
        return [*even_split(cards, shares), *_empty_devices(found), *_pacing(found)]

    def _figures(self, found: PlacedModel) -> tuple[Figure, ...]:
        if len(found.cards) < 2:
            return ()
        step = found.speed
        sync_bytes = step.syncs * step.hop_bytes()
        return (
            Figure("split", "Split", split_text(step.shares)),
            Figure(
                "wasted",
                "An even split would waste",
                bytes_text(wasted_by_even_split(found.cards)),
            ),
            Figure(
                "traffic",
                "Between devices",
                f"{bytes_text(sync_bytes)} per token in {step.syncs} synchronisations",
            ),
        )


def by_memory(cards: Sequence[DeviceFacts]) -> tuple[float, ...]:
    """The memory of the cards in small whole numbers: 96 and 32 GB are 3,1.

    Even where one is not known or full.
    """
    rooms = [max((room_of(card) or 0) - DEFAULT_MARGIN_BYTES, 0) for card in cards]
    if all(rooms):
        return small_ratio(rooms)
    return (1.0,) * len(cards)


def best_shares(
    member: Member,
    cards: tuple[DeviceFacts, ...],
    host: DeviceFacts,
    settings: MemorySettings,
) -> tuple[float, ...]:
    """The fastest candidate that fits, of those that leave devices without KV heads in the fewest
    layers."""
    fallback = by_memory(cards)
    even = (1.0,) * len(cards)
    simple = PAIRS if len(cards) == 2 else ()
    candidates: dict[tuple[float, ...], None] = dict.fromkeys((fallback, even, *simple))
    empties = {
        shares: sum(empty_layers(member, shares).values()) for shares in candidates
    }
    whole = [
        shares for shares in candidates if empties[shares] == min(empties.values())
    ]
    best = whole[0]
    best_s = float("inf")
    for shares in whole:
        cut = replace(settings, tensor_split=shares, gpu_layers=None)
        if not _fits(memory_use(member.shape, (*cards, host), cut), cards):
            continue
        speed = SpeedModel(
            member.shape, cards, host, place(member.shape, cards[:1], cut), cut, shares
        )
        took_s = speed.step_s(1, TYPICAL_DEPTH)
        if took_s is not None and took_s < best_s * 0.99:
            best = shares
            best_s = took_s
    return best


PAIRS = (
    (2.0, 1.0),
    (1.0, 2.0),
    (3.0, 1.0),
    (1.0, 3.0),
    (3.0, 2.0),
    (2.0, 3.0),
    (4.0, 1.0),
    (1.0, 4.0),
)


def _fits(use: MemoryUse, cards: Sequence[DeviceFacts]) -> bool:
    rooms = [room_of(card) for card in cards]
    needed = [one.needed_bytes + DEFAULT_MARGIN_BYTES for one in use.devices]
    return all(
        room is None or need <= room for room, need in zip(rooms, needed, strict=False)
    )


def empty_layers(member: Member, shares: tuple[float, ...]) -> dict[int, int]:
    """Device → number of layers in which it gets no KV head."""
    found: dict[int, int] = {}
    turns = rotations(member.shape, len(shares))
    for index in range(member.shape.n_layer - member.shape.n_nextn):
        kind = member.shape.kind_of(index)
        if not kind.has_kv or member.shape.is_mla:
            continue
        _, parts = kv_pieces(kind, shares, turns[index])
        for device, part in enumerate(parts):
            if not part:
                found[device] = found.get(device, 0) + 1
    return found


def wasted_by_even_split(cards: tuple[DeviceFacts, ...]) -> int:
    """Bytes that stay unused when every card takes as much as the smallest has."""
    sizes = [card.total_bytes or 0 for card in cards]
    return sum(size - min(sizes) for size in sizes)


def even_split(
    cards: tuple[DeviceFacts, ...], shares: tuple[float, ...]
) -> list[Reason]:
    """What an even cut of unequal cards costs; llama.cpp cuts evenly unless it is told
    otherwise."""
    wasted = wasted_by_even_split(cards)
    whole = sum(card.total_bytes or 0 for card in cards)
    largest = max(cards, key=lambda card: card.total_bytes or 0)
    if not wasted or not largest.total_bytes:
        return []
    text = (
        f"An even split, the engine's default, can use {bytes_text(whole - wasted)} of"
        f" the {bytes_text(whole)}: it wastes {bytes_text(wasted)} of {largest.name}'s"
        f" {bytes_text(largest.total_bytes)}. "
    )
    if len(set(shares)) == 1:
        text += (
            "This model fits into that; a larger one needs shares by memory"
            f" ({split_text(by_memory(cards))})."
        )
    else:
        text += f"Shares of {split_text(shares)} do not."
    return [info("even_split_wastes", text)]


def _has_single_kv_heads(member: Member) -> bool:
    """Reshaped to heads, what is cut by its elements seems to be cut within the one head
    (ggml-backend-meta.cpp, ggml_backend_meta_get_split_state): it stops in the first graph."""
    shape = member.shape
    if shape.is_folder or shape.is_mla:
        return False
    return any(kind.has_kv and kind.n_head_kv == 1 for kind in shape.layer_kinds())


def _empty_devices(found: PlacedModel) -> list[Reason]:
    """Cuts that leave a device without KV heads.

    Where that is so in every layer (3 heads cut in half) the engine has been seen to answer garbage
    in 17 of 18 starts; in some layers only, it was right each time.
    """
    empty = empty_layers(found.member, found.speed.shares)
    if not empty or _has_single_kv_heads(found.member):
        return []
    shape = found.member.shape
    kv_heads = max((kind.n_head_kv for kind in shape.layer_kinds()), default=0)
    parts = " and ".join(
        f"{found.cards[device].name} in {count} layers"
        for device, count in sorted(empty.items())
    )
    text = (
        f"{kv_heads} KV heads cannot be cut {split_text(found.speed.shares)}: {parts}"
        " would get none."
    )
    if sum(empty.values()) < shape.n_layer - shape.n_nextn:
        return [info("kv_heads_uneven", text)]
    text += (
        " The engine starts, says it is healthy and has been seen to answer with"
        " garbage."
    )
    better = best_shares(found.member, found.cards, found.host, found.settings)
    if sum(empty_layers(found.member, better).values()) >= sum(empty.values()):
        return [caution("kv_heads_lost", text, "Use layer split.")]
    split = split_text(better)
    return [
        caution(
            "kv_heads_lost",
            text,
            f"Shares of {split} have been right.",
            tensor_split=split,
        )
    ]


def _pacing(found: PlacedModel) -> list[Reason]:
    """Which device the others wait for, and what the synchronisations cost."""
    step = found.speed
    whole_s = step.step_s(1, TYPICAL_DEPTH)
    parts = step.device_steps_s(1, TYPICAL_DEPTH)
    if whole_s is None or parts is None:
        return [
            info(
                "speed_unknown",
                "How fast it is cannot be said: the bandwidth of a device is not"
                " known.",
            )
        ]
    slowest = step.devices[parts.index(max(parts))].name
    waiting_s = step.syncs_s(1)
    text = (
        f"{slowest} paces every layer; the {step.syncs} synchronisations of a token"
        f" take about {ms_text(waiting_s * 1000)} of its {ms_text(whole_s * 1000)}."
    )
    return [(caution if waiting_s > whole_s / 2 else info)("slowest_paces", text)]
