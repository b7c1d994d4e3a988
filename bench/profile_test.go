package bench

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/graph"
)

// The operations of a profile fill the time of the run, and their bytes and
// multiplications are those of the model's tensors.
func TestProfile(t *testing.T) {
	m := loadTiny(t)
	work := Work(m)
	var rowBytes, output, outputOps float64
	for _, op := range m.Program.Ops {
		for _, name := range op.Weights() {
			w, _ := m.File.Tensor(name)
			switch op.(type) {
			case *graph.Embed:
				rowBytes = float64(len(w.Row(0)))
			case *graph.Logits:
				output, outputOps = float64(len(w.Data)), 2*float64(w.Elements())
			}
		}
	}
	vectors := 0.0 // norms and biases: read, but not as matrices
	for _, x := range m.File.Tensors {
		if len(x.Shape) == 1 {
			vectors += float64(len(x.Data))
		}
	}
	const prompt, generated = 16, 4
	o := Options{Prompt: []int{prompt}, Generate: []int{generated}, Threads: []int{1, 2}, Repetitions: 1, Profile: true}
	err := Run(context.Background(), m, o, func(r Row) error {
		var sum, operations, bytes, share float64
		for _, op := range r.Profile.Operations {
			if op.Time < 0 || op.Calls <= 0 {
				t.Errorf("%s %s: %d calls took %v", r.Test(), op.Name, op.Calls, op.Time)
			}
			if (op.Limit > 0) != (op.Bytes > 0) {
				t.Errorf("%s %s: limit %v for %g bytes", r.Test(), op.Name, op.Limit, op.Bytes)
			}
			sum += op.Time.Seconds()
			share += op.Share
			if op.Name != "attention/kv-F16" {
				operations += op.Operations
				bytes += op.Bytes
			}
		}
		if total := r.Profile.Total.Seconds(); !(math.Abs(sum/total-1) < 1e-3) || !(math.Abs(share-1) < 1e-3) {
			t.Errorf("%s: operations took %g s of %g s", r.Test(), sum, total)
		}
		steps, tokens, outputs := 1.0, float64(prompt), 1.0
		if r.Generate > 0 {
			steps, tokens, outputs = generated, generated, generated
		}
		wantBytes := steps*(float64(work.Bytes)-rowBytes-vectors-output) + outputs*output
		if wantOps := tokens*work.Operations + outputs*outputOps; operations != wantOps || bytes != wantBytes {
			t.Errorf("%s: %g operations and %g bytes, want %g and %g", r.Test(), operations, bytes, wantOps, wantBytes)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestProfileUnsupported(t *testing.T) {
	o := Options{Generate: []int{1}, Threads: []int{1}, Repetitions: 1, Profile: true, Engine: engine.Options{Backend: "oracle"}}
	err := Run(context.Background(), loadTiny(t), o, func(Row) error { return nil })
	if !errors.Is(err, engine.ErrInput) {
		t.Errorf("%v, want ErrInput", err)
	}
}
