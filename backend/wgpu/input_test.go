//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/backend/split"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/tensor"
)

// halves is a backend whose programs begin with rows: cpu-exact has run the layers
// before the last one.
type halves struct{ wgpu }

func (h halves) Name() string { return h.name + "-last" }

func (h halves) Probe() ([]backend.Device, error) {
	exact, err := backend.Find("cpu-exact")
	if err != nil {
		return nil, err
	}
	host, err := exact.Probe()
	if err != nil {
		return nil, err
	}
	devices, err := h.wgpu.Probe()
	if err != nil {
		return nil, err
	}
	return []backend.Device{split.New(host[0], devices[0], 1)}, nil
}

// Rows arrive where they belong, also in steps that are cut into pieces, with every
// operation by itself, and in commands that were recorded ahead.
func TestProgramsThatBeginWithRows(t *testing.T) {
	needAdapter(t)
	for name, restrict := range map[string]func(*settings){
		"plain":  func(s *settings) { s.Subgroups, s.F16, s.Checked = false, false, true },
		"tight":  func(s *settings) { s.Binding, s.F16 = 150_000, false },
		"singly": func(s *settings) { s.Unfused, s.F16 = true, false },
	} {
		t.Run(name, func(t *testing.T) {
			h := halves{wgpu{"wgpu-" + name, restrict}}
			backend.Register(h)
			backendtest.ConformanceOf(t, h.Name(), batch, "qwen3")
			path := golden.Path(t, "testdata", "architectures", "qwen3.gguf")
			p, whole := backendtest.Load(t, path, "cpu-exact", backend.Options{KV: tensor.F32})
			_, pair := backendtest.Load(t, path, h.Name(), backend.Options{KV: tensor.F32})
			tokens := make([]int32, 120)
			for i := range tokens {
				tokens[i] = int32(i * 7 % p.Vocab)
			}
			var want, got backend.Logits
			for _, side := range []struct {
				exec backend.Executor
				l    *backend.Logits
			}{{whole, &want}, {pair, &got}} {
				seq, err := side.exec.NewSequence(len(tokens))
				if err != nil {
					t.Fatal(err)
				}
				defer seq.Close()
				if err := side.exec.Step([]backend.Span{{Seq: seq, Tokens: tokens[:100], Want: backend.None}}, nil); err != nil {
					t.Fatal(err)
				}
				for i := 100; i < len(tokens); i++ { // one by one, as recorded ahead
					if err := side.exec.Step([]backend.Span{{Seq: seq, Tokens: tokens[i : i+1], Want: backend.Last}}, side.l); err != nil {
						t.Fatal(err)
					}
				}
			}
			if e := golden.RelativeRMS(got.Row(0), want.Row(0)); !(e <= 1e-5) {
				t.Errorf("the last logits differ by %.3g", e)
			}
		})
	}
}
