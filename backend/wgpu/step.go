//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"errors"
	"fmt"

	"github.com/apr-engine/apr/backend"
	driver "github.com/apr-engine/apr/driver/wgpu"
)

// piece is the part of a step that the device does at once: all of it unless
// the device's limits are small or very many logits are wanted.
type piece struct {
	tokens, wanted int
	spans          []run
}

// run is a part of a span in a piece.
type run struct {
	span     int // of the batch
	from, to int // tokens of the span
	row      int // of the piece
}

// cut divides a step into pieces of at most rows tokens and logitRows wanted rows.
func (e *executor) cut(batch []backend.Span) []piece {
	var list []piece
	p := piece{}
	for i, s := range batch {
		for from := 0; from < len(s.Tokens); {
			n := min(len(s.Tokens)-from, e.rows-p.tokens)
			if s.Want == backend.All {
				n = min(n, e.logitRows-p.wanted)
			}
			if n == 0 || s.Want == backend.Last && from+n == len(s.Tokens) && p.wanted == e.logitRows {
				list, p = append(list, p), piece{}
				continue
			}
			p.spans = append(p.spans, run{i, from, from + n, p.tokens})
			from += n
			p.tokens += n
			p.wanted += wantedOf(s, from-n, from)
		}
	}
	return append(list, p)
}

// wantedOf counts the logit rows that tokens from to to of a span give.
func wantedOf(s backend.Span, from, to int) int {
	switch {
	case s.Want == backend.All:
		return to - from
	case s.Want == backend.Last && to == len(s.Tokens):
		return 1
	}
	return 0
}

// Step runs the program over all spans. After an error of the device the
// executor is of no more use.
func (e *executor) Step(batch []backend.Span, logits *backend.Logits) error {
	e.busy.Lock()
	defer e.busy.Unlock()
	if e.dead != nil {
		return e.dead
	}
	if err := backend.CheckStep(e.program, batch, e.opts.MaxBatch); err != nil {
		return err
	}
	total, wanted := 0, 0
	for _, s := range batch {
		if seq, ok := s.Seq.(*sequence); !ok || seq.e != e {
			return errSequence
		}
		total += len(s.Tokens)
		wanted += s.Rows()
	}
	if wanted > 0 {
		if logits == nil {
			return errors.New("logits are asked for and there is nowhere to put them")
		}
		logits.Resize(wanted, e.program.Vocab)
	}
	e.plans.Use(e.shape(batch))
	done := 0
	for _, p := range e.cut(batch) {
		var to []float32
		if p.wanted > 0 {
			to = logits.Data[done*e.program.Vocab : (done+p.wanted)*e.program.Vocab]
		}
		if err := e.piece(batch, p, total, to); err != nil {
			e.dead = lost(err)
			return e.dead
		}
		done += p.wanted
	}
	if wanted == 0 {
		// Nothing was read back, so nothing has waited for an error to show.
		if err := e.gpu.Wait(); err != nil {
			e.dead = lost(err)
			return e.dead
		}
	}
	for _, s := range batch {
		s.Seq.(*sequence).length += len(s.Tokens)
	}
	return nil
}

// piece writes what a piece is about, records and submits its work and reads
// the logits back.
func (e *executor) piece(batch []backend.Span, p piece, total int, logits []float32) error {
	e.host = append(e.host[:0], [4]uint32{uint32(p.tokens), uint32(p.wanted), uint32(total)})
	wanted := 0
	for _, r := range p.spans {
		s := batch[r.span]
		seq := s.Seq.(*sequence)
		for i := r.from; i < r.to; i++ {
			e.host = append(e.host, [4]uint32{uint32(s.Tokens[i]), uint32(seq.length + i), uint32(i)})
			if wantedOf(s, i, i+1) > 0 {
				e.host[1+wanted][3] = uint32(r.row + i - r.from)
				wanted++
			}
		}
		if err := e.writeInput(s, r); err != nil {
			return err
		}
		if info := [4]uint32{uint32(r.row), uint32(r.to - r.from), uint32(seq.capacity)}; info != seq.placed {
			seq.placed = info
			if err := e.gpu.Write(seq.info, 0, bytesOf([][4]uint32{info})); err != nil {
				return err
			}
		}
	}
	// The commands of decoded tokens copy what is written here; others follow a write.
	single := alone(batch, p) != nil
	var err error
	if single {
		err = e.decoded.Fill(bytesOf(e.host))
	} else {
		err = e.gpu.Write(e.step, 0, bytesOf(e.host))
	}
	if err != nil {
		return err
	}
	if err := e.ahead.take(e, batch, p, len(logits)).Submit(); err != nil {
		return err
	}
	if single {
		e.decoded.Reopen()
	}
	// The next token of the same sequences needs the same commands.
	if err := e.ahead.prepare(e, batch, p, len(logits)); err != nil {
		return err
	}
	if p.wanted > 0 {
		if err := e.read(e.staging, logits); err != nil {
			return err
		}
	}
	if err := e.profile.add(); err != nil {
		return err
	}
	if e.trace != nil {
		return e.trace.report(e, p, logits)
	}
	return nil
}

