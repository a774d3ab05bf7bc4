"""What a person chooses for a benchmark, checked field by field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any, ClassVar

from django import forms
from django.http import QueryDict

from deployments.bench.candidates import (
    Candidate,
    candidates,
    least_context,
    shared_devices,
)
from deployments.bench.metrics import ServiceLevel
from deployments.bench.prompt_files import (
    MOST_PROBLEMS,
    PromptFileError,
    parse_prompts,
)
from deployments.bench.prompts import Prompt
from deployments.bench.questions import ANSWER_TOKENS
from deployments.bench.runs import (
    MOST_DEPLOYMENTS,
    MOST_USERS,
    benchmark_request,
)
from deployments.bench.scenarios import SCENARIOS, Load, Scenario
from deployments.bench.shape import (
    LEAST_RATE,
    MOST_RATE,
    MOST_RATES,
    Shape,
)
from deployments.models import BenchmarkRun
from deployments.services.tenancy import why_not_together
from deployments.web.benchmark_fields import (
    LARGEST_PROMPTS_BYTES,
    LONGEST_NAME,
    OWN,
    OWN_NAME,
    START,
    BenchmarkFields,
)
from deployments.web.form_fields import choice_field, describe
from omni.errors import OmniError


@dataclass(frozen=True)
class DeploymentRow:
    candidate: Candidate
    is_chosen: bool
    is_baseline: bool


@dataclass(frozen=True)
class ScenarioRow:
    """`why_not` says why it cannot be run with the chosen deployments."""

    scenario: Scenario
    is_chosen: bool
    why_not: str

    @property
    def users(self) -> str:
        return ", ".join(map(str, self.scenario.concurrency))


class BenchmarkForm(BenchmarkFields):
    """A new run. Deployments are of one host; the baseline goes first."""

    # Which field an error of the service is about.
    FIELD_OF: ClassVar[dict[str, str]] = {
        "context_too_small": "scenario",
        "not_mixed": "deployment",
        "not_found": "deployment",
    }

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["initial"] = START | kwargs.get("initial", {})
        super().__init__(*args, **kwargs)
        self.candidates = candidates()
        names = [(one.name, one.name) for one in self.candidates]
        choice_field(self, "deployment").choices = names
        choice_field(self, "baseline").choices = [("", ""), *names]
        if self.is_bound:
            self._take_file()
        elif "swaps" not in self.initial:
            self.initial["swaps"] = bool(self.sharing or self.apart)
        describe(self)
        for name in ("called", "users", "rates"):
            self.fields[name].widget.attrs["autocomplete"] = "off"

    def _take_file(self) -> None:
        """A chosen file stands in the text from now on: a browser does not give it back when the
        form is shown again."""
        chosen = self.files.get("file")
        self._wrong_file = ""
        if chosen is None:
            return
        if (chosen.size or 0) > LARGEST_PROMPTS_BYTES:
            most = f"{LARGEST_PROMPTS_BYTES >> 20} MiB"
            self._wrong_file = f"{chosen.name} is larger than {most}. Divide it."
            return
        try:
            text = chosen.read().decode("utf-8-sig")
        except UnicodeDecodeError:
            self._wrong_file = f"{chosen.name} is not UTF-8 text. Choose another file."
            return
        assert isinstance(self.data, QueryDict)
        data = self.data.copy()
        data["prompts"] = text
        stem = PurePath(str(chosen.name)).stem
        data["called"] = data.get("called") or stem[:LONGEST_NAME]
        self.data = data

    # --- for the page -----------------------------------------------------------------------------
    @property
    def chosen(self) -> list[Candidate]:
        """Those that are ticked, the baseline first; in the order of the page otherwise."""
        ticked = set(self["deployment"].value() or ())
        baseline = self["baseline"].value()
        found = [one for one in self.candidates if one.name in ticked]
        return sorted(found, key=lambda one: one.name != baseline)

    @property
    def deployment_rows(self) -> list[DeploymentRow]:
        chosen = self.chosen
        first = chosen[0] if chosen else None
        return [
            DeploymentRow(one, one in chosen, one is first) for one in self.candidates
        ]

    @property
    def has_several_hosts(self) -> bool:
        return len({one.host for one in self.candidates}) > 1

    def scenario_rows(self) -> Iterator[ScenarioRow]:
        asked = self["scenario"].value()
        chosen = self.chosen
        for name, scenario in SCENARIOS.items():
            yield ScenarioRow(scenario, name == asked, _why_not(scenario, chosen))

    @property
    def is_own(self) -> bool:
        return bool(self["scenario"].value() == OWN)

    @property
    def sharing(self) -> list[str]:
        """A sentence for each group of chosen deployments that use the same devices."""
        devices_of: dict[tuple[str, ...], list[str]] = {}
        for device, names in shared_devices(self.chosen).items():
            devices_of.setdefault(tuple(names), []).append(device)
        return [
            f"{' and '.join(names)} share {', '.join(devices)}."
            for names, devices in devices_of.items()
        ]

    @cached_property
    def apart(self) -> list[str]:
        """Why the chosen ones cannot be up together; then they are swapped, whatever is chosen."""
        chosen = self.chosen
        if len({one.host for one in chosen}) != 1:
            return []
        return why_not_together([one.deployment for one in chosen])

    # --- checks -----------------------------------------------------------------------------------
    def clean_deployment(self) -> list[str]:
        names: list[str] = self.cleaned_data["deployment"]
        if len(names) > MOST_DEPLOYMENTS:
            raise forms.ValidationError(f"Choose at most {MOST_DEPLOYMENTS}.")
        hosts = {one.host for one in self.candidates if one.name in names}
        if len(hosts) > 1:
            raise forms.ValidationError(
                "Choose those of one host: only its agent can bring them up in turn."
            )
        return names

    def clean_users(self) -> list[int]:
        """None typed is an empty list."""
        parts = self.cleaned_data["users"].replace(" ", "").split(",")
        if parts == [""]:
            return []
        if not all(part.isdecimal() and 1 <= int(part) <= MOST_USERS for part in parts):
            raise forms.ValidationError(
                f"Write numbers from 1 to {MOST_USERS}, such as 1,4."
            )
        return list(dict.fromkeys(map(int, parts)))

    def clean_rates(self) -> tuple[float, ...]:
        """None typed is an empty tuple."""
        parts = self.cleaned_data["rates"].replace(" ", "").split(",")
        if parts == [""]:
            return ()
        found = tuple(dict.fromkeys(map(_number, parts)))
        if not all(LEAST_RATE <= rate <= MOST_RATE for rate in found):
            raise forms.ValidationError(
                f"Write numbers from {LEAST_RATE:g} to {MOST_RATE:g}, such as 0.5,1."
            )
        if len(found) > MOST_RATES:
            raise forms.ValidationError(f"Write at most {MOST_RATES} of them.")
        return found

    def clean_slo_first_token_ms(self) -> float | None:
        return self._limit("slo_first_token_ms")

    def clean_slo_token_ms(self) -> float | None:
        return self._limit("slo_token_ms")

    def _limit(self, name: str) -> float | None:
        limit_ms: float | None = self.cleaned_data[name]
        if limit_ms is not None and limit_ms <= 0:
            raise forms.ValidationError("Write more than 0, or nothing for no limit.")
        return limit_ms

    def clean_minutes(self) -> float | None:
        minutes: float | None = self.cleaned_data["minutes"]
        if minutes is not None and minutes <= 0:
            raise forms.ValidationError("Write more than 0, or nothing for no limit.")
        return minutes

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        ticked = data.get("deployment", [])
        if ticked and data.get("baseline") and data["baseline"] not in ticked:
            self.add_error("deployment", "Choose the baseline among those you compare.")
        self._check_rates(data)
        if data.get("scenario") == OWN:
            data["own"] = self._own_prompts(data)
        elif data.get("scenario"):
            self._check_scenario(SCENARIOS[data["scenario"]], data)
        return data

    def _check_rates(self, data: dict[str, Any]) -> None:
        if not data.get("rates"):
            return
        if data.get("users"):
            self.add_error(
                "rates", "At a rate there are no users: leave one of them out."
            )
        if data.get("think_s"):
            self.add_error(
                "think_s", "Only users who wait for an answer think: leave this out."
            )

    def _own_prompts(self, data: dict[str, Any]) -> list[Prompt]:
        if self._wrong_file:
            self.add_error("file", self._wrong_file)
            return []
        text = data.get("prompts", "")
        if not text.strip():
            self.add_error("prompts", "Write prompts, one a line, or choose a file.")
            return []
        content = text.encode("utf-8", "replace")
        if len(content) > LARGEST_PROMPTS_BYTES:
            most = f"{LARGEST_PROMPTS_BYTES >> 20} MiB"
            self.add_error("prompts", f"That is more than {most}. Divide it.")
            return []

        length = data.get("max_tokens") or ANSWER_TOKENS
        name = data.get("called") or OWN_NAME
        try:
            return parse_prompts(content, length, source="Prompts", name=name)
        except PromptFileError as error:
            self._add_problems(error.problems)
            return []

    def _add_problems(self, problems: Sequence[str]) -> None:
        for problem in problems[:MOST_PROBLEMS]:
            self.add_error("prompts", problem)
        more = len(problems) - MOST_PROBLEMS
        if more > 0:
            self.add_error("prompts", f"… and {more} more lines.")

    def _check_scenario(self, scenario: Scenario, data: dict[str, Any]) -> None:
        ticked = data.get("deployment", [])
        chosen = [one for one in self.candidates if one.name in ticked]
        if why_not := _why_not(scenario, chosen):
            self.add_error("scenario", why_not)
        if scenario.load is Load.AT_ONCE:
            if len(ticked) == 1:
                self.add_error(
                    "deployment", f"{scenario.title} is of two deployments or more."
                )
            if data.get("swaps"):
                self.add_error(
                    "swaps",
                    f"{scenario.title} asks all of them at the same time: they have to"
                    " be up together.",
                )
        elif scenario.load is Load.AFTER_START and set(data.get("users", ())) - {1}:
            self.add_error("users", "One user asks after each start. Leave it empty.")
        self._check_shape(scenario, data)

    def _check_shape(self, scenario: Scenario, data: dict[str, Any]) -> None:
        if data.get("rates") and scenario.load is not Load.IN_TURN:
            self.add_error(
                "rates", f"{scenario.title} has a load of its own. Leave it empty."
            )
        if data.get("think_s") and scenario.load is Load.AFTER_START:
            self.add_error(
                "think_s", "One question is asked after each start. Leave it empty."
            )

    # --- asking for it ----------------------------------------------------------------------------
    def save(self, *, gateway: str, user: Any) -> BenchmarkRun | None:
        """None where the service refuses it: the field that this is about says why."""
        data = self.cleaned_data
        is_own = data["scenario"] == OWN
        minutes = data["minutes"]
        try:
            return benchmark_request(
                names=[one.name for one in self.chosen],
                scenario=(data["called"] or OWN_NAME) if is_own else data["scenario"],
                concurrency=data["users"],
                gateway=gateway,
                prompts=data["own"] if is_own else None,
                most_rounds=data["rounds"],
                seconds=None if minutes is None else 60 * minutes,
                swaps=data["swaps"],
                shape=Shape(
                    data["rates"],
                    data["think_s"] or 0.0,
                    ServiceLevel(data["slo_first_token_ms"], data["slo_token_ms"]),
                ),
                user=user,
            )
        except OmniError as error:
            if error.code == "forbidden":
                raise
            self.add_error(self._field_of(error.code, is_own), str(error))
            return None

    def _field_of(self, code: str, is_own: bool) -> str | None:
        if code == "too_few_prompts":
            how = "rates" if self.cleaned_data["rates"] else "users"
            return "prompts" if is_own else how
        return self.FIELD_OF.get(code)


def _number(text: str) -> float:
    """Nought where it is none, which no rate is."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def _why_not(scenario: Scenario, chosen: Sequence[Candidate]) -> str:
    least = least_context(chosen)
    if least is None or scenario.fitting(least.context or 0):
        return ""
    return (
        f"It needs a context of {scenario.context:,} tokens for each request;"
        f" {least.name} has {least.context:,}."
    )
