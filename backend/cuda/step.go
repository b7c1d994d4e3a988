package cuda

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/driver/cuda"
)

// Step runs the program over all spans at once and waits for it, so that an error
// of the device is this step's error. After one the executor is dead.
func (e *executor) Step(batch []backend.Span, logits *backend.Logits) error {
	if e.dead != nil {
		return e.dead
	}
	if err := backend.CheckStep(e.program, batch, e.opts.MaxBatch); err != nil {
		return err
	}
	s := e.shapeOf(batch)
	if s.rows > 0 {
		if logits == nil {
			return errors.New("logits are asked for and there is nowhere to put them")
		}
		logits.Resize(s.rows, e.program.Vocab)
	}
	e.plans.Use(s)
	err := e.c.Do(func() error {
		err := e.run(batch, s.stepSize, logits)
		var device *cuda.Error
		if errors.As(err, &device) {
			return e.fail(err)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, span := range batch {
		span.Seq.(*kvSequence).length += len(span.Tokens)
	}
	return nil
}

func (e *executor) run(batch []backend.Span, s stepSize, logits *backend.Logits) error {
	n, err := e.step.write(e, batch, s)
	if err != nil {
		return err
	}
	if err := e.uploadInput(batch, s); err != nil {
		return err
	}
	if e.opts.Trace != nil {
		return e.runTraced(n, s, logits)
	}
	p, err := e.prepare(s)
	if err != nil {
		return err
	}
	if err := e.c.UploadAsync(e.step.device, e.step.host[:n], e.stream); err != nil {
		return err
	}
	for _, seg := range p.segments {
		if err := e.launch(p, seg); err != nil {
			return err
		}
		if err := e.fetch(seg, logits); err != nil {
			return err
		}
	}
	return nil
}

// launch enqueues the kernels of a segment.
func (e *executor) launch(p *prepared, seg segment) error {
	if p.graph != 0 {
		return e.c.LaunchGraph(p.graph, e.stream)
	}
	for _, run := range seg.runs {
		if err := e.c.Run(run, e.stream); err != nil {
			return err
		}
	}
	return nil
}

// fetch waits for a segment and copies its rows of logits: at once to where the
// caller wants them, if the device may write there.
func (e *executor) fetch(seg segment, logits *backend.Logits) error {
	n := seg.rows * e.program.Vocab
	if n == 0 {
		return e.c.Wait(e.stream)
	}
	to := logits.Data[seg.from*e.program.Vocab:][:n]
	target := e.scratch.host[:4*n]
	direct := e.direct.allows(e.c, logits.Data)
	if direct {
		target = bytesOf(to)
	}
	if err := e.c.DownloadAsync(target, e.scratch.logits, e.stream); err != nil {
		return err
	}
	if err := e.c.Wait(e.stream); err != nil {
		return err
	}
	if !direct {
		copy(to, floats(e.scratch.host, n))
	}
	return nil
}

// directMemory is the caller's memory for logits that the device writes to, as long as
// the caller uses the same again and again: a copy of large vocabularies takes a
// tenth of a step.
type directMemory struct {
	seen       *float32 // of the last step
	registered []byte   // nil for none; kept alive by being here
	refused    bool     // by the driver; not tried again
}

// minDirect is the fewest bytes for which it pays.
const minDirect = 64 << 10

// allows reports whether the device may write to data, which it may from the second
// use on.
func (d *directMemory) allows(c *cuda.Context, data []float32) bool {
	first := unsafe.SliceData(data)
	again := first == d.seen
	d.seen = first
	if unsafe.SliceData(d.registered) == (*byte)(unsafe.Pointer(first)) && len(d.registered) >= 4*len(data) {
		return true
	}
	if !again || d.refused || 4*len(data) < minDirect {
		return false
	}
	if d.registered != nil {
		d.refused = c.Unregister(d.registered) != nil
		d.registered = nil
	}
	whole := bytesOf(data[:cap(data)])
	if d.refused || c.Register(whole) != nil {
		d.refused = true
		return false
	}
	d.registered = whole
	return true
}

// bytesOf sees numbers as bytes.
func bytesOf(x []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), 4*len(x))
}

// floats sees the start of pinned memory as numbers.
func floats(b []byte, n int) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(unsafe.SliceData(b))), n)
}

// runTraced runs one operation at a time and shows each value as it is computed.
func (e *executor) runTraced(n int, s stepSize, logits *backend.Logits) error {
	if err := e.c.UploadAsync(e.step.device, e.step.host[:n], e.stream); err != nil {
		return err
	}
	for _, op := range e.plain {
		r := e.record(s)
		for {
			if err := op.emit(r); err != nil {
				return err
			}
			seg := segment{r.runs, r.from, 0}
			if op.logits {
				seg.rows = r.rows
			}
			if err := e.launch(&prepared{}, seg); err != nil {
				return err
			}
			if err := e.fetch(seg, logits); err != nil {
				return fmt.Errorf("%s: %w", op.kind, err)
			}
			r.from += r.rows
			if !op.logits || r.from >= s.rows {
				break
			}
			r.runs, r.rows = nil, min(s.rows-r.from, e.scratch.logitRows)
		}
		if err := e.trace(op, s, logits); err != nil {
			return err
		}
	}
	return nil
}

func (e *executor) trace(op operation, s stepSize, logits *backend.Logits) error {
	out := e.program.Ops[op.ops[0]].Output()
	if out < 0 {
		return nil
	}
	v := e.program.Values[out]
	if op.logits {
		if s.rows > 0 {
			e.opts.Trace(v, logits.Data)
		}
		return nil
	}
	rows := make([]float32, s.tokens*v.Width)
	if err := cuda.Download(e.c, rows, e.buffers[op.outSlots[0]]); err != nil {
		return err
	}
	e.opts.Trace(v, rows)
	return nil
}
