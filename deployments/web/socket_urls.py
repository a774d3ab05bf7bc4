from __future__ import annotations

from django.urls import path, re_path

from deployments.web.consumers import LogConsumer, StateConsumer

websocket_urlpatterns = [
    path("ws/state/", StateConsumer.as_asgi()),
    re_path(
        r"^ws/devices/(?P<device>[A-Za-z][A-Za-z0-9]{0,39})/log/$",
        LogConsumer.as_asgi(),
    ),
    re_path(
        r"^ws/deployments/(?P<name>[-\w]+)/log/(?P<role>[a-z]+)-(?P<ordinal>\d{1,3})/$",
        LogConsumer.as_asgi(),
    ),
]
