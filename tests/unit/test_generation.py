"""Generation: order, end of turn, and sampling as a pure function of weights, prompts and seeds."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from transformers import GenerationConfig

from coevo.errors import ConfigError, DataError
from coevo.lm import generation
from coevo.lm.generation import equal_prompts_once, generate
from coevo.lm.loading import new_adapter
from coevo.lm.small import build_base, train_tokenizer

TOKENIZER = train_tokenizer(["Good evening, I am Ada Lovelace. And who are you?"] * 10, 300)
TINY = {"hidden": 32, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate": 64, "max_position": 64}
END = TOKENIZER.eos_token_id
RNG = random.Random(0)
PROMPTS = [[RNG.randrange(5, len(TOKENIZER)) for _ in range(RNG.randint(1, 20))] for _ in range(9)]


@pytest.fixture
def model():
    base = build_base(TOKENIZER, TINY, seed=3)
    with torch.no_grad():
        for parameter in base.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10)
    return base


def naive_greedy(model, prompt, steps):
    out = []
    with torch.no_grad():
        while len(out) < steps and END not in out:
            out.append(int(model.eval()(torch.tensor([[*prompt, *out]])).logits[0, -1].argmax()))
    return tuple(out)


def always(token):
    """A base whose next token is `token` whatever came before: the only embedding that the constant output meets."""
    base = build_base(TOKENIZER, TINY)
    with torch.no_grad():
        for layer in base.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        base.model.embed_tokens.weight.zero_()
        base.model.embed_tokens.weight[:, 0] = 1.0
        base.model.embed_tokens.weight[token, 0] = 2.0
    return base


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_greedy_equals_a_token_by_token_loop(model, batch_size):
    out = generate(model, TOKENIZER, PROMPTS, max_new_tokens=6, temperature=0, batch_size=batch_size)
    assert [g.token_ids for g in out] == [naive_greedy(model, prompt, 6) for prompt in PROMPTS]


def test_sampling_is_a_function_of_the_seed_and_leaves_the_rng_alone(model):
    def sample(seed):
        return generate(model, TOKENIZER, PROMPTS, max_new_tokens=8, temperature=1.0, seed=seed)

    before = torch.random.get_rng_state()
    first = sample(1)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.rand(3)
    assert sample(1) == first != sample(2)


def test_a_prompts_sample_does_not_depend_on_its_neighbours(model):
    seeds = list(range(100, 109))
    whole = generate(model, TOKENIZER, PROMPTS, max_new_tokens=8, temperature=1.0, seeds=seeds)
    alone = [
        generate(model, TOKENIZER, [p], max_new_tokens=8, temperature=1.0, seeds=[s])[0]
        for p, s in zip(PROMPTS, seeds, strict=True)
    ]
    assert whole == alone


def test_equal_prompts_get_different_samples(model):
    out = generate(model, TOKENIZER, [PROMPTS[0]] * 8, max_new_tokens=8, temperature=2.0, seed=0)
    assert len({g.token_ids for g in out}) == 8


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.0, 0.6)])
def test_samples_follow_the_distribution(model, temperature, top_p):
    n = 3000
    with torch.no_grad():
        logits = model.eval()(torch.tensor([PROMPTS[0]])).logits[0, -1]
    p = torch.softmax(logits / temperature, -1)
    if top_p < 1:  # the smallest set of likeliest tokens that reaches top_p, renormalised
        order = p.argsort(descending=True)
        size = int((p[order].cumsum(0) < top_p).sum()) + 1
        p = torch.zeros_like(p).scatter(0, order[:size], p[order[:size]])
        p = p / p.sum()
    out = generate(
        model, TOKENIZER, [PROMPTS[0]] * n, max_new_tokens=1, temperature=temperature, top_p=top_p, batch_size=1000
    )
    counts = Counter(g.token_ids[0] for g in out)
    assert all(p[token] > 0 for token in counts)
    for token in p.argsort(descending=True)[:5].tolist():
        expected = p[token].item()
        # Five standard deviations of a binomial share.
        assert abs(counts[token] / n - expected) < 5 * (expected * (1 - expected) / n) ** 0.5 + 1e-3


def test_the_nucleus_keeps_the_token_that_crosses_top_p():
    # Without layers the last norm makes (sqrt(32), 0, ...) of every token, so logits are sqrt(32) x 2.0, 1.8 and -1.0:
    # p(A) = 1 / (1 + exp(-0.2 sqrt(32))) = 0.756, p(B) = 0.244, all others under 1e-7.
    base = always(9)
    with torch.no_grad():
        base.model.embed_tokens.weight[:, 0] = -1.0
        base.model.embed_tokens.weight[9:11, 0] = torch.tensor([2.0, 1.8])
    drawn = {}
    for top_p in (0.7, 0.8):
        out = generate(base, TOKENIZER, [[9]] * 64, max_new_tokens=1, temperature=1.0, top_p=top_p)
        drawn[top_p] = {g.token_ids[0] for g in out}
    assert drawn == {0.7: {9}, 0.8: {9, 10}}


def test_end_of_turn_truncation_and_emptiness():
    word = TOKENIZER("Ada", add_special_tokens=False)["input_ids"][0]
    (cut,) = generate(always(word), TOKENIZER, [[7, 8]], max_new_tokens=3, temperature=0)
    assert (cut.token_ids, cut.status) == ((word,) * 3, "truncated")
    assert cut.text == TOKENIZER.decode([word]) * 3
    (empty,) = generate(always(END), TOKENIZER, [[7, 8]], max_new_tokens=3, temperature=0)
    assert (empty.text, empty.token_ids, empty.status) == ("", (END,), "empty")


def test_rows_that_end_early_are_not_padded_in_the_result(model):
    seeds = list(range(40))
    out = generate(model, TOKENIZER, [PROMPTS[0]] * 40, max_new_tokens=40, temperature=3.0, seeds=seeds)
    ended = [g for g in out if g.status == "ok"]
    assert ended  # temperature 3 is near uniform over 300 tokens: about 1 - (299/300)**40 = 12 % of rows end
    assert all(g.token_ids.count(END) == 1 and g.token_ids[-1] == END for g in ended)
    assert all(END not in g.token_ids and len(g.token_ids) == 40 for g in out if g.status == "truncated")


def test_the_models_own_sampling_defaults_do_not_matter_but_its_end_tokens_do(model):
    plain = generate(model, TOKENIZER, PROMPTS, max_new_tokens=6, temperature=1.0, seed=5)
    hub = GenerationConfig(do_sample=True, top_k=1, temperature=0.1, repetition_penalty=9.0, no_repeat_ngram_size=1)
    model.generation_config = hub
    assert generate(model, TOKENIZER, PROMPTS, max_new_tokens=6, temperature=1.0, seed=5) == plain
    assert model.generation_config is hub
    word = TOKENIZER("Ada", add_special_tokens=False)["input_ids"][0]
    base = always(word)
    base.generation_config = GenerationConfig(eos_token_id=[END, word])
    assert generate(base, TOKENIZER, [[7]], max_new_tokens=3, temperature=0)[0].token_ids == (word,)


def test_repetition_penalty_reaches_greedy_decoding(model):
    (free,) = generate(always(9), TOKENIZER, [[7]], max_new_tokens=4, temperature=0)
    (held,) = generate(always(9), TOKENIZER, [[7]], max_new_tokens=4, temperature=0, repetition_penalty=4.0)
    assert len(set(free.token_ids)) == 1 < len(set(held.token_ids))


def test_an_adapter_takes_part(model):
    plain = generate(model, TOKENIZER, PROMPTS, max_new_tokens=6, temperature=0)
    adapted = new_adapter(model, SimpleNamespace(r=4, alpha=8, dropout=0.0, seed=0))
    assert generate(adapted, TOKENIZER, PROMPTS, max_new_tokens=6, temperature=0) == plain  # begins as its base
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    assert generate(adapted, TOKENIZER, PROMPTS, max_new_tokens=6, temperature=0) != plain


def test_ranks_with_sharded_weights_make_equally_many_calls(model, monkeypatch):
    calls = []
    engine = model.generate
    alone = generate(model, TOKENIZER, PROMPTS, max_new_tokens=2, temperature=1.0, batch_size=4)
    monkeypatch.setattr(model, "generate", lambda **kw: (calls.append("generate"), engine(**kw | {"synced_gpus": False}))[1])
    monkeypatch.setattr("coevo.lm.generation.is_sharded", lambda model: True)
    most = lambda count, device: (calls.append("reduce"), 5)[1]  # noqa: E731  # the other rank has 5 batches
    monkeypatch.setattr("coevo.lm.generation.most_over_ranks", most)
    assert generate(model, TOKENIZER, PROMPTS, max_new_tokens=2, temperature=1.0, batch_size=4) == alone
    assert calls == ["reduce", *["generate"] * 5]  # 9 prompts are 3 batches; two more are idle


def test_mode_is_restored(model):
    model.train()
    generate(model, TOKENIZER, PROMPTS[:1], max_new_tokens=1, temperature=0)
    assert model.training


def test_bad_input_is_named(model):
    with pytest.raises(DataError, match="prompt 1: has no tokens"):
        generate(model, TOKENIZER, [[5], []], max_new_tokens=1, temperature=0)
    with pytest.raises(DataError, match="prompt 0: 60 tokens and 5 new ones exceed the model's 64 positions"):
        generate(model, TOKENIZER, [[5] * 60], max_new_tokens=5, temperature=0)
    with pytest.raises(ConfigError, match="temperature -1"):
        generate(model, TOKENIZER, [[5]], max_new_tokens=1, temperature=-1)


def test_no_prompts_give_no_texts(model):
    assert generate(model, TOKENIZER, [], max_new_tokens=1, temperature=0) == []


GROUPS = [prompt for prompt in PROMPTS if len(prompt) > 1 for _ in range(3)]


@pytest.fixture
def reads(model, monkeypatch):
    """How many tokens each forward call was fed."""
    fed = []

    def note(_, args, given):
        fed.append((given["input_ids"] if "input_ids" in given else args[0]).numel())

    model.register_forward_pre_hook(note, with_kwargs=True)
    monkeypatch.setattr(generation, "SPARED_FLOPS", 0.0)
    return fed


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_equal_prompts_are_read_once_and_give_what_they_give_alone(model, reads, temperature):
    alone = [
        generate(model, TOKENIZER, [prompt], max_new_tokens=6, temperature=temperature, seeds=[place])[0]
        for place, prompt in enumerate(GROUPS)
    ]
    reads.clear()
    out = generate(model, TOKENIZER, GROUPS, max_new_tokens=6, temperature=temperature, seeds=range(len(GROUPS)))
    assert out == alone
    distinct = len(GROUPS) // 3
    assert reads[:2] == [distinct * (max(map(len, GROUPS)) - 1), len(GROUPS)]


def test_little_to_spare_is_read_as_ever(model, reads, monkeypatch):
    monkeypatch.undo()
    generate(model, TOKENIZER, GROUPS, max_new_tokens=2, temperature=0)
    assert reads[0] == len(GROUPS) * max(map(len, GROUPS))


def test_a_prompt_of_one_token_has_no_cache_to_share(model, reads):
    out = generate(model, TOKENIZER, [[7], [7], PROMPTS[0]], max_new_tokens=4, temperature=0)
    assert [g.token_ids for g in out] == [naive_greedy(model, prompt, 4) for prompt in ([7], [7], PROMPTS[0])]


def test_others_calls_of_generate_read_equal_prompts_once(model, reads):
    ids = torch.tensor([PROMPTS[1]] * 4)
    settings = GenerationConfig(max_new_tokens=3, do_sample=False, pad_token_id=END, eos_token_id=END)
    with torch.no_grad():
        plain = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        reads.clear()
        with equal_prompts_once(model):
            shared = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    assert shared.tolist() == plain.tolist()
    assert reads[:2] == [len(PROMPTS[1]) - 1, 4]
    assert "generate" not in vars(model)
