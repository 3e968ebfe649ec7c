"""What a federation agrees on before it starts; travels with every task, saved with every adapter.

Each section is a frozen dataclass with the defaults we would run. The data owner checks a plan that
arrives (``client/budget.py``) and may refuse it.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from shared.config import Table, read_section
from shared.errors import ConfigError

SIMILARITIES = ("cosine", "dot", "euclidean")
LOSSES = ("softmax", "bce", "mse", "bpr")
MECHANISMS = ("poisson", "banded")
NOISE_BY = ("server", "devices")
RELEASES = ("all", "towers", "outputs", "mix")
FAMILIES = ("ffa", "fedavg", "affinity")
MOST_SECURE = 4096.0  # users that a domain may weigh in a secure sum, whatever the server asks
LEAST_EPSILON, LEAST_DELTA, MOST_STEPS = 1e-9, 1e-15, 1_000_000  # what accountants can work out
LINEAR = ("ffa", "fedavg")  # families that need no more than the weighted sum of all updates
DEVICES_ALONE = ("mechanism", "noise_by", "clip_quantile", "transitions", "item_rank")  # of the section privacy
PROTOCOLS = ("loo", "time", "loo-99")  # how a domain evaluates itself; each result names its own
LORA_TARGETS = ("query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense")


@dataclass(frozen=True)
class ModelPlan:
    """The frozen base, where it is split, the adapters on its top, and the towers above them."""

    base: str = "minilm"  # "minilm" (embedded), a hub id or a path of any BERT-type checkpoint
    max_tokens: int = 64
    top_layers: int = 2  # layers that carry adapters; everything below is cached
    rank: int = 8  # of each adapted matrix; how many stay, and where: federation.mean_rank
    alpha: float = 16.0
    lora_dropout: float = 0.0
    targets: tuple[str, ...] = ("query", "value", "intermediate.dense", "output.dense")
    similarity: str = "cosine"  # how far a user's vector and an item's agree
    hidden: int = 512  # width of the item tower's ReLU layer
    width: int = 128  # width of the sequence tower
    blocks: int = 2
    heads: int = 4
    dropout: float = 0.3
    max_history: int = 50
    domains: int = 1  # whose histories one user tower reads together, on a device that holds them all
    item_embedding: bool = True  # private item-id residual
    item_reading: bool = True  # it also stands in the histories that the user tower reads
    user_embedding: bool = True  # private user-id residual
    expected_counts: bool = True  # rarely met items get the popularity that is to be expected of them (Good-Turing)
    neighbours: int = 100  # of an item, those most often met with it by the domain's users; 0 = none
    shared_items: bool = False  # owners of one catalogue who are alike share residuals, biases and counts of its items
    recency: float = 0.8  # weight of the last but one item relative to the last


@dataclass(frozen=True)
class TrainPlan:
    """One local training: how long, how fast, towards which loss."""

    loss: str = "softmax"  # the others against sampled negatives
    negatives: int = 0  # sampled from the public catalogue; 0 = the whole catalogue (softmax only)
    candidates: int = 4096  # items of a larger catalogue that stand for it in one batch; 0 = always all
    user_events: int = 1000  # most recent events of a user that are learnt from
    unwanted: float = 1.0  # weight of what a user hid or reported, as a negative; never under privacy.epsilon
    judge_unmet: bool = False  # items without a training interaction count as passed over
    batch_users: int = 128
    least_steps: int = 32  # user batches an epoch at least; small domains take smaller batches for it
    epochs: int = 6  # most epochs of a training that stops early
    most_epochs: int = 24  # of a domain's own, begun anew twice as long while its last epoch validates best
    round_epochs: int = 1  # epochs of one federated round
    private_rounds: bool = True  # private parameters train beside the released ones; never under privacy.epsilon
    personal_epochs: int = 2  # most epochs of the private fine-tuning after private rounds, else `epochs`; 0 = none
    personal_rate: float = 0.3  # its learning rates, relative to the others
    pull: float = 0.0  # how strongly it is drawn back to the federated model (Ditto); 0 = not
    gate: bool = True  # serve what the domain reaches alone where its validation finds the federated model worse
    mix: bool = True  # or the mean of that and of the federated model, where validation finds it best
    pooled_epochs: int = 3  # most epochs on the pooled data
    patience: int = 6  # epochs without a better validation NDCG@10 before stopping
    lr: float = 1e-3
    lora_lr: float = 3e-4  # 0 = towers alone, nothing of a catalogue goes through the adapted layers twice
    warmup: float = 0.1  # part of the steps
    weight_decay: float = 0.1
    encode_every: int = 96  # user batches per pass of the catalogue through the adapted layers
    encode_items: int = 1024  # items whose gradient is pushed into the adapters per pass


@dataclass(frozen=True)
class AdversaryPlan:
    """Adversarial training; ``weight`` 0 turns it off."""

    weight: float = 0.0  # of the adversarial loss beside the clean one
    radius: float = 0.3  # L2 norm of the perturbation relative to an item vector's norm


@dataclass(frozen=True)
class PrivacyPlan:
    """User-level DP-SGD; ``epsilon`` 0 turns it off. The unit is one user of one domain."""

    epsilon: float = 0.0  # for the whole run, all rounds
    delta: float = 1e-5
    clip_norm: float = 1.0  # L2 bound of one user's gradient
    lot_users: int = 128  # expected users in a Poisson sample, out of as many as a domain declares
    steps: int = 10  # noisy steps a round
    events: int = 6  # most recent events of a user that take part
    negatives: int = 10  # public items a user is compared with
    lr: float = 2e-3
    mechanism: str = "poisson"  # devices are sampled; or "banded": each in turn, noise correlated over steps
    noise_by: str = "server"  # to a sum of devices; or "devices": in shares, under a secure sum
    clip_quantile: float = 0.0  # of devices' gradient norms, which their clip follows; 0 = it stays as it is
    transitions: float = 0.95  # part of the budget that devices spend on telling which item follows which; 0 = none
    item_rank: int = 16  # numbers that devices learn of each item beyond its text and its popularity
    releases: str = "all"  # or "towers", "outputs" (of the user tower, and the mix), "mix": less noise, and no encoding


@dataclass(frozen=True)
class FederationPlan:
    """The rounds and the rule that joins their updates."""

    seed: int = 7
    rounds: int = 3
    family: str = "ffa"
    weight_cap: float = 4096.0  # no domain weighs more than this many users
    mean_rank: int = 0  # that the adapted matrices are left with, the most where it moves most; 0 = each its rank
    secure: bool = False  # the server learns the sum of all updates alone, of three domains or more


@dataclass(frozen=True)
class Plan:
    """All that the members of a federation must have in common."""

    model: ModelPlan = field(default_factory=ModelPlan)
    train: TrainPlan = field(default_factory=TrainPlan)
    adversary: AdversaryPlan = field(default_factory=AdversaryPlan)
    privacy: PrivacyPlan = field(default_factory=PrivacyPlan)
    federation: FederationPlan = field(default_factory=FederationPlan)

    @property
    def private(self) -> bool:
        return self.privacy.epsilon > 0

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)


SECTIONS: dict[str, type[Any]] = {
    "model": ModelPlan,
    "train": TrainPlan,
    "adversary": AdversaryPlan,
    "privacy": PrivacyPlan,
    "federation": FederationPlan,
}


def read_plan(table: Table) -> Plan:
    """Build and check a plan from ``{section: {key: value}}``. Raises ConfigError."""
    if unknown := sorted(table.keys() - SECTIONS.keys()):
        raise ConfigError(f"settings have no section [{unknown[0]}]; they know {', '.join(SECTIONS)}")
    plan = Plan(**{name: read_section(cls, table.get(name, {}), name) for name, cls in SECTIONS.items()})
    _check(plan)
    return plan


def plan_from_json(text: str) -> Plan:
    """The plan a peer sent. Raises ConfigError when it does not parse or does not hold together."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError("expected a plan as JSON, found something else; update both sides") from None
    if not isinstance(table, dict) or not all(isinstance(part, dict) for part in table.values()):
        raise ConfigError("expected a plan as a JSON object of sections; update both sides")
    return read_plan(table)


