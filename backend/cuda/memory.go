package cuda

import (
	"fmt"
	"sort"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
)

// memoryPlan is what a program needs of a device, in bytes, counted before
// anything is loaded.
type memoryPlan struct {
	weights, workspace, cache int64
	positions                 int // that cache is for
}

// plannedContext is how many positions of cache must fit beside the weights at
// least for loading to make sense. Sequences beyond what was planned are refused when
// they are made.
const plannedContext = 2048

// granule is the size in which the driver hands out larger pieces.
const granule = 2 << 20

func granules(n int64) int64 {
	if n < granule/2 {
		return n + 512
	}
	return (n + granule - 1) / granule * granule
}

func (e *executor) planMemory(w graph.Weights) memoryPlan {
	m := memoryPlan{positions: plannedContext}
	if e.program.Context > 0 {
		m.positions = min(m.positions, e.program.Context)
	}
	m.positions = max(m.positions, e.opts.Context)
	matrices, vectors := tensors(e.program, w)
	for _, t := range matrices {
		n, _ := packedRowBytes(t.Type, t.Cols()) // checked before
		m.weights += granules(int64(n)*int64(t.Rows())) + granules(int64(t.Rows())*4)
	}
	for _, t := range vectors {
		m.weights += granules(int64(t.Elements()) * 4)
	}
	for _, width := range e.widths {
		m.workspace += granules(int64(e.opts.MaxBatch) * int64(width) * 4)
	}
	m.workspace += e.scratch.bytes() + e.step.bytes(e)
	m.cache = granules(int64(m.positions) * e.kvPosition())
	return m
}

func (m memoryPlan) total() int64 { return m.weights + m.workspace + m.cache }

// checkMemory refuses what does not fit, with what is needed and what is free.
func (e *executor) checkMemory(w graph.Weights) error {
	m := e.planMemory(w)
	free, total, err := e.c.Memory()
	if err != nil || m.total() <= free {
		return err
	}
	return &backend.MemoryError{
		Need: m.total(), Free: free, Layers: e.fittingLayers(w, free),
		Text: fmt.Sprintf("needs %s of GPU memory (weights %s, workspace %s, cache of %d tokens %s), free are %s of %s",
			bytesText(m.total()), bytesText(m.weights), bytesText(m.workspace), m.positions, bytesText(m.cache), bytesText(free), bytesText(total)),
	}
}

// fittingLayers is how many of the program's last layers fit in so many bytes. A
// program that cannot be cut has none.
func (e *executor) fittingLayers(w graph.Weights, free int64) int {
	all := e.program.Layers()
	// Needs shrink with every layer that is left out.
	out := 1 + sort.Search(max(all-1, 0), func(i int) bool {
		_, rest, err := e.program.Cut(1 + i)
		if err != nil {
			return false
		}
		part, err := newExecutor(e.c, rest, e.opts)
		return err == nil && part.compile(w) == nil && part.planMemory(w).total() <= free
	})
	return max(all-out, 0)
}

// bytesText writes a size for people.
func bytesText(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d bytes", n)
}
