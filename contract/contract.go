// Package contract reads contracts: YAML files that state equations, the
// obligations that follow from them, and the falsification tests that could
// prove them wrong. It reads every variant that is in use, judges what it read
// by named rules, and edits a file without touching what it does not change.
//
// A contract is read tolerantly and judged strictly: a key that nothing reads
// is reported, a value that is absent stays absent, and nothing is assumed in
// silence.
package contract

// Pos is a place in a file: line and column count from 1, columns in Unicode
// characters. The zero Pos means that the place is not known.
type Pos struct {
	Line, Column int
}

// Text is a scalar with its place. Set is false where the key is absent or its
// value null, so that an absent text differs from an empty one.
type Text struct {
	Value string
	Set   bool
	Pos   Pos
}

func (t Text) String() string { return t.Value }

// Contract is one file.
type Contract struct {
	Path string // as given, for findings
	Stem string // file name without its extension; depends_on names contracts by it

	Metadata    Metadata
	Equations   []Equation
	Obligations []Obligation
	Falsifiers  []Falsifier
	Harnesses   []Harness
	Gate        *QAGate  // nil if absent
	Summary     *Summary // nil if absent

	// Keys holds the top-level keys in order; Ignored those keys, at any level,
	// that nothing reads.
	Keys    []Key
	Ignored []Key

	src      []byte
	lines    []int // byte offset of each line
	root     *node
	problems []Finding // found while reading
}

// Key is a mapping key and the path of keys that leads to it, joined by dots.
type Key struct {
	Path string
	Name string
	Pos  Pos
}

// Metadata is the contract's description of itself.
type Metadata struct {
	Pos         Pos // of the key metadata
	Version     Text
	Description Text
	Kind        Text
	Registry    Text
	Status      Text
	Created     Text
	References  []Text
	DependsOn   []Text
	Changelog   []Text
}

// Equation is a formula with what holds of it.
type Equation struct {
	Name       string
	Pos        Pos
	Formula    Text
	Domain     Text
	Codomain   Text
	Invariants []Text
}

// Obligation is a property that must be shown.
type Obligation struct {
	Pos            Pos
	ID             Text
	Type           Text
	Property       Text
	Formal         Text
	Tolerance      *Number
	AppliesTo      Text
	Requires       Text
	AppliesToPhase Text
	ParentContract Text
	NAReason       Text
	NAOwner        Text
	Lean           *Lean
}

// Number is a number with its text as written.
type Number struct {
	Value float64
	Text  Text
}

// Lean is the state of a Lean proof.
type Lean struct {
	Theorem Text
	Status  Text
}

// Falsifier is a prediction and the test that could show it wrong.
type Falsifier struct {
	Pos        Pos
	ID         Text
	Rule       Text
	Prediction Text
	IfFails    Text
	Prose      Text  // a test given as text, which nothing can run
	Test       *Test // a test that pv can run; nil if there is none
	Status     Text
	Evidence   Text // name of the bundle that the status rests on

	node *node
}

// Harness is a Kani proof harness.
type Harness struct {
	Pos        Pos
	ID         Text
	Obligation Text
	Bound      *Number
	Strategy   Text
}

// QAGate is the gate that a release must pass.
type QAGate struct {
	Pos    Pos
	ID     Text
	Name   Text
	Checks []Text
}

// Summary is the contract's own count of what is verified. It is a claim:
// Counts gives the truth.
type Summary struct {
	Pos    Pos
	Counts map[string]Number

	node *node
}

// Source returns the bytes that the contract was read from. They must not be
// changed.
func (c *Contract) Source() []byte { return c.src }

// Problems returns what was found wrong while reading: values of the wrong
// shape, unknown names, keys given twice.
func (c *Contract) Problems() []Finding { return c.problems }

// Falsifier returns the falsifier with an id, or nil.
func (c *Contract) Falsifier(id string) *Falsifier {
	for i := range c.Falsifiers {
		if c.Falsifiers[i].ID.Value == id {
			return &c.Falsifiers[i]
		}
	}
	return nil
}

// Kind is the kind that the contract is judged by: its own, "registry" for the
// old registry flag, else "kernel", the strictest. stated is false in the last
// case, which rule KIND-001 reports.
func (c *Contract) Kind() (kind string, stated bool) {
	switch {
	case c.Metadata.Kind.Value != "":
		return c.Metadata.Kind.Value, true
	case c.Metadata.Registry.Value == "true":
		return "registry", true
	}
	return "kernel", false
}
