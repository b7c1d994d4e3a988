package cpu

import (
	"errors"
	"fmt"

	"github.com/apr-engine/apr/backend"
)

// step is what instructions read about the current call.
type step struct {
	tokens []int32
	seqs   []*sequence // of each token
	pos    []int       // of each token in its sequence
	wanted []int       // rows whose logits are asked for
	units  []attnUnit
	ends   []int       // pos + 1
	input  [][]float32 // the row that comes with each token, if the program begins with rows
	logits *backend.Logits
}

// attnUnit is a run of tokens of one sequence that one worker attends with.
type attnUnit struct {
	seq    *sequence
	t0, t1 int // rows of the step
	// prompt is set where many tokens of the sequence are in the step.
	prompt bool
}

// attnTokens is the most tokens in one unit: enough to share a pass over the
// keys, few enough to spread a prompt over workers.
const attnTokens = 32

// Step runs the program over all spans at once.
func (e *executor) Step(batch []backend.Span, logits *backend.Logits) error {
	if err := backend.CheckStep(e.program, batch, e.opts.MaxBatch); err != nil {
		return err
	}
	if err := e.prepare(batch, logits); err != nil {
		return err
	}
	e.plans.Use(e.shape(batch))
	if e.profile == nil {
		if err := e.pool.run(e.plain); err != nil {
			return err
		}
	} else {
		if err := e.pool.run(e.timed); err != nil {
			return err
		}
		e.profile.count(e)
	}
	for _, span := range batch {
		span.Seq.(*sequence).length += len(span.Tokens)
	}
	return nil
}

// isPrompt reports whether a span's tokens attend as a prompt's do, which rounds
// differently from a few tokens. The reference attends in one way only.
func (e *executor) isPrompt(span backend.Span) bool {
	return !e.exact && len(span.Tokens) > fewTokens
}

// prepare lays the spans' tokens out in rows and makes room for them.
func (e *executor) prepare(batch []backend.Span, logits *backend.Logits) error {
	s := &e.step
	s.tokens, s.seqs, s.pos, s.ends = s.tokens[:0], s.seqs[:0], s.pos[:0], s.ends[:0]
	s.wanted, s.units, s.input = s.wanted[:0], s.units[:0], s.input[:0]
	width := e.program.InWidth()
	for _, span := range batch {
		seq, ok := span.Seq.(*sequence)
		if !ok || seq.layers == nil {
			return fmt.Errorf("sequence of type %T is closed or not this executor's", span.Seq)
		}
		first := len(s.tokens)
		for i, t := range span.Tokens {
			if span.Want == backend.All || span.Want == backend.Last && i == len(span.Tokens)-1 {
				s.wanted = append(s.wanted, len(s.tokens))
			}
			s.tokens = append(s.tokens, t)
			if width > 0 {
				s.input = append(s.input, span.Input[i*width:(i+1)*width])
			}
			s.seqs = append(s.seqs, seq)
			s.pos = append(s.pos, seq.length+i)
			s.ends = append(s.ends, seq.length+i+1)
		}
		for t := first; t < len(s.tokens); t += attnTokens {
			s.units = append(s.units, attnUnit{seq, t, min(t+attnTokens, len(s.tokens)), e.isPrompt(span)})
		}
	}
	s.logits = logits
	if len(s.wanted) > 0 {
		if logits == nil {
			return errors.New("logits are asked for and there is nowhere to put them")
		}
		logits.Resize(len(s.wanted), e.program.OutWidth())
	}
	e.setAlone()
	e.reserve(len(s.tokens))
	return nil
}

// reserve grows the buffers to hold the given number of tokens.
func (e *executor) reserve(tokens int) {
	for slot, width := range e.widths {
		if need := tokens * width; len(e.buffers[slot]) < need {
			e.buffers[slot] = make([]float32, need)
		}
	}
	for p, width := range e.packedW {
		e.packed[p].Resize(tokens, width)
	}
	for i := range e.ropes {
		r := &e.ropes[i]
		if need := max(tokens, e.opts.Threads) * len(r.inv); len(r.cos) < need {
			r.cos, r.sin = make([]float32, need), make([]float32, need)
		}
	}
	for i := range e.code {
		if a := e.code[i].attending; a != nil {
			a.prepare()
		}
		if p := e.code[i].product; p != nil {
			p.reset(tokens)
		}
	}
}

// execute runs the code on one worker.
func (e *executor) execute(w int) {
	for i := range e.code {
		in := &e.code[i]
		if in.gating != nil && in.gating.active() {
			continue
		}
		if e.waitsBefore(in) {
			e.pool.barrier.waitReading(e.ahead(w, in))
		}
		in.run(w)
		if e.opts.Trace != nil {
			e.pool.barrier.wait()
			if w == 0 && in.traced >= 0 {
				e.trace(in)
			}
		}
	}
}

// ahead is what a worker that waits before an instruction may read meanwhile: the beginning
// of its part of the next matrix. Prompts are not held up by that.
func (e *executor) ahead(w int, in *instr) []byte {
	if in.next == nil || len(e.step.tokens) > fewTokens {
		return nil
	}
	return in.next.first(w, readBytes)
}

// waitsBefore says whether all workers wait for each other before an instruction.
func (e *executor) waitsBefore(in *instr) bool {
	if e.alone {
		return in.aloneBarrier && !(in.local && e.byHead)
	}
	return in.barrier
}

func (e *executor) trace(in *instr) {
	v := e.program.Values[in.traced]
	rows := len(e.step.tokens)
	if in.writes[0].kind == logitRows {
		if len(e.step.wanted) > 0 {
			e.opts.Trace(v, e.step.logits.Data)
		}
		return
	}
	e.opts.Trace(v, e.buffers[in.writes[0].index][:rows*v.Width])
}
