package kernels

import (
	"fmt"
	"slices"
	"strings"

	"github.com/apr-engine/apr/backend/packed"
	"github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// product times a product with all tunings given.
func (b *bench) product(name string, m MatVec, tunings []Tuning) {
	if !b.wanted(name) {
		return
	}
	size := 0
	var each []int
	for _, p := range m.Parts {
		l, err := packed.Of(p.Type, m.K)
		if err != nil {
			b.t.Fatal(err)
		}
		each = append(each, l.RowBytes*p.Rows)
		size += l.RowBytes * p.Rows
	}
	var sets [][]*wgpu.Buffer
	out := 0
	for range copies(size) {
		var set []*wgpu.Buffer
		for _, n := range each {
			set = append(set, b.fill(n))
		}
		sets = append(sets, set)
	}
	for _, p := range m.Parts {
		out += p.Rows
	}
	x, bias, y := b.fill(4*QuantWords(m.K)*m.Tokens+4*m.K*m.Tokens), b.fill(4*out), b.empty(4*out*m.Tokens)
	norm := b.fill(4 * m.K)
	var all []candidate
	seen := map[string]bool{}
	for _, tune := range tunings {
		m.Tuning = tune
		k, err := m.Kernel(b.dev)
		if err != nil || seen[k.Name] {
			continue // does not fit, or is one of the others
		}
		seen[k.Name] = true
		var list []ready
		for _, set := range sets {
			bufs := append(slices.Clone(set), x)
			if m.Norm {
				bufs = append(bufs, norm)
			}
			if m.Bias {
				bufs = append(bufs, bias)
			}
			list = append(list, b.bind(k, false, append(bufs, y)...))
		}
		all = append(all, candidate{name + strings.TrimPrefix(k.Name, "matvec"), list, size, 0})
	}
	b.compare(all...)
	for _, set := range sets {
		for _, w := range set {
			w.Release()
		}
	}
}

// decode times the products of one token, with some divisions.
func (b *bench) decode(s shape) {
	act := graph.SiLU
	kv := s.kv * s.dim
	q4, q6 := tensor.Q4_K, tensor.Q6_K
	tune := func(threads, lanes, rows, unroll int) Tuning {
		return Tuning{Threads: threads, Lanes: lanes, Rows: rows, Unroll: unroll}
	}
	few := []Tuning{{}, tune(32, 32, 1, 2), tune(32, 32, 2, 1), tune(64, 32, 1, 2), tune(64, 16, 1, 2), tune(64, 16, 2, 1)}
	qkv := MatVec{K: s.hidden, Tokens: 1, Bias: true, Parts: []Part{{q4, s.hidden}, {q4, kv}, {q6, kv}}}
	b.product(s.name+" qkv", qkv, few)
	qkv.Norm = true
	b.product(s.name+" norm qkv", qkv, []Tuning{{}, tune(256, 16, 1, 3), tune(256, 16, 1, 2), tune(256, 32, 1, 2), tune(128, 16, 1, 3), tune(128, 32, 1, 2), tune(512, 16, 1, 3)})
	b.product(s.name+" o", MatVec{K: s.hidden, Tokens: 1, Residual: InPlace, Parts: []Part{{q4, s.hidden}}}, few)
	gate := MatVec{K: s.hidden, Tokens: 1, Act: &act, Parts: []Part{{q4, s.ff}, {q4, s.ff}}}
	b.product(s.name+" gate+up", gate, []Tuning{{}, tune(32, 16, 2, 1), tune(64, 16, 2, 1), tune(64, 16, 1, 2), tune(64, 32, 2, 1)})
	gate.QuantOut = true
	b.product(s.name+" gate+up", gate, []Tuning{{}, tune(256, 16, 2, 1), tune(256, 8, 1, 2), tune(512, 16, 1, 1), tune(512, 16, 1, 3)})
	gate.Norm = true
	b.product(s.name+" norm gate+up", gate, []Tuning{{}, tune(256, 16, 2, 1), tune(256, 16, 2, 3), tune(256, 8, 1, 2), tune(512, 16, 1, 1), tune(512, 16, 1, 3), tune(512, 32, 2, 2), tune(512, 8, 1, 2), tune(1024, 32, 1, 2)})
	several := []Tuning{{}, tune(32, 32, 1, 3)}
	for _, lanes := range []int{64, 128, 256} { // several subgroups a row
		several = append(several, tune(lanes, lanes, 1, 1), tune(lanes, lanes, 1, 2), tune(lanes, lanes, 1, 3), tune(2*lanes, lanes, 1, 2), tune(lanes, lanes, 2, 1), tune(lanes, lanes, 1, 5))
	}
	b.product(s.name+" one o", MatVec{K: s.hidden, Tokens: 1, Residual: InPlace, Parts: []Part{{q4, s.hidden}}}, several)
	for _, t := range []tensor.DType{q4, q6} {
		b.product(s.name+" one down", MatVec{K: s.ff, Tokens: 1, Residual: InPlace, Parts: []Part{{t, s.hidden}}}, several)
	}
	for _, t := range []tensor.DType{q4, q6} {
		b.product(s.name+" down", MatVec{K: s.ff, Tokens: 1, Residual: InPlace, Parts: []Part{{t, s.hidden}}}, append(few, tune(32, 32, 1, 4), tune(64, 32, 1, 4), tune(128, 32, 1, 3)))
	}
	b.product(s.name+" logits", MatVec{K: s.hidden, Tokens: 1, Parts: []Part{{q6, s.out}}}, []Tuning{{}, tune(32, 16, 2, 1), tune(64, 16, 2, 1)})
	one := []Tuning{{}}
	for _, n := range []int{2, 8} {
		several := []Tuning{{}, tune(64, 16, 1, 1), tune(64, 16, 2, 1), tune(64, 32, 2, 1), tune(64, 32, 4, 1)}
		b.product(s.name+" gate+up", MatVec{K: s.hidden, Tokens: n, Act: &act, Parts: []Part{{q4, s.ff}, {q4, s.ff}}}, several)
		b.product(s.name+" down", MatVec{K: s.ff, Tokens: n, Residual: InPlace, Parts: []Part{{q6, s.hidden}}}, several)
	}
	for _, f16 := range []bool{true, false} {
		const n = 512
		b.prefill(fmt.Sprintf("%s qkv %d", s.name, n), MatMul{K: s.hidden, F16: f16, Bias: true, Parts: []Part{{q4, s.hidden}, {q4, kv}, {q6, kv}}}, n)
		b.prefill(fmt.Sprintf("%s gate+up %d", s.name, n), MatMul{K: s.hidden, F16: f16, Parts: []Part{{q4, s.ff}, {q4, s.ff}}}, n)
		for _, more := range map[bool][]int{true: {512, 2048}}[f16] {
			for _, p := range []struct {
				name    string
				t       tensor.DType
				k, rows int
			}{{"qkv", q4, s.hidden, s.hidden + 2*kv}, {"o", q4, s.hidden, s.hidden}, {"down", q6, s.ff, s.hidden}, {"gate+up", q4, s.hidden, 2 * s.ff}} {
				b.halfMul(fmt.Sprintf("%s long %s %d", s.name, p.name, more), MatMul{K: p.k, Parts: []Part{{p.t, p.rows}}}, p.rows, more, 2*float64(p.k)*float64(p.rows)*float64(more))
			}
		}
		b.prefill(fmt.Sprintf("%s down %d", s.name, n), MatMul{K: s.ff, F16: f16, Parts: []Part{{q6, s.hidden}}}, n)
	}
	if s.name == "1.5B" {
		for _, t := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16, tensor.Q4_0, tensor.Q5_0, tensor.Q5_1, tensor.Q8_0, tensor.Q2_K, tensor.Q3_K, tensor.Q5_K, tensor.IQ4_NL, tensor.IQ4_XS} {
			b.product(s.name+" down "+t.String(), MatVec{K: s.ff, Tokens: 1, Parts: []Part{{t, s.hidden}}}, one)
		}
	}
}

