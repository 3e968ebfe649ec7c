"""Asks a server at fixed times, whether it keeps up or not (an open loop), and notes what came back when.

A latency counts from the time that the request was due: what waits behind a slow answer is slow too, and so is what
this process sends late. A process of its own: ``python benchmarks/serving_load.py WHAT.json``, answers.json beside it.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import aiohttp
import uvloop

SPIN_S = 0.001  # the loop's own timers are no finer: the last of the waiting is done awake
PATIENCE_S = 30.0


@dataclass(frozen=True)
class Answered:
    """One request: which of the asks, how long from when it was due, how it went."""

    ask: int
    due_s: float  # after the start
    ms: float
    failed: str  # "" for none
    model: str
    tag: str  # names the whole answer


Send = Callable[[dict], Awaitable[tuple[str, str]]]  # an ask -> (model, tag); raises what goes wrong


async def drive(send: Send, asks: list[dict], rate: float, going: Callable[[float], bool]) -> list[Answered]:
    """Ask in turns, ``rate`` a second, for as long as ``going`` (seconds since the start) says so."""
    began, found, tasks = time.perf_counter() + 0.05, [], set()

    async def one(number: int, due_s: float) -> None:
        model = tag = failed = ""
        try:
            model, tag = await asyncio.wait_for(send(asks[number % len(asks)]), PATIENCE_S)
        except Exception as error:
            failed = f"{type(error).__name__}: {str(error)[:200]}"
        ms = 1000 * (time.perf_counter() - began - due_s)
        found.append(Answered(number % len(asks), due_s, ms, failed, model, tag))

    number = 0
    while going(due_s := number / rate):
        await asyncio.sleep(max(0.0, began + due_s - time.perf_counter() - SPIN_S))
        while time.perf_counter() < began + due_s:
            await asyncio.sleep(0)
        tasks.add(task := asyncio.create_task(one(number, due_s)))
        task.add_done_callback(tasks.discard)
        number += 1
    await asyncio.gather(*tasks)
    return found


async def rest(address: str, work: Callable[[Send], Awaitable[list[Answered]]]) -> list[Answered]:
    """Through the REST door, by aiohttp."""
    async with aiohttp.ClientSession(f"http://{address}", connector=aiohttp.TCPConnector(limit=0)) as session:

        async def send(ask: dict) -> tuple[str, str]:
            async with session.post("/api/recommend", json=ask) as response:
                raw = await response.read()
                if response.status != 200:
                    raise RuntimeError(f"status {response.status}: {raw[:120]!r}")
                return json.loads(raw)["model"], response.headers["etag"]

        return await work(send)


async def grpc(address: str, work: Callable[[Send], Awaitable[list[Answered]]]) -> list[Answered]:
    """Through the gRPC door, by grpcio's own asyncio client."""
    sys.path.insert(0, str(Path(__file__).parent.parent))
    from grpc import aio

    from shared.proto import recommender_pb2 as pb
    from shared.proto.recommender_pb2_grpc import HomeStub

    async with aio.insecure_channel(address) as channel:
        stub = HomeStub(channel)

        async def send(ask: dict) -> tuple[str, str]:
            who = {key: ask[key] for key in ("user", "history") if key in ask}
            wish = {key: value for key, value in ask.items() if key not in who}
            answer = await stub.Recommend(pb.HomeAsk(**who, wish=pb.Wish(**wish)))
            return answer.model, " ".join(item.item_id for item in answer.items)

        return await work(send)


DOORS = {"rest": rest, "grpc": grpc}


async def run(what: dict) -> list[Answered]:
    """``what``: door, address, asks, rate, warm_s (not counted), and seconds, or a file until which is there."""
    until, parent = Path(what["until"]) if what["until"] else None, os.getppid()

    def going(since_s: float) -> bool:
        alone = os.getppid() != parent  # whoever wanted to know has ended
        return since_s < what["seconds"] and not alone and not (until and until.exists())

    async def work(send: Send) -> list[Answered]:
        await drive(send, what["asks"], what["rate"] / 2, lambda since_s: since_s < what["warm_s"])
        print("begun", flush=True)
        return await drive(send, what["asks"], what["rate"], going)

    return await DOORS[what["door"]](what["address"], work)


if __name__ == "__main__":
    asked = Path(sys.argv[1])
    answers = [asdict(one) for one in uvloop.run(run(json.loads(asked.read_text())))]
    # A file: Python's unbuffered output may drop the end of what a pipe does not take at once.
    asked.with_name("answers.json").write_text(json.dumps(answers))
