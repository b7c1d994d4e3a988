package cuda

import (
	"fmt"
	"strings"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/tensor"
)

// Products of few tokens whose weights stream through shared memory: kernels/stream.h.
// Formats without such a kernel are multiplied by matvec.h's.

// streamStage is the shared memory of a warp's step for the formats that have kernels:
// Stage<D>::BYTES.
var streamStage = map[tensor.DType]int{tensor.Q4_K: 2304, tensor.Q6_K: 3392}

// streamTokens are the numbers of tokens that kernels are compiled for.
var streamTokens = []int{1, 2, 4, 8}

// streamProducts lets stream.h serve where it can.
var streamProducts = true

// What a block of stream.h has. Half the registers of a multiprocessor allow 256 threads;
// the shared memory for rings leaves room for the next kernel's block beside this one.
var (
	streamThreads = 256
	streamRing    = 84 << 10
)

// maxStages is what wait_stage in kernels/stream.h knows.
const maxStages = 6

// streams reports whether stream.h multiplies a format.
func streams(t tensor.DType, k int) bool {
	return streamProducts && streamStage[t] > 0 && k%256 == 0
}

// streamShared is the shared memory before and after the rings, for tiles of 16 rows.
func streamShared(k, tokens, tiles int) int {
	return tokens*k/32*72 + 16 + (tiles+streamThreads/32)*16*tokens*4
}

// streamMost is the most tokens of one launch for a matrix by itself.
func streamMost(dev cuda.Device, t tensor.DType, rows, k int) int {
	tiles := (rows/max(dev.SMs, 1) + 8) / 8 // of a pair, which has the most
	for i := len(streamTokens) - 1; i >= 0; i-- {
		if n := streamTokens[i]; streamShared(k, n, tiles)+2*streamThreads/32*streamStage[t] <= dev.SharedMemory {
			return n
		}
	}
	return 0
}

// streamRound is the number of tokens of the kernel that takes n; 0 for none.
func streamRound(n int) int {
	for _, most := range streamTokens {
		if n <= most {
			return most
		}
	}
	return 0
}

// planStream chooses kernel and shape; nil if matvec.h has to do it.
func (r *matvecRequest) planStream(dev cuda.Device) *kernelCall {
	for _, m := range r.matrices {
		if !streams(m.dtype, r.k) {
			return nil
		}
	}
	main, alt, err := r.formats(true)
	if err != nil {
		return nil
	}
	tokens := streamRound(r.tokens)
	if tokens == 0 {
		return nil
	}
	s, stage := r.streamShape(dev), 0
	for _, m := range r.matrices {
		stage = max(stage, streamStage[m.dtype]*streamThreads/32)
	}
	fixed := streamShared(r.k, tokens, s.work)
	s.lanes = min(maxStages, max(2, streamRing/stage), (dev.SharedMemory-fixed)/stage)
	if s.lanes < 2 {
		return nil
	}
	s.shared = fixed + s.lanes*stage
	module := "stream_" + strings.ToLower(main.String())
	return r.call(s, module, fmt.Sprintf("%s_%d", module, tokens), streamThreads, alt)
}

// streamShape gives each multiprocessor one block; work counts its tiles.
func (r *matvecRequest) streamShape(dev cuda.Device) matvecShape {
	matrices, tile := r.matrices, 16
	if r.pair {
		matrices, tile = matrices[:1], 8
	}
	total := 0
	for _, m := range matrices {
		total += m.rows
	}
	blocks := max(dev.SMs, len(matrices))
	s := matvecShape{}
	for s.rows = max(total/blocks, 1); ; s.rows++ {
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
	s.run = (s.work*r.k/256 + streamThreads/32 - 1) / (streamThreads / 32)
	return s
}
