package cuda

import (
	"fmt"
	"strings"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/tensor"
)

// Products of few tokens on tensor cores: kernels/matvec_mma.h. Formats without such a
// kernel are multiplied by matvec.h's.

// mmaFormats have kernels.
var mmaFormats = map[tensor.DType]bool{tensor.Q4_K: true, tensor.Q6_K: true}

// mmaKernels are the numbers of tokens that kernels are compiled for, with the threads of
// a block.
var mmaKernels = []struct{ tokens, threads int }{{4, 384}, {8, 384}}

// mmaLeast is the fewest tokens that matvec_mma.h multiplies: fewer are faster by dp4a
// (docs/performance.md).
var mmaLeast = 3

// multipliesMMA reports whether matvec_mma.h multiplies rows of k weights of a format.
func multipliesMMA(t tensor.DType, k int) bool { return mmaFormats[t] && k%256 == 0 }

// mmaShared is the shared memory of a block that works on so many tiles.
func mmaShared(k, tokens, tiles, threads int) int {
	return tokens*k/32*72 + 16 + (tiles+threads/32)*16*tokens*4
}

// mmaMost is the most tokens of one launch for a matrix by itself.
func mmaMost(dev cuda.Device, rows, k int) int {
	tiles := (rows/max(dev.SMs, 1) + 8) / 8 // of a pair, which has the most
	for i := len(mmaKernels) - 1; i >= 0; i-- {
		if n := mmaKernels[i]; mmaShared(k, n.tokens, tiles, n.threads) <= dev.SharedMemory {
			return n.tokens
		}
	}
	return 0
}

// mmaRound is the number of tokens of the kernel that takes n.
func mmaRound(n int) int {
	for _, k := range mmaKernels {
		if n <= k.tokens {
			return k.tokens
		}
	}
	return 0
}

// planMMA chooses kernel and shape; nil if matvec.h has to do it.
func (r *matvecRequest) planMMA(dev cuda.Device) *kernelCall {
	if r.tokens < mmaLeast {
		return nil
	}
	for _, m := range r.matrices {
		if !multipliesMMA(m.dtype, r.k) {
			return nil
		}
	}
	main, alt, err := r.formats(true)
	if err != nil {
		return nil
	}
	for _, k := range mmaKernels {
		if r.tokens > k.tokens {
			continue
		}
		s := r.mmaShape(dev)
		s.run = (s.work*r.k/256 + k.threads/32 - 1) / (k.threads / 32)
		if s.shared = mmaShared(r.k, k.tokens, s.work, k.threads); s.shared > dev.SharedMemory {
			return nil
		}
		module := "matvec_mma_" + strings.ToLower(main.String())
		return r.call(s, module, fmt.Sprintf("%s_%d", module, k.tokens), k.threads, alt)
	}
	return nil
}

// mmaShape gives each multiprocessor one block; work counts its tiles.
func (r *matvecRequest) mmaShape(dev cuda.Device) matvecShape {
	matrices, tile, whole := r.matrices, 16, 1
	if r.pair {
		matrices, tile = matrices[:1], 8
	}
	if r.round {
		whole = 32
	}
	total := 0
	for _, m := range matrices {
		total += m.rows
	}
	blocks := max(dev.SMs, len(matrices))
	s := matvecShape{}
	for s.rows = roundUp(max(total/blocks, 1), whole); ; s.rows += whole {
		s.grid = 0
		for i, m := range matrices {
			s.starts[i] = s.grid
			s.grid += (m.rows + s.rows - 1) / s.rows
		}
		if s.grid <= blocks {
			break
		}
	}
	s.work = (s.rows + tile - 1) / tile
	return s
}
