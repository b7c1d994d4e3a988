//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"

	"github.com/apr-engine/apr/backend"
	driver "github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
)

// A program may begin with rows instead of tokens (graph.Input): the layers before
// have run elsewhere. They are written to a buffer before each piece of a step, as
// tokens and positions are, so commands recorded ahead stay right.

// rowsFrom gives the program's first value a buffer that the host writes to. Later
// values may use it again within the step.
func (c *compiler) rowsFrom(o *graph.Input) error {
	w := c.width(o.Out)
	b, err := c.buffer((4*c.rowsOf()*w+15)&^15, driver.Storage|driver.CopySrc|driver.CopyDst)
	if err != nil {
		return fmt.Errorf("value %s: %w", c.program.Values[o.Out].Name, err)
	}
	c.holds[b], c.input = 1, b
	_, err = c.put(o.Out, view{b, w, 0})
	return err
}

// writeInput writes the rows of a part of a span.
func (e *executor) writeInput(s backend.Span, r run) error {
	if e.input == nil {
		return nil
	}
	w := e.program.InWidth()
	return e.gpu.Write(e.input, uint64(4*r.row*w), bytesOf(s.Input[r.from*w:r.to*w]))
}
