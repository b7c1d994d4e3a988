package cuda

import (
	"fmt"
	"slices"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/driver/cuda"
)

// peakKernel multiplies on tensor cores without touching memory.
type peakKernel struct {
	name       string
	shared     int     // bytes of shared memory a block
	blocks     int     // a multiprocessor
	operations float64 // of a block for each iteration; a multiply-add is two
}

// peaks are tried in order: what a device has no code for is passed over.
var peaks = []peakKernel{
	{"wgmma_peak", (128 + 256) * 128, 1, 2 * 4 * 128 * 256 * 16},
	{"mma_peak", 0, 2, 2 * 8 * 8 * 16 * 8 * 16},
}

const (
	limitRuns       = 7
	limitBytes      = 1 << 30 // well above any cache
	limitIterations = 4096
)

// MeasureLimits reads memory that no cache holds and multiplies numbers that are
// already in registers or shared memory; it takes the best of a few runs. It needs
// 1 GiB beside what is loaded and reports an error where that is not free.
func (e *executor) MeasureLimits() (backend.Limits, error) {
	return e.measureLimits(limitBytes, limitIterations)
}

func (e *executor) measureLimits(size int64, iterations int) (backend.Limits, error) {
	if e.dead != nil {
		return backend.Limits{}, e.dead
	}
	var l backend.Limits
	err := e.c.Do(func() error {
		buffer, err := e.c.Alloc(size)
		if err != nil {
			return err
		}
		defer e.c.Free(buffer)
		if err := e.c.Fill(buffer, 0x5a, size, e.stream); err != nil {
			return err
		}
		sms := e.c.Device.SMs
		read, err := e.lib.launch("read_stream", [3]int{4 * sms}, 512, 0, buffer, buffer, uint64(size/16))
		if err != nil {
			return err
		}
		seconds, err := e.best(read)
		if err != nil {
			return err
		}
		l.Bandwidth = float64(size) / seconds
		for _, p := range peaks {
			if !e.lib.has(p.name) {
				continue
			}
			blocks := sms * p.blocks
			multiply, err := e.lib.launch(p.name, [3]int{blocks}, 256, p.shared, buffer, int32(iterations))
			if err != nil {
				return err
			}
			if seconds, err = e.best(multiply); err != nil {
				return err
			}
			l.Arithmetic = p.operations * float64(iterations) * float64(blocks) / seconds
			break
		}
		return nil
	})
	if err != nil {
		return backend.Limits{}, fmt.Errorf("measuring %s: %w", e.c.Device.Name, err)
	}
	return l, nil
}

// best is the shortest time of a launch in seconds.
func (e *executor) best(l *cuda.Launch) (float64, error) {
	l.Overlap = false
	from, err := e.c.NewEvent()
	if err != nil {
		return 0, err
	}
	to, err := e.c.NewEvent()
	if err != nil {
		return 0, err
	}
	var times []float64
	for range limitRuns {
		if err := e.c.Record(from, e.stream); err != nil {
			return 0, err
		}
		if err := e.c.Run(l, e.stream); err != nil {
			return 0, err
		}
		if err := e.c.Record(to, e.stream); err != nil {
			return 0, err
		}
		ms, err := e.c.Elapsed(from, to)
		if err != nil {
			return 0, err
		}
		times = append(times, ms/1000)
	}
	return slices.Min(times), nil
}
