"""The sampler's settings: Omni's, with the one app whose tables it reads and writes."""

from omni.settings import *  # noqa: F403

INSTALLED_APPS = ["gpus"]
