package tokenizer

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestFromMetadataErrors(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(fields)
		want error
		says string
	}{
		{"no model", func(f fields) { delete(f, prefix+"model") }, ErrFormat, "tokenizer.ggml.model"},
		{"plamo", func(f fields) { f[prefix+"model"] = "plamo2" }, ErrUnsupported, `"plamo2"`},
		{"unknown pre", func(f fields) { f[prefix+"pre"] = "nonesuch" }, ErrUnsupported, `"nonesuch"`},
		{"no tokens", func(f fields) { delete(f, prefix+"tokens") }, ErrFormat, "tokens"},
		{"empty tokens", func(f fields) { f[prefix+"tokens"] = []string{} }, ErrFormat, "empty"},
		{"no merges", func(f fields) { delete(f, prefix+"merges") }, ErrFormat, "merges"},
		{"few types", func(f fields) { f[prefix+"token_type"] = []int64{1, 1} }, ErrFormat, "2 token types for 4096 tokens"},
		{"few scores", func(f fields) { f[prefix+"model"] = "llama"; f[prefix+"scores"] = []float64{1} }, ErrFormat, "1 scores"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := bundledFields(t)
			tc.edit(f)
			_, err := FromMetadata(f)
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got error %v, want %v with %q", err, tc.want, tc.says)
			}
		})
	}
}

// TestHostileVocabulary builds and uses vocabularies that make no sense. Nothing
// is expected of the result but that it comes.
func TestHostileVocabulary(t *testing.T) {
	text := "Hello, <|x|> world\n\xff\xe4 123"
	for _, tc := range []struct {
		name string
		edit func(fields)
	}{
		{"merges of unknown texts", func(f fields) { f[prefix+"merges"] = []string{"H e", "He l", "Hel lo", "q", "", " ", "a ", " b"} }},
		{"no byte tokens", func(f fields) { f[prefix+"tokens"] = []string{"a"}; delete(f, prefix+"token_type") }},
		{"empty and equal tokens", func(f fields) {
			f[prefix+"tokens"] = []string{"", "", "H", "H", "e", "He"}
			delete(f, prefix+"token_type")
		}},
		{"types out of range", func(f fields) {
			kinds := make([]int64, 4096)
			for i := range kinds {
				kinds[i] = int64(i) * 1e15
			}
			f[prefix+"token_type"] = kinds
		}},
		{"all special", func(f fields) {
			kinds := make([]int64, 4096)
			for i := range kinds {
				kinds[i] = int64(UserDefined)
			}
			f[prefix+"token_type"] = kinds
		}},
		{"ids out of range", func(f fields) {
			f[prefix+"bos_token_id"] = uint64(math.MaxUint64)
			f[prefix+"eos_token_id"] = uint64(4096)
			f[prefix+"add_bos_token"] = true
		}},
		{"scores without order", func(f fields) {
			f[prefix+"model"] = "llama"
			scores := make([]float64, 4096)
			for i := range scores {
				scores[i] = []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, math.Copysign(0, -1)}[i%5]
			}
			f[prefix+"scores"] = scores
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := bundledFields(t)
			tc.edit(f)
			tok, err := FromMetadata(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range []EncodeOptions{{}, {AddSpecial: true, ParseSpecial: true}} {
				for _, s := range []string{text, strings.Repeat(text, 20)} {
					ids := tok.Encode(s, o)
					for _, id := range ids {
						if id < 0 || int(id) >= tok.Size() {
							t.Fatalf("id %d is outside the vocabulary of %d", id, tok.Size())
						}
					}
					if _, err := tok.Decode(ids, DecodeOptions{}); err != nil {
						t.Fatal(err)
					}
				}
			}
		})
	}
}

func TestAccessors(t *testing.T) {
	tok := bundled(t, "qwen2")
	end, ok := tok.ID("<|im_end|>")
	if !ok || end != 4095 {
		t.Fatalf("<|im_end|> is %d, %v", end, ok)
	}
	if !tok.IsEOG(end) || !tok.IsControl(end) || tok.Kind(end) != Control || tok.Text(end) != "<|im_end|>" {
		t.Error("<|im_end|> should be a control token that ends generation")
	}
	if tok.IsEOG(0) || tok.IsControl(0) {
		t.Error("token 0 should be ordinary")
	}
	if got := tok.EOG(); !slices.Equal(got, []int32{4093, 4095}) {
		t.Errorf("EOG is %v", got)
	}
	if tok.Size() != 4096 || tok.Name() != "gpt2 qwen2" {
		t.Errorf("size %d, name %q", tok.Size(), tok.Name())
	}
	for _, id := range []int32{-1, 4096, math.MaxInt32, math.MinInt32} {
		if tok.Piece(id) != nil || tok.Text(id) != "" || tok.Kind(id) != Undefined || tok.IsEOG(id) {
			t.Errorf("token %d should not exist", id)
		}
	}
	if _, err := tok.Decode([]int32{1, 4096}, DecodeOptions{}); !errors.Is(err, ErrID) || !strings.Contains(err.Error(), "4096") {
		t.Errorf("decoding token 4096 gives %v", err)
	}
	if s := Kind(99).String(); s != "undefined" {
		t.Errorf("kind 99 is %q", s)
	}
}

