package parity

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/apr-engine/apr/backend"
)

// Certified is the permission to serve with one executor. The zero value is no
// permission, and only Certify makes another one.
type Certified struct{ grant *grant }

// grant is shared by copies, so that coverage gained later counts for all.
type grant struct {
	exec    backend.Executor
	how     How
	covered map[string]bool
	context int    // tokens that a judged sequence held at most
	revoked string // why, if it is
	pending *probe // judges the rest; nil if nothing is left
}

// How says on what a certificate rests.
type How string

// The ways to be certified.
const (
	ByProbe       How = "probe"       // measured now
	ByCertificate How = "certificate" // measured before
	ByReference   How = "reference"   // it is the reference itself
	ByOverride    How = "override"    // not measured at all, on the user's demand
)

// Allows returns nil if the executor may serve.
func (c Certified) Allows(exec backend.Executor) error {
	switch {
	case c.grant == nil || exec == nil || c.grant.exec != exec:
		return ErrUncertified
	case c.grant.revoked != "":
		return fmt.Errorf("%w: %s", ErrMismatch, c.grant.revoked)
	}
	return nil
}

// How says on what the permission rests; empty for none.
func (c Certified) How() How {
	if c.grant == nil {
		return ""
	}
	return c.grant.how
}

// Missing returns the first kernel of a plan that has not been probed; empty if
// all have.
func (c Certified) Missing(plan []string) string {
	if c.grant == nil {
		return "any"
	}
	if c.grant.how == ByReference || c.grant.how == ByOverride {
		return ""
	}
	for _, name := range plan {
		if !c.grant.covered[name] {
			return name
		}
	}
	return ""
}

// Context is how many tokens a sequence may hold for which this permission
// rests on a comparison.
func (c Certified) Context() int {
	switch {
	case c.grant == nil:
		return 0
	case c.grant.how == ByReference || c.grant.how == ByOverride:
		return math.MaxInt
	}
	return c.grant.context
}

// Gate is what candidates are certified against.
type Gate struct {
	Reference Source
	Policy    Policy
	// Store remembers verdicts; nil for none.
	Store *Store
	// Key identifies what is certified, without Backend, Identity, Reference and
	// Policy, which the gate fills in. An incomplete key is not remembered.
	Key Key
	// File is the model's name for people who list certificates.
	File string
	// Fault names the faults injected into a backend; such verdicts are neither
	// remembered nor looked up, for any backend.
	Fault func(backendName string) string
	// Override certifies without measuring.
	Override bool
	// Probing, if set, is called before a probe, and what it returns after it: a
	// probe needs more memory than serving.
	Probing func() (done func())
	// Renew measures again in spite of a certificate.
	Renew bool
}

func (g *Gate) fault(name string) string {
	if g.Fault == nil {
		return ""
	}
	return g.Fault(name)
}

// key is the full key of a candidate.
func (g *Gate) key(candidate Source) Key {
	k := g.Key
	k.Backend, k.Identity = candidate.Backend, candidate.Identity
	k.Reference = g.Reference.Backend + " " + g.Reference.Identity
	k.Policy = g.Policy.Hash()
	return k
}

// Certify decides whether a candidate may serve: it is the reference, or has a
// certificate, or passes a probe. The permission is zero unless the verdict is
// a pass or the user has overridden the gate.
func (g *Gate) Certify(ctx context.Context, candidate Source, c Case) (Certified, Verdict) {
	fault := g.fault(candidate.Backend)
	v := Verdict{Backend: candidate.Backend, Device: candidate.Device, Part: candidate.Part, Reference: g.Reference.Backend, Policy: g.Policy.Name, MaxBatch: c.MaxBatch, Hashes: c.Hashes, Fault: fault}
	exec, err := candidate.Open()
	if err != nil {
		v.Status, v.Reason = Mismatch, fmt.Sprintf("cannot start: %v", err)
		return Certified{}, v
	}
	switch {
	case g.Override:
		v.Override, v.Reason = true, "the gate is overridden"
		return Certified{&grant{exec: exec, how: ByOverride}}, v
	case candidate.Backend == g.Reference.Backend && fault == "":
		v.Status, v.Reason = Validated, "it is the reference"
		return Certified{&grant{exec: exec, how: ByReference}}, v
	}
	if known, ok := g.lookup(candidate); ok {
		v = known.Verdict()
		v.Reference, v.Policy, v.MaxBatch = g.Reference.Backend, g.Policy.Name, c.MaxBatch
		if !v.Passed() {
			return Certified{}, v
		}
		return Certified{newGrant(exec, ByCertificate, v)}, v
	}
	var rest *probe
	if c.PromptFirst {
		v, rest = g.measurePrompt(ctx, candidate, c)
	} else {
		v = g.Measure(ctx, candidate, c)
	}
	if !v.Passed() {
		return Certified{}, v
	}
	granted := newGrant(exec, ByProbe, v)
	granted.pending = rest
	return Certified{granted}, v
}

