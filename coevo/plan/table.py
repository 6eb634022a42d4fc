"""The table of a dry run, and what its costs rest on. Without torch."""

from __future__ import annotations

from collections.abc import Sequence

from coevo.config import Recipe, SmallBase
from coevo.layout import align
from coevo.plan.cost import DECODE_SHARE, parameters, rate, typical_tokens
from coevo.plan.plan import PhasePlan


def table(phases: Sequence[PhasePlan]) -> str:
    """The phases of a dry run as an aligned table with a row of totals."""
    header = ("phase", "kind", "updates", "samples", "sequences", "tokens", "about")
    rows: list[tuple[str, ...]] = [
        (
            phase.name,
            phase.kind,
            f"{phase.updates:,}" if phase.updates else "-",
            f"{phase.samples:,}",
            f"{phase.sequences:,}",
            f"{phase.tokens_estimate:,}",
            duration(phase.seconds_estimate),
        )
        for phase in phases
    ]
    seconds = [phase.seconds_estimate for phase in phases if phase.seconds_estimate is not None]
    total = duration(sum(seconds) if len(seconds) == len(phases) else None)
    tokens = sum(phase.tokens_estimate for phase in phases)
    rows.append(("total", "", f"{sum(phase.updates for phase in phases):,}", "", "", f"{tokens:,}", total))
    lines = align([header, *rows], names=2).splitlines()
    rule = "-" * max(map(len, lines))
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def duration(seconds: float | None) -> str:
    """A length of time for a person: `40 s`, `12 min`, `3.5 h`."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "< 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def prompts_in_use(recipe: Recipe) -> str:
    """Which prompts a run reads, in one sentence."""
    prompts = recipe.prompt_set
    own = f", with the recipe's own for {', '.join(prompts.own)}" if prompts.own else ""
    name = "instruct" if prompts.asked_by == "user" else "short"
    template = ", ".join(f"{key}={value!r}" for key, value in recipe.template.items())
    extra = f"; the base's chat template is given {template}" if template else ""
    return f"Prompts: {name}{own}{f' ({recipe.reading[:12]})' if recipe.reading else ''}{extra}."


def assumptions(recipe: Recipe) -> str:
    """What the estimates rest on, in one sentence for the reader of the table."""
    prompt, response, turn = typical_tokens(recipe)
    size = parameters(recipe)
    if size is None:
        return f"No seconds: the size of {recipe.base.path} cannot be read off its name."
    where = "2 CPU cores" if isinstance(recipe.base, SmallBase) else "one data-centre GPU in bfloat16"
    return (
        f"Costs are estimates: {size / 1e6:,.3g} M parameters, 6 FLOPs per parameter and trained token, 2 per scored "
        f"or written one, on {where} at {rate(recipe):.0e} FLOP/s (writing at {DECODE_SHARE:.0%} of it); prompts of "
        f"{prompt}, responses of {response} and user turns of {turn} tokens. Loading and start-up are not in it."
    )
