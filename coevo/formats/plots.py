"""The lengths of a data file as a picture."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # after the backend is chosen

from coevo.formats.stats import Stats


def lengths(found: Stats, to: Path) -> Path:
    """Draws prompts, references and messages of each split, and returns where."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    columns = (
        (found.prompts, f"prompt ({found.unit})"),
        (found.references, f"reference ({found.unit})"),
        (found.messages, "messages"),
    )
    for axis, (by, title) in zip(axes, columns, strict=True):
        axis.hist(list(by.values()), bins=24, density=True, histtype="step", label=list(by))
        axis.set_title(title)
        axis.set_yticks([])
    axes[0].legend(fontsize="small")
    figure.savefig(to, dpi=120)
    plt.close(figure)
    return to
