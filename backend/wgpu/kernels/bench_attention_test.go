package kernels

import (
	"fmt"
	"time"

	"github.com/apr-engine/apr/backend/packed"
	"github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// attention times attention of one token at some depths, and what goes with it.
func (b *bench) attention(s shape) {
	width := (s.heads + 2*s.kv) * s.dim
	const capacity = 16384
	q, near, far := b.fill(4*width), b.fill(8*256*s.dim), b.fill(8*65*s.dim)
	keys, values := b.fill(2*s.kv*s.dim*capacity), b.fill(2*s.kv*s.dim*capacity)
	span := buffer(b.rig, []uint32{0, 1, capacity, 0})
	b.flash(s, keys, values, capacity)
	for _, depth := range []int{64, 1024, 8192} {
		steps := buffer(b.rig, step(depth-1))
		name := fmt.Sprintf("%s attention at %d", s.name, depth)
		if !b.wanted(name) {
			continue
		}
		rotate, err := Rotate{Heads: s.heads, KVHeads: s.kv, HeadDim: s.dim, Pairs: s.dim / 2, Half: true}.Kernel(b.dev)
		if err != nil {
			b.t.Fatal(err)
		}
		all := []candidate{{name: name + " rotate", list: []ready{b.bind(rotate, false, steps, span, far, near, q, keys, values)}}}
		for i, tuning := range []AttendTuning{{}, {}, {}, {MinKeys: 32}, {MinKeys: 128}, {Keys: 1}, {Keys: 4}, {Values: 8}, {Values: 2}, {Heads: 8}, {Heads: 2}, {Heads: 1}, {Threads: 128}, {Threads: 128, Heads: 2}, {Threads: 512, Heads: 2}, {Threads: 512, Heads: 2, MinKeys: 128}} {
			splits := 32
			if i < 3 {
				splits = 16 << i
			}
			o := Attend{Heads: s.heads, KVHeads: s.kv, HeadDim: s.dim, Width: width, Half: true, Splits: splits, Scale: 0.1, Quantise: true, Tuning: tuning}
			attend, err := o.Kernel(b.dev)
			if err != nil {
				continue // does not fit
			}
			combine, err := o.Combine(b.dev)
			if err != nil {
				b.t.Fatal(err)
			}
			place := o
			place.Place = &Rotate{Heads: s.heads, KVHeads: s.kv, HeadDim: s.dim, Pairs: s.dim / 2, Half: true}
			placed, err := place.Kernel(b.dev)
			if err != nil {
				b.t.Fatal(err)
			}
			place.Merge = true
			merging, err := place.Kernel(b.dev)
			if err != nil {
				continue // does not fit
			}
			parts, y := b.empty(4*o.PartsWords(1)), b.empty(4*QuantWords(s.heads*s.dim))
			name := fmt.Sprintf("%s %+v split %d", name, tuning, splits)
			if i < 3 {
				all = append(all, candidate{name: name + ", rotating", list: []ready{b.bind(placed, false, steps, span, far, near, q, keys, values, parts)}})
				ra, rc := b.bind(attend, false, steps, span, q, keys, values, parts), b.bind(combine, false, steps, span, parts, y)
				all = append(all, candidate{name, []ready{ra}, 4 * s.kv * s.dim * depth, 0}, candidate{name: name + " with combine, half of", list: []ready{ra, rc}})
			}
			all = append(all, candidate{name: name + ", rotating, merging", list: []ready{b.bind(merging, false, steps, span, far, near, q, keys, values, parts, b.empty(4*o.CountsWords(1)), y)}})
		}
		b.compare(all...)
	}
}

// flash times attention of 512 tokens, and of 2048 from the beginning.
func (b *bench) flash(s shape, keys, values *wgpu.Buffer, capacity int) {
	const most = 2048
	width := (s.heads + 2*s.kv) * s.dim
	q, y := b.fill(4*width*most), b.empty(4*s.heads*s.dim*most)
	var all []candidate
	for _, depth := range []int{512, 2048, 8192} {
		name := fmt.Sprintf("%s flash at %d", s.name, depth)
		if !b.wanted(name) {
			continue
		}
		tokens := 512
		if depth == most {
			tokens = most
		}
		span := buffer(b.rig, []uint32{0, uint32(tokens), uint32(capacity), 0})
		var positions []int
		for i := range tokens {
			positions = append(positions, depth-tokens+i)
		}
		o := Flash{Heads: s.heads, KVHeads: s.kv, HeadDim: s.dim, Width: width, Half: true, Scale: 0.1}
		k, err := o.Kernel(b.dev)
		if err != nil {
			b.t.Fatal(err)
		}
		k.Grid[1] = o.Tiles(b.dev, tokens)
		pairs := float64(tokens) * (float64(depth) - float64(tokens)/2)
		all = append(all, candidate{name, []ready{b.bind(k, false, buffer(b.rig, step(positions...)), span, q, keys, values, y)}, 0, 4 * pairs * float64(s.heads*s.dim)})
	}
	b.compare(all...)
}

// token times all the work of one decoded token, from the residual stream to the
// logits, five dispatches a layer, with some divisions of the last product of a layer. Half of the
// layers have Q6_K where Q4_K_M has them.
func (b *bench) token(s shape) {
	if !b.wanted(s.name + " token") {
		return
	}
	for _, down := range []Tuning{{}, {Threads: 64, Lanes: 64, Unroll: 2}, {Threads: 128, Lanes: 128, Unroll: 1}, {Threads: 128, Lanes: 128, Unroll: 3}, {Threads: 256, Lanes: 256, Unroll: 2}} {
		b.tokenWith(s, down)
	}
}

func (b *bench) tokenWith(s shape, down Tuning) {
	must := func(k Kernel, err error) Kernel {
		b.t.Helper()
		if err != nil {
			b.t.Fatal(err)
		}
		return k
	}
	weights := func(t tensor.DType, k, rows int) *wgpu.Buffer {
		n, err := packed.RowBytes(t, k)
		if err != nil {
			b.t.Fatal(err)
		}
		return b.fill(n * rows)
	}
	act := graph.SiLU
	kv, width := s.kv*s.dim, (s.heads+2*s.kv)*s.dim
	const capacity, splits = 8448, 32
	q4, q6 := tensor.Q4_K, tensor.Q6_K
	rotate := &Rotate{Heads: s.heads, KVHeads: s.kv, HeadDim: s.dim, Pairs: s.dim / 2, Half: true}
	o := Attend{Heads: s.heads, KVHeads: s.kv, HeadDim: s.dim, Width: width, Half: true, Splits: splits, Scale: 0.1, Quantise: true, Place: rotate, Merge: true}
	attend := must(o.Kernel(b.dev))
	norm, bias := b.fill(4*s.hidden), b.fill(4*width)
	x, qkv, parts, counts := b.fill(4*s.hidden), b.empty(4*width), b.empty(4*o.PartsWords(1)), b.empty(4*o.CountsWords(1))
	mid, inner, near, far := b.empty(4*QuantWords(s.heads*s.dim)), b.empty(4*QuantWords(s.ff)), b.fill(8*256*s.dim), b.fill(8*65*s.dim)
	span, steps := buffer(b.rig, []uint32{0, 1, capacity, 0}), b.empty(32)
	pipelines := map[string]*wgpu.Pipeline{}
	bind := func(k Kernel, bufs ...*wgpu.Buffer) ready {
		if pipelines[k.WGSL] == nil {
			r := b.bind(k, false, bufs...)
			pipelines[k.WGSL] = r.p
			return r
		}
		var list []wgpu.Binding
		for _, buf := range bufs {
			list = append(list, wgpu.Whole(buf))
		}
		g, err := b.d.NewGroup(pipelines[k.WGSL], list...)
		if err != nil {
			b.t.Fatal(err)
		}
		b.t.Cleanup(g.Release)
		return ready{k, pipelines[k.WGSL], g, 0}
	}
	var list []ready
	for l := range s.layers {
		v := q4
		if l%2 == 0 {
			v = q6
		}
		list = append(list,
			bind(must(MatVec{K: s.hidden, Tokens: 1, Bias: true, Norm: true, Eps: 1e-6, Parts: []Part{{q4, s.heads * s.dim}, {q4, kv}, {v, kv}}}.Kernel(b.dev)),
				weights(q4, s.hidden, s.heads*s.dim), weights(q4, s.hidden, kv), weights(v, s.hidden, kv), x, norm, bias, qkv),
			bind(attend, steps, span, far, near, qkv, b.fill(2*kv*capacity), b.fill(2*kv*capacity), parts, counts, mid),
			bind(must(MatVec{K: s.heads * s.dim, Tokens: 1, Residual: InPlace, Parts: []Part{{q4, s.hidden}}}.Kernel(b.dev)), weights(q4, s.heads*s.dim, s.hidden), mid, x),
			bind(must(MatVec{K: s.hidden, Tokens: 1, Norm: true, Eps: 1e-6, Act: &act, QuantOut: true, Parts: []Part{{q4, s.ff}, {q4, s.ff}}}.Kernel(b.dev)),
				weights(q4, s.hidden, s.ff), weights(q4, s.hidden, s.ff), x, norm, inner),
			bind(must(MatVec{K: s.ff, Tokens: 1, Residual: InPlace, Parts: []Part{{v, s.hidden}}, Tuning: down}.Kernel(b.dev)), weights(v, s.ff, s.hidden), inner, x))
	}
	list = append(list, bind(must(MatVec{K: s.hidden, Tokens: 1, Norm: true, Eps: 1e-6, Parts: []Part{{q6, s.out}}}.Kernel(b.dev)), weights(q6, s.hidden, s.out), x, norm, b.empty(4*s.out)))
	for _, depth := range []int{64, 1024, 8192} {
		if err := b.d.Write(steps, 0, bytesOf(step(depth-1))); err != nil {
			b.t.Fatal(err)
		}
		var best, host time.Duration
		for range 8 {
			d, h := b.once(candidate{list: list})
			d, h = d*time.Duration(len(list)), h*time.Duration(len(list))
			if best == 0 || d < best {
				best = d
			}
			if host == 0 || h < host {
				host = h
			}
		}
		fmt.Printf("%s token at %d, %+v: %d dispatches, %.0f µs on the device (%.0f a second), %.0f µs recording\n",
			s.name, depth, down, len(list), float64(best)/1e3, 1e9/float64(best), float64(host)/1e3)
		if depth == 64 {
			b.shares(list)
		}
	}
}

// shares prints how a token's time is divided among its kernels: a mark after each
// dispatch, which costs some time itself.
func (b *bench) shares(list []ready) {
	if b.timer == nil {
		return
	}
	timer, err := b.d.NewTimer(len(list) + 1)
	if err != nil {
		b.t.Fatal(err)
	}
	defer timer.Release()
	best := make([]time.Duration, len(list))
	for round := range 5 {
		c := b.d.Begin()
		b.warm(c)
		c.Mark(timer, 0)
		for i, k := range list {
			c.Dispatch(k.p, k.g, k.k.Grid[0], k.k.Grid[1], k.k.Grid[2])
			c.Mark(timer, i+1)
		}
		c.Collect(timer, len(list)+1)
		if err := c.Submit(); err != nil {
			b.t.Fatal(err)
		}
		marks, err := timer.Times(len(list) + 1)
		if err != nil {
			b.t.Fatal(err)
		}
		for i := range list {
			if d := marks[i+1] - marks[i]; round == 0 || d < best[i] {
				best[i] = d
			}
		}
	}
	var names []string
	sum, count := map[string]time.Duration{}, map[string]int{}
	for i, k := range list {
		n := k.k.Name
		if count[n] == 0 {
			names = append(names, n)
		}
		sum[n] += best[i]
		count[n]++
	}
	for _, n := range names {
		fmt.Printf("  %-70s %3d × %7.2f µs = %6.0f µs\n", n, count[n], float64(sum[n])/float64(count[n])/1e3, float64(sum[n])/1e3)
	}
}
