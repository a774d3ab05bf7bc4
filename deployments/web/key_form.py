"""What a person says about a gateway key: name, last day, what it may ask for and how much."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from typing import Any, ClassVar

from django import forms
from django.utils import timezone

from deployments.advice.purposes import KNOWN
from deployments.models import ApiKey
from deployments.services.keys import LARGEST_LIMIT, LONGEST_NAME, KeyTerms
from deployments.web.form_fields import choice_field, describe


def _limit(label: str, help_text: str) -> forms.IntegerField:
    return forms.IntegerField(
        min_value=0,
        max_value=LARGEST_LIMIT,
        required=False,
        label=label,
        help_text=help_text,
        widget=forms.NumberInput(attrs={"inputmode": "numeric", "placeholder": "none"}),
    )


class KeyForm(forms.Form):
    """Of a new key, or of the one that it is given."""

    name = forms.CharField(
        max_length=LONGEST_NAME,
        help_text="Which program it is for, such as notebook.",
        widget=forms.TextInput(attrs={"autocomplete": "off"}),
    )
    last_day = forms.DateField(
        required=False,
        help_text="It is refused after this day (UTC). Left empty, it does not expire.",
        widget=forms.DateInput(attrs={"type": "date"}, format="%Y-%m-%d"),
    )
    models = forms.MultipleChoiceField(
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text=(
            "Deployments and routes by the name that programs ask for. Where nothing is ticked here"
            " and below, the key may ask for everything."
        ),
    )
    purposes = forms.MultipleChoiceField(
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text="Every deployment that is for one of these, also one that is made later.",
    )
    requests_per_minute = _limit(
        "Requests per minute", "Left empty, there is no limit."
    )
    tokens_per_minute = _limit("Tokens per minute", "Prompts and answers together.")
    concurrent_requests = _limit("Concurrent requests", "Running at the same time.")

    LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
    # Which field an error of the services is about.
    FIELD_OF: ClassVar[dict[str, str]] = {"bad_key_name": "name"}

    def __init__(
        self,
        sent: Any,
        *,
        names: Iterable[str],
        purposes: Iterable[str] = (),
        key: ApiKey | None = None,
    ) -> None:
        self.key = key
        super().__init__(sent, initial=_initial(key))
        kept = key.allowed_names if key else []
        known = key.allowed_purposes if key else []
        self._offer("models", names, kept)
        self._offer("purposes", [*KNOWN, *purposes], known)
        describe(self)

    def _offer(self, field: str, names: Iterable[str], kept: Iterable[str]) -> None:
        """What the key has already stays to be seen, and can be taken away, where it is gone."""
        there = list(dict.fromkeys(names))
        gone = [name for name in kept if name not in there]
        choice_field(self, field).choices = [
            *((name, name) for name in there),
            *((name, f"{name} (not there now)") for name in gone),
        ]

    @property
    def limit_fields(self) -> list[forms.BoundField]:
        return [self[name] for name in self.LIMITS]

    def clean_last_day(self) -> date | None:
        day: date | None = self.cleaned_data["last_day"]
        is_new = "last_day" in self.changed_data
        if day and is_new and day < timezone.now().date():
            raise forms.ValidationError("This day is over.")
        return day

    def terms(self) -> KeyTerms:
        data = self.cleaned_data
        return KeyTerms(
            name=data["name"],
            expires_at=self._expires_at(),
            allowed_names=data["models"],
            allowed_purposes=data["purposes"],
            **{name: data[name] or 0 for name in self.LIMITS},
        )

    def _expires_at(self) -> datetime | None:
        """The end of the day; a time that the administration has set stays as it is."""
        if self.key and "last_day" not in self.changed_data:
            return self.key.expiry_date
        day = self.cleaned_data["last_day"]
        return datetime.combine(day, time.max, UTC) if day else None


def _initial(key: ApiKey | None) -> dict[str, Any]:
    if key is None:
        return {}
    return {
        "name": key.name,
        "last_day": key.expiry_date.astimezone(UTC).date() if key.expiry_date else None,
        "models": key.allowed_names,
        "purposes": key.allowed_purposes,
        **{name: getattr(key, name) or None for name in KeyForm.LIMITS},
    }
