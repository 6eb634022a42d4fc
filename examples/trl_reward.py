"""Train a chat model with bare TRL on coevo's reward.

    python examples/trl_reward.py --model Qwen/Qwen3-0.6B --scorer Qwen/Qwen3-4B --data dialogues.json --out out

The scorer is a chat model as it is, or a run of `coevo train` whose scorer knows your dialogues. With `--url` in its place
the reward is asked of a server (`coevo reward --serve --splits IDTrain …`), and the scorer needs no memory here. To try it
without a hub: `--model coevo/lm/builtin --scorer coevo/lm/builtin`, the small model that coevo brings along.
"""

import argparse
import sys

import torch
from datasets import Dataset
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

import coevo

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--model", required=True)
either = parser.add_mutually_exclusive_group(required=True)
either.add_argument("--scorer", help="a run, or a chat model's folder or hub id")
either.add_argument("--url", help="of a reward server")
parser.add_argument("--data", required=True)
parser.add_argument("--splits", nargs="+", default=["IDTrain"])
parser.add_argument("--out", default="out")
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--learning-rate", type=float, default=1e-6)
options = parser.parse_args()

try:
    scenarios = coevo.load_scenarios(options.data, options.splits)
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    # every token that ends an answer, so that one which the length limit cut off is known
    ends = [tokenizer.eos_token_id]
    if options.url:
        reward = coevo.RemoteReward(options.url, end_ids=ends)
    else:
        reward = coevo.REMIDReward(coevo.load_scorer(options.scorer), scenarios, end_ids=ends)
except coevo.CoevoError as error:
    sys.exit(str(error))

rows = [{"prompt": coevo.chat_messages(x), "sample_id": x.sample_id} for x in scenarios]
settings = GRPOConfig(
    options.out, max_steps=options.steps, num_generations=4, per_device_train_batch_size=8, max_completion_length=64,
    logging_steps=1, report_to="none", save_strategy="no", bf16=torch.cuda.is_available(),
    learning_rate=options.learning_rate,
    chat_template_kwargs={"enable_thinking": False},  # 64 tokens hold no thought
)  # fmt: skip
trainer = GRPOTrainer(options.model, reward, settings, Dataset.from_list(rows), processing_class=tokenizer)
trainer.train()
trainer.save_model(options.out)
