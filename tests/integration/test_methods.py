"""Every method through the real phases, from one shared SFT model and scorer: what is to be learnt is learnt.

A branch is a copy of the shared run under a recipe with another method: the phases before a method's own have the same names
and seeds, so what the copy finds finished is what it would have made.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coevo.config import Recipe
from coevo.config.load import dump_recipe, parse_recipe
from coevo.data import world
from coevo.data.world.responders import Fault, Responder
from coevo.lm.lineage import read_lineage
from coevo.loop.context import Context
from coevo.loop.material import load_material
from coevo.loop.run import train
from coevo.plan.plan import plan
from coevo.progress import Silent
from coevo.runs.folder import RunFolder, read_rows
from coevo.scoring.scorer import Ask
from coevo.types import Scenario

TREE: dict[str, Any] = {
    "name": "methods",
    "data": {"kind": "world", "train": 96, "dev": 64, "shift_train": 400, "test": 1},
    "limits": {"prompt": 320, "response": 56, "turn": 48},
    # at this rate the SFT model is all but its base, which was taught with every fifth slot wrong: much is left to learn
    "rpm_sft": {"samples": 96, "batch_size": 16, "learning_rate": 1.0e-5},
    "scorer_sft": {"samples": 320, "batch_size": 16},
    "simulator_sft": {"samples": 96, "batch_size": 16, "learning_rate": 3.0e-3},
    "audit": {"scenarios": 6, "on_failure": "warn"},
    "evaluation": {"k": 2, "resamples": 50},
}
SHARED = ["01-sft-rpm", "02-sft-scorer"]


def recipe(method: Any, **blocks: Any) -> Recipe:
    return parse_recipe(TREE | {"method": method} | blocks, "recipe")


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which the RPM's SFT and the scorer are done."""
    return train(recipe("sft"), tmp_path_factory.mktemp("methods") / "shared", only=SHARED)


def branch(
    shared: Path, out: Path, asked: Recipe, skip: tuple[str, ...] = ("audit", "evaluate-sft", "evaluate-final")
) -> Path:
    """The shared run gone on with under another method, without the phases that its own do not rest on."""
    # without the file that holds the recipe's hash, as another recipe is put in its place
    shutil.copytree(shared, out, ignore=shutil.ignore_patterns("environment.json"))
    (out / "resolved.yaml").write_text(dump_recipe(asked), encoding="utf-8")
    wanted = [phase.name for phase in plan(asked) if phase.name.split("-", 1)[1] not in skip]
    return train(asked, out, resume=True, only=wanted)


def context(run: Path) -> Context:
    folder, asked = RunFolder.open(run)
    return Context(asked, folder, load_material(asked), plan(asked), Silent())


def share_right(here: Context, phase: str, scenarios: list[Scenario]) -> float:
    """Mean share of right slots of what a phase's policy samples: how much of its probability is on right answers."""
    policy = here.load(here.phase_name(phase), trainable=False)
    answers = here.write(policy, "rpm", scenarios, list(range(len(scenarios))), temperature=1.0)
    return float(np.mean([world.share_right(x, a.text) for x, a in zip(scenarios, answers, strict=True)]))


def margin_nats(here: Context, phase: str, scenarios: list[Scenario]) -> float:
    """How much likelier a phase's policy finds references than answers with about half of their slots wrong."""
    wrong = Responder("wrong", Fault(error=0.5)).respond(scenarios, seed=1)
    asks = [Ask(x, text) for x, answer in zip(scenarios, wrong, strict=True) for text in (x.reference, answer.text)]
    nats = [score.logprob_nats for score in here.scorer(here.phase_name(phase), role="rpm").score(asks)]
    return float(np.mean(nats[::2]) - np.mean(nats[1::2]))


def lineage(run: Path, phase: str) -> Any:
    return read_lineage(run / "phases" / phase / "policy")


SAMPLING = {"prompts": 64, "group": 8, "temperature": 1.0}


def test_rejection_sampling_learns_from_the_best_of_its_answers(shared: Path, tmp_path: Path) -> None:
    tune = {"batch_size": 16, "epochs": 3, "learning_rate": 2e-3}
    run = branch(shared, tmp_path / "run", recipe({"kind": "rejection_sft", "tune": tune} | SAMPLING))
    facts = json.loads((run / "phases" / "05-sample" / "done.json").read_text())["facts"]
    assert facts["answers"] == 512 and facts["scored"] > 256
    # the reward never saw the truth, and picks answers that are right more often than the rest
    assert facts["share_right/best"] > facts["share_right"] + 0.1
    rows = list(read_rows(run / "samples.jsonl"))
    assert len({row["sample_id"] for row in rows}) == 64
    here = context(run)
    before, after = (share_right(here, phase, here.material.id_dev) for phase in ("sft-rpm", "sft-best"))
    assert after > before + 0.05, (before, after)
    assert lineage(run, "06-sft-best").parent == lineage(run, "01-sft-rpm").sha256


