urlpatterns: list = []
app_name = "deployments"
