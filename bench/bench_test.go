package bench

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/apr-engine/apr/backend"
	_ "github.com/apr-engine/apr/backend/all"
	"github.com/apr-engine/apr/engine"
	_ "github.com/apr-engine/apr/model/all"
)

func loadTiny(t testing.TB) *engine.Model {
	t.Helper()
	m, err := engine.LoadModel("../models/tiny-coder-4m-q4_k_m.gguf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestRun(t *testing.T) {
	m := loadTiny(t)
	o := Options{Prompt: []int{8, 16}, Generate: []int{4}, Threads: []int{1, 2}, Repetitions: 3}
	var tests []string
	err := Run(context.Background(), m, o, func(r Row) error {
		tests = append(tests, r.Test())
		if r.Backend != "cpu" || len(r.Speeds) != 3 || len(r.Times) != 3 {
			t.Errorf("%s: backend %s, %d speeds", r.Test(), r.Backend, len(r.Speeds))
		}
		for name, v := range map[string]float64{
			"mean": r.Mean, "median": r.Median, "limit": r.Limit, "share": r.OfLimit(),
			"bandwidth": r.Machine.Bandwidth, "16-bit": r.Machine.I16, "float32": r.Machine.F32,
		} {
			if !(v > 0 && v < 1e15) {
				t.Errorf("%s: %s is %v", r.Test(), name, v)
			}
		}
		// A run has at least one stretch; prompts are not limited by reading.
		if n := len(r.Pairs); (r.Generate > 0) != (n >= 3) || n > 0 && r.OfLimit() != r.Pairs.Share() {
			t.Errorf("%s: %d pairs, share %v, by pairs %v", r.Test(), n, r.OfLimit(), r.Pairs.Share())
		}
		if !(r.Check.Cosine >= 0.9999) || r.Check.Positions != checkTokens {
			t.Errorf("check %+v", r.Check)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"pp8", "pp16", "tg4", "pp8", "pp16", "tg4"}
	if len(tests) != len(want) {
		t.Fatalf("tests %v, want %v", tests, want)
	}
	for i := range want {
		if tests[i] != want[i] {
			t.Errorf("test %d is %s, want %s", i, tests[i], want[i])
		}
	}
}

// A step that is taken back leaves the sequences as they were, so what follows computes
// what it would have computed.
func TestAttempt(t *testing.T) {
	ctx := context.Background()
	e, err := engine.Open(loadTiny(t), engine.Options{Backend: "cpu"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	const total = 6 // attempts need no more room than the steps
	for _, sequences := range []int{1, 2} {
		var want []float32
		for attempts := range 3 {
			g := &group{e: e, tokens: e.Model.RandomTokens(total), next: make([]int32, sequences)}
			for range sequences {
				s, err := e.NewSession(total)
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				g.sessions = append(g.sessions, s)
			}
			for i := range total - 1 {
				for range attempts {
					if err := g.attempt(ctx, i); err != nil {
						t.Fatal(err)
					}
				}
				if err := g.extend(ctx, i); err != nil {
					t.Fatal(err)
				}
			}
			for _, s := range g.sessions {
				if !slices.Equal(s.Tokens(), g.tokens[:total-1]) {
					t.Fatalf("a sequence holds %v, want %v", s.Tokens(), g.tokens[:total-1])
				}
			}
			l, err := g.sessions[sequences-1].Extend(ctx, g.tokens[total-1:], backend.Last)
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = slices.Clone(l.Row(0))
			}
			if !slices.Equal(l.Row(0), want) {
				t.Errorf("%d sequences, %d attempts before each step: other logits", sequences, attempts)
			}
		}
	}
}

// A backend that disagrees with the reference is not measured.
func TestCheckRefuses(t *testing.T) {
	m := loadTiny(t)
	e, err := engine.Open(m, engine.Options{Backend: "cpu-exact"})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	reference, err := logits(context.Background(), e)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := compare(context.Background(), e, reference); err != nil || !(c.Cosine >= 1-1e-9) {
		t.Fatalf("against itself: %+v, %v", c, err)
	}
	for _, tt := range []struct {
		name  string
		spoil func(row []float32)
	}{
		{"NaN", func(row []float32) { row[7] = float32(math.NaN()) }},
		{"zeros", func(row []float32) { clear(row) }},
		{"another distribution", func(row []float32) {
			for i := range row {
				row[i] = -row[i]
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			row := reference[5]
			reference[5] = append([]float32(nil), row...)
			defer func() { reference[5] = row }()
			tt.spoil(reference[5])
			if _, err := compare(context.Background(), e, reference); !errors.Is(err, ErrCheck) {
				t.Errorf("%v, want ErrCheck", err)
			}
		})
	}
}

// The student's tensors: everything is read once a token, the embedding too,
// because it is the output matrix.
func TestWork(t *testing.T) {
	m := loadTiny(t)
	var bytes int64
	var operations float64
	for _, x := range m.File.Tensors {
		bytes += int64(len(x.Data))
		if len(x.Shape) == 2 && x.Name != "token_embd.weight" {
			operations += 2 * float64(x.Elements())
		}
	}
	embedding, _ := m.File.Tensor("token_embd.weight")
	bytes += int64(len(embedding.Row(0)))
	if got := Work(m); got.Bytes != bytes || got.Operations != operations {
		t.Errorf("%+v, want %d bytes and %g operations", got, bytes, operations)
	}
}

func TestStatistics(t *testing.T) {
	for _, tt := range []struct {
		name                    string
		x                       []float64
		mean, deviation, median float64
	}{
		{"one", []float64{3}, 3, 0, 3},
		{"odd", []float64{9, 1, 2}, 4, math.Sqrt(19), 2},
		{"even", []float64{4, 1, 2, 3}, 2.5, math.Sqrt(5. / 3), 2.5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			mean, deviation, median := statistics(tt.x)
			// Sums of a few small numbers: only the last bits may differ.
			for _, c := range [][2]float64{{mean, tt.mean}, {deviation, tt.deviation}, {median, tt.median}} {
				if !(math.Abs(c[0]-c[1]) <= 1e-12) {
					t.Errorf("%v, want %v", c[0], c[1])
				}
			}
		})
	}
}

func TestOptionsOutOfRange(t *testing.T) {
	m := loadTiny(t)
	o := Options{Prompt: []int{5000}, Threads: []int{1}, Repetitions: 1}
	err := Run(context.Background(), m, o, func(Row) error { return nil })
	if !errors.Is(err, engine.ErrInput) {
		t.Errorf("%v, want ErrInput", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	o.Prompt = []int{8}
	if err := Run(ctx, m, o, func(Row) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want context.Canceled", err)
	}
}
