"""Shared prefixes: the same numbers as one pass a pair, whatever shares a prompt; each prompt once; the budget kept."""

from __future__ import annotations

import math
import random
from importlib import resources
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from coevo.lm import prefix
from coevo.lm.contexts import seeded
from coevo.lm.likelihood import score_pairs
from coevo.lm.loading import load_policy, load_tokenizer, new_adapter
from coevo.lm.prefix import can_share, plan_blocks

BUILTIN = Path(str(resources.files("coevo.lm") / "builtin"))
TOKENIZER = load_tokenizer(BUILTIN)
END = TOKENIZER.eos_token_id
TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
TINY |= {"intermediate_size": 64, "vocab_size": 300, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}


@pytest.fixture(scope="module")
def model():
    return load_policy(BUILTIN, None, trainable=False, dtype="float32")


@pytest.fixture(autouse=True)
def cheap_calls(monkeypatch):
    """A call that is worth 100 tokens, so that small cases share, with up to 100 tokens of padding a call."""
    monkeypatch.setattr(prefix, "CALL_TOKENS", 100)


def make_pairs(sizes, prompts=(10, 60), responses=(0, 20)):
    """For each size, a prompt with that many responses; in random order, with lengths from these ranges."""
    rng = random.Random(0)

    def ids(low, high):
        return [rng.randrange(5, 300) for _ in range(rng.randint(low, high))]

    pairs = [(prompt, [*ids(*responses), END]) for size in sizes for prompt in [ids(*prompts)] for _ in range(size)]
    rng.shuffle(pairs)
    return pairs


def naive(model, pairs):
    """One whole pass a pair: no batch, no padding, no cache, every logit, softmax in float64."""
    totals = []
    model.eval()
    with torch.no_grad():
        for prompt, response in pairs:
            logits = model(torch.tensor([[*prompt, *response]]), use_cache=False).logits[0].double()
            logprob = torch.log_softmax(logits, -1)
            steps = range(len(prompt) - 1, len(prompt) + len(response) - 1)
            totals.append(sum(logprob[at, token].item() for at, token in zip(steps, response, strict=True)))
    return totals


def nats(model, pairs, budget=4096, max_length=512):
    scores = score_pairs(model, TOKENIZER, pairs, max_length=max_length, tokens_per_batch=budget)
    assert [score.n_tokens for score in scores] == [len(response) for _, response in pairs]
    return [score.logprob_nats for score in scores]


def watch(monkeypatch, model):
    """Records of each forward call how many tokens are fed, how many the mask has, and whether a cache is in use."""
    calls = []
    forward = model.forward

    def record(**inputs):
        used = inputs.get("past_key_values") is not None
        calls.append((inputs["input_ids"].numel(), inputs["attention_mask"].numel(), used))
        return forward(**inputs)

    monkeypatch.setattr(model, "forward", record)
    return calls


SIZES = {"one": [1] * 8, "many": [4, 3, 5, 2], "all": [12], "mixed": [1, 5, 1, 2, 1, 4, 1]}


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("budget", [1, 150, 4096])
def test_equals_one_pass_a_pair(model, sizes, budget):
    pairs = make_pairs(sizes)
    assert nats(model, pairs, budget) == pytest.approx(naive(model, pairs), abs=1e-4)


def test_equals_one_pass_a_pair_on_long_prompts(model):
    pairs = make_pairs([3, 2, 1], prompts=(150, 250), responses=(40, 60))
    assert nats(model, pairs) == pytest.approx(naive(model, pairs), abs=1e-4)


