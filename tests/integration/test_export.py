"""An exported model gives the run's own likelihoods where others load it, and its card's code runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from coevo.errors import CheckpointError, ConfigError
from coevo.export.model import CLOSE_NATS, export, likelihood, source
from coevo.lm.likelihood import encode_pair
from coevo.loop.material import load_material
from tests.integration.conftest import SMOKE, environment
from tests.integration.conftest import coevo as command


@pytest.fixture(scope="module", params=["adapter", "full weights"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "run"
    weights = () if request.param == "adapter" else ("lora=null",)
    done = command("train", SMOKE, "method=sft", *weights, "--out", out)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


@pytest.mark.parametrize("merge", [False, True])
def test_others_load_what_was_trained(run: Path, merge: bool, tmp_path: Path) -> None:
    found = export(run, tmp_path / "mine", merge)
    assert found.compared == 8 and found.difference_nats is not None and found.difference_nats < CLOSE_NATS
    own = source(run)
    assert found.merged is (merge or not own.is_adapter)
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kind = AutoModelForCausalLM if found.merged else AutoPeftModelForCausalLM
    # the card names the dtype: the shipped base is stored in another one
    model = kind.from_pretrained(tmp_path / "mine", dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "mine")
    assert "dtype='float32'" in (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    x = load_material(own.recipe).tests[0]
    # the prompt by the plain template, as the card says, and the run's own model
    prompt, reference = encode_pair(own.policies.tokenizer, own.policies.prompt("rpm", x), x.reference)
    messages = own.policies.prompts.messages("rpm", x)
    plain = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert plain == prompt
    mine = likelihood(own.policies.load(own.phase, trainable=False), [*prompt, *reference], len(prompt))
    assert likelihood(model, [*prompt, *reference], len(prompt)) == pytest.approx(mine, abs=1e-3)
    assert not list(tmp_path.glob(".*")), "nothing is left beside it"


def test_the_cards_code_answers(run: Path, tmp_path: Path) -> None:
    export(run, tmp_path / "mine")
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.strip(), done.stderr[-2000:]
    assert "the very prompt that it was taught" in card and "R-EMID under other users | not measured" not in card
    # before is the SFT model, which a run of SFT alone evaluates once more after
    assert re.search(r"\| R-EMID under other users \| -?[\d.]+ \[", card)


def test_a_run_ends_with_its_final_model(run: Path, tmp_path: Path) -> None:
    text = (run / "final" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and done.stdout.strip(), done.stderr[-2000:]
    assert (run / "final" / "adapter_model.safetensors").is_file() is source(run).is_adapter


def test_what_differs_is_not_given_away(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coevo.export import model

    load = model._as_others_load

    def damaged(work: Path, *rest: object) -> object:
        file = next(work.glob("*.safetensors"))
        weights = load_file(file)
        name = next(name for name in weights if "q_proj" in name)
        weights[name] = weights[name] + torch.full_like(weights[name], 1.0)
        save_file(weights, file, {"format": "pt"})
        return load(work, *rest)

    monkeypatch.setattr(model, "_as_others_load", damaged)
    with pytest.raises(CheckpointError, match="differs from the run's by"):
        export(run, tmp_path / "mine")
    assert not list(tmp_path.iterdir())


def test_where_there_is_something_nothing_is_written(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty; expected a new folder"):
        export(run, tmp_path)
    with pytest.raises(CheckpointError):
        export(tmp_path, tmp_path / "new")
    done = command("export", run, "--to", tmp_path / "new", "--hub", "nobody")
    assert done.returncode == 2 and "expected OWNER/NAME" in done.stderr and not (tmp_path / "new").exists()
