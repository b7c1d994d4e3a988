package cpu

import (
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/tensor"
)

// Only the executor that rounds activations lets attention round queries.
func TestOnlyRoundedAttendsInIntegers(t *testing.T) {
	for _, name := range []string{Name, ExactName} {
		_, exec := backendtest.Load(t, "../../models/tiny-coder-4m-q4_k_m.gguf", name, backend.Options{KV: tensor.Q8_0})
		seq, err := exec.NewSequence(4)
		if err != nil {
			t.Fatal(err)
		}
		defer seq.Close()
		if err := exec.Step([]backend.Span{{Seq: seq, Tokens: []int32{5}}}, nil); err != nil {
			t.Fatal(err)
		}
		e, layers := exec.(*executor), 0
		for i := range e.code {
			if a := e.code[i].attending; a != nil {
				job := a.job(0, e.step.units[0], 0)
				if job.Integers != (name == Name) {
					t.Errorf("%s: attention in integers: %v", name, job.Integers)
				}
				layers++
			}
		}
		if layers == 0 {
			t.Errorf("%s: no attention", name)
		}
	}
}
