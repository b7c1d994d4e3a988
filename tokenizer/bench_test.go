package tokenizer

import (
	"embed"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

//go:embed testdata/*.txt
var samples embed.FS

// mixedText makes n bytes of code, English, Chinese and Russian from the
// samples, the same on every call. Repeating the samples would let a cache of
// words answer everything, so one word in eight is made of parts of two others,
// and numbers are drawn anew.
func mixedText(t testing.TB, n int) string {
	r := rand.New(rand.NewPCG(42, 42))
	var lines [][]string
	for _, name := range []string{"code", "english", "chinese", "russian"} {
		data, err := samples.ReadFile("testdata/" + name + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, strings.SplitAfter(string(data), "\n"))
	}
	var b strings.Builder
	b.Grow(n + 1000)
	for b.Len() < n {
		// A passage of a few lines in one language.
		set := lines[r.IntN(len(lines))]
		at := r.IntN(len(set))
		for _, line := range set[at:min(len(set), at+1+r.IntN(8))] {
			words := strings.SplitAfter(line, " ")
			for i, w := range words {
				switch {
				case r.IntN(8) == 0:
					w = mixWords([]rune(w), []rune(words[r.IntN(len(words))]), r)
				case strings.ContainsAny(w, "0123456789"):
					w = strings.Map(func(c rune) rune {
						if '0' <= c && c <= '9' {
							c = rune('0' + r.IntN(10))
						}
						return c
					}, w)
				}
				words[i] = w
			}
			for _, w := range words {
				b.WriteString(w)
			}
		}
	}
	return strings.ToValidUTF8(b.String()[:n], "")
}

// mixWords joins the start of one word and the end of another.
func mixWords(a, b []rune, r *rand.Rand) string {
	return string(a[:r.IntN(len(a)+1)]) + string(b[r.IntN(len(b)+1):])
}

const benchBytes = 10 << 20

func benchTokenizer(b *testing.B, name string) *Tokenizer {
	tok, err := FromMetadata(readGGUF(b, filepath.Join(sharedDir(b), "vocab", "ggml-vocab-"+name+".gguf")))
	if err != nil {
		b.Fatal(err)
	}
	return tok
}

// BenchmarkEncode encodes 10 MB of mixed text in one call, with a tokenizer that
// has not seen it before: the cache of words starts empty each time. With
// APR_BENCH_TEXT set, the text is written there, for other programs to time.
func BenchmarkEncode(b *testing.B) {
	text := mixedText(b, benchBytes)
	if path := os.Getenv("APR_BENCH_TEXT"); path != "" {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for _, name := range []string{"qwen2", "gpt-2", "deepseek-coder", "starcoder", "llama-spm"} {
		b.Run(name, func(b *testing.B) {
			tok := benchTokenizer(b, name)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			var ids []int32
			for b.Loop() {
				tok.pool.Put(newEncoder(tok)) // taken first by the next Get
				ids = tok.AppendEncode(ids[:0], text, EncodeOptions{})
			}
			b.ReportMetric(float64(len(ids)), "tokens")
		})
	}
}

// BenchmarkEncodeShort encodes one chat message with a warm tokenizer.
func BenchmarkEncodeShort(b *testing.B) {
	text := mixedText(b, 2000)
	tok := benchTokenizer(b, "qwen2")
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	var ids []int32
	for b.Loop() {
		ids = tok.AppendEncode(ids[:0], text, EncodeOptions{})
	}
}

func BenchmarkDecode(b *testing.B) {
	tok := benchTokenizer(b, "qwen2")
	ids := tok.Encode(mixedText(b, 1<<20), EncodeOptions{})
	b.SetBytes(1 << 20)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tok.Decode(ids, DecodeOptions{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNew builds tokenizers from metadata in memory: what start-up pays.
func BenchmarkNew(b *testing.B) {
	for _, name := range []string{"qwen2", "llama-spm"} {
		b.Run(name, func(b *testing.B) {
			md := readGGUF(b, filepath.Join(sharedDir(b), "vocab", "ggml-vocab-"+name+".gguf"))
			for b.Loop() {
				if _, err := FromMetadata(md); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
