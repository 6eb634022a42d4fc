"""A stranger's way with files of their own: chats and cards in, a talk and an exported model out, each step one command."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from importlib import resources
from pathlib import Path

from coevo.data import load_scenarios
from tests.integration.conftest import coevo as command
from tests.integration.conftest import environment

BASE = str(resources.files("coevo.lm") / "builtin")
CRAFTS = {"Mara": "lighthouse keeper", "Tarin": "smith", "Iolo": "ferryman", "Bess": "baker", "Quill": "scribe"}
ASKS = ("What do you do all day?", "Tell me of the storm.", "Can you lend me a lamp?", "Where can I sleep tonight?")
USERS = ("Joe, a sailor", "Ann, a nurse", "Pip, a child")
SMALL = (
    "method=grpo", "method.steps=1", "method.prompts=4", "method.group=4", "rpm_sft.samples=32", "scorer_sft.samples=32",
    "data.dev=12", "data.test=6", "audit.scenarios=12", "audit.on_failure=warn", "evaluation.k=2", "evaluation.resamples=50",
)  # fmt: skip
"""Of the recipe that was written, with GRPO on ID prompts: a base of 1.3 M weights that is taught so little writes no turn
of a user that passes the simulator's gates."""


def files(folder: Path, conversations: int = 300) -> None:
    """ShareGPT conversations and five cards, by a seed."""
    rng = random.Random(0)
    (folder / "cards").mkdir()
    for name, craft in CRAFTS.items():
        lore = {"keys": ["storm"], "content": f"{name} lost a boat in the storm.", "enabled": True, "insertion_order": 1}
        data = {
            "name": name, "description": f"{{{{char}}}} is a {craft}.", "personality": "dry", "scenario": "A harbour.",
            "first_mes": "*looks up* Yes, {{user}}?", "mes_example": "", "creator_notes": "SECRET",
            "character_book": {"entries": [lore]},
        }  # fmt: skip
        card = {"spec": "chara_card_v2", "spec_version": "2.0", "data": data}
        (folder / "cards" / f"{name}.json").write_text(json.dumps(card))
    with (folder / "chats.jsonl").open("w") as file:
        for place in range(conversations):
            name = rng.choice(list(CRAFTS))
            turns = [{"from": "gpt", "value": "*looks up* Yes?"}]
            for _ in range(rng.randint(1, 4)):
                turns.append({"from": "human", "value": f"{rng.choice(ASKS)} ({rng.randint(1, 999)})"})
                turns.append({"from": "gpt", "value": f"As a {CRAFTS[name]} I say {rng.choice(('aye', 'no', 'perhaps'))}."})
            row = {"id": f"c{place}", "character": name, "persona": rng.choice(USERS), "conversations": turns}
            file.write(json.dumps(row) + "\n")


def done(*words: object, typed: str | None = None, folder: Path) -> str:
    """What a command said; it must end well."""
    call = [sys.executable, "-m", "coevo", *map(str, words)]
    found = subprocess.run(
        call, input=typed, capture_output=True, text=True, cwd=folder, env=environment(), check=False, timeout=600
    )
    assert found.returncode == 0, f"{words}: {found.stdout[-2000:]}{found.stderr[-3000:]}"
    return found.stdout


def test_from_chats_and_cards_to_a_talk_and_an_exported_model(tmp_path: Path) -> None:
    files(tmp_path)
    said = done("data", "convert", "chats.jsonl", "--cards", "cards", "--out", "mine.json", folder=tmp_path)
    assert "300 conversations (sharegpt)" in said and "Next: coevo data shift mine.json" in said
    # a lorebook's entry is told where the storm is spoken of, and only there; notes never are
    for x in load_scenarios(tmp_path / "mine.json"):
        assert ("lost a boat" in str(x.character)) is any("storm" in turn.text for turn in x.dialogue[-2:])
        assert "SECRET" not in str(x)
    said = done("data", "shift", "mine.json", "--out", "dialogues.json", folder=tmp_path)
    assert "character:held_out" in said and "Next: coevo data check dialogues.json" in said
    done("data", "check", "dialogues.json", folder=tmp_path)
    said = done("init", "--data", "dialogues.json", "--base", BASE, "--out", "mine.yaml", folder=tmp_path)
    assert "Next: coevo train mine.yaml --dry-run" in said
    assert "09-accept-1" in done("train", "mine.yaml", "--dry-run", folder=tmp_path)
    said = done("train", "mine.yaml", *SMALL, "--out", "runs/mine", folder=tmp_path)
    assert "report.html" in said and "Next: coevo chat runs/mine" in said
    talk = ("chat", "runs/mine", "--character", "cards/Mara.json", "--user", "Joe", "--max-tokens", 16)
    said = done(*talk, typed="Tell me of the storm.\n/lore\n/save chat.jsonl\n", folder=tmp_path)
    assert "*looks up* Yes, Joe?" in said and "- storm: Mara lost a boat in the storm." in said
    assert len((tmp_path / "chat.jsonl").read_text().splitlines()) == 4
    said = done("export", "runs/mine", "--to", "exported", "--merge", folder=tmp_path)
    assert "log-likelihoods of" in said and "are the run's own within" in said
    # plain transformers, in a process that knows nothing of coevo
    code = "from transformers import AutoModelForCausalLM as M\nprint(M.from_pretrained('exported').num_parameters())"
    plain = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert int(plain.stdout.split()[-1]) > 1_000_000, plain.stderr[-2000:]
    # a gate does not pass what this base cannot read
    gate = command("gate", tmp_path / "runs" / "mine", "--max-remid", 1000)
    assert gate.returncode == 1 and "cannot be told" in gate.stderr
