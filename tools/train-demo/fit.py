"""Fits the dictionaries and lenses of the demo model, on a CPU, in a quarter of an hour.

    python fit.py --text corpus.txt --heldout heldout.txt --out ../../assets/fitted --tokens 1500000

- Two sparse autoencoders (batch top-k, Bussmann et al. 2024), of the residual stream that enters blocks 2 and 3,
  written in SAELens's layout as jumprelu, in float16.
- A tuned lens (Belrose et al. 2023): for each block an affine map, fitted to the final distribution by KL.
- A Jacobian lens: the mean Jacobian of what leaves the last block with respect to what leaves block l, as
  TransformerLens 4 fits it: summed over target positions, averaged over source positions, without the first 16
  positions and the last.

The documents are cut as `actscope corpus run --bos` cuts them: each piece after BOS. BOS itself, whose activations
are unlike all others, is left out.
"""

import argparse
import json
import os
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, "..", "..", "assets", "demo")

parser = argparse.ArgumentParser()
parser.add_argument("--text", required=True)
parser.add_argument("--heldout", required=True)
parser.add_argument("--out", required=True)
parser.add_argument("--tokens", type=int, default=3_000_000)
parser.add_argument("--features", type=int, default=896)
parser.add_argument("--k", type=int, default=16)
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--only", default="sae,tuned,jacobian")
args = parser.parse_args()

torch.manual_seed(0)
model = GPT2LMHeadModel.from_pretrained(DEMO, attn_implementation="eager", torch_dtype=torch.float32).eval()
for p in model.parameters():
    p.requires_grad_(False)
config, body = model.config, model.transformer
C, L, T = config.n_embd, config.n_layer, config.n_positions
tokenizer = Tokenizer.from_file(os.path.join(DEMO, "tokenizer.json"))
BOS = config.bos_token_id


def pieces(path, n_tokens):
    """(pieces, T) of ids, each after BOS."""
    text = open(path, encoding="utf8").read(n_tokens * 6)
    ids = []
    for document in text.split("<|endoftext|>\n"):
        new = tokenizer.encode(document).ids
        for at in range(0, len(new) - T + 2, T - 1):
            ids.append([BOS] + new[at : at + T - 1])
        if len(ids) * T >= n_tokens:
            break
    return torch.tensor(ids[: n_tokens // T])


train, heldout = pieces(args.text, args.tokens), pieces(args.heldout, 100_000)
train = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))]
print(f"{train.numel()} tokens, {heldout.numel()} held out", flush=True)


@torch.no_grad()
def streams(ids):
    """What enters each block, and what leaves the last: a list of (B, T, C)."""
    kept = []
    handles = [block.register_forward_pre_hook(lambda _, x: kept.append(x[0])) for block in body.h]
    handles.append(body.ln_f.register_forward_pre_hook(lambda _, x: kept.append(x[0])))
    body(ids)
    for handle in handles:
        handle.remove()
    return kept


def unembed(x):
    return model.lm_head(body.ln_f(x))


@torch.no_grad()
def spliced_loss(ids, layer, replace):
    handle = body.h[layer].register_forward_pre_hook(
        lambda _, x: (torch.cat([x[0][:, :1], replace(x[0][:, 1:])], 1), *x[1:])
    )
    logits = model(ids).logits
    handle.remove()
    return F.cross_entropy(logits[:, 1:-1].flatten(0, 1), ids[:, 2:].flatten()).item()


class Sae:
    def __init__(self, x):
        n = args.features
        self.b_dec = x[:4096].mean(0).clone()
        directions = F.normalize(torch.randn(n, C), dim=-1)
        self.w_dec, self.w_enc, self.b_enc = directions.clone(), directions.T.clone() * 0.5, torch.zeros(n)
        self.all = [self.w_enc, self.b_enc, self.w_dec, self.b_dec]
        for p in self.all:
            p.requires_grad_(True)
        self.threshold, self.since = torch.tensor(0.0), torch.zeros(n)

    def hidden(self, x):
        return torch.relu((x - self.b_dec) @ self.w_enc + self.b_enc)

    def train_step(self, x):
        h = self.hidden(x)
        least = h.detach().flatten().topk(args.k * len(x)).values[-1]
        f = h * (h >= least)
        error = x - (f @ self.w_dec + self.b_dec)
        loss = error.pow(2).sum(-1).mean()
        self.since = torch.where((f > 0).any(0), torch.zeros_like(self.since), self.since + len(x))
        dead = self.since > 200_000
        if dead.any():
            # Features that do nothing learn what is left.
            aux = h * dead
            top = aux.topk(min(32, int(dead.sum())), -1)
            aux = torch.zeros_like(aux).scatter(-1, top.indices, top.values)
            loss = loss + (error.detach() - aux @ self.w_dec).pow(2).sum(-1).mean() / 32
        self.threshold = 0.99 * self.threshold + 0.01 * least if self.threshold > 0 else least
        return loss, f

    @torch.no_grad()
    def encode(self, x):
        h = self.hidden(x)
        return h * (h > self.threshold)

    @torch.no_grad()
    def forward(self, x):
        return self.encode(x) @ self.w_dec + self.b_dec


