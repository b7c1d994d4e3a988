package synth

import (
	"slices"
	"strings"
	"testing"
)

func TestVocabulary(t *testing.T) {
	for name, s := range presets {
		t.Run(name, func(t *testing.T) {
			v := newVocabulary(s)
			if len(v.tokens) != s.vocab || len(v.types) != s.vocab {
				t.Fatalf("%d tokens, %d types, want %d", len(v.tokens), len(v.types), s.vocab)
			}
			id := make(map[string]int, len(v.tokens))
			for i, tok := range v.tokens {
				if j, dup := id[tok]; dup {
					t.Fatalf("token %q is both %d and %d", tok, j, i)
				}
				id[tok] = i
			}
			for _, b := range byteTokens() {
				if _, ok := id[b]; !ok {
					t.Errorf("no token for byte %q", b)
				}
			}
			// Each merge makes a token that comes after those it is made of.
			for _, m := range v.merges {
				left, right, ok := strings.Cut(m, " ")
				if !ok || id[left+right] <= max(id[left], id[right]) || v.types[id[left+right]] != tokenNormal {
					t.Fatalf("merge %q: tokens %d + %d give %d", m, id[left], id[right], id[left+right])
				}
			}
			if want := s.special - 256; len(v.merges) != want {
				t.Errorf("%d merges, want %d", len(v.merges), want)
			}
			f := specials[s.tokens]
			for i, tok := range f.names {
				if id[tok] != s.special+i || v.types[id[tok]] != tokenControl {
					t.Errorf("special token %s is %d, want %d", tok, id[tok], s.special+i)
				}
			}
		})
	}
	if got := newVocabulary(presets["qwen2.5-7b"]); slices.Index(got.tokens, "<|im_end|>") != 151645 {
		t.Error("<|im_end|> is not where Qwen2.5 has it")
	}
}

func TestByteTokens(t *testing.T) {
	b := byteTokens()
	for c, want := range map[byte]string{'a': "a", ' ': "Ġ", '\n': "Ċ", 0: "Ā", 0xad: "Ń", 0xff: "ÿ"} {
		if b[c] != want {
			t.Errorf("byte %#x is %q, want %q", c, b[c], want)
		}
	}
}
