package cuda

import (
	"fmt"

	"github.com/apr-engine/apr/driver/cuda"
)

// lookup finds a kernel of a module; the module is named as its .cu file.
type lookup func(module, kernel string) (cuda.Function, error)

// prepare makes a launch of a kernel with a grid of any shape that may overlap
// the end of the kernel before it.
func prepare(find lookup, context *cuda.Context, module, kernel string, grid [3]int, threads, shared int, args ...any) (*cuda.Launch, error) {
	f, err := find(module, kernel)
	if err != nil {
		return nil, err
	}
	if f != 0 { // else kernels are being listed
		if err := context.AllowShared(f, shared); err != nil {
			return nil, fmt.Errorf("%s: %w", kernel, err)
		}
	}
	l, err := cuda.NewLaunch(kernel, f, grid[0], threads, shared, args...)
	if err != nil {
		return nil, err
	}
	l.Grid = [3]uint32{uint32(grid[0]), uint32(grid[1]), uint32(grid[2])}
	l.Overlap = true
	return l, nil
}
