package engine_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/synth"
)

// benchModels are the bundled models and, with APR_BENCH_LARGE=1, a synthetic
// one of 1.5 billion parameters (1 GB on disk, written for the run).
func benchModels(b *testing.B) map[string]string {
	b.Helper()
	paths := map[string]string{"28m": golden.Path(b, "models", big), "4m": golden.Path(b, "models", small)}
	if os.Getenv("APR_BENCH_LARGE") == "1" {
		path := filepath.Join(b.TempDir(), "1.5b.gguf")
		if err := synth.Write(path, synth.Options{Preset: "qwen2.5-1.5b", Quant: "q4_k_m"}); err != nil {
			b.Fatal(err)
		}
		// The hash of a file that was written just now is not remembered.
		if old := time.Now().Add(-time.Hour); os.Chtimes(path, old, old) != nil {
			b.Fatal("cannot set the file's time")
		}
		paths["synthetic 1.5b"] = path
	}
	return paths
}

// BenchmarkColdGate is the whole comparison of the CPU path on a prompt of 26
// tokens, split into the reference's and the candidate's steps; hashing the
// file is measured apart.
func BenchmarkColdGate(b *testing.B) {
	for name, path := range benchModels(b) {
		b.Run(name, func(b *testing.B) {
			m, err := engine.LoadModel(path)
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			var reference, candidate, hashing time.Duration
			for b.Loop() {
				v, err := engine.Measure(context.Background(), m, engine.Options{}, "cpu", few(26))
				if err != nil || !v.Passed() {
					b.Fatalf("%v: %s, %v", v.Status, v.Reason, err)
				}
				reference += v.ReferenceCost.Time
				candidate += v.CandidateCost.Time
				_, took, err := (&parity.Store{}).FileHash([]string{path})
				if err != nil {
					b.Fatal(err)
				}
				hashing += took
			}
			each := func(d time.Duration, unit string) { b.ReportMetric(float64(d.Microseconds())/1000/float64(b.N), unit) }
			each(reference, "reference-ms/op")
			each(candidate, "candidate-ms/op")
			each(hashing, "hashing-ms/op")
		})
	}
}

// BenchmarkWarmGate is what the gate adds to a start with a certificate: the
// first use of a session up to its first step.
func BenchmarkWarmGate(b *testing.B) {
	for name, path := range benchModels(b) {
		b.Run(name, func(b *testing.B) {
			m, err := engine.LoadModel(path)
			if err != nil {
				b.Fatal(err)
			}
			defer m.Close()
			o := engine.Options{Gate: engine.GateOptions{Store: &parity.Store{Dir: b.TempDir()}}}
			start := func() time.Duration {
				e, err := engine.Open(m, o)
				if err != nil {
					b.Fatal(err)
				}
				defer e.Close()
				s, err := e.NewSession(64)
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				if _, _, err := s.Prefill(context.Background(), few(26)); err != nil {
					b.Fatal(err)
				}
				validate, _ := e.GateTimes()
				return validate
			}
			start() // cold: writes the certificate
			var total time.Duration
			for b.Loop() {
				total += start()
			}
			b.ReportMetric(float64(total.Nanoseconds())/1e6/float64(b.N), "gate-ms/op")
		})
	}
}

// BenchmarkColdGPU is a cold start on a GPU whose weights take 300 ms to upload,
// from opening the model to the first logits: ungated, gated, and gated with the
// reference computing the prompt meanwhile. The candidate's own part of the
// probe is that of the CPU, which plays the GPU.
func BenchmarkColdGPU(b *testing.B) {
	m, err := engine.LoadModel(golden.Path(b, "models", big))
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	prompt := few(26)
	for name, o := range map[string]engine.Options{
		"ungated": {Gate: engine.GateOptions{Verify: engine.VerifyOff}}, "gated": {}, "gated, reference ahead": {Expect: prompt},
	} {
		b.Run(name, func(b *testing.B) {
			fakeCUDA.plug(b, hooks{loadTime: 300 * time.Millisecond})
			for b.Loop() {
				e, err := engine.Open(m, o)
				if err != nil {
					b.Fatal(err)
				}
				s, err := e.NewSession(64)
				if err != nil {
					b.Fatal(err)
				}
				if _, _, err := s.Prefill(context.Background(), prompt); err != nil {
					b.Fatal(err)
				}
				s.Close()
				e.Close()
			}
		})
	}
}

// BenchmarkShadow is a generation of 128 tokens on a GPU of 4 ms a token, which
// leaves the CPUs idle, alone and followed by the reference.
func BenchmarkShadow(b *testing.B) {
	m, err := engine.LoadModel(golden.Path(b, "models", small))
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	store := &parity.Store{Dir: b.TempDir()}
	for _, verify := range []engine.Verify{engine.VerifyProbe, engine.VerifyShadow} {
		b.Run(string(verify), func(b *testing.B) {
			fakeCUDA.plug(b, hooks{step: func([]backend.Span, *backend.Logits) error {
				time.Sleep(4 * time.Millisecond)
				return nil
			}})
			var total time.Duration
			run := func() time.Duration {
				e, err := engine.Open(m, engine.Options{Threads: 1, Gate: engine.GateOptions{Store: store, Verify: verify}})
				if err != nil {
					b.Fatal(err)
				}
				defer e.Close()
				s, err := e.NewSession(160)
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				r, err := s.Generate(context.Background(), engine.Request{Prompt: few(26), MaxTokens: 128, IgnoreEOS: true})
				if err != nil {
					b.Fatal(err)
				}
				return r.DecodeTime
			}
			run() // certifies the whole context
			for b.Loop() {
				total += run()
			}
			b.ReportMetric(float64(128*b.N)/total.Seconds(), "tok/s")
		})
	}
}
