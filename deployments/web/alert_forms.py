"""What a person sets of alerts: the limits of a rule, and where alerts are told."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms

from deployments.alerts.messages import TITLES, ChannelKind
from deployments.alerts.rules import LONGEST_S, SEVERITIES, Limits, Rule, Severity
from deployments.models import AlertChannel
from deployments.names import LENGTH
from deployments.services.alert_channels import (
    LONGEST_ADDRESS,
    LONGEST_TOKEN,
    ChannelTerms,
    Target,
)

SEVERITY_CHOICES = [(each.value, each.value.capitalize()) for each in SEVERITIES]
NOT_SHOWN = "Kept in a file that only Omni's user can read, and not shown again."


class RuleForm(forms.Form):
    """The limits of one rule."""

    is_on = forms.BooleanField(required=False, label="On")
    severity = forms.ChoiceField(choices=SEVERITY_CHOICES)
    threshold = forms.FloatField()
    clears_at = forms.FloatField()
    for_s = forms.IntegerField(label="Fires after, seconds", max_value=LONGEST_S)
    clears_for_s = forms.IntegerField(
        label="Clears after, seconds", max_value=LONGEST_S
    )

    def __init__(self, rule: Rule, data: Any = None) -> None:
        super().__init__(data, initial=vars(rule.limits))
        self.rule = rule
        if rule.is_yes_or_no:
            del self.fields["threshold"], self.fields["clears_at"]
            return
        side, back = (
            ("or more", "or less") if rule.fires_above else ("or less", "or more")
        )
        self.fields["threshold"].label = f"Fires at, {rule.unit}"
        self.fields["threshold"].help_text = f"This {side}."
        self.fields["clears_at"].label = f"Clears at, {rule.unit}"
        self.fields[
            "clears_at"
        ].help_text = f"This {back}. Between the two an alert stays what it is."

    def limits(self) -> Limits:
        """Once it is valid."""
        data = self.cleaned_data
        usual = self.rule.limits
        return Limits(
            data.get("threshold", usual.threshold),
            data.get("clears_at", usual.clears_at),
            data["for_s"],
            data["clears_for_s"],
            Severity(data["severity"]),
            data["is_on"],
        )


def _secret(label: str, length: int, help_text: str) -> forms.CharField:
    # Never given back to the page, not even beside an error of another field.
    widget = forms.PasswordInput(attrs={"autocomplete": "off", "class": "mono"})
    return forms.CharField(
        label=label,
        max_length=length,
        required=False,
        widget=widget,
        help_text=help_text,
    )


class ChannelForm(forms.Form):
    """Where alerts are told, and which."""

    kind = forms.ChoiceField(
        choices=[(kind.value, title) for kind, title in TITLES.items()]
    )
    name = forms.CharField(
        max_length=LENGTH["channels"], help_text="How it is called here."
    )
    address = _secret(
        "Address",
        LONGEST_ADDRESS,
        "https://… of the webhook, https://ntfy.sh/topic, or e-mail addresses separated"
        f" by commas. {NOT_SHOWN}",
    )
    token = _secret(
        "Token", LONGEST_TOKEN, f"Sent as Bearer, if it needs one. {NOT_SHOWN}"
    )
    least_severity = forms.ChoiceField(
        choices=SEVERITY_CHOICES,
        label="From severity",
        help_text="Alerts that are less severe are not told here.",
    )
    is_on = forms.BooleanField(required=False, label="On")

    # Which field an error of the services is about.
    FIELD_OF: ClassVar[dict[str, str]] = {
        "bad_name": "name",
        "name_taken": "name",
        "bad_address": "address",
        "bad_token": "token",
    }

    def __init__(self, data: Any = None, channel: AlertChannel | None = None) -> None:
        initial = {"is_on": True, "least_severity": Severity.CAUTION}
        super().__init__(data, initial=vars(channel) if channel else initial)
        self.channel = channel
        if channel:
            del self.fields["kind"], self.fields["name"]
            self.fields[
                "address"
            ].help_text = (
                f"Left empty, it stays what it is: {channel.shown}. {NOT_SHOWN}"
            )

    def terms(self) -> ChannelTerms:
        """Once it is valid."""
        data = self.cleaned_data
        kind = self.channel.kind if self.channel else data["kind"]
        return ChannelTerms(
            self.channel.name if self.channel else data["name"],
            ChannelKind(kind),
            Target(data["address"].strip(), data["token"].strip()),
            Severity(data["least_severity"]),
            data["is_on"],
        )
