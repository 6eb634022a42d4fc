"""The page of a run: its first screen, what recurs among the worst answers, its rollouts, and its server."""

import json
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from coevo import cli
from coevo.report import build, headline
from coevo.report.charts import charts, library
from coevo.report.contexts import contexts, pool_table
from coevo.report.html import render
from coevo.report.read import read_run
from coevo.report.rollouts import embedded, script_json
from coevo.report.serve import FilePage, RunPage, Server
from coevo.report.worst import groups, unscored, writing
from tests.unit import test_report
from tests.unit.test_report import audited, rows, turns, write_audit, write_evaluation, write_lines, write_second

run = test_report.run
"""A finished run in which the shifted subsets gained 4 nats."""


# --- the first screen ---


def test_a_gain_is_said_with_what_was_lost_before_and_after(run):
    # ID loses 1 nat, the shifts 8 and more before and 4 and more after, with 100 scenarios and a deviation of 4
    before, change = headline.sentences(read_run(run))
    assert before == "Before and after, the model lost more than at home under shifted users, characters and dialogues."
    assert change == (
        "After training less is lost under shifted users, characters and dialogues. At home nothing moved beyond noise."
    )


def test_the_share_of_right_parts_is_said_in_percent_where_it_is_known(run):
    tiles = headline.tiles(read_run(run))
    assert [tile.place for tile in tiles] == ["at home", "shifted users", "shifted characters", "shifted dialogues"]
    after = read_run(run).after["shifts"]["user"]["share_right"]["value"]
    assert tiles[1].figures.endswith(f"→ {100 * after:.0f} %") and tiles[1].words == "right parts; less is lost"


def test_where_nobody_knows_what_is_right_the_figure_is_nats(run):
    nameless = [replace(row, share_right=float("nan")) for row in rows(0)]
    for name in ("sft", "final"):
        write_evaluation(run, name, nameless)
    found = read_run(run)
    remid = found.after["shifts"]["user"]["remid"]["value"]
    assert headline.tiles(found)[1].figures == f"{remid:.2f} → {remid:.2f}"
    assert "Right parts" not in headline.meaning(found) and "R-EMID" in headline.meaning(found)


def test_a_loss_at_home_is_said_beside_the_smaller_loss_under_shifts(run):
    worse = [replace(row, remi=row.remi - 5) if row.subset_tag == "IDTest" else row for row in rows(0)]
    write_evaluation(run, "final", worse)
    change = headline.sentences(read_run(run))[-1]
    assert change.endswith("At home the answers got worse, so a smaller loss under the shifts is no gain by itself.")


def test_too_few_scenarios_tell_nothing_and_the_next_step_is_more_of_them(run):
    for name, gain in (("sft", 0), ("final", 4)):
        write_evaluation(run, name, [row for row in rows(gain) if int(row.sample_id.split("-")[1]) < 2])
    (run / "resolved.yaml").write_text("name: small\ndata: {kind: world}\n", encoding="utf-8")
    found = read_run(run)
    costs, change = headline.sentences(found)
    assert "cannot be told (fewer than 6 responses with a score" in costs
    assert change.startswith("Whether anything changed, at home or under a shift, cannot be told (fewer than 6 scen")
    assert all(tile.words.endswith("change cannot be told") for tile in headline.tiles(found))
    more = next(step for step in headline.steps(found) if step.why.startswith("Measure on more"))
    assert "a subset has 2 with a score" in more.why and "data.test=50" in more.command


def test_what_contradicts_a_gain_is_a_reservation(run):
    # the gain in R-EMID stays, M falls by 6 nats everywhere
    write_evaluation(run, "final", [replace(row, register_gap=row.register_gap - 6) for row in rows(4)])
    assert "but not in every respect" in headline.sentences(read_run(run))[-1]
    assert headline.tiles(read_run(run))[1].words == "right parts; less is lost, with a reservation"


