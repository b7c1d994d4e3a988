package cuda

import (
	"fmt"

	"github.com/apr-engine/apr/backend"
)

// stepSize is all about a step that decides which kernels are launched, and how.
type stepSize struct {
	tokens int
	rows   int // of logits
	tiles  int // of tokens of one sequence, for attention over prompts
}

// tileTokens is the most tokens of one sequence that attention over prompts takes
// together.
const tileTokens = 64

// fewTokens is the largest step that runs as one captured graph of fused kernels.
const fewTokens = 8

func (s stepSize) few() bool { return s.tokens <= fewTokens }

// mostTogether is the most sequences whose common decode steps are captured.
const mostTogether = 64

// together reports whether a step is one token for each of many sequences, in a number
// that is worth a graph: some 400 launches that would each take the host longer than the
// device. Each number is another graph for the gate to look at, hence multiples.
func (s stepSize) together() bool {
	return s.tokens == s.tiles && s.tokens == s.rows && s.tokens%fewTokens == 0 && s.tokens <= mostTogether
}

// stepShape also has what decides how kernels run, not which.
type stepShape struct {
	stepSize
	blocks   bool // attention needs more than one turn over the positions
	windowed bool // some position lies outside a layer's window
}

// blockPositions is how many positions attention takes in one turn.
const blockPositions = 128

// shapeOf describes the step of a batch.
func (e *executor) shapeOf(batch []backend.Span) stepShape {
	s := stepShape{}
	for _, span := range batch {
		n := len(span.Tokens)
		s.tokens += n
		s.rows += span.Rows()
		s.tiles += (n + tileTokens - 1) / tileTokens
		end := n
		if span.Seq != nil {
			end += span.Seq.Len()
		}
		s.blocks = s.blocks || end > blockPositions
		for _, c := range e.program.Caches {
			s.windowed = s.windowed || c.Window > 0 && end > c.Window
		}
	}
	return s
}

// amountName tells the kernels for one token from those for some or for many.
func amountName(n int) string {
	switch {
	case n <= 1:
		return "decode"
	case n <= fewTokens:
		return "few"
	}
	return "batch"
}

// Plan names the kernels that a step would use.
func (e *executor) Plan(batch []backend.Span) []string { return e.plans.Of(e.shapeOf(batch)) }

// kernelsOf names the kernels of a step.
func (e *executor) kernelsOf(s stepShape) []string {
	var names []string
	for _, op := range e.operations(s.stepSize) {
		if op.variant == nil {
			continue
		}
		if name := op.variant(s); name != "" {
			names = append(names, name)
		}
	}
	if e.captures(s.stepSize) {
		// The graph of one shape is not that of another.
		names = append(names, fmt.Sprintf("graph/tokens-%d/rows-%d", s.tokens, s.rows))
	}
	return names
}

// Variants names the kernels used so far.
func (e *executor) Variants() []string { return e.plans.Used() }
