"""The task layer: item tower, user tower, and the score that joins them.

Both towers are residuals on the whitened text space with zero-initialised outputs, so an untrained
model already recommends as well as the texts alone ("identity start").
"""

from typing import cast

import torch
from torch import nn
from torch.nn import functional as F


class ItemTower(nn.Module):
    """Whitened text vector -> item vector: ``v = x + W2 relu(W1 x)`` with W2 = 0 at the start."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, hidden)
        self.outer = nn.Linear(hidden, dim)
        nn.init.zeros_(self.outer.weight)
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., dim) -> (..., dim)."""
        v: torch.Tensor = x + self.outer(F.relu(self.inner(x)))
        return v


class CausalBlock(nn.Module):
    """Pre-norm attention over the past, then a ReLU layer. Built of Linear and LayerNorm alone,
    so that per-user gradients can be taken of each of its parameters."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.mixed = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """(users, events, width) -> the same; event t sees events 0..t."""
        users, events, width = h.shape
        qkv = self.qkv(self.norm1(h)).view(users, events, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + self.dropout(self.mixed(seen.transpose(1, 2).reshape(users, events, width)))
        return self._widened(h)

    def after(self, h: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """What ``forward`` gives for one event of each history, ``last`` (users,), and no work for the others:
        (users, events, width) -> (users, width)."""
        users, events, width = h.shape
        n, own = self.norm1(h), torch.arange(users)
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(n[own, last], weight[:width], bias[:width]).view(users, self.heads, 1, -1)
        kv = F.linear(n, weight[width:], bias[width:]).view(users, events, 2, self.heads, -1)
        k, v = kv.permute(2, 0, 3, 1, 4)
        past = (torch.arange(events) <= last[:, None])[:, None, None]
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=past)
        return self._widened(h[own, last] + self.dropout(self.mixed(seen.reshape(users, width))))

    def _widened(self, h: torch.Tensor) -> torch.Tensor:
        wide: torch.Tensor = h + self.dropout(self.narrow(F.relu(self.wide(self.norm2(h)))))
        return wide


class UserTower(nn.Module):
    """History -> user vector after each event: recency-weighted mean + what the sequence adds (0 at the start)."""

    def __init__(
        self, dim: int, width: int, blocks: int, heads: int, behaviours: int, max_history: int, dropout: float
    ) -> None:
        super().__init__()
        self.inward = nn.Linear(dim, width)
        self.place = nn.Embedding(max_history, width)
        self.behaviour = nn.Embedding(behaviours, width)
        self.blocks = nn.ModuleList(CausalBlock(width, heads, dropout) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.outward = nn.Linear(width, dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.place.weight, std=0.02)
        nn.init.normal_(self.behaviour.weight, std=0.02)
        nn.init.zeros_(self.outward.weight)
        nn.init.zeros_(self.outward.bias)

    def forward(self, x: torch.Tensor, behaviours: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """Items (users, events, dim), behaviours (users, events), mean (users, events, dim) -> (users, events, dim)."""
        h = self._read(x, behaviours)
        for block in self.blocks:
            h = block(h)
        u: torch.Tensor = mean + self.outward(self.norm(h))
        return u

    def after(self, x: torch.Tensor, behaviours: torch.Tensor, mean: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        """What ``forward`` gives for one event of each history, ``last`` (users,), and its mean: (users, dim)."""
        h = self._read(x, behaviours)
        for block in self.blocks[:-1]:
            h = block(h)
        final = cast(CausalBlock, self.blocks[-1])
        u: torch.Tensor = mean + self.outward(self.norm(final.after(h, last)))
        return u

    def _read(self, x: torch.Tensor, behaviours: torch.Tensor) -> torch.Tensor:
        places = torch.arange(x.shape[1]).expand(x.shape[:2])
        h: torch.Tensor = self.inward(x) * x.shape[-1] ** 0.5 + self.place(places) + self.behaviour(behaviours)
        dropped: torch.Tensor = self.dropout(h)
        return dropped


class Mix(nn.Module):
    """Learned weights of the score's parts: similarity, zero-shot prior, and "already in the history".

    One Linear, so that per-user gradients of the three scalars come like any other layer's.
    """

    def __init__(self, similarity: float = 8.0, prior: float = 8.0, repeat: float = -8.0) -> None:
        super().__init__()
        self.parts = nn.Linear(3, 1, bias=False)
        self.parts.weight.data = torch.tensor([[similarity, prior, repeat]]) / self.SCALE

    SCALE = 10.0  # one step of the optimiser moves a weight by about lr; these live around ten

    def weights(self) -> torch.Tensor:
        """(3,): similarity, prior, repeat."""
        return self.parts.weight[0] * self.SCALE

    def forward(self, parts: torch.Tensor) -> torch.Tensor:
        """(..., 3) -> (...)."""
        scores: torch.Tensor = self.parts(parts * self.SCALE).squeeze(-1)
        return scores


def recency_mean(x: torch.Tensor, recency: float) -> torch.Tensor:
    """After each event t the mean of events 0..t, weights ``recency ** age``: (users, events, dim), length 1."""
    events = x.shape[1]
    age = torch.arange(events)[:, None] - torch.arange(events)
    weights = torch.where(age >= 0, float(recency) ** age.clamp(min=0), torch.zeros(()))
    return F.normalize(weights @ x, dim=-1)


def recency_weights(last: torch.Tensor, events: int, recency: float) -> torch.Tensor:
    """The weights of that mean after one event of each history, ``last`` (users,): (users, events)."""
    age = last[:, None] - torch.arange(events)
    return torch.where(age >= 0, float(recency) ** age.clamp(min=0), torch.zeros(()))


def weighted_mean(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Of events (users, events, dim) by weights (users, events): (users, dim), length 1."""
    return F.normalize((weights[:, None] @ x)[:, 0], dim=-1)


def prepare(u: torch.Tensor, similarity: str) -> torch.Tensor:
    """Vectors so that ``similar`` is a plain product: cosine divides by the length."""
    return F.normalize(u, dim=-1) if similarity == "cosine" else u


def similar(u: torch.Tensor, v: torch.Tensor, similarity: str) -> torch.Tensor:
    """All pairs: (rows, dim) x (items, dim) -> (rows, items); also batched over leading dimensions.

    cosine and dot: the product of prepared vectors; euclidean: minus half the squared distance.
    """
    product = (u @ v.transpose(-1, -2)).float()
    if similarity == "euclidean":
        lengths = (u**2).sum(-1, keepdim=True) + (v**2).sum(-1).unsqueeze(-2)
        return product - lengths / 2
    return product
