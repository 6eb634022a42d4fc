"""One reward call as the released code makes it, written anew: a process that loads the model, batches of 4, all logits.

    python -m tests.bench.released MODEL < pairs.json > scores.json

Every position's logits over the whole vocabulary go through a softmax in float32, and the response's are picked out of it.
No more is imported than that needs. Seconds are of processor time; on a GPU, of wall time.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM

BATCH = 4


def score(model: torch.nn.Module, pairs: list[tuple[list[int], list[int]]]) -> list[float]:
    """Nats of each response."""
    device = next(model.parameters()).device
    width = max(len(prompt) + len(response) for prompt, response in pairs)
    ids_BT = torch.zeros((len(pairs), width), dtype=torch.long)
    mask_BT = torch.zeros_like(ids_BT)
    for row, (prompt, response) in enumerate(pairs):
        ids_BT[row, : len(prompt) + len(response)] = torch.tensor([*prompt, *response])
        mask_BT[row, : len(prompt) + len(response)] = 1
    logits_BTV = model(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device)).logits
    logprob_BTV = logits_BTV[:, :-1].float().log_softmax(-1)
    logprob_BT = logprob_BTV.gather(-1, ids_BT[:, 1:, None].to(device)).squeeze(-1).double()
    return [
        logprob_BT[row, len(prompt) - 1 : len(prompt) + len(response) - 1].sum().item()
        for row, (prompt, response) in enumerate(pairs)
    ]


def main() -> None:
    """Prints {"scoring_s": seconds without start and loading, "nats": one a pair}."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
    model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    pairs = json.load(sys.stdin)
    start = clock()
    with torch.no_grad():
        nats = [x for first in range(0, len(pairs), BATCH) for x in score(model, pairs[first : first + BATCH])]
    json.dump({"scoring_s": clock() - start, "nats": nats}, sys.stdout)


if __name__ == "__main__":
    main()
