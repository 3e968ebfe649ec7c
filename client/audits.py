"""Audits of a home: make one and keep it beside those before, find the last, say when the next is due."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from client.audit import Asked, audit
from client.audit_report import render, to_json
from client.budget import spent_at, told_at
from client.journal import Journal
from client.recommend import open_serving
from client.rules import read_rules
from client.shown import ShownLog
from client.store import Home
from shared.accounting import spent
from shared.errors import DataError, UnknownError
from shared.whole import write_whole


def make_audit(
    home: Home,
    cache: Path,
    data: Path | None = None,
    rules: Path | None = None,
    asked: Asked = Asked(),  # noqa: B008
) -> tuple[Path, dict[str, Any]]:
    """(its page, its figures). The JSON file lies beside the page."""
    entries = Journal(home.journal).entries
    serving = open_serving(home, cache, data, entries, read_rules(home.rules if rules is None else rules))
    before = latest(home)
    events = spent_at(home)
    paid = spent(events, told_at(serving.plan)) if events else {}
    found = audit(serving, entries, ShownLog(home.shown), paid, before, asked)
    stem = datetime.fromisoformat(found["made"]).strftime("%Y-%m-%dT%H%M%SZ")
    home.audits.mkdir(parents=True, exist_ok=True, mode=0o700)
    page = home.audits / f"{stem}.html"
    write_whole(page, render(found).encode())
    write_whole(page.with_suffix(".json"), to_json(found).encode())  # last: an audit is there when its figures are
    return page, found


def latest(home: Home) -> dict[str, Any] | None:
    """The figures of the last audit; None where there is none. Raises DataError when they are damaged."""
    path = max(home.audits.glob("*.json"), default=None)
    if path is None:
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        raise DataError(f"{path} is damaged; move it away") from None


def latest_or_none_there(home: Home) -> dict[str, Any]:
    """Raises UnknownError where there is none."""
    if (found := latest(home)) is None:
        raise UnknownError("there is no audit yet; make one with `audit`, or serve with --audit-every")
    return found


def seconds_until_due(home: Home, every_hours: float) -> float:
    """Counted from the last audit, whoever made it; at once where there is none."""
    found = latest(home)
    if found is None:
        return 0.0
    made = datetime.fromisoformat(found["made"]).astimezone(UTC).timestamp()
    return max(0.0, made + every_hours * 3600 - time.time())
