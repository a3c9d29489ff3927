"""Tokens per second of Hugging Face's GPT2Model (eager attention, no head) with hooks that keep the running top k of
every neuron, on the same ids as `actscope corpus run ids.npy --reduce top --context 256`.

    python benches/corpus_hf.py MODEL_DIR ids.npy [K]
"""

import sys
import time

import numpy as np
import torch
from transformers import GPT2Model

folder, path, k = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 10
model = GPT2Model.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
ids = torch.from_numpy(np.load(path).astype(np.int64))
best = [None] * model.config.n_layer


def keep(layer):
    def hook(_, __, post):
        rows = post.reshape(-1, post.shape[-1])
        place = torch.arange(seen, seen + len(rows))[:, None].expand(-1, rows.shape[1])
        if best[layer] is not None:
            rows, place = torch.cat([best[layer][0], rows]), torch.cat([best[layer][1], place])
        values, at = rows.topk(min(k, len(rows)), dim=0)
        best[layer] = values, place.gather(0, at)

    return hook


for layer, block in enumerate(model.h):
    block.mlp.act.register_forward_hook(keep(layer))
for batch in (1, 4):
    seen, best = 0, [None] * model.config.n_layer
    with torch.no_grad():
        model(ids[:batch])
        start = time.perf_counter()
        for first in range(0, len(ids), batch):
            model(ids[first : first + batch], use_cache=False)
            seen += ids[first : first + batch].numel()
    seconds = time.perf_counter() - start
    print(f"batches of {batch}: {seen / seconds:.0f} tokens per second, {seconds:.1f} s")
