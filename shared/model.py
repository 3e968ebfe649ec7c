"""The one place that puts prefix, adapted top layers and towers together."""

import copy
import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from shared.catalog import BEHAVIOURS
from shared.lora import TopLayers, attach, lora_parameters, without_adapters
from shared.payload import Tensors, check_like
from shared.plan import ModelPlan, Plan
from shared.prefix import Base, PrefixStates, Progress, find_base, load_bert, prefix_states, split_at, width_of
from shared.private import Private
from shared.seeding import torch_stream
from shared.towers import ItemTower, Mix, UserTower, prepare, recency_mean, similar
from shared.whiten import Whitening, fit_whitening

Rows = npt.NDArray[np.int64]
# Beginnings of what is released where it is not all: what the user tower adds, the weights of the score's parts.
FEW = {"outputs": ("user.outward.", "mix."), "mix": ("mix.",)}
LOADING = threading.Lock()  # one encoder at a time, whichever thread asks
BF16 = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@dataclass(frozen=True)
class Space:
    """A catalogue seen through the frozen base."""

    states: PrefixStates
    whitening: Whitening
    base: torch.Tensor  # (items, dim): whitened vectors of the base itself, the zero-shot prior

    def __len__(self) -> int:
        return len(self.base)


class Batch(NamedTuple):
    """Histories side by side, oldest first, padded at the end."""

    users: torch.Tensor  # (users,); -1 for somebody unknown
    items: torch.Tensor  # (users, events)
    behaviours: torch.Tensor  # (users, events)
    mask: torch.Tensor  # (users, events)


