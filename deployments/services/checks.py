"""What a deployment may be called and be made of, wherever that is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from deployments import names
from deployments.engines import reads_gguf
from deployments.engines.base import may_play
from deployments.external.plan import check_external
from deployments.formats.kinds import article
from deployments.models import Deployment, Engine, Model, Role, Route
from deployments.services.plans import Members
from deployments.strategies import get_strategy
from deployments.strategies.base import Strategy
from gpus.models import Host
from omni.errors import OmniError


def check_name(name: str) -> None:
    """Raises OmniError (bad_name, name_taken)."""
    if not names.is_name(name, "deployments"):
        length = names.LENGTH["deployments"]
        fix = f"Use up to {length} lowercase letters, digits, hyphens and underscores."
        raise OmniError("bad_name", f"{name!r} cannot be a name.", fix)
    if name in names.RESERVED["deployments"]:
        raise OmniError(
            "bad_name", f"{name!r} has another meaning.", "Choose another name."
        )
    if (
        Deployment.objects.filter(name=name).exists()
        or Route.objects.filter(name=name).exists()
    ):
        raise name_taken(name)


def name_taken(name: str) -> OmniError:
    return OmniError(
        "name_taken",
        f"There is already a deployment or route named {name}.",
        "Choose another name.",
    )


def taken_names() -> set[str]:
    taken = {
        *names.RESERVED["deployments"],
        *Deployment.objects.values_list("name", flat=True),
    }
    return taken | set(Route.objects.values_list("name", flat=True))


def free_name(wanted: str, taken: set[str] | None = None) -> str:
    """The name, or the name with the first number that makes it free."""
    base = names.slug(wanted, "deployments", "deployment")
    return names.free_name(base, taken_names() if taken is None else taken)


def check_location(
    strategy: str,
    engine: Engine,
    members: Members,
    external_model: str,
    settings: Mapping[str, object],
    extra_args: Sequence[str],
) -> None:
    """Raises OmniError when it cannot be where it is to be: on devices of ours, or on an
    external server."""
    if not engine.is_external:
        if external_model:
            text = (
                f"{engine.name} is no external server and has no model {external_model!r}"
                " of its own."
            )
            raise OmniError("no_external_model", text, "Choose a model of the library.")
        check_members(get_strategy(strategy), engine.host, members)
        return check_formats(engine, (model for model, _ in members.values()))
    check_external(strategy, external_model, settings, extra_args)
    if members:
        text = (
            f"{engine.name} runs its own models; none of the library can be put there."
        )
        raise OmniError("no_external_model", text, "Name one from its /v1/models.")
    return None


def check_formats(engine: Engine, models: Iterable[Model]) -> None:
    """Raises OmniError (wrong_format) for a model that engines of this flavour do not load."""
    takes_gguf = reads_gguf(engine.flavour)
    for model in models:
        if model.is_folder and takes_gguf:
            text = (
                f"{model.name} is a folder with safetensors, and {engine.name} loads"
                " GGUF files only."
            )
            raise OmniError(
                "wrong_format",
                text,
                "Choose a vLLM or TabbyAPI engine, or convert it to a GGUF.",
            )
        if not (model.is_folder or takes_gguf):
            text = (
                f"{model.name} is a GGUF file, and {engine.name} loads folders with"
                " safetensors."
            )
            raise OmniError("wrong_format", text, "Choose a llama.cpp engine.")


def check_kinds(members: Members) -> None:
    """Raises OmniError (wrong_kind) for a file that cannot play the role that it is given."""
    for role, (model, _) in members.items():
        if not may_play(role, model.kind):
            text = f"{model.name} is {article(model.kind)} and cannot be the {role}."
            raise OmniError("wrong_kind", text, model.use or "Choose another model.")


def check_downloaded(models: Iterable[Model]) -> None:
    """Raises OmniError (not_downloaded) for a model that is at a hub still."""
    for model in models:
        if model.is_at_hub:
            raise not_downloaded(model.name)


def not_downloaded(name: str) -> OmniError:
    fix = "Download it on the Models page, then name it as the library does."
    return OmniError("not_downloaded", f"{name} is not downloaded.", fix)


def check_goes_along(devices: Sequence[str]) -> None:
    """Raises OmniError (bad_device) for a projector with devices of its own."""
    if devices:
        text = "The projector goes on the first device of its model."
        raise OmniError("bad_device", text, "Name no device for it.")


def check_members(strategy: Strategy, host: Host, members: Members) -> None:
    """Raises OmniError when roles, devices or models cannot be what they are given as."""
    strategy.check_roles(members)
    check_downloaded(model for model, _ in members.values())
    check_kinds(members)
    known = set(host.devices.values_list("name", flat=True))
    for role, (_, devices) in members.items():
        if role == Role.PROJECTOR:
            check_goes_along(devices)
            continue
        if not devices:
            raise OmniError(
                "no_device",
                f"The role {role} has no device.",
                "Choose at least one; CPU is one too.",
            )
        unknown = [name for name in devices if name not in known]
        if unknown:
            fix = f"There are: {', '.join(sorted(known)) or 'none'}."
            raise OmniError(
                "unknown_device", f"There is no device {unknown[0]!r}.", fix
            )
        if len(set(devices)) != len(devices):
            raise OmniError(
                "bad_device",
                f"The role {role} names a device twice.",
                "Name each once.",
            )
