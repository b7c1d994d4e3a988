// Package packed lays out the rows of quantised matrices for GPUs. Package quant
// defines the numbers; kernels of backend/cuda and shaders of backend/wgpu read what
// is written here. The bits are those of the file: nothing is requantised.
//
// Why not the file's own blocks: neighbouring threads should each read 16 bytes of
// one plane, side by side and aligned, and a thread's 16 bytes should belong to one
// group of 32 weights with one scale. Blocks of 210 or 34 bytes allow neither.
//
// A packed row of k weights, k/32 groups, consists of sections one after the other,
// each rounded up to 16 bytes, the row to 32. Group b's part of a section is at b
// times the bytes given:
//
//	F32 F16 BF16  numbers as in the file, 128 or 64 bytes a group
//	Q4_0          nib 16 | d 2             q−8 in two's complement (4 bits)
//	Q4_1          nib 16 | d,m 4           q
//	Q5_0          nib 16 | top 4 | d 2     q−16 in two's complement (5 bits)
//	Q5_1          nib 16 | top 4 | d,m 4   q
//	Q8_0          q[0..15] 16 | q[16..31] 16 | d 2
//	IQ4_NL        seq 16 | d 2             index into the table
//	Q2_K          two 8 | s,m of halves 2 | d,dmin 4 per 256     q
//	Q3_K          two 8 | top 4 | head 16 per 256                q−4 in two's complement (3 bits)
//	Q4_K          nib 16 | head 16 per 256                       q
//	Q5_K          nib 16 | top 4 | head 16 per 256               q
//	Q6_K          nib 16 | two 8 | s of halves 2 | d 2 per 256   q−32 in two's complement (6 bits)
//	IQ4_XS        seq 16 | head 8 per 256                        index into the table
//
// A quartet is four consecutive weights: quartet w holds elements 4w … 4w+3, one in
// each byte of a word, so that a word pairs with four activations in one product of
// four bytes.
//
//	nib   word w (0 … 3): quartet w in the lower halves of the bytes, w+4 in the upper
//	seq   nibble e of the 128 bits: element e
//	two   word h (0, 1): the two bits of quartet 4h+f at bits 2f of each byte
//	top   one word: bit w of byte c is element 4w+c
//	d     F16; d,m and d,dmin two F16
//	head  of Q3_K, Q4_K, Q5_K: word 0 d, dmin (0 in Q3_K); words 1, 2: byte g, and
//	      word 3: nibble g hold two 6-bit numbers of group g: the first in bits 0 … 5
//	      of the byte, the second's lower two bits in bits 6, 7, its upper four in the
//	      nibble. They are s, m of Q4_K and Q5_K, and s of the halves of Q3_K.
//	      of IQ4_XS: d, scales_h, scales_l as in the file
//	s of halves: Q6_K two signed bytes; s,m of halves of Q2_K: two bytes, s | m<<4
package packed

