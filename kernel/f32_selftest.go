package kernel

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// selfTestLengths end in a whole vector, a lone element and an odd tail, and go
// once round the widest unrolled loop.
var selfTestLengths = [...]int{1, 16, 83}

// selfTestRNG is xorshift64 (Marsaglia, 2003): the inputs are the same each time.
type selfTestRNG uint64

func (r *selfTestRNG) next() uint64 {
	*r ^= *r << 13
	*r ^= *r >> 7
	*r ^= *r << 17
	return uint64(*r)
}

// floats returns n values in [-4,4).
func (r *selfTestRNG) floats(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = float32(int64(r.next())>>11) * 0x1p-50
	}
	return x
}

func (r *selfTestRNG) halves(n int) []uint16 {
	h := make([]uint16, n)
	f32ToF16Generic(h, r.floats(n))
	return h
}

// registerCheck compares a slot's active variant with plain Go. run calls the
// implementation it is given on inputs drawn from r for vectors of n elements
// and returns what it produced. tol is the difference allowed, relative to the
// largest magnitude of the result; 0 asks for the same bits.
func registerCheck[F any](s *slot[F], tol float64, run func(f F, r *selfTestRNG, n int) []float32) {
	registerSelfTest(s.name, func() error {
		for _, n := range selfTestLengths {
			a, b := selfTestRNG(n), selfTestRNG(n)
			if err := compareResults(run(s.active, &a, n), run(s.generic(), &b, n), tol); err != nil {
				return fmt.Errorf("length %d: %w", n, err)
			}
		}
		return nil
	})
}

// compareResults says where got is not want. NaN equals only NaN.
func compareResults(got, want []float32, tol float64) error {
	var size float64
	for _, w := range want {
		if a := math.Abs(float64(w)); a <= math.MaxFloat32 {
			size = max(size, a)
		}
	}
	for i, w := range want {
		g := got[i]
		if math.Float32bits(g) == math.Float32bits(w) || g != g && w != w {
			continue
		}
		if tol > 0 && math.Abs(float64(g)-float64(w)) <= tol*size {
			continue
		}
		return fmt.Errorf("result %d of %d is %v, plain Go gives %v", i, len(want), g, w)
	}
	return nil
}

// Tolerances of the self-test. A wrong kernel is off by far more; what is
// allowed is the order of addition and a few units of the last place.
const (
	exact     = 0
	fewULP    = 1e-6
	manyTerms = 1e-5
)

