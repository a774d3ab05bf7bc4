"""Settings, grouped by topic. Every value that a site may change comes from the environment."""

from __future__ import annotations

import re
from pathlib import Path

import dj_database_url
from csp.constants import NONCE, NONE, SELF

from omni.addresses import LOOPBACK
from omni.env import (
    envaddress,
    envbool,
    envint,
    envlist,
    envnetworks,
    envrange,
    envsecret,
    envstr,
    envwords,
)
from omni.identity import (
    OMNI_BROKER_URL,
    OMNI_HOME,
    OMNI_HOST_NAME,
    OMNI_PATH_PREFIX,
)
from omni.interfaces import own_ipv4

BASE_DIR = Path(__file__).resolve().parent.parent

# --- Omni ---------------------------------------------------------------------------------------
OMNI_LLAMA_SERVER = envstr("OMNI_LLAMA_SERVER")
OMNI_ENGINES = envlist("OMNI_ENGINES")
# Hosts besides this machine on which external servers may be asked.
OMNI_EXTERNAL_HOSTS = envlist("OMNI_EXTERNAL_HOSTS")
OMNI_MODEL_FOLDERS = [
    Path(folder).expanduser() for folder in envlist("OMNI_MODEL_FOLDERS")
]
OMNI_ENGINE_PORTS = envrange("OMNI_ENGINE_PORTS", (18100, 18999), low=1024, high=65535)
OMNI_TELEMETRY_HZ = envint("OMNI_TELEMETRY_HZ", 2, low=1, high=10)
# Whoever reaches a stand-in can run code as this user: they are there only when asked for.
OMNI_STAND_IN_DEVICES = envint("OMNI_STAND_IN_DEVICES", 0, low=0, high=8)
# 0: all that this process may use.
OMNI_CORES = envint("OMNI_CORES", 0, low=0, high=4096)
# Where, and which of, this host's devices are offered to other hosts by ggml-rpc-server, which asks
# nobody for a key.
OMNI_RPC_ADDRESS = envaddress("OMNI_RPC_ADDRESS", LOOPBACK, own_ipv4)
OMNI_RPC_DEVICES = envwords(
    "OMNI_RPC_DEVICES",
    r"(?!RPC\d)[A-Za-z][A-Za-z0-9]{0,39}",
    "this host's own devices, such as CPU or CUDA0",
)
# Of the memory that prompts on their way between two instances may take; 0 is half of what the file
# system has.
OMNI_HANDOVER_LIMIT_MIB = envint("OMNI_HANDOVER_LIMIT_MIB", 0, low=0, high=1 << 24)
# Seconds that a request to the gateway may take, all in all, once its deployment is ready.
OMNI_REQUEST_LIMIT = envint("OMNI_REQUEST_LIMIT", 3600, low=1, high=7 * 86400)
# What requests have loaded stays for so many seconds before it makes room for another.
OMNI_LEAST_LOADED_S = envint("OMNI_LEAST_LOADED_S", 60, low=0, high=86400)
# For how many days, and how many at most, requests are kept that ran through the gateway.
OMNI_REQUESTS_KEPT_DAYS = envint("OMNI_REQUESTS_KEPT_DAYS", 30, low=1, high=3650)
OMNI_REQUESTS_KEPT = envint("OMNI_REQUESTS_KEPT", 1_000_000, low=1000, high=10**9)
# Where the gateway's own process listens, set by `up`; 0: the panel's own port is all there is.
OMNI_GATEWAY_PORT = envint("OMNI_GATEWAY_PORT", 0, low=0, high=65535)
# What a scraper of /metrics may send besides the tokens that are made on the alerts page.
OMNI_SCRAPE_TOKEN = envsecret("OMNI_SCRAPE_TOKEN") or ""
# Sites whose pages may ask the gateway from a browser, such as https://app.example; * is any.
OMNI_CORS_ORIGINS = envlist("OMNI_CORS_ORIGINS")
CHANGELOG = (BASE_DIR / "CHANGELOG.md").read_text()
OMNI_VERSION = re.findall(r"^## (\S+)", CHANGELOG, re.M)[0]

