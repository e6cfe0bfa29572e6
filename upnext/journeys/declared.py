"""Reads and checks the declared journeys; errors name the file, the line and the nearest match."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec

from upnext.declarations import Keys, Problem, check, load, load_folder, read_text
from upnext.errors import UpnextError, nearest
from upnext.journeys.channels.webhook import Network, mistake_of
from upnext.journeys.copy.emails import attachment_path
from upnext.journeys.copy.message import Body, Sender
from upnext.journeys.copy.templates import (
    copy_sources,
    languages,
    languages_of,
    mentions,
    names_used,
    template_files,
    template_names,
)
from upnext.journeys.copy.templates import find_mistakes as find_template_mistakes
from upnext.journeys.definition import AnyStep, Broadcast, Email, EmailVariant, Journey, StartJourney, Track
from upnext.journeys.mistakes import Names, find_circle, find_mistakes, find_mistakes_of_broadcast
from upnext.journeys.plan import is_transactional, starts
from upnext.journeys.policy import Policy, PolicyFile, Topic, TopicsFile
from upnext.settings import Settings

MAX_ATTACHMENTS = 10_000_000
"""Bytes of all attachments of a mail."""


def load_topics(path: Path) -> dict[str, Topic]:
    """Read `topics.yml`; without it there are none. Raises `UpnextError` with file and line."""
    return load(path, TopicsFile).topics if path.exists() else {}


def load_policy(networks: list[Network], path: Path) -> Policy:
    """Return what holds for all journeys, topics too, from a file and the one beside it; without them the defaults.

    Raises `UpnextError` with file and line.
    """
    topics = load_topics(path.with_name("topics.yml"))
    policy = load(path, PolicyFile) if path.exists() else PolicyFile()
    check(path, _problems_of_endpoints(policy, networks))
    check(path, _problems_of_utm(policy))
    check(path, _problems_of_headers(policy))
    if policy.programme is not None and policy.global_holdout == 0:
        mistake = "without a global_holdout there is nobody to compare with; hold out a share such as 0.05"
        check(path, [Problem(["programme"], mistake)])
    return Policy(**msgspec.structs.asdict(policy), topics=topics)


def sender_of(settings: Settings, policy: Policy, keys: list[str]) -> Sender:
    """Return who sends mails, and how their links are made."""
    return Sender(
        settings.sender_address,
        settings.base_url,
        keys,
        str(settings.campaigns / "templates"),
        policy.utm,
        policy.postal_address,
        policy.language_trait,
        {
            name: Body(endpoint.format, endpoint.body)
            for name, endpoint in policy.endpoints.items()
            if endpoint.body is not None
        },
        policy.mail_headers,
    )


def _problems_of_endpoints(policy: PolicyFile, networks: list[Network]) -> Iterator[Problem]:
    for name, endpoint in policy.endpoints.items():
        mistake = mistake_of(re.sub(r"\$\{UPNEXT_[A-Z0-9_]+\}", "x", endpoint.url), networks)
        if mistake is not None:
            yield Problem(["endpoints", name, "url"], f"the url of endpoint '{name}' {mistake}")


def _problems_of_headers(policy: PolicyFile) -> Iterator[Problem]:
    for name, value in policy.mail_headers.items():
        if not re.fullmatch(r"(X-|Feedback-ID$)[A-Za-z0-9_-]*", name, re.IGNORECASE):
            yield Problem(["mail_headers", name], f"'{name}' is no header of one's own, such as X-PM-KeepID")
        if not value.isprintable() or not value.isascii():
            yield Problem(["mail_headers", name], f"'{name}' holds what no header can, such as a line break")


def _problems_of_utm(policy: PolicyFile) -> Iterator[Problem]:
    given = ("journey", "step", "variant")
    for name, text in policy.utm.items():
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", name):
            yield Problem(["utm", name], f"'{name}' is no name of a parameter such as utm_source")
        for used in re.findall(r"\{([^}]*)\}", text):
            if used not in given:
                yield Problem(["utm", name], f"'{{{used}}}' is none of {', '.join(given)}{nearest(used, given)}")


def load_journeys(
    *,
    segments: Mapping[str, str],
    events: set[str],
    features: Mapping[str, str | None],
    slots: Mapping[str, Collection[str]],
    policy: Policy,
    campaigns: Path,
) -> dict[str, Journey]:
    """Return the declared journeys and broadcasts by name; what they may name is that of `Names`.

    Raises `UpnextError` with file and line for the first mistake.
    """
    templates = campaigns / "templates"
    journeys = load_folder(campaigns / "journeys", Journey)
    broadcasts = load_folder(campaigns / "broadcasts", Broadcast)
    for name, broadcast in broadcasts.items():
        check(file_of(campaigns, name, broadcast), find_mistakes_of_broadcast(broadcast, journeys, name))
    journeys = {**journeys, **broadcasts}
    known = Names(
        segments=segments,
        events=events,
        features=features,
        templates=template_names(templates),
        endpoints=policy.endpoints,
        topics=policy.topics,
        slots=slots,
        journeys=journeys,
        broadcasts=broadcasts,
        started={started for journey in journeys.values() for started in starts(journey)},
    )
    for name, journey in journeys.items():
        check(file_of(campaigns, name, journey), find_mistakes(name, journey, known))
    if circle := find_circle(journeys):
        name, first = circle
        position, key = next(
            (nth, "journey" if isinstance(step, StartJourney) else "event")
            for nth, step in enumerate(journeys[name].steps)
            if (isinstance(step, StartJourney) and step.journey == first)
            or (isinstance(step, Track) and step.event in getattr(journeys[first].event, "any_of", ()))
        )
        mistake = f"journey '{first}' leads back to '{name}': journeys that start each other would never end"
        check(file_of(campaigns, name, journeys[name]), [Problem(["steps", position, key], mistake)])
    for template in sorted(_templates(journeys)):
        for path in template_files(templates, template):
            if not path.is_file():
                raise UpnextError(f"{path}: is missing; a template has a file of text and one of MJML in each language")
            check(path, find_template_mistakes(read_text(path)))
    for name, journey in journeys.items():
        _check_features(file_of(campaigns, name, journey), journey, templates, features)
        if journey.event is None:
            _check_no_event(file_of(campaigns, name, journey), journey, templates)
        check(file_of(campaigns, name, journey), _mistakes_of_files(journey, policy, templates))
    return journeys


def _mistakes_of_files(journey: Journey, policy: Policy, templates: Path) -> Iterator[Problem]:
    """Yield what is wrong with the files that mails are made of: attachments and templates."""
    for position, step in enumerate(journey.steps):
        if isinstance(step, Email):
            keys: Keys = ["steps", position]
            yield from _mistakes_of_attachments([*keys, "attachments"], step, templates)
            yield from _mistakes_of_languages([*keys, "subject"], step, templates)
            if policy.postal_address is not None and not is_transactional(journey, step):
                yield from _not_printed([*keys, "template"], step, templates, "postal_address")
            if any(copy.preheader is not None for copy in _copies(step)):
                yield from _not_printed([*keys, "template"], step, templates, "preheader")


def _copies(step: Email) -> list[Email | EmailVariant]:
    return [step, *step.variants.values()]


def _mistakes_of_attachments(keys: Keys, step: Email, templates: Path) -> Iterator[Problem]:
    sizes = {}
    for nth, file in enumerate(step.attachments):
        path = attachment_path(templates, file)
        if not path.is_file():
            there = [other.name for other in path.parent.glob("*")]
            yield Problem([*keys, nth], f"{path} is not there{nearest(file, there)}")
        else:
            sizes[file] = path.stat().st_size
    if sum(sizes.values()) > MAX_ATTACHMENTS:
        megabytes = sum(sizes.values()) / 1_000_000
        most = MAX_ATTACHMENTS // 1_000_000
        mistake = f"{megabytes:,.1f} MB in all; mail servers refuse more than about {most} MB: link to the file"
        yield Problem(keys, mistake)


def _mistakes_of_languages(keys: Keys, step: Email, templates: Path) -> Iterator[Problem]:
    for copy in _copies(step):
        template = copy.template or step.template
        for language in sorted(copy.subject) if isinstance(copy.subject, dict) else ():
            if language != "default" and not set(languages(language)) & set(languages_of(templates, template)):
                mistake = f"is in '{language}', but the template is not: add {template}.{language}.txt and .mjml"
                yield Problem(keys, mistake)


def files_of_marketing(journey: Journey, step: AnyStep, templates: Path) -> set[str]:
    """Return the files of templates from which a step makes mails that users may unsubscribe from."""
    if not isinstance(step, Email) or is_transactional(journey, step):
        return set()
    names = {copy.template for copy in _copies(step) if copy.template is not None}
    return {path.name for name in names for path in template_files(templates, name)}


def _not_printed(keys: Keys, step: Email, templates: Path, name: str) -> Iterator[Problem]:
    for template in sorted({copy.template for copy in _copies(step) if copy.template is not None}):
        if not mentions(templates, f"{template}.mjml", name):
            yield Problem(keys, f"template {template}.mjml does not print {{{{ {name} }}}}")


def file_of(campaigns: Path, name: str, journey: Journey) -> Path:
    """Return the file that declares a journey or a broadcast."""
    return campaigns / ("broadcasts" if isinstance(journey, Broadcast) else "journeys") / f"{name}.yml"


def _check_no_event(path: Path, journey: Journey, templates: Path) -> None:
    """Raise `UpnextError` where copy reads the event of a journey that no event lets people into."""
    for position, step in enumerate(journey.steps):
        for where, source in copy_sources(msgspec.to_builtins(step), templates):
            for use in names_used(source):
                if use.of == "event":
                    mistake = f"reads event.{use.name}, but a segment lets people in here, and no event"
                    keys: Keys = ["steps", position, *(where if isinstance(where, list) else ["template"])]
                    check(path, [Problem(keys, f"step '{step.name}' {mistake}")])


def _check_features(path: Path, journey: Journey, templates: Path, features: Collection[str]) -> None:
    """Raise `UpnextError` where copy reads a feature that nobody has declared: a condition on it would be false."""
    for position, step in enumerate(journey.steps):
        for where, source in copy_sources(msgspec.to_builtins(step), templates):
            for use in names_used(source):
                if use.of == "features" and use.name not in features and not hasattr(dict, use.name):
                    place = use.line if isinstance(where, Path) else ["steps", position, *where]
                    file = where if isinstance(where, Path) else path
                    check(file, [Problem(place, f"unknown feature '{use.name}'{nearest(use.name, features)}")])


def _templates(journeys: Mapping[str, Journey]) -> set[str]:
    emails = [step for journey in journeys.values() for step in journey.steps if isinstance(step, Email)]
    own = {email.template for email in emails}
    return own | {variant.template for email in emails for variant in email.variants.values() if variant.template}
