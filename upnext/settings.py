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
    webhook_networks: str = ""
    alerts_url: str | None = None
    alerts_to: str | None = None
    report_password: str | None = None
    edge_url: str | None = None
    """Where this machine reaches the edge; `upnext dev` sets it."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Settings":
        """Read the `UPNEXT_*` variables; an empty variable counts as unset."""
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
            webhook_networks=environment.get("UPNEXT_WEBHOOK_NETWORKS", ""),
            alerts_url=environment.get("UPNEXT_ALERTS_URL") or None,
            alerts_to=environment.get("UPNEXT_ALERTS_TO") or None,
            report_password=environment.get("UPNEXT_REPORT_PASSWORD") or None,
            edge_url=environment.get("UPNEXT_EDGE_URL") or None,
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
