"""What a domain shows, measured: exposure, calibration, quality by group of users, drift, rules, complaints, privacy.

Pure figures; ``client.audit_report`` makes a page of them. Two views of exposure: what the log says was shown, and what
a sample of users would be shown now.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from client.drift import BINS, NONE, distributions, drift
from client.evaluate import model_score, per_case, rank_cases
from client.journal import Entry, Event
from client.recommend import Serving
from client.review import counts, hidden, queue
from client.rules import NOBODY
from client.shown import ShownLog
from client.splits import Cases
from client.user_table import read_groups
from shared.attributes import values_of
from shared.errors import ConfigError
from shared.metrics import exposure_of
from shared.policy import Wish, recommend
from shared.seeding import stream

K = 10
SMOOTH = 0.01  # of the history's distribution in the list's, so that the divergence is finite (Steck 2018, eq. 7)
PROVIDERS = ("brand", "provider", "publisher", "seller", "artist", "author", "channel", "studio", "source")
CATEGORIES = ("genre", "genres", "category", "categories", "topic", "tags", "tag", "class", "type")
MOST_LISTED = 15

Counts = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Asked:
    """How an audit shall be made."""

    provider: str | None = None  # column; None takes the first known name there is
    category: str | None = None
    users: int = 1000  # in the sample
    cases: int = 3000  # test cases that quality is measured on


def audit(
    serving: Serving,
    entries: Sequence[Entry],
    log: ShownLog,
    spent: Mapping[str, Any],
    before: Mapping[str, Any] | None,
    asked: Asked = Asked(),
) -> dict[str, Any]:
    """All figures as plain values. ``before`` is the audit before this one, for drift and for the log's check.

    Raises ConfigError for a column that the catalogue does not have.
    """
    columns = list(serving.engine.catalog.columns)
    provider = _column(columns, asked.provider, PROVIDERS)
    category = _column(columns, asked.category, CATEGORIES)
    lists, histories = sample(serving, entries, asked.users)
    popularity = np.bincount(serving.domain.interactions.items, minlength=len(serving.engine)).astype(np.int64)
    now, logged = _shown(lists, len(serving.engine)), _logged(serving, log)
    checked = log.check(heads(before))
    found: dict[str, Any] = {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "domain": serving.domain.name,
        "model": serving.engine.version,
        "rules": serving.verdict.rules.version,
        "items": len(serving.engine),
        "users": len(serving.domain.interactions.user_ids),
        "protocol": serving.kept.protocol,
        "sample": {"users": len(lists), "answers": now["answers"], "k": K},
        "columns": {"provider": provider, "category": category},
        "exposure": {
            "sample": exposure_of(now["shown"], popularity),
            "log": exposure_of(logged["shown"], popularity) if logged["answers"] else None,
        },
        "popularity_groups": popularity_groups(popularity, now["shown"], logged["shown"]),
        "providers": None
        if provider is None
        else _shares(serving, provider, popularity, now["shown"], logged["shown"]),
        "calibration": category and calibration(serving, category, lists, histories, popularity),
        **_quality(serving, asked.cases),
        "filtered": _filtered(serving, logged["struck"]),
        "complaints": _complaints(serving, entries),
        "privacy": dict(spent),
        "log": {**asdict(checked), "answers": logged["answers"], "lost": logged["lost"]},
    }
    found["distributions"] = distributions(serving, lists, popularity, category, before)
    found["drift"] = drift(found, before)
    return found


def _column(columns: Sequence[str], asked: str | None, usual: Sequence[str]) -> str | None:
    if asked is not None:
        if asked not in columns:
            raise ConfigError(f"the catalogue has no column {asked[:40]!r}; it has {', '.join(columns) or 'none'}")
        return asked
    folded = {column.casefold(): column for column in columns}
    return next((folded[name] for name in usual if name in folded), None)


def sample(
    serving: Serving, entries: Sequence[Entry], users: int
) -> tuple[list[list[tuple[int, float]]], list[list[int]]]:
    """(item, score) of what users drawn once would be shown now, and the items of each one's history."""
    ids = [user for user in serving.people.ids if serving.people.met(user) is not None]
    draw = stream(0, "audit").permutation(len(ids))[:users]
    lists, histories = [], []
    signals = serving.signals_for(None)
    for user in sorted(ids[place] for place in draw):
        person = serving.known(user)
        wish = Wish(K, without=hidden(entries, user))
        answer = recommend(serving.engine, person, wish, signals)
        lists.append([(serving.engine.catalog.row[item.item_id], item.score) for item in answer.items])
        histories.append(person.past.rows.tolist())
    return lists, histories


def _shown(lists: Sequence[Sequence[tuple[int, float]]], items: int) -> dict[str, Any]:
    rows = np.array([row for one in lists for row, _ in one], np.int64)
    return {"answers": len(lists), "shown": np.bincount(rows, minlength=items).astype(np.float64)}