func TestSpecialTokensInText(t *testing.T) {
	tok := bundled(t, "qwen2")
	const text = "<|im_start|>user\nHi<|im_end|>"
	plain := tok.Encode(text, EncodeOptions{})
	if slices.Contains(plain, 4094) || slices.Contains(plain, 4095) {
		t.Errorf("control tokens recognised without ParseSpecial: %v", plain)
	}
	parsed := tok.Encode(text, EncodeOptions{ParseSpecial: true})
	if parsed[0] != 4094 || parsed[len(parsed)-1] != 4095 || slices.Contains(parsed[1:len(parsed)-1], 4095) {
		t.Errorf("control tokens not recognised: %v", parsed)
	}
	for _, tc := range []struct {
		o    DecodeOptions
		want string
	}{{DecodeOptions{}, text}, {DecodeOptions{SkipSpecial: true}, "user\nHi"}} {
		if got, err := tok.Decode(parsed, tc.o); err != nil || got != tc.want {
			t.Errorf("%+v: %q, %v, want %q", tc.o, got, err, tc.want)
		}
	}
}

// TestManySpecials has many tokens that start alike, which are found another
// way than few; the longest wins, and equal texts do no harm.
func TestManySpecials(t *testing.T) {
	s := smallSPMSpec()
	base := len(s.Tokens)
	for i := range 200 {
		s.Tokens = append(s.Tokens, fmt.Sprintf("<|reserved_%d|>", i%150))
	}
	s.Tokens = append(s.Tokens, "<|", "!!")
	for range 202 {
		s.Scores = append(s.Scores, 0)
		s.Kinds = append(s.Kinds, Control)
	}
	tok, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	id := func(text string) int32 { return int32(slices.Index(s.Tokens, text)) }
	got := tok.Encode("<|reserved_7|><|reserved_120|>!!<|reserved_<|", EncodeOptions{ParseSpecial: true})
	want := []int32{int32(base + 7), int32(base + 120), id("!!"), id("<|")}
	if !slices.Equal(got[:4], want) || got[len(got)-1] != id("<|") {
		t.Errorf("got %v, want %v … %d", got, want, id("<|"))
	}
	if got := tok.Encode("<|reserved_7|>", EncodeOptions{}); slices.Contains(got, want[0]) {
		t.Errorf("control token recognised: %v", got)
	}
}

// TestStripAttributes checks Phi-3's rule: special tokens take the whitespace
// after them, except three.
func TestStripAttributes(t *testing.T) {
	s := smallSPMSpec()
	user, hello := int32(len(s.Tokens)-1), int32(slices.Index(s.Tokens, "▁hello"))
	tok, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	o := EncodeOptions{ParseSpecial: true}
	// The space of the text and the one put before the word.
	space := int32(slices.Index(s.Tokens, "▁"))
	if got, want := tok.Encode("<|user|> hello", o), []int32{user, space, hello}; !slices.Equal(got, want) {
		t.Errorf("plain: %v, want %v", got, want)
	}
	s.Name = "Phi-3-mini"
	if tok, err = New(s); err != nil {
		t.Fatal(err)
	}
	if got, want := tok.Encode("<|user|> \n\t hello", o), []int32{user, hello}; !slices.Equal(got, want) {
		t.Errorf("phi-3: %v, want %v", got, want)
	}
	if got, want := tok.Encode("<s> hello", o), []int32{1, space, hello}; !slices.Equal(got, want) {
		t.Errorf("phi-3 <s>: %v, want %v", got, want)
	}
}

