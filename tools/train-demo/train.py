#!/usr/bin/env python3
"""Train actscope's demo model: a small GPT-2, from any text file to a Hugging Face checkpoint with its card.

    train.py prepare --text corpus.txt --heldout heldout.txt     tokenizer.json and token files      (minutes)
    train.py train   --steps 3000 | --minutes 90                 checkpoints in WORK, model in OUT   (hours on a CPU, minutes on a GPU)
    train.py eval    --heldout heldout.txt                       scores of OUT, through transformers (minutes)
    train.py card    --books books.txt                           OUT/MODEL_CARD.md with those scores

Documents are separated by a line <|endoftext|>. Folders: --work (default work), --out (default out).
With --steps a run can be repeated exactly on the same machine; --minutes ends it by the clock.
"""
import argparse, json, math, os, random, time
from concurrent.futures import ThreadPoolExecutor
os.environ["OMP_NUM_THREADS"] = "1"  # each worker thread below computes alone: faster than threads that wait for each other
import numpy as np, torch, torch.nn as nn, torch.nn.functional as F

EOT = "<|endoftext|>"

# ---------------------------------------------------------------- text and tokenizer
def documents(path):
    with open(path, encoding="utf-8") as f: text = f.read()
    return [d for d in text.split(f"\n{EOT}\n") if d]

