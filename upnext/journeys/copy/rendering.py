"""Renders a step for one user: an email, a call of a webhook, or an event. Pure."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import msgspec

from upnext.journeys.copy.emails import email
from upnext.journeys.copy.message import Body, CannotRenderError, Rendered, Request, Sender
from upnext.journeys.copy.templates import filled, values_of


def render(request: Request, sender: Sender) -> Rendered:
    """Return the message of one step for one user, as MIME or as the body of a webhook; or the reason why not.

    Never raises: an error that one user's values cause in a library stops only this message.
    """
    try:
        return _RENDERERS[request.step["do"]](request, sender)
    except CannotRenderError as error:
        return Rendered(request.message_id, reason=str(error))
    except MemoryError:
        return Rendered(request.message_id, reason=f"{_name_of(request)}: takes too much memory")
    except Exception as error:  # its text may quote the user
        return Rendered(request.message_id, reason=f"{_name_of(request)}: cannot be written ({type(error).__name__})")


def _webhook(request: Request, sender: Sender) -> Rendered:
    values = values_of(request)
    data = filled(f"{_name_of(request)}, data", request.step.get("data", {}), values)
    endpoint = request.step["endpoint"]
    if endpoint in sender.bodies:
        return _call(request, sender.bodies[endpoint], {**values, "data": data})
    body = {
        "type": f"journey.{request.journey}.{request.step['name']}",
        "timestamp": request.date.isoformat(),
        "data": {"user_id": request.user_id, "message_id": request.message_id, **data},
    }
    return Rendered(request.message_id, msgspec.json.encode(body), recipient=endpoint)


def _call(request: Request, body: Body, values: dict[str, Any]) -> Rendered:
    """Return a call whose body the endpoint of the policy defines."""
    given = {"user_id": request.user_id, "message_id": request.message_id, "journey": request.journey}
    filled_body = filled(f"endpoint {request.step['endpoint']}, body", body.template, {**values, **given})
    content, kind = msgspec.json.encode(filled_body), "application/json"
    if body.format == "form":
        content, kind = urlencode(filled_body, doseq=True).encode(), "application/x-www-form-urlencoded"
    return Rendered(request.message_id, content, recipient=request.step["endpoint"], content_type=kind)


def _event(request: Request, sender: Sender) -> Rendered:
    """Return the line of an event, as a source of format `segment` sends it."""
    step, values = request.step, values_of(request)
    field = "traits" if step["do"] == "identify" else "properties"
    line = {
        "type": step["do"],
        "messageId": request.message_id,
        "userId": request.user_id,
        "timestamp": request.date.isoformat(),
        field: filled(f"{_name_of(request)}, {field}", step.get(field, {}), values),
        "context": {"journey": request.journey, "step": step["name"]},
    }
    if step["do"] == "track":
        line["event"] = step["event"]
    return Rendered(request.message_id, msgspec.json.encode(line))


_RENDERERS: dict[str, Callable[[Request, Sender], Rendered]] = {
    "email": email,
    "webhook": _webhook,
    "identify": _event,
    "track": _event,
}


def _name_of(request: Request) -> str:
    return f"step {request.step['name']}"
