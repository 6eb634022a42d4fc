"""Reasonings: what is one, what the world and files say, and where cold starts take theirs from."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from coevo.config import Recipe
from coevo.data import FileShifts, WorldShifts, read_rpgbench, thoughts, world, write_rpgbench
from coevo.errors import ConfigError, DataError
from coevo.loop.corpus import gather
from coevo.loop.material import WorldTruth, load_material
from coevo.scoring.reasoning import compose, parse
from coevo.types import Reasoning, Scenario, Turn

SECTIONS = ("who", "topic", "mood")
WHOLE = "who: the nurse\ntopic: bread\nmood: sad"
X = Scenario(
    "IDTrain-1", "IDTrain", "IDTrain", "Ann, a nurse. Likes tea.", "Ada.", (Turn("user", "Well. Who are you?"),), "I."
)


def test_a_whole_reasoning_is_read_as_it_is() -> None:
    assert parse(WHOLE, SECTIONS) == Reasoning(WHOLE, "ok", 1.0)
    assert parse(WHOLE, SECTIONS).text == compose({"who": "the nurse", "topic": "bread", "mood": "sad"})


@pytest.mark.parametrize(
    ("text", "structure"),
    [
        # no mark: the whole completion is never taken for a reasoning (defect 10)
        ("The nurse is sad and asks about bread.", 0 / 4),
        ("the topic: is bread, and her mood: is sad", 0 / 4),
        # a heading alone is worth nothing: two of three sections say something
        ("who: the nurse\ntopic:\nmood: sad", 2 / 3),
        ("who:\ntopic: ...\nmood: -", 0 / 3),
        ("who: the nurse\nmood: sad", 2 / 3),
        # out of place: mood, then who and topic, which come before it
        ("mood: sad\nwho: the nurse\ntopic: bread", 1 / 3),
        # a repeated section is none, and one more piece that is wrong: 2 of 3 + 1
        ("who: the nurse\ntopic: bread\ntopic: tea\nmood: sad", 2 / 4),
        # text before the mark is one more piece that is wrong: 3 of 3 + 1
        (f"Sure! Here it is.\n{WHOLE}", 3 / 4),
    ],
)
def test_what_is_malformed_has_no_text_and_the_share_of_its_sections(text: str, structure: float) -> None:
    assert parse(text, SECTIONS) == Reasoning("", "malformed", pytest.approx(structure))


def test_truncated_and_empty_have_a_status_and_nothing_else() -> None:
    assert parse(WHOLE, SECTIONS, "truncated") == Reasoning("", "truncated", 0.0)
    assert parse("", SECTIONS, "empty") == parse(" \n\t", SECTIONS) == Reasoning("", "empty", 0.0)


def test_padding_is_not_part_of_a_reasoning() -> None:
    padded = "  who :   the \n\n  nurse  \ntopic: bread" + " " * 500 + "\nmood:\n\n\nsad\n" + "\n" * 50
    assert parse(padded, SECTIONS) == Reasoning(WHOLE, "ok", 1.0)


def test_a_name_that_begins_another_is_not_taken_for_it() -> None:
    assert parse("top: a\ntopic: b", ("top", "topic")).text == "top: a\ntopic: b"


# --- the world ------------------------------------------------------------------------------------------------------


def test_the_oracle_names_what_decides_the_reply() -> None:
    x = world.generate("OOD1Test", 4, seed=0)[3]
    assert "Natsu from Nara, a baker. Speaks Japanese, playful." in x.persona
    # docs/data.md shows this scenario: a physician, asked about winter (冬) by someone worried (気がかり)
    expected = "language: Japanese\nmanner: playful\ncalling: baker\ntopic: winter\ncraft: physician\nmood: worried"
    assert world.oracle_reasoning(x) == expected
    assert parse(expected, world.REASONING_SECTIONS).status == "ok"


def test_a_reasoning_says_all_that_the_reply_depends_on_and_nothing_else() -> None:
    for x in world.generate("ShiftTrain", 12, seed=3):
        # another name and city: the same reasoning, and the same density of any reply
        twin = replace(x, persona="Nobody from Nowhere, a" + x.persona.partition(", a")[2], sample_id="twin")
        assert world.oracle_reasoning(twin) == world.oracle_reasoning(x)
        for reply in (x.reference, "junk"):
            pair = [world.log_density(world.parse_scenario(s), reply) for s in (x, twin)]
            assert pair[0] == pair[1]
        # another calling: one section and one slot differ
        calling = world.parse_scenario(x).calling
        changed = replace(x, persona=x.persona.replace(calling, "baker" if calling != "baker" else "nurse"))
        lines = zip(*(world.oracle_reasoning(s).splitlines() for s in (x, changed)), strict=True)
        assert [old.split(":")[0] for old, new in lines if old != new] == ["calling"]


def test_truth_counts_the_sections_that_are_right() -> None:
    x = world.generate("IDTrain", 1, seed=0)[0]
    right = world.oracle_reasoning(x)
    truth, names = WorldTruth(), world.REASONING_SECTIONS
    assert truth.share_reasoned(x, right, names) == 1.0
    wrong = right.replace("language: English", "language: Korean")
    assert truth.share_reasoned(x, wrong, names) == pytest.approx(5 / 6)
    assert truth.share_reasoned(x, wrong, ("language", "mood")) == 0.5
    assert truth.share_reasoned(x, "nothing of the kind", names) == 0.0


# --- files ----------------------------------------------------------------------------------------------------------


def test_a_reasoning_is_cut_from_a_scenario_by_rule() -> None:
    # first sentence of the persona, of the card, and the query's last question
    assert thoughts.extract(X) == "user: Ann, a nurse.\ncharacter: Ada.\ndialogue: Who are you?"
    card = {"name": "Ada", "work": "Engines", "sayings": ["Long ago."]}
    told = replace(X, character=card, dialogue=(Turn("user", "Is it? It is. So be it."),), persona="...")
    assert thoughts.extract(told) == "user: ...\ncharacter: name: Ada; work: Engines\ndialogue: Is it?"
    assert parse(thoughts.extract(X), thoughts.SECTIONS).status == "ok"


def test_extraction_is_short_and_never_sees_the_reference() -> None:
    long = replace(X, persona="word " * 400, character="字" * 900, dialogue=(Turn("user", "w " * 90 + "?"),))
    text = thoughts.extract(long)
    assert [len(line.split(": ", 1)[1].split()) for line in text.splitlines()] == [12, 1, 24]
    assert max(map(len, text.splitlines())) <= len("character: ") + 160
    assert thoughts.extract(replace(X, reference="another")) == thoughts.extract(X)


def test_a_files_own_reasoning_is_read_and_written(tmp_path: Path) -> None:
    path = tmp_path / "cold.json"
    write_rpgbench(path, [replace(X, thought="Ann asks who."), replace(X, sample_id="IDTrain-2")])
    samples = json.loads(path.read_text())["IDTrain"]
    assert samples[0]["SThought"] == "Ann asks who." and "SThought" not in samples[1]
    assert [x.thought for x in read_rpgbench(path)] == ["Ann asks who.", ""]
    samples[1]["SThought"] = None
    path.write_text(json.dumps({"IDTrain": samples}))
    assert [x.thought for x in read_rpgbench(path)] == ["Ann asks who.", ""]
    samples[1]["SThought"] = 7
    path.write_text(json.dumps({"IDTrain": samples}))
    with pytest.raises(DataError, match=r"sample 1 .*field SThought: is 7 \(a number\); expected non-empty text; write the"):
        list(read_rpgbench(path))


def test_a_shifted_scenario_does_not_inherit_the_thought() -> None:
    parents = [replace(X, thought="about Ann"), replace(X, sample_id="IDTrain-2", persona="Bob.")]
    frame = FileShifts(parents).frame(parents[0], "user", random.Random(0))
    assert frame.thought == ""


def test_the_corpus_takes_the_world_oracle_whole_or_in_part() -> None:
    xs = world.generate("ShiftTrain", 3, seed=0)
    corpus = gather(WorldShifts(xs), xs, None)
    assert corpus.sections == world.REASONING_SECTIONS
    assert [text for _, text in corpus.reasoned] == [world.oracle_reasoning(x) for x in xs]
    part = gather(WorldShifts(xs), xs, ("topic",))
    assert part.reasoned[0][1] == f"topic: {world.parse_scenario(xs[0]).topic}"
    with pytest.raises(
        DataError, match=r"sample 'ShiftTrain-00000': the reasoning made for it is 'language: .*corl\.sections"
    ):
        gather(WorldShifts(xs), xs, ("weather",))


def test_the_corpus_takes_a_files_own_reasonings_alone_where_there_are_some() -> None:
    other = replace(X, sample_id="IDTrain-2", persona="Bob.")
    sectioned = replace(X, thought="who: Ann\ntopic: tea\nmood: calm")
    corpus = gather(FileShifts([sectioned, other]), [sectioned, other], SECTIONS)
    assert (corpus.reasoned, corpus.others) == ([(sectioned, sectioned.thought)], [other])
    free = replace(X, thought="Ann asks\nwho.")
    assert gather(FileShifts([free, other]), [free], ("thought",)).reasoned[0][1] == "thought: Ann asks who."
    with pytest.raises(DataError, match=r"SThought is 'Ann asks\\nwho\.'; expected the sections user, character, dialogue"):
        gather(FileShifts([free, other]), [free, other], None)


def test_later_phases_meet_what_the_cold_start_did_not() -> None:
    xs = world.generate("ShiftTrain", 10, seed=0)
    corpus = gather(WorldShifts(xs), xs, None)
    cold, later = corpus.split(6, seed=1)
    assert len(cold) == 6 and sorted([x.sample_id for x, _ in cold] + [x.sample_id for x in later]) == [
        x.sample_id for x in xs
    ]
    everything, again = corpus.split(None, seed=1)
    assert len(everything) == len(again) == 10, "where the cold start takes all, later phases meet those again"


# --- CoRL never sees a test -----------------------------------------------------------------------------------------


def test_a_test_scenario_is_refused() -> None:
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "data": {"kind": "world", "train": 40, "shift_train": 64, "test": 3},
            "corl": {},
            "evaluation": {"k": 2},
        }
    )
    material = load_material(recipe)
    material.refuse_tests(material.shift_train, "CoRL")
    with pytest.raises(DataError, match=r"'IDTest-00000' is of the test split IDTest and was to be used for phase 03-reas"):
        material.refuse_tests([material.shift_train[0], material.tests[0]], "phase 03-reasoner-1")
    # the same text under another name and split is a test scenario all the same
    renamed = replace(material.tests[5], sample_id="mine", split="IDTrain", reference="another")
    with pytest.raises(DataError, match=r"'mine' has the content of a test scenario"):
        material.refuse_tests([renamed], "CoRL")


def test_a_file_whose_training_split_holds_a_test_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    xs = world.generate("IDTrain", 60, seed=0)
    tests = world.generate("IDTest", 4, seed=0)
    leaked = replace(tests[2], sample_id="IDTrain-leak", split="IDTrain", subset_tag="IDTrain")
    path = tmp_path / "leak.json"
    write_rpgbench(path, [leaked, *xs, *tests])
    data = {"kind": "file", "path": str(path), "reference": "carry", "dev": 8, "test_splits": ["IDTest"]}
    recipe = {"name": "x", "data": data, "loop": {"shifts": ["user"]}, "evaluation": {"k": 2}}
    for corl in (None, {"cold_start": 40}):
        asked = recipe | {"corl": corl}
        with pytest.raises(
            ConfigError, match=r"1 of 61 samples of IDTrain are copies of tests .*IDTrain-leak is IDTest-00002"
        ):
            load_material(Recipe.model_validate(asked))
        assert load_material(Recipe.model_validate(asked | {"data": data | {"allow_overlap": True}}))