def test_that_no_shift_cost_anything_is_said_only_without_doubt(run):
    # the shifts lose as little as home does, each scenario the same, but for one subset
    even = [replace(row, remi=-1.0 + place % 5 / 10, register_gap=0.1) for place, row in enumerate(rows(0))]
    even = [replace(row, status="ok") for row in even]
    worse = [replace(row, remi=row.remi - 3) if row.subset_tag == "WordLevelComposition" else row for row in even]
    few = [row for row in even if row.subset_tag != "german" or int(row.sample_id.split("-")[1]) < 3]
    said = []
    for evaluated in (even, worse, few):
        write_evaluation(run, "sft", evaluated)
        write_evaluation(run, "final", evaluated)
        said.append(headline.sentences(read_run(run))[0])
    assert said[0] == "Before and after, no shift cost anything beyond noise."
    assert said[1] == "Before and after, the model lost more than at home under shifted dialogues."
    assert "cannot be told (fewer than 6 responses" in said[2]


def test_unfinished_runs_say_what_is_to_come(run):
    (run / "evaluation" / "final.json").unlink()
    (run / "evaluation" / "final.jsonl").unlink()
    found = read_run(run)
    assert headline.sentences(found)[-1] == headline.LATER
    assert headline.steps(found)[0].command == f"coevo train --resume {run}"
    write_evaluation(run, "final", rows(4), scorer="f" * 64)
    assert headline.sentences(read_run(run))[-1] == headline.OTHERWISE


def test_a_reward_that_is_gamed_or_fails_its_audit_is_said_on_the_first_screen(run):
    assert [(check.words, check.against) for check in headline.trust(read_run(run))] == [("The reward fails.", True)]
    write_second(run, "sft", rows(0))
    write_second(run, "final", rows(0))
    write_audit(run, audited(1.0))
    found = read_run(run)
    passes, gamed = headline.trust(found)
    assert passes.words.startswith("The reward passes: ") and not passes.against
    assert (
        gamed.words
        == "Drift: the scorer that rewards sees a gain that the second one does not, on user, character, dialogue."
    )
    assert gamed.against and gamed.words in render(found, {}).split("What to do next")[0]


# --- worst answers ---


def test_the_worst_answers_are_grouped_by_what_recurs(run):
    # every Japanese answer is the same bad text, every Korean one is in Latin letters, which the reference is not
    made = []
    for row in rows(0):
        if row.subset_tag == "japanese":
            row = replace(row, response="Yes, yes.", reference="はい", remi=row.remi - 100)
        elif row.subset_tag == "korean":
            row = replace(row, response=f"Hello {row.sample_id}", reference="안녕하세요", remi=row.remi - 50)
        else:
            row = replace(row, response=f"ref {row.sample_id}")
        made.append(row)
    write_evaluation(run, "final", made)
    found = read_run(run)
    first, second = groups(found, {})
    # 239 have a score, 23 of which are looked at: 20 Japanese, 3 Korean
    assert (first.title, len(first.cards)) == ("The same answer: “Yes, yes.”", 20)
    assert first.note == "20 of the 23 worst, 20 of all 239 with a score."
    assert (second.title, len(second.cards)) == ("Answers in Latin letters where the reference has Korean letters", 3)
    assert unscored(found) == "1 of 240 answers have no score and are not among these: truncated 1."


def test_a_subset_is_no_group_where_it_is_as_common_as_among_all(run):
    spread = [replace(row, response=f"text {row.sample_id}", remi=float(row.sample_id.split("-")[1])) for row in rows(0)]
    write_evaluation(run, "final", spread)
    assert [group.title for group in groups(read_run(run), {})] == ["They share no text, writing or subset"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("東京へ行きます", "Japanese kana"),
        ("我去北京", "Chinese characters"),
        ("Здравствуйте", "Cyrillic letters"),
        ("مرحبا", "Arabic letters"),
        ("नमस्ते", "Devanagari letters"),
        ("42!", ""),
    ],
)
def test_writing(text, name):
    assert writing(text) == name


# --- scenarios and rollouts ---


