"""Names, without their number, of the phases that wrote an estimator. Without torch."""

from __future__ import annotations

from coevo.config import Recipe


def scorer_kind(rounds: int) -> str:
    """The phase that wrote the scorer in force after so many rounds of CoRL; 0 is the cold start, and the plain scorer."""
    return f"scorer-{rounds}" if rounds else "sft-scorer"


def reasoner_kind(rounds: int) -> str:
    """The same of the reasoner."""
    return f"reasoner-{rounds}" if rounds else "sft-reasoner"


def estimator_kinds(recipe: Recipe) -> tuple[str, str | None]:
    """The phases of a recipe's scorer and of its reasoner, None where CoRL trains none."""
    if recipe.corl is None:
        return scorer_kind(0), None
    return scorer_kind(recipe.corl.iterations), reasoner_kind(recipe.corl.iterations)
