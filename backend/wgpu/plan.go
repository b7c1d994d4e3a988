//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import "github.com/apr-engine/apr/backend"

// shape is all about a step that decides which kernels run and how.
type shape struct {
	tokens, wanted [amounts]bool // some piece has so many tokens, wants so many rows
	pieces         bool          // there are several pieces
	short, long    bool          // some run in a piece of several tokens has few, some has many
	blocks         bool          // attention takes its keys in several blocks
	windowed       bool          // some position lies outside a layer's window
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
		if p.tokens > 0 {
			s.tokens[amountOf(p.tokens)] = true
		}
		if p.wanted > 0 {
			s.wanted[amountOf(p.wanted)] = true
		}
		for _, r := range p.spans {
			n := r.to - r.from
			s.short, s.long = s.short || n <= fewRows && p.tokens > 1, s.long || n > fewRows
		}
	}
	return s
}

// Plan names the kernels that a step would use.
func (e *executor) Plan(batch []backend.Span) []string { return e.plans.Of(e.shape(batch)) }

// kernelsOf names the kernels of a step.
func (e *executor) kernelsOf(s shape) []string {
	var names []string
	for i := range e.nodes {
		n := &e.nodes[i]
		rows := s.tokens
		if n.wanted {
			rows = s.wanted
		}
		for a, name := range n.names {
			if rows[a] && name != "" {
				names = append(names, name)
			}
		}
		if n.attend != nil {
			names = append(names, n.attend(s)...)
		}
	}
	if s.pieces {
		names = append(names, "step/pieces")
	}
	return names
}

// Variants names the kernels used so far.
func (e *executor) Variants() []string { return e.plans.Used() }
