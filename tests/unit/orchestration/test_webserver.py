"""What the guard before Dagster's webserver lets through."""

import pytest
from starlette.datastructures import Headers

from orchestration.webserver import hosts, refusal

OURS = {"host": "127.0.0.1:3000"}
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def refused(method: str, path: str = "/graphql", **headers: str) -> str | None:
    stated = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal(method, path, Headers({**OURS, **stated}), hosts("ui.customer.example"))


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("GET", "/", {}),
        ("GET", "/graphql", {"accept": "text/html"}),
        ("GET", "/assets", {"sec_fetch_site": "cross-site", "origin": "https://evil.example"}),
        ("POST", "/graphql", {"content_type": "application/json", "origin": "http://127.0.0.1:3000"}),
        ("POST", "/graphql", {"content_type": "application/json; charset=utf-8"}),
        ("POST", "/graphql", {"content_type": "application/json", "host": "ui.customer.example",
                              "origin": "https://ui.customer.example", "sec_fetch_site": "same-origin"}),
        ("SOCKET", "/graphql", {"origin": "http://127.0.0.1:3000"}),
        ("POST", "/report_asset_materialization/x", {"content_type": "application/json"}),
    ],
)  # fmt: skip
def test_the_ui_and_programs_go_on(method: str, path: str, headers: dict[str, str]) -> None:
    assert refused(method, path, **headers) is None


@pytest.mark.parametrize(
    ("method", "path", "headers", "why"),
    [
        ("GET", "/graphql", {}, "by POST"),
        ("HEAD", "/graphql", {}, "by POST"),
        ("GET", "/some/prefix/graphql/", {"accept": "image/*"}, "by POST"),
        ("POST", "/graphql", {**FORM, "origin": "http://127.0.0.1:3000"}, "as JSON"),
        ("POST", "/graphql", {"content_type": "text/plain"}, "as JSON"),
        ("POST", "/graphql", {"content_type": "application/json", "origin": "https://evil.example"}, "another site"),
        ("POST", "/graphql", {"content_type": "application/json", "origin": "null"}, "another site"),
        ("POST", "/graphql", {"content_type": "application/json", "origin": "http://127.0.0.1:8791"}, "another site"),
        ("POST", "/graphql", {"content_type": "application/json", "sec_fetch_site": "same-site"}, "another site"),
        ("POST", "/report_asset_check/x", {"origin": "https://evil.example"}, "another site"),
        ("SOCKET", "/graphql", {"origin": "https://evil.example"}, "another site"),
        ("GET", "/", {"host": "rebound.evil.example"}, "not the UI's own"),
        ("POST", "/graphql", {"host": "evil.example:3000", "origin": "http://evil.example:3000"}, "not the UI's own"),
        ("GET", "/", {"host": ""}, "not the UI's own"),
    ],
)
def test_what_another_site_would_send_is_refused(method: str, path: str, headers: dict[str, str], why: str) -> None:
    told = refused(method, path, **{name.replace("-", "_"): value for name, value in headers.items()})
    assert told is not None
    assert why in told
