package backendtest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/tensor"
)

// Architectures lists the tiny random models, one for each feature of the
// supported architectures, as name → path.
func Architectures(t testing.TB) map[string]string {
	t.Helper()
	paths, err := filepath.Glob(golden.Path(t, "testdata", "architectures", "*.gguf"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no architectures: %v", err)
	}
	out := map[string]string{}
	for _, p := range paths {
		out[strings.TrimSuffix(filepath.Base(p), ".gguf")] = p
	}
	return out
}

// Conformance runs what holds for every executor on every architecture and on
// the smaller bundled model, whose weights are quantised. batch
// is the relative RMS difference allowed between two ways of computing the same
// logits; 0 wants the same bits.
func Conformance(t *testing.T, backendName string, batch float64) {
	models := conformanceModels(t)
	for name := range models {
		ConformanceOf(t, backendName, batch, name)
	}
}

func conformanceModels(t testing.TB) map[string]string {
	models := Architectures(t)
	models["quantised"] = golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf")
	return models
}

// ConformanceOf is Conformance on some of its models: those of Architectures and
// "quantised".
func ConformanceOf(t *testing.T, backendName string, batch float64, names ...string) {
	models := conformanceModels(t)
	for _, name := range names {
		path, ok := models[name]
		if !ok {
			t.Fatalf("no model %s", name)
		}
		t.Run(name, func(t *testing.T) {
			s := newSuite(t, backendName, path, batch, tensor.F32)
			t.Run("chunks", s.chunks)
			t.Run("wanted rows", s.wantedRows)
			t.Run("sequences together", s.sequencesTogether)
			t.Run("truncate", s.truncate)
			t.Run("threads", s.threads)
			t.Run("refusals", s.refusals)
			t.Run("half-precision cache", s.halfCache)
		})
	}
}

// HalfCacheOf runs on some of Conformance's models what depends on the cache with a
// half-precision one, for which GPUs have other kernels.
func HalfCacheOf(t *testing.T, backendName string, batch float64, names ...string) {
	models := conformanceModels(t)
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(models))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			s := newSuite(t, backendName, models[name], batch, tensor.F16)
			t.Run("chunks", s.chunks)
			t.Run("sequences together", s.sequencesTogether)
			t.Run("truncate", s.truncate)
		})
	}
}

func newSuite(t *testing.T, backendName, path string, batch float64, kv tensor.DType) *suite {
	s := &suite{path: path, backend: backendName, batch: batch, tokens: randomTokens(90, 256)}
	s.p, s.exec = load(t, s, backend.Options{KV: kv})
	return s
}

// suite is one architecture on one backend.
type suite struct {
	path, backend string
	batch         float64
	tokens        []int32
	p             *graph.Program
	exec          backend.Executor
}

func load(t *testing.T, s *suite, o backend.Options) (*graph.Program, backend.Executor) {
	t.Helper()
	return Load(t, s.path, s.backend, o)
}

func randomTokens(n, vocab int) []int32 {
	rng := rand.New(rand.NewPCG(3, 5))
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(rng.IntN(vocab))
	}
	return out
}

// all computes the logits of every token, in steps of the given size.
func (s *suite) all(t *testing.T, exec backend.Executor, tokens []int32, chunk int) [][]float32 {
	t.Helper()
	seq := s.sequence(t, exec, len(tokens))
	defer seq.Close()
	return s.extend(t, exec, seq, tokens, chunk)
}

func (s *suite) sequence(t *testing.T, exec backend.Executor, capacity int) backend.Sequence {
	t.Helper()
	seq, err := exec.NewSequence(capacity)
	if err != nil {
		t.Fatal(err)
	}
	return seq
}

func (s *suite) extend(t *testing.T, exec backend.Executor, seq backend.Sequence, tokens []int32, chunk int) [][]float32 {
	t.Helper()
	var rows [][]float32
	for len(tokens) > 0 {
		n := min(chunk, len(tokens))
		var l backend.Logits
		if err := exec.Step([]backend.Span{{Seq: seq, Tokens: tokens[:n], Want: backend.All}}, &l); err != nil {
			t.Fatal(err)
		}
		for i := range l.Rows() {
			rows = append(rows, l.Row(i))
		}
		tokens = tokens[n:]
	}
	return rows
}

// same fails unless two computations of the same rows agree.
func (s *suite) same(t *testing.T, what string, got, want [][]float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
	for i := range want {
		if e := golden.RelativeRMS(got[i], want[i]); !(e <= s.batch) {
			t.Fatalf("%s: row %d differs by %.3g (limit %.3g)", what, i, e, s.batch)
		}
	}
}

// chunks: prefill in any step size, down to one token, gives the same logits.
func (s *suite) chunks(t *testing.T) {
	want := s.all(t, s.exec, s.tokens, len(s.tokens))
	for _, chunk := range []int{1, 2, 7, 33, 64} {
		s.same(t, fmt.Sprintf("steps of %d", chunk), s.all(t, s.exec, s.tokens, chunk), want)
	}
}

// wantedRows: asking for fewer rows does not change them.
func (s *suite) wantedRows(t *testing.T) {
	want := s.all(t, s.exec, s.tokens[:20], 20)
	seq := s.sequence(t, s.exec, 20)
	defer seq.Close()
	l := backend.Logits{}
	for _, step := range []struct {
		tokens []int32
		want   backend.Want
		rows   [][]float32
	}{
		{s.tokens[:9], backend.None, nil},
		{s.tokens[9:15], backend.Last, want[14:15]},
		{s.tokens[15:20], backend.All, want[15:20]},
	} {
		l.Resize(0, 0)
		if err := s.exec.Step([]backend.Span{{Seq: seq, Tokens: step.tokens, Want: step.want}}, &l); err != nil {
			t.Fatal(err)
		}
		var got [][]float32
		for i := range l.Rows() {
			got = append(got, l.Row(i))
		}
		s.same(t, fmt.Sprintf("want %d", step.want), got, step.rows)
	}
}

