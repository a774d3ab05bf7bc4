"""Where Django looks for an app's administration; it is kept in web/."""

from deployments.web import admin as admin
from deployments.web import gateway_admin as gateway_admin