def prepare(a):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    os.makedirs(a.work, exist_ok=True); os.makedirs(a.out, exist_ok=True)
    docs, held = documents(a.text), documents(a.heldout)
    random.Random(a.seed).shuffle(docs)
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(docs[::4], trainers.BpeTrainer(vocab_size=a.vocab, special_tokens=[EOT], show_progress=False,
                                                           initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tok.save(f"{a.out}/tokenizer.json")
    for name, ds in (("train", docs), ("heldout", held)):
        ids, nbytes = [], 0
        for i in range(0, len(ds), 256):
            for e in tok.encode_batch(ds[i:i + 256], add_special_tokens=False): ids.append(np.array(e.ids + [0], np.uint16))
        ids = np.concatenate(ids); nbytes = sum(len(d.encode()) for d in ds)
        np.save(f"{a.work}/{name}.npy", ids)
        print(f"{name}: {len(ds)} documents, {nbytes} bytes, {len(ids)} tokens, {nbytes / len(ids):.3f} bytes per token", flush=True)
        if name == "heldout": json.dump({"bytes": nbytes}, open(f"{a.work}/heldout.json", "w"))

# ---------------------------------------------------------------- model: exactly GPT-2, with q, k and v apart
class Block(nn.Module):
    def __init__(s, C, H):
        super().__init__()
        s.H = H; s.ln_1, s.ln_2 = nn.LayerNorm(C), nn.LayerNorm(C)
        s.qkv, s.proj, s.fc, s.out = nn.Linear(C, 3 * C), nn.Linear(C, C), nn.Linear(C, 4 * C), nn.Linear(4 * C, C)
    def forward(s, x):
        B, T, C = x.shape
        q, k, v = s.qkv(s.ln_1(x)).view(B, T, 3, s.H, C // s.H).permute(2, 0, 3, 1, 4)
        x = x + s.proj(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C))
        return x + s.out(F.gelu(s.fc(s.ln_2(x)), approximate="tanh"))

class GPT(nn.Module):
    def __init__(s, V, T, C, H, L, prev=0.0):
        super().__init__()
        s.wte, s.wpe = nn.Embedding(V, C), nn.Embedding(T, C)
        s.h = nn.ModuleList(Block(C, H) for _ in range(L)); s.ln_f = nn.LayerNorm(C)
        std, n, d = C ** -0.5, C // 2, C // H // 2             # large enough that the tied head can be sure of a token
        nn.init.normal_(s.wte.weight, std=std)
        f = 2 * torch.exp(-math.log(2000) * torch.arange(n) / n); p = torch.arange(T)[:, None] * f
        s.wpe.weight.data = std * 2 ** 0.5 * torch.cat([p.sin(), p.cos()], 1) # sinusoids of the size of wte
        for b in s.h:
            for m in (b.qkv, b.fc): nn.init.normal_(m.weight, std=C ** -0.5)
            for m in (b.proj, b.out): nn.init.normal_(m.weight, std=(2 * L * C) ** -0.5)
            for m in (b.qkv, b.fc, b.proj, b.out): nn.init.zeros_(m.bias)
        if prev: # head 0.0 begins as a previous-token head: it compares wpe's fastest sinusoids, turned back by one position
            q, k = s.h[0].qkv.weight.data[:2 * d], s.h[0].qkv.weight.data[C:C + 2 * d]; q.zero_(); k.zero_(); i = torch.arange(d)
            c, t = prev * f[:d].cos(), prev * f[:d].sin()
            k[i, i], k[d + i, n + i] = prev, prev
            q[i, i], q[i, n + i], q[d + i, n + i], q[d + i, i] = c, -t, c, t
            s.wte.weight.data[:, :d] = 0; s.wte.weight.data[:, n:n + d] = 0
    def forward(s, ids, targets):
        x = s.wte(ids) + s.wpe.weight[:ids.shape[1]]
        for b in s.h: x = b(x)
        return F.cross_entropy(F.linear(s.ln_f(x), s.wte.weight).flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none")

def export(model, a, folder):
    """Hugging Face's layout (Conv1D weights are [in, out]), float16."""
    from safetensors.torch import save_file
    w = {}
    for n, p in model.state_dict().items():
        for old, new in ((".qkv.", ".attn.c_attn."), (".proj.", ".attn.c_proj."), (".fc.", ".mlp.c_fc."), (".out.", ".mlp.c_proj.")):
            if old in n: n = n.replace(old, new); p = p.T if n.endswith("weight") else p
        w["transformer." + n] = p.half().contiguous()
    os.makedirs(folder, exist_ok=True); save_file(w, f"{folder}/model.safetensors", {"format": "pt"})
    json.dump(dict(architectures=["GPT2LMHeadModel"], model_type="gpt2", vocab_size=a.vocab, n_positions=a.ctx, n_ctx=a.ctx, n_embd=a.width,
                   n_layer=a.layers, n_head=a.heads, n_inner=None, activation_function="gelu_new", layer_norm_epsilon=1e-5,
                   scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, reorder_and_upcast_attn=False, tie_word_embeddings=True,
                   bos_token_id=0, eos_token_id=0, initializer_range=0.02, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                   torch_dtype="float16"), open(f"{folder}/config.json", "w"), indent=2)

# ---------------------------------------------------------------- optimiser: Muon for the blocks' matrices, Adam for the rest
class Muon(torch.optim.Optimizer):
    """Momentum whose matrix updates are orthogonalised by Newton-Schulz (Jordan et al. 2024); q, k and v count as three matrices."""
    def __init__(s, params, lr, momentum=0.95, wd=0.0): super().__init__(params, dict(lr=lr, momentum=momentum, wd=wd))
    @torch.no_grad()
    def step(s):
        for g in s.param_groups:
            stacks = {}
            for p in g["params"]:
                m = s.state[p].setdefault("m", torch.zeros_like(p)); m.lerp_(p.grad, 1 - g["momentum"])
                u = p.grad.lerp(m, g["momentum"])
                for u, q in zip(u.split(p.shape[1]), p.split(p.shape[1])) if p.shape[0] == 3 * p.shape[1] else [(u, p)]:
                    flip = u.shape[0] > u.shape[1]
                    stacks.setdefault((min(u.shape), max(u.shape)), []).append((u.T if flip else u, q.T if flip else q, max(1, q.shape[0] / q.shape[1]) ** 0.5))
            for items in stacks.values():
                X = torch.stack([u for u, _, _ in items]); X = X / (X.norm(dim=(1, 2), keepdim=True) + 1e-7)
                for _ in range(5):
                    A = X @ X.mT; X = 3.4445 * X + (-4.7750 * A + 2.0315 * A @ A) @ X
                for (_, q, k), x in zip(items, X): q.mul_(1 - g["lr"] * g["wd"]).sub_(x, alpha=g["lr"] * k)

# ---------------------------------------------------------------- batches
class Batches:
    """Rows of text in shuffled order, and rows in which a stretch of uniform random tokens (sometimes text) comes again and again;
    there the loss counts from the second time on only."""
    def __init__(s, ids, a): s.ids, s.a, s.rng, s.order = ids, a, np.random.default_rng(a.seed), []
    def text(s):
        T = s.a.ctx
        if not len(s.order):
            s.start = int(s.rng.integers(T)); s.order = s.rng.permutation((len(s.ids) - s.start - 1) // T)
        i, s.order = s.start + int(s.order[0]) * T, s.order[1:]
        x = s.ids[i:i + T + 1].astype(np.int64); return x[:-1], x[1:]
    def repeat(s):
        T, V = s.a.ctx, s.a.vocab; n = int(s.rng.integers(8, T // 2 + 1))
        if s.rng.random() < 0.25: j = int(s.rng.integers(len(s.ids) - n)); seg = s.ids[j:j + n].astype(np.int64)
        else: seg = s.rng.integers(0, V, n)
        x = np.resize(seg, T + 1); y = x[1:].copy(); y[:n] = -100; return x[:-1], y
    def batch(s, share):
        k = s.a.batch * share; k = int(k) + (s.rng.random() < k % 1)
        rows = [s.repeat() if i < k else s.text() for i in range(s.a.batch)]
        return (torch.from_numpy(np.stack(c)) for c in zip(*rows)), k

# ---------------------------------------------------------------- training
@torch.no_grad()
def quick_scores(model, held, a, windows=32):
    """Held-out nats per token and mean probability of the right token in the second copy of 50 random ones."""
    dev = model.wte.weight.device; x = torch.from_numpy(held[:windows * a.ctx + 1].astype(np.int64)).to(dev)
    t = model(x[:-1].view(-1, a.ctx), x[1:].view(-1, a.ctx)).mean().item()
    r = torch.randint(0, a.vocab, (32, 50), generator=torch.Generator().manual_seed(1)); r = torch.cat([r, r], 1).to(dev)
    p = (-model(r[:, :-1], r[:, 1:])).exp().view(32, 99)[:, 50:].mean().item()
    return t, p

def train(a):
    torch.manual_seed(a.seed); torch.set_num_threads(1)
    dev = "cuda" if torch.cuda.is_available() else "cpu"
    ids, held = np.load(f"{a.work}/train.npy"), np.load(f"{a.work}/heldout.npy")
    bpt = json.load(open(f"{a.work}/heldout.json"))["bytes"] / len(held)
    model = GPT(a.vocab, a.ctx, a.width, a.heads, a.layers, a.prev).to(dev)
    params = list(model.parameters()); micro = a.batch if dev == "cuda" else 4; pool = ThreadPoolExecutor(1 if dev == "cuda" else a.threads)
    mats = [p for b in model.h for p in b.parameters() if p.dim() == 2]
    rest = [p for p in model.parameters() if not any(p is m for m in mats)]
    opts = [Muon(mats, a.muon_lr, wd=a.wd), torch.optim.AdamW(rest, a.adam_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)]
    data = Batches(ids, a); log = open(f"{a.work}/train.log", "a", buffering=1)
    def say(x): print(x, flush=True); log.write(x + "\n")
    say(f"# {vars(a)} parameters={sum(p.numel() for p in model.parameters())} torch={torch.__version__} {dev}")
    if a.resume: # the same schedule (--steps), text in another order
        w, o, at = torch.load(f"{a.work}/checkpoint/state.pt", map_location=dev); model.load_state_dict(w); data.rng = np.random.default_rng([a.seed, at])
        for x, y in zip(opts, o): x.load_state_dict(y)
    start = saved = time.time(); step, warm, acc, accr = at if a.resume else 0, not a.resume, [], []
    while True:
        elapsed = time.time() - start
        done = max(step / a.steps if a.steps else 0, elapsed / 60 / a.minutes if a.minutes else 0)
        if done >= 1: break
        lr = min(1, (step + 1) / a.warmup) * min(1, (1 - done) / a.decay)
        for o, base in zip(opts, (a.muon_lr, a.adam_lr)):
            for g in o.param_groups: g["lr"] = base * lr
        opts[0].param_groups[0]["momentum"] = 0.85 + 0.10 * min(1, step / 300)
        (x, y), k = data.batch(a.warm_share if warm else a.share)
        x, y = x.to(dev), y.to(dev); used = (y != -100).sum()
        def part(i):
            loss = model(x[i:i + micro], y[i:i + micro]); return loss.detach(), torch.autograd.grad(loss.sum() / used, params)
        losses, grads = zip(*pool.map(part, range(0, a.batch, micro)))
        loss = torch.cat(losses)
        for p, *g in zip(params, *grads): p.grad = torch.stack(g).sum(0)
        nn.utils.clip_grad_norm_(rest, 1.0)
        for o in opts: o.step()
        model.zero_grad(set_to_none=True); step += 1
        with torch.no_grad():
            l = loss.view(a.batch, -1)
            if k: accr.append((l[:k].sum() / (y[:k] != -100).sum()).item())
            if k < a.batch: acc.append(l[k:].mean().item())
        if step % a.every == 0:
            t, p = quick_scores(model, held, a)
            if warm and (p > 0.5 or step >= a.warm_steps): warm = False; say(f"# copying learned: step {step}")
            m = lambda v: sum(v) / len(v) if v else float("nan")
            say(f"step {step} min {(time.time() - start) / 60:.1f} done {done:.3f} lr {lr:.3f} text {m(acc):.3f} repeats {m(accr):.3f} heldout {t:.4f} bpb {t / math.log(2) / bpt:.4f} copy {p:.3f} tok/s {step * a.batch * a.ctx / (time.time() - start):.0f}")
            acc, accr = [], []
        if time.time() - saved > 60 * a.save_minutes:
            saved = time.time(); export(model, a, f"{a.work}/checkpoint"); torch.save([model.state_dict(), [o.state_dict() for o in opts], step], f"{a.work}/checkpoint/state.pt")
    export(model, a, a.out); say(f"# end: {step} steps, {step * a.batch * a.ctx} tokens, {(time.time() - start) / 60:.1f} minutes")

# ---------------------------------------------------------------- scores, through transformers
@torch.no_grad()
def evaluate(a):
    from tokenizers import Tokenizer
    from transformers import GPT2LMHeadModel
    torch.manual_seed(a.seed); tok = Tokenizer.from_file(f"{a.out}/tokenizer.json")
    m = GPT2LMHeadModel.from_pretrained(a.out, attn_implementation="eager", dtype=torch.float32).eval(); c = m.config
    V, T = c.vocab_size, c.n_positions
    docs = documents(a.heldout); nbytes = sum(len(d.encode()) for d in docs)
    ids = torch.tensor([0] + [i for d in docs for i in tok.encode(d, add_special_tokens=False).ids + [0]])
    def nats(stride):          # every token once, with at least T - stride tokens before it; separators count as tokens, not as bytes
        total = 0.0; starts = list(range(0, len(ids) - 1, stride))
        for i in range(0, len(starts), 16):
            rows = [ids[max(0, s - (T - stride)):s + stride + 1] for s in starts[i:i + 16]]
            x = torch.zeros(len(rows), T, dtype=torch.long); y = torch.full((len(rows), T), -100)
            for r, (s, row) in enumerate(zip(starts[i:i + 16], rows)):
                n = len(row) - 1; new = min(stride, len(ids) - 1 - s); x[r, :n] = row[:-1]; y[r, n - new:n] = row[n - new + 1:]
            total += F.cross_entropy(m(x).logits.flatten(0, 1), y.flatten(), ignore_index=-100, reduction="sum").item()
        return total
    r = {"parameters": m.num_parameters(), "heldout_bytes": nbytes, "heldout_tokens": len(ids) - 1}
    total = nats(T); r["nats_per_token"] = total / (len(ids) - 1); r["bits_per_byte"] = total / math.log(2) / nbytes
    if not a.fast: r["bits_per_byte_half_overlap"] = nats(T // 2) / math.log(2) / nbytes
    n = 50; x = torch.randint(0, V, (32, n), generator=torch.Generator().manual_seed(1234)); x = torch.cat([x, x], 1)
    o = m(x, output_attentions=True)
    p = o.logits.softmax(-1)[:, n:-1].gather(-1, x[:, n + 1:, None])
    r["copying_probability"] = p.mean().item(); r["copying_accuracy"] = (o.logits[:, n:-1].argmax(-1) == x[:, n + 1:]).float().mean().item()
    A = torch.stack(o.attentions); q = torch.arange(n, 2 * n - 1)          # [layer, row, head, query, key]
    ind, dup = A[..., q, q - n + 1].mean((1, 3)), A[..., q, q - n].mean((1, 3))
    texts = torch.stack([ids[1 + k * (len(ids) - 300) // 16:][:200] for k in range(16)])
    A = torch.stack(m(texts, output_attentions=True).attentions); q = torch.arange(1, 200)
    prev, first = A[..., q, q - 1].mean((1, 3)), A[..., q, 0].mean((1, 3))
    now = A.diagonal(dim1=-2, dim2=-1).mean((1, 3))
    for name, s in (("previous_token", prev), ("induction", ind), ("duplicate_token", dup), ("first_token", first), ("same_token", now)):
        r[name] = {f"{l}.{h}": round(s[l, h].item(), 3) for l, h in sorted(((l, h) for l in range(c.n_layer) for h in range(c.n_head)), key=lambda k: -s[k].item())}
    r["previous_token_lowest_passage"] = round(A[..., q, q - 1].mean(3).permute(0, 2, 1)[divmod(prev.argmax().item(), c.n_head)].min().item(), 3)
    r["samples"] = []
    for prompt in ("The old man walked slowly down to the sea, and", "\"I do not know,\" said Alice, \"what", "It was a dark and stormy night;"):
        t = torch.tensor([tok.encode(prompt, add_special_tokens=False).ids])
        g = m.generate(t, attention_mask=torch.ones_like(t), max_new_tokens=60, do_sample=True, temperature=0.8, top_k=40, pad_token_id=0)[0]
        r["samples"].append(tok.decode(g.tolist(), skip_special_tokens=False))
    json.dump(r, open(f"{a.work}/scores.json", "w"), indent=1); print(json.dumps(r, indent=1))

# ---------------------------------------------------------------- card
def card(a):
    r, c, log = json.load(open(f"{a.work}/scores.json")), json.load(open(f"{a.out}/config.json")), open(f"{a.work}/train.log").read().splitlines()
    books = [b.strip() for b in open(a.books, encoding="utf-8") if b.strip()] if a.books else []
    top = lambda name, least: ", ".join(f"{h} ({v:.2f})" for h, v in r[name].items() if v >= least) or "none"
    begin, end = [l for l in log if l.startswith("# {")][-1], [l for l in log if l.startswith("# end")][-1]
    learned = [l for l in log if l.startswith("# copying learned")][-1].split(": ")[1]
    quote = lambda s: "> " + s.replace("\n", " ⏎ ")
    open(f"{a.out}/MODEL_CARD.md", "w", encoding="utf-8").write(f"""# The demo model

A GPT-2 of {r['parameters'] / 1e6:.2f}M parameters: {c['n_layer']} layers, {c['n_head']} heads, C={c['n_embd']}, context {c['n_positions']}, byte-level BPE of {c['vocab_size']:,} tokens (`{EOT}` = 0), tied head, gelu_new. Weights in float16 ({os.path.getsize(a.out + '/model.safetensors') / 1e6:.1f} MB). Loads unchanged in Hugging Face transformers. It exists to be looked into: small, fast, with heads that do recognisable things.

## Training

Text: {len(books)} public-domain books in English (below), {int(end.split()[4]):,} tokens in {end.split()[2]} steps ({end.split()[6]} minutes on {begin.split()[-1]}, torch {begin.split('torch=')[1].split()[0]}). Muon (learning rate {a.muon_lr}) for the blocks' matrices, Adam ({a.adam_lr}) for the rest, both falling linearly to 0 after the first {100 * (1 - a.decay):.0f}%; batches of {a.batch} rows of {c['n_positions']} tokens. In some rows a stretch of uniform random tokens (in a quarter of them, of text) comes again and again, and the loss counts from the second time on: {100 * a.warm_share:.0f}% of the rows until copying is learned ({learned}), {100 * a.share:.0f}% after.

`wpe` begins as sinusoids, and the queries and keys of head 0.0 begin by comparing them one position apart: that one head is a previous-token head from the start. The induction heads were not put there: they appeared in training, on the rows of repeats. Program: `tools/train-demo/`.

## Scores

| | |
| --- | --- |
| held-out passages of the same books, not trained on ({r['heldout_bytes']:,} bytes), separate windows of {c['n_positions']} tokens | {r['bits_per_byte']:.3f} bits per byte ({r['nats_per_token']:.3f} nats per token) |
| the same, half of every window as context only | {r['bits_per_byte_half_overlap']:.3f} bits per byte |
| repeated random tokens (2 × 50, whole vocabulary, 32 sequences): probability of the right next token, second copy | {r['copying_probability']:.3f} (first choice {100 * r['copying_accuracy']:.0f}%) |

Heads (layer.head, mean attention):

| role | measured as | heads |
| --- | --- | --- |
| previous token | attention to the token before, 16 held-out passages of 200 tokens | {top('previous_token', 0.3)}; lowest passage of the best {r['previous_token_lowest_passage']:.2f} |
| induction | attention to the token after the earlier occurrence, repeated random tokens | {top('induction', 0.3)} |
| duplicate token | attention to the earlier occurrence, repeated random tokens | {top('duplicate_token', 0.3)} |
| first token | attention to position 0, the same passages | {top('first_token', 0.3)} |
| itself | attention to its own position, the same passages | {top('same_token', 0.3)} |

Samples (60 tokens after the prompt, temperature 0.8, top 40):

""" + "\n\n".join(map(quote, r["samples"])) + f"""

## Not good for

Anything but looking: it knows no facts, loses the thread within a sentence or two, and writes as books did a century ago and longer, prejudices included.

## Text

{"; ".join(books)}.
""")

if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("stage", choices=["prepare", "train", "eval", "card"])
    ap.add_argument("--work", default="work"); ap.add_argument("--out", default="out"); ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--text"); ap.add_argument("--heldout"); ap.add_argument("--books")
    ap.add_argument("--vocab", type=int, default=2048); ap.add_argument("--ctx", type=int, default=256)
    ap.add_argument("--width", type=int, default=192); ap.add_argument("--layers", type=int, default=4); ap.add_argument("--heads", type=int, default=6)
    ap.add_argument("--steps", type=int, default=0); ap.add_argument("--minutes", type=float, default=0)
    ap.add_argument("--batch", type=int, default=32); ap.add_argument("--threads", type=int, default=2)
    ap.add_argument("--muon-lr", type=float, default=0.02); ap.add_argument("--adam-lr", type=float, default=3e-3); ap.add_argument("--wd", type=float, default=0.0)
    ap.add_argument("--prev", type=float, default=2.2)
    ap.add_argument("--warmup", type=int, default=50); ap.add_argument("--decay", type=float, default=0.7)
    ap.add_argument("--warm-share", type=float, default=0.5); ap.add_argument("--warm-steps", type=int, default=600); ap.add_argument("--share", type=float, default=0.06)
    ap.add_argument("--every", type=int, default=25); ap.add_argument("--save-minutes", type=float, default=10)
    ap.add_argument("--resume", action="store_true"); ap.add_argument("--fast", action="store_true", help="eval: skip the second held-out figure")
    a = ap.parse_args()
    {"prepare": prepare, "train": train, "eval": evaluate, "card": card}[a.stage](a)
