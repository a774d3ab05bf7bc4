urlpatterns: list = []
app_name = "chat"
