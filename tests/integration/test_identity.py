"""Whose events they are: visitors who become users, users who become others, and users of accounts."""

import json
from datetime import timedelta

import pytest

from tests.conftest import AS_OF, Product, rows, warnings
from upnext.loop import build, ingest_landing
from upnext.project import Project

DAY = timedelta(days=1)


def counts(project: Project) -> dict[str, int]:
    """Logins by user."""
    return dict(rows(project, "select user_id, logins_30d from features.user_features"))


def refused(project: Project) -> list[tuple[str, str, str, str]]:
    return rows(
        project,
        "select kind, id, linked_to, refused_because from events.identity_links where user_id is null order by 1, 2, 3",
    )


def test_a_load_gives_events_to_whose_its_ids_are(project: Project, product: Product) -> None:
    product.store("identify", AS_OF - 3 * DAY, user_id="ada", anonymous_id="phone")
    product.store("alias", AS_OF - 2 * DAY, user_id="ada", previous_id="old")
    build(project, AS_OF - DAY, is_explicit=True)
    path = project.settings.landing / "segment" / "later.jsonl"
    path.parent.mkdir(parents=True)
    common = {"type": "track", "event": "login", "timestamp": AS_OF.isoformat()}
    ids = ({"anonymousId": "phone"}, {"userId": "old"}, {"userId": "phone"}, {"anonymousId": "stranger"})
    path.write_text("".join(json.dumps({**common, **one, "messageId": str(nth)}) + "\n" for nth, one in enumerate(ids)))
    assert ingest_landing(project).stored == 4
    people = "select message_id, person_id from raw.events where source = 'segment' order by 1"
    known = [("0", "ada"), ("1", "ada"), ("2", "phone"), ("3", "visitor:stranger")]
    assert rows(project, people) == known
    build(project, AS_OF + DAY, is_explicit=True)
    assert rows(project, people) == known


def test_earlier_activity_comes_along(project: Project, product: Product) -> None:
    def login(at: int, **ids: str) -> None:
        product.track(ids.pop("user_id", None), "login", AS_OF - at * DAY, **ids)

    # A visitor is identified afterwards, on two devices; another never is.
    login(9, anonymous_id="a1")
    login(8, anonymous_id="a2")
    login(7, anonymous_id="stranger")
    product.store("identify", AS_OF - 6 * DAY, user_id="u1", anonymous_id="a1")
    product.store("alias", AS_OF - 5 * DAY, user_id="u1", previous_id="a2")
    # What a user did on a device is the user's, whoever the device belonged to before.
    login(4, anonymous_id="a1", user_id="u2")
    # A device that two have used goes with the first.
    product.store("identify", AS_OF - 3 * DAY, user_id="u2", anonymous_id="a1")
    # A user is renamed twice.
    login(9, user_id="old")
    login(8, user_id="newer")
    login(7, anonymous_id="a3")
    product.store("identify", AS_OF - 7 * DAY, user_id="old", anonymous_id="a3")
    product.store("alias", AS_OF - 6 * DAY, user_id="newer", previous_id="old")
    product.store("alias", AS_OF - 5 * DAY, user_id="newest", previous_id="newer")
    # Ids of visitors and of users are apart, and so are different spellings.
    login(9, anonymous_id="u2")
    login(9, user_id="A1")
    # Whoever has the key of a page says that one user is another.
    product.store("alias", AS_OF - 6 * DAY, user_id="u1", previous_id="A1")
    with project.engine.begin() as connection:
        unproven = "update raw.events set context = '{\"upnext\": {\"unproven\": true}}' where previous_id = 'A1'"
        connection.exec_driver_sql(unproven)
    # A circle: the link that would close it is refused, and so is a link to oneself.
    login(9, user_id="x")
    login(9, user_id="y")
    login(9, user_id="z")
    product.store("alias", AS_OF - 4 * DAY, user_id="y", previous_id="x")
    product.store("alias", AS_OF - 3 * DAY, user_id="z", previous_id="y")
    product.store("alias", AS_OF - 2 * DAY, user_id="x", previous_id="z")
    product.store("alias", AS_OF - 2 * DAY, user_id="x", previous_id="x")
    # What is said later than as_of is not known yet.
    login(9, anonymous_id="a9")
    product.store("identify", AS_OF + timedelta(microseconds=1), user_id="u1", anonymous_id="a9")

    build(project, AS_OF, is_explicit=True)
    assert counts(project) == {"u1": 2, "u2": 1, "newest": 3, "A1": 1, "z": 3}
    assert refused(project) == [
        ("user", "z", "x", "closes a circle"),
        ("visitor", "a1", "u2", "linked to another user before"),
    ]
    assert warnings(project) == {"identities_are_plausible"}

    build(project, AS_OF + timedelta(minutes=1), is_explicit=True)
    assert counts(project)["u1"] == 3


