//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"github.com/apr-engine/apr/backend"
	driver "github.com/apr-engine/apr/driver/wgpu"
)

// work is what a product's kernel must do at least, for the profile.
type work struct {
	bytes      float64 // of weights, read and written
	operations float64 // for each token
	integer    bool
}

// marksMost is how many dispatches of a piece are timed; those after them are not.
const marksMost = 4000

// profile adds up the times of kernels, by name in the order of the program. Devices
// without times inside passes give none.
type profile struct {
	timer *driver.Timer
	names []string
	sums  map[string]*backend.OperationTime
	// dispatched are those of the piece at hand.
	dispatched []timed
}

type timed struct {
	name   string
	tokens int
	work
}

// SetProfile begins to time the dispatches of steps, whose times then have the marks'
// own in them, some microseconds each; or ends it.
func (e *executor) SetProfile(on bool) {
	e.busy.Lock()
	defer e.busy.Unlock()
	if e.profile != nil {
		e.profile.timer.Release()
		e.profile = nil
	}
	if !on || e.dead != nil || !e.gpu.Features.Timestamps {
		return
	}
	e.ahead.forget(nil)
	timer, err := e.gpu.NewTimer(marksMost + 1)
	if err != nil {
		return // no times
	}
	e.profile = &profile{timer: timer, sums: map[string]*backend.OperationTime{}}
}

// Profile is what was timed.
func (e *executor) Profile() []backend.OperationTime {
	e.busy.Lock()
	defer e.busy.Unlock()
	if e.profile == nil {
		return nil
	}
	var list []backend.OperationTime
	for _, n := range e.profile.names {
		list = append(list, *e.profile.sums[n])
	}
	return list
}

// Dispatch runs a pipeline over x·y·z workgroups and marks its end if it is timed.
func (r *recording) Dispatch(p *driver.Pipeline, g *driver.Group, x, y, z int) {
	t := r.timed
	if t != nil && len(t.dispatched) == 0 {
		r.Mark(t.timer, 0)
	}
	r.Commands.Dispatch(p, g, x, y, z)
	if t != nil && len(t.dispatched) < marksMost {
		t.dispatched = append(t.dispatched, timed{p.Name, r.tokens, r.work[p]})
		r.Mark(t.timer, len(t.dispatched))
	}
}

// collect makes the marks readable after the piece.
func (p *profile) collect(r *recording) {
	if p != nil && len(p.dispatched) > 0 {
		r.Collect(p.timer, len(p.dispatched)+1)
	}
}

// add reads the marks of a piece that has been submitted.
func (p *profile) add() error {
	if p == nil || len(p.dispatched) == 0 {
		return nil
	}
	marks, err := p.timer.Times(len(p.dispatched) + 1)
	if err != nil {
		return err
	}
	for i, d := range p.dispatched {
		sum := p.sums[d.name]
		if sum == nil {
			sum = &backend.OperationTime{Name: d.name, Integer: d.integer}
			p.sums[d.name], p.names = sum, append(p.names, d.name)
		}
		sum.Calls++
		sum.Time += max(0, marks[i+1]-marks[i])
		sum.Bytes += d.bytes
		sum.Operations += d.operations * float64(d.tokens)
	}
	p.dispatched = p.dispatched[:0]
	return nil
}

var _ backend.Profiler = (*executor)(nil)
