"""Two servers of one model: one reads prompts, the other writes answers; the KV cache is handed
over."""

from __future__ import annotations

from dataclasses import replace

from deployments.planning.kv_transfer import KvTransfer, state_bytes, token_bytes
from deployments.planning.memory.fit import PLACEMENT_SETTINGS
from deployments.planning.memory.use import combined
from deployments.planning.plan import (
    CacheSize,
    DeviceUse,
    Figure,
    Plan,
    PlanRequest,
    Predicted,
    Reason,
)
from deployments.planning.settings import AUTO
from deployments.states import StrategyName
from deployments.strategies.base import (
    Strategy,
    caution,
    error,
    info,
    outlook,
    processes,
    verdict_of,
)
from deployments.strategies.figures import context_figure, device_uses
from deployments.strategies.placed_model import (
    PlacedModel,
    instance,
    needs,
    place_model,
)
from omni.errors import OmniError
from omni.units import bytes_text, ms_text

SHOWN_PROMPT = 4096


class PrefillDecode(Strategy):
    name = StrategyName.PREFILL_DECODE
    title = "Prefill–decode"
    summary = (
        "One instance reads prompts, another writes answers; the KV cache goes over"
        " through memory."
    )
    roles = ("prefill", "decode")
    serving_role = "decode"
    passage = "kv_transfer"
    own_settings = frozenset({"handover_min"})

    def plan(self, request: PlanRequest) -> Plan:
        reader, writer = self.members(request)
        assert reader and writer
        if reader.path != writer.path:
            text = (
                f"Both instances need the same model; given: {reader.name} and"
                f" {writer.name}."
            )
            raise OmniError(
                "different_models", text, "Choose one model for both roles."
            )
        if not request.slots_folder:
            raise OmniError(
                "no_slots_folder",
                "There is no folder for the KV cache.",
                "Give the plan one.",
            )
        windowed = bool(reader.shape.n_swa)
        first = place_model(request, reader, self, swa_full=windowed)
        second = place_model(
            request, writer, self, swa_full=windowed, reserved=needs(first)
        )
        kv_transfer = KvTransfer(first.speed, second.speed)
        worth_from = kv_transfer.worth_from(second.settings.context)
        reasons = (
            *self._reasons(first, second),
            *_kv_transfer_reasons(kv_transfer, second, worth_from),
        )
        reasons += (
            *first.reasons,
            *(r for r in second.reasons if r not in first.reasons),
        )
        instances = tuple(
            instance(
                request,
                found,
                role,
                slots_folder=request.slots_folder,
                swa_full=windowed,
            )
            for role, found in (("prefill", first), ("decode", second))
        )
        # How many layers go on a device differs between the two: that stays open.
        chosen = {
            key: value
            for key, value in second.chosen.items()
            if request.settings.get(key, AUTO) != AUTO or key not in PLACEMENT_SETTINGS
        }
        if worth_from and chosen.get("handover_min", AUTO) == AUTO:
            chosen["handover_min"] = worth_from
        return Plan(
            self.name,
            verdict_of(reasons),
            reasons,
            _uses(first, second),
            processes(instances, reasons),
            outlook(_predicted(first, second), reasons),
            _figures(kv_transfer, second, worth_from),
            chosen,
            _cache_size(second),
        )

    def _reasons(self, first: PlacedModel, second: PlacedModel) -> list[Reason]:
        reasons = []
        shared = [d.name for d in first.member.devices if d in second.member.devices]
        if shared:
            text = (
                f"Both instances are on {', '.join(shared)}: they get in each other's"
                " way, which is what this avoids."
            )
            if any(d.kind == "rpc" for d in first.member.devices if d.name in shared):
                text = (
                    f"{', '.join(shared)} serves one engine at a time; both instances"
                    " are on it."
                )
                reasons.append(
                    error("shared_rpc_device", text, "Put them on different devices.")
                )
            else:
                reasons.append(
                    caution("shared_device", text, "Put them on different devices.")
                )
        size = first.member.shape.weights_bytes
        text = (
            f"Both devices hold the whole model, {bytes_text(size)} each: it has to fit"
            " the smaller one."
        )
        reasons.append(info("weights_twice", text))
        if first.member.shape.n_swa:
            text = (
                "Layers with a sliding window keep the whole context (--swa-full): a"
                " saved window cannot be resumed."
            )
            reasons.append(info("swa_full", text))
        if first.member.shape.is_recurrent:
            text = (
                "A recurrent state resumes only where it was saved: the prompt's last"
                " token is left to decode."
            )
            reasons.append(info("last_token", text))
        return reasons