def test_absurdly_many_ids_come_to_an_end(project: Project, product: Product) -> None:
    """A terminal that everybody uses, by identify and by alias, and a user who is renamed again and again."""
    seconds = [AS_OF - DAY + timedelta(seconds=number) for number in range(520)]
    for number, at in enumerate(seconds):
        product.track(None, "login", at, anonymous_id=f"a{number}")
        product.store("identify", at, user_id="kiosk", anonymous_id=f"a{number}")
        product.track(None, "login", at, anonymous_id=f"b{number}")
        product.store("alias", at, user_id="counter", previous_id=f"b{number}")
        product.store("alias", at, user_id=f"u{number + 1}", previous_id=f"u{number}")
    build(project, AS_OF, is_explicit=True)
    assert counts(project)["kiosk"] == counts(project)["counter"] == 500
    too_many = [(kind, id) for kind, id, _, reason in refused(project) if reason == "the person has too many ids"]
    assert {id for _, id in too_many} >= {f"{device}{number}" for device in "ab" for number in range(500, 520)}
    assert [id for _, id in too_many if id.startswith("u")]


def test_whoever_is_refused_by_a_crowd_keeps_their_own_ids(project: Project, product: Product) -> None:
    seconds = [AS_OF - DAY + timedelta(seconds=number) for number in range(500)]
    for number in range(3):
        product.track(None, "login", AS_OF - 2 * DAY, anonymous_id=f"phone{number}")
        product.store("identify", AS_OF - 2 * DAY, user_id="ann", anonymous_id=f"phone{number}")
    product.store("alias", AS_OF - 2 * DAY, user_id="ann", previous_id="anne")
    product.track("anne", "login", AS_OF - 2 * DAY)
    for number, at in enumerate(seconds):
        product.track(None, "login", at, anonymous_id=f"k{number}")
        product.store("identify", at, user_id="kiosk", anonymous_id=f"k{number}")
    product.store("alias", AS_OF - DAY / 2, user_id="kiosk", previous_id="ann")
    build(project, AS_OF, is_explicit=True)
    assert {user: logins for user, logins in counts(project).items() if logins} == {"ann": 4, "kiosk": 500}
    assert refused(project) == [(kind, "ann", "kiosk", "the person has too many ids") for kind in ("user", "visitor")]


@pytest.mark.other_servers
def test_accounts_count_what_their_members_do(project: Project, product: Product) -> None:
    for user_id, account_id, day in (("u1", "acme", 9), ("u2", "acme", 8), ("u2", "beta", 7), ("u3", "beta", 6)):
        product.store("group", AS_OF - day * DAY, user_id=user_id, account_id=account_id)
    product.track("u1", "login", AS_OF - 20 * DAY)
    product.track("u1", "invited team member", AS_OF - DAY)
    product.track("u2", "login", AS_OF - DAY)
    product.track("u2", "exported report", AS_OF - DAY, account_id="acme")
    product.track("u3", "login", AS_OF - 40 * DAY)
    product.track("u4", "login", AS_OF - DAY, account_id="guests")
    product.track("u5", "login", AS_OF - DAY)
    for user_id, plan, day in (("u1", "premium", 3), ("u2", "premium", 5), ("u2", "basic", 4), ("u3", "premium", 2)):
        product.track(user_id, f"subscribed to {plan} plan", AS_OF - day * DAY)
    build(project, AS_OF, is_explicit=True)
    assert rows(
        project,
        "select account_id, active_users_30d, events_30d, invites_30d, members, members_on_premium"
        " from features.account_features order by 1",
    ) == [
        ("acme", 2, 6, 1, 2, 1),
        ("beta", 2, 6, 0, 2, 1),
        ("guests", 1, 1, 0, 0, 0),
    ]
