package tokenizer

import (
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"

	xunicode "golang.org/x/text/encoding/unicode"
	"golang.org/x/text/unicode/norm"
)

// lossy replaces each maximal part of a broken character by U+FFFD, by the
// decoder of golang.org/x/text.
func lossy(t testing.TB, b []byte) string {
	out, err := xunicode.UTF8.NewDecoder().Bytes(b)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// byteIDs returns tokens of single bytes.
func byteIDs(tok *Tokenizer, b []byte) []int32 {
	var ids []int32
	for _, c := range b {
		if tok.spm {
			ids = append(ids, tok.sp.byteID[c])
		} else {
			ids = append(ids, tok.bpe.byteID[c])
		}
	}
	return ids
}

// checkStream pushes ids one by one and compares with Decode and with the
// pieces put together and cleaned.
func checkStream(t testing.TB, tok *Tokenizer, ids []int32, o DecodeOptions) {
	var raw []byte
	strip := tok.spm && tok.addSpacePrefix && !o.KeepSpace
	s := tok.NewStream(o)
	text := ""
	for _, id := range ids {
		part := s.Push(id)
		if !utf8.ValidString(part) {
			t.Fatalf("%v: Push(%d) gives broken text %q", ids, id, part)
		}
		text += part
		if k := tok.Kind(id); o.SkipSpecial && (k == Control || k == Unknown) {
			continue
		}
		p := tok.Piece(id)
		if strip && len(p) > 0 && p[0] == ' ' {
			p = p[1:]
		}
		strip = false
		raw = append(raw, p...)
	}
	text += s.Flush()
	if s.Flush() != "" {
		t.Fatal("a second Flush gives text")
	}
	if want := lossy(t, raw); text != want {
		t.Fatalf("stream of %v gives %q, want %q", ids, text, want)
	}
	if got, err := tok.Decode(ids, o); err != nil || got != text {
		t.Fatalf("Decode gives %q, %v, the stream %q", got, err, text)
	}
}

func TestStream(t *testing.T) {
	for _, tok := range []*Tokenizer{bundled(t, "qwen2"), smallSPM(t)} {
		r := rand.New(rand.NewPCG(3, 4))
		lead := []byte{0x00, 'a', ' ', 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc2, 0xdf, 0xe0, 0xe4, 0xed, 0xef, 0xf0, 0xf1, 0xf4, 0xf5, 0xff}
		for range 3000 {
			b := make([]byte, r.IntN(8))
			for i := range b {
				b[i] = lead[r.IntN(len(lead))]
			}
			checkStream(t, tok, byteIDs(tok, b), DecodeOptions{})
			ids := make([]int32, r.IntN(12))
			for i := range ids {
				ids[i] = int32(r.IntN(tok.Size()))
			}
			checkStream(t, tok, ids, DecodeOptions{SkipSpecial: r.IntN(2) == 0, KeepSpace: r.IntN(2) == 0})
		}
	}
}

// TestStreamHoldsBack shows a character of four tokens.
func TestStreamHoldsBack(t *testing.T) {
	tok := bundled(t, "qwen2")
	s := tok.NewStream(DecodeOptions{})
	for i, id := range byteIDs(tok, []byte("🙂")) {
		want := ""
		if i == 3 {
			want = "🙂"
		}
		if got := s.Push(id); got != want {
			t.Errorf("byte %d: %q, want %q", i, got, want)
		}
	}
	s.Push(byteIDs(tok, []byte{0xf0})[0])
	if got := s.Push(byteIDs(tok, []byte("a"))[0]); got != "\ufffda" {
		t.Errorf("broken character: %q", got)
	}
	if s.Push(-1) != "" || s.Push(1<<30) != "" || s.Flush() != "" {
		t.Error("tokens outside the vocabulary should add nothing")
	}
}

func TestLeadingSpace(t *testing.T) {
	tok := smallSPM(t)
	ids := tok.Encode("hello world", EncodeOptions{AddSpecial: true})
	for _, tc := range []struct {
		o    DecodeOptions
		want string
	}{
		{DecodeOptions{SkipSpecial: true}, "hello world"},
		{DecodeOptions{SkipSpecial: true, KeepSpace: true}, " hello world"},
		{DecodeOptions{}, "<s> hello world"},
	} {
		if got, err := tok.Decode(ids, tc.o); err != nil || got != tc.want {
			t.Errorf("%+v: %q, %v, want %q", tc.o, got, err, tc.want)
		}
	}
}

// checkRoundTrip encodes and decodes; valid text must come back.
func checkRoundTrip(t testing.TB, tok *Tokenizer, text string) {
	ids := tok.Encode(text, EncodeOptions{})
	got, err := tok.Decode(ids, DecodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := text
	switch {
	case tok.spm:
		want = lossy(t, appendUnescaped(nil, text, Normal)) // ▁ and space are one
	case tok.rule.nfc:
		want = norm.NFC.String(text)
	}
	// SentencePiece puts a space after special tokens, which decoding keeps.
	special := tok.spm && strings.Contains(text, "<|user|>")
	if utf8.ValidString(text) && !special && got != want {
		t.Fatalf("%s: %q comes back as %q", tok.Name(), text, got)
	}
	parsed := tok.Encode(text, EncodeOptions{ParseSpecial: true, AddSpecial: true})
	if _, err := tok.Decode(parsed, DecodeOptions{SkipSpecial: true}); err != nil {
		t.Fatal(err)
	}
	checkStream(t, tok, ids, DecodeOptions{})
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for pre := range pretokenizers {
		tok := bundled(t, pre)
		for range 200 {
			checkRoundTrip(t, tok, randomText(r, 1+r.IntN(30)))
		}
		checkRoundTrip(t, tok, mixedText(t, 3000))
	}
	tok := smallSPM(t)
	for range 2000 {
		checkRoundTrip(t, tok, randomText(r, 1+r.IntN(60)))
	}
}

func FuzzEncodeDecode(f *testing.F) {
	var toks []*Tokenizer
	for _, p := range patterns {
		toks = append(toks, bundled(f, p.pre))
	}
	toks = append(toks, smallSPM(f))
	for i, s := range []string{"Hello, world!  e\u0301", "<|im_start|>user\n<|im_end|>", "\xff\xc0\x80\xed\xa0\x80\xf4\x90\x80\x80\xe4", "  你好▁ hello<|user|> <s>"} {
		f.Add(uint8(i), []byte(s))
		f.Add(uint8(len(patterns)), []byte(s))
	}
	f.Fuzz(func(t *testing.T, which uint8, text []byte) {
		checkRoundTrip(t, toks[int(which)%len(toks)], string(text))
	})
}

func FuzzStream(f *testing.F) {
	toks := []*Tokenizer{bundled(f, "qwen2"), smallSPM(f)}
	f.Add(false, []byte("\xf0\x9f\x99\x82\xe4\xbd\x41\xed\xa0\x80"))
	f.Add(true, []byte("\x01\x00\x05\x02\xff\xff"))
	f.Fuzz(func(t *testing.T, spm bool, data []byte) {
		tok := toks[0]
		if spm {
			tok = toks[1]
		}
		checkStream(t, tok, byteIDs(tok, data), DecodeOptions{})
		var ids []int32
		for i := 0; i+1 < len(data); i += 2 {
			ids = append(ids, (int32(data[i])<<8|int32(data[i+1]))%int32(tok.Size()))
		}
		checkStream(t, tok, ids, DecodeOptions{SkipSpecial: true})
	})
}
