"""Which items of a catalogue are worth scoring for a question: all of a small one, else those an HNSW graph finds.

Exact search reads every number of every item: some 20 ms for 100,000 items of 384 numbers on one core, a graph of their
8-bit likenesses under 2 ms. The rows that come out are candidates: their scores are computed exactly afterwards.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from usearch.index import Index as Graph

from shared.errors import DataError
from shared.seeding import stream
from shared.whole import aside, write_whole

EXACT_ITEMS = 20_000  # up to here all rows are candidates: exact search takes 4 ms
WIDTH = 256  # numbers of an item in the graph: a byte each
SAMPLE = 20_000  # items that the directions are fitted on
LINKS, EFFORT_ADDING = 16, 128  # of the graph, Malkov & Yashunin 2018: M, efConstruction
EFFORT = (384, 2048)  # ef: a thousandth of the items, within these
SHAPE = [WIDTH, LINKS, EFFORT_ADDING]  # a graph kept by an earlier version, of another one, is made again
BLOCK = 8192  # items that are turned at a time


@dataclass(frozen=True)
class Turn:
    """Places -> what the graph holds: centred, in their strongest directions, all of one length.

    The product with a question becomes a cosine by one more number that fills the length up (Bachrach et al. 2014).
    """

    mean: torch.Tensor  # (dim,)
    directions: torch.Tensor  # (dim, width)
    length: torch.Tensor  # scalar

    def places(self, places: torch.Tensor) -> torch.Tensor:
        """(items, dim) -> (items, width + 1)."""
        turned = (places - self.mean) @ self.directions
        rest = (self.length**2 - (turned**2).sum(1, keepdim=True)).clamp(min=0).sqrt()
        return F.normalize(torch.cat([turned, rest], 1), dim=1)

    def question(self, question: torch.Tensor) -> torch.Tensor:
        """(dim,) -> (width + 1,). What the mean adds is the same for each item."""
        return F.normalize(torch.cat([question @ self.directions, torch.zeros(1)]), dim=0)


class Rows(Protocol):
    """Places (items, dim) of which one reads some rows at a time; a tensor is one."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: torch.Tensor, /) -> torch.Tensor: ...


def fit_turn(items: Rows) -> Turn:
    """On (items, dim), or a sample of them."""
    sample = stream(0, "index").permutation(len(items))[:SAMPLE]
    places = items[torch.from_numpy(np.sort(sample))]
    mean = places.mean(0)
    centred = (places - mean).double()
    _, vectors = torch.linalg.eigh(centred.T @ centred)
    directions = vectors[:, -min(WIDTH, places.shape[1]) :].float()
    # Of those outside the sample a few may be longer; they are looked up a little too seldom.
    length = 1.05 * ((places - mean) @ directions).norm(dim=1).max()
    return Turn(mean, directions, length.clamp(min=1e-12))


class Index:
    """Candidates among the first ``built`` items of a catalogue; all later ones always are."""

    def __init__(self, built: int, turn: Turn | None = None, graph: Graph | None = None) -> None:
        self.built, self._turn, self._graph = built, turn, graph

    @property
    def exact(self) -> bool:
        return self._graph is None

    def candidates(self, question: torch.Tensor, count: int, items: int) -> torch.Tensor:
        """Rows of at least ``count`` of the ``items`` in no order, of all where so many are asked for."""
        if self._graph is None or self._turn is None or 2 * count > items:
            return torch.arange(items)
        found = self._graph.search(self._turn.question(question).numpy(), max(count, 1)).keys
        return torch.cat([torch.from_numpy(found.astype(np.int64)), torch.arange(self.built, items)])


def build(places: Rows, folder: Path, key: str, exact_items: int = EXACT_ITEMS) -> Index:
    """The index of these places (items, dim): read from ``folder`` where it is that of ``key``, else made there.

    ``key`` names everything that the places are a function of. The graph is mapped into memory, not read. Raises
    DataError when it cannot be written.
    """
    if len(places) <= exact_items:
        return Index(len(places))
    if (found := _open(folder, key)) is not None:
        return found
    turn = fit_turn(places)
    width = turn.directions.shape[1] + 1
    graph = _graph(width, len(places))
    # In no order: a catalogue lists like beside like, and a graph that grows so has no ways between its parts.
    for rows in torch.from_numpy(stream(0, "graph").permutation(len(places))).split(BLOCK):
        graph.add(rows.numpy(), turn.places(places[rows]).numpy(), threads=torch.get_num_threads())
    try:
        _keep(folder, key, len(places), turn, graph)
    except OSError as error:
        raise DataError(f"cannot write the index in {folder}: {error.strerror}; free space there") from None
    return _open(folder, key) or Index(len(places), turn, graph)


def _graph(width: int, items: int) -> Graph:
    least, most = EFFORT
    return Graph(
        ndim=width,
        metric="cos",
        dtype="i8",
        connectivity=LINKS,
        expansion_add=EFFORT_ADDING,
        expansion_search=min(max(least, items // 1000), most),
    )


def _keep(folder: Path, key: str, built: int, turn: Turn, graph: Graph) -> None:
    """What names the other files comes last."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    mark, turned, drawn = _files(folder, key)
    with aside(turned) as made:
        save_file({"mean": turn.mean, "directions": turn.directions.contiguous(), "length": turn.length}, made)
    with aside(drawn) as made:
        graph.save(str(made))
    write_whole(mark, json.dumps({"key": key, "shape": SHAPE, "built": built}).encode())
    for old in folder.glob("index-*"):  # of a model before; a process that still has it mapped keeps it
        if key[:16] not in old.name:
            old.unlink(missing_ok=True)


def _open(folder: Path, key: str) -> Index | None:
    mark, turned, drawn = _files(folder, key)
    try:
        about = json.loads(mark.read_text(encoding="utf-8"))
        if about["key"] != key or about["shape"] != SHAPE:
            return None
        parts = load_file(turned)
        graph = _graph(parts["directions"].shape[1] + 1, about["built"])
        graph.view(str(drawn))  # mapped into memory, not read
        if len(graph) != about["built"]:
            return None
        return Index(about["built"], Turn(parts["mean"], parts["directions"], parts["length"]), graph)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError):
        return None


def _files(folder: Path, key: str) -> tuple[Path, Path, Path]:
    stem = f"index-{key[:16]}"
    return folder / f"{stem}.json", folder / f"{stem}.safetensors", folder / f"{stem}.usearch"


def recall(index: Index, places: torch.Tensor, questions: torch.Tensor, k: int, count: int) -> float:
    """Mean share of the true ``k`` best that are among ``count`` candidates, over questions (n, dim)."""
    shares = []
    for question in questions:
        best = torch.topk(places @ question, k).indices
        shares.append(float(torch.isin(best, index.candidates(question, count, len(places))).float().mean()))
    return math.fsum(shares) / max(len(shares), 1)
