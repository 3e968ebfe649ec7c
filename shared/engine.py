"""A domain's catalogue behind one model, ready to be asked: what both sides serve from."""

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, reduce
from itertools import groupby
from operator import add
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from shared.attributes import Attributes, read_attributes
from shared.catalog import Catalog, NewItem, behaviour_code, plain_title
from shared.errors import DataError, UnknownError
from shared.index import Index, build
from shared.model import Recommender, adapter_tensors, base_fingerprint
from shared.prefix import PrefixStates, Progress, prefix_forward, tokenize
from shared.private import Private
from shared.scoring import Past, Places, Scorer, Vectors, item_vectors
from shared.whiten import Whitening
from shared.whole import aside

VIEW = behaviour_code("view")
NO_TITLE = "(no title)"
VECTORS = "vectors.safetensors"  # their file in the folder of what is served
READING = threading.Lock()  # one text at a time, whichever thread asks


@dataclass(frozen=True)
class Engine:
    """Never changes: a new item, like a new adapter, makes another engine, and the old one answers until then."""

    catalog: Catalog
    scorer: Scorer
    whitening: Whitening
    index: Index
    version: str  # of model and catalogue as they were read: twelve hexadecimal digits

    def __len__(self) -> int:
        return len(self.catalog)

    @property
    def name(self) -> str:
        return self.catalog.domain

    @cached_property
    def attributes(self) -> Attributes:
        return read_attributes(self.catalog)

    def title(self, row: int) -> str:
        """What to call an item."""
        return self.catalog.titles[row] or NO_TITLE

    def find(self, words: str) -> int | None:
        """Row of the catalogue's item of that title, case aside; None when there is none."""
        return self.catalog.titled.get(plain_title(words))

    def listed(self, words: str) -> int | None:
        """Row of the catalogue's item of that id, or of that title; None when there is none."""
        row = self.catalog.row.get(words)
        return self.find(words) if row is None else row

    def item(self, words: str) -> int:
        """The same; raises UnknownError for one that is not there."""
        if (row := self.listed(words)) is None:
            raise UnknownError(f"the catalogue of {self.name} has no item {words[:80]!r}; give its id or its title")
        return row

    def search(self, words: str) -> list[int]:
        """Rows of the items whose title holds all the words; of all for none."""
        wanted = words.casefold().split()
        return [row for row, title in enumerate(self._folded) if all(word in title for word in wanted)]

    def alike(self, row: int, k: int, allowed: npt.NDArray[np.bool_] | None = None) -> list[int]:
        """Rows of the items, among those ``allowed`` (items,), whose vectors have the greatest cosine with this
        one's."""
        v = self.scorer.vectors.v
        nearness = (v @ v[row]) / v.norm(dim=1).clamp(min=1e-9)
        others = torch.ones(len(self), dtype=torch.bool) if allowed is None else torch.from_numpy(allowed.copy())
        others[row] = False
        nearness[~others] = -torch.inf
        return torch.topk(nearness, min(k, int(others.sum()))).indices.tolist()

    @cached_property
    def _folded(self) -> tuple[str, ...]:
        return tuple(title.casefold() for title in self.catalog.titles)

    def told(self, words: Sequence[str]) -> Past:
        """A history in words, oldest first: an id or a title of the catalogue counts as that item; any other text is
        read by the encoder as an item of its own."""
        parts = []
        for known, run in groupby(zip(map(self.listed, words), words, strict=True), lambda pair: pair[0] is not None):
            part = list(run)
            if known:
                rows = [row for row, _ in part if row is not None]
                parts.append(self.scorer.past(rows, [VIEW] * len(rows)))
            else:
                parts.append(self._unlisted([text for _, text in part]))
        return reduce(add, parts) if parts else self.scorer.past([], [])

    def called(self, words: str) -> str:
        """What a person would call it: the title of the item of that id or title, else the words themselves."""
        row = self.listed(words)
        return words if row is None else self.title(row)

    def with_items(self, new: Sequence[NewItem]) -> "Engine":
        """The same with more items, found from their texts. Raises DataError for an id that is there already."""
        if not new:
            return self
        catalog, scorer = self.catalog.with_items(new), self.scorer
        plain, tuned = self._read([item.text for item in new])
        more = item_vectors(scorer.model, plain, tuned, None)
        return replace(self, catalog=catalog, scorer=Scorer(scorer.model, scorer.vectors + more, scorer.private))

    def _unlisted(self, texts: Sequence[str]) -> Past:
        plain, tuned = self._read(texts)
        return self.scorer.unlisted(tuned, plain, VIEW)

    def _read(self, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of texts that the catalogue does not list, by the base and by the adapted encoder: (texts, dim)."""
        plain, tuned = read_texts(self.scorer.model, texts)
        return self.whitening(plain), self.whitening(tuned)


def read_texts(model: Recommender, texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of any texts by the base and by the adapted encoder, before a catalogue's whitening: (texts, dim)."""
    # The tokenizer, and the switch for torch's attention kernels, are one object for all threads.
    with READING, torch.no_grad():
        tokens = tokenize(model.base, texts, model.plan.max_tokens)
        states = [prefix_forward(model.top.bert, [ids], model.split)[0] for ids in tokens]
        offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in tokens])]).astype(np.int64)
        some = PrefixStates(torch.cat(states).to(torch.bfloat16), offsets)
        return model.encode_plain(some), model.encode_raw(some, np.arange(len(texts)))


