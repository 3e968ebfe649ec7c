"""What may be sent to a domain's doors: fields, defaults, limits, and what they mean to the service.

The REST door takes JSON of this form, the gRPC door messages with the same fields.
"""

import json
import time
from typing import Annotated, Any

from pydantic import Field, Json

from client.journal import FEEDBACK, Event, Feedback
from client.service import Who
from shared.catalog import NewItem
from shared.errors import ConfigError
from shared.explanation import PARTS
from shared.http import MOST_BATCH, MOST_HISTORY, ItemBody, Name, Strict, WishBody, Words


class WhoBody(WishBody):
    """For whom, and how."""

    user: Name | None = None
    history: list[Words] = Field(default_factory=list, max_length=MOST_HISTORY)
    passport: dict[Name, Any] | None = Field(None, max_length=20, description="a taste passport, as it was issued")

    def who(self) -> Who:
        token = b"" if self.passport is None else json.dumps(self.passport).encode()
        return Who(self.user, tuple(self.history), token)


class AskBody(WhoBody):
    """The same as a message of gRPC, which has a passport as text."""

    passport: Json[Annotated[dict[Name, Any], Field(max_length=20)]] | None = None


class BatchBody(Strict):
    asks: list[WhoBody] = Field(min_length=1, max_length=MOST_BATCH)


class WhyBody(Strict):
    item: Words
    user: Name | None = None
    history: list[Words] = Field(default_factory=list, max_length=MOST_HISTORY)
    most: int = Field(3, ge=1, le=20)  # of each part
    parts: list[Name] = Field(list(PARTS), max_length=len(PARTS), description=", ".join(PARTS))

    def who(self) -> Who:
        return Who(self.user, tuple(self.history))


class PlaceBody(Strict):
    """The body of a POST, not an address: addresses end up in the logs of whatever stands before the door."""

    user: Name | None = None
    history: list[Words] = Field(default_factory=list, max_length=MOST_HISTORY)

    def who(self) -> Who:
        return Who(self.user, tuple(self.history))


class HistoryBody(Strict):
    """The body of a POST, not an address: addresses end up in the logs of whatever stands before the door."""

    user: Name
    skip: int = Field(0, ge=0, le=1_000_000)
    k: int = Field(50, ge=1, le=1000)


class EventBody(Strict):
    user: Name
    item: Name
    behavior: Name = "view"
    timestamp: float | None = Field(None, ge=0, le=1e11)  # unix seconds; none: now


class EventsBody(Strict):
    events: list[EventBody] = Field(min_length=1, max_length=MOST_HISTORY)

    def found(self) -> list[Event]:
        now = time.time()
        return [
            Event(one.user, one.item, one.behavior, now if one.timestamp is None else one.timestamp)
            for one in self.events
        ]


class ItemsBody(Strict):
    items: list[ItemBody] = Field(min_length=1, max_length=MOST_BATCH)

    def found(self) -> list[NewItem]:
        return [one.found() for one in self.items]


class FeedbackBody(Strict):
    user: Name
    item: Name
    what: str = Field(description=" or ".join(FEEDBACK))
    note: str = Field("", max_length=500)

    def found(self) -> Feedback:
        """Raises ConfigError."""
        if self.what not in FEEDBACK:
            raise ConfigError(f"expected what to be one of {', '.join(FEEDBACK)}")
        return Feedback(self.user, self.item, self.what, time.time(), self.note)