def test_dpo_learns_to_prefer_what_the_reward_prefers(shared: Path, tmp_path: Path) -> None:
    tune = {"batch_size": 8, "epochs": 2, "learning_rate": 2e-3}
    run = branch(shared, tmp_path / "run", recipe({"kind": "dpo", "tune": tune} | SAMPLING))
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["phase"] == "06-dpo"]
    # -log sigmoid(0): the policy begins as its own reference
    assert rows[0]["loss"] == pytest.approx(np.log(2), abs=1e-3)
    assert np.mean([row["rewards/accuracies"] for row in rows[-3:]]) > 0.8
    here = context(run)
    before, after = (margin_nats(here, phase, here.material.id_dev) for phase in ("sft-rpm", "dpo"))
    # on prompts that it was not trained on; beta 0.1 makes 3 nats a margin of 0.3
    assert after > before + 3.0, (before, after)
    assert lineage(run, "06-dpo").parent == lineage(run, "01-sft-rpm").sha256


def test_pairs_that_differ_too_little_end_in_a_clear_error(shared: Path, tmp_path: Path) -> None:
    from coevo.errors import ScoreError

    asked = recipe({"kind": "dpo", "margin_nats": 1e6, "prompts": 16, "group": 2})
    with pytest.raises(ScoreError, match=r"32 answers to 16 prompts give 0 pairs .*margin_nats=1e\+06.*samples\.jsonl"):
        branch(shared, tmp_path / "run", asked)


def test_augmentation_teaches_the_languages_that_the_samples_lack(tmp_path: Path) -> None:
    # at this rate, samples of one language alone unlearn the others
    tuned = TREE["rpm_sft"] | {"learning_rate": 4.5e-3, "epochs": 3}
    asked = recipe({"kind": "augmented_sft", "ways": ["translation"], "copies": 2}, rpm_sft=tuned)
    run = train(asked, tmp_path / "run", only=["01-sft-rpm", "05-augment", "06-sft-augmented"])
    copies = list(read_rows(run / "augmented.jsonl"))
    assert len(copies) == 192 and {row["subset_tag"] for row in copies} == set(world.LANGUAGE_OF_TAG)
    here = context(run)
    foreign = [x for x in world.generate("ShiftTrain", 96, seed=9) if x.shift == "user"]
    before, after = (share_right(here, phase, foreign) for phase in ("sft-rpm", "sft-augmented"))
    assert after > before + 0.1, (before, after)
    assert lineage(run, "06-sft-augmented").parent is None, "from the base, as the SFT it is compared with"


def test_a_named_model_writes_the_copies_of_a_file(tmp_path: Path) -> None:
    # the small base cannot rewrite anything: what it says is no copy worth having, but each is accounted for
    from coevo import cli

    file = tmp_path / "world.json"
    assert cli.main(["data", "world", "--out", str(file), "--train", "24", "--test", "1"]) == 0
    data = {"kind": "file", "path": str(file), "reference": "carry", "dev": 4}
    base = Path(__file__).resolve().parents[2] / "coevo" / "lm" / "builtin"
    method = {"kind": "augmented_sft", "model": str(base), "copies": 1}
    small = {"samples": 16, "batch_size": 16}
    asked = recipe(method, data=data, rpm_sft=small, scorer_sft=small)
    run = train(asked, tmp_path / "run", only=["01-sft-rpm", "05-augment", "06-sft-augmented"])
    facts = json.loads((run / "phases" / "05-augment" / "done.json").read_text())["facts"]
    assert facts["planned"] == 16 == facts["kept"] + sum(facts["left_out"].values())
    assert len(list(read_rows(run / "augmented.jsonl"))) == facts["kept"] > 0


def test_grpo_of_the_rpm_ends_in_the_table_of_every_method(shared: Path, tmp_path: Path) -> None:
    method = {"kind": "grpo", "steps": 2, "prompts": 2, "group": 4, "loss": "gspo", "save_steps": 1}
    run = branch(shared, tmp_path / "run", recipe(method), skip=())
    rows = [row for row in read_rows(run / "rollouts.jsonl") if row["phase"] == "05-grpo"]
    assert len(rows) == 16 and all("anchor_remi" in row["parts"] for row in rows if row["reward"] is not None)
    assert json.loads((run / "evaluation" / "final.json").read_text())["model"] == "rpm/05-grpo"
    # the reference answers of a method that trains nothing more are the SFT model's own
    plain = branch(run, tmp_path / "plain", recipe("sft"), skip=())
    for name in ("json", "jsonl"):
        texts = [(plain / "evaluation" / f"{when}.{name}").read_bytes() for when in ("sft", "final")]
        assert texts[0] == texts[1]


