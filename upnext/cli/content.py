"""The content that commands are about: that of the environment."""

from typing import Any

from upnext.cli.help import completes
from upnext.settings import Settings

JOURNEYS = completes("campaigns/journeys", "campaigns/broadcasts")
EXPERIENCES = completes("campaigns/experiences")
SEGMENTS = completes("models/segments")


def sources_here() -> dict[str, Any]:
    """Return the declared sources by name."""
    from upnext.events.declared import load_sources  # noqa: PLC0415

    return load_sources(Settings.from_environment().sources)


def project_here() -> Any:
    """Return the project."""
    from upnext.project import Project  # noqa: PLC0415

    return Project(Settings.from_environment())
