"""Puts one model on its devices: what fits, what it takes, how fast it is, and what has to be said
about it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from deployments.engines import get_flavour
from deployments.engines.base import Command, DraftSpec, ServerSpec
from deployments.engines.flags import decided_by
from deployments.planning.memory.fit import (
    DEFAULT_MARGIN_BYTES,
    PLACEMENT_SETTINGS,
    Fit,
    best_fit,
    first_fit,
)
from deployments.planning.memory.settings import split_text
from deployments.planning.memory.use import (
    MemorySettings,
    MemoryUse,
    place,
    working_devices,
)
from deployments.planning.plan import (
    DeviceFacts,
    InstancePlan,
    Member,
    PlanRequest,
    Reason,
)
from deployments.planning.settings import (
    ALL,
    AUTO,
    SHARES,
    context_tokens,
    with_defaults,
)
from deployments.planning.speed import SpeedModel
from deployments.strategies.asked_settings import (
    asked_settings,
    asked_slots,
    check_shares,
    own_settings,
)
from deployments.strategies.base import Strategy, caution, info
from deployments.strategies.projection import (
    Projection,
    projection,
    room_reasons,
)
from deployments.strategies.remedies import Case, memory_reasons, room_of
from deployments.strategies.remote_layers import remote_layers_reasons
from omni.units import MIB, bytes_text

NO_REPACK = "--no-repack"
# --cache-ram of llama-server where it is not given.
DEFAULT_CACHE_RAM_BYTES = 8192 * MIB
# What the host itself needs while stand-ins use its memory.
STAND_INS_SHARE = 0.9


@dataclass(frozen=True)
class PlacedModel:
    """A model at its places. `chosen` are the settings with everything that was auto decided."""

    member: Member
    host: DeviceFacts
    settings: MemorySettings
    chosen: Mapping[str, int | str]
    use: MemoryUse
    fits: bool
    speed: SpeedModel
    reasons: tuple[Reason, ...]
    projection: Projection | None = None

    @property
    def cards(self) -> tuple[DeviceFacts, ...]:
        return working_devices(self.member.devices, self.settings)

    @property
    def layers_on_cards(self) -> int:
        """The output counts as one."""
        whole = self.member.shape.n_layer + 1
        return min(
            self.settings.gpu_layers if self.settings.gpu_layers is not None else whole,
            whole,
        )


def host_of(request: PlanRequest) -> DeviceFacts:
    return next(
        (d for d in request.host_devices if d.kind == "cpu"), DeviceFacts("CPU")
    )


def place_model(
    request: PlanRequest,
    member: Member,
    strategy: Strategy,
    *,
    split_mode: str = "layer",
    open_keys: Collection[str] = ("gpu_layers",),
    shares: tuple[float, ...] = (),
    reserved: Mapping[str, int] | None = None,
    swa_full: bool = False,
    own_drafting: bool = False,
    draft_max: int = 0,
) -> PlacedModel:
    """`open_keys` are the settings that the planner may choose where they are auto, `shares` a cut
    that is already decided, `reserved` bytes that something else of the same plan takes on a
    device, `draft_max` the tokens of a draft that this model checks at once, `own_drafting`
    whether its own layers draft them."""
    given = own_settings(request, strategy)
    values = with_defaults(given)
    settings = asked_settings(request, member, strategy, split_mode)
    settings = replace(settings, load_nextn=own_drafting, draft_max=draft_max)
    settings = replace(settings, swa_full=True) if swa_full else settings
    context = settings.context
    if shares:
        settings = replace(settings, tensor_split=shares)
    host = host_of(request)
    check_shares(settings.tensor_split, working_devices(member.devices, settings))
    cards = _sharing_ram(working_devices(member.devices, settings), host)
    seeing = projection(request, cards, host, settings)
    free = tuple(_reserved(d, reserved or {}) for d in (*cards, host))
    devices = _leaving_room(seeing, free)
    fixed = frozenset(
        key for key in PLACEMENT_SETTINGS if key not in open_keys or values[key] != AUTO
    )
    if get_flavour(request.engine.flavour).reads_gguf:
        fixed |= decided_by(request.extra_args)
    found = _fit(member, devices, settings, fixed)
    applied = found.applied(settings)
    cards = working_devices(devices, applied)
    may_offload = "gpu_layers" in open_keys and not member.shape.is_folder
    spare = tuple(
        d
        for d in request.host_devices
        if d.kind != "cpu" and d.name not in {c.name for c in devices}
    )
    case = Case(
        member,
        devices,
        applied,
        fixed,
        strategy,
        may_offload,
        spare,
        found.short_by_bytes,
    )
    # To a tensor split all cards are one place.
    places = place(member.shape, cards[:1] if shares else cards, applied)
    reasons = (
        *_context_reasons(request, member, context),
        *memory_reasons(case, found),
        *remote_layers_reasons(member.shape, cards, places),
        *_prompt_cache_reasons(request, values, host, found),
        *room_reasons(seeing, applied),
    )
    use = seeing.added_to(found.use) if seeing else found.use
    speed = SpeedModel(member.shape, cards, host, places, applied, shares)
    chosen = _chosen(values, given, applied, context, member, bool(cards))
    return PlacedModel(
        member, host, applied, chosen, use, found.fits, speed, reasons, seeing
    )


def fits(request: PlanRequest, member: Member, strategy: Strategy) -> bool:
    """Whether it fits exactly as it is asked for, nothing left to the planner."""
    settings = asked_settings(request, member, strategy)
    host = host_of(request)
    cards = _sharing_ram(working_devices(member.devices, settings), host)
    seeing = projection(request, cards, host, settings)
    devices = _leaving_room(seeing, (*cards, host))
    return _fit(member, devices, settings, frozenset(PLACEMENT_SETTINGS)).fits


def _leaving_room(
    seeing: Projection | None, devices: Sequence[DeviceFacts]
) -> tuple[DeviceFacts, ...]:
    """The devices without what the projector takes there."""
    return tuple(_reserved(d, seeing.reserved if seeing else {}) for d in devices)


def _reserved(device: DeviceFacts, reserved: Mapping[str, int]) -> DeviceFacts:
    if device.free_bytes is None:
        free = device.total_bytes
    else:
        free = device.free_bytes
    if free is None or not reserved.get(device.name):
        return device
    return replace(device, free_bytes=max(free - reserved[device.name], 0))


def _sharing_ram(
    cards: Sequence[DeviceFacts], host: DeviceFacts
) -> tuple[DeviceFacts, ...]:
    """Stand-ins live in the host's memory: together they have no more than that."""
    count = sum(card.is_stand_in for card in cards)
    room = room_of(host)
    if not count or room is None:
        return tuple(cards)
    part = int(room * STAND_INS_SHARE / count)
    return tuple(
        replace(c, free_bytes=_at_most(part, room_of(c))) if c.is_stand_in else c
        for c in cards
    )


