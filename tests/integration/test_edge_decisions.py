"""Which call to action a user sees, asked over HTTP: by hand, and by OpenFeature's own provider."""

import hmac
import json
import shutil
import subprocess
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from openfeature import api
from openfeature.contrib.provider.ofrep import OFREPProvider
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from sqlalchemy.engine import URL

from tests.conftest import AS_OF, create_database, settings_for, wait_for
from tests.integration.test_edge import OTTO, Answer, Edge, running
from tests.journeys import Journeys
from upnext.clock import utc_now
from upnext.edge.tokens import keys_of
from upnext.errors import UpnextError
from upnext.project import Project

SECRET = "a secret of forty bytes, for tests alone"
OLDER = "an older secret that still verifies tokens"
PRIVATE = Ed25519PrivateKey.generate()
BANNER, FOOTER = "web.homepage_banner", "web.pricing_page_sticky_footer"
BULK = "/ofrep/v1/evaluate/flags"


def token(user: Any, *, secret: Any = SECRET, lives: timedelta = timedelta(hours=1), **values: Any) -> str:
    headers = {"kid": values.pop("kid")} if "kid" in values else None
    claims = {"sub": user, "aud": "upnext", "exp": datetime.now(UTC) + lives, **values}
    algorithm = "EdDSA" if isinstance(secret, Ed25519PrivateKey) else "HS256"
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.api_jws.encode(
        json.dumps({**kept, **({"exp": int(kept["exp"].timestamp())} if "exp" in kept else {})}).encode(),
        secret, algorithm=algorithm, headers=headers,
    )  # fmt: skip


