package quant

import "unsafe"

// blockQ4K is 256 numbers in 8 groups of 32: x = d·s·q − dmin·m, s and m of 6
// bits (see scalesK), q of 4. Each 32 bytes of qs hold two groups: the lower
// halves are group 2k, the upper halves group 2k+1.
// Source: block_q4_K in ggml's ggml-common.h.
type blockQ4K struct {
	d, dmin half
	scales  scalesK
	qs      [128]byte
}

var _ [144]byte = [unsafe.Sizeof(blockQ4K{})]byte{}

// scalesK packs eight 6-bit scales s and minimums m into 12 bytes. For groups 0
// to 3, s is in the lower six bits of byte g and m in those of byte g+4. For
// groups 4 to 7, the lower four bits of s and m are the halves of byte g+4, and
// the upper two are the free bits of bytes g−4 (s) and g (m).
// Source: get_scale_min_k4 in ggml's ggml-quants.c.
type scalesK [12]byte

func (p *scalesK) get(g int) (s, m byte) {
	if g < 4 {
		return p[g] & 63, p[g+4] & 63
	}
	return p[g+4]&15 | p[g-4]>>6<<4, p[g+4]>>4 | p[g]>>6<<4
}

// set packs s and m, each below 64.
func (p *scalesK) set(s, m *[8]byte) {
	for g := range 4 {
		p[g] = s[g] | s[g+4]>>4<<6
		p[g+4] = m[g] | m[g+4]>>4<<6
		p[g+8] = s[g+4]&15 | m[g+4]<<4
	}
}

func dequantizeQ4K(dst []float32, src []byte) {
	bs := blocks[blockQ4K](src)
	for i := range bs {
		b := &bs[i]
		d, dmin := b.d.f32(), b.dmin.f32()
		y := (*[superBlock]float32)(dst[i*superBlock:])
		for g := range 8 {
			s, m := b.scales.get(g)
			scale := float32(d * float32(s))
			minimum := float32(dmin * float32(m))
			qs := (*[32]byte)(b.qs[g/2*32:])
			shift := g % 2 * 4
			for j, q := range qs {
				y[32*g+j] = float32(scale*float32(q>>shift&15)) - minimum
			}
		}
	}
}

func finiteQ4K(data []byte) int {
	return firstBad(data, func(b *blockQ4K) bool { return b.d.finite() && b.dmin.finite() })
}

var searchQ4K = search{-2, 0.15, 18, false}

func quantizeQ4K(dst []byte, src, weights []float32) {
	eachBlock(dst, src, weights, superBlock, 32, byLevel, func(b *blockQ4K, ws *workspace) {
		p := ws.affineBlock(32, 15, 63, searchQ4K)
		b.d.set(float32(p.d))
		b.dmin.set(float32(p.dmin))
		b.scales = packScalesK(&p)
		b.qs = pack4(&ws.levels)
	})
}

func packScalesK(p *affineScales) (packed scalesK) {
	var s, m [8]byte
	for g := range s {
		s[g], m[g] = byte(p.s[g]), byte(p.m[g])
	}
	packed.set(&s, &m)
	return packed
}

// pack4 stores the lower four bits of 256 levels, two groups of 32 to 32 bytes.
func pack4(levels *[superBlock]int8) (qs [128]byte) {
	for g := range 4 {
		for j := range 32 {
			qs[32*g+j] = byte(levels[64*g+j])&15 | byte(levels[64*g+32+j])<<4
		}
	}
	return qs
}
