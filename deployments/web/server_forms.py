"""What a person types about external servers."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms

from deployments.engines.external import LONGEST_ADDRESS
from deployments.external.keys import LONGEST_KEY
from deployments.models import Deployment, Engine
from deployments.names import LENGTH
from deployments.web.form_fields import choice_field, describe

KEY_HELP = (
    "Sent to this server only, kept in a file that only Omni's user can read, and not"
    " shown again."
)


def key_field() -> forms.CharField:
    # Never given back to the page, not even beside an error of another field.
    widget = forms.PasswordInput(attrs={"autocomplete": "off", "class": "mono"})
    return forms.CharField(
        max_length=LONGEST_KEY,
        required=False,
        label="API key",
        widget=widget,
        help_text=KEY_HELP,
    )


class ServerForm(forms.Form):
    """An OpenAI-compatible server by its address."""

    name = forms.CharField(
        max_length=LENGTH["engines"], help_text="How it is called here."
    )
    address = forms.CharField(
        max_length=LONGEST_ADDRESS,
        widget=forms.TextInput(
            attrs={
                "class": "mono",
                "placeholder": "http://127.0.0.1:8080",
                "spellcheck": "false",
            }
        ),
        help_text=(
            "This machine, or a host that OMNI_EXTERNAL_HOSTS names. With or without"
            " /v1."
        ),
    )
    key = key_field()

    # Which field an error of the services is about.
    FIELD_OF: ClassVar[dict[str, str]] = {
        "bad_name": "name",
        "name_taken": "name",
        "bad_key": "key",
        "key_refused": "key",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for field in ("name", "address"):
            self.fields[field].widget.attrs["autocomplete"] = "off"
        describe(self)


class KeyForm(forms.Form):
    key = key_field()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        describe(self)


class ExternalModelForm(forms.Form):
    """One of a server's models, for a new deployment or for the one it is given."""

    model = forms.ChoiceField()
    name = forms.CharField(
        required=False,
        max_length=LENGTH["deployments"],
        help_text=(
            "Programs ask for it by this name. Left empty, it is made from the model's"
            " name."
        ),
    )

    def __init__(
        self,
        *args: Any,
        engine: Engine,
        deployment: Deployment | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        names = list(
            dict.fromkeys(
                [*([deployment.external_model] if deployment else []), *engine.offers]
            )
        )
        choice_field(self, "model").choices = [(name, name) for name in names]
        if deployment:
            del self.fields["name"]
        else:
            self.fields["name"].widget.attrs["autocomplete"] = "off"
        describe(self)
