package kernel

import (
	"math"
	"sync"
)

// The plain Go definitions of the int16 path.

func quantizeI16Generic(dst *I16, token int, x []float32) {
	quantizeChunksI16(dst, token, 0, x)
	fillPlanesGeneric(dst, token)
	fillCrossGeneric(dst, token)
}

// fillPlanesGeneric makes a token's planes from its Q.
func fillPlanesGeneric(a *I16, token int) {
	for c := range a.Chunks() {
		at := c*a.Tokens + token
		if len(a.BlockPlanes) > 0 {
			a.BlockPlanes[at].fill((*[i16Chunk]int16)(a.Q[at*i16Chunk:]))
		}
		if len(a.Halves) > 0 {
			a.Halves[at].fill((*[i16Chunk]int16)(a.Q[at*i16Chunk:]), (*[8]float32)(a.Sum32[at*8:]))
		}
		if len(a.Planes) == 0 {
			continue
		}
		p := &a.Planes[at]
		p.Sum = [16]int32{}
		for i, q := range a.Q[at*i16Chunk : (at+1)*i16Chunk] {
			g, v, byte := i/16, i%16/4, i%4
			upper := (int32(q) + 128) >> 8
			p.Upper[v][4*g+byte], p.Lower[v][4*g+byte] = int8(upper), int8(int32(q)-upper<<8)
			p.Sum[g] -= 32 * int32(q)
		}
		for i := range 16 {
			a.Pairs[16*at+i] = a.Sum32[8*at+i/4*2+i%2]
		}
	}
}

func (p *i16BlockPlanes) fill(chunk *[i16Chunk]int16) {
	p.Sum = [16]int32{}
	for i, q := range chunk {
		block, v, byte := i/32, i%32/8, i%8
		upper := (int32(q) + 128) >> 8
		p.Upper[v][8*block+byte], p.Lower[v][8*block+byte] = int8(upper), int8(int32(q)-upper<<8)
		p.Sum[2*block+byte/4] -= 16 * int32(q)
	}
}

// halfGroups are the groups of 32 columns in the order in which kernels for I16.Halves sum them.
var halfGroups = [8]int{0, 4, 1, 5, 2, 6, 3, 7}

func (p *i16Halves) fill(chunk *[i16Chunk]int16, sum32 *[8]float32) {
	for i, q := range chunk {
		group, eight := i/32, i%32/8
		pair := group / 2                      // of groups in the same bytes
		qword := pair%2*4 + eight/2*2 + pair/2 // in its vector
		v := eight%2*2 + group%2
		upper := (int32(q) + 128) >> 8
		p.Upper[v][8*qword+i%8], p.Lower[v][8*qword+i%8] = int8(upper), int8(int32(q)-upper<<8)
	}
	for i := range p.Sum {
		p.Sum[i] = sum32[halfGroups[i%8]]
	}
}

// quantizeChunksI16 quantises x as the chunks of a token from chunk c on.
func quantizeChunksI16(dst *I16, token, c int, x []float32) {
	for ; len(x) > 0; c++ {
		n := min(i16Chunk, len(x))
		at := c*dst.Tokens + token
		q := (*[i16Chunk]int16)(dst.Q[at*i16Chunk:])
		clear(q[n:])
		scale := quantizeChunk(q[:n], x[:n], dst.top())
		dst.Scale[at] = scale
		sum, sum32 := (*[16]float32)(dst.Sum[at*16:]), (*[8]float32)(dst.Sum32[at*8:])
		for g := range sum32 {
			low, high := sumI16(q[32*g:32*g+16]), sumI16(q[32*g+16:32*g+32])
			sum[2*g], sum[2*g+1] = scale*float32(low), scale*float32(high)
			sum32[g] = scale * float32(low+high)
		}
		x = x[n:]
	}
}

// quantizeChunk rounds at most 256 numbers, the largest to top, and returns their scale.
func quantizeChunk(q []int16, x []float32, top float32) (scale float32) {
	var largest uint32 // of the bits without sign: NaN and Inf compare highest
	for _, v := range x {
		largest = max(largest, math.Float32bits(v)&0x7fffffff)
	}
	m := math.Float32frombits(largest)
	switch {
	case largest >= 0x7f800000:
		clear(q)
		return float32(math.NaN())
	case m < i16Tiny:
		clear(q)
		return 0
	}
	inverse := top / m
	for i, v := range x {
		q[i] = int16(math.RoundToEven(float64(float32(v * inverse))))
	}
	return m / top
}

func sumI16(q []int16) (s int32) {
	for _, v := range q {
		s += int32(v)
	}
	return s
}

// i16WeightsPool saves the plain Go versions an allocation per call.
var i16WeightsPool = sync.Pool{New: func() any { return new(i16Weights) }}

func matVecI16Generic(f *i16Format) matVecI16Func {
	return func(out []float32, stride int, w []byte, rowBytes, rows int, x *I16, t0, t1 int) {
		c := i16WeightsPool.Get().(*i16Weights)
		defer i16WeightsPool.Put(c)
		chunkBytes := f.chunkBytes
		for i := range rows {
			row := w[i*rowBytes : (i+1)*rowBytes]
			for t := t0; t < t1; t++ {
				out[(t-t0)*stride+i] = 0
			}
			for k := 0; len(row) > 0; k++ {
				n := min(chunkBytes, len(row))
				f.decode(c, row[:n])
				row = row[n:]
				for t := t0; t < t1; t++ {
					out[(t-t0)*stride+i] += f.dotChunk(c, x, k*x.Tokens+t)
				}
			}
		}
	}
}

// dotChunk is the product of one decoded chunk with chunk-token at of x.
func (f *i16Format) dotChunk(c *i16Weights, x *I16, at int) float32 {
	q, scale := (*[i16Chunk]int16)(x.Q[at*i16Chunk:]), x.Scale[at]
	var acc float32
	if f.folded {
		// Exact in 64 bits; the variants keep partial sums within 32.
		var isum int64
		for i, v := range q {
			isum += int64(v) * int64(c.w[i])
		}
		acc = float32(isum) * (c.d[0] * scale)
	} else {
		for g, d := range c.d {
			var isum int32
			for i, v := range q[32*g : 32*g+32] {
				isum += int32(v) * int32(c.w[32*g+i])
			}
			acc += float32(isum) * (d * scale)
		}
	}
	if f.minEvery > 0 {
		for g, s := range x.Sum[at*16 : at*16+16] {
			acc -= c.min[g] * s
		}
	}
	return acc
}
