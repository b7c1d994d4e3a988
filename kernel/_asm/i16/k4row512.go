package main

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// matVecK4512 writes the matrix-vector product of Q4_K and Q5_K, whose scales
// take as many instructions to decode as the weights. Shuffles are the scarce
// resource (two a cycle, of about four vector instructions), so the headers of
// two blocks are decoded at once. VPSHUFD with a constant is not one of them.
func matVecK4512(name string, bytes, tokens int, vectors func(s *k4State, p reg.GPVirtual, scales spread512, use func(j int, w reg.VecVirtual)), fifth bool) {
	name = fmt.Sprintf("matVec%sI16x%dAVX512", name, tokens)
	TEXT(name, attr.NOSPLIT, "func(out *float32, stride int, w *byte, rows, chunks int, q *int16, scale, sum *float32, batch int)")
	Pragma("noescape")
	matVecDoc512(name, tokens)
	s := new(k4State)
	s.load(fifth)
	out := Load(Param("out"), GP64()).(reg.GPVirtual)
	w := Load(Param("w"), GP64()).(reg.GPVirtual)
	rows := Load(Param("rows"), GP64()).(reg.GPVirtual)
	batch := Load(Param("batch"), GP64()).(reg.GPVirtual)
	qStep, sumStep := GP64(), GP64()
	MOVQ(batch, sumStep)
	SHLQ(Imm(6), sumStep)
	MOVQ(sumStep, qStep)
	SHLQ(Imm(3), qStep)

	Label("row")
	chunks := Load(Param("chunks"), GP64()).(reg.GPVirtual)
	q := Load(Param("q"), GP64()).(reg.GPVirtual)
	scale := Load(Param("scale"), GP64()).(reg.GPVirtual)
	sum := Load(Param("sum"), GP64()).(reg.GPVirtual)
	acc := make([]reg.VecVirtual, tokens)
	isum := make([]reg.VecVirtual, tokens)
	for t := range tokens {
		acc[t], isum[t] = ZMM(), ZMM()
		VPXORD(acc[t], acc[t], acc[t])
	}

	Label("pair")
	prefetch(w, 2*bytes)
	// The second header; for a last block without a partner the first again.
	second := GP64()
	LEAQ(Mem{Base: w, Disp: bytes}, second)
	CMPQ(chunks, Imm(1))
	CMOVQEQ(w, second)
	decoded := s.decode(w, second)
	for i := range 2 {
		min, halves, floats, d, dmin := ZMM(), YMM(), ZMM(), ZMM(), ZMM()
		VPBROADCASTD(Mem{Base: w}, halves)
		VCVTPH2PS(halves, floats) // d, dmin, d, dmin, …
		VPERMILPS(Imm(0xa0), floats, d)
		VPERMILPS(Imm(0xf5), floats, dmin)
		VPERMB_Z(decoded, s.minIndex[i], s.firstBytes, min)
		VCVTDQ2PS(min, min)
		VMULPS(dmin, min, min)
		scales := spread512{ZMM(), ZMM()}
		for k := range scales {
			VPERMB_Z(decoded, s.scaleIndex[i][k], s.evenBytes, scales[k])
		}
		vectors(s, w, scales, func(j int, words reg.VecVirtual) {
			for t := range tokens {
				if j == 0 {
					VPXORD(isum[t], isum[t], isum[t])
				}
				VPDPWSSD(Mem{Base: q, Disp: 512*t + 64*j}, words, isum[t])
			}
		})
		for t := range tokens {
			VCVTDQ2PS(isum[t], isum[t])
			both := ZMM()
			VMULPS_BCST(Mem{Base: scale, Disp: 4 * t}, d, both)
			VFMADD231PS(both, isum[t], acc[t])
			VFNMADD231PS(Mem{Base: sum, Disp: 64 * t}, min, acc[t])
		}
		ADDQ(number(bytes), w)
		ADDQ(qStep, q)
		LEAQ(Mem{Base: scale, Index: batch, Scale: 4}, scale)
		ADDQ(sumStep, sum)
		DECQ(chunks)
		if i == 0 {
			JZ(LabelRef("sum"))
		} else {
			JNZ(LabelRef("pair"))
		}
	}

	Label("sum")
	at, stride := GP64(), Load(Param("stride"), GP64())
	MOVQ(out, at)
	for t := range tokens {
		horizontalSum512(acc[t])
		VMOVSS(acc[t].AsX(), Mem{Base: at})
		if t < tokens-1 {
			LEAQ(Mem{Base: at, Index: stride, Scale: 4}, at)
		}
	}
	ADDQ(Imm(4), out)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// k4State is what stays in registers.
type k4State struct {
	nib, bit            reg.VecVirtual
	low, shift, lowMask reg.VecVirtual // YMM; see scalesK4.decode
	high, highMask      reg.VecVirtual
	scaleIndex          [2][2]reg.VecVirtual // for each block; see spread512
	minIndex            [2]reg.VecVirtual
	firstBytes          reg.OpmaskVirtual // the lowest byte of every dword
	evenBytes           reg.OpmaskVirtual // the lower byte of every word
}

func (s *k4State) load(fifth bool) {
	s.nib = wordMask(15)
	if fifth {
		s.bit = wordMask(16)
	}
	twice := func(name string, b []byte) reg.VecVirtual {
		y := YMM()
		VBROADCASTI32X4(bytesConst(name, b), y)
		return y
	}
	s.low = twice("k4low", []byte{4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15})
	s.shift = twice("k4shift", []byte{0, 8, 16, 24, 32, 40, 48, 56, 0, 8, 16, 24, 36, 44, 52, 60})
	s.lowMask = twice("k4lowmask", repeat(63, 4, 15, 4, 63, 4, 15, 4))
	s.high = twice("k4high", []byte{128, 128, 128, 128, 4, 5, 6, 7, 128, 128, 128, 128, 8, 9, 10, 11})
	s.highMask = twice("k4highmask", repeat(0x30, 16))
	for block := range s.scaleIndex {
		for k := range s.scaleIndex[block] {
			s.scaleIndex[block][k] = ZMM()
			VMOVDQU64(bytesConst(fmt.Sprintf("k4scaleindex%d%d", block, k), spreadBytes(16*block+4*k, false)), s.scaleIndex[block][k])
		}
	}
	for block := range s.minIndex {
		var min []byte
		for i := range 16 {
			min = append(min, repeat(16*block+8+i/2, 4)...)
		}
		s.minIndex[block] = ZMM()
		VMOVDQU64(bytesConst(fmt.Sprintf("k4minindex%d", block), min), s.minIndex[block])
	}
	mask := func(bits uint64) reg.OpmaskVirtual {
		r, k := GP64(), K()
		MOVQ(U64(bits), r)
		KMOVQ(r, k)
		return k
	}
	s.firstBytes, s.evenBytes = mask(0x1111111111111111), mask(0x5555555555555555)
}

// decode decodes two headers: per block, 8 scales and 8 minimums as bytes.
func (s *k4State) decode(first, second reg.GPVirtual) reg.VecVirtual {
	header, low, high := YMM(), ZMM(), YMM()
	VMOVDQU32(Mem{Base: first}, header.AsX())
	VINSERTI32X4(Imm(1), Mem{Base: second}, header, header)
	VPSHUFB(s.low, header, low.AsY())
	VPMULTISHIFTQB(low.AsY(), s.shift, low.AsY())
	VPANDD(s.lowMask, low.AsY(), low.AsY())
	VPSHUFB(s.high, header, high)
	VPSRLW(Imm(2), high, high)
	VPTERNLOGD(Imm(0xf8), s.highMask, high, low.AsY()) // low | high&mask
	return low
}

// q4Vectors decodes the weights of a block at p.
func q4Vectors(s *k4State, p reg.GPVirtual, scales spread512, use func(j int, w reg.VecVirtual)) {
	for i := range 4 {
		low, high := ZMM(), ZMM()
		VPMOVZXBW(Mem{Base: p, Disp: 16 + 32*i}, low)
		VPSRLW(Imm(4), low, high)
		VPANDD(s.nib, low, low)
		scales.apply(2*i, low)
		use(2*i, low)
		scales.apply(2*i+1, high)
		use(2*i+1, high)
	}
}

// q5Vectors does the same with a fifth bit.
func q5Vectors(s *k4State, p reg.GPVirtual, scales spread512, use func(j int, w reg.VecVirtual)) {
	fifth := ZMM()
	VPMOVZXBW(Mem{Base: p, Disp: 16}, fifth)
	for i := range 4 {
		low, high := ZMM(), ZMM()
		VPMOVZXBW(Mem{Base: p, Disp: 48 + 32*i}, low)
		VPSRLW(Imm(4), low, high)
		VPANDD(s.nib, low, low)
		VPTERNLOGD(Imm(0xf8), s.bit, shiftedTo(4, 2*i, fifth), low)
		VPTERNLOGD(Imm(0xf8), s.bit, shiftedTo(4, 2*i+1, fifth), high)
		scales.apply(2*i, low)
		use(2*i, low)
		scales.apply(2*i+1, high)
		use(2*i+1, high)
	}
}
