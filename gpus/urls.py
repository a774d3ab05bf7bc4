urlpatterns: list = []
app_name = "gpus"
