"""The edge's settings, from the environment that its processes share."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from upnext.edge.hooks import SECRETS, Hook
from upnext.edge.origins import ANY
from upnext.edge.tokens import TokenKey, keys_of
from upnext.errors import UpnextError
from upnext.events.declared import load_sources
from upnext.experiences.declared import load_slots
from upnext.journeys.channels.webhook import parse_networks
from upnext.journeys.copy.message import Sender
from upnext.journeys.copy.signing import signing_keys
from upnext.journeys.declared import load_policy, sender_of
from upnext.journeys.policy import Topic
from upnext.kept import kept
from upnext.settings import Settings

DATABASE = "UPNEXT_EDGE_DATABASE"
"""The warehouse's connection string, which `upnext edge` sets for its processes."""
PROCESSES = "UPNEXT_EDGE_PROCESSES"
_log = logging.getLogger("upnext.edge")
REPORT_PASSWORD = "report_password"  # noqa: S105 - the name of a file in the home


@dataclass(frozen=True)
class Config:
    """How the edge serves: whose pages it answers, under which path, and what it keeps of whom."""

    database: str = ""
    processes: int = 1
    origins: frozenset[str] = frozenset()
    prefix: str = ""
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    keeps_ip: bool = False
    strips_queries: bool = True
    consent: str | None = None
    honours_privacy: bool = False
    """Whether events of browsers that send `Sec-GPC` or `DNT` are left out."""
    signing_keys: tuple[str, ...] = ()
    topics: Mapping[str, Topic] = field(default_factory=dict)
    sender: Sender | None = None
    token_keys: list[TokenKey] = field(default_factory=list)
    hooks: Mapping[str, Hook] = field(default_factory=dict)
    report_passwords: tuple[str, ...] = ()
    user_header: str | None = None
    """The header by which a trusted proxy names the user who has logged in there."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """The kind of each slot on its surfaces, by names such as `web.homepage_banner`."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Config":
        """Read the `UPNEXT_EDGE_*` variables. Raises `UpnextError` with the name of a wrong one."""
        settings = Settings.from_environment(environment)
        policy = load_policy(parse_networks(settings.webhook_networks), settings.campaigns / "policy.yml")
        return cls(
            database=environment.get(DATABASE, ""),
            processes=int(environment.get(PROCESSES) or 1),
            origins=frozenset(_origin(one) for one in _words(environment, "UPNEXT_EDGE_ORIGINS")),
            prefix=settings.edge_prefix,
            trusted_proxies=tuple(_network(one) for one in _words(environment, "UPNEXT_EDGE_TRUSTED_PROXIES")),
            keeps_ip=_is_on(environment, "UPNEXT_EDGE_KEEP_IP", default=False),
            strips_queries=_is_on(environment, "UPNEXT_EDGE_STRIP_QUERY", default=True),
            consent=environment.get("UPNEXT_EDGE_CONSENT") or None,
            honours_privacy=_is_on(environment, "UPNEXT_EDGE_HONOUR_GPC", default=False),
            signing_keys=tuple(signing_keys(settings)),
            topics=policy.topics,
            sender=sender_of(settings, policy, signing_keys(settings)),
            token_keys=keys_of(environment),
            hooks=_hooks(environment, settings),
            report_passwords=tuple(report_passwords(settings)),
            user_header=environment.get("UPNEXT_TRUSTED_USER_HEADER") or None,
            flags={
                f"{surface}.{name}": slot.kind
                for name, slot in load_slots(settings.campaigns / "slots.yml").items()
                for surface in slot.surfaces
            },
        )

    def is_trusted(self, address: str) -> bool:
        """Whether an address is of a trusted proxy. Raises `ValueError` for what is no address."""
        return any(ip_address(address) in network for network in self.trusted_proxies)

    def client_of(self, peer: str, forwarded: str | None) -> str:
        """Return the address that a request comes from: the last one that no trusted proxy has forwarded."""
        address = peer
        for stated in reversed((forwarded or "").split(",")):
            try:
                if not self.is_trusted(address) or not stated.strip():
                    return address
                address = str(ip_address(stated.strip()))
            except ValueError:
                return address
        return address


def report_passwords(settings: Settings) -> list[str]:
    """Return the passwords of the report: `UPNEXT_REPORT_PASSWORD`, or one that is made once and kept in the home."""
    if settings.report_password:
        return [settings.report_password]
    try:
        return kept(settings.home, REPORT_PASSWORD)
    except OSError:
        # A home that cannot be written is no reason to take no events; then nobody sees the report by a password.
        _log.warning("%s cannot be written: set UPNEXT_REPORT_PASSWORD to serve the report", settings.home)
        return []


def _hooks(environment: Mapping[str, str], settings: Settings) -> dict[str, Hook]:
    """Return the hooks of the providers that have a secret and a source, the first one by its name."""
    sources = load_sources(settings.sources)
    hooks = {}
    for provider, variable in SECRETS.items():
        named = next((name for name, source in sorted(sources.items()) if source.format == provider), None)
        if environment.get(variable) and named is None:
            raise UpnextError(f"{variable}: no source has `format: {provider}`; declare one in {settings.sources}")
        if environment.get(variable) and named is not None:
            hooks[provider] = Hook(named, environment[variable])
    return hooks


def check_origin(stated: str) -> str:
    """Return an origin as browsers send it. Raises `UpnextError` for what is none."""
    parts = urlsplit(stated)
    is_origin = parts.scheme in ("http", "https") and parts.netloc and parts.path in ("", "/") and not parts.query
    if not is_origin or "*" in stated or "@" in parts.netloc:
        raise UpnextError(f"'{stated}' is no origin of pages, such as https://otto.example")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _origin(stated: str) -> str:
    try:
        return stated if stated == ANY else check_origin(stated)
    except UpnextError as error:
        raise UpnextError(f"UPNEXT_EDGE_ORIGINS: {error}") from None


def _network(stated: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(stated)
    except ValueError:
        raise UpnextError(f"UPNEXT_EDGE_TRUSTED_PROXIES: '{stated}' is no network such as 10.0.0.0/8") from None


def _words(environment: Mapping[str, str], name: str) -> list[str]:
    return environment.get(name, "").replace(",", " ").split()


def _is_on(environment: Mapping[str, str], name: str, *, default: bool) -> bool:
    stated = environment.get(name, "").lower()
    if stated not in ("", "1", "0", "true", "false", "on", "off"):
        raise UpnextError(f"{name} is '{stated}'; it must be on or off")
    return stated in ("1", "true", "on") if stated else default
