"""Settings from the environment: where Upnext keeps its state, and which services it connects to."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from upnext.errors import UpnextError

_PACKAGE = Path(__file__).resolve().parent
# Where dbt_project/, campaigns/ and sources/ lie: in the package where it is installed, beside it in a checkout.
IS_CHECKOUT = not (_PACKAGE / "dbt_project").is_dir()
PROJECT = _PACKAGE.parent if IS_CHECKOUT else _PACKAGE
CONTENT = ("campaigns", "sources", "models")


def _content(named: str | None) -> Path | None:
    """Return the folder of a company's own content. Raises `UpnextError` where it is none."""
    if not named:
        return None
    folder = Path(named).expanduser().resolve()
    for part in CONTENT:
        if not (folder / part).is_dir():
            raise UpnextError(f"UPNEXT_CONTENT: {folder} has no folder {part}/; `upnext init {named}` makes them")
    return folder


VARIABLES = {
    "UPNEXT_HOME": "Folder of all state. The default is `.upnext` in the project, or where the command is called.",
    "UPNEXT_CONTENT": "A company's own content: `campaigns/ sources/ models/ lists/`. The default is the project's.",
    "UPNEXT_DATABASE_URL": "An existing Postgres 15 or newer. The default is the embedded server.",
    "UPNEXT_SMTP_URL": (
        "`smtp://[user:password@]host:port` or `smtps://`. The default is a local catcher, which writes into `mail/`."
    ),
    "UPNEXT_MAIL_FROM": "The sender of mails. It must be set where `UPNEXT_SMTP_URL` is.",
    "UPNEXT_BASE_URL": "The https address under which the edge serves links of mails. Unset, mails have direct links.",
    "UPNEXT_SIGNING_KEYS": "Keys that sign links, newest first. The default is one that is kept in the home.",
    "UPNEXT_ERASURE_KEYS": (
        "Keys of the hashes by which people who were erased stay out, newest first. The default is one that is kept in"
        " the home."
    ),
    "UPNEXT_REPORT_PASSWORD": "The password of the report. The default is one that is kept in the home.",
    "UPNEXT_TRUSTED_USER_HEADER": "The header by which a trusted proxy names who has logged in; it opens the report.",
    "UPNEXT_ALERTS_URL": "Where alerts about failed runs are posted.",
    "UPNEXT_ALERTS_TO": "The address that alerts about failed runs are mailed to.",
    "UPNEXT_WEBHOOK_NETWORKS": "Private networks that webhooks may reach, such as `10.0.0.0/8`.",
    "UPNEXT_UI_HOSTS": "Names by which browsers may ask for the Dagster UI, beside those of loopback.",
    "UPNEXT_LIVE": "`on` keeps the warm process at work from the start; `make dev` sets it.",
    "UPNEXT_DBT_THREADS": "How many models dbt builds at once. The default is 2.",
    "UPNEXT_EDGE_ORIGINS": "Origins whose pages may use any key, with commas between them; `*` is all.",
    "UPNEXT_EDGE_PREFIX": "The path under which the edge serves, such as `/up`.",
    "UPNEXT_EDGE_TRUSTED_PROXIES": "Networks of your proxies. Only their `X-Forwarded-*` headers count.",
    "UPNEXT_EDGE_KEEP_IP": "`on` keeps the address of the client. The default is `off`.",
    "UPNEXT_EDGE_STRIP_QUERY": "`off` keeps the queries of page addresses. The default is `on`.",
    "UPNEXT_EDGE_CONSENT": "A category of consent that events need.",
    "UPNEXT_EDGE_HONOUR_GPC": "`on` stores no events of browsers that send `Sec-GPC` or `DNT`. The default is `off`.",
    "UPNEXT_EDGE_TOKEN_KEYS": "Keys that verify the tokens of users, newest first.",
    "UPNEXT_EDGE_URL": "Where this machine reaches the edge, for links in the UI.",
    "UPNEXT_HOOK_SES_TOPICS": "Topics of SNS from which Amazon SES may report.",
    "UPNEXT_HOOK_POSTMARK_LOGIN": "The user and the password that Postmark states, as `user:password`.",
    "UPNEXT_HOOK_MAILGUN_KEY": "The key with which Mailgun signs what it reports.",
    "UPNEXT_HOOK_SENDGRID_KEY": "The key with which SendGrid signs what it reports.",
    "UPNEXT_HOOK_RESEND_SECRET": "The secret with which Resend signs what it reports.",
}
"""The variables that people set. Endpoints of the policy name more, for their secrets."""
INTERNAL = {
    "UPNEXT_DAGSTER_URL", "UPNEXT_DBT_MODELS", "UPNEXT_EDGE_DATABASE", "UPNEXT_EDGE_PROCESSES", "UPNEXT_PG_DATABASE",
    "UPNEXT_PG_HOST", "UPNEXT_PG_PORT", "UPNEXT_PG_SSLMODE", "UPNEXT_PG_USER",
}  # fmt: skip
"""The variables that processes of Upnext set for each other."""


