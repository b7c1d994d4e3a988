package parity_test

import (
	"context"
	"reflect"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

// promptFirst is a gate and a case whose prompt of 20 tokens is judged by itself.
func promptFirst(t *testing.T) (*parity.Gate, parity.Case, *toy) {
	store, problems := watched(t.TempDir())
	t.Cleanup(func() {
		if len(*problems) != 0 {
			t.Errorf("problems %q", *problems)
		}
	})
	k := key()
	k.Backend, k.Identity, k.Reference, k.Policy = "", "", "", ""
	ref := &toy{}
	c := toyCase(20)
	c.PromptFirst = true
	return &parity.Gate{Reference: source("cpu-exact", ref), Policy: parity.Standard(), Store: store, Key: k}, c, ref
}

// certificates counts what the gate remembers.
func certificates(t *testing.T, g *parity.Gate) []parity.Certificate {
	t.Helper()
	list, _, err := g.Store.List()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A probe in two parts judges what a whole one does, and permits no more after the
// first than that has judged.
func TestPromptFirst(t *testing.T) {
	g, c, ref := promptFirst(t)
	cand := &toy{noise: 0.01}
	cert, v := g.Certify(t.Context(), source("gpu", cand), c)
	if !v.Passed() || cert.Allows(cand) != nil || !cert.Pending() || len(v.Positions) != 20 {
		t.Fatalf("the prompt: %v %s, pending %v, %d positions", v.Status, v.Reason, cert.Pending(), len(v.Positions))
	}
	if cert.Context() != 20 || cert.Missing([]string{"toy/batch"}) != "" || cert.Missing([]string{"toy/decode"}) == "" {
		t.Errorf("permitted for %d tokens, single-token steps missing: %q", cert.Context(), cert.Missing([]string{"toy/decode"}))
	}
	if n := len(certificates(t, g)); n != 0 {
		t.Errorf("half a probe left %d certificates", n)
	}
	whole := g.Complete(t.Context(), cert, source("gpu", cand))
	if !whole.Passed() || cert.Pending() || cert.Context() != 72 || cert.Missing([]string{"toy/batch", "toy/decode"}) != "" {
		t.Errorf("the rest: %v %s, %d tokens", whole.Status, whole.Reason, cert.Context())
	}
	if n := ref.open.Load() + cand.open.Load(); n != 0 {
		t.Errorf("%d sequences are left open", n)
	}
	if list := certificates(t, g); len(list) != 1 || list[0].Context != 72 || list[0].Positions != len(whole.Positions) {
		t.Errorf("remembered: %+v", list)
	}
	atOnce := parity.Probe(t.Context(), source("cpu-exact", &toy{}), source("gpu", &toy{noise: 0.01}), toyCase(20), parity.Standard())
	if !reflect.DeepEqual(whole.Positions, atOnce.Positions) || !reflect.DeepEqual(whole.Covered, atOnce.Covered) {
		t.Errorf("%d positions and %q in two parts, %d and %q at once", len(whole.Positions), whole.Covered, len(atOnce.Positions), atOnce.Covered)
	}
	// The next start needs neither part.
	if cert, v := g.Certify(t.Context(), source("gpu", &toy{}), c); !v.Passed() || cert.Pending() || cert.How() != parity.ByCertificate {
		t.Errorf("with a certificate: %v, by %s, pending %v", v.Status, cert.How(), cert.Pending())
	}
}

func TestPromptFirstFinds(t *testing.T) {
	negate := func(row []float32) {
		for i := range row {
			row[i] = -row[i]
		}
	}
	t.Run("a wrong prompt", func(t *testing.T) {
		g, c, ref := promptFirst(t)
		cand := spoil(19, negate)
		cert, v := g.Certify(t.Context(), source("gpu", cand), c)
		if v.Status != parity.Mismatch || cert.Allows(cand) == nil || cert.Pending() {
			t.Errorf("%v %s", v.Status, v.Reason)
		}
		if n := ref.open.Load() + cand.open.Load(); n != 0 {
			t.Errorf("%d sequences are left open", n)
		}
		if list := certificates(t, g); len(list) != 1 || list[0].Status != parity.Mismatch {
			t.Errorf("remembered: %+v", list)
		}
	})
	t.Run("wrong single tokens", func(t *testing.T) {
		g, c, _ := promptFirst(t)
		cand := &toy{row: func(_ *toy, _ int, s backend.Span, row []float32) {
			if len(s.Tokens) == 1 {
				negate(row)
			}
		}}
		cert, v := g.Certify(t.Context(), source("gpu", cand), c)
		if !v.Passed() {
			t.Fatalf("the prompt: %v %s", v.Status, v.Reason)
		}
		if v = g.Complete(t.Context(), cert, source("gpu", cand)); v.Status != parity.Mismatch || v.Violation.Position != 20 || cert.Allows(cand) == nil {
			t.Errorf("the rest: %v %s", v.Status, v.Reason)
		}
		if list := certificates(t, g); len(list) != 1 || list[0].Status != parity.Mismatch {
			t.Errorf("remembered: %+v", list)
		}
	})
}

// What is given up or cannot be measured leaves the permission where it was, and
// nothing behind.
func TestPromptFirstAlone(t *testing.T) {
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, end := range map[string]func(*parity.Gate, parity.Certified, parity.Source){
		"abandoned": func(_ *parity.Gate, c parity.Certified, _ parity.Source) { c.Abandon(); c.Abandon() },
		"canceled":  func(g *parity.Gate, c parity.Certified, s parity.Source) { g.Complete(canceled, c, s) },
	} {
		t.Run(name, func(t *testing.T) {
			g, c, ref := promptFirst(t)
			cand := &toy{}
			cert, v := g.Certify(t.Context(), source("gpu", cand), c)
			if !v.Passed() {
				t.Fatalf("the prompt: %v %s", v.Status, v.Reason)
			}
			end(g, cert, source("gpu", cand))
			if cert.Pending() || cert.Allows(cand) != nil || cert.Context() != 20 || cert.Missing([]string{"toy/decode"}) == "" {
				t.Errorf("pending %v, %d tokens", cert.Pending(), cert.Context())
			}
			if n := ref.open.Load() + cand.open.Load(); n != 0 {
				t.Errorf("%d sequences are left open", n)
			}
			if n := len(certificates(t, g)); n != 0 {
				t.Errorf("%d certificates", n)
			}
		})
	}
}
