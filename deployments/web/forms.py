"""What a person types on the deployment pages, checked field by field."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django import forms
from django.http import QueryDict

from deployments.advice.purposes import KNOWN, checked_purposes
from deployments.engines.external import EXTERNAL
from deployments.engines.flag_table import ALLOWED
from deployments.engines.flags import allowed_args
from deployments.formats.kinds import Kind
from deployments.models import Deployment, Engine, Model
from deployments.names import LENGTH
from deployments.planning.roles import PROJECTOR
from deployments.planning.settings import (
    AUTO,
    SETTINGS,
    Group,
    Setting,
    conflicts,
    validated,
)
from deployments.services.checks import check_formats, check_name, free_name
from deployments.services.deployments import deployment_change, deployment_create
from deployments.services.projectors import projectors_for
from deployments.strategies import STRATEGIES
from deployments.strategies.base import Strategy
from deployments.web.form_fields import ModelField, choice_field, model_field
from deployments.web.role_fields import (
    DRAFT_MODEL,
    MODEL,
    STRATEGY,
    RoleField,
    bound_projector,
    initial_members,
    members_of,
    role_fields,
)
from gpus.models import Device, Host
from omni.errors import OmniError

PURPOSES, OTHER_PURPOSES = "purposes", "other_purposes"
FIRST_STRATEGY = next(iter(STRATEGIES))
PREFIX = "setting_"
# What is asked for depends on them: the form comes again, with all that is typed in it.
SHOWN_ANEW = {
    "hx-get": "",
    "hx-trigger": "change",
    "hx-include": "closest form",
    "hx-params": "not csrfmiddlewaretoken",
    "hx-target": "closest form",
    "hx-select": ".deployment-form",
    "hx-swap": "outerHTML",
}
CONTEXT_SUGGESTIONS = (
    AUTO,
    "2048",
    "4096",
    "8192",
    "16384",
    "32768",
    "65536",
    "131072",
)


def engine_label(engine: Engine) -> str:
    if engine.was_verified:
        return engine.name
    return f"{engine.name} (not verified on this machine)"


class EngineField(ModelField):
    def label_from_instance(self, obj: Any) -> str:
        return engine_label(obj)


def _strategies() -> list[tuple[str, str]]:
    return [(each.name, each.title) for each in STRATEGIES.values()]


class DeploymentForm(forms.Form):
    """Creates a deployment, or changes the one it is given.

    Which roles and settings it asks for is its strategy's.
    """

    strategy = forms.ChoiceField(choices=_strategies)
    name = forms.CharField(
        required=False,
        max_length=LENGTH["deployments"],
        help_text="Programs ask for it by this name. Left empty, it is made from the model's name.",
    )
    model = forms.ModelChoiceField(
        Model.objects.none(), to_field_name="name", empty_label="Choose a model …"
    )
    draft = forms.ModelChoiceField(
        Model.objects.none(),
        to_field_name="name",
        required=False,
        label="Draft model",
        empty_label="None: draft from the text itself",
        help_text="A small model of the same family that guesses ahead.",
    )
    projector = forms.ChoiceField(
        required=False,
        label="Projector",
        help_text="The file with which the model sees or hears. It goes on the model's first"
        " device.",
        error_messages={"invalid_choice": "%(value)s is no projector for this model."},
    )
    engine = EngineField(Engine.objects.none(), empty_label=None)
    purposes = forms.MultipleChoiceField(
        choices=[(name, name) for name in KNOWN],
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="What it is for, and so what auto may send here.",
    )
    other_purposes = forms.CharField(
        required=False,
        help_text="Names of your own, with commas between them, such as translation.",
        widget=forms.TextInput(attrs={"autocapitalize": "off", "spellcheck": "false"}),
    )
    extra_args = forms.CharField(
        required=False,
        label="More engine flags",
        widget=forms.Textarea(
            attrs={"rows": 3, "spellcheck": "false", "class": "mono"}
        ),
        help_text="One per line, such as --cache-reuse 256. Only flags on the list are taken.",
    )

    def __init__(
        self,
        *args: Any,
        host: Host,
        deployment: Deployment | None = None,
        **kwargs: Any,
    ) -> None:
        self.host = host
        self.deployment = deployment
        kwargs["initial"] = _initial(deployment) | kwargs.get("initial", {})
        super().__init__(*args, **kwargs)
        asked = (self.data if self.is_bound else self.initial).get(STRATEGY)
        self.strategy_chosen: Strategy = STRATEGIES.get(
            str(asked), STRATEGIES[FIRST_STRATEGY]
        )
        if deployment:
            self.initial = {
                **initial_members(deployment, self.strategy_chosen),
                **self.initial,
            }
            del self.fields["name"]
        self.initial.setdefault(STRATEGY, FIRST_STRATEGY)
        self.roles: list[RoleField] = list(role_fields(self.strategy_chosen))
        self._add_choices()
        for setting in self._asked_settings():
            self.fields[PREFIX + setting.key] = setting_field(
                setting, PREFIX + setting.key
            )
        for name, field in self.fields.items():
            field.widget.attrs.setdefault("aria-describedby", f"{name}-help")
        for name in (STRATEGY, MODEL):
            self.fields[name].widget.attrs.update(SHOWN_ANEW)

    def _asked_settings(self) -> list[Setting]:
        """Those the strategy looks at, in the order of their groups."""
        order = list(Group)
        asked = [s for s in SETTINGS.values() if self.strategy_chosen.looks_at(s)]
        return sorted(asked, key=lambda s: order.index(s.group))

    def _add_choices(self) -> None:
        plain = ("facts", "shape", "vocab")
        model_field(self, MODEL).queryset = Model.deployable().defer(*plain)
        if any(role.needs_model == DRAFT_MODEL for role in self.roles):
            model_field(self, DRAFT_MODEL).queryset = Model.drafting().defer(*plain)
        else:
            del self.fields[DRAFT_MODEL]
        self._add_projectors()
        engines = (
            Engine.objects.select_related("host")
            .filter(host=self.host, state=Engine.State.OK)
            .exclude(flavour=EXTERNAL)
        )
        model_field(self, "engine").queryset = engines
        devices = [
            (d.name, device_label(d))
            for d in Device.objects.filter(host=self.host, is_present=True)
        ]
        for role in self.roles:
            self.fields[role.name] = forms.MultipleChoiceField(
                choices=devices,
                required=not role.is_optional,
                label=role.label,
                widget=forms.CheckboxSelectMultiple,
                error_messages={"required": "Choose at least one; CPU is one too."},
                help_text=role.help_text,
            )

    def _add_projectors(self) -> None:
        """Those that could belong to the model that is chosen; without any there is no field."""
        asked = self.data if self.is_bound else self.initial
        offered: list[tuple[str, str]] = []
        if self.strategy_chosen.takes_projector and Model.projecting().exists():
            model = Model.deployable().filter(name=str(asked.get(MODEL) or "")).first()
            offered = projector_choices(model, bound_projector(self.deployment))
        if not offered:
            del self.fields[PROJECTOR]
            return
        choice_field(self, PROJECTOR).choices = [("", "None: texts only"), *offered]

    # --- groups for the page ----------------------------------------------------------------------
    def main_settings(self) -> Iterator[forms.BoundField]:
        return self._settings(advanced=False)

    def advanced_settings(self) -> Iterator[forms.BoundField]:
        return self._settings(advanced=True)

    def _settings(self, *, advanced: bool) -> Iterator[forms.BoundField]:
        for setting in self._asked_settings():
            if setting.advanced == advanced:
                yield self[PREFIX + setting.key]

    def device_fields(self) -> Iterator[forms.BoundField]:
        for role in self.roles:
            yield self[role.name]

    @property
    def opens_advanced(self) -> bool:
        """Something below the fold is wrong, or was set."""
        keys = [PREFIX + s.key for s in self._asked_settings() if s.advanced] + [
            "engine",
            "extra_args",
        ]
        before = self.deployment
        set_before = before and (
            before.extra_args or any(PREFIX + key in keys for key in before.settings)
        )
        return bool(set_before) or any(key in self.errors for key in keys)

    @property
    def allowed_flags(self) -> list[str]:
        return sorted(ALLOWED)

    # --- checks -----------------------------------------------------------------------------------
    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"].strip()
        if name:
            with _field_error():
                check_name(name)
        return name

    def clean_other_purposes(self) -> list[str]:
        said = self.cleaned_data[OTHER_PURPOSES].replace(",", " ")
        with _field_error():
            return checked_purposes(said.split())

    def clean_extra_args(self) -> list[str]:
        lines = [
            line.strip()
            for line in self.cleaned_data["extra_args"].splitlines()
            if line.strip()
        ]
        with _field_error():
            allowed_args(lines)
        return lines

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        for key, error in conflicts(self._values(data)):
            self.add_error(PREFIX + key, str(error))
        if data.get("engine") and data.get(MODEL):
            try:
                check_formats(
                    data["engine"],
                    [data[key] for key in (MODEL, DRAFT_MODEL) if data.get(key)],
                )
            except OmniError as error:
                self.add_error("engine", str(error))
        for role in self.roles:
            if (
                role.is_optional
                and data.get(role.needs_model)
                and data.get(role.name) == []
            ):
                self.add_error(role.name, "Choose at least one; CPU is one too.")
        return data

    def _members(self, data: dict[str, Any]) -> dict[str, tuple[Model, list[str]]]:
        members = members_of(self.strategy_chosen, data)
        if name := data.get(PROJECTOR):
            members[PROJECTOR] = (Model.objects.get(name=name), [])
        return members

    def _values(self, data: dict[str, Any]) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        given = {
            s.key: data[PREFIX + s.key]
            for s in self._asked_settings()
            if PREFIX + s.key in data
        }
        return {
            key: value for key, value in given.items() if value != SETTINGS[key].default
        }

    def save(self, user: Any) -> Deployment:
        """Raises OmniError when somebody was faster with the name."""
        data = self.cleaned_data
        values: dict[str, Any] = {
            "engine": data["engine"],
            "strategy": self.strategy_chosen.name,
            "members": self._members(data),
            "settings": validated(self._values(data)),
            "extra_args": data["extra_args"],
            "purposes": [*data[PURPOSES], *data[OTHER_PURPOSES]],
            "user": user,
        }
        if self.deployment:
            return deployment_change(deployment=self.deployment, **values)
        name = data["name"] or free_name(data["model"].name)
        return deployment_create(name=name, **values)


def projector_choices(model: Model | None, kept: str = "") -> list[tuple[str, str]]:
    """(name, label) of what could be the model's: the certain ones first, guesses marked.

    `kept` is the one that it has: it stays a choice, whatever it says of itself.
    """
    if model is None or model.is_folder or model.kind != Kind.TEXT:
        return []
    offered = projectors_for(model)
    others = () if kept in (*offered.certain, *offered.possible, "") else (kept,)
    notes = {
        **dict.fromkeys(offered.certain, ""),
        **dict.fromkeys(offered.possible, "a guess: the width fits"),
        **dict.fromkeys(others, "not this model's by its name"),
    }
    said = {
        name: ", ".join(filter(None, (note, "audio only" * (name in offered.blind))))
        for name, note in notes.items()
    }
    return [(name, f"{name} ({note})" if note else name) for name, note in said.items()]


def typed_so_far(query: QueryDict) -> dict[str, Any]:
    """Field name → what stands in it, for a form that is shown again because its strategy
    changed."""

    def takes_many(name: str) -> bool:
        return name.startswith("devices") or name == PURPOSES

    return {
        name: query.getlist(name) if takes_many(name) else query[name] for name in query
    }


@contextmanager
def _field_error() -> Iterator[None]:
    """Turns an OmniError into the error of the field that is being cleaned."""
    try:
        yield
    except OmniError as error:
        raise forms.ValidationError(str(error)) from None


class SettingField(forms.CharField):
    """A setting's value in its own type; empty is the default."""

    # What the field proposes besides what can be typed.
    suggestions: tuple[str, ...] = ()

    def __init__(self, setting: Setting, **kwargs: Any) -> None:
        self.setting = setting
        super().__init__(required=False, **kwargs)

    def clean(self, value: Any) -> int | str:
        text = str(value or "").strip()
        try:
            return self.setting.parsed(text or self.setting.default)
        except OmniError as error:
            raise forms.ValidationError(str(error)) from None


