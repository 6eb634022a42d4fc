"""A base is its weights, its tokenizer, its chat template and its configuration: one edited is another base."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path

import pytest

from coevo.config.load import load_recipe
from coevo.data import world, write_rpgbench
from coevo.diagnosis import run as module
from coevo.diagnosis.request import Question, prepare
from coevo.errors import CheckpointError
from coevo.judge.local import Local
from coevo.lm.lineage import LINEAGE_FILE, identity, read_lineage, settings_hash, weights_hash
from coevo.lm.loading import load_base, load_policy, new_adapter, save_policy
from coevo.loop.base import remember_base
from coevo.loop.context import LoRASeeded, Policies
from coevo.runs.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
SCORER = "02-sft-scorer"


def new_template(base):
    file = base / "chat_template.jinja"
    file.write_text(file.read_text().replace("message.content + '<|end|>'", "message.content + ' <|end|>'"))


def new_tokenizer(base):
    file = base / "tokenizer.json"
    tree = json.loads(file.read_text(encoding="utf-8"))
    tree["model"]["merges"] = tree["model"]["merges"][:-500]
    file.write_text(json.dumps(tree), encoding="utf-8")


def new_configuration(base):
    file = base / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rms_norm_eps": 1e-2}))


EDITS = [new_template, new_tokenizer, new_configuration]


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(resources.files("coevo.lm") / "builtin", folder)
    return folder


@pytest.fixture
def run(base, tmp_path):
    """A run folder with a finished scorer on a base of its own."""
    recipe = load_recipe(ROOT / "recipes" / "smoke.yaml", [f"base.path={base}", "evaluation.k=1", "evaluation.resamples=20"])
    folder = RunFolder.create(tmp_path / "run", recipe)
    policies = Policies(recipe, folder, [SCORER])
    model = new_adapter(load_base(base, dtype="float32"), LoRASeeded(4, 8, 0.0, seed=1))
    hashes = {"base_hash": policies.base_hash, "base_settings": settings_hash(base), "parent_hash": None}
    save_policy(model, folder.policy(SCORER), role="scorer", phase=SCORER, **hashes)
    folder.finish(SCORER, {})
    return policies


@pytest.mark.parametrize("edit", EDITS)
def test_each_file_belongs_to_the_identity_and_weights_alone_do_not_make_it(edit, base):
    before, weights = identity(base, base), weights_hash(base)
    judge = Local(str(base), 16, 0.0, 0).identity
    (base / "README.md").write_text("A file that no number depends on.")
    assert identity(base, base) == before
    edit(base)
    assert identity(base, base) != before and weights_hash(base) == weights
    assert Local(str(base), 16, 0.0, 0).identity != judge


def test_a_policy_is_refused_on_its_base_once_that_is_edited(base, run):
    policy, version = run.folder.policy(SCORER), run.version(SCORER)
    assert read_lineage(policy).settings == settings_hash(base)
    new_template(base)
    with pytest.raises(CheckpointError, match=r"tokenizer or chat template has been edited since.*Restore the file"):
        load_policy(base, policy, trainable=False)
    assert run.version(SCORER) != version


def test_a_lineage_that_names_no_settings_is_read_as_before(base, run):
    policy = run.folder.policy(SCORER)
    record = json.loads((policy / LINEAGE_FILE).read_text())
    del record["settings"]
    (policy / LINEAGE_FILE).write_text(json.dumps(record))
    assert read_lineage(policy).settings is None
    load_policy(base, policy, trainable=False)


def test_a_folder_of_scores_never_mixes_two_bases(base, run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PERMUTATIONS", 3)
    # of a run that an earlier version made: its lineage does not say what the base was
    policy = run.folder.policy(SCORER)
    record = json.loads((policy / LINEAGE_FILE).read_text())
    (policy / LINEAGE_FILE).write_text(json.dumps({name: value for name, value in record.items() if name != "settings"}))
    run.folder.finish(SCORER, {})
    scenarios = world.generate("IDTest", 2, seed=0)
    write_rpgbench(tmp_path / "data.json", scenarios)
    rows = [{"sample_ID": x.sample_id, "response": f"No. {x.reference}", "model": "m"} for x in scenarios]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def scored(out):
        request = prepare(Question(tmp_path / "data.json", (tmp_path / "r.jsonl",), run.folder.root, tmp_path / out))
        module.score(request)
        result = json.loads((tmp_path / out / "result.json").read_text())
        return result["scorer"], result["base_settings"], (tmp_path / out / "rows.jsonl").read_text()

    first = scored("out")
    new_template(base)
    again, fresh = scored("out"), scored("fresh")
    assert again == fresh, "what another template gave is computed anew"
    assert all(old != new for old, new in zip(first, again, strict=True))


def test_a_run_is_resumed_on_the_base_that_it_was_begun_on(base, run):
    remember_base(run.folder, run.recipe)
    remember_base(run.folder, run.recipe)
    new_template(base)
    with pytest.raises(CheckpointError, match=r"not the one that the run was begun on \(base\.json\): its configuration"):
        remember_base(run.folder, run.recipe)
    (run.folder.root / "base.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"base\.json: damaged"):
        remember_base(run.folder, run.recipe)
