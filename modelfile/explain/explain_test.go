package explain

import (
	"fmt"
	"strings"
	"testing"
)

func render(t *Topic) string {
	s := t.Kind + " " + t.Name + "\n"
	for _, f := range t.Facts {
		s += f.Label + ": " + f.Text + "\n"
	}
	return s
}

func TestFind(t *testing.T) {
	tests := []struct{ word, want string }{
		{"q4_k", `type Q4_K
number: 12 in GGUF files
block: 256 numbers in 144 bytes
bits: 4.5 a number
number x: d·s·q − dmin·m
bytes 0 to 1: d: scale, F16
bytes 2 to 3: dmin: scale of the minimums, F16
bytes 4 to 15: scales: s and m of 8 groups of 32, 6 bits each
bytes 16 to 143: qs: q, 4 bits each: 32 bytes hold group 2k in their lower halves, 2k+1 in the upper
used for: weights: apr runs models with it
source: block_q4_K in ggml's ggml-common.h
`},
		{"blk.7.attn_q.weight", `tensor blk.7.attn_q.weight
what: query projection
where: layer 7 (counted from 0), attention
shape: heads*head_dim x hidden
hidden: metadata key ARCH.embedding_length
heads: metadata key ARCH.attention.head_count
head_dim: metadata key ARCH.attention.key_length, otherwise hidden / heads
in GGUF: blk.7.attn_q.weight
Hugging Face: model.layers.7.self_attn.q_proj.weight
note: qwen2 has a bias. In llama files GGUF orders the rows of each head for rotation of neighbours, Hugging Face for rotation of halves.
`},
		{"model.layers.3.self_attn.k_proj.bias", `tensor model.layers.3.self_attn.k_proj.bias
what: bias added to the result of the key projection
where: layer 3 (counted from 0), attention
shape: kv_heads*head_dim
kv_heads: metadata key ARCH.attention.head_count_kv
head_dim: metadata key ARCH.attention.key_length, otherwise hidden / heads
in GGUF: blk.3.attn_k.bias
Hugging Face: model.layers.3.self_attn.k_proj.bias
note: qwen2 has a bias. In llama files GGUF orders the rows of each head for rotation of neighbours, Hugging Face for rotation of halves.
`},
	}
	for _, tt := range tests {
		t.Run(tt.word, func(t *testing.T) {
			topic := Find(tt.word)
			if topic == nil {
				t.Fatal("not explained")
			}
			if got := render(topic); got != tt.want {
				t.Errorf("got\n%swant\n%s", got, tt.want)
			}
		})
	}
}

// Recipes name the types that differ from their base.
func TestRecipe(t *testing.T) {
	got := render(Find("Q4_K_M"))
	for _, want := range []string{"recipe q4_k_m\n", "most tensors: Q4_K\n", "file type: 15 in", "exception: output.weight: Q6_K (in", "exception: output_norm.weight: F32 (in"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// Every word offered is explained, with no fact empty.
func TestWords(t *testing.T) {
	seen := map[string]bool{}
	for _, word := range Words() {
		topic := Find(word)
		if topic == nil || len(topic.Facts) < 2 {
			t.Errorf("%s: %v", word, topic)
			continue
		}
		seen[topic.Kind] = true
		for _, f := range topic.Facts {
			if f.Label == "" || f.Text == "" || strings.Contains(f.Text, "%!") {
				t.Errorf("%s: %+v", word, f)
			}
		}
	}
	if fmt.Sprint(seen) != "map[finding:true recipe:true tensor:true type:true]" {
		t.Errorf("kinds %v", seen)
	}
	for _, word := range []string{"", "nothing", "5", "blk", "type 99"} {
		if topic := Find(word); topic != nil {
			t.Errorf("%q: %+v", word, topic)
		}
	}
}