func TestSentencePiece(t *testing.T) {
	tok := smallSPM(t)
	for _, tc := range []struct {
		name, text string
		o          EncodeOptions
		want       []string
	}{
		{"empty", "", EncodeOptions{}, nil},
		{"empty with start", "", EncodeOptions{AddSpecial: true}, []string{"<s>"}},
		{"prefix", "hello", EncodeOptions{}, []string{"▁hello"}},
		{"start", "hello", EncodeOptions{AddSpecial: true}, []string{"<s>", "▁hello"}},
		{"two words", "hello hello", EncodeOptions{}, []string{"▁hello", "▁hello"}},
		{"spaces", "hello   hello", EncodeOptions{}, []string{"▁hello", "▁▁", "▁hello"}},
		{"bytes", "q\x00", EncodeOptions{}, []string{"▁", "<0x71>", "<0x00>"}},
		{"character in bytes", "ü", EncodeOptions{}, []string{"▁", "<0xC3>", "<0xBC>"}},
		{"broken", "h\xe4l", EncodeOptions{}, []string{"▁h", "<0xE4>", "<0x6C>"}},
		{"special", "hello<s>hello", EncodeOptions{ParseSpecial: true}, []string{"▁hello", "<s>", "▁hello"}},
		{"user-defined", "hello<|user|>hello", EncodeOptions{}, []string{"▁hello", "<|user|>", "▁hello"}},
		{"no cut inside a token", "你好你", EncodeOptions{}, []string{"▁", "你好", "你"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, id := range tok.Encode(tc.text, tc.o) {
				got = append(got, tok.Text(id))
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("%q: got %q, want %q", tc.text, got, tc.want)
			}
		})
	}
}

// TestLongWords makes words long enough for the heap and compares with the
// search of all pairs, which short words use.
func TestLongWords(t *testing.T) {
	for _, tok := range []*Tokenizer{bundled(t, "bloom"), smallSPM(t)} {
		for _, unit := range []string{"a", "abc", "hello", "llelh", "你好", "aaab"} {
			word := strings.Repeat(unit, 400/len(unit))
			e := newEncoder(tok)
			var heap, scan []int32
			if tok.spm {
				e.buf = []byte(word)
				e.syms = nil
				for i, r := range word {
					id, ok := tok.ID(string(r))
					if !ok {
						id = None
					}
					e.syms = append(e.syms, symbol{start: int32(i), end: int32(i + len(string(r))), id: id})
				}
			} else {
				for i := range len(word) {
					e.syms = append(e.syms, symbol{start: int32(i), end: int32(i) + 1, id: tok.bpe.byteID[word[i]]})
				}
			}
			first := slices.Clone(e.syms)
			e.mergeHeap()
			for i := int32(0); i >= 0; i = e.syms[i].next {
				heap = append(heap, e.syms[i].id)
			}
			for i, s := range first {
				e.ids = append(e.ids, s.id)
				e.starts = append(e.starts, s.start)
				if i > 0 && !tok.spm {
					e.merges = append(e.merges, tok.bpe.pairs.find(e.ids[i-1], s.id))
				} else if i > 0 {
					e.merges = append(e.merges, tok.findMerge(e.buf[first[i-1].start:s.end]))
				}
			}
			e.starts = append(e.starts, int32(len(word)))
			e.mergeScan()
			scan = e.ids
			if !slices.Equal(heap, scan) {
				t.Errorf("%s: heap and scan disagree:\n%v\n%v", unit, heap, scan)
			}
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	tok := bundled(t, "qwen2")
	text := mixedText(t, 20000)
	want := tok.Encode(text, EncodeOptions{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if !slices.Equal(tok.Encode(text, EncodeOptions{}), want) {
					t.Error("concurrent calls disagree")
				}
			}
		})
	}
	wg.Wait()
}

// TestCacheIsTransparent encodes so many words that the cache is emptied, and
// compares with an encoder that has seen nothing.
func TestCacheIsTransparent(t *testing.T) {
	tok := bundled(t, "qwen2")
	e := newEncoder(tok)
	for i := range 3 * maxSlots {
		word := strings.Repeat("w", i%3) + string(rune('a'+i%26)) + strings.Map(func(r rune) rune { return r + rune(i%7) }, "kettle")[:1+i%6] + string(rune(0x400+i%5000))
		got := e.encodeWord(nil, word)
		if i%97 == 0 && !slices.Equal(got, newEncoder(tok).mergeWord(nil, word)) {
			t.Fatalf("word %q: %v", word, got)
		}
	}
	if e.cache.used*2 > len(e.cache.slots) || len(e.cache.slots) > maxSlots {
		t.Errorf("cache holds %d words in %d slots", e.cache.used, len(e.cache.slots))
	}
}