@dataclass(frozen=True)
class Settings:
    """All settings. `None` means the default that needs nothing else: embedded server, local mail catcher."""

    home: Path
    database_url: str | None
    smtp_url: str | None
    mail_from: str | None
    content: Path | None = None
    base_url: str | None = None
    signing_keys: tuple[str, ...] = ()
    erasure_keys: tuple[str, ...] = ()
    webhook_networks: str = ""
    alerts_url: str | None = None
    alerts_to: str | None = None
    report_password: str | None = None
    edge_url: str | None = None
    """Where this machine reaches the edge; `upnext dev` sets it."""
    edge_prefix: str = ""
    """The path under which the edge serves, such as `/up`."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the `UPNEXT_*` variables; an empty variable counts as unset."""
        prefix = environment.get("UPNEXT_EDGE_PREFIX", "").strip("/")
        return cls(
            home=Path(environment.get("UPNEXT_HOME") or (PROJECT if IS_CHECKOUT else Path.cwd()) / ".upnext")
            .expanduser()
            .resolve(),
            database_url=environment.get("UPNEXT_DATABASE_URL") or None,
            smtp_url=environment.get("UPNEXT_SMTP_URL") or None,
            mail_from=environment.get("UPNEXT_MAIL_FROM") or None,
            content=_content(environment.get("UPNEXT_CONTENT")),
            base_url=(environment.get("UPNEXT_BASE_URL") or "").rstrip("/") or None,
            signing_keys=tuple(environment.get("UPNEXT_SIGNING_KEYS", "").replace(",", " ").split()),
            erasure_keys=tuple(environment.get("UPNEXT_ERASURE_KEYS", "").replace(",", " ").split()),
            webhook_networks=environment.get("UPNEXT_WEBHOOK_NETWORKS", ""),
            alerts_url=environment.get("UPNEXT_ALERTS_URL") or None,
            alerts_to=environment.get("UPNEXT_ALERTS_TO") or None,
            report_password=environment.get("UPNEXT_REPORT_PASSWORD") or None,
            edge_url=environment.get("UPNEXT_EDGE_URL") or None,
            edge_prefix=f"/{prefix}" if prefix else "",
        )

    @property
    def report_url(self) -> str | None:
        """Where people read the report; None where no edge is known."""
        base = self.base_url or self.edge_url
        return None if base is None else f"{base}/report"

    @property
    def sender_address(self) -> str:
        """The sender of mails. Raises `UpnextError` where mails would leave this machine in the name of the demo."""
        if self.mail_from is not None:
            return self.mail_from
        if self.smtp_url is not None:
            raise UpnextError(
                "UPNEXT_SMTP_URL is set and UPNEXT_MAIL_FROM is not: set it to the sender of your mails,"
                " such as 'Ada <ada@customer.example>'"
            )
        return "Otto <hello@otto.example>"

    @property
    def campaigns(self) -> Path:
        """Folder of what growth people edit: journeys, experiences, templates, slots and the policy."""
        return (self.content or PROJECT) / "campaigns"

    @property
    def sources(self) -> Path:
        """Folder of what data engineers edit: how files are read."""
        return (self.content or PROJECT) / "sources"

    @property
    def lists(self) -> Path:
        """Folder of the lists of ids that segments read; it may be missing."""
        return (self.content or PROJECT) / "lists"

    @property
    def landing(self) -> Path:
        """Folder that sources drop files into: `landing/<source>/...`."""
        return self.home / "landing"

    @property
    def archive(self) -> Path:
        """Folder of landed files that were loaded and packed."""
        return self.home / "archive"

    @property
    def maildir(self) -> Path:
        """Maildir that the local catcher writes to."""
        return self.home / "mail"

    @property
    def dagster_home(self) -> Path:
        """`DAGSTER_HOME`: logs and instance configuration; Dagster's tables live in the warehouse."""
        return self.home / "dagster"

    @property
    def dbt_target(self) -> Path:
        """Where dbt writes its manifest and run results."""
        return self.home / "dbt"