def test_a_rollout_has_its_scenario_only_if_its_prompt_is_made_of_it(run):
    scenario = {"sample_id": "s", "subset_tag": "german", "persona": "Ann", "character": {"name": "Ada"}, "reference": "Ja."}
    scenario["dialogue"] = [{"role": "user", "text": "Wer sind Sie?"}]
    write_lines(run / "pool" / "iteration-1.jsonl", [{"scenario": scenario}])
    rollout = {"phase": "7-rpm-1", "role": "rpm", "sample_id": "s#3", "completion": "Ada.", "parts": {"a": float("nan")}}
    prompts = ["Ann ... Wer sind Sie?", "Bob ... Wer sind Sie?"]
    write_lines(run / "rollouts.jsonl", [rollout | {"prompt": prompt} for prompt in prompts])
    found = read_run(run)
    made = embedded(found, contexts(found))
    first, second = (made["contexts"][row["context"]] for row in made["rows"])
    assert first == {
        "persona": "Ann",
        "character": "name: Ada",
        "dialogue": (("user", "Wer sind Sie?"),),
        "reference": "Ja.",
    }
    assert second == {"persona": "", "prompt": prompts[1]}
    assert made["rows"][0]["iteration"] == 1 and made["rows"][0]["parts"] == {"a": None}
    assert pool_table(found) == [["subset", "iteration 1"], ["german", "1"]]


def test_the_world_is_made_again_for_its_characters(run):
    from coevo.data import world

    (run / "resolved.yaml").write_text("name: w\ndata: {kind: world, train: 4, dev: 2, test: 1}\n", encoding="utf-8")
    known = contexts(read_run(run))
    first = world.generate("IDTrain", 6, seed=0)[5]
    assert known[first.sample_id].persona == first.persona
    assert f"name: {first.character['name']}" in known[first.sample_id].character
    assert "IDTest-00000" in known and "OOD1Test-00004" in known


def test_a_file_gives_its_characters_and_one_that_has_gone_none(run, tmp_path):
    from coevo.data import world, write_rpgbench

    file = tmp_path / "data.json"
    scenarios = world.generate("IDTest", 3, seed=0)
    write_rpgbench(file, scenarios)
    (run / "resolved.yaml").write_text(
        json.dumps({"name": "f", "data": {"kind": "file", "path": str(file)}}), encoding="utf-8"
    )
    assert contexts(read_run(run))["IDTest-00002"].reference == scenarios[2].reference
    for content in ("[]{", None):
        file.write_text(content, encoding="utf-8") if content else file.unlink()
        assert contexts(read_run(run)) == {}


def test_of_many_rollouts_every_phase_keeps_its_newest(run):
    write_lines(run / "rollouts.jsonl", [*turns(1, n=100), *turns(2, n=5), *turns(3, n=100)])
    made = embedded(read_run(run), {}, most=45)
    kept = {}
    for row in made["rows"]:
        kept.setdefault(row["iteration"], []).append(row["step"])
    # 5 of the small phase, and half of the other 40 for each of the large
    assert kept == {1: list(range(80, 100)), 2: list(range(5)), 3: list(range(80, 100))}
    assert made["left_out"] == 160


def test_json_in_a_script_block_stays_data():
    hostile = "</script><!-- & \u2028\u2029\x1b[2J\u202e \r"
    text = script_json({hostile: [hostile, ("\ud800", 1.5, None)]})
    assert not set("<>&\u2028\u2029\x1b\u202e\r\n") & set(text)
    shown = "</script><!-- & \\u2028\\u2029\\x1b[2J\\u202e \\x0d"
    assert json.loads(text) == {shown: [shown, ["?", 1.5, None]]}


# --- the page ---


def test_half_a_surrogate_pair_stops_no_page(run):
    line = json.dumps(turns(2, n=1, text="\ud800")[0])
    (run / "rollouts.jsonl").write_text(line + "\n", encoding="utf-8")
    assert "? 0" in build(run)[-1].read_text(encoding="utf-8")


