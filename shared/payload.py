"""The only two values that cross between server and client, and their bytes.

Bytes are safetensors with a JSON header; what a peer sends is parsed with limits and checked
against the tensors we hold before anything uses it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from shared.errors import ConfigError, PayloadError
from shared.plan import Plan, plan_from_json
from shared.whole import MAX_NAME

Tensors = dict[str, npt.NDArray[np.float32]]

MAX_BYTES = 256 * 2**20
MAX_HEADER = 4 * 2**20
MAX_ITEMS = 2**21
TABLE = "items."  # a catalogue's table is named items.CATALOGUE.KEY
LEARNT = ("bias", "vectors")  # (items,), (items, dim): in every round
COUNTED = ("met", "pairs")  # (items,), (items, PAIRS): in the last one (shared/neighbours.py)
HASHES, WIDTH = 4, 128  # of the sketch of pairs: on a shop of 4,385 items as good as the counts themselves
PAIRS = HASHES * WIDTH
TASK_KINDS = ("train", "finish")


@dataclass(frozen=True)
class Task:
    """Server to client. ``train``: one round from this adapter. ``finish``: keep it, nothing to send back."""

    kind: str
    round: int
    plan: Plan
    adapter: Tensors
    base: str  # fingerprint of the frozen base and its split
    kin: bool = False  # of a ``finish``: whether other domains are in the towers, as the server says


@dataclass(frozen=True)
class AdapterUpdate:
    """Client to server: what changed, and a declared coarse weight (a power of two, never a user count)."""

    domain: str
    round: int
    delta: Tensors
    weight: float
    base: str
    quality: float | None = None  # validation NDCG@10, two digits, where the owner lets it travel (--share-quality)
    summed: tuple[str, ...] = ()  # the server's own: whose updates these are together, after a secure sum


def run_of(task: Task) -> str:
    """What tells a run's tasks from another's: its plan, by whatever path its base is found here."""
    plan = replace(task.plan, model=replace(task.plan.model, base=task.base))
    return sha256(plan.to_json().encode()).hexdigest()


def name_of(task: Task) -> str:
    """A digest of all that a task asks; the order in which its tensors came is no part of it."""
    digest = sha256(f"{run_of(task)} {task.kind} {task.round}".encode())
    for name, value in sorted(task.adapter.items()):
        digest.update(name.encode() + value.tobytes())
    return digest.hexdigest()


def task_to_bytes(task: Task) -> bytes:
    head = {"kind": task.kind, "round": str(task.round), "plan": task.plan.to_json(), "base": task.base}
    if task.kin:
        head["kin"] = "yes"
    return save(dense(task.adapter), metadata=head)


def task_from_bytes(raw: bytes) -> Task:
    """Raises PayloadError when the bytes are no task of this protocol."""
    head, tensors = _open(raw)
    kind = _text(head, "kind")
    if kind not in TASK_KINDS:
        raise PayloadError(f"expected a task of kind {' or '.join(TASK_KINDS)}, found {kind[:40]!r}")
    try:
        plan = plan_from_json(_text(head, "plan"))
    except (ConfigError, TypeError, OverflowError) as error:  # the latter two: a value of an absurd kind or size
        raise PayloadError(f"the task's plan cannot be used: {error}") from None
    if (kin := head.get("kin", "")) not in ("", "yes"):
        raise PayloadError(f"expected 'yes' or nothing as 'kin', found {str(kin)[:40]!r}")
    return Task(kind, _count(head, "round"), plan, tensors, _text(head, "base"), bool(kin))


def update_to_bytes(update: AdapterUpdate) -> bytes:
    head = {"domain": update.domain, "round": str(update.round), "weight": repr(update.weight), "base": update.base}
    if update.quality is not None:
        head["quality"] = repr(update.quality)
    return save(dense(update.delta), metadata=head)


def update_from_bytes(raw: bytes) -> AdapterUpdate:
    """Raises PayloadError when the bytes are no update of this protocol."""
    head, tensors = _open(raw)
    weight = _number(head, "weight")
    quality = _number(head, "quality") if "quality" in head else None
    domain = _text(head, "domain")
    if not (0 < len(domain) <= MAX_NAME and domain.isprintable()):  # it goes into logs and onto terminals
        raise PayloadError(f"expected a domain name of at most {MAX_NAME} printable letters, found {domain[:80]!r}")
    return AdapterUpdate(domain, _count(head, "round"), tensors, weight, _text(head, "base"), quality)


def dense(tensors: Tensors) -> Tensors:
    """The same numbers in C order: safetensors writes a transposed or strided array wrong and says nothing."""
    return {key: np.asarray(value, order="C") for key, value in tensors.items()}


def check_like(tensors: Tensors, like: Mapping[str, npt.NDArray[Any]], what: str) -> None:
    """Same names, same shapes, all finite; else PayloadError naming the first tensor that is wrong."""
    if missing := sorted(like.keys() - tensors.keys()):
        raise PayloadError(f"{what} lacks tensor {missing[0]!r}; both sides must run the same plan")
    if extra := sorted(tensors.keys() - like.keys()):
        raise PayloadError(f"{what} holds an unknown tensor {extra[0][:80]!r}; both sides must run the same plan")
    for key, value in tensors.items():
        if value.shape != like[key].shape:
            raise PayloadError(f"{what}: {key} has shape {value.shape}, expected {like[key].shape}")
        if not np.isfinite(value).all():
            raise PayloadError(f"{what}: {key} holds numbers that are not finite")


def common(tensors: Tensors) -> Tensors:
    """What every domain has: all but the table of a catalogue."""
    return {key: value for key, value in tensors.items() if not key.startswith(TABLE)}


def table(tensors: Tensors) -> Tensors:
    """What owners of one catalogue share beside it; empty where they share nothing."""
    return {key: value for key, value in tensors.items() if key.startswith(TABLE)}


def table_name(catalogue: str, key: str) -> str:
    """Name of a tensor in the table of the catalogue with that fingerprint, of which the beginning will do."""
    return f"{TABLE}{catalogue[:16]}.{key}"


def check_table(tensors: Tensors, width: int, keys: tuple[str, ...], what: str) -> None:
    """One catalogue's table with these keys, all of one length and finite; else PayloadError."""
    stem = min(tensors, default="").rpartition(".")[0]
    if sorted(tensors) != sorted(f"{stem}.{key}" for key in keys) or len(stem) > MAX_NAME:
        raise PayloadError(f"{what}: expected {', '.join(keys)} of one catalogue, found {len(tensors)} item tables")
    items = len(tensors[f"{stem}.bias"]) if tensors[f"{stem}.bias"].ndim else 0
    shapes = {"bias": (items,), "vectors": (items, width), "met": (items,), "pairs": (items, PAIRS)}
    for key in keys:
        value = tensors[f"{stem}.{key}"]
        if value.shape != shapes[key] or not 0 < items <= MAX_ITEMS:
            raise PayloadError(f"{what}: item table {key} has shape {value.shape}, which does not fit {items} biases")
        if not np.isfinite(value).all():
            raise PayloadError(f"{what}: item table {key} holds numbers that are not finite")


