"""Whether the demo's intervals hold its true lifts: Otto's users straight into exposures and outcomes, seed by seed.

No mail is sent and no history replayed: arms are drawn as the product draws them, Otto's users respond to what they
would be shown, and the results are computed by the product's own SQL and statistics.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from rich.console import Console
from rich.progress import track
from rich.table import Table

from demo.otto import DECISIONS, TRUE_LIFTS, Message, Offer, Otto, Shown
from tests.outcomes import Event, store
from upnext.analytics.results import read_results
from upnext.experiences.definition import CONTROL, arm_of, bucket
from upnext.loop import analyse_results, build
from upnext.project import Project
from upnext.settings import Settings
from upnext.warehouse.embedded import EmbeddedServer

DAYS_SHOWN = 4
DAYS = 26
# Whom an experiment is for: the personas that the segments of the product are made of.
AUDIENCES = {
    "basic_plan_power_users": "power",
    "upgrade_curious": "curious",
    "low_usage_paid_users": "paid",
}


def simulate(project: Project, seed: int, users: int) -> None:
    """Store one seed's exposures and outcomes, and analyse them."""
    otto = Otto(seed=seed, users=users)
    experiences, journeys = project.experiences, project.journeys
    audiences = {
        name: otto.users_of(AUDIENCES[declared.segment or ""]) for name, declared in {**experiences, **journeys}.items()
    }
    held_out = {
        (name, user): bucket(f"{seed} holdout {name}", user) < journey.holdout
        for name, journey in journeys.items()
        for user in audiences[name]
    }
    as_of = otto.date(DAYS)
    store(
        project,
        as_of=as_of,
        assigned_at=otto.date(0),
        experiences=experiences,
        users={name: audiences[name] for name in experiences},
        journeys=journeys,
        entries=[(name, user, "held_out" if is_out else "completed") for (name, user), is_out in held_out.items()],
        events=_respond(otto, project, audiences, [key for key, is_out in held_out.items() if not is_out]),
    )
    analyse_results(project, as_of)


def _respond(
    otto: Otto, project: Project, audiences: dict[str, list[str]], treated: list[tuple[str, str]]
) -> Iterator[Event]:
    """Yield what Otto's users do about what they are shown, and nothing else."""
    offers = []
    for name, experience in project.experiences.items():
        for user in audiences[name]:
            arm = arm_of(name, experience, user)
            offers.append(Offer(user, name, "experience", arm, arm != CONTROL))
    messages = tuple(Message(f"{name} {user}", user, name) for name, user in treated)
    for day in range(DAYS):
        shown = Shown(tuple(offers), messages if day == 0 else ()) if day < DAYS_SHOWN else Shown()
        for event in otto.responses(day, shown):
            yield event["userId"], event["event"], datetime.fromisoformat(event["receivedAt"]), event["properties"]


def covered(project: Project, seeds: int, users: int) -> tuple[Counter[str], dict[str, list[float]]]:
    """Return in how many seeds the interval holds the true lift, and the measured lifts, by experiment."""
    holds: Counter[str] = Counter(dict.fromkeys(TRUE_LIFTS, 0))
    lifts: dict[str, list[float]] = {name: [] for name in TRUE_LIFTS}
    for seed in track(range(1, seeds + 1), console=Console(stderr=True), description="seeds"):
        simulate(project, seed, users)
        for row in read_results(project.engine):
            low, high = row["lift_low"], row["lift_high"]
            holds[row["experiment"]] += (
                low is not None and high is not None and (low <= TRUE_LIFTS[row["experiment"]] <= high)
            )
            lifts[row["experiment"]].append(row["lift"])
        with project.engine.begin() as connection:
            connection.execute(sa.text("truncate analytics.experiment_results"))
    return holds, lifts


def main() -> None:
    """Simulate many seeds, print the coverage, and fail where it is below nine in ten."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--users", type=int, default=3200)
    arguments = parser.parse_args()
    assert {name for decision in DECISIONS.values() for name in decision.experiments} == set(TRUE_LIFTS)
    with tempfile.TemporaryDirectory(prefix="upnext-lifts-") as folder:
        server = EmbeddedServer(Path(folder) / "postgres")
        try:
            project = Project(Settings.from_environment({"UPNEXT_HOME": folder, "UPNEXT_DATABASE_URL": server.start()}))
            build(project, datetime(2026, 1, 1, tzinfo=UTC) - timedelta(days=1), is_explicit=True)
            holds, lifts = covered(project, arguments.seeds, arguments.users)
            project.engine.dispose()
        finally:
            server.stop()
    table = Table(title=f"Otto's true lifts, {arguments.seeds} seeds of {arguments.users:,} users")
    for heading in ("experiment", "true", "measured, mean", "held by the 95 % interval"):
        table.add_column(heading, justify="left" if heading == "experiment" else "right")
    for name, lift in TRUE_LIFTS.items():
        mean = sum(lifts[name]) / len(lifts[name])
        table.add_row(name, f"{lift:+.0%}", f"{mean:+.0%}", f"{holds[name]} of {arguments.seeds}")
    Console(width=100).print(table)
    sys.exit(0 if min(holds.values()) >= 0.9 * arguments.seeds else 1)


if __name__ == "__main__":
    main()