def test_ppo_of_the_rpm_is_paid_as_grpo_is_and_keeps_its_value_head(shared: Path, tmp_path: Path) -> None:
    method = {"kind": "ppo", "steps": 2, "prompts": 2, "group": 4, "epochs": 2, "save_steps": 1}
    run = branch(shared, tmp_path / "run", recipe(method))
    rows = [row for row in read_rows(run / "rollouts.jsonl") if row["phase"] == "05-ppo"]
    assert len(rows) == 16 and all("anchor_remi" in row["parts"] for row in rows if row["reward"] is not None)
    steps = [row for row in read_rows(run / "metrics.jsonl") if row["phase"] == "05-ppo"]
    # one row per step, whatever its updates
    assert [row["step"] for row in steps] == [1, 2] and all("value_loss" in row for row in steps)
    assert (run / "phases" / "05-ppo" / "policy" / "value_head.safetensors").is_file()
    assert lineage(run, "05-ppo").parent == lineage(run, "01-sft-rpm").sha256


def test_a_model_that_thinks_first_shows_its_response_alone(shared: Path, tmp_path: Path) -> None:
    # the words that the base can spell: an adapter leaves its output layer alone
    tune = {"batch_size": 16, "epochs": 6, "learning_rate": 5e-3}
    spelt = {"sections": ["topic"], "marks": ["", "…"], "distinct": 1, "tune": tune}
    asked = recipe({"kind": "think_grpo", "steps": 2, "prompts": 2, "group": 4, "save_steps": 1} | spelt)
    run = branch(shared, tmp_path / "run", asked)
    rows = [row for row in read_rows(run / "rollouts.jsonl") if row["phase"] == "06-think-grpo"]
    assert len(rows) == 16
    for row in rows:
        assert {"thought/structure", "thought/whole"} <= set(row["parts"])
        if row["reward"] is not None:
            parts = row["parts"]
            own = parts["anchor_remi"] + parts["likelihood"]
            paid = 4.0 * parts["thought/structure"] + parts.get("thought/economy", 0.0)
            assert row["reward"] == pytest.approx(own + paid, abs=1e-4)
    whole = [row for row in rows if row["parts"]["thought/whole"]]
    assert len(whole) >= 4, "the SFT has taught it to think"
    for row in whole:
        assert row["thought"].startswith("topic:") and "topic:" not in row["completion"] and "…\n" not in row["completion"]
    here = context(run)
    name = here.phase_name("think-grpo")
    answers = here.respond(here.load(name, trainable=False), "rpm/" + name, here.material.id_dev[:8])
    shown = [answer for answer in answers if answer.status == "ok"]
    assert shown and not any("topic:" in answer.text for answer in shown)


def test_the_loop_without_its_adversary_and_its_gates(shared: Path, tmp_path: Path) -> None:
    loop = {
        "iterations": 1,
        "harvest": 24,
        "shifts": ["german"],
        "frozen_simulator": True,
        "simulator": {"gates": [], "regret": 0.0},
        "rpm": {"steps": 1, "prompts": 4, "group": 2, "id_share": 0.0},
    }
    run = branch(shared, tmp_path / "run", recipe("coevolution", loop=loop))
    names = [path.name for path in sorted((run / "phases").iterdir())]
    assert names == ["01-sft-rpm", "02-sft-scorer", "04-sft-simulator", "06-harvest-1", "07-rpm-1", "08-accept-1"]
    pool = list(read_rows(run / "pool" / "iteration-1.jsonl"))
    assert pool and {row["origin"] for row in pool} == {"04-sft-simulator"}
    turns = [row for row in read_rows(run / "rollouts.jsonl") if row["role"] == "simulator"]
    assert len(turns) == 24 and all({k for k in row["parts"] if k.startswith("gate/")} == {"gate/shift"} for row in turns)
    # every turn that made a scenario whose regret could be scored is in the pool, and paid by the gate alone
    made = [row for row in turns if row["parts"]["gate/shift"] and "regret" in row["parts"]]
    assert len(made) == len(pool) and {row["reward"] for row in made} == {10.0}
