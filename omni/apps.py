from django.apps import AppConfig


class OmniConfig(AppConfig):
    name = "omni"
    label = "omni"

    def ready(self) -> None:
        from django.apps import apps
        from django.db.models.signals import post_migrate

        from omni import checks  # noqa: F401  (registers the system checks)
        from omni.access import watch_access
        from omni.roles.groups import ensure_roles

        watch_access()

        # Once, after the last app: by then every permission exists. (An app without models gets no
        # signal.)
        post_migrate.connect(ensure_roles, sender=apps.get_app_config("chat"))
