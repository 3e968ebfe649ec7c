"""The data owner's resident process: a domain behind gRPC on a private Unix socket.

It alone holds data, model and ledger; it checks each task, refuses what it must and answers bytes.
"""

import shutil
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

import grpc

from client.secure_sum import SecureSum
from shared.errors import BudgetError, DataError, IsthmusError, TrainingError
from shared.payload import MAX_BYTES, AdapterUpdate, Task, name_of, task_from_bytes, update_to_bytes
from shared.plan import Plan
from shared.secure_payload import is_secure
from shared.secure_sum import task_digest

SERVICE, METHOD = "isthmus.Worker", "Handle"
FRAME = 2**20  # room for gRPC's own framing above the payload's limit
LOOK_S = 0.2  # how often a waiting call looks whether its caller is still there
INSIDE = "failed inside; see the domain's log"
OPTIONS = [
    ("grpc.max_receive_message_length", MAX_BYTES + FRAME),
    ("grpc.max_send_message_length", MAX_BYTES + FRAME),
]


class Member(Protocol):
    """One domain, resident between rounds. Raises IsthmusError subclasses (PayloadError, BudgetError, ...)."""

    def train(self, task: Task) -> AdapterUpdate: ...

    def finish(self, task: Task) -> None:
        """Keep the final adapter, fine-tune in private, evaluate at home."""


class Refusal(Exception):
    """The reason that goes back to the server; holds nothing private."""


@dataclass
class Desk:
    """Takes one task at a time, from whichever relay hands it in."""

    member: Member
    log: Path  # the domain's own; tracebacks and private reasons go nowhere else
    say: Callable[[str], None] = lambda line: None
    secure: SecureSum | None = None  # where the owner answers in secure sums, and then in nothing else
    finished: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, raw: bytes) -> bytes:
        """Bytes of the update, or of a step of a secure sum; none for a ``finish`` task. Raises Refusal."""
        try:
            if self.secure is not None and is_secure(raw):
                return self.secure.answer(raw)
            return self._do(task_from_bytes(raw), raw)
        except DataError as error:
            # It may quote a row of the domain's data: the server is told that it failed, not how.
            self._keep(str(error))
            raise Refusal(INSIDE) from None
        except IsthmusError as error:
            self.say(f"refused a task: {error}")
            raise Refusal(error.told if isinstance(error, BudgetError) else str(error)) from None
        except Exception:
            self._keep(traceback.format_exc())
            raise Refusal(INSIDE) from None

    def _do(self, task: Task, raw: bytes) -> bytes:
        start = time.monotonic()
        self.say(f"round {task.round}: training" if task.kind == "train" else "final adapter: fine-tuning at home")
        if task.kind == "finish":
            if self.secure is not None:
                self.secure.drop()
            self.member.finish(task)
            self.say(f"kept the final adapter ({time.monotonic() - start:.1f} s)")
            self.finished.set()
            return b""
        check_secrecy(task.plan, self.secure is not None)
        if self.secure is None:
            answer = update_to_bytes(self.member.train(task))
        else:
            # By what the numbers are made from: a label that the server writes would make two of one.
            cap, key = task.plan.federation.weight_cap, name_of(task)
            answer = self.secure.announce(self._trained(task), cap, task_digest(raw), key)
        self.say(f"round {task.round}: trained and answered ({time.monotonic() - start:.1f} s)")
        return answer

    def _trained(self, task: Task) -> AdapterUpdate:
        """For a secure sum: who can learn nothing from this task adds nothing, and the server does not hear who."""
        try:
            return self.member.train(task)
        except TrainingError as error:
            if error.instead is None:
                raise
            self._keep(str(error))
            return cast(AdapterUpdate, error.instead)

    def _keep(self, text: str) -> None:
        self.say(f"a task failed; the reason is in {self.log}")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.touch(mode=0o600)
        with self.log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text.rstrip()}\n")

    def handle(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        """gRPC's side of ``answer``: a refusal becomes FAILED_PRECONDITION with the reason."""
        box: list[bytes | Refusal] = []
        # A thread that the interpreter does not wait for: a stop need not last as long as a training.
        work = threading.Thread(target=self._work, args=(raw, context.is_active, box), daemon=True)
        work.start()
        while work.is_alive() and context.is_active():
            work.join(LOOK_S)
        answer = box[0] if box else Refusal("stopped before it had an answer")
        if isinstance(answer, bytes):
            return answer
        # gRPC carries the reason in a header of at most 8 KB.
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(answer)[:1000])
        raise AssertionError("abort raises")

    def _work(self, raw: bytes, wanted: Callable[[], bool], box: list[bytes | Refusal]) -> None:
        with self.lock:
            if wanted():  # else its caller gave up while it queued: spend nothing on it
                try:
                    box.append(self.answer(raw))
                except Refusal as refusal:
                    box.append(refusal)


def check_secrecy(plan: Plan, secure: bool) -> None:
    """Raises BudgetError, before anything is trained or spent, where plan and owner differ about secure sums."""
    if plan.federation.secure and not secure:
        raise BudgetError(
            "the plan sums updates securely (federation.secure); this domain joins when started with --key and "
            "--members FOLDER, the other domains' public keys"
        )
    if secure and not plan.federation.secure:
        raise BudgetError(
            "this domain gives its update to secure sums alone (--members), the plan lets the server see it; "
            "set federation.secure=true in the plan"
        )


@contextmanager
def serving(desk: Desk) -> Iterator[Path]:
    """Serve the desk until the block ends; yields the socket's path, in a directory only we may enter.

    A training that still runs then goes on in its thread, unheard: see ``Desk.lock``.
    """
    folder = Path(tempfile.mkdtemp(prefix="isthmus-"))  # 0700; short, for a socket's path ends at 107 bytes
    socket = folder / "worker"
    server = grpc.server(ThreadPoolExecutor(max_workers=4), options=OPTIONS)
    method = grpc.unary_unary_rpc_method_handler(desk.handle)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: method}),))
    try:
        server.add_insecure_port(f"unix:{socket}")
        server.start()
        yield socket
    finally:
        server.stop(grace=1.0).wait()
        shutil.rmtree(folder, ignore_errors=True)
