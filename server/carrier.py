"""A carrier over Flower's grid: tasks out as messages, updates back in the order of domain names."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress

import numpy as np
from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

from server.members import Members
from server.rounds import Carrier, ServerState, TaskFor
from server.secure_sum import secure_carrier
from shared.errors import FederationError, PayloadError
from shared.payload import AdapterUpdate, Task, task_to_bytes, update_from_bytes
from shared.secure_payload import is_secure
from shared.secure_sum import FEWEST
from shared.wire import MAX_REASON, Answer, answer_from_record, clean, question_to_record, task_to_record, timeout_of

Tell = Callable[[str, str], None]  # (who, why there is no update)
POLL_S = 0.5  # Flower's own send_and_receive polls every 3 s
LOOK_S = 5.0  # how often, while answers are waited for, who is there is looked at
STEP_S = 120.0  # most for a step of a secure sum: all but the first only compute masks
MEET_S = 180.0  # for relays to say whose they are: each starts in some seconds, later on a busy machine


def carrier_for(
    state: ServerState, grid: Grid, members: Members, timeout_s: float, tell: Tell, poll_s: float = POLL_S
) -> Carrier:
    """The carrier that the state's plan asks for. A secure sum's waits as the other does, at each of its steps."""
    if not state.plan.federation.secure:
        return grid_carrier(grid, members, timeout_s, tell, poll_s)

    def put(raws: Mapping[int, bytes]) -> dict[int, bytes]:
        wait_s = min(timeout_s, STEP_S) if all(map(is_secure, raws.values())) else timeout_s
        answers = ask(grid, raws, wait_s, members, tell, poll_s)
        return {node: answer.raw for node, answer in answers.items()}

    return secure_carrier(lambda: wait_for(grid, members, poll_s, FEWEST), put, state.released, tell)


def grid_carrier(grid: Grid, members: Members, timeout_s: float, tell: Tell, poll_s: float = POLL_S) -> Carrier:
    """A carrier that waits for its members with a deadline, and for their answers with another (seconds).

    Updates come sorted by domain, so that the same seed gives the same sum as in one process.
    Raises FederationError when too few members came.
    """

    def carry(task_for: TaskFor) -> Iterator[AdapterUpdate]:
        nodes = wait_for(grid, members, poll_s)
        sent = addressed(grid, nodes, task_for, members, poll_s)
        named = dict(members.names)
        answers = ask(grid, sent, timeout_s, members, tell, poll_s)
        updates = []
        for node, answer in answers.items():
            try:
                update = update_from_bytes(answer.raw)
                if update.domain != answer.domain:
                    raise PayloadError(f"answers for {update.domain!r}, expected its own name")
                taken_for = named.get(node, "")
                if taken_for != update.domain and not _same(task_for(taken_for), task_for(update.domain)):
                    raise PayloadError("was not known when tasks went out, and trained on from towers not its own")
            except PayloadError as error:
                tell(members.name(node), str(error))
                continue
            updates.append((update.domain, node, update))
        yield from (update for _, _, update in sorted(updates, key=lambda entry: entry[:2]))

    return carry


def finish(
    grid: Grid, task_for: TaskFor, members: Members, timeout_s: float, tell: Tell, poll_s: float = POLL_S
) -> list[str]:
    """Tell every member that is there to keep the final adapter; returns the domains that did.

    Raises FederationError when nobody is there: then the run can be resumed to deliver it.
    """
    nodes = wait_for(grid, members, poll_s)
    sent = addressed(grid, nodes, task_for, members, poll_s)
    known = set(members.names.values())
    one_for_all = bool(known) and all(_same(task_for(""), task_for(domain)) for domain in known)
    for node in [] if one_for_all else [node for node in nodes if node not in members.names]:
        del sent[node]  # the adapter of whom it is not would be kept as final
        tell(members.name(node), f"did not say within {MEET_S:g} s which domain it is")
    answers = ask(grid, sent, timeout_s, members, tell, poll_s)
    return sorted(answer.domain for answer in answers.values())


def wait_for(grid: Grid, members: Members, poll_s: float, least: int = 1) -> list[int]:
    """Ids of the nodes that are there; all that are wanted the first time, afterwards ``least`` at least."""
    need = least if members.met else max(members.wanted, least)
    deadline = time.monotonic() + members.wait_s
    while len(nodes := members.see(grid.get_node_ids())) < need:
        if time.monotonic() >= deadline:
            raise FederationError(
                f"{len(nodes)} of {need} domains came within {members.wait_s:g} s; "
                "start the missing ones (python -m client), or ask for fewer"
            )
        time.sleep(poll_s)
    members.meet()
    return nodes


def addressed(grid: Grid, nodes: list[int], task_for: TaskFor, members: Members, poll_s: float) -> dict[int, bytes]:
    """A task for each node, in bytes; a node that nobody knows is asked first whose it is."""
    if task_for("").round > 1:  # before that, nobody has anything of its own
        meet(grid, [node for node in nodes if node not in members.names], members, poll_s)
    return {node: task_to_bytes(task_for(members.names.get(node, ""))) for node in nodes}


def ask(
    grid: Grid, raws: Mapping[int, bytes], timeout_s: float, members: Members, tell: Tell, poll_s: float
) -> dict[int, Answer]:
    """Hand each node its bytes; answers without a refusal, by node. ``tell`` hears of every node that gave none."""
    waiting = _send(grid, {node: task_to_record(raw, timeout_s) for node, raw in raws.items()})
    for node, raw in raws.items():
        members.sent(node, len(raw))
    answers: dict[int, Answer] = {}
    for node, reply in _replies(grid, waiting, timeout_s, poll_s, members):
        try:
            answer = _answer(reply)
            members.heard(node, answer.domain, len(answer.raw))
            if answer.reason:
                raise PayloadError(answer.reason)
            answers[node] = answer
        except PayloadError as error:
            tell(members.name(node), str(error))
    for node in waiting.values():
        tell(members.name(node), f"no answer within {timeout_s:g} s")
    return answers


def meet(grid: Grid, nodes: list[int], members: Members, poll_s: float) -> None:
    """Learn which domains these nodes speak for, from their relays: each may be due a task of its own.

    A node that does not say so in time stays unknown, and is given what an unknown domain is given.
    """
    if not nodes:
        return
    waiting = _send(grid, {node: question_to_record(MEET_S) for node in nodes})
    for node, reply in _replies(grid, waiting, MEET_S, poll_s, members):
        with suppress(PayloadError):
            members.heard(node, _answer(reply).domain)


def _same(one: Task, two: Task) -> bool:
    """Whether both start from the same adapter."""
    return one.adapter.keys() == two.adapter.keys() and all(
        np.array_equal(value, two.adapter[key]) for key, value in one.adapter.items()
    )


def _send(grid: Grid, records: dict[int, RecordDict]) -> dict[str, int]:
    """Push a record to each node; (message id -> node) of the answers to wait for."""
    messages = [
        Message(record, node, MessageType.TRAIN, ttl=timeout_of(record) + 60) for node, record in records.items()
    ]
    grid.push_messages(messages)
    return {message.metadata.message_id: message.metadata.dst_node_id for message in messages}


def _replies(
    grid: Grid, waiting: dict[str, int], timeout_s: float, poll_s: float, members: Members
) -> Iterator[tuple[int, Message]]:
    """Replies as they come; takes each out of ``waiting`` and leaves there those that never came."""
    deadline = time.monotonic() + timeout_s
    looked = time.monotonic()
    while waiting:
        if time.monotonic() - looked > LOOK_S:
            looked = time.monotonic()
            members.see(grid.get_node_ids())
        for reply in grid.pull_messages(list(waiting)):
            # An error reply comes from the SuperLink itself: only the id tells whose it is.
            node = waiting.pop(reply.metadata.reply_to_message_id, None)
            if node is not None:
                yield node, reply
        if not waiting or time.monotonic() >= deadline:
            return
        time.sleep(poll_s)


def _answer(reply: Message) -> Answer:
    if reply.has_error():
        raise PayloadError(f"Flower reports: {clean(reply.error.reason or 'an error without a reason', MAX_REASON)}")
    return answer_from_record(reply.content)