func init() {
	registerCheck(slotDotF32, manyTerms, func(f func(a, b []float32) float32, r *selfTestRNG, n int) []float32 {
		a := r.floats(n)
		return []float32{f(a, a)} // squares: no cancellation
	})
	registerCheck(slotDotF16, manyTerms, func(f func(a []float32, b []uint16) float32, r *selfTestRNG, n int) []float32 {
		h := r.halves(n)
		a := make([]float32, n)
		f16ToF32Generic(a, h)
		return []float32{f(a, h)}
	})
	registerCheck(slotAxpyF32, fewULP, func(f func(y []float32, a float32, x []float32), r *selfTestRNG, n int) []float32 {
		y := r.floats(n)
		f(y, 0.3, r.floats(n))
		return y
	})
	registerCheck(slotAxpyF16, fewULP, func(f func(y []float32, a float32, x []uint16), r *selfTestRNG, n int) []float32 {
		y := r.floats(n)
		f(y, 0.3, r.halves(n))
		return y
	})
	elementwise := func(f func(dst, a, b []float32), r *selfTestRNG, n int) []float32 {
		dst := make([]float32, n)
		f(dst, withSpecials(r.floats(n)), r.floats(n))
		return dst
	}
	registerCheck(slotAdd, exact, elementwise)
	registerCheck(slotMul, exact, elementwise)
	registerCheck(slotSiLUMul, fewULP, elementwise)
	registerCheck(slotGELUMul, fewULP, elementwise)
	registerCheck(slotScale, exact, func(f func(dst, x []float32, s float32), r *selfTestRNG, n int) []float32 {
		dst := make([]float32, n)
		f(dst, withSpecials(r.floats(n)), 0.3)
		return dst
	})
	registerCheck(slotToF16, exact, func(f func(dst []uint16, src []float32), r *selfTestRNG, n int) []float32 {
		h, out := make([]uint16, n), make([]float32, n)
		f(h, withSpecials(r.floats(n)))
		f16ToF32Generic(out, h)
		return out
	})
	registerCheck(slotFromF16, exact, func(f func(dst []float32, src []uint16), r *selfTestRNG, n int) []float32 {
		dst, h := make([]float32, n), make([]uint16, n)
		for i := range h {
			h[i] = uint16(r.next())
		}
		f(dst, h)
		return dst
	})
	registerCheck(slotRMSNorm, fewULP, func(f func(dst, x, weight []float32, eps float32), r *selfTestRNG, n int) []float32 {
		dst := make([]float32, n)
		f(dst, r.floats(n), r.floats(n), 1e-6)
		return dst
	})
	registerCheck(slotMax, exact, func(f func(x []float32) float32, r *selfTestRNG, n int) []float32 {
		return []float32{f(withSpecials(r.floats(n)))}
	})
	registerCheck(slotExpSub, manyTerms, func(f func(x []float32, m float32) float32, r *selfTestRNG, n int) []float32 {
		x := r.floats(n)
		return append(x, f(x, 4))
	})
	registerCheck(slotSoftCap, fewULP, func(f func(x []float32, scale, limit float32), r *selfTestRNG, n int) []float32 {
		x, y := r.floats(n), r.floats(n)
		f(x, 0.25, 0)
		f(y, 0.25, 2)
		return append(x, y...)
	})
	rope := func(f func(x, cos, sin []float32), r *selfTestRNG, n int) []float32 {
		x := r.floats(2*n + 1)
		f(x, r.floats(n), r.floats(n))
		return x
	}
	registerCheck(slotRopeNeoX, exact, rope)
	registerCheck(slotRopeNorm, exact, rope)
	registerCheck(slotTile, manyTerms, selfTestTile)
	registerCheck(slotWeighted, fewULP*4, selfTestWeighted)
	registerCheck(slotScoresF16, manyTerms, func(f scoresFunc[uint16], r *selfTestRNG, n int) []float32 {
		return selfTestScores(f, selfTestHalves, r, n)
	})
	registerCheck(slotScoresQ8, manyTerms, func(f scoresFunc[byte], r *selfTestRNG, n int) []float32 {
		return selfTestScores(f, selfTestQ8, r, n)
	})
	registerCheck(slotMixF16, fewULP*4, func(f mixFunc[uint16], r *selfTestRNG, n int) []float32 {
		return selfTestMix(f, selfTestHalves, r, n)
	})
	registerCheck(slotMixQ8, fewULP*4, func(f mixFunc[byte], r *selfTestRNG, n int) []float32 {
		return selfTestMix(f, selfTestQ8, r, n)
	})
	registerCheck(slotSoftmaxRows, manyTerms, func(f func(x []float32, rows, n int, scale float32, top, sum []float32), r *selfTestRNG, n int) []float32 {
		const rows = 3
		n = min(n, attnBlock)
		x, top, sum := r.floats(rows*attnBlock), []float32{-100, 3, 100}, make([]float32, rows)
		f(x, rows, n, 0.3, top, sum)
		return append(append(x, top...), sum...)
	})
	for t, s := range dequantSlots {
		if s != nil {
			registerDequantCheck(tensor.DType(t), s)
		}
	}
	for t, s := range fusedSlots {
		if s != nil {
			registerFusedCheck(tensor.DType(t), s)
		}
	}
	for t, s := range fewSlots {
		if s != nil {
			registerFewCheck(tensor.DType(t), s)
		}
	}
}

// registerFusedCheck compares four rows of two blocks, or of n elements.
func registerFusedCheck(t tensor.DType, s *slot[rowsFunc]) {
	registerCheck(s, manyTerms, func(f rowsFunc, r *selfTestRNG, n int) []float32 {
		if t.BlockLen() > 1 {
			n = 2 * t.BlockLen()
		}
		rowBytes := n / t.BlockLen() * t.BlockBytes()
		src := make([]byte, tileRows*rowBytes)
		for i := range src {
			src[i] = byte(r.next() >> 24)
		}
		ordinaryScales(t, src)
		out := make([]float32, tileRows)
		f(out, r.floats(n), src, rowBytes)
		return out
	})
}

// registerFewCheck covers every way to make seven tokens of four, two and one.
func registerFewCheck(t tensor.DType, s *slot[fewFunc]) {
	registerCheck(s, manyTerms, func(f fewFunc, r *selfTestRNG, n int) []float32 {
		const tokens = 7
		rowBytes := n * t.BlockBytes()
		src := make([]byte, tileRows*rowBytes)
		for i := range src {
			src[i] = byte(r.next() >> 24)
		}
		ordinaryScales(t, src)
		out := make([]float32, tokens*tileRows)
		f(out, tileRows, r.floats(tokens*n), n, src, rowBytes, tileRows)
		return out
	})
}

// withSpecials puts in values that a vector unit may treat differently.
func withSpecials(x []float32) []float32 {
	for i, v := range []float32{float32(math.NaN()), 1e-42, float32(math.Inf(1)), -100, 100, -1e-42} {
		if k := 5 + 3*i; k < len(x) {
			x[k] = v
		}
	}
	return x
}

