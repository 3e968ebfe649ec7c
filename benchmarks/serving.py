"""What serving must show, measured on the product itself: ``python -m client ... serve`` and a load beside it.

    make bench-serving     or     python benchmarks/serving.py [--only rest,start] [--items 30000 --seconds 5]

Homes are generated once (``benchmarks/serving_world.py``) and kept in ``--work``; each row serves a clone of one and
leaves nothing behind. Requests come from another process at fixed times (``benchmarks/serving_load.py``). Each finished
row is kept in ``serving.json`` beside this file, and all of them are rendered into ``SERVING.md``.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx
import numpy as np
import psutil
import typer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from serving_processes import READY_S, Server, load, serving
from serving_world import give_other, histories, make_home, make_other, shelves

from shared.index import EXACT_ITEMS

HERE = Path(__file__).resolve().parent
SWAP_RATE, MANY_RATE = 50.0, 50.0
STARTS, EVENTS_TRIED, ITEMS_TRIED, QUESTIONS = 3, 50, 10, 100


@dataclass(frozen=True)
class Setting:
    """What a row is measured with."""

    work: Path
    items: int
    many: int
    users: int
    rate: float
    seconds: float
    asks: int  # different ones: every second a user by id, every second a history sent along

    def home(self, items: int) -> Path:
        return self.work / f"items-{items}"


def loaded(server: Server, setting: Setting, items: int, rate: float, door: str = "rest") -> dict[str, Any]:
    """Latencies and errors of a load on a server that has settled."""
    with server.asking() as client:
        _settled(client)
    address = server.grpc_address if door == "grpc" else server.address
    with load(address, asks_of(setting, items), rate, setting.seconds, door, "") as work:
        work.begun()
        return summed(work.answers(), rate)


def summed(answers: list[dict[str, Any]], rate: float) -> dict[str, Any]:
    ms = np.array([one["ms"] for one in answers])
    failed = [one["failed"] for one in answers if one["failed"]]
    quantiles = {f"p{q}_ms": round(float(np.percentile(ms, q)), 2) for q in (50, 90, 99)}
    return {
        "requests": len(answers),
        "a_second": rate,
        **quantiles,
        "most_ms": round(float(ms.max()), 2),
        "errors": len(failed),
        "first_error": failed[0] if failed else "",
    }


def asks_of(setting: Setting, items: int) -> list[dict[str, Any]]:
    """Bodies of requests, every history of fifty."""
    met = histories(shelves(items, 7), setting.users, 7)
    draw = np.random.default_rng(1)
    users = draw.choice(setting.users, size=min(setting.asks, setting.users), replace=False).tolist()
    return [
        {"user": f"u{user}"} if place % 2 else {"history": [f"i{row}" for row in met[user]]}
        for place, user in enumerate(users)
    ]


def made(setting: Setting, items: int) -> Path:
    """The generated home's folder, an index in it."""
    folder = setting.home(items)
    home = make_home(folder, items, setting.users)
    if items > EXACT_ITEMS and not list(home.serving.glob("index-*.json")):
        with serving(folder):
            pass
    return folder


def rest(setting: Setting) -> dict[str, Any]:
    with serving(made(setting, setting.items)) as server:
        return loaded(server, setting, setting.items, setting.rate)


def grpc(setting: Setting) -> dict[str, Any]:
    with serving(made(setting, setting.items)) as server:
        return loaded(server, setting, setting.items, setting.rate, "grpc")


def many(setting: Setting) -> dict[str, Any]:
    """Load, what of the index is resident after it, and how many of the true ten best were shown."""
    folder = made(setting, setting.many)
    file = next((folder / "home" / "serving").glob("index-*.usearch"), None)
    with serving(folder) as server:
        found = loaded(server, setting, setting.many, MANY_RATE)
        maps = psutil.Process(server.process.pid).memory_maps()
        resident = sum(one.rss for one in maps if one.path.endswith(".usearch"))
        with server.asking() as client:
            asks = asks_of(setting, setting.many)[:QUESTIONS]
            shown = [[one["item_id"] for one in ask(client, body)["items"]] for body in asks]
    size = file.stat().st_size if file else 0
    mb = {"index_mb": round(size / 2**20), "index_resident_mb": round(resident / 2**20)}
    return {**found, **mb, "recall_at_10": round(recall(folder, asks, shown), 4)}


def recall(folder: Path, asks: list[dict[str, Any]], shown: list[list[str]]) -> float:
    """Share of the ten best of the whole catalogue, every score computed, that were shown."""
    import torch

    from client.recommend import open_serving
    from client.store import Home
    from shared.policy import Person

    serving = open_serving(Home(folder / "home"), folder / "cache")
    engine = serving.engine
    shares = []
    for body, items in zip(asks, shown, strict=True):
        person = serving.known(body["user"]) if "user" in body else Person(engine.told(body["history"]), None, ())
        scores = engine.scorer.scores(engine.scorer.query(person.past, person.user))
        scores[person.past.listed] = -torch.inf
        best = {engine.catalog.ids[row] for row in torch.topk(scores, len(items)).indices.tolist()}
        shares.append(len(best & set(items)) / len(best))
    return float(np.mean(shares))