// sequencesTogether: sequences of different lengths in one step do not see
// each other.
func (s *suite) sequencesTogether(t *testing.T) {
	texts := [][]int32{s.tokens[:17], s.tokens[30:31], s.tokens[40:73]}
	var want, got [3][][]float32
	var seqs [3]backend.Sequence
	for i, text := range texts {
		want[i] = s.all(t, s.exec, text, len(text))
		seqs[i] = s.sequence(t, s.exec, len(text))
		defer seqs[i].Close()
	}
	// First one token of each, then the rest of those that have more.
	for round := range 2 {
		var batch []backend.Span
		var owner []int
		for i, text := range texts {
			part := text[:1]
			if round == 1 {
				part = text[1:]
			}
			if len(part) > 0 {
				batch = append(batch, backend.Span{Seq: seqs[i], Tokens: part, Want: backend.All})
				owner = append(owner, i)
			}
		}
		var l backend.Logits
		if err := s.exec.Step(batch, &l); err != nil {
			t.Fatal(err)
		}
		row := 0
		for j, span := range batch {
			for range span.Tokens {
				got[owner[j]] = append(got[owner[j]], l.Row(row))
				row++
			}
		}
	}
	for i := range texts {
		s.same(t, fmt.Sprintf("sequence %d", i), got[i], want[i])
	}
}

// truncate: what is forgotten leaves no trace.
func (s *suite) truncate(t *testing.T) {
	want := s.all(t, s.exec, s.tokens[:30], 30)
	seq := s.sequence(t, s.exec, 64)
	defer seq.Close()
	s.extend(t, s.exec, seq, s.tokens[:12], 12)
	s.extend(t, s.exec, seq, s.tokens[50:80], 30)
	if err := seq.Truncate(12); err != nil {
		t.Fatal(err)
	}
	if seq.Len() != 12 {
		t.Fatalf("length %d after truncation, want 12", seq.Len())
	}
	s.same(t, "after truncation", s.extend(t, s.exec, seq, s.tokens[12:30], 18), want[12:])
	if err := seq.Truncate(31); err == nil {
		t.Error("truncating to more tokens than held is not refused")
	}
}

// threads: the number of workers does not change a bit of the result.
func (s *suite) threads(t *testing.T) {
	want := s.all(t, s.exec, s.tokens[:40], 40)
	for _, n := range []int{1, 3} {
		_, exec := load(t, s, backend.Options{KV: tensor.F32, Threads: n})
		strict := *s
		strict.batch = 0
		strict.same(t, fmt.Sprintf("%d threads", n), s.all(t, exec, s.tokens[:40], 40), want)
	}
}

// refusals: a step that cannot be right fails and leaves the sequence alone.
func (s *suite) refusals(t *testing.T) {
	seq := s.sequence(t, s.exec, 4)
	defer seq.Close()
	for _, tt := range []struct {
		name  string
		batch []backend.Span
		kind  error
	}{
		{"token beyond the vocabulary", []backend.Span{{Seq: seq, Tokens: []int32{int32(s.p.Vocab)}}}, backend.ErrToken},
		{"negative token", []backend.Span{{Seq: seq, Tokens: []int32{-1}}}, backend.ErrToken},
		{"more than the capacity", []backend.Span{{Seq: seq, Tokens: s.tokens[:5]}}, backend.ErrContextFull},
		{"no tokens", []backend.Span{{Seq: seq}}, nil},
		{"no sequence", []backend.Span{{Tokens: s.tokens[:1]}}, nil},
		{"one sequence twice", []backend.Span{{Seq: seq, Tokens: s.tokens[:1]}, {Seq: seq, Tokens: s.tokens[:1]}}, nil},
	} {
		err := s.exec.Step(tt.batch, &backend.Logits{})
		if err == nil || tt.kind != nil && !errors.Is(err, tt.kind) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.kind)
		}
		if seq.Len() != 0 {
			t.Fatalf("%s: the sequence grew to %d", tt.name, seq.Len())
		}
	}
	if _, err := s.exec.NewSequence(0); err == nil {
		t.Error("a sequence without room is not refused")
	}
}

// halfCacheLimit is what keys and values in half precision may cost: 2⁻¹¹ an
// element, some 1e-3 of these models' logits.
const halfCacheLimit = 5e-3

// halfCache: keys and values in half precision cost no more than their rounding.
// Where products of many tokens are rounded too, the slightest change redraws those
// roundings, so steps of many have the backend's allowance; single tokens do not.
func (s *suite) halfCache(t *testing.T) {
	_, exec := load(t, s, backend.Options{KV: tensor.F16})
	for tokens, limit := range map[int]float64{1: halfCacheLimit, 64: max(halfCacheLimit, s.batch)} {
		want := s.all(t, s.exec, s.tokens, tokens)
		for i, row := range s.all(t, exec, s.tokens, tokens) {
			if e := golden.RelativeRMS(row, want[i]); !(e <= limit) {
				t.Fatalf("steps of %d, row %d differs by %.3g (limit %.3g)", tokens, i, e, limit)
			}
		}
	}
}