// selfTestTile covers every number of tokens in a tile.
func selfTestTile(f func(acc []float32, accStride int, w []float32, wStride, rows int, x []float32, xStride, tokens, n int), r *selfTestRNG, n int) []float32 {
	const rows, maxTokens = 8, 6
	w, x := r.floats(rows*n), r.floats(maxTokens*n)
	var out []float32
	for tokens := 1; tokens <= maxTokens; tokens++ {
		acc := r.floats(tokens * rows)
		f(acc, rows, w, n, rows, x, n, tokens, n)
		out = append(out, acc...)
	}
	return out
}

func selfTestHalves(x []float32) []uint16 {
	h := make([]uint16, len(x))
	f32ToF16Generic(h, x)
	return h
}

// selfTestWeighted covers every number of queries in a group; n is the head size.
func selfTestWeighted(f func(acc, weight, v []float32, n, queries, dim int), r *selfTestRNG, n int) []float32 {
	const positions, maxQueries = 5, 6
	weight, v := r.floats(maxQueries*attnBlock), r.floats(positions*n)
	var out []float32
	for queries := 1; queries <= maxQueries; queries++ {
		acc := r.floats(queries * n)
		f(acc, weight, v, positions, queries, n)
		out = append(out, acc...)
	}
	return out
}

func selfTestQ8(x []float32) []byte {
	blocks := make([]byte, CacheRowBytes(len(x)))
	QuantizeQ8(blocks, x)
	return blocks
}

// selfTestDim is a head size for kernels that know no odd ones: about n.
func selfTestDim(n int) int { return (n/32 + 1) * 32 }

// selfTestScores covers every number of queries in a group.
func selfTestScores[E element](f scoresFunc[E], store func([]float32) []E, r *selfTestRNG, n int) []float32 {
	const rows, maxQueries = 8, 7
	dim := selfTestDim(n)
	k, q := store(r.floats(rows*dim)), r.floats(maxQueries*dim)
	var out []float32
	for queries := 1; queries <= maxQueries; queries++ {
		scores := make([]float32, queries*attnBlock)
		f(scores, k, rows, q, queries, dim, nil)
		out = append(out, scores...)
	}
	return out
}

// selfTestMix covers every number of queries in a group.
func selfTestMix[E element](f mixFunc[E], store func([]float32) []E, r *selfTestRNG, n int) []float32 {
	const positions, maxQueries = 5, 7
	dim := selfTestDim(n)
	weight, v := r.floats(maxQueries*attnBlock), store(r.floats(positions*dim))
	var out []float32
	for queries := 1; queries <= maxQueries; queries++ {
		acc := r.floats(queries * dim)
		f(acc, weight, v, positions, queries, dim, nil)
		out = append(out, acc...)
	}
	return out
}

// registerDequantCheck compares three blocks of random bytes (any scale may
// come up: infinite, NaN, subnormal) and three with every scale about 1.
func registerDequantCheck(t tensor.DType, s *slot[func(dst []float32, src []byte)]) {
	registerCheck(s, exact, func(f func(dst []float32, src []byte), r *selfTestRNG, n int) []float32 {
		blocks := 3
		if t.BlockLen() == 1 {
			blocks = n
		}
		src := make([]byte, blocks*t.BlockBytes())
		for i := range src {
			src[i] = byte(r.next() >> 24)
		}
		dst := make([]float32, 2*blocks*t.BlockLen())
		f(dst[:len(dst)/2], src)
		ordinaryScales(t, src)
		f(dst[len(dst)/2:], src)
		return dst
	})
}

// ordinaryScales sets the half-precision scales of each block near 1, or the
// numbers of a type without blocks between 1 and 2.
func ordinaryScales(t tensor.DType, src []byte) {
	switch t {
	case tensor.F32:
		for i := 3; i < len(src); i += 4 {
			src[i], src[i-1] = src[i]&0x80|0x3f, src[i-1]|0x80
		}
	case tensor.BF16:
		for i := 1; i < len(src); i += 2 {
			src[i], src[i-1] = src[i]&0x80|0x3f, src[i-1]|0x80
		}
	case tensor.F16:
		for i := 1; i < len(src); i += 2 {
			src[i] = src[i]&0x83 | 0x3c
		}
	}
	for i := 0; i < len(src); i += t.BlockBytes() {
		for k, off := range halfOffsets[t] {
			binary.LittleEndian.PutUint16(src[i+off:], quant.F32ToF16(1.25+float32(k)))
		}
	}
}

// halfOffsets says where the half-precision scales of a block lie, as described
// in package quant.
var halfOffsets = map[tensor.DType][]int{
	tensor.Q4_0: {0}, tensor.Q4_1: {0, 2}, tensor.Q5_0: {0}, tensor.Q5_1: {0, 2}, tensor.Q8_0: {0},
	tensor.Q2_K: {80, 82}, tensor.Q3_K: {108}, tensor.Q4_K: {0, 2}, tensor.Q5_K: {0, 2}, tensor.Q6_K: {208},
	tensor.IQ4_NL: {0}, tensor.IQ4_XS: {0},
}