def fit_sae(layer):
    n = len(train) * (T - 1)
    x = torch.empty(n, C, dtype=torch.float16)
    for at in range(0, len(train), 32):
        some = streams(train[at : at + 32])[layer][:, 1:].reshape(-1, C)
        x[at * (T - 1) : at * (T - 1) + len(some)] = some.half()
    sae = Sae(x[:4096].float())
    batch, steps = 2048, args.epochs * n // 2048
    optimiser = torch.optim.Adam(sae.all, lr=1e-3, betas=(0.9, 0.999))
    start, order = time.time(), torch.randperm(n)
    for step in range(steps):
        at = step * batch % (n - batch)
        if at < batch:
            order = torch.randperm(n)
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, step / 200, (steps - step) / (0.2 * steps))
        loss, f = sae.train_step(x[order[at : at + batch]].float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            sae.w_dec.copy_(F.normalize(sae.w_dec, dim=-1))
        if step % 500 == 0:
            l0 = (f > 0).float().sum(-1).mean()
            dead = int((sae.since > 200_000).sum())
            print(f"sae {layer}: step {step}/{steps} loss {loss:.3f} L0 {l0:.1f} dead {dead} {time.time()-start:.0f} s", flush=True)
    # As it is stored.
    with torch.no_grad():
        for p in sae.all:
            p.copy_(p.half().float())
    missed = total = active = 0.0
    losses = torch.zeros(3)
    seen = torch.zeros(args.features, dtype=torch.bool)
    every = torch.cat([streams(heldout[at : at + 32])[layer][:, 1:].reshape(-1, C) for at in range(0, len(heldout), 32)])
    mean = every.mean(0)
    for at in range(0, len(every), 8192):
        some = every[at : at + 8192]
        f = sae.encode(some)
        missed += (some - sae.forward(some)).pow(2).sum().item()
        total += (some - mean).pow(2).sum().item()
        active += (f > 0).sum().item()
        seen |= (f > 0).any(0)
    for at in range(0, len(heldout), 32):
        ids = heldout[at : at + 32]
        ways = [lambda x: x, sae.forward, lambda x: mean.expand_as(x)]
        losses += torch.tensor([spliced_loss(ids, layer, way) * len(ids) for way in ways])
    clean, spliced, ablated = (losses / len(heldout)).tolist()
    about = {
        "l0": active / len(every),
        "explained": 1 - missed / total,
        "loss": clean,
        "loss_spliced": spliced,
        "loss_mean_ablated": ablated,
        "loss_recovered": (ablated - spliced) / (ablated - clean),
        "dead": int((~seen).sum()),
    }
    print(layer, about, flush=True)
    folder = os.path.join(args.out, f"resid_pre.{layer}")
    os.makedirs(folder, exist_ok=True)
    half = {
        "W_enc": sae.w_enc, "b_enc": sae.b_enc, "W_dec": sae.w_dec, "b_dec": sae.b_dec,
        "threshold": sae.threshold.expand(args.features),
    }
    save_file({k: v.detach().half().contiguous() for k, v in half.items()}, os.path.join(folder, "sae_weights.safetensors"))
    cfg = {
        "architecture": "jumprelu", "d_in": C, "d_sae": args.features, "dtype": "float16", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"model_name": "demo", "hook_name": f"blocks.{layer}.hook_resid_pre", "prepend_bos": True,
                     "k": args.k, "heldout": {k: round(v, 4) for k, v in about.items()}},
    }
    json.dump(cfg, open(os.path.join(folder, "cfg.json"), "w"), indent=1)


