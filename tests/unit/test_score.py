"""`coevo score` from end to end on the built-in base, its resumption, and what it refuses."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from coevo import cli
from coevo.cli.progress import ConsoleProgress
from coevo.config.load import load_recipe
from coevo.data import world, write_rpgbench
from coevo.diagnosis import report
from coevo.diagnosis import run as module
from coevo.diagnosis.request import Question, prepare, stages
from coevo.diagnosis.store import Store
from coevo.diagnosis.tables import markdown
from coevo.errors import CheckpointError, ConfigError, DataError, ScoreError
from coevo.files import content_key, locked
from coevo.lm.loading import load_base, new_adapter, save_policy
from coevo.loop.context import LoRASeeded, Policies, seed_of
from coevo.loop.estimator import reasoner
from coevo.runs.folder import RunFolder
from coevo.scoring.evaluate import measure
from coevo.scoring.reasoner import ReasonedScorer, Reasoner, scenario_key
from coevo.scoring.scorer import Scorer
from coevo.types import Reasoning, Response
from tests.helpers.hostile import assert_harmless, planted

ROOT = Path(__file__).resolve().parents[2]
EVIL = '=x<script>alert("1")</script>|`*'
"""A model's name that means something to a browser, a spreadsheet and Markdown."""


@pytest.fixture(scope="module", autouse=True)
def few_permutations():
    """The divergences themselves do not depend on their number."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PERMUTATIONS", 19)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder whose scorer is an adapter as training begins with."""
    root = tmp_path_factory.mktemp("run") / "run"
    recipe = load_recipe(ROOT / "recipes" / "smoke.yaml", ["limits.tokens_per_batch=4096"])
    folder = RunFolder.create(root, recipe)
    name = "02-sft-scorer"
    policies = Policies(recipe, folder, [name])
    model = new_adapter(load_base(policies.base, dtype="float32"), LoRASeeded(4, 8, 0.0, seed=1))
    save_policy(model, folder.policy(name), role="scorer", base_hash=policies.base_hash, parent_hash=None, phase=name)
    folder.finish(name, {})
    return root


def of_subsets(scenarios, n):
    """The first n scenarios of ID, German and Theater, as a data file holds them."""
    kept = {"IDTest": [], "german": [], "Theater": []}
    for x in scenarios:
        if len(kept.get(x.subset_tag, [0] * n)) < n:
            kept[x.subset_tag].append(x)
    return [x for members in kept.values() for x in members]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three subsets of three scenarios, and two of IDTrain that nobody answers."""
    made = [x for split in ("IDTest", "OOD1Test", "OOD2Test") for x in world.generate(split, 30, seed=0)]
    path = tmp_path_factory.mktemp("data") / "world.json"
    write_rpgbench(path, [*world.generate("IDTrain", 2, seed=0), *of_subsets(made, 3)])
    return path, of_subsets(made, 3)


def answers(scenarios, model, wrong=(), lacking=()):
    """References; where the tag is in `wrong`, another scenario's with a word that makes the text a new one."""
    other = {x.sample_id: f"{scenarios[i - 1].reference} {i}" for i, x in enumerate(scenarios)}
    return [
        {"sample_ID": x.sample_id, "response": other[x.sample_id] if x.subset_tag in wrong else x.reference, "model": model}
        for x in scenarios
        if x.sample_id not in lacking
    ]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def finished(run, data, tmp_path_factory):
    """A diagnosis of a right model and of one that errs in German and left one scenario out, by the command line."""
    path, scenarios = data
    folder = tmp_path_factory.mktemp("score")
    rows = [*answers(scenarios, "right"), *answers(scenarios, EVIL, {"german"}, {scenarios[0].sample_id})]
    file = write(folder / "responses.jsonl", rows)
    command = ["score", "--data", str(path), "--scorer", str(run), "--out", str(folder / "out"), "--responses", str(file)]
    # a key=value may stand after the list of files
    assert cli.main([*command, "k=2", "resamples=100"]) == 0
    return folder / "out"