def test_equals_one_pass_a_pair_with_an_adapter_in_training(monkeypatch):
    policy = new_adapter(load_policy(BUILTIN, None, trainable=True, dtype="float32"), Lora())
    with torch.no_grad(), seeded(1):
        for name, weight in policy.named_parameters():
            if "lora_B" in name:  # zero at the start of training, when the adapter changes nothing
                weight.normal_(std=0.05)
    pairs = make_pairs(SIZES["mixed"])
    plain = naive(policy, pairs)
    with policy.disable_adapter():
        assert max(abs(a - b) for a, b in zip(plain, naive(policy, pairs), strict=True)) > 0.1
    policy.train()  # with half of the adapter's inputs dropped, were it not put aside
    calls = watch(monkeypatch, policy.get_base_model())
    assert nats(policy, pairs) == pytest.approx(plain, abs=1e-4)
    assert any(cached for _, _, cached in calls)
    assert policy.training
    monkeypatch.undo()
    policy(input_ids=torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()


class Lora:
    r, alpha, dropout, seed = 4, 8, 0.5, 0


def gpt2():
    """Learned absolute positions."""
    return GPT2LMHeadModel(GPT2Config(vocab_size=300, n_positions=128, n_embd=32, n_layer=2, n_head=4))


def sliding():
    """Every other layer sees 8 tokens back, fewer than most prompts have."""
    layers = ["sliding_attention", "full_attention"]
    return Qwen3ForCausalLM(Qwen3Config(**TINY, head_dim=8, use_sliding_window=True, sliding_window=8, layer_types=layers))


def convolutional():
    """A layer of short convolutions has states in place of tokens: outside the rule."""
    return Lfm2ForCausalLM(Lfm2Config(**TINY, layer_types=["conv", "full_attention"]))


def length_dependent():
    """Rotary frequencies change when a sequence has more than 32 tokens: outside the rule."""
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rope["original_max_position_embeddings"] = 32
    return Phi3ForCausalLM(Phi3Config(**TINY, max_position_embeddings=128, rope_parameters=rope))


SHARING = {gpt2: True, sliding: True, convolutional: False, length_dependent: False}


@pytest.mark.parametrize("architecture", SHARING)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_other_architectures(architecture, attention, monkeypatch):
    with seeded(0):
        other = architecture()
        other.set_attn_implementation(attention)
        with torch.no_grad():
            for weight in other.parameters():
                if weight.ndim == 2:
                    weight.mul_(10)  # at the start all tokens are about equally likely, right or wrong
    calls = watch(monkeypatch, other)
    # a prompt alone is on one side of the 32 tokens of `length_dependent`, with its response on the other
    pairs = make_pairs(SIZES["mixed"], prompts=(20, 30), responses=(14, 24))
    found = nats(other, pairs, 400)
    assert any(cached for _, _, cached in calls) == can_share(other) == SHARING[architecture]
    monkeypatch.undo()
    assert found == pytest.approx(naive(other, pairs), abs=1e-4)


def test_a_prompt_is_forwarded_once(model, monkeypatch):
    # 3 prompts of 40 tokens with 5 responses of 10: 3 × 39 cached, then each response after the prompt's last token and
    # without its own last, 15 × 10. In one pass a pair it would be 15 × (40 + 9) = 735.
    prompts = [[5 + n] * 40 for n in range(3)]
    pairs = [(prompt, [50 + k] * 9 + [END]) for k in range(5) for prompt in prompts]
    calls = watch(monkeypatch, model)
    nats(model, pairs)
    # the mask of the second call: 15 rows of 39 cached and 10 new tokens
    assert calls == [(117, 117, True), (150, 15 * 49, True)]


def test_a_group_over_the_budget_caches_its_prompt_once(model, monkeypatch):
    # rows of 39 + 10 tokens, budget 245: 5 a call, so 20 of them in 4 calls
    pairs = [([5] * 40, [50 + k] * 9 + [END]) for k in range(20)]
    calls = watch(monkeypatch, model)
    nats(model, pairs, budget=245)
    assert calls == [(39, 39, True), *[(50, 245, True)] * 4]


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_every_call_keeps_its_budget(model, monkeypatch, sizes):
    calls = watch(monkeypatch, model)
    nats(model, make_pairs(sizes), budget=200)
    assert max(tokens for _, tokens, _ in calls) <= 200


def test_a_prompt_with_one_response_is_forwarded_with_it(model, monkeypatch):
    calls = watch(monkeypatch, model)
    nats(model, make_pairs(SIZES["one"]))
    assert not any(cached for _, _, cached in calls)


@pytest.mark.parametrize("responses, cached", [(3, False), (4, True)])
def test_little_to_save_is_not_worth_a_call(model, monkeypatch, responses, cached):
    # a prompt of 41 tokens, 40 of them cached: 2 × 40 = 80 < 100 saved with 3 responses, 120 with 4
    calls = watch(monkeypatch, model)
    nats(model, [([5] * 41, [k, END]) for k in range(50, 50 + responses)])
    assert [used for _, _, used in calls] == ([True, True] if cached else [False])


def test_much_padding_is_worth_a_call(model, monkeypatch):
    # fed are 59 + 2 - 1 = 60 tokens of one pair and 10 of each other: 2 × 50 of padding in one call, 3 × 50 in two
    calls = watch(monkeypatch, model)
    nats(model, [([5] * 59, [7, END]), *([([k] * 9, [7, END]) for k in (6, 7)])])
    assert [fed for fed, _, _ in calls] == [180]
    calls.clear()
    nats(model, [([5] * 59, [7, END]), *([([k] * 9, [7, END]) for k in (6, 7, 8)])])
    assert [fed for fed, _, _ in calls] == [180, 10]


def test_statuses_and_order_inside_a_group(model):
    prompt = list(range(5, 25))
    pairs = [(prompt, [7, END]), (prompt, []), (prompt, [8] * 40 + [END]), (prompt, [9, 9, END]), ([6], [7, END])]
    scores = score_pairs(model, TOKENIZER, pairs, max_length=60, tokens_per_batch=4096)  # 20 + 41 > 60
    assert [score.status for score in scores] == ["ok", "empty", "too_long", "ok", "ok"]
    good = [0, 3, 4]
    assert [scores[k].logprob_nats for k in good] == pytest.approx(naive(model, [pairs[k] for k in good]), abs=1e-4)
    assert all(math.isnan(scores[k].logprob_nats) for k in (1, 2))


def test_ranks_agree_on_the_calls_that_cache_as_well(model, monkeypatch):
    pairs = make_pairs(SIZES["mixed"])
    alone = nats(model, pairs, budget=300)
    calls = watch(monkeypatch, model)
    asked = []

    def reduce(count, op):
        asked.append((len(calls), int(count)))
        count.fill_(30)  # another rank has 30 calls to make

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", reduce)
    assert nats(model, pairs, budget=300) == alone
    ((before, own),) = asked
    assert (before, len(calls)) == (0, 30)  # agreed on before the first call, and kept
    assert any(cached for _, _, cached in calls[:own]) and calls[own:] == [(1, 1, False)] * (30 - own)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 5)), max_size=8), st.integers(1, 300), st.booleans())
def test_the_plan_feeds_every_token_once(prompts, budget, share):
    pairs = [([5 + n] * length, [k] * (k + 1)) for n, (length, size) in enumerate(prompts) for k in range(size)]
    wanted = list(range(0, len(pairs), 2))
    rows = []
    for block in plan_blocks(pairs, wanted, budget, share=share):
        assert share or not block.prefixes
        width = max(map(len, block.prefixes), default=0)
        assert len(block.prefixes) <= 1 or len(block.prefixes) * width <= budget
        for call in block.calls:
            assert len(call) == 1 or len(call) * (width + max(len(row.fed) for row in call)) <= budget
            for row in call:
                before = block.prefixes[row.prefix] if block.prefixes else ()
                prompt, response = pairs[row.pair]
                assert [*before, *row.fed] == [*prompt, *response[:-1]]
                assert row.response == response and len(row.fed) >= len(response)
            rows += [row.pair for row in call]
    assert sorted(rows) == wanted
