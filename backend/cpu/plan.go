package cpu

import (
	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/kernel"
)

// stepShape is all about a step that decides which kernels run.
type stepShape struct {
	tokens amount // matrix-vector, the same for a few tokens, or matrix product
	wanted amount // rows of logits
	// attends says by amount whether some sequence has so many tokens in the step: one
	// with many attends as a prompt.
	attends [many + 1]bool
	blocks  bool // attention sums over more than one block of positions
	chunks  bool // that of few tokens merges more than one chunk of blocks
	// windowed says that some position lies outside a layer's window.
	windowed bool
}

// amount is how many tokens a kernel works on, as far as the choice of kernel goes.
type amount int

const (
	none amount = iota
	one
	few // at most fewTokens
	many
)

func amountOf(n int) amount {
	switch {
	case n <= 1:
		return amount(n)
	case n <= fewTokens:
		return few
	}
	return many
}

var amountNames = [...]string{one: "decode", few: "few", many: "batch"}

func (e *executor) shape(batch []backend.Span) stepShape {
	s := stepShape{}
	tokens, rows := 0, 0
	for _, span := range batch {
		tokens += len(span.Tokens)
		rows += span.Rows()
		s.attends[amountOf(len(span.Tokens))] = true
		end := len(span.Tokens)
		if span.Seq != nil {
			end += span.Seq.Len()
		}
		s.blocks = s.blocks || end > kernel.AttentionBlock
		s.chunks = s.chunks || end > kernel.AttentionChunk
		s.windowed = s.windowed || e.window > 0 && end > e.window
	}
	s.tokens, s.wanted = amountOf(tokens), amountOf(rows)
	return s
}

// Plan names the kernels that a step would use.
func (e *executor) Plan(batch []backend.Span) []string { return e.plans.Of(e.shape(batch)) }

// kernelsOf names the kernels of a step.
func (e *executor) kernelsOf(s stepShape) []string {
	var names []string
	for i := range e.code {
		in := &e.code[i]
		switch {
		case in.variant == "":
		case in.writes[0].kind == logitRows:
			if s.wanted != none {
				names = append(names, variantName(in.variant, s.wanted))
			}
		case in.attends:
			names = append(names, s.attention(in.variant)...)
		default:
			names = append(names, variantName(in.variant, s.tokens))
		}
	}
	return names
}

// attention names the kernels of an attention.
func (s stepShape) attention(family string) (names []string) {
	for n := one; n <= many; n++ {
		if !s.attends[n] {
			continue
		}
		name := variantName(family, n)
		switch {
		case s.chunks && n != many:
			name += "/chunks"
		case s.blocks:
			name += "/blocks"
		}
		if s.windowed {
			name += "/window"
		}
		names = append(names, name)
	}
	return names
}

// variantName tells the kernels for one token from those for some or for many.
func variantName(family string, n amount) string {
	if n == none {
		return family // an empty step, which is refused when it runs
	}
	return family + "/" + amountNames[n]
}

// Variants names the kernels used so far.
func (e *executor) Variants() []string { return e.plans.Used() }
