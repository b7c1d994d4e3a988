package cpu

import (
	"slices"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/kernel"
)

// stepShape is all about a step that decides which kernels run.
type stepShape struct {
	batch  bool // several tokens: matrix products instead of matrix-vector
	wanted int  // rows of logits: 0, 1, or 2 for several
	blocks bool // attention sums over more than one block of positions
	// windowed says that some position lies outside a layer's window.
	windowed bool
}

func (e *executor) shape(batch []backend.Span) stepShape {
	s := stepShape{}
	tokens, rows := 0, 0
	for _, span := range batch {
		tokens += len(span.Tokens)
		rows += span.Rows()
		end := len(span.Tokens)
		if span.Seq != nil {
			end += span.Seq.Len()
		}
		s.blocks = s.blocks || end > kernel.AttentionBlock
		s.windowed = s.windowed || e.window > 0 && end > e.window
	}
	s.batch, s.wanted = tokens > 1, min(rows, 2)
	return s
}

// Plan names the kernels that a step would use.
func (e *executor) Plan(batch []backend.Span) []string { return e.plan(e.shape(batch)) }

// plan is computed once for each shape: it is asked for before every token.
func (e *executor) plan(s stepShape) []string {
	if names, ok := e.plans[s]; ok {
		return names
	}
	var names []string
	for i := range e.code {
		in := &e.code[i]
		switch {
		case in.variant == "":
		case in.writes[0].kind == logitRows:
			if s.wanted > 0 {
				names = append(names, variantName(in.variant, s.wanted > 1))
			}
		case in.attends:
			name := variantName(in.variant, s.batch)
			if s.blocks {
				name += "/blocks"
			}
			if s.windowed {
				name += "/window"
			}
			names = append(names, name)
		default:
			names = append(names, variantName(in.variant, s.batch))
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	e.plans[s] = names
	return names
}

// variantName tells the kernels for one token from those for many.
func variantName(family string, batch bool) string {
	if batch {
		return family + "/batch"
	}
	return family + "/decode"
}

// Variants names the kernels used so far.
func (e *executor) Variants() []string {
	var names []string
	for s := range e.used {
		names = append(names, e.plan(s)...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
