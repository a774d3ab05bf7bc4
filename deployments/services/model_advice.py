"""Advice on one model: what could draft for it, and in which number formats it and its cache can be
used here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.engines.mtp import has_mtp
from deployments.formats.kinds import article
from deployments.models import Engine, Model
from deployments.planning.drafts import DraftChoice, DraftModel, rank_drafts
from deployments.planning.known_drafts import (
    KnownDraft,
    OwnDrafting,
    known_drafts,
    own_drafting,
)
from deployments.planning.memory.kv_types import KvRow, kv_table
from deployments.planning.memory.use import MemorySettings
from deployments.planning.plan import DeviceFacts
from deployments.planning.precision import FormatRow, card, file_formats, format_table
from deployments.planning.requantise import Requantisation, requantise
from deployments.planning.vocabulary import VocabFacts
from deployments.services.plans import model_facts, rig_facts, shape_of
from gpus.models import Device, Host
from omni.errors import OmniError

# What people ask for when they think of another quantisation.
WANTED = ("Q8_0", "Q4_K_M", "MXFP4", "F16")
# Working memory and drivers, beside weights and cache.
BESIDE_BYTES = 3 << 29
MOST_CANDIDATES = 60
MOST_DRAFTS = 2


@dataclass(frozen=True)
class Formats:
    """Weight formats on one device; `own` are those of the file."""

    device: str
    own: tuple[FormatRow, ...]
    others: tuple[FormatRow, ...]


@dataclass(frozen=True)
class Advice:
    drafts: tuple[DraftChoice, ...]
    refused: tuple[DraftChoice, ...]
    known: tuple[KnownDraft, ...]
    own: tuple[OwnDrafting, ...]
    formats: tuple[Formats, ...]
    requantised: tuple[tuple[str, Requantisation], ...]
    kv: tuple[KvRow, ...]
    kv_device: str


def advice(model: Model, host: Host, flavour: str) -> Advice:
    """Raises OmniError (model_unusable, not_gguf, not_deployable)."""
    if not model.is_deployable:
        text = (
            f"{model.name} is {article(model.kind)}: there is nothing to draft for and nothing to"
            " cache."
        )
        raise OmniError("not_deployable", text, model.use)
    if model.is_folder:
        text = (
            "Drafts, cache formats and quantising again are advised on for GGUF files; this model"
            " is a folder."
        )
        raise OmniError(
            "not_gguf",
            text,
            "Its engine's own documentation says which drafts and formats it takes.",
        )
    facts = model_facts(model)
    shape = shape_of(model)
    rig = rig_facts(host)
    if not facts.is_embedding:
        ranked = rank_drafts(_draft_model(model), _candidates(model))
    else:
        ranked = []
    device = _roomiest(rig)
    room = max((_room(device) if device else 0) - shape.weights_bytes - BESIDE_BYTES, 0)
    return Advice(
        drafts=tuple(choice for choice in ranked if choice.compatibility.ok),
        refused=tuple(choice for choice in ranked if not choice.compatibility.ok),
        known=tuple(known_drafts(facts)),
        own=tuple(own_drafting(facts, shape=shape, has_graph=_has_graph(facts.arch))),
        formats=tuple(_formats(model, host, flavour)),
        requantised=tuple((wanted, requantise(facts, wanted)) for wanted in WANTED),
        kv=tuple(
            kv_table(shape, MemorySettings(context=facts.n_ctx_train or 8192), room)
        ),
        kv_device=device.name if device else "",
    )


def drafts_for(model: Model) -> list[Model]:
    """The models of the library with which drafting for this one ought to pay most, the best first;
    few, as each is planned on each device."""
    try:
        ranked = rank_drafts(_draft_model(model), _candidates(model))
    except OmniError:
        return []
    names = [
        choice.name
        for choice in ranked
        if choice.compatibility.ok and choice.advice == "good"
    ]
    found = {each.name: each for each in Model.objects.filter(name__in=names)}
    return [found[name] for name in names[:MOST_DRAFTS] if name in found]


def _has_graph(arch: str) -> bool | None:
    """Whether an engine here drafts with the layers of models of this architecture; None: no engine
    tells."""
    engines = Engine.objects.filter(state=Engine.State.OK)
    told = [has_mtp(frozenset(engine.flags), arch) for engine in engines]
    known = [one for one in told if one is not None]
    if known:
        return any(known)
    return None


def _draft_model(model: Model) -> DraftModel:
    return DraftModel(model.name, model_facts(model), VocabFacts.from_dict(model.vocab))


def _candidates(model: Model) -> list[DraftModel]:
    """Smaller models of the library that write text, or were made to draft."""
    smaller = Model.drafting().filter(
        format=Model.Format.GGUF, n_params__lt=model.n_params or 0
    )
    found = []
    for candidate in smaller.defer("shape").order_by("n_params")[:MOST_CANDIDATES]:
        try:
            found.append(_draft_model(candidate))
        except OmniError:
            continue
    return found


def _roomiest(rig: Mapping[str, DeviceFacts]) -> DeviceFacts | None:
    """The card with the most memory; the host where there is no card."""
    cards = [device for device in rig.values() if device.kind != "cpu"] or list(
        rig.values()
    )
    return max(cards, key=_room, default=None)


def _room(device: DeviceFacts) -> int:
    return (device.total_bytes if device.free_bytes is None else device.free_bytes) or 0


def _formats(model: Model, host: Host, flavour: str) -> list[Formats]:
    """One table per kind of device: two equal cards, or stand-ins and the CPU they stand on, are
    one."""
    found: dict[str, Formats] = {}
    for device in Device.objects.filter(host=host, is_present=True).select_related(
        "gpu"
    ):
        kind = "cpu" if device.is_stand_in else device.kind
        if device.gpu:
            name = device.gpu.name
        elif kind == "cpu":
            name = "CPU"
        else:
            name = device.name
        if name in found:
            continue
        where = card(kind, device.gpu.compute_capability if device.gpu else "", name)
        own = tuple(file_formats(model_facts(model), where, flavour))
        shown = {row.format for row in own}
        found[name] = Formats(
            name,
            own,
            tuple(r for r in format_table(where, flavour) if r.format not in shown),
        )
    return list(found.values())
