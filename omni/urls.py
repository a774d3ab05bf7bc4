from django.contrib import admin
from django.contrib.auth import views as auth
from django.urls import include, path

from deployments.web.views.metrics import metrics
from omni import views

# Only what serves pages has an administration: see omni.admin_app.
admin.autodiscover()

urlpatterns = [
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