// prefill times a product for many tokens with some tiles.
func (b *bench) prefill(name string, m MatMul, tokens int) {
	if !b.wanted(name) || m.F16 && !b.dev.F16 {
		return
	}
	var bufs []*wgpu.Buffer
	out, flop := 0, 0.0
	for _, p := range m.Parts {
		l, err := packed.Of(p.Type, m.K)
		if err != nil {
			b.t.Fatal(err)
		}
		bufs = append(bufs, b.fill(l.RowBytes*p.Rows))
		out += p.Rows
		flop += 2 * float64(p.Rows) * float64(m.K) * float64(tokens)
	}
	bufs = append(bufs, buffer(b.rig, step(make([]int, tokens)...)), b.fill(4*m.K*tokens))
	if m.F16 {
		bufs = append(bufs, b.fill(4*tokens))
	}
	if m.Bias {
		bufs = append(bufs, b.fill(4*out))
	}
	bufs = append(bufs, b.empty(4*out*tokens))
	var all []candidate
	seen := map[string]bool{}
	for _, tile := range []Tile{{}, {64, 128, 8, 8, false}, {128, 128, 8, 8, false}, {64, 128, 4, 8, true}, {128, 128, 8, 8, true}, {64, 64, 8, 8, true}, {128, 64, 8, 8, true}, {64, 64, 8, 4, false}} {
		m.Tile = tile
		k, err := m.Kernel(b.dev)
		if err != nil || seen[k.Name] {
			continue // does not fit, or is one of the others
		}
		seen[k.Name] = true
		k.Grid[1] = m.TokenTiles(b.dev, tokens)
		all = append(all, candidate{name + strings.TrimPrefix(k.Name, "matmul"), []ready{b.bind(k, false, bufs...)}, 0, flop})
	}
	b.compare(all...)
	if m.F16 {
		b.halfMul(name, m, out, tokens, flop)
	}
}

