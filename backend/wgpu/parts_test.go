//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/tensor"
)

// TestParts prints where the host's time goes in decoding with the model that
// APR_WGPU_PARTS names: the parts of executor.piece, step by step.
func TestParts(t *testing.T) {
	path := os.Getenv("APR_WGPU_PARTS")
	if path == "" {
		t.Skip("a measurement that nothing can fail: set APR_WGPU_PARTS to a model")
	}
	needAdapter(t)
	start := time.Now()
	_, x := backendtest.Load(t, path, Name, backend.Options{KV: tensor.F16, MaxBatch: 2048})
	e, ok := x.(*executor)
	if !ok {
		t.Fatalf("%T", x)
	}
	fmt.Printf("loaded in %.2f s\n", time.Since(start).Seconds())
	l, err := e.MeasureLimits()
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("reads %.0f GB/s, multiplies %.1f Top/s\n", l.Bandwidth/1e9, l.Arithmetic/1e12)
	s, err := e.NewSequence(16384)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	seq := s.(*sequence)
	for _, n := range []int{512, 2048} {
		tokens := make([]int32, n)
		for i := range tokens {
			tokens[i] = int32(i)
		}
		var best time.Duration
		for range 4 {
			if err := s.Truncate(0); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if err := e.Step([]backend.Span{{Seq: s, Tokens: tokens, Want: backend.Last}}, &backend.Logits{}); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(start); best == 0 || d < best {
				best = d
			}
		}
		fmt.Printf("prompt of %d: %.1f ms, %.0f tok/s\n", n, best.Seconds()*1e3, float64(n)/best.Seconds())
		if err := s.Truncate(0); err != nil {
			t.Fatal(err)
		}
		e.SetProfile(true)
		if err := e.Step([]backend.Span{{Seq: s, Tokens: tokens, Want: backend.Last}}, &backend.Logits{}); err != nil {
			t.Fatal(err)
		}
		for _, o := range e.Profile() {
			if o.Time > time.Millisecond/10 {
				fmt.Printf("  %4d × %-70s %8.2f ms  %6.1f Top/s %6.0f GB/s\n", o.Calls, o.Name, o.Time.Seconds()*1e3, o.Operations/o.Time.Seconds()/1e12, o.Bytes/o.Time.Seconds()/1e9)
			}
		}
		e.SetProfile(false)
	}
	logits := make([]float32, e.program.Vocab)
	batch := []backend.Span{{Seq: s, Tokens: []int32{5}, Want: backend.Last}}
	p := e.cut(batch)[0]
	for _, depth := range []int{64, 1024, 8192} {
		for _, way := range []string{"sleep", "spin"} {
			e.gpu.Spin = way == "spin"
			var sum [6]time.Duration
			const steps = 100
			for i := range steps + 10 {
				if i == 10 {
					sum = [6]time.Duration{}
				}
				seq.length = depth + i
				mark := time.Now()
				lap := func(n int) {
					now := time.Now()
					sum[n] += now.Sub(mark)
					mark = now
				}
				e.host = append(e.host[:0], [4]uint32{1, 1, 1}, [4]uint32{5, uint32(seq.length), 0, 0})
				if i == 0 { // as it stays
					if err := e.gpu.Write(seq.info, 0, bytesOf([][4]uint32{{0, 1, uint32(seq.capacity)}})); err != nil {
						t.Fatal(err)
					}
				}
				lap(0)
				if err := e.decoded.Fill(bytesOf(e.host)); err != nil {
					t.Fatal(err)
				}
				lap(1)
				rec := e.ahead.take(e, batch, p, len(logits))
				if err := rec.Submit(); err != nil {
					t.Fatal(err)
				}
				e.decoded.Reopen()
				lap(2)
				if err := e.ahead.prepare(e, batch, p, len(logits)); err != nil {
					t.Fatal(err)
				}
				lap(3)
				if way == "sleep" {
					if err := e.gpu.Wait(); err != nil {
						t.Fatal(err)
					}
				}
				lap(4)
				if err := e.read(e.staging, logits); err != nil {
					t.Fatal(err)
				}
				lap(5)
			}
			total := time.Duration(0)
			line := ""
			for i, name := range []string{"write span", "write step", "submit", "record next", "wait", "read"} {
				line += fmt.Sprintf("  %s %d µs", name, sum[i].Microseconds()/steps)
				total += sum[i]
			}
			fmt.Printf("depth %d, %s: %d µs a token:%s\n", depth, way, total.Microseconds()/steps, line)
		}
	}
}
