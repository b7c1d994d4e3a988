package cuda

import "github.com/apr-engine/apr/backend"

// A program may begin with rows instead of tokens (graph.Input): the layers before
// have run elsewhere. The rows are copied to the buffer of the program's first value
// before a step's kernels start, so a captured graph reads them like the result of
// a kernel.

// allocInput allocates pinned memory for the rows of the largest step.
func (e *executor) allocInput() (err error) {
	if width := e.program.InWidth(); width > 0 {
		e.input, err = e.c.HostAlloc(e.opts.MaxBatch * width * 4)
	}
	return err
}

// uploadInput enqueues the copying of a step's rows. The first operation of every
// list of operations is the one that stands for them.
func (e *executor) uploadInput(batch []backend.Span, s stepSize) error {
	if e.input == nil {
		return nil
	}
	at := 0
	for _, span := range batch {
		at += copy(e.input[at:], bytesOf(span.Input))
	}
	return e.c.UploadAsync(e.buffers[e.operations(s)[0].outSlots[0]], e.input[:at], e.stream)
}
