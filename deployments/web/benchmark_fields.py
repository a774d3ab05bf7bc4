"""The fields of a new benchmark: what each is called, how it is explained, and its limits."""

from __future__ import annotations

from typing import Any

from django import forms

from deployments.bench.prompt_files import (
    EXAMPLE,
)
from deployments.bench.questions import ANSWER_TOKENS
from deployments.bench.runs import (
    MOST_ROUNDS,
    MOST_SECONDS,
)
from deployments.bench.scenarios import NAMES
from deployments.bench.shape import (
    MOST_LIMIT_MS,
    MOST_THINK_S,
)
from deployments.engines.request_fields import LARGEST_TOKENS

# Prompts of one's own, in the place of a scenario's name.
OWN = "own"
OWN_NAME = "own prompts"
LONGEST_NAME = 120
# What was typed and a file come together, and what is sent has a limit (LARGEST_BODY_BYTES).
LARGEST_PROMPTS_BYTES = 1 << 20
MOST_MINUTES = MOST_SECONDS / 60
START: dict[str, Any] = {
    "scenario": NAMES[0],
    "rounds": MOST_ROUNDS,
    "minutes": 30,
    "max_tokens": ANSWER_TOKENS,
}


class BenchmarkFields(forms.Form):
    """Nothing is checked here beyond each field's own limits."""

    deployment = forms.MultipleChoiceField(
        error_messages={
            "required": "Choose at least one deployment; two or more are compared.",
            "invalid_choice": "%(value)s is not there any more.",
        }
    )
    baseline = forms.ChoiceField(required=False)
    scenario = forms.ChoiceField(
        choices=[*((name, name) for name in NAMES), (OWN, OWN_NAME)],
        error_messages={"required": "Choose what is asked."},
    )
    called = forms.CharField(
        required=False,
        max_length=LONGEST_NAME,
        label="Name",
        help_text="How the report calls them. Left empty, the file's name.",
    )
    prompts = forms.CharField(
        required=False,
        strip=False,
        label="Prompts",
        widget=forms.Textarea(
            attrs={
                "rows": 8,
                "wrap": "off",
                "class": "mono",
                "spellcheck": "false",
                "placeholder": EXAMPLE,
            }
        ),
        help_text=(
            "One JSON object a line, with a prompt or messages, and max_tokens if it has"
            " a length of its own. No prompt is asked twice, so write at least 40."
        ),
    )
    file = forms.FileField(
        required=False,
        label="Or choose a file",
        widget=forms.FileInput(attrs={"accept": ".jsonl,.ndjson,.json,.txt"}),
        help_text="What is in it takes the place of what stands above.",
    )
    max_tokens = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=LARGEST_TOKENS,
        label="Longest answer (tokens)",
        help_text="For the lines that name none.",
    )
    users = forms.CharField(
        required=False,
        max_length=100,
        label="Users at once",
        widget=forms.TextInput(attrs={"placeholder": "As the scenario"}),
        help_text=(
            "One number, or several to see how it grows: 1,4. Left empty, those of the"
            " scenario."
        ),
    )
    rates = forms.CharField(
        required=False,
        max_length=100,
        label="Requests a second",
        widget=forms.TextInput(attrs={"placeholder": "Users wait for answers"}),
        help_text=(
            "An open loop instead of users: requests come at random moments (Poisson) at this"
            " rate, whoever still waits. One, or several: 0.5,1. The report says whether each"
            " deployment keeps up."
        ),
    )
    think_s = forms.FloatField(
        required=False,
        min_value=0,
        max_value=MOST_THINK_S,
        label="Think time (seconds)",
        widget=forms.NumberInput(attrs={"step": "any"}),
        help_text=(
            "Of each user, between an answer and the next question. Left empty, none: the"
            " users keep the deployment as busy as they can."
        ),
    )
    slo_first_token_ms = forms.FloatField(
        required=False,
        max_value=MOST_LIMIT_MS,
        label="First token within (ms)",
        widget=forms.NumberInput(attrs={"min": "0", "step": "any"}),
        help_text=(
            "Goodput is the requests a second whose answers keep to this and to the time per"
            " output token. Left empty, no limit."
        ),
    )
    slo_token_ms = forms.FloatField(
        required=False,
        max_value=MOST_LIMIT_MS,
        label="Each output token within (ms)",
        widget=forms.NumberInput(attrs={"min": "0", "step": "any"}),
        help_text="The mean pause between two tokens of an answer; 50 ms are 20 tokens/s.",
    )
    rounds = forms.IntegerField(
        min_value=1,
        max_value=MOST_ROUNDS,
        label="Rounds at most",
        help_text="It ends sooner once enough is known.",
    )
    minutes = forms.FloatField(
        required=False,
        max_value=MOST_MINUTES,
        label="Time at most (minutes)",
        widget=forms.NumberInput(attrs={"min": "0", "step": "any"}),
        help_text="The round that runs then is finished. Left empty, no limit.",
    )
    swaps = forms.BooleanField(required=False, label="One is up at a time")
