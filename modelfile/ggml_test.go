package modelfile_test

import (
	"encoding/binary"
	"math"

	"github.com/apr-engine/apr/quant"
)

// The quantisers of ggml, in the plain form of ggml-quants.c (make_qkx2_quants,
// quantize_row_q4_K_ref, make_qx_quants, quantize_row_q6_K_ref), in float32 as
// there. TestGGMLQuantisers shows that they give llama-quantize's bytes.

// roundf is ggml's nearest_int.
func roundf(x float32) int { return int(math.RoundToEven(float64(x))) }

// qkx2 is make_qkx2_quants(n, nmax, x, weights, L, the_min, Laux, rmin, rdelta, nstep, false).
func qkx2(x, weights []float32, nmax int, l []uint8, rmin, rdelta float32, nstep int) (scale, theMin float32) {
	lo, hi := x[0], x[0]
	sumW := weights[0]
	sumX := sumW * x[0]
	for i := 1; i < len(x); i++ {
		lo, hi = min(lo, x[i]), max(hi, x[i])
		sumW += weights[i]
		sumX += weights[i] * x[i]
	}
	lo = min(lo, 0)
	if hi == lo {
		clear(l)
		return 0, -lo
	}
	iscale := float32(nmax) / (hi - lo)
	scale = 1 / iscale
	var best float32
	for i := range x {
		v := min(max(roundf(iscale*(x[i]-lo)), 0), nmax)
		l[i] = uint8(v)
		d := scale*float32(l[i]) + lo - x[i]
		best += weights[i] * (d * d)
	}
	aux := make([]uint8, len(x))
	for is := 0; is <= nstep; is++ {
		iscale = (rmin + rdelta*float32(is) + float32(nmax)) / (hi - lo)
		var sumL, sumL2, sumXL float32
		for i := range x {
			v := min(max(roundf(iscale*(x[i]-lo)), 0), nmax)
			aux[i] = uint8(v)
			w := weights[i]
			sumL += w * float32(v)
			sumL2 += w * float32(v) * float32(v)
			sumXL += w * float32(v) * x[i]
		}
		d := sumW*sumL2 - sumL*sumL
		if d <= 0 {
			continue
		}
		thisScale := (sumW*sumXL - sumX*sumL) / d
		thisMin := (sumL2*sumX - sumL*sumXL) / d
		if thisMin > 0 {
			thisMin = 0
			thisScale = sumXL / sumL2
		}
		var e float32
		for i := range x {
			diff := thisScale*float32(aux[i]) + thisMin - x[i]
			e += weights[i] * (diff * diff)
		}
		if e < best {
			copy(l, aux)
			best, scale, lo = e, thisScale, thisMin
		}
	}
	return scale, -lo
}

// ggmlQ4K quantises rows of whole blocks of 256.
func ggmlQ4K(dst []byte, x []float32) {
	for ; len(x) > 0; x, dst = x[256:], dst[144:] {
		var l [256]uint8
		var scales, mins [8]float32
		var maxScale, maxMin float32
		for j := range 8 {
			g := x[32*j : 32*j+32]
			var sum float32
			for _, v := range g {
				sum += v * v
			}
			av := float32(math.Sqrt(float64(sum / 32)))
			var w [32]float32
			for i, v := range g {
				w[i] = av + float32(math.Abs(float64(v)))
			}
			scales[j], mins[j] = qkx2(g, w[:], 15, l[32*j:32*j+32], -1, 0.1, 20)
			maxScale, maxMin = max(maxScale, scales[j]), max(maxMin, mins[j])
		}
		var invScale, invMin float32
		if maxScale > 0 {
			invScale = 63 / maxScale
		}
		if maxMin > 0 {
			invMin = 63 / maxMin
		}
		var packed [12]byte
		var ls, lm [8]uint8
		for j := range 8 {
			ls[j] = uint8(min(63, roundf(invScale*scales[j])))
			lm[j] = uint8(min(63, roundf(invMin*mins[j])))
			if j < 4 {
				packed[j], packed[j+4] = ls[j], lm[j]
			} else {
				packed[j+4] = ls[j]&15 | lm[j]&15<<4
				packed[j-4] |= ls[j] >> 4 << 6
				packed[j] |= lm[j] >> 4 << 6
			}
		}
		d16, m16 := quant.F32ToF16(maxScale/63), quant.F32ToF16(maxMin/63)
		binary.LittleEndian.PutUint16(dst, d16)
		binary.LittleEndian.PutUint16(dst[2:], m16)
		copy(dst[4:16], packed[:])
		for j := range 8 {
			d := quant.F16ToF32(d16) * float32(ls[j])
			if d == 0 {
				continue
			}
			dm := quant.F16ToF32(m16) * float32(lm[j])
			for i := range 32 {
				l[32*j+i] = uint8(min(max(roundf((x[32*j+i]+dm)/d), 0), 15))
			}
		}
		for j := range 4 {
			for i := range 32 {
				dst[16+32*j+i] = l[64*j+i] | l[64*j+32+i]<<4
			}
		}
	}
}

