package synth

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"

	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// rng is SplitMix64 (Steele, Lea, Flood 2014): fast, and any seed is good, so
// that every row can have its own.
type rng uint64

func (r *rng) next() uint64 {
	*r += 0x9e3779b97f4a7c15
	x := uint64(*r)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// between returns a number from lo to hi, both included. The bias of the
// remainder does not matter for ranges of a few dozen.
func (r *rng) between(lo, hi int) int { return lo + int(r.next()>>33)%(hi-lo+1) }

// normal returns a value of the standard normal distribution, at a resolution
// of 4096 quantiles (no value beyond 3.7).
func (r *rng) normal() float32 { return quantiles[r.next()>>52] }

// quantiles holds the normal distribution's quantiles at the middles of 4096 equal steps.
var quantiles = func() (q [4096]float32) {
	for i := range q {
		q[i] = float32(quantile((float64(i) + 0.5) / float64(len(q))))
	}
	return q
}()

// quantile is the inverse of the standard normal distribution function.
func quantile(p float64) float64 { return math.Sqrt2 * math.Erfinv(2*p-1) }

// levels turns a random byte into a quant so that quants are bell-shaped, as
// those of trained weights are.
type levels struct {
	of   [256]uint8
	mean float64 // of the quants
	std  float64 // of the quants about zero
}

// newLevels spreads the quants lo..hi so that the extreme quantiles of a byte
// reach half from the middle; zero is the quant that stands for 0.
func newLevels(lo, hi int, zero, half float64) *levels {
	l := &levels{mean: zero}
	reach := quantile(255.5 / 256)
	var sum float64
	for i := range l.of {
		q := math.RoundToEven(zero + quantile((float64(i)+0.5)/256)/reach*half)
		q = min(max(q, float64(lo)), float64(hi))
		l.of[i] = uint8(int(q)) // two's complement for Q8_0
		sum += (q - zero) * (q - zero)
	}
	l.std = math.Sqrt(sum / 256)
	return l
}

// fill sets dst, a multiple of 8 long, to random quants.
func (l *levels) fill(dst []uint8, r *rng) {
	for len(dst) >= 8 {
		x := r.next()
		dst[0], dst[1] = l.of[uint8(x)], l.of[uint8(x>>8)]
		dst[2], dst[3] = l.of[uint8(x>>16)], l.of[uint8(x>>24)]
		dst[4], dst[5] = l.of[uint8(x>>32)], l.of[uint8(x>>40)]
		dst[6], dst[7] = l.of[uint8(x>>48)], l.of[uint8(x>>56)]
		dst = dst[8:]
	}
}

// filler writes random rows of one type whose dequantised values have mean
// about 0 and the given standard deviation. It may be used from several
// goroutines, each with its own rng.
type filler struct {
	dtype tensor.DType
	sigma float64
	lv    *levels
	f16   []uint16 // quantiles × sigma, for F16
	block func(f *filler, dst []byte, r *rng)
}

// blockTypes says how a block of each type is made: its quants and the function
// that packs them. Layouts are those of ggml-common.h.
var blockTypes = map[tensor.DType]struct {
	lv    *levels
	block func(f *filler, dst []byte, r *rng)
}{
	tensor.F32:  {nil, (*filler).blockF32},
	tensor.F16:  {nil, (*filler).blockF16},
	tensor.BF16: {nil, (*filler).blockBF16},
	tensor.Q4_1: {newLevels(0, 15, 7.5, 7.5), (*filler).blockQ41},
	tensor.Q4_0: {newLevels(0, 15, 8, 8), (*filler).blockQ40},
	tensor.Q5_0: {newLevels(0, 31, 16, 16), (*filler).blockQ50},
	tensor.Q5_1: {newLevels(0, 31, 15.5, 15.5), (*filler).blockQ51},
	tensor.Q8_0: {newLevels(-127, 127, 0, 127), (*filler).blockQ80},
	tensor.Q4_K: {newLevels(0, 15, 7.5, 7.5), (*filler).blockQ4K},
	tensor.Q5_K: {newLevels(0, 31, 15.5, 15.5), (*filler).blockQ5K},
	tensor.Q6_K: {newLevels(0, 63, 32, 32), (*filler).blockQ6K},
}

func newFiller(t tensor.DType, sigma float64) (*filler, error) {
	b, ok := blockTypes[t]
	if !ok {
		return nil, fmt.Errorf("no random blocks for type %s", t)
	}
	f := &filler{dtype: t, sigma: sigma, lv: b.lv, block: b.block}
	if t == tensor.F16 {
		for _, q := range quantiles {
			f.f16 = append(f.f16, quant.F32ToF16(q*float32(sigma)))
		}
	}
	return f, nil
}

// row fills a row, a whole number of blocks, with the random numbers of seed.
func (f *filler) row(dst []byte, seed uint64) {
	r := rng(seed)
	for n := f.dtype.BlockBytes(); len(dst) > 0; dst = dst[n:] {
		f.block(f, dst[:n:n], &r)
	}
}

// put16 stores x in half precision.
func put16(dst []byte, x float64) { binary.LittleEndian.PutUint16(dst, quant.F32ToF16(float32(x))) }

// scale returns the block scale for quants of standard deviation std, varied by
// up to 10 % so that neighbouring blocks differ.
func (f *filler) scale(std float64, r *rng) float64 {
	return f.sigma / std * (1 + float64(r.between(-100, 100))/1000)
}

func (f *filler) blockF32(dst []byte, r *rng) {
	binary.LittleEndian.PutUint32(dst, math.Float32bits(r.normal()*float32(f.sigma)))
}

func (f *filler) blockF16(dst []byte, r *rng) {
	binary.LittleEndian.PutUint16(dst, f.f16[r.next()>>52])
}

func (f *filler) blockBF16(dst []byte, r *rng) {
	binary.LittleEndian.PutUint16(dst, quant.F32ToBF16(r.normal()*float32(f.sigma)))
}

// sign is +1 or -1: the symmetric types store either.
func (r *rng) sign() float64 { return float64(1 - 2*int(r.next()>>63)) }

// blockQ40: scale, then 16 bytes of two quants less 8.
func (f *filler) blockQ40(dst []byte, r *rng) {
	put16(dst, f.scale(f.lv.std, r)*r.sign())
	f.nibbles(dst[2:], r)
}

// blockQ41: scale, minimum, nibbles.
func (f *filler) blockQ41(dst []byte, r *rng) {
	d := f.scale(f.lv.std, r)
	put16(dst, d)
	put16(dst[2:], -d*f.lv.mean)
	f.nibbles(dst[4:], r)
}

// nibbles fills dst with two random quants of 4 bits a byte.
func (f *filler) nibbles(dst []byte, r *rng) {
	var q [256]uint8
	f.lv.fill(q[:2*len(dst)], r)
	for i := range dst {
		dst[i] = q[2*i] | q[2*i+1]<<4
	}
}

// fives fills the low nibbles and the fifth bits of 32 quants.
func (f *filler) fives(high, low []byte, r *rng) {
	var q [32]uint8
	f.lv.fill(q[:], r)
	var h uint32
	for i := range 16 {
		low[i] = q[i]&15 | q[i+16]<<4
		h |= uint32(q[i]>>4)<<i | uint32(q[i+16]>>4)<<(i+16)
	}
	binary.LittleEndian.PutUint32(high, h)
}

// blockQ50: scale, fifth bits, nibbles; quants less 16.
func (f *filler) blockQ50(dst []byte, r *rng) {
	put16(dst, f.scale(f.lv.std, r)*r.sign())
	f.fives(dst[2:6], dst[6:], r)
}

// blockQ51: scale, minimum, fifth bits, nibbles.
func (f *filler) blockQ51(dst []byte, r *rng) {
	d := f.scale(f.lv.std, r)
	put16(dst, d)
	put16(dst[2:], -d*f.lv.mean)
	f.fives(dst[4:8], dst[8:], r)
}

// blockQ80: scale, 32 signed bytes.
func (f *filler) blockQ80(dst []byte, r *rng) {
	put16(dst, f.scale(f.lv.std, r))
	f.lv.fill(dst[2:], r)
}

// Scales and minima of Q4_K and Q5_K: 6 bits each. A minimum differs from its
// scale by up to spread, so that code that confuses the two is found out.
const (
	loScale, hiScale = 32, 63
	spread           = 3
)

// header45 writes what Q4_K and Q5_K begin with: scale, scale of minima, and
// eight pairs of a scale and a minimum in 12 bytes.
func (f *filler) header45(dst []byte, r *rng) {
	// Mean squares of the uniform sub-scales and of the minima's deviation.
	const n = hiScale - loScale + 1
	const mid = (hiScale + loScale) / 2.0
	const scaleSq = mid*mid + (n*n-1)/12.0
	const offSq = spread * (spread + 1) / 3.0
	std := math.Sqrt(scaleSq*f.lv.std*f.lv.std + offSq*f.lv.mean*f.lv.mean)
	d := f.scale(std, r)
	put16(dst, d)
	put16(dst[2:], d*f.lv.mean)
	var sc, m [8]uint8
	for i := range sc {
		s := r.between(loScale, hiScale)
		sc[i] = uint8(s)
		m[i] = uint8(min(s+r.between(-spread, spread), 63))
	}
	packed := dst[4:16]
	for i := range 4 {
		packed[i] = sc[i] | sc[i+4]>>4<<6
		packed[i+4] = m[i] | m[i+4]>>4<<6
		packed[i+8] = sc[i+4]&15 | m[i+4]<<4
	}
}

func (f *filler) blockQ4K(dst []byte, r *rng) {
	f.header45(dst, r)
	f.nibbles(dst[16:], r)
}

// blockQ5K: the header, 32 bytes of fifth bits (bit j of byte l belongs to quant
// 32j+l), then the nibbles in 4 groups of 64.
func (f *filler) blockQ5K(dst []byte, r *rng) {
	f.header45(dst, r)
	var q [256]uint8
	f.lv.fill(q[:], r)
	high, low := dst[16:48], dst[48:]
	clear(high)
	for j := range 4 {
		for l := range 32 {
			a, b := q[64*j+l], q[64*j+32+l]
			low[32*j+l] = a&15 | b<<4
			high[l] |= a>>4<<(2*j) | b>>4<<(2*j+1)
		}
	}
}

// blockQ6K: nibbles, upper bit pairs, 16 signed scales, scale; in two halves of 128.
func (f *filler) blockQ6K(dst []byte, r *rng) {
	var q [256]uint8
	f.lv.fill(q[:], r)
	for h := range 2 {
		v, low, high := q[128*h:], dst[64*h:], dst[128+32*h:]
		for l := range 32 {
			a, b, c, d := v[l], v[l+32], v[l+64], v[l+96]
			low[l] = a&15 | c<<4
			low[l+32] = b&15 | d<<4
			high[l] = a>>4 | b>>4<<2 | c>>4<<4 | d>>4<<6
		}
	}
	const lo, hi = 64, 127
	const n = hi - lo + 1
	const mid = (hi + lo) / 2.0
	scaleStd := math.Sqrt(mid*mid + (n*n-1)/12.0)
	for i := range 16 {
		dst[192+i] = uint8(int8(r.between(lo, hi) * int(r.sign())))
	}
	put16(dst[208:], f.scale(f.lv.std*scaleStd, r))
}

// outliers picks n different channels of a width, the same for a seed.
func outliers(seed uint64, width, n int) []int {
	r := rng(seed)
	var picked []int
	for len(picked) < n {
		if c := r.between(0, width-1); !slices.Contains(picked, c) {
			picked = append(picked, c)
		}
	}
	return picked
}
