"""Flower ClientApp: hands the message to the domain's resident process and its answer back.

Flower starts a new process for each message and runs code that the server shipped. So this file
imports nothing heavy, holds no data and knows nothing but the address of a Unix socket.
"""

import grpc
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from shared.errors import PayloadError
from shared.wire import Answer, answer_to_record, task_from_record

METHOD = "/isthmus.Worker/Handle"
NO_LIMIT = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]  # payload.py sets it

app = ClientApp()


@app.train()  # type: ignore[untyped-decorator]
def train(message: Message, context: Context) -> Message:
    """Both kinds of task come this way; a reply is always sent, with a reason where there is no update."""
    domain = str(context.node_config.get("domain", ""))
    answer = relay(message.content, domain, str(context.node_config.get("socket", "")))
    return Message(answer_to_record(answer), reply_to=message)


def relay(task: RecordDict, domain: str, socket: str) -> Answer:
    """The domain's answer to one task or question; where there is none, an answer with the reason."""
    try:
        raw, timeout_s = task_from_record(task)
    except PayloadError as error:
        return Answer(domain, reason=str(error))
    if not raw:  # the server asks who this is
        return Answer(domain)
    try:
        return Answer(domain, call(socket, raw, timeout_s))
    except grpc.RpcError as error:
        return Answer(domain, reason=spell(error.code(), error.details() or "", timeout_s))


def call(socket: str, raw: bytes, timeout_s: float) -> bytes:
    """The resident process' answer. Raises grpc.RpcError when it refuses or does not answer in time."""
    with grpc.insecure_channel(f"unix:{socket}", options=NO_LIMIT) as channel:
        return bytes(channel.unary_unary(METHOD)(raw, timeout=timeout_s))


def spell(code: grpc.StatusCode, details: str, timeout_s: float) -> str:
    """Why there is no answer, in words for the server's log."""
    if code is grpc.StatusCode.FAILED_PRECONDITION:  # the worker's own words
        return details
    if code is grpc.StatusCode.UNAVAILABLE:
        return "the domain's resident process does not answer; start python -m client again"
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return f"no answer within {timeout_s:g} s; raise the round's timeout"
    return f"the relay failed ({code.name})"
