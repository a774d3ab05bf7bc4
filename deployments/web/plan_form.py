"""The knobs of the Plan page, checked field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.http import QueryDict

from deployments.engines import FLAVOURS
from deployments.engines.external import EXTERNAL
from deployments.formats.kinds import DEPLOYABLE, DRAFTING, Kind
from deployments.models import Engine, Model
from deployments.planning import roles
from deployments.planning.roles import PROJECTOR, source_of
from deployments.planning.settings import SETTINGS, Group, Setting, conflicts
from deployments.services.defaults import first_engine
from deployments.strategies import STRATEGIES
from deployments.strategies.base import Strategy
from deployments.web.form_fields import choice_field
from deployments.web.forms import engine_label, setting_field
from gpus.facts import memory_in_use
from gpus.models import Device, Host

MODEL = "model"
DRAFT = "draft"
DEVICE = "device"
DRAFT_DEVICE = "draft_device"
ENGINE = "engine"


@dataclass(frozen=True)
class Stock:
    """What there is to choose from, read once."""

    host: Host
    models: list[Model]
    drafts: list[Model]
    projectors: list[Model]
    engines: list[Engine]
    devices: list[Device]
    # Bytes in use now, by device; what is not known is left out.
    used: Mapping[str, int]

    def engine_for(self, model: str) -> Engine | None:
        """The one that is taken for a model where the query names none."""
        return first_engine(
            self.engines, next((row for row in self.models if row.name == model), None)
        )


def read_stock(host: Host) -> Stock:
    # What a header says is large; only that of the chosen ones is read.
    found = Model.objects.filter(state=Model.State.OK)
    rows = list(found.only("name", "quant", "format", "kind"))
    models, drafts, projectors = (
        [row for row in rows if row.kind in kinds]
        for kinds in (DEPLOYABLE, DRAFTING, {Kind.PROJECTOR})
    )
    engines = list(
        Engine.objects.select_related("host")
        .filter(host=host, state=Engine.State.OK)
        .exclude(flavour=EXTERNAL)
    )
    devices = list(
        Device.objects.filter(host=host, is_present=True).select_related("gpu")
    )
    return Stock(
        host,
        models,
        drafts,
        projectors,
        engines,
        devices,
        _used(host, devices),
    )


def _used(host: Host, devices: list[Device]) -> dict[str, int]:
    used = memory_in_use(host.name)
    keys = {
        d.name: "host" if d.kind == Device.Kind.CPU else d.card_key for d in devices
    }
    return {name: used[key] for name, key in keys.items() if key in used}


def _choices(models: list[Model]) -> list[tuple[str, str]]:
    return [
        (model.name, f"{model.name} ({model.quant})" if model.quant else model.name)
        for model in models
    ]


class PlanForm(forms.Form):
    """Values come from the query string: a key that is missing has its default, so that every link
    is short."""

    model = forms.ChoiceField(
        error_messages={"invalid_choice": "There is no model %(value)s."}
    )
    draft = forms.ChoiceField(
        required=False,
        label="Draft model",
        help_text="A small model of the same family that guesses ahead, for speculative decoding.",
        error_messages={"invalid_choice": "There is no model %(value)s."},
    )
    draft_device = forms.ChoiceField(
        required=False,
        label="Draft device",
        help_text="Where it runs. auto: the card with the least memory; beside one card the CPU.",
    )
    projector = forms.ChoiceField(
        required=False,
        label="Projector",
        help_text="The file with which the model sees or hears. A plan says whether it is the"
        " model's own.",
        error_messages={"invalid_choice": "There is no projector %(value)s."},
    )
    device = forms.MultipleChoiceField(
        label="Devices",
        widget=forms.CheckboxSelectMultiple,
        error_messages={
            "required": "Choose at least one; CPU is one too.",
            "invalid_choice": "There is no device %(value)s.",
        },
    )
    engine = forms.ChoiceField(
        error_messages={"invalid_choice": "There is no such engine."}
    )

    def __init__(self, query: QueryDict, stock: Stock) -> None:
        self.stock = stock
        self.complete = _complete(query, stock)
        super().__init__(self.complete, use_required_attribute=False)
        models = _choices(stock.models)
        drafts = _choices(stock.drafts)
        devices = [(device.name, device.name) for device in stock.devices]
        self._choose(MODEL, models)
        self._choose(DRAFT, [("", "none"), *drafts])
        projectors = _choices(stock.projectors)
        self._choose(PROJECTOR, [("", "none: texts only"), *projectors])
        self._choose(DEVICE, devices)
        self._choose(DRAFT_DEVICE, [("", "auto"), *devices])
        self._choose(
            ENGINE, [(str(engine.pk), engine_label(engine)) for engine in stock.engines]
        )
        for setting in SETTINGS.values():
            self.fields[setting.key] = setting_field(setting, setting.key)
        for name, field in self.fields.items():
            field.widget.attrs["aria-describedby"] = f"{name}-help {name}-errors"

    def _choose(self, name: str, choices: list[tuple[str, str]]) -> None:
        choice_field(self, name).choices = choices

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if (asked := data.get(DRAFT_DEVICE)) and asked not in data.get(DEVICE, ()):
            self.add_error(DRAFT_DEVICE, f"{asked} is not among the chosen devices.")
        for key, error in conflicts(self.settings(data)):
            self.add_error(key, str(error))
        return data

    def settings(self, data: Mapping[str, Any] | None = None) -> dict[str, int | str]:
        """Those that differ from their defaults."""
        data = self.cleaned_data if data is None else data
        return {
            s.key: data[s.key]
            for s in SETTINGS.values()
            if data.get(s.key, s.default) != s.default
        }

    def query(self, changes: Mapping[str, int | str] | None = None) -> str:
        """The shortest query string that asks for this, with changed settings if there are any."""
        short = QueryDict(mutable=True)
        for key in (MODEL, DRAFT, DRAFT_DEVICE, PROJECTOR):
            value = self.data.get(key)
            if value:
                short[key] = value
        short.setlist(DEVICE, self.wanted_devices or [""])
        if self.data.get(ENGINE) != _engine_key(
            self.stock.engine_for(self.data.get(MODEL, ""))
        ):
            short[ENGINE] = self.data.get(ENGINE, "")
        for setting in SETTINGS.values():
            value = str(
                (changes or {}).get(setting.key, self.data.get(setting.key, ""))
            ).strip()
            if value and value != str(setting.default):
                short[setting.key] = value
        return short.urlencode()

    @property
    def wanted_devices(self) -> list[str]:
        return self.complete.getlist(DEVICE)

    # --- groups for the page ----------------------------------------------------------------------
    def main_settings(self) -> Iterator[forms.BoundField]:
        return self._settings("main")

    def draft_settings(self) -> Iterator[forms.BoundField]:
        return self._settings("draft")

    def advanced_settings(self) -> Iterator[forms.BoundField]:
        return self._settings("advanced")

    def _settings(self, place: str) -> Iterator[forms.BoundField]:
        order = list(Group)
        for setting in sorted(SETTINGS.values(), key=lambda s: order.index(s.group)):
            if _place(setting) == place:
                yield self[setting.key]

    @property
    def opens_draft(self) -> bool:
        return self._is_touched("draft") or any(
            self.data.get(key) or key in self.errors for key in (DRAFT, DRAFT_DEVICE)
        )

    @property
    def opens_advanced(self) -> bool:
        return self._is_touched("advanced")

    def _is_touched(self, place: str) -> bool:
        """Something below the fold is wrong, or was set."""
        keys = [
            setting.key for setting in SETTINGS.values() if _place(setting) == place
        ]
        return any(
            key in self.errors
            or self.data.get(key, "") not in ("", str(SETTINGS[key].default))
            for key in keys
        )


def _place(setting: Setting) -> str:
    """What every strategy looks at comes first; what few look at does not stand in everybody's
    way."""
    if any(
        _drafts(strategy) and strategy.has_own(setting)
        for strategy in STRATEGIES.values()
    ):
        return "draft"
    if setting.advanced or setting.of_strategy:
        return "advanced"
    return "main"


def _drafts(strategy: Strategy) -> bool:
    return any(source_of(role) == roles.DRAFT for role in strategy.roles)


def _complete(query: QueryDict, stock: Stock) -> QueryDict:
    """The query with what is missing filled in: first model, first engine that loads it, its
    devices, defaults."""
    full = query.copy()
    if not full.get(MODEL) and stock.models:
        full[MODEL] = stock.models[0].name
    if not full.get(ENGINE):
        full[ENGINE] = _engine_key(stock.engine_for(full.get(MODEL, "")))
    if DEVICE not in full:
        full.setlist(DEVICE, _first_devices(stock, str(full[ENGINE])))
    full.setlist(DEVICE, [name for name in full.getlist(DEVICE) if name])
    for setting in SETTINGS.values():
        if not full.get(setting.key):
            full[setting.key] = str(setting.default)
    return full


def _first_devices(stock: Stock, engine: str) -> list[str]:
    """Every device of the one kind the engine computes on; else every accelerator."""
    flavour = next(
        (
            FLAVOURS[e.flavour].device_kind(e.build)
            for e in stock.engines
            if str(e.pk) == engine
        ),
        "",
    )
    own = [device.name for device in stock.devices if device.kind == flavour]
    cards = [device.name for device in stock.devices if device.kind != Device.Kind.CPU]
    return own or cards or [device.name for device in stock.devices][:1]


def _engine_key(engine: Engine | None) -> str:
    if engine:
        return str(engine.pk)
    return ""