# --- Django -------------------------------------------------------------------------------------
SECRET_KEY = envsecret("OMNI_SECRET_KEY") or OMNI_HOME.secret("django")
DEBUG = envbool("OMNI_DEBUG", False)
# This machine's own names always lead to it: the panel asks itself by them whether it is up.
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]", *envlist("OMNI_ALLOWED_HOSTS")]
CSRF_FAILURE_VIEW = "omni.views.csrf_failure"
CSRF_TRUSTED_ORIGINS = envlist("OMNI_TRUSTED_ORIGINS")
ROOT_URLCONF = "omni.urls"
ASGI_APPLICATION = "omni.asgi.application"
INSTALLED_APPS = [
    "unfold",
    "omni.admin_app.AdministrationConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "django_htmx",
    "csp",
    "axes",
    "rest_framework_api_key",
    "omni",
    "gpus",
    "deployments",
    "chat",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "omni.middleware.AdminPolicyMiddleware",
    "omni.middleware.SecureCookiesMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "omni.middleware.LogInMiddleware",
    "omni.middleware.RightsMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "omni.middleware.VaryMiddleware",
    "omni.middleware.OmniErrorMiddleware",
    "axes.middleware.AxesMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "omni.context.csp_nonce",
                "omni.context.navigation",
                "omni.context.rights",
                "deployments.web.alert_line.alert_line",
            ],
            "builtins": ["omni.templatetags.omni"],
        },
    }
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"

# --- database -----------------------------------------------------------------------------------
# IMMEDIATE takes the write lock when a transaction begins: with the default, a transaction that
# reads first and writes later fails at once with "database is locked" when another writer was
# faster.
SQLITE_OPTIONS = {
    "transaction_mode": "IMMEDIATE",
    "timeout": 20,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;",
}
database_url = envstr("OMNI_DATABASE_URL")
if database_url:
    DATABASES = {"default": dj_database_url.parse(database_url)}
else:
    DATABASES = {
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(OMNI_HOME.database),
            "OPTIONS": SQLITE_OPTIONS,
            # A file in the tests too: several threads and processes use it, as in real life.
            "TEST": {"NAME": str(OMNI_HOME.root / "test.sqlite3")},
        }
    }

# --- log-in and browsers ------------------------------------------------------------------------
# Omni listens on loopback without TLS unless a proxy is put before it; the proxy's owner sets this.
BEHIND_TLS = envbool("OMNI_BEHIND_TLS", False)
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {
        "NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"
    },
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "deployments:advice"
LOGOUT_REDIRECT_URL = "login"
# Which proxies stand before the panel: what they say of a client's address, of the host and of TLS
# is believed (omni.forwarded). Behind TLS it is one on this machine unless it is said otherwise.
OMNI_TRUSTED_PROXIES = envnetworks(
    "OMNI_TRUSTED_PROXIES", ("127.0.0.0/8", "::1") if BEHIND_TLS else ()
)
# A lock is on a name at an address: without the client's own, anybody behind the proxy could lock
# the administrator.
AXES_CLIENT_IP_CALLABLE = "omni.client_address.client_address"
AXES_FAILURE_LIMIT = 8
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_LOCKOUT_TEMPLATE = "registration/locked.html"
AXES_RESET_ON_SUCCESS = True
AXES_VERBOSE = False
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = BEHIND_TLS
CSRF_COOKIE_SECURE = BEHIND_TLS
CSRF_COOKIE_HTTPONLY = True
# Cookies belong to a host, not to a port: two panels of one machine must not take each other's.
# Under TLS the names' prefix makes browsers refuse one that another site, or a page without TLS,
# has set; `__Host-` is for cookies of the root only.
_STRICTEST = "__Secure-" if OMNI_PATH_PREFIX else "__Host-"
_COOKIE = f"{_STRICTEST if BEHIND_TLS else ''}omni_{{}}_{OMNI_HOME.digest[:8]}"
SESSION_COOKIE_NAME = _COOKIE.format("session")
CSRF_COOKIE_NAME = _COOKIE.format("csrf")
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = OMNI_PATH_PREFIX or "/"
# Messages may say what should not travel to and fro.
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
SECURE_SSL_REDIRECT = False
# It is about a whole host: below a path the host is another's, too, and its proxy says it.
SECURE_HSTS_SECONDS = 31536000 if BEHIND_TLS and not OMNI_PATH_PREFIX else 0
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SILENCED_SYSTEM_CHECKS = (
    # TLS is the proxy's (OMNI_BEHIND_TLS): on plain loopback a Secure cookie would lock everybody
    # out.
    []
    if BEHIND_TLS
    else ["security.W004", "security.W008", "security.W012", "security.W016"]
) + (
    ["security.W004", "security.W008", "security.W005", "security.W021"]
    if BEHIND_TLS
    else []
)
CONTENT_SECURITY_POLICY = {
    # The admin theme evaluates expressions; it gets its own policy in omni.middleware.
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF, NONCE],
        "style-src": [SELF, NONCE],
        "img-src": [SELF, "data:"],
        "connect-src": [SELF],
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}

