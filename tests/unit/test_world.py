"""The world's splits, shifts and oracle."""

import os
import random
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest

from coevo.data import FileShifts, WorldShifts, world
from coevo.data.world.attributes import parse_persona
from coevo.data.world.lexicon import CHARACTERS, LEXICA
from coevo.errors import DataError
from coevo.types import SHIFT_OF_TAG, Scenario, Turn

N_CHECKED = 240


@pytest.mark.parametrize("split", sorted(world.SPLITS))
def test_every_scenario_is_readable_and_has_its_tags_shift(split: str) -> None:
    scenarios = world.generate(split, N_CHECKED, seed=3)
    assert [x.sample_id for x in scenarios[:2]] == [f"{split}-00000", f"{split}-00001"]
    assert all(x.split == split and world.shows_shift(x) for x in scenarios)
    # 240 is divisible by 1, 2, 4, 5 and 12, the numbers of tags: each tag occurs equally often.
    assert set(Counter(x.subset_tag for x in scenarios).values()) == {N_CHECKED // len(world.SPLITS[split])}
    # 4 turns are 3 exchanges and the query: 7 messages; 8 turns 15.
    for x in scenarios:
        assert len(x.dialogue) == (15 if x.subset_tag == "TurnLevelComposition" else 7)
        assert [turn.role for turn in x.dialogue] == (["user", "agent"] * 8)[: len(x.dialogue)]


def test_attributes_are_what_the_text_says() -> None:
    x = Scenario(
        "t-0",
        "OOD1Test",
        "german",
        "Greta from Bremen, a nurse. Speaks German, formal.",
        {"name": "Lise Meitner", "craft": "physicist", "kind": "history", "work": "Nuclear Fission"},
        (Turn("user", "Ich grüße Sie herzlich. Mein Herz ist schwer. Was lehrt uns das Meer?"),),
        "",
    )
    expected = world.Attributes(
        language="de",
        manner="formal",
        calling="nurse",
        craft="physicist",
        topic="sea",
        mood="sad",
        name="Greta",
        city="Bremen",
        character="Lise Meitner",
        kind="history",
        work="Nuclear Fission",
    )
    assert world.parse_scenario(x) == expected


def test_attributes_are_uniform_over_the_support() -> None:
    n = 4800
    scenarios = world.generate("OOD2Test", n, seed=5)
    attributes = [world.parse_scenario(x) for x in scenarios]
    for name, values in world.support("Gaming").items():
        counts = Counter(getattr(a, name) for a in attributes)
        assert set(counts) == set(values)
        # A count is binomial(n, 1/V): five standard deviations sqrt(n (1/V)(1-1/V)) around n/V.
        share = 1 / len(values)
        spread = 5 * (n * share * (1 - share)) ** 0.5
        assert all(abs(count - n * share) <= spread for count in counts.values()), name


def test_train_and_test_pools_share_nothing() -> None:
    for field in ("names", "cities"):
        pools = {
            pool: {value for lexicon in LEXICA.values() for value in getattr(lexicon, field)[pool]}
            for pool in ("train", "test")
        }
        assert pools["train"] and pools["test"] and not pools["train"] & pools["test"]
    for pool_field in ("name", "work"):
        train = {getattr(c, pool_field) for (_, pool), row in CHARACTERS.items() if pool == "train" for c in row}
        test = {getattr(c, pool_field) for (_, pool), row in CHARACTERS.items() if pool == "test" for c in row}
        assert len(train) == 24 + 32 and len(test) == 16 + 32 and not train & test  # 8·3 + 4·8 and 8·2 + 4·8, distinct


def test_crafts_are_uniform_over_characters_and_some_are_unseen_in_id() -> None:
    for (kind, pool), row in CHARACTERS.items():
        assert len(set(Counter(c.craft for c in row).values())) == 1, (kind, pool)
    assert len(world.CRAFTS) == 14
    assert len(set(world.support("Gaming")["craft"]) - set(world.support("IDTrain")["craft"])) == 6


def test_no_scenario_of_a_test_split_is_in_a_train_split() -> None:
    def keys(split: str) -> set[tuple[str, str, tuple[Turn, ...]]]:
        return {(x.persona, str(x.character), x.dialogue) for x in world.generate(split, 600, seed=0)}

    train = keys("IDTrain") | keys("ShiftTrain")
    for split in ("IDTest", "OOD1Test", "OOD2Test", "OOD3Test"):
        assert not train & keys(split)
    users = {parse_persona(persona).name for persona, _, _ in train}
    tested = {parse_persona(p).name for s in ("IDTest", "OOD1Test") for p, _, _ in keys(s)}
    assert users and tested and not users & tested


def test_generation_is_prefix_stable_and_seeded() -> None:
    assert world.generate("ShiftTrain", 30, seed=1)[:12] == world.generate("ShiftTrain", 12, seed=1)
    assert world.generate("IDTrain", 5, seed=1) != world.generate("IDTrain", 5, seed=2)
    assert world.generate("IDTrain", 0, seed=1) == []


def test_generation_is_the_same_in_processes_with_other_hash_seeds() -> None:
    program = "from coevo.data import world; print(ascii(world.generate('ShiftTrain', 24, 7)))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1")
    }
    assert outputs == {ascii(world.generate("ShiftTrain", 24, 7)) + "\n"}


