"""The form of a prompt whose way is to be shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms

from deployments.gateway.table import AUTO
from deployments.web.form_fields import describe

LONGEST_CHARACTERS = 1_000_000
NOBODY = ("", "Nobody: it begins")


class PromptForm(forms.Form):
    """A prompt, and what stands around it."""

    prompt = forms.CharField(
        label="Prompt",
        max_length=LONGEST_CHARACTERS,
        widget=forms.Textarea(attrs={"rows": 6, "autocomplete": "off"}),
    )
    system = forms.CharField(
        label="System prompt",
        required=False,
        max_length=LONGEST_CHARACTERS,
        widget=forms.Textarea(attrs={"rows": 2, "autocomplete": "off"}),
    )
    earlier = forms.CharField(
        label="Conversation before",
        required=False,
        max_length=LONGEST_CHARACTERS,
        widget=forms.Textarea(attrs={"rows": 2, "autocomplete": "off"}),
    )
    has_image = forms.BooleanField(label="With an image", required=False)

    def __init__(
        self,
        *args: Any,
        deployments: Sequence[str],
        routes: Sequence[str],
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.fields["model"] = forms.ChoiceField(
            label="Model",
            required=False,
            choices=[(name, name) for name in (AUTO, *routes)],
            help_text="auto, or a route with rules",
        )
        choices = [NOBODY, *((name, name) for name in deployments)]
        self.fields["answered_by"] = forms.ChoiceField(
            label="Answered so far by",
            help_text="a conversation stays where it is unless a certain rule says otherwise",
            required=False,
            choices=choices,
        )
        describe(self)
