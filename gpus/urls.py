from django.urls import path

from gpus import history_views, views

app_name = "gpus"
urlpatterns = [
    path("rig/", views.rig, name="rig"),
    path("cards/<str:key>/", views.card, name="card"),
    path("history/", history_views.history, name="history"),
    path("history/points.json", history_views.points, name="history_points"),
    path("history/points.csv", history_views.export, name="history_export"),
]