def differences(kept: Plan, asked: Plan) -> str:
    """The settings in which two plans differ, the first few of them, with both values; empty where they are equal."""
    one, other = asdict(kept), asdict(asked)
    told = [
        f"{section}.{key} {value}, asked {other[section][key]}"
        for section, part in one.items()
        for key, value in part.items()
        if value != other[section][key]
    ]
    return "; ".join([*told[:3], *([f"{len(told) - 3} more"] if len(told) > 3 else [])])


def check_silos(plan: Plan) -> None:
    """Raises ConfigError where domains of many users are promised privacy in a way that only devices know."""
    for name in DEVICES_ALONE if plan.private else ():
        usual = getattr(PrivacyPlan(), name)
        if (found := getattr(plan.privacy, name)) != usual:
            raise ConfigError(
                f"privacy.{name}={found} is for a federation of devices (`simulations scenario devices`); a domain of "
                f"many users samples them and adds its own noise: leave it at {usual}"
            )


def _check(plan: Plan) -> None:
    _one_of("model.similarity", plan.model.similarity, SIMILARITIES)
    _one_of("train.loss", plan.train.loss, LOSSES)
    _one_of("federation.family", plan.federation.family, FAMILIES)
    _one_of("privacy.mechanism", plan.privacy.mechanism, MECHANISMS)
    _one_of("privacy.noise_by", plan.privacy.noise_by, NOISE_BY)
    _one_of("privacy.releases", plan.privacy.releases, RELEASES)
    if not plan.model.targets:
        raise ConfigError(f"model.targets: expected some of {', '.join(LORA_TARGETS)}, found none")
    for target in plan.model.targets:
        _one_of("model.targets", target, LORA_TARGETS)
    if plan.train.loss != "softmax" and plan.train.negatives == 0 and not plan.private:
        raise ConfigError(f"train.loss={plan.train.loss} needs sampled negatives: set train.negatives to 1 or more")
    if plan.model.shared_items:
        if plan.private:
            raise ConfigError("model.shared_items cannot go with privacy.epsilon: it releases a row for every item")
        if plan.federation.family != "affinity" or not plan.train.private_rounds or not plan.model.item_embedding:
            raise ConfigError(
                "model.shared_items needs federation.family=affinity, train.private_rounds and model.item_embedding"
            )
    if plan.federation.mean_rank > plan.model.rank:
        raise ConfigError(
            f"federation.mean_rank: expected at most model.rank, {plan.model.rank}, of which it leaves a part; found "
            f"{plan.federation.mean_rank}"
        )
    if plan.federation.secure and plan.federation.family not in LINEAR:
        raise ConfigError(
            f"federation.secure needs federation.family={' or '.join(LINEAR)}: {plan.federation.family} looks at each "
            "domain's own update, which a secure sum hides from the server"
        )
    if plan.federation.secure and plan.federation.weight_cap > MOST_SECURE:
        raise ConfigError(
            f"federation.secure needs federation.weight_cap of at most {MOST_SECURE:g}: beside one that weighs far "
            f"more than the others a sum hides little of it; found {plan.federation.weight_cap:g}"
        )
    if plan.private and plan.federation.family == "fedavg":
        raise ConfigError("privacy.epsilon needs federation.family=ffa or affinity: noise on A and B apart multiplies")
    for name in ("model", "train", "adversary", "privacy", "federation"):
        section = getattr(plan, name)
        for item in fields(section):
            value = getattr(section, item.name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                _at_least(f"{name}.{item.name}", value, LOWEST.get(f"{name}.{item.name}", 0))
                if isinstance(value, int) and name != "federation":
                    _at_most(f"{name}.{item.name}", value, HIGHEST.get(f"{name}.{item.name}", 1_000_000))
    if plan.model.width % plan.model.heads:
        raise ConfigError(f"model.width {plan.model.width} must be a multiple of model.heads {plan.model.heads}")
    for key, value in (("model.dropout", plan.model.dropout), ("model.lora_dropout", plan.model.lora_dropout)):
        if value >= 1:
            raise ConfigError(f"{key}: expected less than 1, found {value}")
    if plan.privacy.clip_quantile >= 1:
        raise ConfigError(f"privacy.clip_quantile: expected less than 1, found {plan.privacy.clip_quantile}")
    if plan.privacy.transitions > 1:
        raise ConfigError(
            f"privacy.transitions: expected a part of the budget, 0 to 1, found {plan.privacy.transitions}"
        )
    if plan.privacy.noise_by == "devices" and plan.privacy.transitions != 1:
        raise ConfigError(
            "privacy.noise_by=devices needs privacy.transitions=1, a sum that all devices join once: the server of a "
            "secure sum sees who joins, so a sample hides nobody, and noise that later steps take back has no shares"
        )
    if not LEAST_DELTA <= plan.privacy.delta < 1:
        raise ConfigError(
            f"privacy.delta: expected a probability of at least {LEAST_DELTA:g}, below 1, found {plan.privacy.delta}"
        )
    if 0 < plan.privacy.epsilon < LEAST_EPSILON:
        raise ConfigError(f"privacy.epsilon: expected 0 or at least {LEAST_EPSILON:g}, found {plan.privacy.epsilon}")
    if (steps := plan.federation.rounds * plan.privacy.steps) > MOST_STEPS:
        raise ConfigError(f"federation.rounds x privacy.steps: expected at most {MOST_STEPS:,}, found {steps:,}")


# The least value of a setting where it is not 0.
LOWEST: dict[str, float] = {
    **{
        f"model.{key}": 1
        for key in ("max_tokens", "top_layers", "rank", "hidden", "width", "heads", "max_history", "domains")
    },
    **{
        f"train.{key}": 1
        for key in (
            "user_events",
            "batch_users",
            "least_steps",
            "epochs",
            "most_epochs",
            "round_epochs",
            "pooled_epochs",
            "encode_every",
            "encode_items",
        )
    },
    **{f"privacy.{key}": 1 for key in ("lot_users", "steps", "events", "negatives")},
    "model.max_tokens": 3,
    "model.alpha": 1e-6,
    "privacy.clip_norm": 1e-6,
    "privacy.events": 2,
    "federation.weight_cap": 1,
    "federation.rounds": 1,
}


# The greatest value where it sizes a tensor: a plan that a peer sent may cost memory only within reason.
HIGHEST: dict[str, int] = {
    "model.max_tokens": 512,
    "model.top_layers": 64,
    "model.rank": 1024,
    "model.hidden": 16_384,
    "model.width": 4096,
    "model.blocks": 32,
    "model.heads": 64,
    "model.max_history": 5000,
    "model.domains": 7,
    "model.neighbours": 1000,
    "privacy.item_rank": 128,
    "privacy.events": 1000,  # each user has as many slots, and each slot is compared with
    "privacy.negatives": 10_000,  # as many items
}


def _at_least(where: str, value: float, least: float) -> None:
    if not least <= value < float("inf"):
        raise ConfigError(f"{where}: expected at least {least:g}, found {value}")


def _at_most(where: str, value: int, most: int) -> None:
    if value > most:
        raise ConfigError(f"{where}: expected at most {most:,}, found {value:,}")


def _one_of(where: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{where}: expected one of {', '.join(known)}, found {value!r}")