def _kv_transfer_reasons(
    kv_transfer: KvTransfer, second: PlacedModel, worth_from: int | None
) -> list[Reason]:
    tokens = min(SHOWN_PROMPT, second.settings.context)
    size = kv_transfer.file_bytes(tokens)
    transfer_s = kv_transfer.transfer_s(tokens)
    recompute_s = kv_transfer.recompute_s(tokens)
    read_s = kv_transfer.read_s(tokens)
    if recompute_s is None or read_s is None:
        return [
            info(
                "speed_unknown",
                "Whether it pays cannot be said: the bandwidth of a device is not"
                " known.",
            )
        ]
    text = (
        f"A prompt of {tokens:,} tokens hands over {bytes_text(size)} in about"
        f" {ms_text(transfer_s * 1000)}; the decode device would need"
        f" {ms_text(recompute_s * 1000)} to read it and hold up its other answers."
    )
    if worth_from is None:
        return [
            error("handover_never_pays", text, "Use independent on the faster device.")
        ]
    first = kv_transfer.faster_from(second.settings.context)
    if first is None:
        text += (
            f" Alone, a request waits {ms_text((read_s - recompute_s) * 1000)} longer"
            " for its first token."
        )
        return [
            caution(
                "pays_with_others_only",
                text,
                "Choose it when several requests run at the same time.",
            )
        ]
    return [
        info(
            "handover_pays",
            f"{text} From {first:,} tokens on the first token comes earlier, too.",
        )
    ]


def _cache_size(writer: PlacedModel) -> CacheSize:
    shape = writer.member.shape
    return CacheSize(
        token_bytes(shape, writer.speed.settings),
        state_bytes(shape),
        shape.is_recurrent,
    )


def _uses(first: PlacedModel, second: PlacedModel) -> tuple[DeviceUse, ...]:
    both = combined(first.use, second.use)
    held = {
        use.name: use.held_bytes
        for found in (first, second)
        for use in device_uses(found)
    }
    return tuple(
        replace(use, held_bytes=held.get(use.name, 0))
        for use in both
        if use.needed_bytes
    )


def _predicted(first: PlacedModel, second: PlacedModel) -> Predicted:
    reading = first.speed.predicted()
    writing = second.speed.predicted()
    return replace(
        writing,
        prefill_tps=reading.prefill_tps,
        prefill_range=reading.prefill_range,
        computed_prefill_tps=reading.computed_prefill_tps,
        prefill_correction=reading.prefill_correction,
    )


def _figures(
    kv_transfer: KvTransfer, second: PlacedModel, worth_from: int | None
) -> tuple[Figure, ...]:
    tokens = min(SHOWN_PROMPT, second.settings.context)
    figures = [
        context_figure(second),
        Figure(
            "kv_file",
            f"KV of {tokens:,} tokens",
            bytes_text(kv_transfer.file_bytes(tokens)),
        ),
        Figure("transfer", "Hand-over", ms_text(kv_transfer.transfer_s(tokens) * 1000)),
    ]
    if worth_from:
        figures.append(
            Figure("worth_from", "Worth it from", f"{worth_from:,} prompt tokens")
        )
    return tuple(figures)
