"""10,000 malformed requests against the REST door of a real ``serve`` process: no 5xx, nothing lost.

Made from /openapi.json: wrong types, fields too many and too few, huge numbers, NaN, deep nesting, broken UTF-8, wrong
content types, too much, odd paths and methods. Some ask for nothing wrong (a body on a GET is not read): told 200.
Afterwards the process is the same one, the journal holds every byte it held and only whole lines more, and what was
asked before is answered as before. Prints what came back; ends what it started.

    python benchmarks/malformed.py --home var/client/video --domain video [--cache var/cache] [--count 10000]

Works on a copy of the home.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from copy import deepcopy as copy
from pathlib import Path

import httpx

from client.journal import Journal
from shared.processes import free_port

ODD = [None, True, -1, 0, 10**30, 1.5, "", "x" * 5000, "\x00", "\ud800", "é" * 300, [], {}, [[]], {"a": {"b": []}}]
DEEP = {f"@deep {depth}": depth for depth in (20, 200, 450, 3000)}  # a mark in a body -> how deep to nest there
TYPES = [
    "application/json",
    "text/plain",
    "application/xml",
    "multipart/form-data",
    "application/json; charset=utf-16",
    "",
]
METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW"]
PATHS = ["/", "//", "/api", "/api/../api/about", "/%00", "/api/items/%ff", "/api/items/" + "x" * 3000, "/page/../../x"]
PATHS += ["/api/users/%2e%2e/history", "/api/items/a%2Fb", "/page/%5c..%5c", "/api/items?k=1e999&skip=-1&query=%ff"]
RAW = [b"", b"{", b"null", b"[" * 20_000, b'{"a":' * 5000, b"\xff\xfe\x00", b'{"user": NaN}', b'{"k": 1e999}']
RAW += [b'{"user": "\xc3\x28"}', b'{"history": ["\\ud800"]}', b"x" * (2**20 + 1), b'{"k": ' + b"9" * 5000 + b"}"]


def example(schema: dict, document: dict, random_: random.Random) -> object:
    """A value as a schema of the document wants it."""
    if "$ref" in schema:
        return example(document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]], document, random_)
    if "anyOf" in schema:
        return example(random_.choice(schema["anyOf"]), document, random_)
    kind = schema.get("type")
    if kind == "object":
        return {name: example(one, document, random_) for name, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [example(schema.get("items", {}), document, random_) for _ in range(random_.randint(0, 2))]
    plain = {"integer": 3, "number": 0.5, "boolean": True, "string": random_.choice(["u00000", "a film"])}
    return plain.get(kind)


def places(value: object) -> list[tuple]:
    """(container, key) of all that a value holds."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    found = [(value, key) for key in keys]
    return found + [deeper for key in keys for deeper in places(value[key])]


def spoil(body: object, random_: random.Random) -> bytes:
    """A body with one to three things wrong in it."""
    for _ in range(random_.randint(1, 3)):
        if not (there := places(body)):
            break
        container, key = random_.choice(there)
        if isinstance(container, dict) and random_.random() < 0.3:
            del container[key]
        elif isinstance(container, dict) and random_.random() < 0.3:
            container["surprise"] = copy(random_.choice(ODD))
        else:
            container[key] = random_.choice([*map(copy, ODD), float("nan"), float("inf"), *DEEP])
    raw = json.dumps(body).encode()
    for mark, depth in DEEP.items():
        raw = raw.replace(json.dumps(mark).encode(), b'{"a":[' * depth + b"1" + b"]}" * depth)
    return raw if random_.random() < 0.9 else raw[: random_.randrange(len(raw) + 1)]


def request(document: dict, random_: random.Random) -> tuple[str, str, bytes, dict[str, str]]:
    """(method, path, body, headers) of something that nobody should send."""
    paths = document["paths"]  # those that take a body twice as often
    path, calls = random_.choice([*paths.items(), *(one for one in paths.items() if "post" in one[1])])
    method, call = random_.choice([*calls.items()])
    schema = call.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    headers = {"content-type": "application/json"}
    draw = random_.random()
    if draw < 0.6 and schema:
        return method.upper(), filled(path, random_), spoil(example(schema, document, random_), random_), headers
    if draw < 0.75:
        return method.upper(), filled(path, random_), random_.choice(RAW), headers
    if draw < 0.85:
        raw = json.dumps(example(schema, document, random_)).encode()[1:]
        return method.upper(), filled(path, random_), raw, {"content-type": random_.choice(TYPES)}
    if draw < 0.92:
        query = "&".join(
            f"{name}={random_.choice(['', '-1', '1e999', 'NaN', '%ff', 'x' * 999])}" for name in ("k", "skip")
        )
        return "GET", f"{filled(path, random_)}?{query}", b"", {"if-none-match": "x" * random_.choice([0, 9000])}
    return random_.choice(METHODS), random_.choice([*PATHS, filled(path, random_)]), random_.choice(RAW[:8]), headers