class Recommender(nn.Module):
    """Everything a federation trains: adapters in the encoder, item tower, user tower, mix."""

    def __init__(self, plan: ModelPlan, base: Base, seed: int, at_rest: Tensors | None = None) -> None:
        """``at_rest`` is a finished adapter: towers are ready at once, the encoder when a text is first read.

        Raises BaseModelError, and PayloadError (at the latest then) where the adapter does not fit.
        """
        super().__init__()
        self.plan = plan
        self.base = base
        self._seed = seed
        self._waiting: Tensors | None = None  # adapters for an encoder that is not there yet
        self._plain: tuple[TopLayers, ...] = ()
        if at_rest is None:
            self._load_encoder()
        self.dim = width_of(base)
        with torch.random.fork_rng(devices=[]):
            # nn's own initialisers draw from the global generator: lend them our stream.
            torch.manual_seed(torch_stream(seed, "towers").initial_seed())
            self.item = ItemTower(self.dim, plan.hidden)
            self.user = UserTower(
                self.dim,
                plan.width,
                plan.blocks,
                plan.heads,
                # What was done, and in which of its domains: one vector for each pair.
                len(BEHAVIOURS) * plan.domains,
                plan.max_history,
                plan.dropout,
            )
        self.mix = Mix()
        self._encoded: dict[int, tuple[Space, bytes, torch.Tensor]] = {}
        if at_rest is not None:
            own = {name: value for name, value in at_rest.items() if ".lora_" not in name}
            check_like(own, _copies(self.towers()), "the kept adapter")
            _copy_into(self.towers(), own)
            self._waiting = {name: value for name, value in at_rest.items() if ".lora_" in name}

    @property
    def top(self) -> TopLayers:
        """The adapted top layers."""
        self.load()
        return cast(TopLayers, self._modules["top"])

    @property
    def split(self) -> int:
        """Number of layers below the adapted ones."""
        return self.top.split

    @property
    def loaded(self) -> bool:
        """Whether the encoder is there."""
        return "top" in self._modules

    def load(self) -> None:
        """Have the encoder there; whoever needs it asks for this, whoever shall not wait for it asks before."""
        if not self.loaded:
            with LOADING:
                if not self.loaded:
                    self._load_encoder()

    def _load_encoder(self) -> None:
        bert = load_bert(self.base)
        split = split_at(bert, self.plan.top_layers)
        top = TopLayers(attach(bert, self.plan, split, self._seed), split)
        if self._waiting is not None:
            lora = dict(lora_parameters(top.wrapped))
            check_like(self._waiting, _copies(lora), "the kept adapter")
            _copy_into(lora, self._waiting)
        # The encoder as it came, sharing its weights: switching adapters off and on would show to other threads.
        # In a tuple, so that it is no part of the module's own parameters.
        self._plain = (without_adapters(top),)
        self._modules["top"] = top.train(self.training)  # last: other threads look for it
        self._waiting = None

    def towers(self) -> dict[str, nn.Parameter]:
        """All that is trained beside the encoder."""
        return {name: value for name, value in self.named_parameters() if not name.startswith("top.")}

    def adapters(self) -> Tensors:
        """Copies of the encoder's, whether it is there or not."""
        waiting = self._waiting
        return _copies(dict(lora_parameters(self.top.wrapped))) if waiting is None else dict(waiting)

    def sibling(self) -> "Recommender":
        """Another recommender on the same encoder, adapters and all, with towers of its own."""
        self.load()  # else each would load its own
        other = copy.copy(self)
        own = {name: copy.deepcopy(part) for name, part in self._modules.items() if name != "top"}
        other._modules = {**self._modules, **own}
        other._encoded = {}
        return other

    def space(self, texts: Sequence[str], cache: Path, progress: Progress | None = None) -> Space:
        """Read or compute a catalogue's prefix states and the base's vectors, fit its whitening."""
        states = prefix_states(self.top.bert, self.base, texts, self.split, self.plan.max_tokens, cache, progress)
        raw = self.encode_plain(states, progress)
        whitening = fit_whitening(raw)
        return Space(states, whitening, whitening(raw))

    def encode_plain(self, states: PrefixStates, progress: Progress | None = None) -> torch.Tensor:
        """Text vectors of the frozen base itself, adapters or not, before whitening: (texts, dim)."""
        precision = "bf16" if BF16 else "f32"
        vectors = states.kept_vectors(precision)
        if vectors is None:
            vectors = self._through(self.plain, states, np.arange(len(states)), progress)
            states.keep_vectors(precision, vectors)
        return vectors

    @property
    def plain(self) -> TopLayers:
        """The top layers of the base itself."""
        self.load()
        return self._plain[0]

    def encode_raw(self, states: PrefixStates, rows: Rows) -> torch.Tensor:
        """Text vectors before whitening, (rows, dim), no gradient."""
        return self._through(self.top, states, rows)

    def encode_part(self, states: PrefixStates, rows: Rows) -> torch.Tensor:
        """The same for one batch of rows, with gradient where enabled."""
        return _vectors(self.top, states, rows)

    @torch.no_grad()
    def _through(
        self, top: TopLayers, states: PrefixStates, rows: Rows, progress: Progress | None = None
    ) -> torch.Tensor:
        out, done = torch.empty(len(rows), self.dim), 0
        at = {int(row): place for place, row in enumerate(rows)}
        for part in states.batches(rows):
            out[[at[int(row)] for row in part]] = _vectors(top, states, part)
            done += len(part)
            if progress is not None:
                progress(done, len(rows))
        return out

    def encode(self, space: Space) -> torch.Tensor:
        """Whitened text vectors of the whole catalogue, (items, dim), no gradient.

        The last answer for each catalogue is kept while the adapters stay as they are: validation, evaluation and the
        start of a training ask again, and so do owners who share a catalogue in one process. Adapters that have not
        moved yet add nothing to the base, whose vectors are at hand.
        """
        digest, moved = hashlib.sha256(), False
        for name, value in lora_parameters(self.top.wrapped):
            digest.update(name.encode() + value.detach().numpy().tobytes())
            moved = moved or (".lora_B." in name and bool(value.any()))
        if not moved:
            return space.base.clone()
        kept = self._encoded.get(id(space))
        if kept is None or kept[0] is not space or kept[1] != digest.digest() or self.plan.lora_dropout:
            x = space.whitening(self.encode_raw(space.states, np.arange(len(space))))
            kept = self._encoded[id(space)] = (space, digest.digest(), x)
        return kept[2].clone()

    def items(self, x: torch.Tensor) -> torch.Tensor:
        """Item vectors ready for ``similar``: (items, dim)."""
        with torch.autocast("cpu", torch.bfloat16, enabled=BF16 and self.training):
            return prepare(self.item(x), self.plan.similarity)

    def histories(self, x: torch.Tensor, batch: Batch, private: Private | None = None) -> torch.Tensor:
        """User vectors after each event: (users, events, dim)."""
        seen = x[batch.items] if private is None else private.read(x[batch.items], batch.items)
        seen = seen * batch.mask[..., None]
        vectors: torch.Tensor = self.user(seen, batch.behaviours, recency_mean(seen, self.plan.recency))
        return vectors

    def prior(self, space: Space, batch: Batch) -> torch.Tensor:
        """Recency-weighted mean of the base's own vectors after each event: (users, events, dim)."""
        return recency_mean(space.base[batch.items] * batch.mask[..., None], self.plan.recency)


def _vectors(top: TopLayers, states: PrefixStates, rows: Rows) -> torch.Tensor:
    hidden, mask = states.padded(rows)
    with torch.autocast("cpu", torch.bfloat16, enabled=BF16):
        vectors: torch.Tensor = top(hidden if BF16 else hidden.float(), mask)
        return vectors


