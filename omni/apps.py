from django.apps import AppConfig


class OmniConfig(AppConfig):
    name = "omni"
    label = "omni"

    def ready(self) -> None:
        from django.db.models.signals import post_migrate

        from omni import checks  # noqa: F401  (registers the system checks)
        from omni.roles import ensure_roles

        post_migrate.connect(ensure_roles, sender=self)
