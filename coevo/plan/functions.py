"""Parts of a reward that others write: functions named in a recipe as `package.module:function`. Without torch.

A function is called as `function(scenario=…, completion=…, fit=…, reference=…)` with a `coevo.types.Scenario`, the
response's text, and the likelihoods (`coevo.rewards.parts.Fit`) of the response and of the scenario's reference; it gives
a number.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
import reprlib
import sys
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from coevo.errors import ConfigError, ScoreError
from coevo.nearest import did_you_mean
from coevo.types import Scenario

Function = Callable[..., float]
ARGUMENTS = ("scenario", "completion", "fit", "reference")


@cache
def load(name: str) -> Function:
    """The function of a name, from the installed packages or the folder that the command is run from.

    Raises:
        ConfigError: no such module or function, or one that cannot be called so.
    """
    module_name, _, attribute = name.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # whatever the module itself ends in
        raise ConfigError(
            f"weights.functions: {name}: {module_name} cannot be imported ({type(error).__name__}: {error}); expected "
            "package.module:function of an installed package or of a file in the folder that the command is run from."
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise ConfigError(
            f"weights.functions: {name}: {module_name} has no function {attribute!r}.{did_you_mean(attribute, known)}"
        )
    try:
        inspect.signature(found).bind(**dict.fromkeys(ARGUMENTS))
    except (TypeError, ValueError) as error:  # a class of C has no signature
        raise ConfigError(
            f"weights.functions: {name}: cannot be called with {', '.join(ARGUMENTS)} by name ({error}); take those four."
        ) from None
    return found


def source_hashes(names: Iterable[str]) -> dict[str, str]:
    """Name -> sha256 of the file that each function stands in; of an object that can be called, the file of its module."""
    files = {name: _file_of(name) for name in names}
    return {name: hashlib.sha256(Path(file).read_bytes()).hexdigest() for name, file in files.items() if file}


def _file_of(name: str) -> str | None:
    found = inspect.unwrap(load(name))
    return inspect.getsourcefile(found if inspect.isfunction(found) else sys.modules[name.partition(":")[0]])


def worth(names: Iterable[str], scenario: Scenario, completion: str, fit: Any, reference: Any) -> Mapping[str, float]:
    """What each function says of a response.

    Raises:
        ScoreError: one that raises, or gives something else than a finite number; names function and scenario.
    """
    found = {}
    for name in names:
        try:
            value = load(name)(scenario=scenario, completion=completion, fit=fit, reference=reference)
        except (Exception, SystemExit) as error:  # whatever the function itself ends in
            raise ScoreError(
                f"weights.functions: {name} ended in {type(error).__name__}: {error}, on scenario {scenario.sample_id} and "
                f"the response {completion[:80]!r}. Mend the function, then resume in a new run."
            ) from error
        number = _number(value)
        if number is None:
            raise ScoreError(
                f"weights.functions: {name} gave {_short(value)} for scenario {scenario.sample_id} and the response "
                f"{completion[:80]!r}; expected a finite number."
            )
        found[name] = number
    return found


def _number(value: Any) -> float | None:
    """A finite number, or None for anything else; an integer can be too large for one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _short(value: Any) -> str:
    """What a function gave, for a message: an object's own way to show itself may be long, or fail."""
    try:
        return reprlib.repr(value)
    except Exception:  # noqa: BLE001  # whatever it ends in
        return f"an object of class {type(value).__name__}"
