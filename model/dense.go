package model

import (
	"fmt"
	"math"

	"github.com/apr-engine/apr/graph"
)

// Dense describes how a dense decoder departs from the plain Llama block:
// pre-norm attention with RoPE and grouped queries, then a gated feed-forward
// network, both added to the residual stream.
type Dense struct {
	// Pairing is the RoPE pairing of this architecture's GGUF files. The
	// metadata key "<arch>.rope.pairing" ("halves" or "interleaved"), which only
	// our own converters write, overrides it.
	Pairing graph.Pairing
	Act     graph.Activation
	// QKVBias says the file must have biases for q, k and v. Without it, biases
	// are used where the file has them.
	QKVBias bool
	// QKNorm normalises each query and key head before RoPE (Qwen3, Gemma 3).
	QKNorm bool
	// PostNorms normalises the output of attention and of the network before it
	// joins the residual stream (Gemma).
	PostNorms bool
	// ScaleEmbedding multiplies embeddings by sqrt(Hidden) (Gemma).
	ScaleEmbedding bool
	// GlobalEvery makes every n-th layer attend without the sliding window; 0
	// applies the window, if any, to all layers.
	GlobalEvery int
	// LocalRopeBase is the RoPE base of windowed layers when it differs from the
	// file's; such layers have no frequency scaling. 0 for none.
	LocalRopeBase float64
	// QueryWidth is the d in the attention scale 1/√d; nil for the head's width.
	QueryWidth func(Config) int
}

// Build reads the config of arch and builds the program.
func (d Dense) Build(arch string, md Metadata, w graph.Weights) (*graph.Program, error) {
	c, err := ReadConfig(arch, md, w)
	if err != nil {
		return nil, err
	}
	if s, ok := md.String(arch + ".rope.pairing"); ok {
		switch s {
		case "halves":
			d.Pairing = graph.Halves
		case "interleaved":
			d.Pairing = graph.Interleaved
		default:
			return nil, fmt.Errorf("%w: %s.rope.pairing is %q, want halves or interleaved", ErrConfig, arch, s)
		}
	}
	b := graph.NewBuilder(arch, c.Vocab, c.Hidden, c.Context)
	x := b.Embed("token_embd", "token_embd.weight") // (T, hidden)
	if d.ScaleEmbedding {
		x = b.Scale("token_embd_scaled", x, float32(math.Sqrt(float64(c.Hidden))))
	}
	for i := range c.Layers {
		layer := block{Dense: d, Config: c, Builder: b, w: w, index: i}
		x = layer.attention(x)
		x = layer.feedForward(x)
	}
	x = b.RMSNorm("output_norm", x, "output_norm.weight", c.Hidden, c.RMSEps)
	output := "output.weight"
	if _, ok := w.Tensor(output); !ok {
		output = "token_embd.weight" // tied embeddings
	}
	b.Logits("output", x, output, 0)
	return b.Program()
}

// block builds one layer.
type block struct {
	Dense
	Config
	*graph.Builder
	w     graph.Weights
	index int
}

// name qualifies a value or tensor of this layer.
func (l *block) name(s string) string { return fmt.Sprintf("blk.%d.%s", l.index, s) }

// bias is the name of a projection's bias, or empty if it has none. A required
// bias is named even if absent, so that the check of the weights reports it.
func (l *block) bias(projection string, required bool) string {
	name := l.name(projection + ".bias")
	if _, ok := l.w.Tensor(name); ok || required {
		return name
	}
	return ""
}

// windowed reports whether this layer attends within the sliding window.
func (l *block) windowed() bool {
	return l.Window > 0 && (l.GlobalEvery == 0 || (l.index+1)%l.GlobalEvery != 0)
}

func (l *block) rope() graph.Rope {
	r := l.Rotary
	if l.LocalRopeBase > 0 && l.windowed() {
		r = RopeConfig{Dims: r.Dims, Base: l.LocalRopeBase, Scaling: "none"}
	}
	inv, magnitude := r.Frequencies()
	return graph.Rope{HeadDim: l.HeadDim, Pairing: l.Pairing, InvFreq: inv, Magnitude: magnitude}
}

func (l *block) attention(residual graph.ID) graph.ID {
	x := l.RMSNorm(l.name("attn_norm"), residual, l.name("attn_norm.weight"), l.Hidden, l.RMSEps)
	project := func(p string, heads int) graph.ID { // (T, heads·head_dim)
		return l.MatMul(l.name(p), x, l.name(p+".weight"), l.bias(p, l.QKVBias), heads*l.HeadDim)
	}
	q, k, v := project("attn_q", l.Heads), project("attn_k", l.KVHeads), project("attn_v", l.KVHeads)
	if l.QKNorm {
		q = l.RMSNorm(l.name("attn_q_normed"), q, l.name("attn_q_norm.weight"), l.HeadDim, l.RMSEps)
		k = l.RMSNorm(l.name("attn_k_normed"), k, l.name("attn_k_norm.weight"), l.HeadDim, l.RMSEps)
	}
	rope := l.rope()
	q = l.Rope(l.name("attn_q_rope"), q, rope)
	k = l.Rope(l.name("attn_k_rope"), k, rope)

	cache := graph.Cache{Heads: l.KVHeads, HeadDim: l.HeadDim}
	if l.windowed() {
		cache.Window = l.Window
	}
	d := l.HeadDim
	if l.QueryWidth != nil {
		d = l.QueryWidth(l.Config)
	}
	scale := float32(1 / math.Sqrt(float64(d)))
	x = l.Attention(l.name("attn"), q, l.KVCache(k, v, cache), l.Heads, scale, 0)
	x = l.MatMul(l.name("attn_out"), x, l.name("attn_output.weight"), l.bias("attn_output", false), l.Hidden)
	if l.PostNorms {
		x = l.RMSNorm(l.name("attn_post_norm"), x, l.name("post_attention_norm.weight"), l.Hidden, l.RMSEps)
	}
	return l.Add(l.name("ffn_inp"), residual, x)
}

func (l *block) feedForward(residual graph.ID) graph.ID {
	x := l.RMSNorm(l.name("ffn_norm"), residual, l.name("ffn_norm.weight"), l.Hidden, l.RMSEps)
	gate := l.MatMul(l.name("ffn_gate"), x, l.name("ffn_gate.weight"), "", l.FFN)
	up := l.MatMul(l.name("ffn_up"), x, l.name("ffn_up.weight"), "", l.FFN)
	x = l.GatedAct(l.name("ffn_act"), gate, up, l.Act)
	x = l.MatMul(l.name("ffn_out"), x, l.name("ffn_down.weight"), "", l.Hidden)
	if l.PostNorms {
		x = l.RMSNorm(l.name("ffn_post_norm"), x, l.name("post_ffw_norm.weight"), l.Hidden, l.RMSEps)
	}
	return l.Add(l.name("l_out"), residual, x)
}
