package kernel

import (
	"math"

	"github.com/apr-engine/apr/tensor"
)

// Products of sums. With weights w and activations x,
//
//	w0·x0 + w1·x1 = (w0 + x1)·(w1 + x0) − w0·w1 − x0·x1
//
// so one multiplication does for two (S. Winograd, 1968): what weights make with each
// other is the same for all tokens, what activations make with each other for all rows.
// A processor that adds vectors beside multiplying them gains from it, though it has two
// additions for each multiplication. Integers lose nothing: the sums of an activation
// and a weight have to fit 16 bits, but all products may overflow 32, since what is left
// in the end fits and everything is right modulo 2^32. So the numbers are, to the last
// bit, those of the other products.

// crossPerToken is how many numbers I16.Cross has for each chunk of a token. They are
// what activations make with each other, less than nothing: −(x[0]·x[2] + x[1]·x[3] +
// x[4]·x[6] + …) modulo 2^32, as pairs of columns are what kernels take; for each 16
// columns of the chunk, for each 32, and so on up to all 256, and one is not used. Those
// for n parts of a chunk begin at n × tokens, (tokens, n), so that kernels find together
// what they need.
const crossPerToken = 32

// crossAt is where Cross has what token has for n parts of chunk c.
func (a *I16) crossAt(c, token, n int) int {
	return c*crossPerToken*a.Tokens + n*(a.Tokens+token)
}

// crossWeight is up to which weight products of sums are worth rounding activations to
// fewer steps: 1024 of them cost a 32nd. Q6_K and IQ4_XS would cost an eighth, and
// gain less, because their sums are flushed after each 16 columns.
const crossWeight = 1024

// I16Largest is how large activations are made by I16.For: as large as fits all kernels, or
// what makes products of sums with weights of these types possible where they are worth it.
func I16Largest(types ...tensor.DType) int {
	largest := i16Max
	for _, t := range types {
		if f := i16Formats[t]; f != nil && f.largest <= crossWeight {
			largest = min(largest, math.MaxInt16-f.largest)
		}
	}
	return largest
}

func (a *I16) largest() int {
	if a.limit == 0 {
		return i16Max
	}
	return a.limit
}

// top is largest for those that divide by it.
func (a *I16) top() float32 { return float32(a.largest()) }

// fillCrossGeneric makes a token's Cross from its Q.
func fillCrossGeneric(a *I16, token int) {
	if len(a.Cross) == 0 {
		return
	}
	for c := range a.Chunks() {
		q := (*[i16Chunk]int16)(a.Q[(c*a.Tokens+token)*i16Chunk:])
		cross := a.Cross[a.crossAt(c, token, 16):][:16]
		clear(cross)
		for i := 0; i < i16Chunk; i += 4 {
			cross[i/16] -= int32(q[i])*int32(q[i+2]) + int32(q[i+1])*int32(q[i+3])
		}
		for n := 8; n > 0; n /= 2 {
			half := a.Cross[a.crossAt(c, token, n):][:n]
			for i := range half {
				half[i] = cross[2*i] + cross[2*i+1]
			}
			cross = half
		}
	}
}

// fillCrossGeneric makes cross from w for sums of flush columns.
func (p *i16Panel) fillCrossGeneric(flush int) {
	p.cross, p.crossed = [16][i16PanelRows]int32{}, true
	for k := 0; k < p.cols/2; k += 2 {
		for r := range i16PanelRows {
			a, b := p.w[k][r], p.w[k+1][r]
			p.cross[2*k/flush][r] -= int32(a[0])*int32(b[0]) + int32(a[1])*int32(b[1])
		}
	}
}
