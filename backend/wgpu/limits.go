//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"fmt"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/wgpu/kernels"
	driver "github.com/apr-engine/apr/driver/wgpu"
)

const (
	limitRuns = 5
	// limitTime is how long a GPU works for each limit at least: its clocks rise with work.
	limitTime       = 200 * time.Millisecond
	limitBytes      = 1 << 30 // well above any cache
	limitIterations = 2048
	// What a CPU does that plays the device, in a fraction of a second.
	softBytes      = 64 << 20
	softIterations = 256
)

// MeasureLimits reads memory that no cache holds and multiplies numbers that are
// already in registers, with shaders, and takes the best of some runs. It needs up to
// 1 GiB beside what is loaded and reports an error where that is not free.
func (e *executor) MeasureLimits() (backend.Limits, error) {
	e.busy.Lock()
	defer e.busy.Unlock()
	if e.dead != nil {
		return backend.Limits{}, e.dead
	}
	l, err := e.gpu.measureLimits()
	if err != nil {
		return l, fmt.Errorf("measuring %s: %w", e.gpu.Name, err)
	}
	return l, nil
}

func (g *gpu) measureLimits() (l backend.Limits, err error) {
	size, iterations := int(min(limitBytes, g.Binding, g.Buffer))&^15, limitIterations
	if g.caps.Software {
		size, iterations = min(size, softBytes), softIterations
	}
	x, err := g.NewBuffer(uint64(size), driver.Storage)
	if err != nil {
		return l, err
	}
	defer g.Reclaim()
	defer x.Release()
	y, err := g.NewBuffer(2048, driver.Storage)
	if err != nil {
		return l, err
	}
	defer y.Release()
	seconds, err := g.best(kernels.Stream(g.caps, size), x, y)
	if err != nil {
		return l, err
	}
	l.Bandwidth = float64(size) / seconds
	peak, operations := kernels.Peak(g.caps, iterations)
	if seconds, err = g.best(peak, y); err != nil {
		return l, err
	}
	l.Arithmetic = operations / seconds
	return l, nil
}

// best is the shortest time of a kernel in seconds: on the device where it tells, else
// from submission to completion.
func (g *gpu) best(k kernels.Kernel, buffers ...*driver.Buffer) (float64, error) {
	p, err := g.compiled(k.Desc(g.Checked))
	if err != nil {
		return 0, err
	}
	group, err := g.NewGroup(p, whole(buffers...)...)
	if err != nil {
		return 0, err
	}
	defer group.Release()
	if err := g.settle(); err != nil {
		return 0, err
	}
	var timer *driver.Timer
	if g.Features.Timestamps {
		if timer, err = g.NewTimer(2); err != nil {
			return 0, err
		}
		defer timer.Release()
	}
	var best time.Duration
	begin := time.Now()
	for run := 0; run < limitRuns || !g.caps.Software && time.Since(begin) < limitTime; run++ {
		c := g.Begin()
		if timer != nil {
			c.Mark(timer, 0)
		}
		c.Dispatch(p, group, k.Grid[0], k.Grid[1], k.Grid[2])
		if timer != nil {
			c.Mark(timer, 1)
			c.Collect(timer, 2)
		}
		start := time.Now()
		if err := c.Submit(); err != nil {
			return 0, err
		}
		if err := g.Wait(); err != nil {
			return 0, err
		}
		took := time.Since(start)
		if timer != nil {
			marks, err := timer.Times(2)
			if err != nil {
				return 0, err
			}
			took = marks[1] - marks[0]
		}
		if best == 0 || took < best {
			best = took
		}
	}
	if best <= 0 {
		return 0, fmt.Errorf("kernel %s took no time", k.Name)
	}
	return best.Seconds(), nil
}
