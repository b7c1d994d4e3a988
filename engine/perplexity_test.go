package engine

import (
	"context"
	"errors"
	"math"
	"reflect"
	"slices"
	"testing"

	_ "github.com/apr-engine/apr/backend/all"
	"github.com/apr-engine/apr/internal/golden"
	_ "github.com/apr-engine/apr/model/all"
)

const tiny = "tiny-coder-4m-q4_k_m"

func exactSession(t testing.TB, capacity int) *Session {
	t.Helper()
	m, err := LoadModel(golden.Path(t, "models", tiny+".gguf"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := Open(m, Options{Backend: "cpu-exact", KV: KVF32})
	if err != nil {
		t.Fatal(err)
	}
	s, err := e.NewSession(capacity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); e.Close(); m.Close() })
	return s
}

// The losses of PyTorch, in float64 over exactly dequantised weights.
func TestLikelihoodsOfReference(t *testing.T) {
	s := exactSession(t, 1024)
	for _, p := range golden.Prompts(t, golden.Path(t, "testdata", "reference", tiny+".safetensors")) {
		t.Run(p.Name, func(t *testing.T) {
			if len(p.IDs) < 2 {
				t.Skip("one token has no likelihood")
			}
			var got []float64
			err := s.Logits(context.Background(), p.IDs[:len(p.IDs)-1], 0, func(i int, row []float32) error {
				got = append(got, negativeLogLikelihood(row, p.IDs[i+1]))
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != len(p.NegativeLog) {
				t.Fatalf("%d likelihoods, want %d", len(got), len(p.NegativeLog))
			}
			for i, want := range p.NegativeLog {
				// Logits of about 10 with a relative error of 1e-5.
				if diff := math.Abs(got[i] - float64(want)); !(diff <= 3e-4) {
					t.Errorf("token %d: %v, want %v", i+1, got[i], want)
				}
			}
		})
	}
}

// Logits from any first position are those of the whole, and the last row is
// what generation would see.
func TestLogitsFromPosition(t *testing.T) {
	s := exactSession(t, 64)
	tokens := []int32{820, 1298, 198, 338, 1298, 347, 270}
	rows := func(first int) (list [][]float32) {
		t.Helper()
		err := s.Logits(context.Background(), tokens, first, func(p int, row []float32) error {
			if p != first+len(list) {
				t.Errorf("position %d after %d rows from %d", p, len(list), first)
			}
			list = append(list, slices.Clone(row))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	all := rows(0)
	if len(all) != len(tokens) {
		t.Fatalf("%d rows, want %d", len(all), len(tokens))
	}
	for first := 1; first < len(tokens); first++ {
		for i, row := range rows(first) {
			// Batches of different lengths add in a different order.
			if d := golden.RelativeRMS(row, all[first+i]); !(d <= 1e-5) {
				t.Errorf("from %d, row %d differs by %v", first, i, d)
			}
		}
	}
	for _, first := range []int{-1, len(tokens)} {
		if err := s.Logits(context.Background(), tokens, first, nil); !errors.Is(err, ErrInput) {
			t.Errorf("from %d: %v, want ErrInput", first, err)
		}
	}
	if err := s.Logits(context.Background(), make([]int32, 65), 0, func(int, []float32) error { return nil }); !errors.Is(err, ErrInput) {
		t.Errorf("more tokens than room: %v, want ErrInput", err)
	}
}

func TestWindows(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    PerplexityOptions
		n    int
		want []window
	}{
		{"side by side, rest left out", PerplexityOptions{Context: 8}, 20, []window{{0, 8, 4}, {8, 16, 4}}},
		{"odd context", PerplexityOptions{Context: 5}, 5, []window{{0, 5, 2}}},
		{"limited", PerplexityOptions{Context: 8, Chunks: 1}, 20, []window{{0, 8, 4}}},
		{"sliding", PerplexityOptions{Context: 8, Stride: 4}, 14, []window{{0, 8, 0}, {4, 12, 3}, {8, 14, 3}}},
		{"sliding over a short text", PerplexityOptions{Context: 8, Stride: 4}, 3, []window{{0, 3, 0}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.o.windows(tt.n)
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%v, %v; want %v", got, err, tt.want)
			}
		})
	}
	for _, bad := range []struct {
		name string
		o    PerplexityOptions
		n    int
	}{
		{"short context", PerplexityOptions{Context: 3}, 100},
		{"stride of a whole window", PerplexityOptions{Context: 8, Stride: 8}, 100},
		{"negative stride", PerplexityOptions{Context: 8, Stride: -1}, 100},
		{"text shorter than a window", PerplexityOptions{Context: 8}, 7},
		{"one token", PerplexityOptions{Context: 8, Stride: 4}, 1},
	} {
		t.Run(bad.name, func(t *testing.T) {
			if _, err := bad.o.windows(bad.n); !errors.Is(err, ErrInput) {
				t.Errorf("%v, want ErrInput", err)
			}
		})
	}
}

// Sliding windows score every token but the first exactly once.
func TestSlidingWindowsScoreAll(t *testing.T) {
	for n := 2; n < 40; n++ {
		for stride := 1; stride < 8; stride++ {
			list, err := PerplexityOptions{Context: 8, Stride: stride}.windows(n)
			if err != nil {
				t.Fatal(err)
			}
			next := 1
			for _, w := range list {
				if w.start+w.first+1 != next || w.end-w.start > 8 {
					t.Fatalf("n %d, stride %d: window %v after token %d", n, stride, w, next)
				}
				next = w.end
			}
			if next != n {
				t.Errorf("n %d, stride %d: scored up to %d", n, stride, next)
			}
		}
	}
}

// Large logits do not overflow.
func TestNegativeLogLikelihood(t *testing.T) {
	got := negativeLogLikelihood([]float32{1000, 1000, -math.MaxFloat32}, 1)
	if !(math.Abs(got-math.Ln2) <= 1e-12) {
		t.Errorf("%v, want ln 2", got)
	}
}
