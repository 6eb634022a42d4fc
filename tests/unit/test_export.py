"""What `coevo export` writes: models of every sort that a run ends with, how they are asked, what a card says of them."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

import coevo
from coevo import cli
from coevo.config.load import parse_recipe
from coevo.data import world
from coevo.errors import ConfigError, EndpointError
from coevo.export import hub, model
from coevo.export.asking import DATE, TRIALS, Asking
from coevo.export.licence import UNKNOWN, licence
from coevo.lm.likelihood import render
from coevo.lm.lineage import settings_hash, weights_hash
from coevo.lm.loading import local_directory, save_policy
from coevo.lm.small import build_base
from coevo.loop.context import Policies
from coevo.plan.plan import plan
from coevo.prompts import character_text
from coevo.runs.folder import RunFolder
from coevo.text import normalised
from tests.unit import test_gate
from tests.unit.test_report import rows, write_evaluation

scores = test_gate.scores
"""A fixture."""

ROOT = Path(__file__).resolve().parents[2]
BUILTIN = Path(str(resources.files("coevo.lm") / "builtin"))
PADDING = 64
"""Rows of the embeddings without a token, as many a base has them."""
SHAPE = {"hidden": 64, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate": 128, "max_position": 1024}


def make_base(folder: Path, dtype: torch.dtype, template: str | None = None) -> Path:
    """A base as others publish them: tied and padded embeddings, sampling defaults, another end than the template's."""
    tokenizer = AutoTokenizer.from_pretrained(BUILTIN)
    built = build_base(tokenizer, SHAPE, seed=1)
    built.resize_token_embeddings(len(tokenizer) + PADDING)
    built.generation_config.update(eos_token_id=0, do_sample=True, temperature=0.7)
    built.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A base\n")
    return folder


def recipe_of(base: Mapping[str, Any] | None = None, **keys: Any) -> Any:
    smoke = yaml.safe_load((ROOT / "recipes" / "smoke.yaml").read_text())
    smoke |= {"method": "sft", **({"base": dict(base)} if base else {}), **keys}
    return parse_recipe(smoke, "smoke")


def make_run(folder: Path, recipe: Any) -> Path:
    """What is left of a run whose final model was drawn and not trained."""
    made, phases = RunFolder.create(folder, recipe), plan(recipe)
    policies = Policies(recipe, made, [phase.name for phase in phases])
    name = policies.final_rpm(phases)
    drawn: Any = policies.load(None, trainable=True)
    generator = torch.Generator().manual_seed(0)
    for weight in (weight for weight in drawn.parameters() if weight.requires_grad):
        weight.data += 0.02 * torch.randn(weight.shape, generator=generator)
    base = local_directory(policies.base)
    save_policy(
        drawn,
        made.policy(name),
        role="rpm",
        base_hash=weights_hash(base),
        parent_hash=None,
        phase=name,
        base_settings=settings_hash(base),
        prompts=recipe.reading,
    )
    made.finish(name, {})
    for evaluation in ("sft", "final"):
        write_evaluation(folder, evaluation, rows(0.0))
    return folder


KINDS: Mapping[str, Callable[[Path], Any]] = {
    "adapter": lambda tmp: recipe_of(),
    "full weights": lambda tmp: recipe_of(lora=None),
    "bfloat16": lambda tmp: recipe_of({"kind": "hub", "path": str(make_base(tmp / "base", torch.bfloat16))}),
    "bfloat16, full weights": lambda tmp: recipe_of(
        {"kind": "hub", "path": str(make_base(tmp / "base", torch.bfloat16))}, lora=None
    ),
    "thinking": lambda tmp: recipe_of(
        method="think_sft", limits={"prompt": 320, "response": 64, "turn": 48, "reasoning": 48}
    ),
}


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("run")
    return make_run(tmp / "mine", KINDS[request.param](tmp))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("adapter") / "mine", recipe_of())