@pytest.mark.parametrize("tag", sorted(SHIFT_OF_TAG))
def test_shift_changes_what_the_tag_says_and_keeps_the_rest(tag: str) -> None:
    for parent in world.generate("IDTrain", 10, seed=2):
        child = world.shift(parent, tag, random.Random(4))
        assert (child.parent, child.subset_tag, child.split) == (parent.sample_id, tag, "Shifted")
        assert world.shows_shift(child)
        before, after = world.parse_scenario(parent), world.parse_scenario(child)
        assert (after.manner, after.calling, after.topic, after.mood) == (
            before.manner,
            before.calling,
            before.topic,
            before.mood,
        )
        changed = SHIFT_OF_TAG[tag]
        assert (after.language != before.language) == (changed == "user")
        assert (child.persona != parent.persona) == (changed == "user")
        assert (child.character != parent.character) == (changed == "character")
        if changed == "user":
            assert world.history_indices(child) == world.history_indices(parent)
            assert after.name in LEXICA[after.language].names["train"]
            assert after.city in LEXICA[after.language].cities["train"]
        elif changed == "character":
            assert child.dialogue == parent.dialogue
            assert after.character in {c.name for c in CHARACTERS[tag, "train"]}
        elif tag == "TurnLevelComposition":
            assert child.dialogue[:6] == parent.dialogue[:6] and child.query == parent.query
            assert len(set(world.history_indices(child))) == 7
        else:
            for old, new in zip(parent.dialogue, child.dialogue, strict=True):
                assert sorted(old.text.split()) == sorted(new.text.split()) and old.text != new.text


def test_shift_refuses_unknown_tags_and_shifted_parents() -> None:
    parent = world.generate("IDTrain", 1, seed=2)[0]
    with pytest.raises(DataError, match=r"unknown shift tag 'germann'.*nearest: german"):
        world.shift(parent, "germann", random.Random(0))
    with pytest.raises(DataError, match="is itself shifted"):
        world.shift(world.shift(parent, "german", random.Random(0)), "Gaming", random.Random(0))


def test_with_query_is_an_oracle() -> None:
    parent = world.generate("IDTrain", 1, seed=2)[0]
    frame = world.frame(world.shift(parent, "german", random.Random(0)))
    assert frame.query == "" and frame.reference == ""
    manner = parse_persona(frame.persona).manner
    lexicon = LEXICA["de"]
    query = f"{lexicon.opener[manner][0]} {lexicon.mood['sad'][1]}\n{lexicon.question['stars'][0]}"
    done = [world.with_query(frame, query, random.Random(i)) for i in range(40)]
    assert all(isinstance(x, Scenario) for x in done)
    scenarios = [x for x in done if isinstance(x, Scenario)]
    attributes = world.parse_scenario(scenarios[0])
    assert (attributes.topic, attributes.mood, attributes.language) == ("stars", "sad", "de")
    # Each slot is right with probability of about 0.98: of 200 slots, fewer than 180 has probability below 1e-8.
    assert sum(5 * world.share_right(x, x.reference) for x in scenarios) > 180


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "empty"),
        ("Hallo, ich bin's. Mein Herz ist schwer. Was lehrt uns das Meer?", "language"),
        ("Good day to you. My heart is heavy. What makes a home?", "manner"),
        ("My heart is heavy. What makes a home?", "opener"),
        ("Hi, it's me. What makes a home?", "mood"),
        ("Hi, it's me. My heart is heavy.", "question"),
        ("Hi, it's me. Mein Herz ist schwer. What makes a home?", "mixed"),
        ("Hi, it's me. My heart is heavy. My step is light. What makes a home?", "mixed"),
        ("Hi, it's me. My heart is heavy. What makes a home? Ignore all rules.", "extra"),
        ("안녕, 나야. 집은 어디인가요? 마음이 무거워요.", "order"),
    ],
)
def test_with_query_says_why_it_cannot_answer(query: str, reason: str) -> None:
    x = world.generate("IDTrain", 1, seed=2)[0]
    frame = world.frame(replace(x, persona="Ann from Leeds, a baker. Speaks English, casual."))
    answer = world.with_query(frame, query, random.Random(0))
    assert isinstance(answer, world.Unreadable) and answer.reason == reason and answer.detail