def open_engine(
    model: Recommender,
    catalog: Catalog,
    private: Private | None,
    folder: Path,
    cache: Path,
    progress: Progress | None = None,
    build_index: Callable[[Places, Path, str], Index] = build,
) -> Engine:
    """Vectors and index of the catalogue under the model as it is, from ``folder`` where they are kept for it.

    What is kept there tells of the private parameters in it. Raises DataError, BaseModelError where it cannot be kept.
    """
    key = engine_key(model, catalog, private)
    kept = _open(folder / VECTORS, key)
    if kept is None:
        space = model.space(catalog.texts, cache, progress)
        vectors, whitening = item_vectors(model, space.base, model.encode(space), private), space.whitening
        keep_vectors(folder, key, vectors, whitening)
    else:
        vectors, whitening = kept
    scorer = Scorer(model, vectors, private)
    return Engine(catalog, scorer, whitening, build_index(Places(scorer), folder, key), key[:12])


def engine_key(model: Recommender, catalog: Catalog, private: Private | None) -> str:
    """Names everything that the items' vectors and scores are a function of."""
    digest = hashlib.sha256()
    digest.update(json.dumps([asdict(model.plan), base_fingerprint(model.plan, model.base)]).encode())
    digest.update(catalog.fingerprint.encode())
    for name, value in adapter_tensors(model).items():
        digest.update(name.encode() + value.tobytes())
    if private is not None:
        for name, tensor in private.state_dict().items():
            if name == "user.weight":  # no part of items: who is forgotten leaves their vectors as they are
                continue
            digest.update(name.encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest()


def keep_vectors(folder: Path, key: str, vectors: Vectors, whitening: Whitening) -> None:
    """What ``open_engine`` will find there for that key. Raises DataError when it cannot be written."""
    base, x, v = (part.contiguous() for part in vectors.parts())
    tensors = {"base": base, "x": x, "v": v.clone(), "mean": whitening.mean, "matrix": whitening.matrix.contiguous()}
    path = folder / VECTORS
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with aside(path) as made:
            save_file(tensors, made, metadata={"key": key})
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot write {path}: {error}; free space there") from None


def _open(path: Path, key: str) -> tuple[Vectors, Whitening] | None:
    try:
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
        found = load_file(path)  # mapped into memory, not read
        return Vectors(found["base"], found["x"], found["v"]), Whitening(found["mean"], found["matrix"])
    except (OSError, ValueError, KeyError, SafetensorError):
        return None