def _at_most(part: int, own_room: int | None) -> int:
    """A room of 0 is known: nothing is left there."""
    if own_room is None:
        return part
    return min(part, own_room)


def _fit(
    member: Member,
    devices: Sequence[DeviceFacts],
    settings: MemorySettings,
    fixed: frozenset[str],
) -> Fit:
    """First with the usual margin; what only fits without it is still a fit, and is called
    tight."""
    for margin_bytes in (DEFAULT_MARGIN_BYTES, 0):
        found = first_fit(member.shape, devices, settings, margin_bytes, fixed)
        if found:
            return found
    return best_fit(
        member.shape, devices, settings, DEFAULT_MARGIN_BYTES, fixed, find_context=False
    )


def _chosen(
    values: Mapping[str, int | str],
    given: Mapping[str, object],
    applied: MemorySettings,
    context: int,
    member: Member,
    has_cards: bool,
) -> dict[str, int | str]:
    chosen: dict[str, int | str] = {key: values[key] for key in given} | {
        "context": context
    }
    if has_cards:
        whole = applied.gpu_layers is None or applied.gpu_layers > member.shape.n_layer
        chosen["gpu_layers"] = ALL if whole else int(applied.gpu_layers or 0)
    if applied.tensor_split and len(applied.tensor_split) > 1:
        chosen[SHARES] = split_text(applied.tensor_split)
    if applied.cpu_moe:
        chosen["n_cpu_moe"] = ALL
    elif applied.n_cpu_moe:
        chosen["n_cpu_moe"] = applied.n_cpu_moe
    return chosen


