package cuda

import (
	"fmt"
	"slices"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/graph"
)

// recorder collects the launches of a step of one shape.
type recorder struct {
	e     *executor
	shape stepSize
	at    stepLayout
	from  int // the piece of the rows of logits at hand
	rows  int
	runs  []*cuda.Launch
	// halved is the value that lies converted to f16 in the scratch memory.
	halved graph.ID
	// last is the last decode product, lastRun its launch.
	last    *kernelCall
	lastRun *cuda.Launch
}

func (e *executor) record(s stepSize) *recorder {
	return &recorder{e: e, shape: s, at: e.layout(s), rows: min(s.rows, e.scratch.logitRows), halved: none}
}

// none is no value.
const none graph.ID = -1

func (r *recorder) launch(kernel string, grid [3]int, threads, shared int, args ...any) error {
	run, err := r.e.lib.launch(kernel, grid, threads, shared, args...)
	if err != nil {
		return err
	}
	r.add(run)
	return nil
}

// add appends launches. A kernel may begin before the one before it has ended only
// if it waits by itself.
func (r *recorder) add(runs ...*cuda.Launch) {
	for _, run := range runs {
		run.Overlap = r.e.lib.waits(run.Name)
	}
	r.runs = append(r.runs, runs...)
}

// each launches a kernel whose last argument is the number of elements, for all
// tokens of values of a width.
func (r *recorder) each(kernel string, width int, args ...any) error {
	return r.eachOf(kernel, width*r.shape.tokens, args...)
}

func (r *recorder) eachOf(kernel string, n int, args ...any) error {
	return r.launch(kernel, [3]int{(n + 255) / 256}, 256, 0, append(args, uint64(n))...)
}

// ints is the device address of an array of the step's data.
func (r *recorder) ints(offset int) cuda.Ptr { return r.e.step.device + cuda.Ptr(offset) }

// constant puts numbers into device memory, once for equal ones.
func (r *recorder) constant(v []uint64) (cuda.Ptr, error) {
	for _, c := range r.e.scratch.constants {
		if slices.Equal(c.v, v) {
			return c.p, nil
		}
	}
	p, err := allocWith(r.e, v)
	if err == nil {
		r.e.scratch.constants = append(r.e.scratch.constants, constant{v, p})
	}
	return p, err
}

func (r *recorder) constant32(v []int32) (cuda.Ptr, error) {
	wide := make([]uint64, (len(v)+1)/2)
	for i, x := range v {
		wide[i/2] |= uint64(uint32(x)) << (32 * (i % 2))
	}
	return r.constant(wide)
}

// segment is what runs before a piece of the logits is copied back.
type segment struct {
	runs       []*cuda.Launch
	from, rows int
}

// prepared is a step of one shape, ready to run.
type prepared struct {
	segments []segment
	graph    cuda.Exec // 0 if the launches are made one by one
	nodes    int       // of the graph
}

// preparedBatches is how many shapes of uncaptured steps are kept; prompts come in
// few sizes but for their last step.
const preparedBatches = 8

// operations are those that a shape runs.
func (e *executor) operations(s stepSize) []operation {
	switch {
	case s.few() && e.few != nil:
		return e.few
	case !s.few() && e.many != nil:
		return e.many
	}
	return e.plain
}

// captures reports whether steps of a shape run as one graph.
func (e *executor) captures(s stepSize) bool {
	return (s.few() || s.together() && s.rows <= e.scratch.logitRows) && e.opts.Trace == nil
}

// segments records the launches of a shape.
func (e *executor) segments(s stepSize) ([]segment, error) {
	r := e.record(s)
	operations := e.operations(s)
	for _, op := range operations {
		if err := op.emit(r); err != nil {
			return nil, err
		}
	}
	all := []segment{{r.runs, 0, r.rows}}
	for r.from += r.rows; r.from < s.rows; r.from += r.rows {
		r.runs, r.rows = nil, min(s.rows-r.from, e.scratch.logitRows)
		for _, op := range operations {
			if !op.logits {
				continue
			}
			if err := op.emit(r); err != nil {
				return nil, err
			}
		}
		all = append(all, segment{r.runs, r.from, r.rows})
	}
	return all, nil
}

// prepare records the launches of a shape and captures them if they are to be
// replayed.
func (e *executor) prepare(s stepSize) (*prepared, error) {
	if p := e.prepared[s]; p != nil {
		return p, nil
	}
	segments, err := e.segments(s)
	if err != nil {
		return nil, err
	}
	p := &prepared{segments: segments}
	if e.captures(s) {
		if err := e.capture(p); err != nil {
			return nil, fmt.Errorf("capture of a step of %d tokens: %w", s.tokens, err)
		}
	}
	e.forgetBatches()
	e.prepared[s] = p
	return p, nil
}

// forgetBatches makes room for one more uncaptured shape.
func (e *executor) forgetBatches() {
	n := 0
	for _, p := range e.prepared {
		if p.graph == 0 {
			n++
		}
	}
	if n < preparedBatches {
		return
	}
	for s, p := range e.prepared {
		if p.graph == 0 {
			delete(e.prepared, s)
		}
	}
}

// capture turns the launches into a graph. Nothing runs meanwhile.
func (e *executor) capture(p *prepared) error {
	runs := p.segments[0].runs
	if err := e.c.BeginCapture(e.stream); err != nil {
		return err
	}
	var failed error
	for _, run := range runs {
		if failed = e.c.Run(run, e.stream); failed != nil {
			break
		}
	}
	g, err := e.c.EndCapture(e.stream)
	if failed != nil {
		return failed
	}
	if err != nil {
		return err
	}
	if p.nodes, err = e.c.Nodes(g); err != nil {
		return err
	}
	if p.nodes != len(runs) {
		return fmt.Errorf("the graph has %d operations for %d launches", p.nodes, len(runs))
	}
	if p.graph, err = e.c.Instantiate(g); err != nil {
		return err
	}
	if err := e.c.DestroyGraph(g); err != nil {
		return err
	}
	return e.c.UploadGraph(p.graph, e.stream)
}
