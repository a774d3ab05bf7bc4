"""Where Django looks for an app's administration; it is kept in web/."""

from deployments.web import admin as admin
