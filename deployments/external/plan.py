"""What Omni can say beforehand of a model on an external server: whether it is there,
and no bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from deployments.engines.external import LONGEST_NAME, ServerReport
from deployments.planning.plan import Figure, Plan, Reason, Severity, Verdict
from deployments.states import DEFAULT_STRATEGY
from omni.errors import OmniError

NOT_PLACED = Reason(
    "not_placed",
    Severity.INFO,
    "This server is external: Omni does not start it, places nothing and does not "
    "watch its memory.",
    "Start and Stop say whether the gateway offers it.",
)


def check_external(
    strategy: str,
    model: str,
    settings: Mapping[str, object] | None = None,
    extra_args: Sequence[str] = (),
) -> None:
    """Raises OmniError (strategy_not_for_engine, no_external_model, bad_setting, bad_extra_arg)."""
    if strategy != DEFAULT_STRATEGY:
        text = (
            f"{strategy} places models on devices, and where an external server puts its model is"
            " its own affair."
        )
        raise OmniError(
            "strategy_not_for_engine",
            text,
            f"Use {DEFAULT_STRATEGY}, or another engine.",
        )
    if not model.strip() or not model.isprintable() or len(model) > LONGEST_NAME:
        text = "It is not said which of the server's models is meant."
        raise OmniError("no_external_model", text, "Name one from its /v1/models.")
    if settings:
        text = (
            f"An external server takes no settings from Omni ({', '.join(settings)})."
        )
        raise OmniError("bad_setting", text, "Set them where the server is started.")
    if extra_args:
        text = "An external server takes no engine flags from Omni."
        raise OmniError("bad_extra_arg", text, "Set them where the server is started.")


def external_plan(
    strategy: str,
    model: str,
    report: ServerReport,
    settings: Mapping[str, object] | None = None,
    extra_args: Sequence[str] = (),
) -> Plan:
    """No instances, no devices. Raises nothing: what is refused is a verdict."""
    try:
        check_external(strategy, model, settings, extra_args)
    except OmniError as refused:
        reason = Reason(refused.code, Severity.ERROR, refused.text, refused.fix)
        return Plan(strategy, Verdict.NOT_VIABLE, (reason,))
    figures = (Figure("external_model", "Model", model),)
    doubt = _doubt(model, report)
    if doubt:
        return Plan(strategy, Verdict.CAUTION, (doubt, NOT_PLACED), figures=figures)
    return Plan(strategy, Verdict.VIABLE, (NOT_PLACED,), figures=figures)


def _doubt(model: str, report: ServerReport) -> Reason | None:
    if report.error:
        return Reason(
            "server_away",
            Severity.CAUTION,
            f"It cannot be used now: {report.error.text}",
        )
    if report.offers(model):
        return None
    refused = model_not_offered(model, report.models)
    return Reason(refused.code, Severity.CAUTION, refused.text, refused.fix)


def model_not_offered(model: str, models: Sequence[str]) -> OmniError:
    shown = ", ".join(models[:10]) + (" …" if len(models) > 10 else "")
    return OmniError(
        "model_not_offered",
        f"The server does not offer the model {model}.",
        f"It offers: {shown}.",
    )