# --- the models ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("merge", [False, True])
def test_plain_transformers_and_peft_load_the_run_s_own_model(run: Path, merge: bool, tmp_path: Path) -> None:
    found = model.export(run, tmp_path / "out", merge)
    own = model.source(run)
    assert found.merged is (merge or not own.is_adapter) and found.compared == model.COMPARED
    assert found.merged_nats is not None and found.merged_nats <= model.CLOSE_NATS
    expected = own.policies.load(own.phase, trainable=False)
    ids, start = model._texts(own)[0]
    limit = model.CLOSE_NATS * (len(ids) - start)
    base_rows = expected.get_input_embeddings().weight.shape[0]
    if found.merged:
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").eval()
        assert again.dtype == expected.dtype and again.get_input_embeddings().weight.shape[0] == base_rows
        assert again.get_input_embeddings().weight is again.get_output_embeddings().weight, "still tied"
        assert not list((tmp_path / "out").glob("adapter*"))
    else:
        from peft import PeftModel

        named = json.loads((tmp_path / "out" / "adapter_config.json").read_text())["base_model_name_or_path"]
        assert Path(named).is_absolute() and Path(named).is_dir()
        base = AutoModelForCausalLM.from_pretrained(named, dtype=expected.dtype)
        again = PeftModel.from_pretrained(base, tmp_path / "out").merge_and_unload().eval()
        assert not list((tmp_path / "out").glob("model*"))
    assert abs(model.likelihood(again, ids, start) - model.likelihood(expected, ids, start)) <= limit
    # all others may read what they are given
    assert all(file.stat().st_mode & 0o044 == 0o044 for file in (tmp_path / "out").iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing is left beside it"


def spoken(x: coevo.Scenario) -> list[dict[str, str]]:
    """A dialogue in the roles of chat templates."""
    return [{"role": {"user": "user", "agent": "assistant"}[turn.role], "content": turn.text} for turn in x.dialogue]


def prompt_of(asking: Asking, x: coevo.Scenario, tokenizer: Any) -> str:
    """By a card's own lines."""
    scope = {"persona": x.persona, "character": character_text(x.character), "dialogue": spoken(x), "tokenizer": tokenizer}
    lines = ["from jinja2.sandbox import ImmutableSandboxedEnvironment", asking.messages_code(), asking.prompt_code()]
    exec("\n".join(lines), scope)  # noqa: S102  # the card's lines are what is tested
    return str(scope["prompt"])


def printed(code: str, **scope: Any) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        exec(code, scope)  # noqa: S102
    return out.getvalue()


def asked(code: str, x: coevo.Scenario) -> str:
    """What a card's own lines print of a scenario."""
    both = (x.persona, character_text(x.character))
    code = re.sub(r"^persona, character = .*$", lambda _: f"persona, character = {both!r}", code, flags=re.M)
    code = re.sub(r"^dialogue = .*$", lambda _: f"dialogue = {spoken(x)!r}", code, flags=re.M)
    return normalised(printed(code))


def python_of(card: Path) -> str:
    (code,) = re.findall(r"```python\n(.*?)```", card.read_text(encoding="utf-8"), re.DOTALL)
    return str(code)


def test_the_card_s_lines_write_what_coevo_writes(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model.export(run, tmp_path / "out", merge=True)
    monkeypatch.chdir(tmp_path)
    code, own = python_of(tmp_path / "out" / "README.md"), model.source(run)
    asking = Asking.of(own.policies)
    x = world.generate("IDTest", 1, seed=0)[0]
    (answer,) = coevo.generate(run, [x], max_new_tokens=asking.max_new_tokens)
    # the base that is made here writes no words
    told = asked(code, x)
    assert told == answer.text and (told or own.policies.base != BUILTIN)


def test_a_card_asks_a_thinking_model_for_its_thought(tmp_path: Path) -> None:
    own = model.source(make_run(tmp_path / "mine", KINDS["thinking"](tmp_path)))
    x, asking = world.generate("IDTest", 1, seed=0)[0], Asking.of(own.policies)
    wanted = own.policies.prompt("thinker", x)
    assert prompt_of(asking, x, own.policies.tokenizer) == wanted != own.policies.prompt("rpm", x)
    # as coevo.scoring.thinking shows it: what follows the thought; of one that never ends nothing; all where there is none
    for text, shown in (("<think>\na\n</think>\nGood day.", "Good day."), ("<think>\na", ""), ("Good day.", "Good day.")):
        assert eval(asking.reply_code(), {"text": text}) == shown  # noqa: S307
    # 48 of the thought, 32 around it and 64 of the response, as the recipe's limits say
    assert asking.max_new_tokens == 48 + 32 + 64


def test_generation_ends_where_coevo_s_does(tmp_path: Path) -> None:
    base = {"kind": "hub", "path": str(make_base(tmp_path / "base", torch.float32))}
    run = make_run(tmp_path / "mine", recipe_of(base, evaluation={"k": 2, "resamples": 50, "repetition_penalty": 1.3}))
    for merge in (False, True):
        to = tmp_path / f"out{merge}"
        model.export(run, to, merge)
        settings = json.loads((to / "generation_config.json").read_text())
        # 0 is the base's own end, 1 the template's <|end|>; the base's sampling is not what was measured
        assert settings["eos_token_id"] == [0, 1] and settings["repetition_penalty"] == 1.3
        assert not settings["do_sample"] and "temperature" not in settings


# --- what is refused ----------------------------------------------------------------------------------------------------


def test_nan_is_no_likeness() -> None:
    """`max` of a list forgets a NaN that does not stand first."""
    texts = [([0, 1, 2], 1), ([0, 1, 2], 1)]
    fitted = iter([0.0, float("nan")])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "likelihood", lambda *_: next(fitted))
        with pytest.raises(coevo.CoevoError, match="differs from the run's by nan"):
            model._refuse_other(None, texts, [0.0, 0.0], 1e-3)


def test_an_adapter_in_half_precision_is_held_to_the_same_once_merged(tmp_path: Path) -> None:
    """0.05 nats are for rounding beside the base alone: another adapter that is as near must not pass for the run's."""
    run = make_run(tmp_path / "mine", KINDS["bfloat16"](tmp_path))
    found = model.export(run, tmp_path / "out")
    assert found.merged_nats == 0.0 and found.difference_nats is not None
    assert 0 < found.difference_nats < model.CLOSE_HALF_NATS and found.dtype == "bfloat16"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Loaded again in bfloat16, its log-likelihoods of 8 references" in card and "licence is: mit." in card
    load = model._as_others_load

    def shifted(*given: Any) -> Any:
        loaded = load(*given)
        for name, weight in loaded.named_parameters():
            if "lora_B" in name:
                weight.data *= 1.2
        return loaded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "_as_others_load", shifted)
        with pytest.raises(coevo.CoevoError, match=r"differs from the run's by .* Nothing was written"):
            model.export(run, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_a_user_has_there_stays(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(*_: Any) -> tuple[None, None]:
        # somebody writes into the folder while the model is compared
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "mine.txt").write_text("mine")
        return None, None

    monkeypatch.setattr(model, "_compared", late)
    with pytest.raises(ConfigError, match="is not empty; expected a new folder"):
        model.export(adapter, tmp_path / "out")
    assert (tmp_path / "out" / "mine.txt").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_an_interrupted_export_leaves_nothing(adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> Any:
        raise KeyboardInterrupt

    (tmp_path / "out").mkdir()
    monkeypatch.setattr(model, "_as_others_load", stopped)
    with pytest.raises(KeyboardInterrupt):
        model.export(adapter, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"] and not list((tmp_path / "out").iterdir())


def test_a_fault_of_the_program_is_no_missing_data(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: Any) -> Any:
        raise coevo.CoevoError("data.path=x: no such file")

    def broken(_: Any) -> Any:
        raise AttributeError

    monkeypatch.setattr(model, "load_material", gone)
    assert model._texts(model.source(adapter)) == []
    monkeypatch.setattr(model, "load_material", broken)
    with pytest.raises(AttributeError):
        model._texts(model.source(adapter))


def test_references_are_compared_of_every_sort() -> None:
    xs = [replace(TRIALS["question"], sample_id=str(n), subset_tag=tag) for n, tag in enumerate("aaabbc")]
    assert [x.sample_id for x in model._spread(xs)] == ["0", "3", "5", "1", "4", "2"]


# --- RUN/final ----------------------------------------------------------------------------------------------------------


def test_final_is_made_anew_and_changes_nothing_else(run: Path) -> None:
    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and "final" not in path.parts}

    before = files()
    model.write_final(run)
    (run / "final" / "stale.txt").write_text("of an earlier end")
    model.write_final(run)
    assert files() == before and not (run / "final" / "stale.txt").exists()
    own = model.source(run)
    kept = (run / "final" / "adapter_model.safetensors").is_file()
    assert kept is own.is_adapter and not list((run / "final").glob("model*"))
    text = (run / "final" / "README.md").read_text()
    assert str(own.folder.resolve()) in text or own.is_adapter
    for said in ("coevo chat", "coevo export", "coevo generate", own.phase):
        assert said in text


# --- how it is asked ----------------------------------------------------------------------------------------------------

TURNS = "{%- for m in messages -%}<|{{ {'assistant': 'agent'}.get(m.role, m.role) }}|>{{ m.content }}<|end|>{%- endfor -%}"
ASK = "{%- if add_generation_prompt -%}<|agent|>{%- endif -%}"
STRICT = (
    "{%- if messages[0].role == 'system' -%}{{ raise_exception('no system') }}{%- endif -%}"
    "{%- for m in messages -%}{%- if (m.role == 'user') != (loop.index0 % 2 == 0) -%}{{ raise_exception('turns') }}"
    "{%- endif -%}{%- endfor -%}"
)
SWITCHED = ASK.replace("<|agent|>", "<|agent|>{%- if enable_thinking -%}<think>{%- endif -%}")
DATED = (
    "{%- if not date_string is defined -%}{%- set date_string = strftime_now('%d %b %Y') -%}{%- endif -%}{{ date_string }}"
)
ALWAYS_DATED = "{{ strftime_now('%d %b %Y') }}"
TONE = "{{ tone }}"


@pytest.mark.parametrize(
    ("template", "given", "expected"),
    [
        (TURNS + ASK, {}, (False, {}, "")),
        # Gemma's sort: the system text stands before the user's first
        (STRICT + TURNS + ASK, {}, (True, {}, "")),
        # a thought is off unless it is asked for; a template whose default is off needs nothing
        (TURNS + SWITCHED, {}, (False, {}, "")),
        (TURNS + SWITCHED.replace("enable_thinking", "enable_thinking is undefined or enable_thinking"), {},
         (False, {"enable_thinking": False}, "")),
        # the run's own arguments
        (TONE + TURNS + ASK, {"tone": "warm"}, (False, {"tone": "warm"}, "")),
        # the day that coevo tells every template
        (DATED + TURNS + ASK, {}, (False, {"date_string": "26 Jul 2024"}, "")),
    ],
)  # fmt: skip
def test_others_can_make_the_very_prompt(
    template: str, given: dict[str, Any], expected: tuple[bool, dict[str, Any], str], tmp_path: Path
) -> None:
    base = {"kind": "hub", "path": str(make_base(tmp_path / "base", torch.float32, template)), "template": given}
    recipe = recipe_of(base)
    policies = Policies(recipe, RunFolder(tmp_path), [])
    asking = Asking.of(policies)
    assert (asking.in_user, dict(asking.arguments), asking.opening) == expected and not asking.differs
    for x in TRIALS.values():
        # by a tokenizer that coevo has not touched
        plain = AutoTokenizer.from_pretrained(tmp_path / "base")
        assert prompt_of(asking, x, plain) == render(policies.tokenizer, policies.prompts.messages("rpm", x))
    record = json.loads(asking.to_json())
    assert record["example"]["prompt"] == policies.prompt("rpm", TRIALS["question"]) and record["differs"] is None


def test_a_date_that_nobody_can_set_is_told(tmp_path: Path) -> None:
    """coevo shows every template one day, in this process to plain calls as well: likeness here would prove nothing."""
    base = {"kind": "hub", "path": str(make_base(tmp_path / "base", torch.float32, ALWAYS_DATED + TURNS + ASK))}
    asking = Asking.of(Policies(recipe_of(base), RunFolder(tmp_path), []))
    assert DATE == "26 Jul 2024" and DATE in asking.example
    assert "today's date" in asking.differs and "date_string" not in asking.arguments


# --- the card -----------------------------------------------------------------------------------------------------------


def test_a_card_says_what_was_measured_and_where_it_is_from(adapter: Path, tmp_path: Path) -> None:
    model.export(adapter, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    own = model.source(adapter)
    after = json.loads((adapter / "evaluation" / "final.json").read_text())["shifts"]
    user = after["user"]["remid"]
    cell = f"{user['value']:.2f} [{user['low']:.2f}, {user['high']:.2f}]"
    assert f"| R-EMID under other users | {cell} | {cell} |" in card
    assert weights_hash(own.folder)[:16] in card and weights_hash(BUILTIN)[:16] in card
    assert "method `sft`" in card and "`smoke`" in card and "coevo 0." in card and "synthetic world" in card
    # the hub refuses a base that is a folder
    assert "base_model" not in yaml.safe_load(card.split("---")[1])
    (adapter / "evaluation" / "sft.json").rename(tmp_path / "sft.json")
    model.export(adapter, tmp_path / "again")
    assert f"| not measured | {cell} |" in (tmp_path / "again" / "README.md").read_text()
    (tmp_path / "sft.json").rename(adapter / "evaluation" / "sft.json")


def test_texts_of_a_base_s_card_are_text(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: '<b>x</b>'\n---\n")
    assert licence(str(tmp_path)) == "other, <b>x</b>"
    for damaged in ("---\n- a\n---\n", "---\nlicense: [\n---\n", "no head", "---\nlicense:\n---\n"):
        (tmp_path / "README.md").write_text(damaged)
        assert licence(str(tmp_path)) == UNKNOWN
    (tmp_path / "LICENSE").write_text("Apache")
    assert licence(str(tmp_path)) == "in its file LICENSE"
    assert licence("no/such-model") == UNKNOWN


# --- the hub ------------------------------------------------------------------------------------------------------------


class Hub:
    """The hub as far as an upload goes."""

    private = True
    fault: Exception | None = None
    sent: Mapping[str, Any] | None = None

    def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
        assert private and exist_ok

    def model_info(self, name: str) -> Any:
        return type("Info", (), {"private": self.private})()

    def upload_folder(self, repo_id: str, folder_path: Path) -> str:
        if self.fault:
            raise self.fault
        Hub.sent = {"name": repo_id, "files": sorted(file.name for file in folder_path.iterdir())}
        return f"https://hub/{repo_id}"


def test_uploads_are_private(adapter: Path, tmp_path: Path, monkeypatch: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*words: str) -> tuple[int, str]:
        code = cli.main(["export", str(adapter), "--to", str(tmp_path / "out"), "--hub", *words])
        shown = capsys.readouterr()
        return code, shown.out + shown.err

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    code, said = call("me/mine", "--merge")
    assert code == 2 and "log in with: hf auth login" in said and not (tmp_path / "out").exists()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_x")
    for name in ("mine", "me/my model", "a/b/c", "/"):
        code, said = call(name, "--merge")
        assert code == 2 and "expected OWNER/NAME" in said and not (tmp_path / "out").exists()
    # an adapter on a folder of this machine is of no use to others
    code, said = call("me/mine")
    assert code == 2 and "with --merge" in said and not (tmp_path / "out").exists()
    code, said = call("me/mine", "--merge")
    assert code == 0 and "https://hub/me/mine" in said and Hub.sent is not None and Hub.sent["name"] == "me/mine"
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(Hub.sent["files"])


def test_a_hub_that_fails_leaves_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    Hub.sent = None
    # httpx's own errors are none of the system's
    monkeypatch.setattr(Hub, "fault", type("ConnectError", (Exception,), {})("no route"))
    with pytest.raises(EndpointError, match=r"did not take it \(ConnectError: no route\); the folder .* is whole"):
        hub.upload(tmp_path, "me/mine")
    monkeypatch.setattr(Hub, "fault", None)
    monkeypatch.setattr(Hub, "private", False)
    with pytest.raises(EndpointError, match="is there and is public"):
        hub.upload(tmp_path, "me/mine")
    assert Hub.sent is None


# --- docs/export.md -----------------------------------------------------------------------------------------------------

NOT_RUN = ("--hub",)
"""Commands that need an account; what they do is tested above on a hub of this file's."""


def test_every_command_of_the_page_runs(
    adapter: Path, scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    blocks = re.findall(r"(<!-- run by: .*? -->\n)?```bash\n(.*?)```", text, re.DOTALL)
    lines = [line for run_elsewhere, block in blocks if not run_elsewhere for line in block.splitlines()]
    (tmp_path / "runs").mkdir()
    (tmp_path / "scores").mkdir()
    (tmp_path / "runs" / "mine").symlink_to(adapter)
    record = json.loads((scores / "result.json").read_text())
    record["models"] = {"mine": record["models"]["right"]}
    (tmp_path / "scores" / "mine").mkdir()
    (tmp_path / "scores" / "mine" / "result.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    seen = []
    for place, line in enumerate(line for line in lines if not any(word in line for word in NOT_RUN)):
        program, command, *words = shlex.split(line, comments=True)
        assert program == "coevo"
        code = cli.main([command, *(f"{word}-{place}" if word.startswith("exported/") else word for word in words)])
        said = capsys.readouterr()
        # what a gate finds is tests/unit/test_gate.py's; here the call must be a right one
        assert code == 0 if command == "export" else code in (0, 1) and "gate " in said.out + said.err, line
        seen.append(command)
    assert seen.count("export") >= 2 and seen.count("gate") >= 3
    assert (tmp_path / "gate.xml").is_file()
