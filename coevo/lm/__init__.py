"""Language models: loading, likelihoods, generation, and a small base that is made in seconds."""

from coevo.lm.generation import Generated, generate
from coevo.lm.likelihood import encode_pair, encode_prompt, render, sanitize, sanitize_messages, score_pairs
from coevo.lm.lineage import check_lineage, read_lineage, tensors_hash, weights_hash, write_lineage
from coevo.lm.loading import load_base, load_policy, load_tokenizer, new_adapter, save_policy
from coevo.lm.small import Shape, build_base, save_base, train_tokenizer

__all__ = [
    "Generated",
    "Shape",
    "build_base",
    "check_lineage",
    "encode_pair",
    "encode_prompt",
    "generate",
    "load_base",
    "load_policy",
    "load_tokenizer",
    "new_adapter",
    "read_lineage",
    "render",
    "sanitize",
    "sanitize_messages",
    "save_base",
    "save_policy",
    "score_pairs",
    "tensors_hash",
    "train_tokenizer",
    "weights_hash",
    "write_lineage",
]
