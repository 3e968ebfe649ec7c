"""What the words of a command come to: names, numbers and pictures, each checked before anything is begun."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shared.errors import ConfigError
from shared.plan import FederationPlan, Plan
from simulations.tables import BASELINES, NAMES


def check_picture(option: str, to: Path) -> None:
    """Raises ConfigError for a name that says no format."""
    if to.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"{option}: expected a name that ends with .png, .svg or .pdf, found {to.name!r}")


def drawn(plot: Callable[[Any, Path], Path], what: Any, to: Path) -> Path:
    """The picture's place. Raises ConfigError where the extra that draws is missing."""
    try:
        return plot(what, to)
    except ImportError:
        raise ConfigError("plots need matplotlib: pip install -e '.[plots]'") from None


def check_epsilons(text: str) -> list[float]:
    """``1,2,4`` -> [1.0, 2.0, 4.0]. Raises ConfigError."""
    try:
        found = sorted({float(part) for part in text.split(",") if part.strip()})
    except ValueError:
        found = []
    from shared.passport import MAX_EPSILON

    if not found or not all(0 < value <= MAX_EPSILON for value in found):
        raise ConfigError(
            f"--epsilons: expected numbers above 0 and at most {MAX_EPSILON:g}, such as 1,2,4, found {text!r}"
        )
    return found


def listed(option: str, text: str) -> tuple[str, ...]:
    """``a, b`` -> (a, b). Raises ConfigError when there is none."""
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if not parts:
        raise ConfigError(f"{option}: expected names with commas, found {text!r}")
    return parts


def check_seeds(text: str) -> list[int]:
    """``7,8,9`` -> [7, 8, 9]. Raises ConfigError."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"--seeds: expected whole numbers with commas, such as 7,8,9, found {text!r}")
    return sorted({int(part) for part in parts})


def check_plan_seed(plan: Plan, whose: str) -> None:
    """Raises ConfigError for a seed beside those of ``--seeds``, which no run would have."""
    if (found := plan.federation.seed) != FederationPlan().seed:
        raise ConfigError(f"federation.seed={found}: {whose} its --seeds; pass --seeds {found}")


def check_methods(option: str, only: Sequence[str]) -> tuple[str, ...]:
    """The methods to run, the five that fit a terminal when none is named. Raises ConfigError on an unknown name."""
    chosen = [name.strip().replace("-", "_") for text in only for name in text.split(",") if name.strip()]
    for name in chosen:
        one_of(option, name, (*NAMES, *BASELINES))
    return tuple(chosen) or tuple(name for name in NAMES if name not in ("adopted", "devices", "together"))


def one_of(option: str, value: str, known: Sequence[str]) -> None:
    """Raises ConfigError where it is none of the known."""
    if value not in known:
        raise ConfigError(f"{option}: expected one of {', '.join(known)}, found {value!r}")
