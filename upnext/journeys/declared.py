"""Reads and checks the declared journeys; errors name the file, the line and the nearest match."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from upnext.declarations import Problem, check, load, load_folder
from upnext.journeys.channels.webhook import Network, mistake_of
from upnext.journeys.copy.rendering import find_mistakes as find_template_mistakes
from upnext.journeys.copy.rendering import template_files, template_names
from upnext.journeys.definition import Email, Journey, Names, find_mistakes
from upnext.journeys.policy import Policy


def load_policy(networks: list[Network], path: Path) -> Policy:
    """Return what holds for all journeys; without a file the defaults. Raises `UpnextError` with file and line."""
    if not path.exists():
        return Policy()
    policy = load(path, Policy)
    check(path, _problems_of_endpoints(policy, networks))
    return policy


def _problems_of_endpoints(policy: Policy, networks: list[Network]) -> Iterator[Problem]:
    for name, endpoint in policy.endpoints.items():
        mistake = mistake_of(endpoint.url, networks)
        if mistake is not None:
            yield Problem(["endpoints", name, "url"], f"the url of endpoint '{name}' {mistake}")


def load_journeys(
    *,
    segments: set[str],
    events: set[str],
    features: set[str],
    slots: set[str],
    policy: Policy,
    campaigns: Path,
) -> dict[str, Journey]:
    """Return the declared journeys by name. Raises `UpnextError` with file and line for the first mistake."""
    folder, templates = campaigns / "journeys", campaigns / "templates"
    journeys = load_folder(folder, Journey)
    known = Names(
        segments=segments,
        events=events,
        features=features,
        templates=template_names(templates),
        endpoints=policy.endpoints,
        slots=slots,
    )
    for name, journey in journeys.items():
        check(folder / f"{name}.yml", find_mistakes(name, journey, known))
    for template in sorted(_templates(journeys)):
        for path in template_files(templates, template):
            check(path, find_template_mistakes(path.read_text(encoding="utf-8")))
    return journeys


def _templates(journeys: Mapping[str, Journey]) -> set[str]:
    emails = [step for journey in journeys.values() for step in journey.steps if isinstance(step, Email)]
    own = {email.template for email in emails}
    return own | {variant.template for email in emails for variant in email.variants.values() if variant.template}