def ask(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post("/api/recommend", json=body)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def _settled(client: httpx.Client) -> None:
    """Waits for the encoder, which a server is ready without, and for what is made beside the first answers."""
    while client.get("/healthz").json()["texts"] != "ready":
        time.sleep(0.2)
    time.sleep(3)


def event(setting: Setting) -> dict[str, Any]:
    """Somebody meets what stands first, and asks again: it must be gone. From the sending of the event on."""
    ms, missed = [], 0
    with serving(made(setting, setting.items)) as server, server.asking() as client:
        _settled(client)
        for number in range(EVENTS_TRIED):
            body = {"user": f"u{number % 10}"}
            first = ask(client, body)["items"][0]["item_id"]
            began = time.perf_counter()
            client.post("/api/events", json={"events": [{**body, "item": first}]}).raise_for_status()
            after = ask(client, body)
            ms.append(1000 * (time.perf_counter() - began))
            missed += first in [one["item_id"] for one in after["items"]]
    return {"events": len(ms), "p50_ms": round(float(np.median(ms)), 2), "most_ms": round(max(ms), 2), "missed": missed}


def item(setting: Setting) -> dict[str, Any]:
    """A new item is told; then whoever likes such things asks. From the sending of the item on."""
    seconds, missed = [], 0
    with serving(made(setting, setting.items)) as server, server.asking() as client:
        _settled(client)
        for number in range(ITEMS_TRIED):
            new = {"item_id": f"new{number}", "title": f"folding canvas kayak of {number} parts"}
            began = time.perf_counter()
            client.post("/api/items", json={"items": [new]}).raise_for_status()
            found = ask(client, {"history": ["a kayak of canvas that folds"], "k": 20})
            seconds.append(time.perf_counter() - began)
            missed += new["item_id"] not in [one["item_id"] for one in found["items"]]
    return {
        "items": len(seconds),
        "median_s": round(float(np.median(seconds)), 3),
        "most_s": round(max(seconds), 3),
        "missed": missed,
    }


def swap(setting: Setting) -> dict[str, Any]:
    """Another model comes into the home under load; each answer must be, byte for byte, that of the model it names."""
    folder = made(setting, setting.items)
    other = make_other(folder, setting.items, setting.users)
    asks = asks_of(setting, setting.items)[:50]
    with serving(folder) as server, server.asking() as client:
        before = _tags(client, asks)
        end = server.home.parent / "enough"
        with load(server.address, asks, SWAP_RATE, READY_S, "rest", str(end)) as work:
            work.begun()
            time.sleep(min(5.0, setting.seconds))
            began = time.perf_counter()
            give_other(other, server.home)
            while client.get("/healthz").json()["model"] in before and time.perf_counter() - began < READY_S:
                time.sleep(0.2)
            took_s = time.perf_counter() - began
            time.sleep(min(5.0, setting.seconds))
            end.touch()
            answers = work.answers()
        right = {**before, **_tags(client, asks)}
    mixed = sum(right.get(one["model"], {}).get(one["ask"]) != one["tag"] for one in answers if not one["failed"])
    by_model = {model: sum(one["model"] == model for one in answers) for model in right}
    return {
        **summed(answers, SWAP_RATE),
        "mixed": mixed,
        "answers_by_model": by_model,
        "until_taken_over_s": round(took_s, 1),
    }


def _tags(client: httpx.Client, asks: list[dict[str, Any]]) -> dict[str, dict[int, str]]:
    """Model -> ask -> what names the whole answer."""
    found: dict[str, dict[int, str]] = {}
    for place, body in enumerate(asks):
        answer = client.post("/api/recommend", json=body)
        found.setdefault(answer.json()["model"], {})[place] = answer.headers["etag"]
    return found


def start(setting: Setting) -> dict[str, Any]:
    folder = made(setting, setting.items)
    seconds = []
    for _ in range(STARTS):
        with serving(folder) as server:
            seconds.append(round(server.ready_s, 2))
    return {"starts_s": seconds, "most_s": max(seconds)}


@dataclass(frozen=True)
class Row:
    """One line of the table: how it is measured, and what it must show, field -> (bound, whether from above)."""

    what: str
    bar: str
    measure: Callable[[Setting], dict[str, Any]]
    below: dict[str, float]
    above: dict[str, float]

    def holds(self, found: dict[str, Any]) -> bool:
        under = all(found[key] <= bound for key, bound in self.below.items())
        return under and all(found[key] >= bound for key, bound in self.above.items())


ROWS = {
    "rest": Row(
        "REST recommend, history of 50",
        "p50 <= 4 ms, p99 <= 12 ms, no error",
        rest,
        {"p50_ms": 4, "p99_ms": 12, "errors": 0},
        {},
    ),
    "grpc": Row(
        "gRPC recommend, history of 50",
        "p99 <= 8 ms, no error",
        grpc,
        {"p99_ms": 8, "errors": 0},
        {},
    ),
    "many": Row(
        "a large catalogue by the graph",
        "recall@10 >= .95 of exact, p99 <= 25 ms, index <= 600 MB",
        many,
        {"p99_ms": 25, "errors": 0, "index_mb": 600, "index_resident_mb": 600},
        {"recall_at_10": 0.95},
    ),
    "event": Row("event -> next answer reflects it", "<= 20 ms", event, {"most_ms": 20, "missed": 0}, {}),
    "item": Row("new item -> recommendable", "<= 1 s", item, {"most_s": 1, "missed": 0}, {}),
    "swap": Row("another adapter under load", "0 failed, 0 mixed-version answers", swap, {"errors": 0, "mixed": 0}, {}),
    "start": Row("start-up, warm cache", "<= 8 s to ready", start, {"most_s": 8}, {}),
}


def render(found: dict[str, Any]) -> str:
    """All that was measured, as Markdown."""
    lines = [
        "# Serving, measured",
        "",
        "Rendered by `benchmarks/serving.py`, which says how each row is measured.",
        "",
        "| what | bar | measured | holds |",
        "|---|---|---|---|",
    ]
    for name in (name for name in ROWS if name in found):
        row, about = ROWS[name], found[name]
        values = ", ".join(f"{key} {value}" for key, value in about["found"].items() if value != "")
        holds = "yes" if row.holds(about["found"]) else "no"
        lines.append(f"| {row.what}: {about['items']:,} items | {row.bar} | {values} | {holds} |")
    lines.append("")
    for name in (name for name in ROWS if name in found):
        about = found[name]
        machine = f"{about['cores']} cores, {about['load']} busy before it began"
        lines.append(f"- {name}: `{about['command']}`, commit {about['commit']}, {machine}, {about['seconds']} s")
    return "\n".join([*lines, ""])


def main(
    only: Annotated[str, typer.Option(help=f"Some of the rows: {','.join(ROWS)}.")] = "",
    items: Annotated[int, typer.Option(min=100, help="Items of the catalogue.")] = 100_000,
    many: Annotated[int, typer.Option(min=100, help="Items of the large catalogue.")] = 1_000_000,
    users: Annotated[int, typer.Option(min=20, help="Users, each of 50 events.")] = 20_000,
    rate: Annotated[float, typer.Option(min=1, help="Requests a second.")] = 200.0,
    seconds: Annotated[float, typer.Option(min=1, help="Of load.")] = 60.0,
    asks: Annotated[int, typer.Option(min=2, help="Different requests; a server keeps who asked lately.")] = 20_000,
    work: Annotated[Path, typer.Option(help="Where generated homes are kept.")] = Path("var/serving"),
    out: Annotated[Path, typer.Option(help="Folder of serving.json and SERVING.md.")] = HERE,
    again: Annotated[bool, typer.Option("--again", help="Also the rows that were measured already.")] = False,
) -> None:
    """Measure the rows that are not yet in serving.json, and print all as a table. Status 1 where a bar is missed."""
    out.mkdir(parents=True, exist_ok=True)
    wanted = [name.strip() for name in only.split(",") if name.strip()] or list(ROWS)
    if unknown := set(wanted) - set(ROWS):
        raise typer.BadParameter(f"no row {', '.join(unknown)}; there are {', '.join(ROWS)}", param_hint="--only")
    setting = Setting(work.resolve(), items, many, users, rate, seconds, asks)
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()
    table = out / "serving.json"
    found: dict[str, Any] = json.loads(table.read_text()) if table.is_file() else {}
    asked = {"items": items, "many": many, "users": users, "rate": rate, "seconds": seconds, "asks": asks}
    for name in wanted:
        if not again and found.get(name, {}).get("asked") == asked and found[name]["commit"] == commit:
            continue
        typer.echo(f"{name}: {ROWS[name].what}", err=True)
        busy, began = os.getloadavg()[0], time.perf_counter()
        measured = ROWS[name].measure(setting)
        found[name] = {
            "items": many if name == "many" else items,
            "found": measured,
            "asked": asked,
            "command": " ".join(["python", "benchmarks/serving.py", *sys.argv[1:]]),
            "commit": commit,
            "cores": os.cpu_count(),
            "load": round(busy, 2),
            "seconds": round(time.perf_counter() - began),
        }
        aside = table.with_suffix(".new")
        aside.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        aside.replace(table)
        (out / "SERVING.md").write_text(render(found), encoding="utf-8")
    typer.echo(render({name: found[name] for name in wanted}))
    raise typer.Exit(int(not all(ROWS[name].holds(found[name]["found"]) for name in wanted)))


if __name__ == "__main__":
    typer.run(main)