def fit_tuned():
    weights = torch.zeros(L, C, C, requires_grad=True)
    biases = torch.zeros(L, C, requires_grad=True)
    optimiser = torch.optim.Adam([weights, biases], lr=1e-3)
    steps = 600
    for step in range(steps):
        at = step * 16 % (len(train) - 16)
        xs = [x[:, 1:].reshape(-1, C)[::2] for x in streams(train[at : at + 16])]
        target = F.log_softmax(unembed(xs[-1]), -1)
        loss = sum(
            F.kl_div(F.log_softmax(unembed(x + x @ weights[l].T + biases[l]), -1), target, log_target=True, reduction="batchmean")
            for l, x in enumerate(xs[:-1])
        )
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1, step / 50, (steps - step) / (0.5 * steps))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 100 == 0:
            print(f"tuned lens: step {step}/{steps} kl {loss.item() / L:.4f}", flush=True)
    kl = torch.zeros(2, L)
    with torch.no_grad():
        for at in range(0, len(heldout), 32):
            xs = [x[:, 1:].reshape(-1, C) for x in streams(heldout[at : at + 32])]
            target = F.log_softmax(unembed(xs[-1]), -1)
            for l, x in enumerate(xs[:-1]):
                for i, y in enumerate([x, x + x @ weights[l].T + biases[l]]):
                    kl[i, l] += F.kl_div(F.log_softmax(unembed(y), -1), target, log_target=True, reduction="sum") / (len(heldout) * (T - 1))
    print("kl of the logit lens", kl[0].tolist(), "of the tuned lens", kl[1].tolist(), flush=True)
    folder = os.path.join(args.out, "tuned_lens")
    os.makedirs(folder, exist_ok=True)
    state = {f"{l}.weight": weights[l].detach().half() for l in range(L)} | {f"{l}.bias": biases[l].detach().half() for l in range(L)}
    save_file(state, os.path.join(folder, "params.safetensors"))
    json.dump({"heldout_kl": {"logit_lens": kl[0].tolist(), "tuned_lens": kl[1].tolist()}}, open(os.path.join(folder, "about.json"), "w"))


def fit_jacobian():
    n_prompts, length = 48, 128
    ids = train[:n_prompts, :length]
    sums = torch.zeros(L - 1, C, C)
    sources = range(16, length - 1)
    kept = []
    handles = [block.register_forward_hook(lambda _, a, out: kept.append(out[0] if isinstance(out, tuple) else out)) for block in body.h]
    handles.append(body.h[0].register_forward_pre_hook(lambda _, x: (x[0].detach().requires_grad_(True), *x[1:])))
    start = time.time()
    for at in range(0, n_prompts, 16):
        kept.clear()
        body(ids[at : at + 16])
        last = kept[-1][:, sources.start : sources.stop].sum((0, 1))
        for i in range(C):
            grads = torch.autograd.grad(last[i], kept[:-1], retain_graph=i + 1 < C)
            for l, grad in enumerate(grads):
                sums[l, i] += grad[:, sources.start : sources.stop].mean(1).sum(0)
    for handle in handles:
        handle.remove()
    jacobians = sums / n_prompts
    print(f"jacobian lens: {time.time() - start:.0f} s", flush=True)
    kl = torch.zeros(L - 1)
    with torch.no_grad():
        for at in range(0, len(heldout), 32):
            xs = [x[:, 1:].reshape(-1, C) for x in streams(heldout[at : at + 32])]
            target = F.log_softmax(unembed(xs[-1]), -1)
            for l in range(L - 1):
                y = unembed(xs[l + 1] @ jacobians[l].T)
                kl[l] += F.kl_div(F.log_softmax(y, -1), target, log_target=True, reduction="sum") / (len(heldout) * (T - 1))
    print("kl of the jacobian lens", kl.tolist(), flush=True)
    folder = os.path.join(args.out, "jacobian_lens")
    os.makedirs(folder, exist_ok=True)
    save_file({str(l): jacobians[l].half().contiguous() for l in range(L - 1)}, os.path.join(folder, "jacobians.safetensors"))
    json.dump({"n_prompts": n_prompts, "heldout_kl": kl.tolist()}, open(os.path.join(folder, "about.json"), "w"))


only = args.only.split(",")
if "tuned" in only:
    fit_tuned()
if "jacobian" in only:
    fit_jacobian()
if "sae" in only:
    for layer in (2, 3):
        fit_sae(layer)
