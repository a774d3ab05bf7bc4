"""What a person enters beside messages."""

from __future__ import annotations

from typing import Any

from django import forms

from chat.models import Conversation
from deployments.models import Deployment


class RenameForm(forms.Form):
    title = forms.CharField(max_length=200)


class SettingsForm(forms.Form):
    """An empty number leaves the choice to the engine. Several lanes are changed at their heads."""

    deployment = forms.ModelChoiceField(
        Deployment.giving_text(), to_field_name="name", required=False, empty_label=None
    )
    system_prompt = forms.CharField(
        max_length=50_000,
        required=False,
        widget=forms.Textarea(attrs={"rows": 3}),
        help_text="Goes before the whole conversation, such as: Answer in one sentence.",
    )
    temperature = forms.FloatField(
        min_value=0,
        max_value=2,
        required=False,
        help_text="0 always takes the likeliest token.",
    )
    top_p = forms.FloatField(
        label="Top-p",
        min_value=0,
        max_value=1,
        required=False,
        help_text="Draws from this share of likely tokens.",
    )
    max_tokens = forms.IntegerField(
        label="Longest answer (tokens)",
        min_value=1,
        max_value=1_000_000,
        required=False,
    )

    def __init__(self, *args: Any, conversation: Conversation, **kwargs: Any) -> None:
        lanes = list(conversation.lanes.select_related("deployment"))
        if len(lanes) == 1 and lanes[0].route_id is None:
            only = lanes[0]
        else:
            only = None
        initial = {
            "deployment": only.deployment.name if only and only.deployment else None,
            "system_prompt": conversation.system_prompt,
            **conversation.settings,
        }
        super().__init__(
            *args, **{"initial": initial, "auto_id": "settings-%s", **kwargs}
        )
        if only is None:
            del self.fields["deployment"]
        for name in ("temperature", "top_p"):
            self.fields[name].widget.attrs["step"] = "0.05"
        for name in ("temperature", "top_p", "max_tokens"):
            self.fields[name].widget.attrs["placeholder"] = "Engine's default"
