"""What can be done with external servers.

The only writers of their rows, besides the agent.
"""

from __future__ import annotations

import logging
from typing import Any

from django.db import IntegrityError, transaction

from deployments import names
from deployments.announce import library_changed
from deployments.engines.external import EXTERNAL
from deployments.external.keys import check_key, forget_key, keep_key, key_of
from deployments.external.probe import allowed_address, ask
from deployments.external.report import with_report
from deployments.models import Deployment, Engine
from deployments.services.checks import free_name
from deployments.services.deployments import deployment_launch
from deployments.services.engines import probe
from deployments.services.plans import Setup
from deployments.states import DEFAULT_STRATEGY
from gpus.models import Host
from omni.errors import OmniError
from omni.roles.rights import MANAGE_ENGINES, OPERATE, require

log = logging.getLogger(__name__)


def server_add(
    *, host: Host, name: str, address: str, key: str = "", user: Any = None
) -> Engine:
    """A server that answers now. Raises OmniError that says what is wrong; then nothing is kept."""
    require(user, MANAGE_ENGINES)
    if not names.is_name(name, "engines") or name in names.RESERVED["engines"]:
        fix = "Use up to 60 lowercase letters, digits, hyphens and underscores."
        raise OmniError("bad_name", f"{name!r} cannot be a name.", fix)
    checked = allowed_address(address)
    check_key(key)
    known = Engine.objects.filter(host=host, path=checked).first()
    if known:
        raise OmniError(
            "address_taken",
            f"The server at {checked} is known as {known.name} already.",
            "Use that one.",
        )
    report = ask(checked, key)
    if report.error:
        raise report.error
    try:
        with transaction.atomic():
            engine = with_report(
                Engine(host=host, name=name, flavour=EXTERNAL, path=checked), report
            )
            engine.save()
            keep_key(engine, key)
    except IntegrityError:
        raise OmniError(
            "name_taken",
            f"There is already an engine named {name}.",
            "Choose another name.",
        ) from None
    library_changed()
    log.info("%s added the external server %s at %s", user or "somebody", name, checked)
    return engine


def server_ask(*, engine: Engine, user: Any = None) -> Engine:
    """Asks it now, instead of at the agent's next look."""
    require(user, MANAGE_ENGINES)
    probe(engine, user=user)
    library_changed()
    return engine


def server_set_key(*, engine: Engine, key: str, user: Any = None) -> Engine:
    """Another key, or none; the server is asked with it at once. Raises OmniError (bad_key)."""
    require(user, MANAGE_ENGINES)
    keep_key(engine, key)
    log.info(
        "%s %s the key of the external server %s",
        user or "somebody",
        "set" if key else "removed",
        engine,
    )
    return server_ask(engine=engine, user=user)


def server_remove(*, engine: Engine, user: Any = None) -> None:
    """Forgets it and its key; the server itself goes on. Raises OmniError (in_use)."""
    require(user, MANAGE_ENGINES)
    names = list(
        engine.deployments.filter(is_deleting=False).values_list("name", flat=True)
    )
    if names:
        text = f"The server {engine.name} is used by {', '.join(names)}."
        raise OmniError("in_use", text, "Delete the deployments first.")
    names = list(engine.deployments.values_list("name", flat=True))
    if names:
        text = f"{', '.join(names)} on the server {engine.name} is still being deleted."
        raise OmniError("in_use", text, "Try again in a moment.", retry=True)
    forget_key(engine)
    engine.delete()
    library_changed()
    log.info("%s removed the external server %s", user or "somebody", engine.name)


def has_key(engine: Engine) -> bool:
    return bool(key_of(engine))


def model_offer(
    *, engine: Engine, model: str, name: str = "", user: Any = None
) -> Deployment:
    """A deployment of one of its models, offered at once. Raises OmniError that names the field."""
    require(user, OPERATE)
    name = name or free_name(model.rpartition("/")[2])
    setup = Setup(engine.host, name, DEFAULT_STRATEGY, engine, {}, {}, (), model)
    return deployment_launch(setup, user)
