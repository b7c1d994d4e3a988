package kernel

import (
	"math"

	"github.com/apr-engine/apr/quant"
)

// q8Ratio says how numbers whose largest magnitude has the given bits are rounded to
// integers of at most limit. Steps are 0 where all count as zeros, NaN where not all of
// them are finite.
func q8Ratio(largest uint32, limit float32) (inverse, step float32) {
	const tiny, inf = 0x0d800000, 0x7f800000 // 2^-100
	switch m := math.Float32frombits(largest); {
	case largest >= inf:
		return 0, float32(math.NaN())
	case largest < tiny:
		return 0, 0
	default:
		return limit / m, m / limit
	}
}

// roundProduct is x·y rounded once, ties to even; 0 if it is no number.
func roundProduct(x, y float32) int32 {
	if y == 0 {
		return 0
	}
	return int32(math.RoundToEven(float64(x) * float64(y)))
}

func q8RoundQueriesGeneric(dst []int32, q []float32, queries, blocks int) {
	for b := range blocks {
		for t := range queries {
			x, largest := q[(t*blocks+b)*q8Len:][:q8Len], uint32(0)
			for _, v := range x {
				largest = max(largest, math.Float32bits(v)&math.MaxInt32)
			}
			inverse, scale := q8Ratio(largest, q8MostQuery)
			sum, planes := int32(0), dst[2*q8PlaneWords*t:][:2*q8PlaneWords]
			clear(planes)
			for i, v := range x {
				n := roundProduct(v, inverse)
				upper := (n + 128) >> 8
				planes[i/4] |= upper & 255 << (8 * (i % 4))
				planes[q8PlaneWords+i/4] |= n & 255 << (8 * (i % 4))
				sum += n
			}
			dst[2*q8PlaneWords*queries+t] = -128 * sum
			dst[(2*q8PlaneWords+1)*queries+t] = int32(math.Float32bits(scale))
		}
		dst = dst[q8QueryWords*queries:]
	}
}

func q8ScoresGeneric(scores []float32, k []byte, rows int, q []int32, queries, blocks int, _ []byte) {
	for t := range queries {
		clear(scores[t*attnBlock:][:rows])
	}
	for b := range blocks {
		words := q[q8QueryWords*queries*b:]
		for t := range queries {
			planes := words[2*q8PlaneWords*t:]
			scale := math.Float32frombits(uint32(words[(2*q8PlaneWords+1)*queries+t]))
			for p := range rows {
				block := k[(p*blocks+b)*q8Bytes:][:q8Bytes]
				sum := int32(0)
				for i, v := range block[2:] {
					shift := 24 - 8*(i%4)
					upper, lower := planes[i/4]<<shift>>24, planes[q8PlaneWords+i/4]<<shift>>24
					sum += (upper<<8 + lower) * int32(int8(v))
				}
				s := &scores[t*attnBlock+p]
				*s = float32(float64(float32(sum)*scale)*float64(q8Scale(block)) + float64(*s))
			}
		}
	}
}

func q8Scale(block []byte) float32 { return quant.F16ToF32(uint16(block[0]) | uint16(block[1])<<8) }

func q8TopsGeneric(top, scores []float32, blocks, queries int, scale float32) {
	for i, x := range scores[:blocks*queries*attnBlock] {
		if q, x := i/attnBlock%queries, scale*x; x > top[q] {
			top[q] = x
		}
	}
}

func q8ExpsGeneric(x, sum, base []float32, factor float32, queries int) {
	for q := range queries {
		total := 0.0
		for p, v := range x[q*attnBlock:][:attnBlock] {
			w := math.Exp2(float64(v)*float64(factor) - float64(base[q]))
			x[q*attnBlock+p] = float32(w)
			total += w
		}
		sum[q] += float32(total)
	}
}

func q8RoundWeightsGeneric(dst []int16, step, weight []float32, v []byte, _ *q8Room, queries, blocks int) {
	var x [attnBlock]float32
	for b := range blocks {
		for q := range queries {
			at, largest := b*queries+q, uint32(0)
			for p := range x {
				x[p] = weight[q*attnBlock+p] * q8Scale(v[(p*blocks+b)*q8Bytes:])
				largest = max(largest, math.Float32bits(x[p]))
			}
			inverse, s := q8Ratio(largest, q8MostWeight)
			for p := range x {
				dst[at*attnBlock+p] = int16(roundProduct(x[p], inverse))
			}
			step[at] = s
		}
	}
}

func q8MixGeneric(acc []float32, w []int16, step []float32, v []byte, n, queries, blocks int, _ []byte) {
	for b := range blocks {
		for q := range queries {
			at := b*queries + q
			for i := range q8Len {
				sum := int32(0)
				for p := range n {
					sum += int32(w[at*attnBlock+p]) * int32(int8(v[(p*blocks+b)*q8Bytes+2+i]))
				}
				a := &acc[(q*blocks+b)*q8Len+i]
				*a = float32(float64(float32(sum))*float64(step[at]) + float64(*a))
			}
		}
	}
}
