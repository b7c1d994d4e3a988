package engine_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
)

// With a cache of Q8_0 the fast path serves, since the reference rounds keys and values
// as well, and what is wrong with the cache is found all the same.
func TestQuantisedCache(t *testing.T) {
	g := generate(t, engine.Options{NoGPU: true, KV: engine.KVQ8}, 16, false)
	if s := g.e.Selection(); g.err != nil || g.result.Text != answer || s.Ran != "cpu" || !s.Verified {
		t.Errorf("%q, %v, %+v", g.result.Text, g.err, s)
	}
	// Beside what Q8_0 rounds the fourth would not show; it is found with a cache of F16.
	for _, name := range []string{"kv-slot-late", "cache-zero-rows", "kv-drift", "silu-steep"} {
		f, err := fault.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		o := engine.Options{NoGPU: true, KV: engine.KVQ8, Gate: engine.GateOptions{FaultSpec: name, Fault: func(at string, d backend.Device) backend.Device {
			if at != "cpu" {
				return d
			}
			return fault.Wrap(d, f)
		}}}
		g := generate(t, o, 64, true)
		if len(g.lines) == 0 || !strings.Contains(g.lines[len(g.lines)-1], "CPU (exact)") && g.err == nil {
			t.Errorf("%s: %v, lines %q", name, g.err, g.lines)
		}
		if name == "silu-steep" && !strings.Contains(g.lines[0], "with a cache of F16: ") {
			t.Errorf("lines %q do not say that the function is wrong whatever the cache", g.lines)
		}
	}
}

// What is judged with a cache of F16 on the way counts for one that serves with it.
func TestQuantisedCacheCertificates(t *testing.T) {
	store := &parity.Store{Dir: t.TempDir()}
	for _, tc := range []struct {
		kv    engine.KVType
		basis parity.How
	}{{engine.KVQ8, parity.ByProbe}, {engine.KVQ8, parity.ByCertificate}, {engine.KVF16, parity.ByCertificate}} {
		g := generate(t, engine.Options{NoGPU: true, KV: tc.kv, Gate: engine.GateOptions{Store: store}}, 1, false)
		if s := g.e.Selection(); g.err != nil || s.Ran != "cpu" || s.Decisions[0].Basis != tc.basis {
			t.Errorf("%s: %v, %+v", tc.kv, g.err, s)
		}
	}
}

// A measurement takes no certificate's word for what is compared with a cache of F16, and
// compares it at long contexts too.
func TestQuantisedCacheMeasured(t *testing.T) {
	store := &parity.Store{Dir: t.TempDir()}
	o := engine.Options{NoGPU: true, KV: engine.KVQ8, Gate: engine.GateOptions{Store: store}}
	g := generate(t, o, 1, false)
	if g.err != nil {
		t.Fatal(g.err)
	}
	list, _, err := store.List()
	if err != nil || len(list) != 2 {
		t.Fatalf("%d certificates, %v; want one of F16 and one of Q8_0", len(list), err)
	}
	for _, c := range list { // as a build would leave them that did not look at the function
		c.Covered = []string{"nothing"}
		store.Put(c)
	}
	tokens := g.e.Model.RandomTokens(100)
	if v, err := engine.Measure(t.Context(), g.e.Model, o, "cpu", tokens); err != nil || !v.Passed() {
		t.Errorf("%v %s, %v", v.Status, v.Reason, err)
	}
	if list, _, err = store.List(); err != nil || len(list) != 2 {
		t.Fatalf("%d certificates, %v", len(list), err)
	}
	for _, c := range list {
		if slices.Contains(c.Covered, "nothing") {
			t.Errorf("the certificate with %s was believed", c.Key.Options)
		}
	}

	steep, err := fault.Lookup("silu-steep")
	if err != nil {
		t.Fatal(err)
	}
	o.Gate.FaultSpec, o.Gate.Fault = steep.Name, func(at string, d backend.Device) backend.Device {
		if at != "cpu" {
			return d
		}
		return fault.Wrap(d, steep)
	}
	var verdicts []parity.Verdict
	err = engine.MeasureContexts(t.Context(), g.e.Model, o, []string{"cpu"}, tokens, []int{32, 64}, func(n int, v parity.Verdict) error {
		if n != 32 {
			t.Errorf("a verdict of %d positions, want the shortest context", n)
		}
		verdicts = append(verdicts, v)
		return nil
	})
	if err != nil || len(verdicts) != 1 || verdicts[0].Passed() || !strings.Contains(verdicts[0].Reason, "with a cache of F16: ") {
		t.Errorf("%v, %+v", err, verdicts)
	}
}
