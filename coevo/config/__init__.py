"""Recipes: the schema, the methods, the YAML and its overrides; rubrics and how a judge is reached. Without torch."""

from coevo.config.inputs import (
    FileData,
    HubBase,
    SmallBase,
    WorldData,
)
from coevo.config.loop import (
    CoRL,
    Loop,
    ReasonerPhase,
    RPMPhase,
    SimulatorKeys,
    SimulatorPhase,
)
from coevo.config.recipe import (
    REASONING_FRAME,
    REQUEST_TO_THINK,
    Audit,
    Evaluation,
    Limits,
    LoRA,
    Recipe,
    folder_name,
)
from coevo.config.training import (
    GRPO,
    SFT,
    Model,
    Pretrain,
    RealText,
    RewardWeights,
    ScorerSFT,
    SimulatorSFT,
)

__all__ = [
    "GRPO",
    "REASONING_FRAME",
    "REQUEST_TO_THINK",
    "SFT",
    "Audit",
    "CoRL",
    "Evaluation",
    "FileData",
    "HubBase",
    "Limits",
    "LoRA",
    "Loop",
    "Model",
    "Pretrain",
    "RPMPhase",
    "RealText",
    "ReasonerPhase",
    "Recipe",
    "RewardWeights",
    "ScorerSFT",
    "SimulatorKeys",
    "SimulatorPhase",
    "SimulatorSFT",
    "SmallBase",
    "WorldData",
    "folder_name",
]