def test_charts_hold_what_was_measured_and_the_page_the_library(run):
    made = charts(read_run(run))
    assert set(made) == {"top", "subsets", "learning", "rpm", "simulator"}
    values = made["top"][1]["spec"]["data"]["values"]
    after = read_run(run).after["shifts"]["user"]["remid"]
    assert {"place": "shifted users", "moment": "after", **{key: after[key] for key in ("value", "low", "high")}} in values
    assert "</script" not in library() and len(library()) > 500_000


def test_above_the_first_fold_there_are_no_private_words_and_no_long_figures(run):
    page = render(read_run(run), {})
    top = page[page.index('<section id="verdict">') : page.index("<details")]
    assert not any(word in top for word in ("estimator", "Estimator", "scorer 0", "seed", "register", "club", "<table"))
    assert "What to do next" in top and "R-EMID" in top


# --- coevo view ---


def served(page):
    server = Server(0, page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def asked(address, **headers):
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as answer:
        return answer.read().decode()


def test_the_server_shows_a_run_and_what_has_changed_since(run, monkeypatch):
    monkeypatch.setattr("coevo.report.serve.IDLE", 0)
    before = sorted(path.name for path in run.rglob("*"))
    with served(RunPage(run)) as server:
        page = asked(server.address)
        version = asked(f"{server.address}version")
        assert f'data-live="{version}"' in page and "less is lost" in page and "connect-src &#39;self&#39;" in page
        (run / "evaluation" / "final.json").unlink()
        (run / "evaluation" / "final.jsonl").unlink()
        assert asked(f"{server.address}version") != version
        assert headline.LATER in asked(server.address)
        # a line that is broken: the last whole page stays
        (run / "metrics.jsonl").write_text('{"phase": \n{}\n', encoding="utf-8")
        assert headline.LATER in asked(server.address)
        server.shutdown()
    assert len(before) - 2 == len(list(run.rglob("*")))


def test_a_run_that_cannot_be_read_is_named_on_the_page(run):
    (run / "metrics.jsonl").write_text('{"phase": \n{}\n', encoding="utf-8")
    with served(RunPage(run)) as server:
        assert "metrics.jsonl, line 1" in asked(server.address)
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "headers", "code"), [("x", {}, 404), ("../etc/passwd", {}, 404), ("", {"Host": "a.b"}, 403)]
)
def test_the_server_answers_nothing_else(tmp_path, path, headers, code):
    (tmp_path / "report.html").write_text("page", encoding="utf-8")
    with served(FilePage(tmp_path / "report.html")) as server:
        assert asked(server.address) == "page"
        with pytest.raises(urllib.error.HTTPError) as refused:
            asked(server.address + path, **headers)
        assert refused.value.code == code
        server.shutdown()


def test_a_page_is_not_made_all_the_time_while_a_run_writes():
    class Slow:
        made = 0

        def version(self):
            return str(time.monotonic())

        def html(self, version):
            time.sleep(0.1)
            self.made += 1
            return "page"

    slow = Slow()
    with Server(0, slow) as server:
        for _ in range(3):
            server.made()
    assert slow.made == 1


def test_view_refuses_what_it_cannot_show(tmp_path, capsys):
    assert cli.main(["view", str(tmp_path)]) == 2
    assert "holds no run and no page" in capsys.readouterr().err
    (tmp_path / "report.html").write_text("page", encoding="utf-8")
    assert cli.main(["view", str(tmp_path), "--port", "70000"]) == 2
    with Server(0, FilePage(tmp_path / "report.html")) as other:
        assert cli.main(["view", str(tmp_path), "--port", str(other.server_port)]) == 2
    assert "cannot listen there" in capsys.readouterr().err


def test_ctrl_c_ends_view_with_130(run, capsys, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Server, "serve_forever", interrupted)
    assert cli.main(["view", str(run), "--port", "0"]) == 130
    assert "http://127.0.0.1:" in capsys.readouterr().out
