package engine_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/chat"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/internal/golden"
)

func TestStop(t *testing.T) {
	e := open(t, small, engine.Options{})
	const full = "2 + 2 equals 4."
	for _, tt := range []struct {
		name string
		stop []string
		want string
	}{
		{"none met", []string{"five"}, full},
		{"whole token", []string{" equals"}, "2 + 2"},
		{"across tokens", []string{"2 eq"}, "2 + "},
		{"earliest of several", []string{"4", "+", "2 e"}, "2 "},
		{"partial at the end", []string{"4. And"}, full},
		{"empty is ignored", []string{""}, full},
		{"at the start", []string{"2"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var streamed strings.Builder
			res := ask(t, e, "What is 2+2?", engine.Request{MaxTokens: 32, Stop: tt.stop, Emit: func(s string) { streamed.WriteString(s) }})
			if res.Text != tt.want || streamed.String() != tt.want {
				t.Errorf("text %q, streamed %q, want %q", res.Text, streamed.String(), tt.want)
			}
			if res.FinishReason != engine.FinishStop {
				t.Errorf("finish reason %q", res.FinishReason)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	e := open(t, small, engine.Options{})
	res := ask(t, e, "Count from 1 to 10.", engine.Request{MaxTokens: 3})
	if len(res.TokenIDs) != 3 || res.FinishReason != engine.FinishLength {
		t.Errorf("%d tokens, %s; want 3, length", len(res.TokenIDs), res.FinishReason)
	}
	if res := ask(t, e, "Count from 1 to 10.", engine.Request{MaxTokens: 0}); len(res.TokenIDs) != 0 || res.Text != "" {
		t.Errorf("no tokens asked for, got %q", res.Text)
	}
	res = ask(t, e, "What is 2+2?", engine.Request{MaxTokens: 40, IgnoreEOS: true})
	if len(res.TokenIDs) != 40 {
		t.Errorf("%d tokens although the end is ignored, want 40", len(res.TokenIDs))
	}

	s, err := e.NewSession(20)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	prompt := e.Model.TextPrompt("package main")
	got, err := s.Generate(context.Background(), engine.Request{Prompt: prompt, MaxTokens: -1, IgnoreEOS: true})
	if err != nil {
		t.Fatal(err)
	}
	// The last token is chosen from the last position and needs no room itself.
	if want := 20 - len(prompt) + 1; len(got.TokenIDs) != want || got.FinishReason != engine.FinishLength {
		t.Errorf("%d tokens in a context of 20 after %d, want %d", len(got.TokenIDs), len(prompt), want)
	}
	for _, tt := range []struct {
		name   string
		prompt []int32
	}{{"empty", nil}, {"longer than the context", slices.Repeat([]int32{1}, 21)}} {
		if _, err := s.Generate(context.Background(), engine.Request{Prompt: tt.prompt}); !errors.Is(err, engine.ErrInput) {
			t.Errorf("%s prompt: %v, want ErrInput", tt.name, err)
		}
	}
}

// A second turn computes only what is new, and gives what a fresh session does.
func TestPrefixReuse(t *testing.T) {
	e := open(t, small, engine.Options{Backend: "cpu-exact"})
	s, err := e.NewSession(512)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	talk := []chat.Message{{Role: "user", Content: "What is 2+2?"}}
	turn := func(s *engine.Session) engine.Result {
		ids, err := e.Model.ChatPrompt(talk)
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.Generate(context.Background(), engine.Request{Prompt: ids, MaxTokens: 32})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	first := turn(s)
	talk = append(talk, chat.Message{Role: "assistant", Content: first.Text}, chat.Message{Role: "user", Content: "Count from 1 to 5."})
	second := turn(s)
	if second.Computed >= second.PromptTokens-first.PromptTokens/2 {
		t.Errorf("the second turn computed %d of %d tokens", second.Computed, second.PromptTokens)
	}
	fresh, err := e.NewSession(512)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if want := turn(fresh); want.Text != second.Text || want.Computed != want.PromptTokens {
		t.Errorf("reused cache answers %q, a fresh one %q", second.Text, want.Text)
	}
	// The same prompt again must still compute its last token.
	if again := turn(fresh); again.Text != second.Text || again.Computed != 1 {
		t.Errorf("repeated prompt: %q after computing %d tokens, want %q after 1", again.Text, again.Computed, second.Text)
	}
}

func TestCancel(t *testing.T) {
	e := open(t, small, engine.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	s, err := e.NewSession(256)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n := 0
	res, err := s.Generate(ctx, engine.Request{Prompt: []int32{1, 2, 3}, MaxTokens: 200, IgnoreEOS: true, Emit: func(string) {
		if n++; n == 5 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || len(res.TokenIDs) > 50 {
		t.Errorf("%d tokens, %v; want an early context.Canceled", len(res.TokenIDs), err)
	}
}

// A damaged scale must name its tensor instead of turning into text.
func TestDamagedWeights(t *testing.T) {
	path := golden.Path(t, "models", small)
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	name := "blk.2.ffn_up.weight"
	damaged, ok := f.Tensor(name)
	if !ok {
		t.Fatalf("no tensor %s", name)
	}
	place, ok := f.Place(name)
	if !ok {
		t.Fatal("no place")
	}
	block := len(damaged.Data) / damaged.Type.BlockBytes() / 2
	at := int(place.Offset) + block*damaged.Type.BlockBytes()
	f.Close()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const halfNaN = 0x7e00
	binary.LittleEndian.PutUint16(data[at:], halfNaN) // Q4_K starts with its scale
	copyPath := filepath.Join(t.TempDir(), "damaged.gguf")
	if err := os.WriteFile(copyPath, data, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, b := range []string{"cpu", "cpu-exact", "oracle"} {
		m, err := engine.LoadModel(copyPath)
		if err != nil {
			t.Fatal(err)
		}
		e, err := engine.Open(m, engine.Options{Backend: b})
		if err != nil {
			t.Fatal(err)
		}
		s, err := e.NewSession(16)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Generate(context.Background(), engine.Request{Prompt: []int32{5, 6}, MaxTokens: 4})
		if !errors.Is(err, engine.ErrLoad) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v, want one that names %s", b, err, name)
		}
		s.Close()
		e.Close()
		m.Close()
	}
}

func TestLogitsAreFinite(t *testing.T) {
	e := open(t, small, engine.Options{})
	s, err := e.NewSession(8)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l, err := s.Extend(context.Background(), []int32{1, 2, 3}, backend.All)
	if err != nil {
		t.Fatal(err)
	}
	for i, v := range l.Data {
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			t.Fatalf("number %d is %v", i, v)
		}
	}
}

func TestOpenRefusals(t *testing.T) {
	m, err := engine.LoadModel(golden.Path(t, "models", small))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, tt := range []struct {
		name string
		o    engine.Options
	}{
		{"unknown backend", engine.Options{Backend: "abacus"}},
		{"negative threads", engine.Options{Threads: -1}},
		{"absurd threads", engine.Options{Threads: 1 << 20}},
	} {
		if _, err := engine.Open(m, tt.o); !errors.Is(err, engine.ErrInput) {
			t.Errorf("%s: %v, want ErrInput", tt.name, err)
		}
	}
	if _, err := engine.LoadModel(filepath.Join(t.TempDir(), "none.gguf")); !engine.IsNotFound(err) {
		t.Errorf("missing file: %v", err)
	}
}
