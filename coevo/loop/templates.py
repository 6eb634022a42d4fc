"""Tries the chat templates of the models that a recipe begins with; torch is imported only where there is one to try."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from coevo.config import HubBase, Recipe
from coevo.method import AugmentedSFT, Thinking


def check_templates(recipe: Recipe, *, fetch: bool) -> None:
    """Renders every role's prompts by the base's template, and a rewriter's by its own, before anything is written.

    Args:
        recipe: of the run. The shipped base and one that is built from the recipe's data have coevo's own template.
        fetch: download a hub model that is not on this machine; else it is passed over.

    Raises:
        ConfigError: a role, what the template does with its messages, and the remedy.
        CheckpointError: no such model, or no tokenizer or template in it.
    """
    for path, roles, marks in _models(recipe):
        from coevo.lm.loading import load_tokenizer, on_this_machine
        from coevo.scoring.probe import RUN_ROLES, probe

        found: str | Path | None = path if fetch else on_this_machine(path)
        if found is not None:
            probe(load_tokenizer(found), roles or RUN_ROLES, marks)


def _models(recipe: Recipe) -> Iterator[tuple[str, list[str], tuple[str, str] | None]]:
    """Models with templates of somebody else's, their roles (none: a run's) and the marks of a thought."""
    method = recipe.method
    if isinstance(recipe.base, HubBase):
        yield recipe.base.path, [], method.marks if isinstance(method, Thinking) else None
    if isinstance(method, AugmentedSFT) and method.model:
        yield method.model, ["rewriter"], None
