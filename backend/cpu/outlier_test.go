package cpu_test

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/backend/cpu"
	"github.com/apr-engine/apr/synth"
	"github.com/apr-engine/apr/tensor"
)

// Channels of 26 times the RMS are what made 8-bit activations with one scale
// for 256 elements drift to a cosine of 0.95; 16-bit ones must not notice.
func TestOutlierChannels(t *testing.T) {
	const limit = 0.999
	for _, preset := range []string{"tiny-qwen2.5-1.5b", "tiny-llama-3.2-1b", "tiny-qwen3-0.6b"} {
		for _, recipe := range []string{"q4_k_m", "q8_0"} {
			t.Run(preset+"/"+recipe, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "outliers.gguf")
				if err := synth.Write(path, synth.Options{Preset: preset, Quant: recipe, Seed: 1, OutlierChannels: 4}); err != nil {
					t.Fatal(err)
				}
				tokens := make([]int32, 48)
				for i := range tokens {
					tokens[i] = int32(i * 7 % 250)
				}
				exact, fast := logits(t, path, cpu.ExactName, tokens), logits(t, path, cpu.Name, tokens)
				worst := 1.0
				for i := range exact.Rows() {
					worst = math.Min(worst, cosine(exact.Row(i), fast.Row(i)))
				}
				t.Logf("worst cosine %.7f", worst)
				if !(worst >= limit) {
					t.Errorf("worst cosine %v, want at least %v", worst, limit)
				}
			})
		}
	}
}

func logits(t *testing.T, path, name string, tokens []int32) *backend.Logits {
	t.Helper()
	_, exec := backendtest.Load(t, path, name, backend.Options{KV: tensor.F32})
	seq, err := exec.NewSequence(len(tokens))
	if err != nil {
		t.Fatal(err)
	}
	defer seq.Close()
	var l backend.Logits
	if err := exec.Step([]backend.Span{{Seq: seq, Tokens: tokens, Want: backend.All}}, &l); err != nil {
		t.Fatal(err)
	}
	return &l
}

func cosine(a, b []float32) float64 {
	var ab, aa, bb float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
	}
	return ab / math.Sqrt(aa*bb)
}