def table_keys(plan: Plan, number: int) -> tuple[str, ...]:
    """What an update of that round holds of its catalogue's table."""
    if not plan.model.shared_items:
        return ()
    last = number >= plan.federation.rounds and plan.model.neighbours
    return LEARNT + COUNTED if last else LEARNT


def _open(raw: bytes) -> tuple[dict[str, str], Tensors]:
    if len(raw) > MAX_BYTES:
        raise PayloadError(f"expected at most {MAX_BYTES} bytes, found {len(raw)}")
    if len(raw) < 8 or int.from_bytes(raw[:8], "little") > min(MAX_HEADER, len(raw) - 8):
        raise PayloadError("expected safetensors, found a header that does not fit; the message is damaged")
    size = int.from_bytes(raw[:8], "little")
    try:
        head = json.loads(raw[8 : 8 + size]).get("__metadata__") or {}  # safetensors lets a null pass
        tensors = load(raw)
    except (SafetensorError, ValueError, AttributeError, KeyError, RecursionError):
        raise PayloadError("expected safetensors, found something else; the message is damaged") from None
    if wrong := sorted(key for key, value in tensors.items() if value.dtype != np.float32):
        raise PayloadError(f"expected float32 tensors, found {tensors[wrong[0]].dtype} in {wrong[0][:80]!r}")
    return head, tensors


def _text(head: dict[str, str], key: str) -> str:
    value = head.get(key)
    if not isinstance(value, str):
        raise PayloadError(f"the message has no {key!r}; both sides must run the same version")
    return value


def _number(head: dict[str, str], key: str) -> float:
    try:
        return float(_text(head, key))
    except ValueError:
        raise PayloadError(f"expected a number as {key!r}, found {head[key][:40]!r}") from None


def _count(head: dict[str, str], key: str) -> int:
    value = _text(head, key)
    if not (value.isascii() and value.isdigit() and len(value) < 10):
        raise PayloadError(f"expected a whole number as {key!r}, found {value[:40]!r}")
    return int(value)