def filled(path: str, random_: random.Random) -> str:
    """An address with something odd where the path has a name."""
    while "{" in path:
        start, end = path.index("{"), path.index("}") + 1
        path = (
            path[:start] + random_.choice(["ghost", "%00", "%ff", "..%2f..", "x" * 2000, "%F0%9F%A6%8A"]) + path[end:]
        )
    return path


def send(url: str, count: int, seed: int) -> Counter:
    """How many were answered how; one that broke the connection counts as refused (the server's HTTP parser)."""
    random_, told = random.Random(seed), Counter()
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as door:
        document = door.get("/openapi.json").json()
        del document["paths"]["/api/live"]  # never ends
        for _ in range(count):
            method, path, body, headers = request(document, random_)
            try:
                answer = door.request(method, path, content=body, headers=headers)
            except (httpx.TransportError, httpx.InvalidURL) as error:
                told[type(error).__name__] += 1
                continue
            told[answer.status_code] += 1
            if answer.status_code >= 500:
                print(f"{answer.status_code}: {method} {path[:80]} {body[:200]!r}\n  {answer.text[:300]}")
    return told


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--home", type=Path, required=True)
    options.add_argument("--domain", required=True)
    options.add_argument("--cache", type=Path, default=Path("var/cache"))
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = shutil.copytree(given.home, Path(folder) / "home")
        port = free_port()
        command = [sys.executable, "-m", "client", "--domain", given.domain, "--home", str(home)]
        command += ["--cache", str(given.cache), "serve", "--port", str(port)]
        process = subprocess.Popen(command)
        try:
            return tried(f"http://127.0.0.1:{port}", home, process, given.count, given.seed)
        finally:
            process.terminate()
            process.wait(30)


def tried(url: str, home: Path, process: subprocess.Popen, count: int, seed: int) -> int:
    """Status: 0 where all held."""
    deadline = time.monotonic() + 300
    while True:
        try:
            about = httpx.get(f"{url}/api/about", trust_env=False).json()
            break
        except httpx.TransportError:
            if process.poll() is not None or time.monotonic() > deadline:
                return 2
            time.sleep(0.2)
    item = httpx.get(f"{url}/api/items?k=1", trust_env=False).json()["items"][0]["item_id"]
    event = {"events": [{"user": "malformed-check", "item": item}]}
    httpx.post(f"{url}/api/events", json=event, trust_env=False).raise_for_status()
    ask = {"user": "malformed-check", "k": 20, "reasons": 2, "seen": True}
    before = httpx.post(f"{url}/api/recommend", json=ask, trust_env=False, timeout=60).json()
    journal = home / "journal.jsonl"
    kept = journal.read_bytes()
    begun = time.monotonic()
    told = send(url, count, seed)
    seconds = time.monotonic() - begun
    after = httpx.post(f"{url}/api/recommend", json=ask, trust_env=False, timeout=60).json()
    failed = sum(many for status, many in told.items() if isinstance(status, int) and status >= 500)
    checks = {
        "no 5xx": not failed,
        "the same process": process.poll() is None,
        "journal: nothing lost": journal.read_bytes().startswith(kept),
        "journal: whole lines alone": len(Journal(journal).entries) == len(journal.read_bytes().splitlines()),
        "the same answer": answered(before) == answered(after),
    }
    print(f"{count:,} requests to {about['domain']} ({about['items']} items) in {seconds:.0f} s")
    print("  ".join(f"{status}: {many:,}" for status, many in sorted(told.items(), key=lambda one: str(one[0]))))
    print("\n".join(f"{'yes' if held else 'NO '}  {name}" for name, held in checks.items()))
    return int(not all(checks.values()))


def answered(answer: dict) -> list:
    """What an answer shows; new items, that some of the requests may have made, aside."""
    return [(one["item_id"], one["score"]) for one in answer["items"] if one["title"] != "a film"]


if __name__ == "__main__":
    raise SystemExit(main())
