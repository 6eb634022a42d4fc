"""coevo measures how a role-playing model breaks under shifts of user, character and dialogue, and trains it away.

    import coevo

    scenarios = coevo.load_scenarios("dialogues.json")
    scorer = coevo.load_scorer("Qwen/Qwen3-4B")          # or a run of coevo train, with its reasoner
    coevo.diagnose(scorer, scenarios, "responses.jsonl")

The names below are what other programs may build on; docs/python.md describes them. They are found when they are first
used, so that importing coevo loads neither torch nor anything else that is slow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coevo.config import RealText, RewardWeights
    from coevo.data import load_scenarios
    from coevo.diagnosis.direct import diagnose
    from coevo.diagnosis.generate import generate
    from coevo.diagnosis.result import Diagnosis, ModelResult, ShiftResult
    from coevo.diagnosis.scorers import load_scorer
    from coevo.errors import CoevoError
    from coevo.maths import estimates
    from coevo.maths.stats import Measure
    from coevo.prompts import chat_messages
    from coevo.rewards.audit_any import audit
    from coevo.rewards.remid import REMIDReward
    from coevo.rewards.remote import RemoteReward
    from coevo.rewards.verdict import Verdict as Audit
    from coevo.types import Response, Reward, Scenario, Turn

_PLACES = {
    "Audit": ("coevo.rewards.verdict", "Verdict"),
    "CoevoError": ("coevo.errors", "CoevoError"),
    "Diagnosis": ("coevo.diagnosis.result", "Diagnosis"),
    "Measure": ("coevo.maths.stats", "Measure"),
    "ModelResult": ("coevo.diagnosis.result", "ModelResult"),
    "REMIDReward": ("coevo.rewards.remid", "REMIDReward"),
    "RealText": ("coevo.config", "RealText"),
    "RemoteReward": ("coevo.rewards.remote", "RemoteReward"),
    "Response": ("coevo.types", "Response"),
    "Reward": ("coevo.types", "Reward"),
    "RewardWeights": ("coevo.config", "RewardWeights"),
    "Scenario": ("coevo.types", "Scenario"),
    "ShiftResult": ("coevo.diagnosis.result", "ShiftResult"),
    "Turn": ("coevo.types", "Turn"),
    "chat_messages": ("coevo.prompts", "chat_messages"),
    "audit": ("coevo.rewards.audit_any", "audit"),
    "diagnose": ("coevo.diagnosis.direct", "diagnose"),
    "estimates": ("coevo.maths.estimates", None),
    "generate": ("coevo.diagnosis.generate", "generate"),
    "load_scenarios": ("coevo.data", "load_scenarios"),
    "load_scorer": ("coevo.diagnosis.scorers", "load_scorer"),
}
"""Public name -> its module, and its name there; None is the module itself."""

__all__ = [
    "Audit",
    "CoevoError",
    "Diagnosis",
    "Measure",
    "ModelResult",
    "REMIDReward",
    "RealText",
    "RemoteReward",
    "Response",
    "Reward",
    "RewardWeights",
    "Scenario",
    "ShiftResult",
    "Turn",
    "audit",
    "chat_messages",
    "diagnose",
    "estimates",
    "generate",
    "load_scenarios",
    "load_scorer",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("coevo")
    if name not in _PLACES:
        raise AttributeError(f"module 'coevo' has no attribute {name!r}")
    module, attribute = _PLACES[name]
    found = import_module(module)
    return found if attribute is None else getattr(found, attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
