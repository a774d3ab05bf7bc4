from django.urls import path

from gpus import views

app_name = "gpus"
urlpatterns = [
    path("rig/", views.rig, name="rig"),
    path("cards/<str:key>/", views.card, name="card"),
    path("telemetry/<str:key>/history.json", views.history, name="history"),
]