@pytest.fixture(scope="module")
def edge(embedded_url: URL, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """An edge, and a warehouse in which a few users see something."""
    home = tmp_path_factory.mktemp("decisions")
    pem = home / "public.pem"
    pem.write_bytes(PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    project = Project(settings_for(home, create_database(embedded_url, "upnext_decisions")))
    now = utc_now()
    shown = [
        ("ann", "homepage_banner", "spring", "a", "Upgrade <b>now</b>", None, None),
        ("bob", "homepage_banner", "spring", "control", None, None, None),
        ("cid", "homepage_banner", "spring", "a", "Too early", now + timedelta(hours=1), None),
        ("dan", "homepage_banner", "spring", "a", "Too late", None, now - timedelta(seconds=1)),
        ("ann", "pricing_page_sticky_footer", "open_to_all", "x", "Hello", None, None),
        ("visitor:phone", "pricing_page_sticky_footer", "open_to_all", "x", "Hello", None, None),
    ]
    with project.engine.begin() as connection:
        for name, is_public in (("spring", False), ("open_to_all", True)):
            connection.execute(
                sa.text("insert into experiences.definitions values (:name, cast(:definition as jsonb))"),
                {"name": name, "definition": json.dumps({"public": is_public})},
            )
        for user, slot, source, variant, copy, starts, ends in shown:
            connection.execute(
                sa.text(
                    "insert into experiences.live_ctas (user_id, surface, slot, source, source_kind, variant, copy,"
                    " url, starts_at, ends_at) values (:user, 'web', :slot, :source, 'experience', :variant, :copy,"
                    " '/up', :starts, :ends)"
                ),
                {"user": user, "slot": slot, "source": source, "variant": variant, "copy": copy,
                 "starts": starts or now - timedelta(hours=1), "ends": ends},
            )  # fmt: skip
    keys = f"new={secret()},{secret(OLDER)},{pem}"
    with running(project, UPNEXT_EDGE_TOKEN_KEYS=keys) as running_edge:
        yield running_edge
    project.engine.dispose()


def ask(edge: Edge, user: Any, path: str = BULK, *, signed: str | None = None, **headers: str) -> Answer:
    context = {"targetingKey": user, **({"upnextToken": signed} if signed is not None else {})}
    own = {"X_Write_Key": edge.key, "User_Agent": "Mozilla/5.0"}
    return edge.ask("POST", path, {"context": context}, **{**own, **headers})


def secret(of: str = SECRET) -> str:
    return of.replace(" ", "-").replace(",", "")


def values(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    return {flag["key"]: flag["value"].get("copy", "nothing") for flag in answer.body["flags"]}


@pytest.mark.parametrize("user", ["x\0", "x" * 1001, "\u00e9" * 501])
def test_what_cannot_be_an_id_does_not_disturb_those_who_ask_beside_it(edge: Edge, user: str) -> None:
    server = edge.add_key("server")
    headers = {"X_Write_Key": server}
    wait_for(lambda: ask(edge, "ann", **headers).status == 200, "the key")
    refused = ask(edge, user, **headers)
    assert (refused.status, refused.body["errorCode"]) == (400, "INVALID_CONTEXT")


@pytest.mark.parametrize("expires", ["soon", 1e18, 1e30, True, None, {}])
def test_a_token_of_a_time_that_is_none_is_refused(edge: Edge, expires: Any) -> None:
    claims = json.dumps({"sub": "ann", "aud": "upnext", "exp": expires}).encode()
    assert ask(edge, "ann", signed=jwt.api_jws.encode(claims, secret(), algorithm="HS256")).status == 401


def test_each_slot_is_a_flag_and_control_is_not_nothing(edge: Edge) -> None:
    for user, banner, variant, reason in (
        ("ann", "Upgrade <b>now</b>", "a", "SPLIT"), ("bob", None, "control", "SPLIT"),
        ("cid", "nothing", "none", "DEFAULT"), ("dan", "nothing", "none", "DEFAULT"),
        ("nobody", "nothing", "none", "DEFAULT"),
    ):  # fmt: skip
        signed = token(user, secret=secret())
        assert values(ask(edge, user, signed=signed))[BANNER] == banner
        one = ask(edge, user, f"{BULK}/{BANNER}", signed=signed).body
        assert (one["key"], one["variant"], one["reason"]) == (BANNER, variant, reason)
        assert one.keys() == {"key", "variant", "reason", "value", "metadata"}
    assert "segment" not in json.dumps(ask(edge, "ann", signed=token("ann", secret=secret())).body)


def test_who_may_ask_for_whom(edge: Edge) -> None:
    good = token("ann", secret=secret())
    public_key = PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert ask(edge, "ann", signed=good, Origin=OTTO).status == 200
    for user, signed, status in (
        ("ann", None, 401), ("bob", good, 403), ("ann", f"{good}x", 401), ("ann", "x", 401), ("ann", "", 401),
        ("ann", token("ann", secret=secret(), lives=timedelta(minutes=-5)), 401),
        ("ann", token("ann", secret=secret(), lives=timedelta(days=2)), 401),
        ("ann", token("ann", secret=secret(), exp=None), 401), ("ann", token("ann", secret=secret(), aud="other"), 401),
        ("ann", token(5, secret=secret()), 401), ("ann", token("ann", secret="some secret of forty bytes in all"), 401),
        ("ann", token("ann", secret=secret(), kid="new"), 200), ("ann", token("ann", secret=secret(), kid="old"), 401),
        ("ann", token("ann", secret=secret(OLDER)), 200), ("ann", token("ann", secret=PRIVATE), 200),
        ("ann", jwt.encode({"sub": "ann", "aud": "upnext"}, "", algorithm="none"), 401),
    ):  # fmt: skip
        assert ask(edge, user, signed=signed).status == status, signed
    claims = json.dumps({"sub": "ann", "aud": "upnext", "exp": int(datetime.now(UTC).timestamp()) + 60}).encode()
    for key in (public_key, public_key.strip()):
        head, body = (urlsafe_b64encode(part).rstrip(b"=") for part in (b'{"alg":"HS256","typ":"JWT"}', claims))
        mark = urlsafe_b64encode(hmac.digest(key, head + b"." + body, "sha256")).rstrip(b"=")
        assert ask(edge, "ann", signed=b".".join((head, body, mark)).decode()).status == 401
    bearer = ask(edge, "ann", Authorization=f"Bearer {good}")
    assert values(bearer)[BANNER] == "Upgrade <b>now</b>"


def test_an_unsigned_asker_sees_what_is_public_alone(edge: Edge) -> None:
    open_key = edge.add_key(identity="optional")
    asked = {"X_Write_Key": open_key}
    wait_for(lambda: ask(edge, "ann", **asked).status == 200, "the key")
    assert values(ask(edge, "ann", **asked))[FOOTER] == "Hello"
    assert values(ask(edge, "ann", **asked))[BANNER] == "nothing"
    assert values(ask(edge, "visitor:phone", **asked))[FOOTER] == "Hello"


def test_a_server_asks_for_anybody_and_a_browser_may_not_use_its_key(edge: Edge) -> None:
    server = edge.add_key("server")
    headers = {"Authorization": f"Bearer {server}", "X_Write_Key": ""}
    wait_for(lambda: ask(edge, "ann", **headers).status == 200, "the key")
    assert values(ask(edge, "ann", **headers))[BANNER] == "Upgrade <b>now</b>"
    assert ask(edge, "ann", **headers, Origin=OTTO).status == 403
    assert ask(edge, "ann", X_API_Key=server, X_Write_Key="").status == 200


def test_an_answer_that_the_asker_has_is_not_sent_again(edge: Edge) -> None:
    ann, bob = (ask(edge, user, signed=token(user, secret=secret())) for user in ("ann", "nobody"))
    assert ann.headers["cache-control"] == "private, no-store"
    tag = ann.headers["etag"]
    again = ask(edge, "ann", signed=token("ann", secret=secret()), If_None_Match=tag, Origin=OTTO)
    assert (again.status, again.body, again.headers["etag"]) == (304, b"", tag)
    assert again.headers["access-control-allow-origin"] == OTTO
    assert ask(edge, "nobody", signed=token("nobody", secret=secret()), If_None_Match=tag).status == 200
    other = ask(edge, "cid", signed=token("cid", secret=secret()))
    assert values(other) == values(bob)
    assert other.headers["etag"] != bob.headers["etag"], "the same values of another user are another answer"


def test_an_answer_that_was_kept_ends_with_its_call_to_action(project: Project) -> None:
    with running(project) as edge:
        server = {"Authorization": f"Bearer {edge.add_key('server')}", "X_Write_Key": ""}
        wait_for(lambda: ask(edge, "ann", **server).status == 200, "the key")
        with project.engine.begin() as connection:
            connection.execute(
                sa.text(
                    "insert into experiences.live_ctas (user_id, surface, slot, source, source_kind, variant, copy,"
                    " starts_at, ends_at) values ('ann', 'web', 'homepage_banner', 'spring', 'journey', 'a', 'Hello',"
                    " :starts, :ends)"
                ),
                {"starts": utc_now() + timedelta(seconds=3), "ends": utc_now() + timedelta(seconds=6)},
            )
        seen: list[tuple[str, str]] = []

        def is_over() -> bool:
            answer = ask(edge, "ann", **server)
            now = (values(answer)[BANNER], answer.headers["etag"])
            if now not in seen[-1:]:
                seen.append(now)
            return [copy for copy, _ in seen] == ["nothing", "Hello", "nothing"]

        wait_for(is_over, "the end of the call to action")
        assert seen[0] == seen[2] != seen[1]


@pytest.mark.parametrize(
    ("body", "path", "status", "code"),
    [
        (b"[", BULK, 400, "PARSE_ERROR"), (b"[]", BULK, 400, "PARSE_ERROR"), (b"\xff", BULK, 400, "PARSE_ERROR"),
        (b'{"context": []}', BULK, 400, "INVALID_CONTEXT"), (b"{}", BULK, 400, "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": 5}}', BULK, 400, "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": ""}}', BULK, 400, "TARGETING_KEY_MISSING"),
        (b'{"context": {"targetingKey": "ann"}}', f"{BULK}/web.nowhere", 404, "FLAG_NOT_FOUND"),
    ],
)  # fmt: skip
def test_what_is_no_question(edge: Edge, body: bytes, path: str, status: int, code: str) -> None:
    answer = edge.ask("POST", path, body, X_Write_Key=edge.key, User_Agent="Mozilla/5.0")
    assert (answer.status, answer.body["errorCode"]) == (status, code)
    assert answer.body.keys() == {"key", "errorCode", "errorDetails"}


def test_a_program_sees_nothing(edge: Edge) -> None:
    seen = ask(edge, "ann", signed=token("ann", secret=secret()), User_Agent="Googlebot/2.1")
    assert set(values(seen).values()) == {"nothing"}


def test_while_the_warehouse_is_away_the_last_answers_hold(project: Project) -> None:
    with project.engine.begin() as connection:
        connection.execute(sa.text(
            "insert into experiences.live_ctas (user_id, surface, slot, source, source_kind, variant, copy, starts_at)"
            " values ('ann', 'web', 'homepage_banner', 'spring', 'journey', 'a', 'Hello', now() - interval '1 hour')"
        ))  # fmt: skip
    other = sa.create_engine(project.engine.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    database = project.engine.url.database
    with running(project) as edge, other.connect() as connection:
        server = {"Authorization": f"Bearer {edge.add_key('server')}", "X_Write_Key": ""}
        wait_for(lambda: ask(edge, "ann", **server).status == 200, "the key")
        connection.exec_driver_sql(f'alter database "{database}" allow_connections false')
        ends = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %(name)s"
        connection.exec_driver_sql(ends, {"name": database})
        assert values(ask(edge, "ann", **server))[BANNER] == "Hello"
        refused = ask(edge, "bob", **server)
        assert (refused.status, refused.headers["retry-after"]) == (503, "2")
        connection.exec_driver_sql(f'alter database "{database}" allow_connections true')
        wait_for(lambda: ask(edge, "bob", **server).status == 200, "the warehouse")
    other.dispose()


def test_openfeatures_python_provider_as_it_is(edge: Edge) -> None:
    server = edge.add_key("server")
    wait_for(lambda: ask(edge, "ann", X_API_Key=server, X_Write_Key="").status == 200, "the key")
    provider = OFREPProvider(
        f"http://127.0.0.1:{edge.port}", headers_factory=lambda: {"Authorization": f"Bearer {server}"}
    )
    api.set_provider(provider)
    client = api.get_client()
    found = client.get_object_details(BANNER, {}, EvaluationContext("ann"))
    assert (found.value["copy"], found.variant, found.error_code) == ("Upgrade <b>now</b>", "a", None)  # type: ignore[index,call-overload]
    control = client.get_object_details(BANNER, {}, EvaluationContext("bob"))
    assert (control.value["copy"], control.variant) == (None, "control")  # type: ignore[index,call-overload]
    nothing = client.get_object_details(BANNER, {"variant": "default"}, EvaluationContext("nobody"))
    assert (nothing.value, nothing.error_code) == ({"variant": "none"}, None)
    unknown = client.get_object_details("web.nowhere", {"variant": "default"}, EvaluationContext("ann"))
    assert (unknown.value, unknown.error_code) == ({"variant": "default"}, ErrorCode.FLAG_NOT_FOUND)
    assert client.get_boolean_value(BANNER, True, EvaluationContext("ann")) is True
    api.shutdown()


def test_openfeatures_node_provider_as_it_is(edge: Edge, clients: Path) -> None:
    server = edge.add_key("server")
    wait_for(lambda: ask(edge, "ann", X_API_Key=server, X_Write_Key="").status == 200, "the key")
    command = [shutil.which("node") or "", "decide.mjs", f"http://127.0.0.1:{edge.port}", server]
    done = subprocess.run(command, cwd=clients, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == {
        "ann": {"copy": "Upgrade <b>now</b>", "variant": "a", "reason": "SPLIT"},
        "bob": {"copy": None, "variant": "control", "reason": "SPLIT"},
        "nobody": {"variant": "none", "reason": "DEFAULT"},
        "unknown": {"value": {"given": 1}, "errorCode": "FLAG_NOT_FOUND"},
    }


@pytest.mark.parametrize(("stated", "kid", "key"), [
    ("a" * 31 + "=", None, "a" * 31 + "="), ("2026-01=" + "b" * 32, "2026-01", "b" * 32),
    ("b" * 32 + "==", None, "b" * 32 + "=="), ("abc=" + "c" * 31, None, "abc=" + "c" * 31),
])  # fmt: skip
def test_a_name_has_a_key_behind_it(stated: str, kid: str | None, key: str) -> None:
    (found,) = keys_of({"UPNEXT_EDGE_TOKEN_KEYS": stated})
    assert (found.kid, found.key) == (kid, key)


def test_a_key_file_that_is_none_is_named(tmp_path: Path) -> None:
    for stated, mistake in ((str(tmp_path / "no.pem"), "holds no public key"), ("short", "secret 1 is shorter")):
        with pytest.raises(UpnextError, match=mistake) as raised:
            keys_of({"UPNEXT_EDGE_TOKEN_KEYS": stated})
        assert "short " not in str(raised.value)


def test_a_user_who_was_merged_is_asked_for_by_the_old_id_too(journeys: Journeys) -> None:
    with running(journeys.project) as edge:
        server = {"Authorization": f"Bearer {edge.add_key('server')}"}
        wait_for(lambda: ask(edge, "old", **server).status == 200, "the key")
        assert values(ask(edge, "old", **server))[BANNER] == "nothing", "before the first tick nobody is known"
        journeys.merge(AS_OF + timedelta(hours=2), old="new")
        journeys.write(
            "insert into experiences.live_ctas (user_id, surface, slot, source, source_kind, variant, copy, url,"
            " starts_at) values ('new', 'web', 'homepage_banner', 'spring', 'experience', 'a', 'Hello', '/', :at)",
            at=AS_OF,
        )
        for user, copy in (("old", "Hello"), ("new", "Hello"), ("other", "nothing")):
            wait_for(lambda user=user, copy=copy: values(ask(edge, user, **server))[BANNER] == copy, user)  # type: ignore[misc]