def positions_logits(
    model: Recommender,
    space: Space,
    x: torch.Tensor,
    v: torch.Tensor,
    batch: Batch,
    at: tuple[torch.Tensor, torch.Tensor],
    private: Private | None = None,
    among: torch.Tensor | None = None,
) -> torch.Tensor:
    """Scores of the whole catalogue, or of the items ``among``, at chosen events: (positions, items).

    ``x`` are the catalogue's whitened vectors, ``v`` the item vectors to score (``model.items``), ``at`` the
    indices (user, event) of the positions; an event's score knows that event and those before it.
    """
    base = space.base if among is None else space.base[among]
    u = model.histories(x, batch, private)[at]
    if private is not None:
        u = private.users(u, batch.users[at[0]])
    weights = model.mix.weights()
    # Half precision in training only: it moves a score by some hundredths, which ranks would feel.
    with torch.autocast("cpu", torch.bfloat16, enabled=BF16 and model.training):
        logits = weights[0] * similar(prepare(u, model.plan.similarity), v, model.plan.similarity)
        logits = logits + weights[1] * similar(model.prior(space, batch)[at], base, "dot")
    if private is not None:
        own = private.strength * private.bias + private.lift
        logits = logits + (own if among is None else own[among])
        if private.near[0] > 0:
            nearness = F.pad(private.nearness(batch, at), (0, len(space) - len(private.neighbours or ())))
            logits = logits + (nearness if among is None else nearness[:, among])
    position, item = seen_pairs(batch, at)
    if among is not None:
        position, item = pairs_among(position, item, among, len(space))
    return logits.index_put((position, item), weights[2].expand(len(position)), accumulate=True)


def seen_pairs(batch: Batch, at: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Each (position, item) such that the item stands in the history at that position, once."""
    events = batch.items.shape[1]
    same = batch.items[:, :, None] == batch.items[:, None, :]
    first = ~(same & torch.ones(events, events, dtype=torch.bool).tril(-1)).any(2) & batch.mask
    known = first[at[0]] & (torch.arange(events) <= at[1][:, None])
    position, event = known.nonzero(as_tuple=True)
    return position, batch.items[at[0][position], event]


def pairs_among(
    position: torch.Tensor, item: torch.Tensor, among: torch.Tensor, items: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of pairs (position, item) those whose item is one of ``among``, the item as its place there."""
    column = torch.full((items,), -1)
    column[among] = torch.arange(len(among))
    there = column[item] >= 0
    return position[there], column[item][there]


def adapter_tensors(model: Recommender) -> Tensors:
    """All that a federation shares, as numpy: adapters under PEFT's names, then the towers."""
    return dict(sorted({**_copies(model.towers()), **model.adapters()}.items()))


def _copies(parameters: Mapping[str, nn.Parameter]) -> Tensors:
    return {name: value.detach().numpy().copy() for name, value in parameters.items()}


def load_adapter_tensors(model: Recommender, tensors: Tensors) -> None:
    """Put them into the model, item tables left aside; they must have been checked (``payload.check_like``)."""
    _copy_into(shared_parameters(model), tensors)


def _copy_into(parameters: Mapping[str, nn.Parameter], tensors: Tensors) -> None:
    for name, value in parameters.items():
        value.data.copy_(torch.from_numpy(tensors[name]))


def shared_parameters(model: Recommender) -> dict[str, nn.Parameter]:
    """Names in sorted order, so that every sum over them has one order."""
    return dict(sorted([*lora_parameters(model.top.wrapped), *model.towers().items()]))


def released_names(plan: Plan, names: Sequence[str]) -> frozenset[str]:
    """Which of them clients train and send: A stays as drawn in the exact family; under a promise perhaps fewer."""
    frozen = "\0" if plan.federation.family == "fedavg" else ".lora_A."
    few = plan.privacy.releases if plan.private else "all"
    heads_only = plan.train.lora_lr == 0 or few != "all"
    names = [name for name in names if frozen not in name and not (heads_only and ".lora_" in name)]
    return frozenset(name for name in names if name.startswith(FEW.get(few, "")))


def base_fingerprint(plan: ModelPlan, base: Base) -> str:
    """What both sides must share before any tensor means the same."""
    return f"{base.fingerprint[:32]}/top{plan.top_layers}/len{plan.max_tokens}"


def initial_state(plan: Plan) -> tuple[Tensors, frozenset[str], str]:
    """(adapter, names that are released, base fingerprint) of round 1; a function of the plan alone."""
    base = find_base(plan.model.base)
    adapter = adapter_tensors(Recommender(plan.model, base, plan.federation.seed))
    return adapter, released_names(plan, list(adapter)), base_fingerprint(plan.model, base)
