package cuda

import "github.com/apr-engine/apr/driver/cuda"

// The kernels between the products of a decode step: kernels/decode.cu.

// ropeStore is what follows the products for queries, keys and values.
type ropeStore struct {
	tokens, heads, kvHeads, headDim int
	// q (tokens, heads·headDim), k and v (tokens, kvHeads·headDim), float32; qOut may be q.
	q, k, v, qOut cuda.Ptr
	// qNorm, kNorm (headDim) are RMSNorms of each head before the rotation; 0 for none.
	qNorm, kNorm cuda.Ptr
	eps          float32
	// ropePos (tokens) int32 decides the angles, pos where keys and values go.
	ropePos, pos cuda.Ptr
	freq         cuda.Ptr // (pairs) uint64, see kernels/rope.h
	pairs        int      // rotated, 0 for no rotation
	interleaved  bool
	magnitude    float32
	kv, cap      cuda.Ptr // (tokens) uint64 addresses of the caches, int32 their capacities
	layer        uint64   // bytes that one position takes in all earlier layers
	f16          bool     // elements of the cache; else float32
}

// order is the kernels' number for how elements pair.
func (r ropeStore) order() int {
	if r.interleaved {
		return 1
	}
	return 0
}

func (r ropeStore) call() *kernelCall {
	kernel := "rope_store_f32"
	if r.f16 {
		kernel = "rope_store_f16"
	}
	return &kernelCall{
		module: "decode", kernel: kernel, grid: (r.heads + 2*r.kvHeads + 3) / 4, gridY: r.tokens, threads: 128,
		args: []any{r.q, r.k, r.v, r.qOut, r.qNorm, r.kNorm, r.eps, r.ropePos, r.freq, r.pairs, r.order(), r.magnitude,
			r.pos, r.kv, r.cap, r.layer, r.heads, r.kvHeads, r.headDim},
	}
}

// normAddCall is y = residual + RMSNorm(x)·weight for each of rows; y may be residual or x.
func normAddCall(x, weight cuda.Ptr, eps float32, residual, y cuda.Ptr, rows, width int) *kernelCall {
	return &kernelCall{module: "decode", kernel: "norm_add", grid: rows, threads: 256, args: []any{x, weight, eps, residual, y, width}}
}
