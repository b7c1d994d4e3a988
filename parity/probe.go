package parity

import "context"

// Probe compares a candidate with a reference on a case, through fresh sequences
// of both.
func Probe(ctx context.Context, reference, candidate Source, c Case, p Policy) Verdict {
	return Verdict{}
}
