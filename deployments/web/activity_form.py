"""Which requests a page or a file is asked for."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import QueryDict

from deployments.services.request_figures import PERIODS, RequestFilter, names_seen

PERIOD_NAMES = {
    "hour": "This hour",
    "day": "Last 24 hours",
    "week": "Last 7 days",
    "month": "Last 30 days",
    "all": "All that is kept",
}
STATUS_NAMES = {
    "": "Any",
    "ok": "Answered",
    "failed": "Failed",
    "left": "Client left",
    "cancelled": "Cancelled",
}
LONGEST_TEXT = 100


class ActivityForm(forms.Form):
    """All of it may be left out, and what makes no sense counts as left out."""

    period = forms.ChoiceField(
        label="Time", choices=list(PERIOD_NAMES.items()), required=False
    )
    deployment = forms.ChoiceField(label="Deployment", required=False)
    key = forms.ChoiceField(label="Key", required=False)
    status = forms.ChoiceField(
        label="Result", choices=list(STATUS_NAMES.items()), required=False
    )
    text = forms.CharField(
        label="Search",
        max_length=LONGEST_TEXT,
        required=False,
        widget=forms.SearchInput(
            attrs={"placeholder": "model, error, user or address"}
        ),
    )

    def __init__(self, sent: QueryDict, user: Any, period: str = "day") -> None:
        super().__init__({"period": period, **sent.dict()}, prefix=None)
        self.user, self.usual = user, period
        for name, column in (("deployment", "deployment_name"), ("key", "key_name")):
            seen = names_seen(user, column)
            chosen = sent.get(name, "")
            # What a link asks for stays chosen, also when it has no request any more.
            names = [*seen, chosen] if chosen and chosen not in seen else seen
            choices = [("", "All"), *((each, each) for each in names)]
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)
            field.choices = choices

    def chosen(self) -> RequestFilter:
        self.is_valid()
        said = self.cleaned_data
        period = said.get("period") or self.usual
        return RequestFilter(
            self.user,
            period if period in PERIODS else self.usual,
            said.get("deployment", ""),
            said.get("key", ""),
            said.get("status", ""),
            said.get("text", "").strip(),
        )
