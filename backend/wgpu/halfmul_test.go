//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"strings"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/tensor"
)

// A prompt whose products have few tiles, so that their columns are divided, gives the logits
// that float32 gives, within what half precision costs.
func TestDividedProducts(t *testing.T) {
	if d := needAdapter(t); !d.adapter.Features.F16 {
		t.Skip("this adapter has no half precision: scripts/gpu/check runs it on a GPU that has")
	}
	path := golden.Path(t, "models", "tiny-coder-28m-q4_k_m.gguf")
	tokens := make([]int32, 20)
	for i := range tokens {
		tokens[i] = int32(17*i + 3)
	}
	var want []float32
	for _, name := range []string{plainName, halfName} {
		_, x := backendtest.Load(t, path, name, backend.Options{KV: tensor.F32, MaxBatch: 32})
		s, err := x.NewSequence(32)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		e := x.(*executor)
		e.SetProfile(true)
		var l backend.Logits
		if err := x.Step([]backend.Span{{Seq: s, Tokens: tokens, Want: backend.Last}}, &l); err != nil {
			t.Fatal(err)
		}
		if name == plainName {
			want = l.Data
			continue
		}
		if d := golden.RelativeRMS(l.Data, want); !(d <= halfBatch) {
			t.Errorf("logits differ by %.3g, limit %g", d, halfBatch)
		} else {
			t.Logf("logits differ by %.3g", d)
		}
		if !e.gpu.Features.Timestamps {
			continue // no profile
		}
		divided := 0
		for _, o := range e.Profile() {
			if strings.HasSuffix(o.Name, "/split") {
				divided += o.Calls
			}
		}
		if divided < 8 {
			t.Errorf("%d products are divided, want one a layer at least: %+v", divided, e.Profile())
		}
	}
}