// Measure probes a candidate and remembers the verdict.
func (g *Gate) Measure(ctx context.Context, candidate Source, c Case) Verdict {
	if g.Probing != nil {
		defer g.Probing()()
	}
	v := Probe(ctx, g.Reference, candidate, c, g.Policy)
	v.Fault, v.Override = g.fault(candidate.Backend), g.Override
	g.remember(candidate, v, Certificate{})
	return v
}

// Known reports whether a candidate needs no probe: it is the reference, the gate
// is overridden, or there is a certificate.
func (g *Gate) Known(candidate Source) bool {
	_, known := g.lookup(candidate)
	return known || g.Override || candidate.Backend == g.Reference.Backend
}

// Perhaps reports whether a backend of one of the names may need no probe, as far as
// can be told before its device is known: there is a certificate of it that differs in
// nothing else. options are those of its key.
func (g *Gate) Perhaps(options func(name string) string, names ...string) bool {
	if g.Store == nil || g.Renew {
		return false
	}
	list, _, err := g.Store.List()
	if err != nil {
		return false
	}
	return slices.ContainsFunc(list, func(c Certificate) bool {
		if !slices.Contains(names, c.Key.Backend) {
			return false
		}
		k := g.key(Source{Backend: c.Key.Backend, Identity: c.Key.Identity})
		k.Options = options(c.Key.Backend)
		return k == c.Key
	})
}

func newGrant(exec backend.Executor, how How, v Verdict) *grant {
	gr := &grant{exec: exec, how: how, covered: map[string]bool{}, context: v.Context}
	for _, n := range v.Covered {
		gr.covered[n] = true
	}
	return gr
}

// remembers reports whether verdicts are kept at all.
func (g *Gate) remembers(candidate Source) bool {
	return g.Store != nil && !g.Override && g.fault(candidate.Backend) == "" && g.fault(g.Reference.Backend) == ""
}

func (g *Gate) lookup(candidate Source) (Certificate, bool) {
	if !g.remembers(candidate) || g.Renew {
		return Certificate{}, false
	}
	return g.Store.Get(g.key(candidate))
}

// remember stores a verdict unless there is none or it may not repeat. before is
// what was measured earlier and still holds.
func (g *Gate) remember(candidate Source, v Verdict, before Certificate) {
	if !g.remembers(candidate) || v.Status == NotMeasured || v.transient || v.Fault != "" {
		return
	}
	c := Certificate{
		Key: g.key(candidate), Status: v.Status, Reason: v.Reason, Violation: v.Violation,
		Covered: v.Covered, Context: v.Context, Positions: len(v.Positions), Device: v.Device, Part: v.Part, File: g.File, MinCosine: 1,
	}
	if before.Positions > 0 {
		c.Positions += before.Positions
		c.MinCosine, c.MaxKL = before.MinCosine, before.MaxKL
	}
	for _, p := range v.Positions {
		c.MinCosine, c.MaxKL = min(c.MinCosine, p.Cosine), max(c.MaxKL, p.KL)
	}
	g.Store.Put(c)
}

// Extend probes the next step of a certified executor on the same tokens,
// because it announces kernels that have not been probed or because its sequence
// becomes longer than any that was. On a pass that belongs to what is certified;
// on a mismatch the certificate is revoked.
func (g *Gate) Extend(ctx context.Context, cert Certified, candidate Source, c Case, s Step) Verdict {
	if g.Probing != nil {
		defer g.Probing()()
	}
	return g.extended(cert, candidate, ProbeStep(ctx, g.Reference, candidate, c, s, g.Policy))
}

// ExtendTogether probes the next step of several sequences of a certified
// executor at once.
func (g *Gate) ExtendTogether(ctx context.Context, cert Certified, candidate Source, c Case, steps []Step) Verdict {
	if g.Probing != nil {
		defer g.Probing()()
	}
	return g.extended(cert, candidate, ProbeTogether(ctx, g.Reference, candidate, c, steps, g.Policy))
}

// extended adds what a probe in mid-generation has shown to what is certified.
func (g *Gate) extended(cert Certified, candidate Source, v Verdict) Verdict {
	v.Fault = g.fault(candidate.Backend)
	switch {
	case v.Passed() && cert.grant != nil:
		for _, n := range v.Covered {
			cert.grant.covered[n] = true
		}
		cert.grant.context = max(cert.grant.context, v.Context)
		stored := v
		stored.Covered, stored.Context = names(cert.grant.covered), cert.grant.context
		known, ok := g.lookup(candidate)
		if ok {
			stored = stored.with(known)
		}
		g.remember(candidate, stored, known)
	case v.Status == Mismatch:
		g.Revoke(cert, candidate, v)
	}
	return v
}

// Revoke withdraws a permission and remembers why.
func (g *Gate) Revoke(cert Certified, candidate Source, v Verdict) {
	if cert.grant != nil {
		cert.grant.revoked = v.Reason
	}
	g.remember(candidate, v, Certificate{})
}
