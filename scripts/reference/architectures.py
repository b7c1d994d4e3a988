#!/usr/bin/env python3
"""Make tiny random models of each supported architecture, for comparison with
another runtime.

    python3 scripts/reference/architectures.py OUT_DIR

writes OUT_DIR/NAME.gguf with F32 tensors, so that a runtime that rounds
activations to the weights' type computes in float32. Needs numpy and gguf.
The logits beside the committed files under testdata/architectures were
computed by llama.cpp at commit c392e509 with a float32 KV cache; those of qwen3
and gemma3, which it lacks, by ik_llama.cpp at commit 8337e4cd with keys in
float32 and values in half precision.
"""
import sys
from pathlib import Path

import gguf
import numpy as np

VOCAB = 320
BASE = dict(arch="llama", hidden=64, ffn=96, layers=3, heads=4, kv_heads=2, head_dim=16, context=256,
            eps=1e-5, theta=10000.0, tied=False, bias=False, qk_norm=False)
LLAMA3 = dict(factor=8.0, low=1.0, high=4.0, orig=32)

CASES = {
    "llama-gqa": {},
    "llama-mha-tied": dict(kv_heads=4, tied=True),
    "llama-llama3": dict(theta=500000.0, llama3=LLAMA3),
    "llama-linear": dict(scaling=("linear", 4.0)),
    "llama-yarn": dict(scaling=("yarn", 4.0), orig=32),
    "mistral": dict(theta=1e6, head_dim=32),
    "qwen2": dict(arch="qwen2", theta=1e6, bias=True),
    "qwen2-yarn": dict(arch="qwen2", theta=1e6, bias=True, scaling=("yarn", 4.0), orig=32),
    "qwen3": dict(arch="qwen3", theta=1e6, head_dim=32, qk_norm=True),
    "qwen3-tied": dict(arch="qwen3", theta=1e6, head_dim=32, qk_norm=True, tied=True),
    "gemma3": dict(arch="gemma3", theta=1e6, head_dim=32, qk_norm=True, tied=True, layers=7, window=12, post_norms=True),
}


def tensors(c, rng):
    def matrix(rows, cols):
        return (rng.standard_normal((rows, cols)) * 1.5 / cols**0.5).astype(np.float32)

    def norm(n):
        return (1 + 0.2 * rng.standard_normal(n)).astype(np.float32)

    yield "token_embd.weight", matrix(VOCAB, c["hidden"])
    q, kv = c["heads"] * c["head_dim"], c["kv_heads"] * c["head_dim"]
    for i in range(c["layers"]):
        b = f"blk.{i}."
        yield b + "attn_norm.weight", norm(c["hidden"])
        for name, rows in ("attn_q", q), ("attn_k", kv), ("attn_v", kv):
            yield b + name + ".weight", matrix(rows, c["hidden"])
            if c["bias"]:
                yield b + name + ".bias", norm(rows) - 1
        if c["qk_norm"]:
            yield b + "attn_q_norm.weight", norm(c["head_dim"])
            yield b + "attn_k_norm.weight", norm(c["head_dim"])
        yield b + "attn_output.weight", matrix(c["hidden"], q)
        yield b + "ffn_norm.weight", norm(c["hidden"])
        yield b + "ffn_gate.weight", matrix(c["ffn"], c["hidden"])
        yield b + "ffn_up.weight", matrix(c["ffn"], c["hidden"])
        yield b + "ffn_down.weight", matrix(c["hidden"], c["ffn"])
        if c.get("post_norms"):
            yield b + "post_attention_norm.weight", norm(c["hidden"])
            yield b + "post_ffw_norm.weight", norm(c["hidden"])
    yield "output_norm.weight", norm(c["hidden"])
    if not c["tied"]:
        yield "output.weight", matrix(VOCAB, c["hidden"])
    if "llama3" in c:
        yield "rope_freqs.weight", llama3_factors(c["llama3"], c["theta"], c["head_dim"])


def write(path, c):
    w = gguf.GGUFWriter(path, c["arch"])
    w.add_context_length(c["context"])
    w.add_embedding_length(c["hidden"])
    w.add_block_count(c["layers"])
    w.add_feed_forward_length(c["ffn"])
    w.add_head_count(c["heads"])
    w.add_head_count_kv(c["kv_heads"])
    w.add_layer_norm_rms_eps(c["eps"])
    w.add_key_length(c["head_dim"])
    w.add_value_length(c["head_dim"])
    w.add_rope_dimension_count(c["head_dim"])
    w.add_rope_freq_base(c["theta"])
    if "window" in c:
        w.add_sliding_window(c["window"])
    if "scaling" in c:
        w.add_rope_scaling_type(gguf.RopeScalingType(c["scaling"][0]))
        w.add_rope_scaling_factor(c["scaling"][1])
        w.add_rope_scaling_orig_ctx_len(c.get("orig", c["context"]))
    byte_level_vocabulary(w)
    for name, data in tensors(c, np.random.default_rng(7)):
        w.add_tensor(name, data)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def llama3_factors(r, theta, head_dim):
    inv = theta ** -(np.arange(0, head_dim, 2) / head_dim)
    out = []
    for f in inv:
        wavelen = 2 * np.pi / f
        if wavelen < r["orig"] / r["high"]:
            out.append(1.0)
        elif wavelen > r["orig"] / r["low"]:
            out.append(r["factor"])
        else:
            smooth = (r["orig"] / wavelen - r["low"]) / (r["high"] - r["low"])
            out.append(1 / ((1 - smooth) / r["factor"] + smooth))
    return np.array(out, dtype=np.float32)


def byte_level_vocabulary(w):
    """256 byte tokens, control tokens and, because readers want one, a merge."""
    keep = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    letters, extra = {}, 256
    for b in range(256):
        if b in keep:
            letters[b] = chr(b)
        else:
            letters[b], extra = chr(extra), extra + 1
    tokens = [letters[b] for b in range(256)] + ["<s>", "</s>"] + [f"<|{i}|>" for i in range(258, VOCAB - 1)] + ["ab"]
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types([1] * 256 + [3] * (VOCAB - 257) + [1])
    w.add_token_merges(["a b"])
    w.add_bos_token_id(256)
    w.add_eos_token_id(257)
    w.add_add_bos_token(False)


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, case in CASES.items():
        write(out / f"{name}.gguf", BASE | case)


if __name__ == "__main__":
    main()
