"""Events that journeys emit: lines of the inbox, which the next tick takes in like those of any source."""

from sqlalchemy.engine import Engine

from upnext.journeys.channels.channel import Answer, Outcome
from upnext.journeys.copy.message import Rendered
from upnext.journeys.sql import SQL


class InboxConnection:
    """Writes each event to the inbox. One that is written twice has the same message id, and is stored once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def open(self) -> None:
        """Do nothing: the warehouse is there, or there would be nothing to send."""

    def send(self, message: Rendered) -> Answer:
        """Write one line."""
        with self._engine.begin() as database:
            database.execute(SQL["emit"], {"line": message.content})
        return Answer(Outcome.SENT)

    def close(self) -> None:
        """Do nothing: each line has a transaction of its own."""
