//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"slices"

	"github.com/apr-engine/apr/backend"
)

// shape is all about a step that decides which kernels run and how.
type shape struct {
	one, many   bool // some piece has one token, some piece has several
	oneW, manyW bool // the same for wanted rows
	pieces      bool // there are several pieces
	blocks      bool // attention walks over more than one block of keys
	windowed    bool // some position lies outside a layer's window
}

// attentionBlock is the number of keys that attention takes at a time.
const attentionBlock = 64

func (e *executor) shape(batch []backend.Span) shape {
	s := shape{}
	for _, span := range batch {
		end := len(span.Tokens)
		if span.Seq != nil {
			end += span.Seq.Len()
		}
		s.blocks = s.blocks || end > attentionBlock
		s.windowed = s.windowed || e.window > 0 && end > e.window
	}
	pieces := e.cut(batch)
	s.pieces = len(pieces) > 1
	for _, p := range pieces {
		s.one, s.many = s.one || p.tokens == 1, s.many || p.tokens > 1
		s.oneW, s.manyW = s.oneW || p.wanted == 1, s.manyW || p.wanted > 1
	}
	return s
}

// Plan names the kernels that a step would use.
func (e *executor) Plan(batch []backend.Span) []string { return e.plan(e.shape(batch)) }

// plan is made once for each shape: it is asked for before every token.
func (e *executor) plan(s shape) []string {
	if names, ok := e.plans[s]; ok {
		return names
	}
	var names []string
	for i := range e.nodes {
		if n := &e.nodes[i]; n.variants != nil {
			names = append(names, n.variants(s)...)
		}
	}
	if s.pieces {
		names = append(names, "step/pieces")
	}
	slices.Sort(names)
	names = slices.Compact(names)
	e.plans[s] = names
	return names
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

// byTokens tells a family's kernels for one token from those for several.
func byTokens(family string, one, many bool) []string {
	var names []string
	if one {
		names = append(names, family+"/decode")
	}
	if many {
		names = append(names, family+"/batch")
	}
	return names
}
