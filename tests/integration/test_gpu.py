"""On a GPU what holds on a CPU: likelihoods, greedy answers, every phase of a recipe. Skipped where there is none."""

from __future__ import annotations

import json

import pytest
import torch

from coevo.lm import generation
from coevo.lm.generation import generate
from coevo.lm.likelihood import encode_pair, score_pairs
from coevo.lm.loading import load_base, load_tokenizer
from tests.compat.families import make_base
from tests.integration.conftest import SMOKE, coevo

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
TEXTS = ["Who are you?", "Where is the harbour, and how do I come to it?", "Why?"]


@pytest.fixture(scope="module")
def on_both(tmp_path_factory):
    """(tokenizer, the same weights on the CPU and on the GPU), in float32."""
    folder = make_base("llama", tmp_path_factory.mktemp("gpu") / "base")
    return load_tokenizer(folder), *(load_base(folder, dtype="float32").to(device) for device in ("cpu", "cuda"))


def prompts(tokenizer):
    return [tokenizer(text)["input_ids"] for text in TEXTS]


def test_likelihoods_are_those_of_the_cpu(on_both):
    tokenizer, cpu, gpu = on_both
    pairs = [encode_pair(tokenizer, asked, said) for asked in TEXTS for said in ("I am Ada.", "No.")]
    there, here = (score_pairs(m, tokenizer, pairs, max_length=256, tokens_per_batch=512) for m in (cpu, gpu))
    assert [x.logprob_nats for x in here] == pytest.approx([x.logprob_nats for x in there], abs=1e-3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_samples_are_those_of_the_cpu(on_both, monkeypatch, temperature):
    monkeypatch.setattr(generation, "SPARED_FLOPS", 0.0)  # repeated prompts are read once, whose cache is on the GPU
    tokenizer, cpu, gpu = on_both
    asked = prompts(tokenizer) * 2
    settings = {"max_new_tokens": 12, "temperature": temperature, "seeds": [*range(len(asked))]}
    there, here = (generate(m, tokenizer, asked, **settings) for m in (cpu, gpu))
    assert [x.token_ids for x in here] == [x.token_ids for x in there]


def test_a_recipe_runs_through_every_phase(tmp_path):
    done = coevo("train", SMOKE, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    final = json.loads((tmp_path / "run/evaluation/final.json").read_text(encoding="utf-8"))
    assert all(entry["n"] for entry in final["subsets"].values())
