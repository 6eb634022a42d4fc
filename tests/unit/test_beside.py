"""Parts of a reward beside the scorer's own: a judge's rubric and a reward model, weighed, audited, kept and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from coevo.config import RealText, RewardWeights
from coevo.config.load import load_recipe
from coevo.config.training import JudgePart, RewardModelPart
from coevo.data import BATTERIES, world
from coevo.errors import CheckpointError, ConfigError, ScoreError
from coevo.lm.likelihood import encode_pair, render
from coevo.lm.loading import load_tokenizer
from coevo.lm.reward_model import RewardModel
from coevo.loop.base import check_models
from coevo.loop.beside import judged, scored
from coevo.plan.plan import plan
from coevo.prompts import SHORT
from coevo.rewards.audit import audit
from coevo.rewards.beside import Beside
from coevo.rewards.parts import Fit, rpm_reward
from coevo.runs.record import part_hashes
from coevo.types import Score
from tests.helpers.judge_server import JudgeServer, dimensions_of, score_of
from tests.helpers.reward_model import make_reward_model

ROOT = Path(__file__).resolve().parents[2]
XS = world.generate("IDTest", 3, seed=0)
FIT, REFERENCE = Fit(-4.0, -9.0), Fit(-3.0, -9.0)


class Flat:
    version = "flat"

    def score(self, asks):
        return [Score(-1.0, 1) for _ in asks]


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory) -> Path:
    return make_reward_model(tmp_path_factory.mktemp("reward") / "model")


def edited(source: Path, folder: Path, tensors=lambda found: found, **config) -> Path:
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    save_file(tensors(load_file(source / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    written = json.loads((source / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(written | config))
    return folder


def part(server: JudgeServer, **keys) -> JudgePart:
    return JudgePart(rubric="paper", endpoint=server.url, model="m", key_env=None, **keys)


# --- a judge ----------------------------------------------------------------------------------------------------------


def test_a_judges_part_is_the_mean_share_of_its_scale(tmp_path: Path) -> None:
    with JudgeServer() as server:
        found = judged(part(server), tmp_path / "cache/judge.jsonl")(XS, [x.reference for x in XS])
        questions = [question for _, question in server.calls]
    # the paper's rubric has scores from 1 to 10
    expected = {
        sum(score_of(q, name, 1, 10) for name in dimensions_of(q)) / len(dimensions_of(q)) / 9 - 1 / 9 for q in questions
    }
    assert len(questions) == 3 and sorted(found) == pytest.approx(sorted(expected))
    assert all(0 <= number <= 1 for number in found)


def test_no_answer_is_paid_for_twice_and_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    texts = [x.reference for x in XS]
    unread = XS[0].reference
    with JudgeServer(
        lambda number, question: "wrong_schema" if unread in question.rsplit("reply]", 1)[1] else None
    ) as server:
        read = judged(part(server), tmp_path / "cache/judge.jsonl")
        first, calls = read(XS, texts), len(server.calls)
        again = judged(part(server), tmp_path / "cache/judge.jsonl")(XS, texts)
        assert len(server.calls) == calls == 2 + 3, "three attempts at the one that cannot be read"
    assert first == again and [number is None for number in first] == [text == unread for text in texts]


def test_the_audit_asks_the_judge(tmp_path: Path) -> None:
    with JudgeServer() as server:
        weights = RewardWeights(judge=part(server, weight=3.0))
        parts = Beside({}, {"judge": judged(weights.judge, tmp_path / "cache/judge.jsonl")})
        found = audit(
            Flat(),
            BATTERIES["world"](XS[:1], 0),
            weights,
            load_recipe(ROOT / "recipes/smoke.yaml").audit,
            0,
            None,
            None,
            parts,
        )
    assert found.weights["judge"] == 3.0 and "judge" in found.parts
    assert all(member.above["judge"].value == member.above["reward"].value for member in found.members.values())


# --- a reward model ---------------------------------------------------------------------------------------------------


def test_a_reward_models_part_is_its_output_whatever_stands_beside_it(reward_model: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(reward_model).eval()
    tokenizer = load_tokenizer(reward_model)
    texts = ["Yes.", "I am Ada, and the engine is mine.", "No"]
    found = scored(RewardModelPart(path=str(reward_model)), SHORT)(XS, texts)
    for x, text, number in zip(XS, texts, found, strict=True):
        prompt, response = encode_pair(tokenizer, render(tokenizer, SHORT.messages("rpm", x)), text)
        with torch.inference_mode():
            alone = model(input_ids=torch.tensor([[*prompt, *response]])).logits
        assert number == pytest.approx(float(alone[0, 0]), abs=1e-5)
    assert len(set(found)) == 3


def test_a_reward_model_without_a_chat_template_reads_question_and_answer(reward_model: Path, tmp_path: Path) -> None:
    plain = edited(reward_model, tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    settings = json.loads((plain / "tokenizer_config.json").read_text())
    (plain / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in settings.items() if k != "chat_template"}))
    model = RewardModel(plain)
    asked = [[{"role": "user", "content": text}] for text in ("Who?", "Where?")]
    assert model.score(asked, ["I.", "I."]) != model.score(asked[::-1], ["I.", "I."])


def test_an_answer_that_is_too_long_for_it_has_no_number(reward_model: Path, tmp_path: Path) -> None:
    short = RewardModel(edited(reward_model, tmp_path / "short", max_position_embeddings=40))
    asked = [[{"role": "user", "content": "Who?"}]] * 2
    found = short.score(asked, ["I.", "word " * 60])
    assert found[0] is not None and found[1] is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"tensors": lambda found: {k: v for k, v in found.items() if "score" not in k}}, r"no weights for score\.weight"),
        ({"tensors": lambda found: found | {"score.weight": torch.zeros(2, 32)}, "num_labels": 2}, "has 2 outputs"),
    ],
)
def test_what_is_no_reward_model_is_refused(reward_model: Path, tmp_path: Path, change, expected) -> None:
    with pytest.raises(CheckpointError, match=expected):
        RewardModel(edited(reward_model, tmp_path / "other", **change))
    with pytest.raises(CheckpointError, match="no weights found"):
        RewardModel(tmp_path)


def test_an_output_that_is_no_number_ends_the_phase(reward_model: Path, tmp_path: Path) -> None:
    nan = edited(reward_model, tmp_path / "nan", lambda found: found | {"score.weight": found["score.weight"] * torch.nan})
    with pytest.raises(
        ScoreError, match=r"nan: the reward model gives nan for the answer 'Yes\.'; expected a finite number"
    ):
        scored(RewardModelPart(path=str(nan)), SHORT)(XS[:1], ["Yes."])


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "no reward model can be loaded"),
        (
            lambda folder: [file.unlink() for file in folder.glob("tokenizer*")],
            "has no words|can be loaded",
        ),
        (
            lambda folder: (folder / "chat_template.jinja").write_text("{{ a"),
            r"the base's chat template is no Jinja text \(line 1",
        ),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "safetensors"),
    ],
)
def test_a_damaged_one_is_refused_by_the_dry_run(reward_model: Path, tmp_path: Path, damage, expected) -> None:
    folder = edited(reward_model, tmp_path / "model")
    overrides = [f"loop.rpm.weights.reward_model={{path: {folder}}}"]
    assert check_models(load_recipe(ROOT / "recipes/smoke.yaml", overrides), fetch=False) == []
    damage(folder)
    with pytest.raises((CheckpointError, ConfigError), match=expected):
        check_models(load_recipe(ROOT / "recipes/smoke.yaml", overrides), fetch=False)


# --- both -------------------------------------------------------------------------------------------------------------


def test_parts_are_weighed_and_logged_and_one_without_a_number_leaves_the_response_out() -> None:
    weights = RewardWeights(judge=JudgePart(weight=2.0, rubric="paper", endpoint="http://x", model="m"))
    parts = Beside({}, {"judge": lambda scenarios, texts: [0.5, None]})
    found = parts.worth([XS[0]] * 3, ["a", "b", "c"], [FIT, FIT, "empty"], [REFERENCE] * 3)
    assert found == [{"judge": 0.5}, "judge", {}], "of what the scorer cannot read nobody is asked"
    plain = rpm_reward(FIT, REFERENCE, 0.0, RewardWeights(), True)
    more = rpm_reward(FIT, REFERENCE, 0.0, weights, True, found[0])  # type: ignore[arg-type]
    assert more.total == (plain.total or 0.0) + 2.0 * 0.5 and more.parts["judge"] == 0.5


def test_r6_takes_them_too() -> None:
    weights = RealText(kind="real_text", reward_model=RewardModelPart(path="x", weight=0.5))
    assert weights.by_part["reward_model"] == 0.5 and "judge" not in weights.by_part and "functions" not in weights.by_part


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("judge={rubric: papr, endpoint: http://x, model: m, key_env: null}", r"weights\.judge: rubric papr.*'paper'"),
        (
            "judge={rubric: paper, endpoint: nowhere, model: m, key_env: null}",
            r"weights\.judge: endpoint nowhere: expected",
        ),
        (
            "judge={rubric: paper, endpoint: 'http://x/v1?api_key=sk-1', model: m, key_env: null}",
            r"weights\.judge: endpoint http://x/v1: expected",
        ),
        ("judge={rubric: paper, endpoint: http://x, model: m, api_key: k}", r"judge\.api_key: unknown key; .*key_env"),
        (
            "judge={rubric: paper, endpoint: http://x, model: m, key_env: COEVO_NO_KEY}",
            r"COEVO_NO_KEY is not set.*write key_env: null",
        ),
        ("reward_model={path: ./nowhere}", r"weights\.reward_model\.path=\./nowhere: no such folder"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_runs(override: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        plan(load_recipe(ROOT / "recipes/smoke.yaml", [f"loop.rpm.weights.{override}"]))


def test_a_run_knows_its_rubric_and_its_reward_model(reward_model: Path, tmp_path: Path) -> None:
    weights = RewardWeights(
        judge=JudgePart(rubric="paper", endpoint="http://x", model="m"),
        reward_model=RewardModelPart(path=str(reward_model)),
    )
    found = part_hashes(weights)
    other = edited(reward_model, tmp_path / "other", tensors=lambda found: {k: v + 1 for k, v in found.items()})
    assert set(found) == {"judge", "reward_model"}
    assert part_hashes(weights.model_copy(update={"reward_model": RewardModelPart(path=str(other))})) != found
