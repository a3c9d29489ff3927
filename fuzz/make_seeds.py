"""Writes the seeds that are not fixtures: python make_seeds.py (needs torch and safetensors)."""

import io
import json
import zipfile
from pathlib import Path

import torch
from safetensors.torch import save

SEEDS = Path(__file__).parent / "seeds"
V, T, C, INNER = 16, 8, 8, 16

torch.manual_seed(0)
SHAPES = {
    "wte.weight": (V, C),
    "wpe.weight": (T, C),
    "h.0.ln_1.weight": (C,),
    "h.0.ln_1.bias": (C,),
    "h.0.attn.c_attn.weight": (C, 3 * C),
    "h.0.attn.c_attn.bias": (3 * C,),
    "h.0.attn.c_proj.weight": (C, C),
    "h.0.attn.c_proj.bias": (C,),
    "h.0.ln_2.weight": (C,),
    "h.0.ln_2.bias": (C,),
    "h.0.mlp.c_fc.weight": (C, INNER),
    "h.0.mlp.c_fc.bias": (INNER,),
    "h.0.mlp.c_proj.weight": (INNER, C),
    "h.0.mlp.c_proj.bias": (C,),
    "ln_f.weight": (C,),
    "ln_f.bias": (C,),
}
WEIGHTS = {name: torch.randn(shape) / 4 for name, shape in SHAPES.items()}


def write(target, name, data):
    place = SEEDS / target
    place.mkdir(parents=True, exist_ok=True)
    (place / name).write_bytes(data if isinstance(data, bytes) else data.encode())


def saved(value, **how):
    out = io.BytesIO()
    torch.save(value, out, **how)
    return out.getvalue()


def pickle_of(archive):
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        return files.read(next(name for name in files.namelist() if name.endswith("data.pkl")))


config = {"model_type": "gpt2", "vocab_size": V, "n_positions": T, "n_embd": C, "n_layer": 1, "n_head": 2, "n_inner": INNER}
write("configs", "plain", json.dumps(config))
aliases = {"hidden_size": C, "num_attention_heads": 2, "num_hidden_layers": 1, "max_position_embeddings": T}
write("configs", "aliases", json.dumps({"model_type": "gpt2", "vocab_size": V, "n_inner": INNER, **aliases}))
switches = {"activation_function": "relu", "layer_norm_epsilon": 1e-3, "scale_attn_by_inverse_layer_idx": True,
            "tie_word_embeddings": True, "bos_token_id": [15, 1], "eos_token_id": None}
write("configs", "switches", json.dumps(config | switches))

half = {name: tensor.half() for name, tensor in WEIGHTS.items()}
write("weights", "plain", save(WEIGHTS, {"format": "pt"}))
write("weights", "half", save(half))
write("weights", "prefixed", save({f"transformer.{name}": tensor for name, tensor in half.items()}))
index = {"metadata": {}, "weight_map": dict.fromkeys(SHAPES, "a.safetensors")}
write("weights", "shard", json.dumps(index).encode() + b"\0" + save(half))

write("pickles", "archive", saved(WEIGHTS))
write("pickles", "old", saved(half, _use_new_zipfile_serialization=False))
for protocol in range(2, 6):
    write("pickles", f"pickle{protocol}", pickle_of(saved(WEIGHTS, pickle_protocol=protocol)))
nested = {"model": {f"_orig_mod.{name}": torch.nn.Parameter(tensor) for name, tensor in WEIGHTS.items()}, "step": 3}
write("pickles", "nested", pickle_of(saved(nested)))

pieces = "a b c d e t h Ġ Ã © Ċ".split() + ["Ġt", "he", "Ġthe"]
vocab = {piece: i for i, piece in enumerate(pieces)}
added = [{"id": len(vocab), "content": "<|endoftext|>", "special": True, "single_word": False, "lstrip": False,
          "rstrip": False, "normalized": False}]
byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
bpe = {"type": "BPE", "vocab": vocab, "merges": ["Ġ t", "h e", "Ġt he"]}
words = {"[UNK]": 0, "the": 1, "cat": 2, "##s": 3}
kinds = {
    "bpe": {"added_tokens": added, "pre_tokenizer": byte_level, "decoder": byte_level, "model": bpe},
    "bpe_pairs": {"pre_tokenizer": byte_level, "model": bpe | {"merges": [["Ġ", "t"], ["h", "e"]], "unk_token": None}},
    "metaspace": {
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True},
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "vocab": {"<unk>": 0, "<0xC3>": 1, "<0xA9>": 2, "▁": 3, "a": 4, "▁a": 5},
                  "merges": ["▁ a"], "byte_fallback": True, "unk_token": "<unk>", "fuse_unk": True},
    },
    "wordpiece": {
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [], "special_tokens": {}},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": words},
    },
    "wordlevel": {"pre_tokenizer": {"type": "Whitespace"}, "model": {"type": "WordLevel", "vocab": words, "unk_token": "[UNK]"}},
    "unigram": {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}]},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\w+|\\s"}, "behavior": "Isolated", "invert": False},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["the", -2.5]], "byte_fallback": False},
    },
}
for name, kind in kinds.items():
    write("tokenizers", name, json.dumps({"version": "1.0"} | kind, ensure_ascii=False) + "\0 the cafés\n")

changes = ["zero head:0.1", "mean mlp:0@2", "scale resid_pre.0@1=0.5", "add resid_mid.0@2:1-0=1e-9", "knockout 0.1:2->0",
           "patch attn:0 from 1,2,3", "patch resid_post.0@1 from 2 of 4,5,6", "zero neuron:0.3", "zero position:2"]
for i, change in enumerate(changes):
    write("interventions", str(i), change)
saved_changes = [{"change": change, "on": i % 2 == 0, "name": f"n{i}"} for i, change in enumerate(changes)]
write("interventions", "list", json.dumps(saved_changes))
