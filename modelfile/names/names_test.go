package names

import (
	"fmt"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name, gguf, hf string
		gemma          bool
	}{
		{"token_embd.weight", "token_embd.weight", "model.embed_tokens.weight", false},
		{"blk.7.attn_q.bias", "blk.7.attn_q.bias", "model.layers.7.self_attn.q_proj.bias", false},
		{"blk.0.ffn_norm.weight", "blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight", false},
		{"blk.0.ffn_norm.weight", "blk.0.ffn_norm.weight", "model.layers.0.pre_feedforward_layernorm.weight", true},
		{"model.layers.0.post_attention_layernorm.weight", "blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight", false},
		{"model.layers.0.post_attention_layernorm.weight", "blk.0.post_attention_norm.weight", "model.layers.0.post_attention_layernorm.weight", true},
		{"model.layers.31.mlp.down_proj.weight", "blk.31.ffn_down.weight", "model.layers.31.mlp.down_proj.weight", false},
		{"language_model.model.layers.2.self_attn.k_norm.weight", "blk.2.attn_k_norm.weight", "model.layers.2.self_attn.k_norm.weight", true},
		{"lm_head.weight", "output.weight", "lm_head.weight", false},
		{"model.norm.weight", "output_norm.weight", "model.norm.weight", false},
		{"rope_freqs.weight", "rope_freqs.weight", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n, ok := Parse(tt.name, tt.gemma)
			if !ok {
				t.Fatal("not known")
			}
			if got := n.GGUF(); got != tt.gguf {
				t.Errorf("GGUF name %q, want %q", got, tt.gguf)
			}
			if got := n.HF(tt.gemma); got != tt.hf {
				t.Errorf("HF name %q, want %q", got, tt.hf)
			}
		})
	}
}

func TestUnknown(t *testing.T) {
	for _, name := range []string{"", "weight", "blk.attn_q.weight", "blk.-1.attn_q.weight", "blk.01.attn_q.weight", "blk.1.attn_q", "blk.1.output.weight",
		"attn_q.weight", "model.layers.x.mlp.up_proj.weight", "model.attn_q.weight", "blk.99999999999999999999.attn_q.weight", "..", "model..weight", ".weight"} {
		if n, ok := Parse(name, false); ok {
			t.Errorf("%q is taken for %+v", name, n)
		}
		if got := Canonical(name, false); got != name {
			t.Errorf("canonical name of %q is %q", name, got)
		}
	}
}

// Every role survives the way to the other scheme and back.
func TestRoundTrip(t *testing.T) {
	for _, r := range Roles {
		for _, gemma := range []bool{false, true} {
			n := Name{Role: &r, Layer: -1, Suffix: "weight"}
			if r.Layered {
				n.Layer = 12
			}
			hf := n.HF(gemma)
			if hf == "" {
				continue
			}
			if got := Canonical(hf, gemma); got != n.GGUF() {
				t.Errorf("%s (gemma %v): %s comes back as %s", n.GGUF(), gemma, hf, got)
			}
			if got, ok := FromHF(hf, gemma); !ok || got != n.GGUF() {
				t.Errorf("%s (gemma %v): from HF %q, %v", hf, gemma, got, ok)
			}
			if got, ok := ToHF(n.GGUF(), gemma); !ok || got != hf {
				t.Errorf("%s (gemma %v): to HF %q, %v", n.GGUF(), gemma, got, ok)
			}
			// A name that is of the other scheme already is not translated.
			if got, ok := FromHF(n.GGUF(), gemma); ok || got != n.GGUF() {
				t.Errorf("%s is taken for Hugging Face's", got)
			}
			if got, ok := ToHF(hf, gemma); ok || got != hf {
				t.Errorf("%s is taken for GGUF's", got)
			}
			if !IsHF(hf, gemma) || IsHF(n.GGUF(), gemma) {
				t.Errorf("%s and %s are told apart wrongly", hf, n.GGUF())
			}
		}
	}
}

func TestLayer(t *testing.T) {
	for name, want := range map[string]string{"blk.3.odd": "3 odd", "model.layers.12.a.b": "12 a.b", "language_model.model.layers.0.x": "0 x"} {
		if n, rest, ok := Layer(name); !ok || fmt.Sprint(n, " ", rest) != want {
			t.Errorf("%s: %d, %q, %v", name, n, rest, ok)
		}
	}
	for _, name := range []string{"blk", "blk.x.y", "layers.1.x", "blk.1"} {
		if _, _, ok := Layer(name); ok {
			t.Errorf("%s is in a layer", name)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("blk.0.attn_q.weight", false)
	f.Add("model.layers.1.mlp.up_proj.weight", true)
	f.Fuzz(func(t *testing.T, name string, gemma bool) {
		if n, ok := Parse(name, gemma); ok {
			if again := Canonical(n.GGUF(), gemma); again != n.GGUF() {
				t.Errorf("%q becomes %q, then %q", name, n.GGUF(), again)
			}
		}
	})
}