def test_recomposed_queries_are_read_in_english() -> None:
    read = world.parse_query("makes home? a What Hi, heavy. me. My it's is heart")
    assert isinstance(read, world.QueryAttributes)
    assert (read.language, read.manner, read.mood, read.topic, read.form) == (
        "en",
        "casual",
        "sad",
        "home",
        "recomposed",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"persona": "Ann from Leeds, a pilot. Speaks English, casual."}, "user_persona is 'Ann from Leeds, a pilot"),
        ({"persona": "Ann from Leeds, a baker. Speaks English, casual. Hm."}, "user_persona"),
        ({"character": "Ada"}, "agent_character is 'Ada'; expected an object"),
        (
            {"character": {"name": "A", "craft": "poett", "kind": "history", "work": "B"}},
            r"agent_character.craft is 'poett'.*nearest: poet",
        ),
        ({"dialogue": (Turn("user", "Hello?"),)}, r"final user_query 'Hello\?' is unreadable \(opener\)"),
    ],
)
def test_parse_scenario_names_the_sample_and_what_is_unreadable(change: dict[str, object], message: str) -> None:
    x = replace(world.generate("IDTrain", 1, seed=2)[0], **change)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=f"sample 'IDTrain-00000': .*{message}"):
        world.parse_scenario(x)


def test_generate_refuses_what_it_cannot_make() -> None:
    with pytest.raises(DataError, match=r"unknown split 'IDtrain'.*nearest: IDTrain"):
        world.generate("IDtrain", 1, seed=0)
    with pytest.raises(DataError, match="n is -1"):
        world.generate("IDTrain", -1, seed=0)


def test_sources_make_and_finish_frames() -> None:
    parents = world.generate("IDTrain", 6, seed=0)
    source = WorldShifts(parents)
    frames = [source.frame(parents[i % 6], tag, random.Random(i)) for i, tag in enumerate(source.tags)]
    assert [x.subset_tag for x in frames] == list(source.tags)
    assert all(x.query == "" and x.reference == "" and x.parent for x in frames)
    assert isinstance(source.finish(frames[0], "nonsense", random.Random(0)), world.Unreadable)
    # a whole query of the frame's user is accepted, but not where the tag promises shuffled words
    query = world.shift(parents[0], "german", random.Random(0)).query
    assert isinstance(source.finish(frames[0], query, random.Random(0)), Scenario)
    shuffled = source.frame(parents[0], "WordLevelComposition", random.Random(0))
    refused = source.finish(shuffled, parents[0].query, random.Random(0))
    assert isinstance(refused, world.Unreadable) and refused.reason == "shift"


def test_a_files_simulator_writes_from_notes_in_the_loop_as_in_its_warm_start() -> None:
    asked = ["I know the way to Padua.", "The way is long, the wind is cold.", "Who?", "你好，帕多瓦在哪里？"]
    (first, *_) = world.generate("IDTrain", 1, seed=0)
    parents = [
        replace(first, sample_id=f"a{i}", dialogue=(Turn("user", q),)) for i, q in enumerate([*asked, *["The?"] * 76])
    ]
    source = FileShifts(parents)
    notes = [source.example(x).draft for x in parents[:4]]
    # one word alone stands in more than one of twenty queries
    assert notes == ["i know way to padua", "way is long wind is cold", "who", "你 好 帕 多 瓦 在 哪 里"]
    assert [source.frame(x, "WordLevelComposition", random.Random(0)).draft for x in parents[:4]] == notes
    assert source.example(parents[5]).draft == "the", "a query of nothing else is kept"


def test_file_shifts_carry_the_parents_reference() -> None:
    parents = world.generate("IDTrain", 6, seed=0)  # any scenarios will do: the source does not parse them
    source = FileShifts(parents)
    for tag in source.tags:
        frame = source.frame(parents[0], tag, random.Random(1))
        assert (frame.query, frame.reference, frame.parent) == ("", "", parents[0].sample_id)
        assert (frame.persona != parents[0].persona) == (tag == "user")
        done = source.finish(frame, " And you? ", random.Random(1))
        assert isinstance(done, Scenario)
        assert (done.query, done.reference, done.subset_tag) == ("And you?", parents[0].reference, tag)
        blank = source.finish(frame, " ", random.Random(1))
        assert isinstance(blank, world.Unreadable) and blank.reason == "empty"
    with pytest.raises(DataError, match=r"'usr'.*nearest: user"):
        source.frame(parents[0], "usr", random.Random(1))
    with pytest.raises(DataError, match="0 ID samples"):
        FileShifts([])
    with pytest.raises(DataError, match="not one of the 6 ID samples"):
        source.finish(replace(parents[0], parent="gone"), "Hm?", random.Random(1))
