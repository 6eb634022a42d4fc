"""Names, without their number, of the phases that wrote an estimator, and which one is in force when. Without torch."""

from __future__ import annotations

from coevo.config import Recipe


def scorer_kind(rounds: int) -> str:
    """The phase that wrote the scorer in force after so many rounds of CoRL; 0 is the cold start, and the plain scorer."""
    return f"scorer-{rounds}" if rounds else "sft-scorer"


def reasoner_kind(rounds: int) -> str:
    """The same of the reasoner."""
    return f"reasoner-{rounds}" if rounds else "sft-reasoner"


def rounds_at(recipe: Recipe, iteration: int | None) -> int:
    """How many rounds of CoRL made the estimator in force in an iteration of the game, refreshes included.

    None is outside of the game: the first estimator, of which both evaluations are made.
    """
    if recipe.corl is None:
        return 0
    every = recipe.corl.refresh_every
    return recipe.corl.iterations + ((iteration - 1) // every if every and iteration else 0)


def played_before(recipe: Recipe, round_: int | None) -> int:
    """How many iterations of the game came before a round of CoRL; 0 but for a refresh."""
    if recipe.corl is None or recipe.corl.refresh_every is None or round_ is None:
        return 0
    return max(0, round_ - recipe.corl.iterations) * recipe.corl.refresh_every


def estimator_kinds(recipe: Recipe, iteration: int | None = None) -> tuple[str | None, str | None]:
    """The phases of the scorer and of the reasoner in force, see `rounds_at`.

    None for a scorer that is taken as it is (`scorer.kind: zero_shot`), and for the reasoner where CoRL trains none.
    """
    if recipe.scorer.kind == "zero_shot":
        return None, None
    rounds = rounds_at(recipe, iteration)
    return scorer_kind(rounds), None if recipe.corl is None else reasoner_kind(rounds)
