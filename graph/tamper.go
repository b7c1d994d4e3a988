package graph

// Tamper and Misplace exist so that faults can be injected into the state of
// an executor: a cache slot, a position, half-precision overflow. Programs of
// real models never hold them; only package parity/fault makes such programs. A
// backend that does not know them refuses the program like any other unknown
// operation, so a fault can never be silently without effect. Each is a few
// lines in a backend: no state, one pass over the rows.

// Rows says which rows of a step a fault touches.
type Rows struct {
	// From is the first position that is touched.
	From int
	// Steps limits the fault to steps of one token, or of several.
	Steps Steps
}

// Steps selects steps by their number of tokens, as backends select kernels.
type Steps int

const (
	// AllSteps are all steps.
	AllSteps Steps = iota
	// DecodeSteps have one token.
	DecodeSteps
	// BatchSteps have several.
	BatchSteps
)

// Touches reports whether a token at the given position of a step with the
// given number of tokens is touched.
func (r Rows) Touches(position, tokens int) bool {
	if position < r.From {
		return false
	}
	return r.Steps == AllSteps || (tokens == 1) == (r.Steps == DecodeSteps)
}

// Spoiling is what Tamper does to a row.
type Spoiling int

const (
	// Replace takes the row of Alt.
	Replace Spoiling = iota
	// Multiply computes Amount·x.
	Multiply
	// Drift computes x·(1 + Amount·position).
	Drift
	// Half stores Amount·x in half precision, where beyond 65504 is infinity, and
	// divides by Amount again.
	Half
	// Int8 stores each Group elements as 8-bit integers of one scale.
	Int8
	// Heads reorders heads of Group elements: head h of the result is head
	// Order[h] of the row.
	Heads
)

// Tamper copies In to Out and spoils the rows that it touches.
type Tamper struct {
	In, Alt, Out ID // Alt is read by Replace only and equals In otherwise
	Rows         Rows
	How          Spoiling
	Amount       float32
	Group        int
	Order        []int
}

// Misplace runs Op, a Rope, KVStore or Attention, with wrong positions: a token
// at position p is treated as one at p+By, or, with Restart, at its index in
// its span. KVStore drops what falls outside the cache and Attention sees what
// lies up to the wrong position as far as the cache reaches.
type Misplace struct {
	Op
	Rows    Rows
	By      int
	Restart bool
}

// Position returns the position that the operation uses for a token at position
// p, the i-th of its span, in a step of the given number of tokens.
func (o *Misplace) Position(p, i, tokens int) int {
	switch {
	case !o.Rows.Touches(p, tokens):
		return p
	case o.Restart:
		return i
	}
	return p + o.By
}

func (o *Tamper) Inputs() []ID {
	if o.How == Replace {
		return []ID{o.In, o.Alt}
	}
	return []ID{o.In}
}
func (o *Tamper) Output() ID        { return o.Out }
func (o *Tamper) Weights() []string { return nil }
func (o *Tamper) Kind() string      { return "tamper" }

func (o *Misplace) Kind() string { return "misplace" }

// check verifies a Tamper; w gives the width of a value.
func (o *Tamper) check(w func(ID) int) bool {
	ok := w(o.In) == w(o.Out)
	switch o.How {
	case Replace:
		ok = ok && w(o.Alt) == w(o.Out)
	case Int8:
		ok = ok && o.Group > 0
	case Heads:
		ok = ok && o.Group > 0 && len(o.Order)*o.Group == w(o.In)
		for _, h := range o.Order {
			ok = ok && h >= 0 && h < len(o.Order)
		}
	}
	return ok
}
