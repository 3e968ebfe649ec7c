"""Which words of a text raise a score: integrated gradients. The only file that knows captum, an extra.

Sundararajan, Taly & Yan 2017, equation 1: the gradient of the score with respect to each word piece's embedding,
averaged on the straight way from a text of blanks to the text itself, times what the embedding changes on it. The way
goes through the whole model: frozen layers, adapted layers, whitening, towers, score. What all words add is the score
less that of the blanks ("completeness"); ``Words.gap`` says by how much the sum misses it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from shared.engine import READING, Engine
from shared.errors import ConfigError
from shared.policy import Person
from shared.prefix import blank_token, prefix_layers, word_pieces
from shared.scoring import UNLISTED

STEPS = 16  # points of Gauss-Legendre on the way; the gap stays below TOLERANCE
TOLERANCE = 0.05  # of the largest among score, score of blanks and their difference
AT_ONCE = 12  # points in one pass: bounds the memory
MISSING = "words need captum: pip install -e '.[explain]'"
# Han, kana and hangul are written without spaces: each sign counts as a word.
SIGN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
WORD = re.compile(rf"[{SIGN}]|[^\s{SIGN}]+")

Score = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (tuned, plain), each (texts, dim) -> (texts,)


@dataclass(frozen=True)
class Word:
    """One word and what it adds to the score; below zero: what it takes."""

    word: str
    weight: float


@dataclass(frozen=True)
class Words:
    """A text in its order, as far as the encoder reads it."""

    text: str
    words: tuple[Word, ...]
    score: float
    blank: float  # the score had the text as many blanks as word pieces
    gap: float  # the sum of all weights, less (score - blank): the error of the numerical integral


def item_words(engine: Engine, person: Person, row: int) -> Words | None:
    """Words of an item's own text, towards its score for this person; None where it has none. Raises ConfigError."""
    scorer, model = engine.scorer, engine.scorer.model
    query = scorer.query(person.past, person.user)
    own = scorer.scores(query, torch.tensor([row]))[0]
    vectors = scorer.vectors
    weights = scorer.weights.detach()
    # Whatever does not hang on the text is what is left of the score; the residual of the item's id among it.
    extra = vectors.v[row] - model.items(vectors.x[row : row + 1])[0].detach()
    like = weights[0] * _alike(engine, query.user, vectors.v[row][None])[0] + weights[1] * (
        vectors.base[row] @ query.prior
    )
    rest = own - like

    def score(tuned: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
        v = model.items(tuned) + extra
        return weights[0] * _alike(engine, query.user, v) + weights[1] * (plain @ query.prior) + rest

    return _attribute(engine, engine.catalog.texts[row], score)


def told_words(engine: Engine, person: Person, row: int, event: int) -> Words | None:
    """Words of a told event (counted from the oldest) that is no item of the catalogue, towards an item's score; None
    where the model does not read it. Raises ConfigError."""
    scorer = engine.scorer
    read = person.past.last(scorer.model.plan.max_history)
    place = event - (len(person.past) - len(read))
    if place < 0 or int(read.rows[place]) != UNLISTED:
        return None
    query = scorer.query(read, person.user)
    v, base = scorer.vectors.v[row], scorer.vectors.base[row]
    weights = scorer.weights.detach()
    like = weights[0] * _alike(engine, query.user, v[None])[0] + weights[1] * (base @ query.prior)
    rest = scorer.scores(query, torch.tensor([row]))[0] - like

    def score(tuned: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
        many = len(tuned)
        then = read.tuned.expand(many, -1, -1).clone()
        before = read.plain.expand(many, -1, -1).clone()
        then[:, place], before[:, place] = tuned, plain
        last = torch.full((many,), len(read) - 1)
        u, z = scorer.towers(then, before, read.behaviours.expand(many, -1), last, person.user)
        return weights[0] * _alike(engine, u, v) + weights[1] * (z @ base) + rest

    return _attribute(engine, person.titles[event], score)


def _alike(engine: Engine, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Similarity of user and item vectors, either of them several: (several,)."""
    if engine.scorer.model.plan.similarity == "euclidean":
        return -((u - v) ** 2).sum(-1) / 2
    return (u * v).sum(-1)


def _attribute(engine: Engine, text: str, score: Score) -> Words | None:
    model = engine.scorer.model
    with READING:
        ids, spans = word_pieces(model.base, text, model.plan.max_tokens)
    if not any(end > start for start, end in spans):
        return None
    bert = model.top.bert
    blank = blank_token(model.base)
    blanks = [piece if start == end else blank for piece, (start, end) in zip(ids, spans, strict=True)]
    table = bert.embeddings.word_embeddings
    inputs, baseline = (table(torch.tensor([row])).detach() for row in (ids, blanks))

    def forward(embedded: torch.Tensor) -> torch.Tensor:
        mask = torch.ones(embedded.shape[:2], dtype=torch.bool)
        # The fused kernel's way back is several times slower than plain products on texts of some tens of tokens. Which
        # kernel is taken is one switch for all threads: those who read texts meanwhile must not find it turned.
        with READING, sdpa_kernel(SDPBackend.MATH):
            hidden = prefix_layers(bert, bert.embeddings(inputs_embeds=embedded), mask, model.split)
            return score(*(engine.whitening(top(hidden, mask)) for top in (model.top, model.plain)))

    with torch.no_grad():
        whole, none = (float(forward(each)[0]) for each in (inputs, baseline))
    pieces = _integrated(forward, inputs, baseline)
    gap = float(pieces.sum()) - (whole - none)
    return Words(text, _joined(text, spans, pieces.tolist()), round(whole, 4), round(none, 4), round(gap, 4))


def _integrated(
    forward: Callable[[torch.Tensor], torch.Tensor], inputs: torch.Tensor, to: torch.Tensor
) -> torch.Tensor:
    """(tokens,): what each word piece adds. Raises ConfigError where captum is missing."""
    try:
        from captum.attr import IntegratedGradients
    except ImportError:
        raise ConfigError(MISSING) from None
    found: torch.Tensor = IntegratedGradients(forward).attribute(
        inputs, baselines=to, n_steps=STEPS, method="gausslegendre", internal_batch_size=AT_ONCE
    )
    return found[0].sum(-1).detach().float()


def _joined(text: str, spans: list[tuple[int, int]], weights: list[float]) -> tuple[Word, ...]:
    """Word pieces added up to words: what stands between spaces, or one sign of a script that has none."""
    found = []
    for match in WORD.finditer(text):
        inside = [
            w for (start, end), w in zip(spans, weights, strict=True) if match.start() <= start < end <= match.end()
        ]
        if inside:  # else it lies behind what the encoder reads
            found.append(Word(match.group(), round(sum(inside), 4)))
    return tuple(found)