# --- mail ---------------------------------------------------------------------------------------
# By it alerts are told; without a host none is sent.
EMAIL_HOST = envstr("OMNI_EMAIL_HOST")
EMAIL_PORT = envint("OMNI_EMAIL_PORT", 587, low=1, high=65535)
EMAIL_HOST_USER = envstr("OMNI_EMAIL_USER")
EMAIL_HOST_PASSWORD = envsecret("OMNI_EMAIL_PASSWORD") or ""
EMAIL_USE_TLS = envbool("OMNI_EMAIL_STARTTLS", True)
EMAIL_USE_SSL = EMAIL_PORT == 465
if EMAIL_USE_SSL:
    EMAIL_USE_TLS = False
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = envstr("OMNI_EMAIL_FROM", f"omni@{OMNI_HOST_NAME}")

# --- bodies -------------------------------------------------------------------------------------
# An image of a chat may have 5 MiB and comes alone, a rig file 1 MB; a form is somewhat larger than
# what it holds. All of it stays in memory: nothing that somebody sends lies in a temporary folder.
LARGEST_BODY_BYTES = 6 << 20
DATA_UPLOAD_MAX_MEMORY_SIZE = FILE_UPLOAD_MAX_MEMORY_SIZE = LARGEST_BODY_BYTES
FILE_UPLOAD_HANDLERS = ["django.core.files.uploadhandler.MemoryFileUploadHandler"]
DATA_UPLOAD_MAX_NUMBER_FILES = 4

# --- static files -------------------------------------------------------------------------------
STATIC_URL = f"{OMNI_PATH_PREFIX}/static/"
STATIC_ROOT = OMNI_HOME.root / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.FileSystemFinder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
    "omni.staticfinder.PackageFinder",
]
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

# --- broker and channel layer -------------------------------------------------------------------
_socket = OMNI_HOME.valkey_socket
CHANNEL_REDIS_URL = OMNI_BROKER_URL or f"unix://{_socket}?db=2"
CELERY_BROKER_URL = OMNI_BROKER_URL or f"redis+socket://{_socket}?virtual_host=1"
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "omni.channel_layer.ChannelLayer",
        # A reader blocks for 5 s at a time; redis-py would give up on the socket just then.
        "CONFIG": {
            "hosts": [{"address": CHANNEL_REDIS_URL, "socket_timeout": 30}],
            "capacity": 1000,
            "expiry": 20,
            "prefix": "omni",
        },
    }
}
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_SERIALIZER = "json"
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_DEFAULT_QUEUE = f"host.{OMNI_HOST_NAME}"
CELERY_TASK_PUBLISH_RETRY = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_connect_timeout": 2,
    "socket_timeout": 10,
    "unacked_restore_interval": 5,
    # A message that cannot be published is given up at once: whoever publishes must not wait for a
    # broker.
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.1,
}

# --- log ----------------------------------------------------------------------------------------
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname).1s %(name)s: %(message)s"}
    },
    "filters": {"no_traceback_of_refusals": {"()": "omni.logs.NoTracebackOfRefusals"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": envstr("OMNI_LOG_LEVEL", "INFO")},
    "loggers": {
        "daphne": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        # Its lines would have the hub's signed addresses in them.
        "httpx2": {"level": "WARNING"},
        "httpcore": {"level": "WARNING"},
        "axes": {"level": "WARNING"},
        "celery": {"level": "WARNING"},
        "django.request": {"filters": ["no_traceback_of_refusals"]},
        "django.channels.server": {"level": "WARNING"},
    },
}

# --- admin --------------------------------------------------------------------------------------
UNFOLD = {
    "SITE_TITLE": "Omni",
    "SITE_HEADER": "Omni",
    "SITE_SUBHEADER": "Administration",
    "SITE_URL": f"{OMNI_PATH_PREFIX}/",
}