// record records all work of a piece and the copying of its logits.
func (e *executor) record(batch []backend.Span, p piece, logits int) *recording {
	rec := &recording{Commands: e.gpu.Begin(), piece: p, batch: batch, timed: e.profile, work: e.work}
	if alone(batch, p) != nil {
		rec.Copy(e.step, 0, e.decoded.Buffer, 0, 16*(1+uint64(p.tokens)))
	}
	for i := range e.nodes {
		n := &e.nodes[i]
		rows := p.tokens
		if n.wanted {
			rows = p.wanted
		}
		if rows == 0 {
			continue
		}
		if run := n.run[amountOf(rows)]; run != nil {
			run(rec, rows)
		}
	}
	if p.wanted > 0 {
		rec.Copy(e.staging, 0, e.logits, 0, uint64(logits)*4)
	}
	if e.trace != nil {
		e.trace.copy(rec)
	}
	e.profile.collect(rec)
	return rec
}

// read copies numbers out of a buffer, whose size is a multiple of 8.
func (e *executor) read(b *driver.Buffer, to []float32) error {
	whole := len(to) &^ 1
	if err := e.gpu.Read(b, 0, bytesOf(to[:whole])); err != nil {
		return err
	}
	if whole == len(to) {
		return nil
	}
	var last [2]float32 // the second lies in the buffer's padding
	if err := e.gpu.Read(b, uint64(whole)*4, bytesOf(last[:])); err != nil {
		return err
	}
	to[whole] = last[0]
	return nil
}

// recording is a command buffer in the making.
type recording struct {
	*driver.Commands
	piece
	batch []backend.Span
	timed *profile // nil for none
	work  map[*driver.Pipeline]work
}

// sequence of a run.
func (r *recording) sequence(at run) *sequence { return r.batch[at.span].Seq.(*sequence) }

// kernel is a pipeline with its bindings.
type kernel struct {
	pipeline *driver.Pipeline
	group    *driver.Group
	grid     [3]int // of kernels that always run the same workgroups
}

// axis is the length of a plane of workgroups; shaders know it.
const axis = 32768

// plane runs n workgroups, in a plane if they are more than an axis holds, for
// each of depth tiles.
func (r *recording) plane(k kernel, n, depth int) {
	if n > 0 && depth > 0 {
		r.Dispatch(k.pipeline, k.group, min(n, axis), (n+axis-1)/axis, depth)
	}
}

// flat runs a thread for each of n elements.
func (r *recording) flat(k kernel, n int) { r.plane(k, (n+63)/64, 1) }

// tracer keeps all values of a step apart and hands them out afterwards.
type tracer struct {
	values []traced
}

// traced is a value with its buffer on the device and one to read it from.
type traced struct {
	index           int // of Program.Values
	buffer, staging *driver.Buffer
	width           int
	wanted          bool // rows of logits rather than of tokens
}

func (t *tracer) copy(r *recording) {
	for _, v := range t.values {
		if !v.wanted {
			r.Copy(v.staging, 0, v.buffer, 0, uint64(r.tokens)*uint64(v.width)*4)
		}
	}
}

func (t *tracer) report(e *executor, p piece, logits []float32) error {
	for _, v := range t.values {
		rows := logits
		if !v.wanted {
			rows = make([]float32, p.tokens*v.width)
			if err := e.read(v.staging, rows); err != nil {
				return fmt.Errorf("value %s: %w", e.program.Values[v.index].Name, err)
			}
		}
		if len(rows) > 0 {
			e.opts.Trace(e.program.Values[v.index], rows)
		}
	}
	return nil
}