def setting_field(setting: Setting, name: str) -> SettingField:
    """`name` is the field's name in its form: suggestions are tied to it."""
    widget: forms.Widget
    takes_text = setting.is_number or setting.is_list or setting.is_name
    if not takes_text:
        widget = forms.Select(choices=[(word, word) for word in setting.words])
    elif setting.words:
        widget = forms.TextInput(attrs={"list": f"{name}-list", "autocomplete": "off"})
    else:
        widget = forms.NumberInput(attrs={"min": setting.low, "max": setting.high})
    if setting.unit:
        title = f"{setting.title} ({setting.unit})"
    else:
        title = setting.title
    field = SettingField(
        setting,
        label=title,
        help_text=setting.help,
        widget=widget,
        initial=setting.default,
    )
    field.suggestions = ()
    if takes_text and setting.words:
        field.suggestions = tuple(setting.words)
        if setting.key == "context":
            field.suggestions = CONTEXT_SUGGESTIONS
    return field


def _initial(deployment: Deployment | None) -> dict[str, Any]:
    if deployment is None:
        return {}
    settings = {PREFIX + key: value for key, value in deployment.settings.items()}
    return settings | {
        STRATEGY: deployment.strategy,
        "engine": deployment.engine_id,
        "extra_args": "\n".join(deployment.extra_args),
        PURPOSES: [name for name in deployment.purposes if name in KNOWN],
        OTHER_PURPOSES: ", ".join(n for n in deployment.purposes if n not in KNOWN),
    }


def device_label(device: Device) -> str:
    """What a person picks by: the engine's name of it and what it is."""
    if device.is_stand_in:
        return f"{device.name}: CPU-backed stand-in"
    if device.gpu:
        what = device.gpu.name
    else:
        what = device.description or device.get_kind_display()
    return f"{device.name}: {what}"


class FolderForm(forms.Form):
    path = forms.CharField(
        max_length=500, label="Folder", help_text="Full path on the panel's machine."
    )
