package parity

import "context"

// A probe in two parts. The logits that the first token of an answer is chosen from are
// those of the prompt, computed by kernels that have run on that prompt: once both have
// been judged, that token rests on a comparison, whatever becomes of the kernels that
// only the second token needs. So Certify gives a permission for the prompt alone, and
// Complete judges the rest before anything goes beyond it.

// measurePrompt is the first part: the prompt at its positions and as it is served. The
// second part is nil unless the candidate has passed so far. A pass is not remembered.
func (g *Gate) measurePrompt(ctx context.Context, candidate Source, c Case) (Verdict, *probe) {
	if g.Probing != nil {
		defer g.Probing()()
	}
	pr := newProbe(ctx, g.Reference, candidate, c, g.Policy)
	pr.finish(pr.runPrompt(g.Reference, candidate))
	pr.v.Fault = g.fault(candidate.Backend)
	if pr.v.Passed() {
		return *pr.v, pr
	}
	pr.close()
	g.remember(candidate, *pr.v, Certificate{})
	return *pr.v, nil
}

// Pending reports whether the permission is for the prompt alone so far: nothing that
// only later tokens need is covered, and Context is the prompt's length.
func (c Certified) Pending() bool { return c.grant != nil && c.grant.pending != nil }

// Complete judges what Certify has left of a probe with Case.PromptFirst. On a pass the
// permission is that of a whole probe, and remembered; on a mismatch it is revoked. The
// verdict is of both parts. If nothing was measured the permission stays for the prompt
// alone.
func (g *Gate) Complete(ctx context.Context, cert Certified, candidate Source) Verdict {
	if g.Probing != nil {
		defer g.Probing()()
	}
	pr := cert.grant.pending
	cert.grant.pending = nil
	defer pr.close()
	pr.ctx = ctx
	pr.finish(pr.runRest())
	return g.extended(cert, candidate, *pr.v)
}

// Abandon gives up what Complete would judge, and frees it. The permission stays for
// the prompt alone.
func (c Certified) Abandon() {
	if c.Pending() {
		c.grant.pending.close()
		c.grant.pending = nil
	}
}