def test_what_the_scorer_does_not_read_is_said():
    read, unread = {"value": 2.0, "low": 1.0, "high": 3.0}, {"value": -0.03, "low": -0.1, "high": 0.04}
    assert module.unread({"u": read, "c": read, "d": read}, "sum") == []
    (note,) = module.unread({"u": read, "c": unread, "d": read}, "sum")
    assert "character (R-EMI_c): -0.03 [-0.10, 0.04] nats" in note and "R-EMI_u" not in note


def test_every_file_is_there_and_the_report_says_what_happened(finished, data):
    _, scenarios = data
    result = json.loads((finished / "result.json").read_text())
    names = {"result.json", "rows.jsonl", "result.md", "result.csv", "report.html", "request.json", "cache", ".lock"}
    assert {path.name for path in finished.iterdir()} == names | set(report.CAPTIONS)
    assert list(result["models"]) == ["right", EVIL]
    right, wrong = result["models"].values()
    for tag in ("IDTest", "german", "Theater"):
        assert right["subsets"][tag]["remi"]["value"] == 0, "the references themselves"
        assert right["subsets"][tag]["n_negatives"] == [2, 2]
    assert wrong["subsets"]["german"]["remid"]["value"] > 5 and wrong["hurts_most"]["shift"] == "user"
    assert wrong["unscored"] == {"missing": [scenarios[0].sample_id]}
    assert any("did not answer 1 of 9 scenarios" in note and scenarios[0].sample_id in note for note in result["notes"])
    assert "Splits of the data without any response, left out: IDTrain (2)." in result["notes"]
    assert (result["estimator"], result["k"], result["negatives"], result["scale"]) == ("club", 2, "pool", "sum")
    # the base has learnt to read the dialogue
    assert list(result["references_use"]) == ["u", "c", "d"] and result["references_use"]["d"]["low"] > 0
    # responses that are the references are no distance from them, and the index then has the components' shares alone
    assert right["subsets"]["german"]["gap"]["raw"] == pytest.approx(0, abs=1e-9)
    bound = right["subsets"]["german"]["bound"]
    assert bound["response"] == 0 and bound["value"] == pytest.approx(sum(bound["shares"].values()))
    apart = {tag: found["d"]["raw"] for tag, found in result["divergences"].items()}
    assert apart["german"] > apart["Theater"] > 0, "German dialogues lie farther from the English ones"


def test_the_numbers_are_those_of_measure(finished, run, data):
    _, scenarios = data
    recipe = load_recipe(run / "resolved.yaml", ["evaluation.k=2", "evaluation.resamples=100"])
    scorer = Policies(recipe, RunFolder(run), ["02-sft-scorer"]).scorer("02-sft-scorer")
    responses = [Response(x["sample_ID"], x["response"], EVIL) for x in answers(scenarios, EVIL, {"german"})]
    responses[0] = Response(scenarios[0].sample_id, "", EVIL, "missing")
    expected = measure(scorer, scenarios, responses, recipe.evaluation, seed_of(recipe.seed, "evaluation")).summary
    found = json.loads((finished / "result.json").read_text())["models"][EVIL]
    for tag, entry in expected["subsets"].items():
        for name in ("remi", "register_gap", "likelihood_gap"):
            # batches are cut otherwise, so sums round otherwise
            assert found["subsets"][tag][name] == pytest.approx(entry[name], abs=1e-4)


