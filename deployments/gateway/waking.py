"""Loads a deployment again that was unloaded because nobody used it."""

from __future__ import annotations

import logging

from deployments.announce import deployment_changed, nudge
from deployments.models import Deployment

log = logging.getLogger(__name__)


def deployment_wake(deployment: int) -> None:
    """Somebody asks for one that was unloaded. Does nothing to any other."""
    row = Deployment.objects.filter(pk=deployment, is_unloaded=True).first()
    if row and Deployment.objects.filter(pk=deployment, is_unloaded=True).update(
        is_unloaded=False, unloaded_why=""
    ):
        row.is_unloaded = False
        log.info("deployment %s is loaded again: it is asked for", row.name)
        deployment_changed(row)
        nudge(row.host.name)
