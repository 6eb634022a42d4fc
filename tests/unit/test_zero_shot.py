"""A pretrained model as a scorer, as it is: in a recipe, and in place of a run for `coevo score`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from coevo.config import Recipe
from coevo.config.load import load_recipe
from coevo.data import world, write_rpgbench
from coevo.diagnosis.request import Question, prepare
from coevo.diagnosis.run import score
from coevo.diagnosis.scorers import load_scorer, unseen
from coevo.errors import CheckpointError, ConfigError
from coevo.lm.lineage import identity
from coevo.lm.loading import load_policy, load_tokenizer
from coevo.lm.small import train_tokenizer
from coevo.loop.context import Policies
from coevo.loop.run import train
from coevo.plan.plan import plan
from coevo.plan.zero_shot import is_model, zero_shot_recipe
from coevo.prompts import INSTRUCT
from coevo.runs.folder import RunFolder
from coevo.scoring.scorer import Ask, Scorer
from tests.compat.families import make_base

ROOT = Path(__file__).resolve().parents[2]
XS = world.generate("IDTest", 4, seed=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_base("llama", tmp_path_factory.mktemp("model"), max_position_embeddings=2048)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> Path:
    """A base whose tokenizer cuts text into many more tokens than the shipped one."""
    tokenizer = train_tokenizer(["Good evening, I am Ada. And who are you?"] * 10, 300)
    folder = make_base("qwen2", tmp_path_factory.mktemp("foreign"), vocab_size=len(tokenizer), max_position_embeddings=8192)
    tokenizer.save_pretrained(folder)
    return folder


def recipe(tmp_path: Path, text: str, *overrides: str) -> Recipe:
    (tmp_path / "recipe.yaml").write_text(f"name: x\n{text}", encoding="utf-8")
    return load_recipe(tmp_path / "recipe.yaml", overrides)


def test_a_kind_alone_is_short_for_its_block(tmp_path: Path) -> None:
    assert recipe(tmp_path, "scorer: zero_shot").scorer == recipe(tmp_path, "scorer: {kind: zero_shot}").scorer
    assert recipe(tmp_path, "scorer: zero_shot", "scorer.base=some/model").scorer.base == "some/model"
    assert recipe(tmp_path, "").scorer.kind == "tuned"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scorer: zeroshot", r"scorer\.kind: .*'tuned' or 'zero_shot'"),
        ("scorer: {base: some/model}", r"scorer: base='some/model' goes with kind zero_shot"),
        ("scorer: zero_shot\ncorl: {}", r"scorer\.kind is zero_shot and corl is set"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        recipe(tmp_path, text)


def test_no_scorer_is_trained(tmp_path: Path) -> None:
    kinds = [phase.name.split("-", 1)[1] for phase in plan(recipe(tmp_path, "scorer: zero_shot"))]
    assert "sft-scorer" not in kinds and "audit" in kinds
    # samples that only a tuned scorer would need are not asked for
    plan(recipe(tmp_path, "scorer: zero_shot\nscorer_sft: {batch_size: 9000}"))
    with pytest.raises(ConfigError, match="scorer_sft"):
        plan(recipe(tmp_path, "scorer_sft: {batch_size: 9000}"))


def test_a_folder_that_is_not_there_is_refused_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scorer\.base=\./nowhere: no such folder"):
        plan(recipe(tmp_path, "scorer: {kind: zero_shot, base: ./nowhere}"))


def test_a_model_is_told_from_a_run(model: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert not is_model(Path("runs/nmae")), "a misspelt run"
    assert is_model(model) and is_model(Path("org/name"))
    (tmp_path / "config.json").touch()
    (tmp_path / "resolved.yaml").touch()
    assert not is_model(tmp_path)
    assert not is_model(Path("nowhere")) and not is_model(tmp_path / "nowhere") and not is_model(Path("../name"))


def test_it_says_what_the_model_itself_says(model: Path, tmp_path: Path) -> None:
    scorer = Policies(zero_shot_recipe(model), RunFolder(tmp_path), []).zero_shot()
    by_hand = Scorer(
        load_policy(model, None, trainable=False, dtype="float32"), load_tokenizer(model), "", INSTRUCT, max_length=2048
    )
    asks = [Ask(x, x.reference) for x in XS] + [Ask(XS[0], XS[0].reference, ("u", "c", "d"))]
    found = [s.logprob_nats for s in scorer.score(asks)]
    assert found == pytest.approx([s.logprob_nats for s in by_hand.score(asks)], abs=1e-4)
    assert scorer.version == identity(model, model, INSTRUCT.stamp) and scorer.max_length == 2048
    assert load_scorer(model).version == scorer.version


def test_a_model_that_is_not_fit_is_refused(model: Path, tmp_path: Path) -> None:
    (model / "adapter_config.json").write_text("{}", encoding="utf-8")
    try:
        with pytest.raises(CheckpointError, match="adapter"):
            Policies(zero_shot_recipe(model), RunFolder(tmp_path), []).zero_shot()
    finally:
        (model / "adapter_config.json").unlink()


def test_a_recipe_audits_and_evaluates_by_a_model_with_another_tokenizer(foreign: Path, tmp_path: Path) -> None:
    small = load_recipe(
        ROOT / "recipes/smoke.yaml",
        ["scorer=zero_shot", f"scorer.base={foreign}", "audit.scenarios=2", "rpm_sft.samples=8", "data.test=1"],
    )
    phases = plan(small)
    wanted = phases[: next(at for at, phase in enumerate(phases) if phase.kind == "audit") + 1]
    train(small, tmp_path / "run", resume=False, only=[phase.name for phase in wanted])
    audited = json.loads((tmp_path / "run/evaluation/audit.json").read_text())
    assert audited["scorer"] == identity(foreign, foreign) and audited["n"] == 2 and not audited["unscored"]
    assert unseen(tmp_path / "run", _data(tmp_path)), "it was trained on none of them"


def _data(folder: Path) -> Path:
    write_rpgbench(folder / "data.json", [*XS, *world.generate("OOD1Test", 10, seed=0)])
    return folder / "data.json"


def test_score_takes_a_model_in_place_of_a_run(model: Path, tmp_path: Path) -> None:
    data = _data(tmp_path)
    rows = [{"sample_ID": x.sample_id, "response": x.reference, "model": "right"} for x in XS]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    request = prepare(Question(data, (tmp_path / "mine.jsonl",), model, tmp_path / "out", overrides=("k=2", "resamples=20")))
    result = json.loads((score(request) / "result.json").read_text())
    assert result["scorer"] == identity(model, model, INSTRUCT.stamp) and result["scorer_phase"] == "zero-shot"
    assert any(f"The scorer is {model} as it is" in note for note in result["notes"])
    assert not any("was trained" in note for note in result["notes"])


def test_a_path_that_is_neither_says_what_may_be_given(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no run: resolved\.yaml is missing.*or a pretrained model"):
        prepare(Question(tmp_path / "x", (), tmp_path / "nowhere", tmp_path / "out"))