// halfMul times a product of many tokens with weights in half precision, and making
// these.
func (b *bench) halfMul(name string, m MatMul, out, tokens int, flop float64) {
	if !b.wanted(name) {
		return
	}
	halves := b.fill(2 * out * m.K)
	defer halves.Release()
	var all []candidate
	for _, p := range m.Parts {
		l, err := packed.Of(p.Type, m.K)
		if err != nil {
			b.t.Fatal(err)
		}
		k, err := Unpack{Part: p, K: m.K}.Kernel(b.dev)
		if err != nil {
			b.t.Fatal(err)
		}
		all = append(all, candidate{name + " " + k.Name, []ready{b.bind(k, false, b.fill(l.RowBytes*p.Rows), halves)}, l.RowBytes*p.Rows + 2*p.Rows*m.K, 0})
	}
	steps, x, scale, y := buffer(b.rig, step(make([]int, tokens)...)), b.fill(2*m.K*tokens), b.fill(4*tokens), b.empty(4*out*tokens)
	parts := b.empty(4 * splitMost * out * tokens)
	defer parts.Release()
	for _, tile := range []HalfTile{{}, {64, 64, 4, 8}, {64, 128, 8, 8}, {128, 128, 8, 8}} {
		h := HalfMul{K: m.K, Rows: out, Tile: tile}
		k, err := h.Kernel(b.dev)
		if err != nil {
			continue // does not fit
		}
		k.Grid[0] = h.TokenTiles(tokens)
		all = append(all, candidate{name + " " + k.Name, []ready{b.bind(k, false, halves, steps, x, scale, y)}, 0, flop})
		h.Split = true
		if k, err = h.Kernel(b.dev); err != nil || out > 5000 || tile.Tokens == 128 {
			continue
		}
		product := b.bind(k, false, halves, steps, x, scale, parts)
		product.k.Grid[0] = h.TokenTiles(tokens)
		g := Gather{Rows: out, Residual: InPlace}
		if k, err = g.Kernel(b.dev); err != nil {
			b.t.Fatal(err)
		}
		gather := b.bind(k, false, steps, parts, y)
		for _, n := range []int{2, 3, 4, 6, 8} {
			product.k.Grid[2], gather.k.Grid[0], gather.k.Grid[1] = n, g.Groups(b.dev, tokens, n), n
			// Both are timed, and a mean is printed: twice that is the product with its sum.
			all = append(all, candidate{fmt.Sprintf("%s %s %d, half", name, product.k.Name, n), []ready{product, gather}, 0, flop / 2})
		}
	}
	b.compare(all...)
}