class Tags(HTMLParser):
    """Every tag and attribute of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.names = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.names += [name for name, _ in attrs]


def test_hostile_names_are_text_in_every_file(finished, tmp_path, capsys):
    result = json.loads((finished / "result.json").read_text())
    result["notes"] = ["german"]
    (tmp_path / "result.json").write_text(json.dumps(planted(result, EVIL, "german", "smoke", "sft-scorer")))
    assert cli.main(["report", str(tmp_path)]) == 0
    assert_harmless(tmp_path, capsys.readouterr().out)


def test_hostile_text_stays_text(finished):
    page = (finished / "report.html").read_text()
    parsed = Tags(page)
    assert "script" not in parsed.tags and not any(name.startswith("on") for name in parsed.names)
    assert "&lt;script&gt;" in page and page.count("data:image/png;base64,") == 4
    with (finished / "result.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    # 3 shifts and 3 subsets of two models
    assert len(table) == 12 and {row["model"] for row in table} == {"right", f"'{EVIL}"}
    german = next(row for row in table if row["name"] == "german" and row["model"] != "right")
    assert float(german["remid"]) > 5 and float(german["remid_low"]) <= float(german["remid"]) <= float(german["remid_high"])
    text = (finished / "result.md").read_text()
    assert "<script>" not in text
    rows = [line for line in text.splitlines() if line.startswith("| german |")]
    assert rows and all(line.replace("\\|", "").count("|") == rows[0].replace("\\|", "").count("|") for line in rows[:2])


def test_the_report_is_built_again_from_the_folder_alone(finished, capsys):
    before = {name: (finished / name).read_bytes() for name in ("result.md", "report.html", "remid.png")}
    for name in before:
        (finished / name).unlink()
    assert cli.main(["report", str(finished)]) == 0
    assert {name: (finished / name).read_bytes() for name in before} == before
    assert "The user shift may hurt: R-EMID" in capsys.readouterr().out


def ask(*where, **how):
    return prepare(Question(*where, **how))


def counted(monkeypatch, fail_after=None):
    """Counts the likelihoods that are computed; with `fail_after`, the call after that many fails."""
    asked = []
    original = Scorer.score

    def score(self, asks):
        if fail_after is not None and len(asked) >= fail_after:
            raise ScoreError("killed")
        asked.extend(asks)
        return original(self, asks)

    monkeypatch.setattr(Scorer, "score", score)
    return asked


def test_a_killed_diagnosis_goes_on_and_ends_the_same(run, data, tmp_path, monkeypatch):
    path, scenarios = data
    file = write(tmp_path / "r.jsonl", answers(scenarios[:6], "m", {"german"}))
    monkeypatch.setattr(module, "CHUNK", 16)

    def request(out):
        return ask(path, (file,), run, tmp_path / out, overrides=("k=1", "resamples=20", "negatives=pool"))

    whole = counted(monkeypatch)
    module.score(request("whole"))
    # IDTest and OOD1Test: 6 references, of which 3 are the responses too, and 3 other responses, each in its own context,
    # 1 other, and 3 that lack a component
    assert len(whole) == (6 + 3) * 5
    monkeypatch.undo()
    monkeypatch.setattr(module, "CHUNK", 16)
    counted(monkeypatch, fail_after=32)
    with pytest.raises(ScoreError, match="killed"):
        module.score(request("killed"))
    cache = tmp_path / "killed" / "cache" / "scores.jsonl"
    assert len(cache.read_text().splitlines()) == 32, "two chunks are on disk"
    with cache.open("a") as torn:
        torn.write('["0123", [-1.0, 2')
    monkeypatch.undo()
    monkeypatch.setattr(module, "CHUNK", 16)
    rest = counted(monkeypatch)
    module.score(request("killed"))
    assert len(rest) == len(whole) - 32
    for name in ("result.json", "rows.jsonl"):
        first, second = ((tmp_path / out / name).read_bytes() for out in ("whole", "killed"))
        assert first == second
    rest.clear()
    module.score(request("killed"))
    assert not rest, "a finished diagnosis is not computed again"


def test_damaged_embeddings_are_computed_again_and_a_folder_in_use_is_left_alone(run, data, tmp_path, capsys):
    path, scenarios = data
    out = tmp_path / "out"
    asked = ask(path, (write(tmp_path / "r.jsonl", answers(scenarios[:6], "m", {"german"})),), run, out, overrides=("k=1",))
    module.score(asked)
    before = (out / "result.json").read_bytes()
    files = sorted((out / "cache" / "embeddings").glob("*.npy"))
    contents = [file.read_bytes() for file in files]
    # a power cut, a cut at an array's own end, a flipped bit
    damages = [b"", contents[1][:-32], contents[2][:-40] + bytes([contents[2][-40] ^ 1]) + contents[2][-39:]]
    for file, content in zip(files, damages, strict=False):
        file.write_bytes(content)
    module.score(asked, ConsoleProgress(stages(asked)))
    told = capsys.readouterr().out
    assert all(f"{file}: cut short, changed" in told for file in files[:3]) and told.count("computed again") == 3
    assert (out / "result.json").read_bytes() == before and [file.read_bytes() for file in files] == contents
    with locked(out), pytest.raises(ConfigError, match=f"{out} is in use by another coevo \\(process"):
        module.score(asked)


def test_another_model_finds_the_references_scored(run, data, tmp_path, monkeypatch):
    path, scenarios = data
    first, second = answers(scenarios, "a"), answers(scenarios, "b", {"german"})
    options = {"overrides": ("k=1", "resamples=20")}
    file = write(tmp_path / "a.jsonl", first)
    module.score(ask(path, (file,), run, tmp_path / "out", **options))
    asked = counted(monkeypatch)
    both = (file, write(tmp_path / "b.jsonl", second))
    module.score(ask(path, both, run, tmp_path / "out", **options))
    # of b, only what it says otherwise: 3 German responses under own, 1 other and 3 incomplete contexts
    assert len(asked) == 3 * 5
    assert list(json.loads((tmp_path / "out" / "result.json").read_text())["models"]) == ["a", "b"]


def test_released_says_so_in_every_place(run, data, tmp_path):
    path, scenarios = data
    file = write(tmp_path / "r.jsonl", answers(scenarios, "m", {"german"}))
    out = tmp_path / "out"
    module.score(ask(path, (file,), run, out, overrides=("estimator=released", "resamples=20")))
    result = report.read_result(out)
    assert (result["estimator"], result["scale"], result["negatives"]) == ("released", "token_mean", "subset")
    # 3 scenarios have 6 pairs, fewer than 1,000, so each response has the 2 others
    assert result["models"]["m"]["subsets"]["german"]["n_negatives"] == [2, 2]
    assert any("for comparison with the paper's figures only" in note for note in result["notes"])
    shown = markdown(result)
    assert "nats per token" in shown and "1,000 a subset" in shown and "nats per response" not in shown


# --- with a reasoner ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reasoned(tmp_path_factory, data):
    """A run of CoRL with adapters as training begins with; its folder keeps the reasonings of all scenarios but the last."""
    root = tmp_path_factory.mktemp("reasoned") / "run"
    recipe = load_recipe(ROOT / "recipes" / "corl" / "smoke.yaml", ["corl.iterations=0"])
    folder = RunFolder.create(root, recipe)
    names = ["01-sft-reasoner", "02-sft-scorer"]
    policies = Policies(recipe, folder, names)
    for seed, name in enumerate(names):
        model = new_adapter(load_base(policies.base, dtype="float32"), LoRASeeded(4, 8, 0.0, seed))
        save_policy(model, folder.policy(name), role="", base_hash=policies.base_hash, parent_hash=None, phase=name)
        folder.finish(name, {})
    version = policies.version(names[0])
    kept = {scenario_key(x): Reasoning(f"topic: {x.query[:12]}") for x in data[1][:-1]}
    write_rows = "".join(json.dumps({"scenario": key, **asdict(one)}) + "\n" for key, one in kept.items())
    (root / "reasonings").mkdir()
    (root / "reasonings" / f"{version[:16]}.jsonl").write_text(write_rows)
    return root, kept


def test_a_scorer_of_corl_reads_each_scenario_with_its_reasoning(reasoned, data, tmp_path):
    (run, kept), (path, scenarios) = reasoned, data
    file = write(tmp_path / "r.jsonl", answers(scenarios, "m", {"german"}))
    out = tmp_path / "out"
    module.score(ask(path, (file,), run, out, overrides=("k=2", "resamples=20")))
    result = json.loads((out / "result.json").read_text())
    recipe = load_recipe(run / "resolved.yaml", ["evaluation.k=2", "evaluation.resamples=20"])
    policies = Policies(recipe, RunFolder(run), ["01-sft-reasoner", "02-sft-scorer"])
    writer = reasoner(policies, "01-sft-reasoner")
    scorer = ReasonedScorer(policies.scorer("02-sft-scorer"), writer)
    responses = [Response(x["sample_ID"], x["response"], "m") for x in answers(scenarios, "m", {"german"})]
    expected = measure(scorer, scenarios, responses, recipe.evaluation, seed_of(recipe.seed, "evaluation"))
    assert result["scorer"] == scorer.version and scorer.version.endswith(f"+{writer.version}")
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    for row, known in zip(rows, expected.rows, strict=True):
        assert row["status"] == known.status
        assert row["remi"] == pytest.approx(known.to_dict()["remi"], abs=1e-4)
    # a base that was never taught to writes no whole reasoning, so the last scenario has none: counted, and never 0 nats
    assert [row["status"] for row in rows] == ["ok"] * 8 + ["reasoning"] and rows[-1]["remi"] is None
    about = result["reasoner"]
    assert (about["run"], about["phase"], about["version"]) == (str(run), "sft-reasoner", writer.version)
    assert about["reasonings"]["ok"] == 8 and sum(about["reasonings"].values()) == 9
    assert any("1 of 9 scenarios have no whole reasoning" in note for note in result["notes"])
    assert result["asked"]["reasoner"] == str(run)
    assert f"reasoner {writer.version[:12]} of {run}, sft-reasoner" in markdown(result)
    # what the run kept is what was read here
    cached = [json.loads(line)[1][0] for line in (out / "cache" / "reasonings.jsonl").read_text().splitlines()]
    assert cached[:-1] == [one.text for one in kept.values()]


def test_a_diagnosis_killed_while_reasonings_are_written_goes_on_with_the_same(reasoned, data, tmp_path, monkeypatch):
    (kept_in, _), (path, scenarios) = reasoned, data
    run = tmp_path / "run"
    shutil.copytree(kept_in, run)
    shutil.rmtree(run / "reasonings")
    file = write(tmp_path / "r.jsonl", answers(scenarios, "m"))
    monkeypatch.setattr(module, "BATCH", 4)
    asked, fail = [], [True]
    original = Reasoner.write

    def written(self, xs):
        if fail[0] and len(asked) >= 4:
            raise ScoreError("killed")
        asked.extend(xs)
        return original(self, xs)

    monkeypatch.setattr(Reasoner, "write", written)
    request = ask(path, (file,), run, tmp_path / "out", overrides=("k=2", "resamples=20"))
    with pytest.raises(ScoreError, match="killed"):
        module.score(request)
    cache = tmp_path / "out" / "cache" / "reasonings.jsonl"
    before = cache.read_text()
    assert len(before.splitlines()) == 4, "one batch is on disk"
    fail[0] = False
    module.score(request)
    assert len(asked) == 9, "none is written twice"
    assert cache.read_text().startswith(before) and len(cache.read_text().splitlines()) == 9
    module.score(request)
    assert len(asked) == 9


def test_another_runs_reasoner_is_named_and_must_share_the_base(reasoned, data, tmp_path):
    (run, _), (path, scenarios) = reasoned, data
    other = tmp_path / "other"
    shutil.copytree(run, other)
    file = write(tmp_path / "r.jsonl", answers(scenarios, "m"))
    asked = {"reasoner": other, "overrides": ("k=2", "resamples=20")}
    module.score(ask(path, (file,), run, tmp_path / "out", **asked))
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["reasoner"]["run"] == str(other) and any(f"by {other}, sft-reasoner" in note for note in result["notes"])
    base = tmp_path / "base"
    shutil.copytree(resources.files("coevo.lm") / "builtin", base)
    weights = load_file(base / "model.safetensors")
    save_file({name: tensor + 1 for name, tensor in weights.items()}, base / "model.safetensors")
    resolved = other / "resolved.yaml"
    resolved.write_text(resolved.read_text().replace("path: builtin", f"path: {base}"))
    (other / "environment.json").unlink()  # which holds the recipe's hash
    with pytest.raises(CheckpointError, match=r"--reasoner .*other: its base is .*expected one base"):
        module.score(ask(path, (file,), run, tmp_path / "again", **asked))


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.fixture
def good(run, data, tmp_path):
    """Arguments that are right."""
    path, scenarios = data
    return {
        "data": path,
        "files": (write(tmp_path / "r.jsonl", answers(scenarios, "m")),),
        "scorer": run,
        "out": tmp_path / "out",
    }


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"overrides": ("kk=2",)}, ConfigError, r"'kk=2': expected key=value of the evaluation; did you mean 'k'\?"),
        ({"overrides": ("loop.iterations=2",)}, ConfigError, r"known keys: estimator, negatives, k, resamples"),
        ({"overrides": ("repetition_penalty=2",)}, ConfigError, r"expected key=value of the evaluation"),
        ({"overrides": ("k=-2",)}, ConfigError, r"evaluation\.k: .*greater than 0.*got -2"),
        ({"overrides": ("evaluation.estimator=klub",)}, ConfigError, r"evaluation\.estimator: .*got 'klub'"),
        ({"scorer": Path("gone")}, CheckpointError, r"--scorer gone holds no run: resolved\.yaml is missing"),
        ({"data": Path("gone.json")}, DataError, r"gone\.json"),
        ({"splits": ("OOD7Test",)}, DataError, r"has no split 'OOD7Test'"),
        ({"splits": ("IDTrain",)}, DataError, r"no response belongs to the split\(s\) IDTrain"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_written(change, error, message, good, tmp_path):
    with pytest.raises(error, match=message):
        ask(**(good | change))
    assert not (tmp_path / "out").exists()


def test_a_scorer_that_is_not_finished_or_was_changed_is_refused(good, run, tmp_path):
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "resolved.yaml").write_bytes((run / "resolved.yaml").read_bytes())
    with pytest.raises(CheckpointError, match=r"phase sft-scorer has not finished.*coevo train --resume .*unfinished"):
        ask(**(good | {"scorer": unfinished}))
    changed = tmp_path / "changed"
    for file in run.rglob("*"):
        if file.is_file():
            (changed / file.relative_to(run)).parent.mkdir(parents=True, exist_ok=True)
            (changed / file.relative_to(run)).write_bytes(file.read_bytes())
    config = next(changed.rglob("adapter_config.json"))
    config.write_text(config.read_text() + " ")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: changed since phase 02-sft-scorer finished"):
        module.score(ask(**(good | {"scorer": changed})))


def test_a_folder_that_is_not_ours_is_left_alone(good, tmp_path):
    taken, file = tmp_path / "taken", tmp_path / "file"
    taken.mkdir()
    (taken / "mine.txt").write_text("mine")
    file.write_text("mine")
    for out, message in ((taken, "no coevo score made it"), (file, "is a file"), (file / "out", "it is a file")):
        with pytest.raises(ConfigError, match=message):
            ask(**(good | {"out": out}))
    assert [path.name for path in taken.iterdir()] == ["mine.txt"] and file.read_text() == "mine"


def test_one_scenario_has_nothing_to_be_set_against(good, data, tmp_path):
    _, scenarios = data
    lone = tmp_path / "lone.json"
    write_rpgbench(lone, [scenarios[0], *scenarios[3:5]])
    file = write(tmp_path / "lone.jsonl", answers([scenarios[0], *scenarios[3:5]], "m"))
    asked = good | {"data": lone, "files": (file,)}
    with pytest.raises(DataError, match=r"IDTest has one scenario, and a contrast needs at least 2"):
        ask(**asked, overrides=("negatives=subset",))
    with pytest.raises(DataError, match="IDTest has one scenario"):
        ask(**asked, overrides=("estimator=released",))
    for fine in ("negatives=pool", "estimator=learned_marginal"):
        assert len(ask(**asked, overrides=(fine,)).answers.scenarios) == 3


def test_help_and_bad_input_answer_without_torch(good, tmp_path):
    bad = write(tmp_path / "bad.jsonl", [{"sample_ID": 3}])
    command = ["score", "--data", good["data"], "--scorer", good["scorer"], "--out", good["out"], "--responses", bad]
    script = (
        "import sys\nfrom coevo.cli import main\ntry:\n    code = main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    code = end.code\nheavy = {'torch', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    for arguments, code in ((["score", "--help"], 0), (command, 2)):
        done = subprocess.run(
            [sys.executable, "-c", script, *map(str, arguments)],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
    assert "3 problem(s) in the responses" in done.stderr and "bad.jsonl:1: field sample_ID: is 3" in done.stderr
    assert "Traceback" not in done.stderr and not good["out"].exists()


def test_wrong_usage_exits_2(capsys):
    for arguments in (["score"], ["score", "--data", "a", "--responses", "b"], ["score", "--dta", "x"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2 and "usage" in capsys.readouterr().err
    assert cli.main(["score", "--data", "a", "--responses", "k=3", "--scorer", "c"]) == 2
    assert "--responses: no file given" in capsys.readouterr().err


# --- the store ------------------------------------------------------------------------------------------------------


def test_the_store_keeps_rows_drops_a_torn_line_and_has_one_user(tmp_path):
    path = tmp_path / "cache" / "rows.jsonl"
    with Store(path) as store:
        store.add({"a": [1.5, None]})
        with pytest.raises(ConfigError, match="in use by another coevo"):
            Store(path)
    with path.open("ab") as file:
        file.write(b'["b", [2')
    with Store(path) as store:
        assert "a" in store and "b" not in store
        store.add({"c": "日本"})
    with Store(path) as store:
        assert store["a"] == [1.5, None] and store["c"] == "日本"
    path.write_bytes(b"garbage\n" + path.read_bytes())
    with pytest.raises(CheckpointError, match=r"rows\.jsonl:1: not a row of this cache"):
        Store(path)


@pytest.mark.parametrize("value", [3, None, [None, "4", "ok"], [-1.5, 4], [-1.5, 4, "fine"], [float("nan"), 4, "ok"]])
def test_the_store_names_a_value_of_another_shape(value, tmp_path):
    path = tmp_path / "cache" / "scores.jsonl"
    with Store(path, module.SCORE_ROW) as store:
        store.add({"a": [-1.5, 4, "ok"], "b": [None, 0, "too_long"]})
    path.write_text(path.read_text() + json.dumps(["c", value]) + "\n")
    with pytest.raises(CheckpointError, match=r"scores\.jsonl:3: not a row of this cache"):
        Store(path, module.SCORE_ROW)


def test_a_key_is_of_the_content():
    assert content_key("a", [1, {"x": 2, "y": 3}]) == content_key("a", [1, {"y": 3, "x": 2}])
    keys = {content_key(*parts) for parts in (("a", "b"), ("ab",), ("a", ["b"]), ("a", None, "b"))}
    assert len(keys) == 4
