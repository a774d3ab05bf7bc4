from django.conf import settings
from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import URLPattern, URLResolver, include, path

from deployments.gateway.endpoints import ENDPOINTS
from deployments.gateway.http_rules import OF_ENGINES
from deployments.web.views.metrics import metrics
from omni import views
from omni.env import EnvError

# Only what serves pages has an administration: see omni.admin_app.
admin.autodiscover()

pages: list[URLPattern | URLResolver] = [
    path("healthz", views.healthz, name="healthz"),
    path("metrics", metrics, name="metrics"),
    path("socket-token/", views.socket_token, name="socket_token"),
    path("glossary/", views.glossary, name="glossary"),
    path(
        "login/", auth.LoginView.as_view(redirect_authenticated_user=True), name="login"
    ),
    path("password/", views.PasswordPage.as_view(), name="password_change"),
    path("logout/", auth.LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("chat/", include("chat.urls")),
    path("", include("deployments.web.urls")),
    path("", include("gpus.urls")),
]
handler400 = "omni.views.bad_request"
handler403 = "omni.views.forbidden"
handler404 = "omni.views.not_found"
handler500 = "omni.views.server_error"


def first_parts() -> set[str]:
    """How the panel's own addresses begin, such as chat and v1."""
    found = {"static", "ws"}
    found |= {address.split("/")[1] for address in (*OF_ENGINES, *ENDPOINTS)}
    for page in pages:
        begin = str(page.pattern)
        inner = page.url_patterns if isinstance(page, URLResolver) else []
        wholes = [begin + str(each.pattern) for each in inner] or [begin]
        found |= {whole.partition("/")[0] for whole in wholes}
    return found - {""}


def with_prefix(prefix: str) -> list[URLPattern | URLResolver]:
    """All pages below the prefix of OMNI_PATH_PREFIX; a thread that serves no request writes such
    addresses as well, so it stands in the table itself."""
    first = prefix.split("/")[1]
    if first in first_parts():
        raise EnvError(
            f"OMNI_PATH_PREFIX is {prefix!r}, but /{first} is an address of the panel's own; use"
            " another, such as /omni."
        )
    return [path(f"{prefix[1:]}/", include(pages))]


PREFIX: str = settings.OMNI_PATH_PREFIX
urlpatterns = with_prefix(PREFIX) if PREFIX else pages
