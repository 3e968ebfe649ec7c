"""What may be sent to the server's doors: fields, defaults and limits.

The REST door takes JSON of this form, the gRPC door messages with the same fields.
"""

from pydantic import Field

from server.history import Event
from server.service import PARTS
from shared.catalog import NewItem
from shared.http import MOST_BATCH, MOST_HISTORY, ItemBody, Name, SearchBody, Strict, WishBody, Words
from shared.policy import Wish

MOST_DOMAINS = 100


class EventBody(Strict):
    """Something that somebody met: an ``item`` by its id or title, or any ``text``; and its ``domain``, if known."""

    domain: Name | None = None
    item: Words | None = None
    text: Words | None = None

    def event(self) -> Event:
        return Event(self.domain, self.item, self.text)


class HistoryBody(Strict):
    history: list[EventBody] = Field(default_factory=list, max_length=MOST_HISTORY)  # oldest first

    def events(self) -> list[Event]:
        return [one.event() for one in self.history]


class AskBody(HistoryBody, WishBody):
    """For whom, from which domains (none: all), and how."""

    domains: list[Name] | None = Field(None, min_length=1, max_length=MOST_DOMAINS)

    def wanted(self) -> tuple[list[Event], list[str] | None, Wish]:
        return self.events(), self.domains, self.wish()


class BatchBody(Strict):
    asks: list[AskBody] = Field(min_length=1, max_length=MOST_BATCH)


class WhyBody(HistoryBody):
    domain: Name
    item: Words
    most: int = Field(3, ge=1, le=20)  # of each part
    parts: list[Name] = Field(list(PARTS), max_length=len(PARTS), description=", ".join(PARTS))


class ItemsBody(Strict):
    domain: Name
    items: list[ItemBody] = Field(min_length=1, max_length=MOST_BATCH)

    def found(self) -> list[NewItem]:
        return [one.found() for one in self.items]


class CatalogSearchBody(SearchBody):
    domain: Name | None = None  # none: all, one after the other