def _logged(serving: Serving, log: ShownLog) -> dict[str, Any]:
    """What the log holds: how often each item was shown, what each rule struck, what was lost."""
    rows, shown = serving.engine.catalog.row, np.zeros(len(serving.engine))
    struck: Counter[str] = Counter()
    answers = lost = 0
    for record in log.records():
        body = record.body or {}
        if body.get("kind") == "answer":
            answers += 1
            struck.update(body.get("struck", {}))
            for item in body["items"]:
                if item in rows:
                    shown[rows[item]] += 1
        elif body.get("kind") == "lost":
            lost += int(body["records"])
    return {"answers": answers, "shown": shown, "struck": struck, "lost": lost}


def popularity_groups(popularity: npt.NDArray[np.int64], now: Counts, logged: Counts) -> list[dict[str, Any]]:
    """Head, middle and tail hold a third of all interactions each, the most popular first; the rest was never met."""
    order = np.argsort(-popularity, kind="stable")
    reached = np.cumsum(popularity[order]) - popularity[order] / 2
    place = np.empty(len(popularity), np.int64)
    place[order] = np.minimum(reached * 3 // max(int(popularity.sum()), 1), 2)
    place[popularity == 0] = 3
    names = ("head", "middle", "tail", "never met")
    return [{"group": name, **_share(place == group, popularity, now, logged)} for group, name in enumerate(names)]


def _share(
    mine: npt.NDArray[np.bool_], popularity: npt.NDArray[np.int64], now: Counts, logged: Counts
) -> dict[str, Any]:
    def part(values: npt.NDArray[Any]) -> float | None:
        return float(values[mine].sum() / values.sum()) if values.sum() else None

    return {
        "items": int(mine.sum()),
        "catalogue": part(np.ones(len(mine))),
        "interactions": part(popularity),
        "sample": part(now),
        "log": part(logged),
    }


def _shares(
    serving: Serving, column: str, popularity: npt.NDArray[np.int64], now: Counts, logged: Counts
) -> list[dict[str, Any]]:
    """Of the values of a column those shown most, and all others together; an item of several counts for each."""
    having = _having(serving, column)
    best = sorted(having, key=lambda value: (-now[having[value]].sum(), -popularity[having[value]].sum(), value))
    found, rest = [], np.ones(len(now), bool)
    for value in best[:MOST_LISTED]:
        mine = np.zeros(len(now), bool)
        mine[having[value]] = True
        rest &= ~mine
        found.append({"value": value, **_share(mine, popularity, now, logged)})
    if len(best) > MOST_LISTED:
        found.append({"value": f"all {len(best) - MOST_LISTED:,} others", **_share(rest, popularity, now, logged)})
    return found


def _having(serving: Serving, column: str) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row, values in enumerate(values_of(serving.engine.catalog.columns[column])):
        for value in dict.fromkeys(values or [NONE]):
            found.setdefault(value, []).append(row)
    return found


def calibration(
    serving: Serving,
    column: str,
    lists: Sequence[Sequence[tuple[int, float]]],
    histories: Sequence[Sequence[int]],
    popularity: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """How far each list's mix of a column is from its user's history's, and where all lists lean (Steck 2018).

    KL divergence of the history's distribution from the list's, smoothed; beside it that of the same popular items
    for everybody.
    """
    values = [one or [NONE] for one in values_of(serving.engine.catalog.columns[column])]
    popular = Counter(dict(enumerate(popularity.tolist()))).most_common(K)

    def mix(rows: Sequence[int]) -> dict[str, float]:
        found: Counter[str] = Counter()
        for row in rows:
            for value in values[row]:
                found[value] += 1 / len(values[row])  # type: ignore[assignment]  # a Counter of shares
        return {value: count / len(rows) for value, count in found.items()}

    ours, theirs, had, shown = [], [], Counter[str](), Counter[str]()
    for one, history in zip(lists, histories, strict=True):
        if one and history:
            wanted, given = mix(history), mix([row for row, _ in one])
            ours.append(divergence(wanted, given))
            theirs.append(divergence(wanted, mix([row for row, _ in popular])))
            had.update(wanted)
            shown.update(given)
    users = max(len(ours), 1)
    values_seen = sorted(had | shown, key=lambda value: -max(had[value], shown[value]))[:MOST_LISTED]
    return {
        "users": len(ours),
        "kl": float(np.mean(ours)) if ours else None,
        "kl_of_popular": float(np.mean(theirs)) if theirs else None,
        "mix": [{"value": v, "history": had[v] / users, "shown": shown[v] / users} for v in values_seen],
    }


def divergence(wanted: Mapping[str, float], given: Mapping[str, float]) -> float:
    """sum p log(p / q), q smoothed with p: 0 where a list has its history's mix, at most log(1 / SMOOTH)."""
    return math.fsum(p * math.log(p / ((1 - SMOOTH) * given.get(v, 0.0) + SMOOTH * p)) for v, p in wanted.items() if p)


def _quality(serving: Serving, most: int) -> dict[str, Any]:
    """NDCG and HR at 10 on the domain's own test cases by group of users, and whether scores mean what they say."""
    corpus, cases = serving.tested()
    if len(cases) > most:
        cases = cases.take(np.sort(stream(0, "audit cases").choice(len(cases), most, replace=False)))
    score = model_score(
        serving.model, corpus, cases, serving.private, serving.engine.scorer.vectors.x[: len(corpus.space)]
    )
    sure: list[npt.NDArray[np.float64]] = []

    def noted(rows: npt.NDArray[np.int64]) -> torch.Tensor:
        scores = score(rows)
        best = torch.softmax(scores, 1).max(1)
        hit = [best.indices[at].item() in cases.targets.row(int(row)) for at, row in enumerate(rows)]
        sure.append(np.stack([best.values.numpy().astype(np.float64), np.array(hit, np.float64)], 1))
        return scores

    metrics = per_case(rank_cases(cases, len(corpus.space), noted), cases)
    groups = {"all": {"all": np.ones(len(cases), bool)}, **_groups(serving, cases)}
    rows = [
        {
            "by": by,
            "group": name,
            "cases": int(mine.sum()),
            **{metric: float(metrics[metric][mine].mean()) for metric in ("ndcg@10", "hr@10")},
        }
        for by, parts in groups.items()
        for name, mine in parts.items()
        if mine.any()
    ]
    return {"quality": rows, "scores": reliability(np.concatenate(sure) if sure else np.zeros((0, 2)))}


def _groups(serving: Serving, cases: Cases) -> dict[str, dict[str, npt.NDArray[np.bool_]]]:
    """Which cases are of which group: by how much their user did, and by the attributes that the owner's file has."""
    data = serving.domain.interactions
    events = np.bincount(data.users, minlength=len(data.user_ids))[cases.users]
    edges = np.unique(np.quantile(events, [0.25, 0.5, 0.75])) if len(events) else np.zeros(0)
    quarter = np.searchsorted(edges, events, side="left")
    bounds = [int(events.min()) if len(events) else 0, *(math.floor(edge) + 1 for edge in edges)]
    names = [f"from {low} events" for low in bounds]
    found = {"events": {name: quarter == place for place, name in enumerate(names)}}
    times = np.full(len(data.user_ids), -np.inf)
    np.maximum.at(times, data.users, np.nan_to_num(data.times, nan=-np.inf))
    last = times[cases.users]
    if np.isfinite(last).any() and np.ptp(last[np.isfinite(last)]) > 0:
        late = last >= np.median(last[np.isfinite(last)])
        found["last seen"] = {"the later half": late, "the earlier half": ~late}
    for column, values in read_groups(serving.domain).items():
        mine = np.array([values.get(data.user_ids[user], "") for user in cases.users])
        found[column] = {value or NONE: mine == value for value in sorted(set(mine))}
    return found


def reliability(pairs: npt.NDArray[np.float64]) -> dict[str, Any]:
    """Of (chance that the model gives its first item, whether it was right): means by bin, and the expected calibration
    error (Guo et al. 2017)."""
    bins = np.minimum((pairs[:, 0] * BINS).astype(int), BINS - 1)
    rows = [
        {
            "cases": int((bins == b).sum()),
            "said": float(pairs[bins == b, 0].mean()),
            "was": float(pairs[bins == b, 1].mean()),
        }
        for b in range(BINS)
        if (bins == b).any()
    ]
    total = max(len(pairs), 1)
    return {"bins": rows, "error": math.fsum(row["cases"] / total * abs(row["said"] - row["was"]) for row in rows)}


def _filtered(serving: Serving, struck: Mapping[str, int]) -> list[dict[str, Any]]:
    verdict = serving.verdict
    return [
        {
            "rule": rule.name,
            "least_age": None if rule.least_age == NOBODY else rule.least_age,
            "items": verdict.counts[rule.name],
            "struck": int(struck.get(rule.name, 0)),
        }
        for rule in verdict.rules.rules
    ]


def _complaints(serving: Serving, entries: Sequence[Entry]) -> dict[str, Any]:
    said, rows = counts(entries), serving.engine.catalog.row
    items = {item for what in ("harmful", "hide") for item in said.get(what, {})}
    top = sorted(items, key=lambda item: (-said["harmful"][item], -said["hide"][item], item))[:MOST_LISTED]
    return {
        "waiting": len(queue(entries)),
        "events": sum(isinstance(entry, Event) for entry in entries),
        **{what: sum(said[what].values()) for what in ("harmful", "hide", "why")},
        "top": [
            {
                "item": item,
                "title": serving.engine.title(rows[item]) if item in rows else "",
                "harmful": said["harmful"][item],
                "hide": said["hide"][item],
            }
            for item in top
        ],
    }


def heads(before: Mapping[str, Any] | None) -> dict[int, str]:
    """Where the log of what was shown ended when that audit saw it: number -> hash."""
    log = (before or {}).get("log", {})
    return {log["last"]: log["head"]} if log.get("last") else {}