# --- reasons --------------------------------------------------------------------------------------
def _context_reasons(
    request: PlanRequest, member: Member, context: int
) -> list[Reason]:
    """`context` is what is planned with."""
    trained = member.facts.n_ctx_train
    asked = context_tokens(request.settings, member.facts.n_ctx_train)
    if context < asked and trained:
        if asked_slots(request) > 1:
            each = f" for each of {asked_slots(request)} requests"
        else:
            each = ""
        text = (
            f"{asked:,} tokens of context are asked for; the engine uses the {trained:,} that"
            f" {member.name} was "
        )
        text += f"trained for{each}. Planned with {context:,}."
        return [
            caution(
                "context_beyond_training", text, f"Use {context:,}.", context=context
            )
        ]
    if (
        not trained
        or context <= trained * asked_slots(request)
        or member is request.members.get("draft")
    ):
        return []
    text = (
        f"The context is {context:,} tokens; {member.name} was trained for {trained:,}."
    )
    fix = f"Use at most {trained:,}, or expect worse answers in long conversations."
    return [caution("context_beyond_training", text, fix, context=trained)]


def _prompt_cache_reasons(
    request: PlanRequest, values: Mapping[str, int | str], host: DeviceFacts, found: Fit
) -> list[Reason]:
    """Left to itself the engine keeps prompts seen before in main memory, as they come."""
    room = room_of(host)
    is_kept = values["cache_ram_mib"] == AUTO and "-cram" in request.engine.flags
    if not is_kept or room is None or not found.fits:
        return []
    left = max(room - found.use.host.resident_bytes, 0)
    if left >= DEFAULT_CACHE_RAM_BYTES:
        return []
    text = (
        f"Prompts seen before may fill up to {bytes_text(DEFAULT_CACHE_RAM_BYTES)} of main memory"
        " as they come; "
    )
    text += f"beside this plan {bytes_text(left)} are left."
    return [
        info(
            "prompt_cache",
            text,
            f"Limit them by cache_ram_mib, for example to {left // 2 // MIB}.",
        )
    ]


# --- what a plan shows ----------------------------------------------------------------------------


def instance(
    request: PlanRequest,
    placed_: PlacedModel,
    role: str,
    *,
    alias: str = "",
    split_mode: str = "",
    draft: DraftSpec | None = None,
    slots_folder: str = "",
    swa_full: bool = False,
    file_bytes: int = 0,
    more_devices: Sequence[DeviceFacts] = (),
) -> InstancePlan:
    """One server process. Raises OmniError when the engine cannot do it."""
    command = _command(
        request, placed_, alias, split_mode, draft, slots_folder, swa_full
    )
    names = dict.fromkeys(d.name for d in (*placed_.member.devices, *more_devices))
    return InstancePlan(
        role=role,
        argv=command.argv,
        env=command.env,
        devices=tuple(names),
        needs_devices=command.needs_devices,
        files=command.files,
        launch=command.launch,
        file_bytes=file_bytes or _file_bytes(placed_),
    )


def _file_bytes(placed_: PlacedModel) -> int:
    own = placed_.member.facts.size_bytes
    if placed_.projection:
        return own + placed_.projection.member.facts.size_bytes
    return own


def _command(
    request: PlanRequest,
    placed_: PlacedModel,
    alias: str,
    split_mode: str,
    draft: DraftSpec | None,
    slots_folder: str,
    swa_full: bool,
) -> Command:
    return get_flavour(request.engine.flavour).command(
        ServerSpec(
            engine=request.engine,
            model_path=placed_.member.path,
            kind=placed_.member.facts.kind,
            pooling=placed_.member.facts.pooling,
            devices=placed_.member.devices,
            alias=alias or request.alias,
            context_tokens=placed_.settings.context,
            settings=placed_.chosen,
            extra_args=_extra_args(request, placed_),
            api_key_file=request.api_key_file,
            split_mode=split_mode,
            draft=draft,
            projector=placed_.projection.spec if placed_.projection else None,
            slots_folder=slots_folder,
            swa_full=swa_full,
            kv_bytes=sum(use.kv_bytes for use in placed_.use.devices),
        )
    )


def _extra_args(request: PlanRequest, placed_: PlacedModel) -> tuple[str, ...]:
    """Those of the user, and what the planner decided that has no setting."""
    given = request.extra_args
    if (
        placed_.settings.repack
        or NO_REPACK not in request.engine.flags
        or NO_REPACK in " ".join(given)
    ):
        return given
    return (*given, NO_REPACK)


def needs(placed_: PlacedModel) -> dict[str, int]:
    """Bytes by device, for another model of the same plan to leave alone."""
    return {use.name: use.needed_bytes for use in placed_.use.devices}