import (
	"encoding/binary"
	"fmt"

	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// groupLen is how many weights share a place in every section of a packed row.
const groupLen = 32

// packing is how rows of one type are laid out and filled.
type packing struct {
	// sections are the bytes of each section for k weights, before rounding up.
	sections []func(k int) int
	// block writes the weights of file block i into the sections of a row.
	block func(s [][]byte, i int, b []byte)
}

// per makes a section of so many bytes for so many weights.
func per(bytes, weights int) func(k int) int {
	return func(k int) int { return k * bytes / weights }
}

// packings has every type that the kernels read.
var packings = map[tensor.DType]packing{
	tensor.F32:    {[]func(int) int{per(4, 1)}, nil},
	tensor.F16:    {[]func(int) int{per(2, 1)}, nil},
	tensor.BF16:   {[]func(int) int{per(2, 1)}, nil},
	tensor.Q4_0:   {[]func(int) int{per(16, 32), per(2, 32)}, packQ4_0},
	tensor.Q4_1:   {[]func(int) int{per(16, 32), per(4, 32)}, packQ4_1},
	tensor.Q5_0:   {[]func(int) int{per(16, 32), per(4, 32), per(2, 32)}, packQ5_0},
	tensor.Q5_1:   {[]func(int) int{per(16, 32), per(4, 32), per(4, 32)}, packQ5_1},
	tensor.Q8_0:   {[]func(int) int{per(16, 32), per(16, 32), per(2, 32)}, packQ8_0},
	tensor.IQ4_NL: {[]func(int) int{per(16, 32), per(2, 32)}, packIQ4NL},
	tensor.Q2_K:   {[]func(int) int{per(8, 32), per(2, 32), per(4, 256)}, packQ2K},
	tensor.Q3_K:   {[]func(int) int{per(8, 32), per(4, 32), per(16, 256)}, packQ3K},
	tensor.Q4_K:   {[]func(int) int{per(16, 32), per(16, 256)}, packQ4K},
	tensor.Q5_K:   {[]func(int) int{per(16, 32), per(4, 32), per(16, 256)}, packQ5K},
	tensor.Q6_K:   {[]func(int) int{per(16, 32), per(8, 32), per(2, 32), per(2, 256)}, packQ6K},
	tensor.IQ4_XS: {[]func(int) int{per(16, 32), per(8, 256)}, packIQ4XS},
}

func roundUp(n, to int) int { return (n + to - 1) / to * to }

// Layout is where the parts of a packed row are.
type Layout struct {
	RowBytes int   // a multiple of 32
	Sections []int // the first byte of each section in a row, multiples of 16
}

// Of returns the layout of rows of k weights of a type. It fails for types that are
// no weights and for rows that are not whole groups of 32 weights (and whole blocks).
func Of(t tensor.DType, k int) (Layout, error) {
	var l Layout
	p, ok := packings[t]
	if !ok {
		return l, fmt.Errorf("%w: %s is not packed for GPUs", quant.ErrType, t)
	}
	if _, err := t.RowBytes(k); err != nil {
		return l, err
	}
	if k%groupLen != 0 {
		return l, fmt.Errorf("%w: a row of %d weights is not a multiple of %d", quant.ErrLength, k, groupLen)
	}
	n := 0
	for _, bytes := range p.sections {
		l.Sections = append(l.Sections, n)
		n += roundUp(bytes(k), 16)
	}
	l.RowBytes = roundUp(n, 32)
	return l, nil
}

// RowBytes is the size of a packed row of k weights of a type; see Of.
func RowBytes(t tensor.DType, k int) (int, error) {
	l, err := Of(t, k)
	return l.RowBytes, err
}

// Rows lays out rows of k weights of a type: src holds them as in the file, dst takes
// rows·RowBytes bytes, padding included.
func Rows(dst, src []byte, t tensor.DType, k, rows int) error {
	size, err := RowBytes(t, k)
	if err != nil {
		return err
	}
	from, err := t.RowBytes(k)
	if err != nil {
		return err
	}
	if len(src) != rows*from || len(dst) != rows*size {
		return fmt.Errorf("%w: %d rows of %d %s weights are %d bytes, packed %d; got %d and %d",
			quant.ErrLength, rows, k, t, rows*from, rows*size, len(src), len(dst))
	}
	p := packings[t]
	sections := make([][]byte, len(p.sections))
	for r := range rows {
		row, raw := dst[r*size:(r+1)*size], src[r*from:(r+1)*from]
		if p.block == nil {
			clear(row[copy(row, raw):])
			continue
		}
		clear(row[size-min(size, 64):]) // the padding at the end; that between sections below
		at := 0
		for i, bytes := range p.sections {
			n := bytes(k)
			sections[i] = row[at : at+n]
			clear(row[at+n : at+roundUp(n, 16)])
			at += roundUp(n, 16)
		}
		for i, n := 0, t.BlockBytes(); i*n < from; i++ {
			p.block(sections, i, raw[i*n:(i+1)*n])
		}
	}
	return nil
}

var le = binary.LittleEndian

// at returns part i, of n bytes, of a section.
func at(section []byte, i, n int) []byte { return section[i*n : (i+1)*n] }

const (
	lowHalves  = 0x0f0f0f0f_0f0f0f0f
	highHalves = 0xf0f0f0f0_f0f0f0f0
	signBits4  = 0x88888888_88888888 // toggled: unsigned minus 8 in two's complement
)

func packQ4_0(s [][]byte, i int, b []byte) {
	q := at(s[0], i, 16)
	le.PutUint64(q, le.Uint64(b[2:])^signBits4)
	le.PutUint64(q[8:], le.Uint64(b[10:])^signBits4)
	copy(at(s[1], i, 2), b)
}

func packQ4_1(s [][]byte, i int, b []byte) {
	copy(at(s[0], i, 16), b[4:])
	copy(at(s[1], i, 4), b)
}

// spreadBits moves bit 4v+c of a byte to bit 8c+v.
var spreadBits = func() (table [256]uint32) {
	for b := range table {
		for bit := range 8 {
			table[b] |= uint32(b>>bit) & 1 << (bit%4*8 + bit/4)
		}
	}
	return table
}()

// topOf rearranges the fifth bits of 32 weights, element e in bit e.
func topOf(qh []byte) (top uint32) {
	for j, b := range qh[:4] {
		top |= spreadBits[b] << (2 * j)
	}
	return top
}

func packQ5_0(s [][]byte, i int, b []byte) {
	copy(at(s[0], i, 16), b[6:])
	le.PutUint32(at(s[1], i, 4), ^topOf(b[2:])) // minus 16
	copy(at(s[2], i, 2), b)
}

func packQ5_1(s [][]byte, i int, b []byte) {
	copy(at(s[0], i, 16), b[8:])
	le.PutUint32(at(s[1], i, 4), topOf(b[4:]))
	copy(at(s[2], i, 4), b)
}

func packQ8_0(s [][]byte, i int, b []byte) {
	copy(at(s[0], i, 16), b[2:])
	copy(at(s[1], i, 16), b[18:])
	copy(at(s[2], i, 2), b)
}

// joinNibbles packs the lower halves of 8 bytes.
func joinNibbles(v uint64) uint32 {
	v &= lowHalves
	v = (v | v>>4) & 0x00ff00ff_00ff00ff
	v = (v | v>>8) & 0x0000ffff_0000ffff
	return uint32(v | v>>16)
}

// sequence writes 32 indices, in bytes i and i+16's halves, one after the other.
func sequence(dst, qs []byte) {
	a, b := le.Uint64(qs), le.Uint64(qs[8:])
	le.PutUint32(dst, joinNibbles(a))
	le.PutUint32(dst[4:], joinNibbles(b))
	le.PutUint32(dst[8:], joinNibbles(a>>4))
	le.PutUint32(dst[12:], joinNibbles(b>>4))
}

func packIQ4NL(s [][]byte, i int, b []byte) {
	sequence(at(s[0], i, 16), b[2:])
	copy(at(s[1], i, 2), b)
}

func packIQ4XS(s [][]byte, i int, b []byte) {
	for g := range 8 {
		sequence(at(s[0], 8*i+g, 16), b[8+16*g:])
	}
	copy(at(s[1], i, 8), b)
}

// pairOfGroups writes the two groups of 32 whose four bits are the halves of 32
// bytes: group g of the section the lower halves, group h the upper.
func pairOfGroups(section []byte, g, h int, qs []byte) {
	low, high := at(section, g, 16), at(section, h, 16)
	for i := 0; i < 16; i += 8 {
		a, b := le.Uint64(qs[i:]), le.Uint64(qs[i+16:])
		le.PutUint64(low[i:], a&lowHalves|b&lowHalves<<4)
		le.PutUint64(high[i:], a>>4&lowHalves|b&highHalves)
	}
}

// twoBits gathers the two bits at shift of 32 bytes: quartet 4h+f in bits 2f of the
// bytes of word h, the words in the halves of the result.
func twoBits(qs []byte, shift int) (two uint64) {
	for f := range 4 {
		// Words f and f+4 of qs are quartets f of the two halves.
		w := uint64(le.Uint32(qs[4*f:])) | uint64(le.Uint32(qs[16+4*f:]))<<32
		two |= w >> shift & 0x03030303_03030303 << (2 * f)
	}
	return two
}

// oneBits gathers bit g of 32 bytes: that of byte 4w+c in bit w of byte c.
func oneBits(qh []byte, g int) (top uint32) {
	for w := range 8 {
		top |= le.Uint32(qh[4*w:]) >> g & 0x01010101 << w
	}
	return top
}

// packHead writes a head: a word and the two 6-bit numbers of eight groups.
func packHead(dst []byte, word uint32, first, second *[8]byte) {
	le.PutUint32(dst, word)
	var upper uint32
	for g := range 8 {
		dst[4+g] = first[g] | second[g]&3<<6
		upper |= uint32(second[g]>>2) << (4 * g)
	}
	le.PutUint32(dst[12:], upper)
}

// scalesAndMinimums unpacks the 12 bytes of Q4_K and Q5_K; see quant.
func scalesAndMinimums(p []byte) (s, m [8]byte) {
	for g := range 4 {
		s[g], m[g] = p[g]&63, p[g+4]&63
		s[g+4], m[g+4] = p[g+8]&15|p[g]>>6<<4, p[g+8]>>4|p[g+4]>>6<<4
	}
	return s, m
}

func packQ4K(s [][]byte, i int, b []byte) {
	for j := range 4 {
		pairOfGroups(s[0], 8*i+2*j, 8*i+2*j+1, b[16+32*j:])
	}
	scales, minimums := scalesAndMinimums(b[4:])
	packHead(at(s[1], i, 16), le.Uint32(b), &scales, &minimums)
}

func packQ5K(s [][]byte, i int, b []byte) {
	for j := range 4 {
		pairOfGroups(s[0], 8*i+2*j, 8*i+2*j+1, b[48+32*j:])
	}
	for g := range 8 {
		le.PutUint32(at(s[1], 8*i+g, 4), oneBits(b[16:48], g))
	}
	scales, minimums := scalesAndMinimums(b[4:])
	packHead(at(s[2], i, 16), le.Uint32(b), &scales, &minimums)
}

func packQ2K(s [][]byte, i int, b []byte) {
	for g := range 8 {
		le.PutUint64(at(s[0], 8*i+g, 8), twoBits(b[16+32*(g/4):], 2*(g%4)))
	}
	copy(at(s[1], i, 16), b)
	copy(at(s[2], i, 4), b[80:])
}

func packQ3K(s [][]byte, i int, b []byte) {
	var first, second [8]byte
	for g := range 8 {
		le.PutUint64(at(s[0], 8*i+g, 8), twoBits(b[32+32*(g/4):], 2*(g%4)))
		le.PutUint32(at(s[1], 8*i+g, 4), ^oneBits(b[:32], g)) // minus 4
		first[g], second[g] = scaleQ3K(b[96:108], 2*g), scaleQ3K(b[96:108], 2*g+1)
	}
	packHead(at(s[2], i, 16), uint32(le.Uint16(b[108:])), &first, &second)
}

// scaleQ3K is the 6-bit number of a group of 16 in the 12 bytes of Q3_K; see quant.
func scaleQ3K(p []byte, g int) byte {
	return p[g%8]>>(g/8*4)&15 | p[8+g%4]>>(g/4*2)&3<<4
}

func packQ6K(s [][]byte, i int, b []byte) {
	for h := range 2 {
		for j := range 2 {
			pairOfGroups(s[0], 8*i+4*h+j, 8*i+4*h+j+2, b[64*h+32*j:])
		}
		for k := range 4 {
			two := twoBits(b[128+32*h:], 2*k) ^ 0xaaaaaaaa_aaaaaaaa // minus 32
			le.PutUint64(at(s[1], 8*i+4*h+k, 8), two)
		}
	}
	copy(at(s[2], i, 16), b[192:])
	copy(at(s[3], i, 2), b[208:])
}