// qx is make_qx_quants(16, 32, x, L, 1, NULL): weights x².
func qx(x []float32, nmax int, l []int8) float32 {
	var largest, amax float32
	for _, v := range x {
		if a := float32(math.Abs(float64(v))); a > amax {
			amax, largest = a, v
		}
	}
	if amax < 1e-15 {
		clear(l)
		return 0
	}
	iscale := -float32(nmax) / largest
	var sumLX, sumL2 float32
	for i, v := range x {
		q := min(max(roundf(iscale*v), -nmax), nmax-1)
		l[i] = int8(q + nmax)
		w := v * v
		sumLX += w * v * float32(q)
		sumL2 += w * float32(q) * float32(q)
	}
	scale := float32(0)
	if sumL2 != 0 {
		scale = sumLX / sumL2
	}
	best := scale * sumLX
	for is := -9; is <= 9; is++ {
		if is == 0 {
			continue
		}
		iscale = -(float32(nmax) + 0.1*float32(is)) / largest
		sumLX, sumL2 = 0, 0
		for _, v := range x {
			q := min(max(roundf(iscale*v), -nmax), nmax-1)
			w := v * v
			sumLX += w * v * float32(q)
			sumL2 += w * float32(q) * float32(q)
		}
		if sumL2 > 0 && sumLX*sumLX > best*sumL2 {
			for i, v := range x {
				l[i] = int8(nmax + min(max(roundf(iscale*v), -nmax), nmax-1))
			}
			scale = sumLX / sumL2
			best = scale * sumLX
		}
	}
	return scale
}

// ggmlQ6K quantises rows of whole blocks of 256.
func ggmlQ6K(dst []byte, x []float32) {
	for ; len(x) > 0; x, dst = x[256:], dst[210:] {
		clear(dst[:210])
		var l [256]int8
		var scales [16]float32
		var largest, amax float32
		for j := range 16 {
			scales[j] = qx(x[16*j:16*j+16], 32, l[16*j:16*j+16])
			if a := float32(math.Abs(float64(scales[j]))); a > amax {
				amax, largest = a, scales[j]
			}
		}
		if amax < 1e-15 {
			continue
		}
		iscale := -128 / largest
		d16 := quant.F32ToF16(1 / iscale)
		binary.LittleEndian.PutUint16(dst[208:], d16)
		for j := range 16 {
			s := int8(min(127, roundf(iscale*scales[j])))
			dst[192+j] = byte(s)
			d := quant.F16ToF32(d16) * float32(s)
			if d == 0 {
				continue
			}
			for i := range 16 {
				l[16*j+i] = int8(min(max(roundf(x[16*j+i]/d), -32), 31) + 32)
			}
		}
		for h := range 2 {
			for i := range 32 {
				u := [4]byte{}
				for k := range u {
					u[k] = byte(l[128*h+32*k+i])
				}
				dst[64*h+i] = u[0]&15 | u[2]&15<<4
				dst[64*h+32+i] = u[1]&15 | u[3]&15<<4
				dst[128+32*h+i] = u[0]>>4 | u[1]>>4<<2 | u[2]>>4<<4 | u[3]>>4<<6
			}
		}
	}
}
