"""Fields of a form as what they are: Django keeps them all as Field, and says nothing of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms

if TYPE_CHECKING:
    ModelField = forms.ModelChoiceField[Any]
else:
    # It takes no parameter when it runs.
    ModelField = forms.ModelChoiceField


def choice_field(form: forms.Form, name: str) -> forms.ChoiceField:
    field = form.fields[name]
    assert isinstance(field, forms.ChoiceField)
    return field


def model_field(form: forms.Form, name: str) -> ModelField:
    field = form.fields[name]
    assert isinstance(field, forms.ModelChoiceField)
    return field


def describe(form: forms.Form) -> None:
    """Ties each field to its help and its errors, for who cannot see that they stand together."""
    for name, field in form.fields.items():
        if field.help_text:
            field.widget.attrs["aria-describedby"] = f"{name}-help"
