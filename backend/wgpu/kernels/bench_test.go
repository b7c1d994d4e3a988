package kernels

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend/packed"
	"github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

// TestBench times kernels with the shapes of real models. It runs only if
// APR_WGPU_BENCH is set; a value other than 1 selects cases that contain it.
// APR_WGPU_ADAPTER chooses the adapter. `go test -c` makes a program of it that needs
// no Go.
func TestBench(t *testing.T) {
	want := os.Getenv("APR_WGPU_BENCH")
	if want == "" {
		t.Skip("APR_WGPU_BENCH is not set")
	}
	r := newRig(t, wgpu.Features{F16: true, Subgroups: true, Timestamps: true})
	b := &bench{rig: r, dev: r.device(), filter: want, pools: map[int]*wgpu.Buffer{}}
	fmt.Printf("%s, %s, %s: %+v\n", r.d.Name, r.d.API, r.d.Driver, b.dev)
	b.chain()
	for _, s := range benchShapes {
		b.decode(s)
		b.attention(s)
	}
}

// shape is a model of the Qwen 2.5 family.
type shape struct {
	name                            string
	hidden, ff, heads, kv, dim, out int
}

var benchShapes = []shape{
	{"1.5B", 1536, 8960, 12, 2, 128, 151936},
	{"7B", 3584, 18944, 28, 4, 128, 152064},
}

// bench times kernels on random contents.
type bench struct {
	*rig
	dev    Device
	filter string
	pools  map[int]*wgpu.Buffer
	timer  *wgpu.Timer
}

func (b *bench) wanted(name string) bool { return b.filter == "1" || strings.Contains(name, b.filter) }

// fill makes a buffer with random bits whose numbers, read as F16 or F32, are
// neither huge nor NaN.
func (b *bench) fill(n int) *wgpu.Buffer {
	b.t.Helper()
	buf := b.empty(n)
	const chunk = 4 << 20
	data := make([]uint32, chunk/4)
	rng := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range data {
		data[i] = rng.Uint32() & 0x3fff3fff
	}
	first := min(n, chunk) &^ 3
	if err := b.d.Write(buf, 0, bytesOf(data)[:first]); err != nil {
		b.t.Fatal(err)
	}
	c := b.d.Begin()
	for at := first; at < n; at += chunk {
		c.Copy(buf, uint64(at), buf2(b, data), 0, uint64(min(chunk, n-at)&^3))
	}
	if err := c.Submit(); err != nil {
		b.t.Fatal(err)
	}
	return buf
}

// buf2 is a buffer with a chunk of data, to copy from.
func buf2(b *bench, data []uint32) *wgpu.Buffer {
	if b.pools[0] == nil {
		b.pools[0] = buffer(b.rig, data)
	}
	return b.pools[0]
}

// copies is how many matrices of n bytes are used in turn, so that none is still in
// the device's cache when its turn comes again.
func copies(n int) int { return min(max(1, 256<<20/n), 48) }

// time runs list n times round in one pass and returns the time of one kernel on the
// device, and that of recording it on the host.
func (b *bench) time(list []ready, rounds int) (device, host time.Duration) {
	b.t.Helper()
	if b.timer == nil && b.d.Features.Timestamps {
		var err error
		if b.timer, err = b.d.NewTimer(2); err != nil {
			b.t.Fatal(err)
		}
	}
	var ds, hs []time.Duration
	for range 5 {
		start := time.Now()
		c := b.d.Begin()
		if b.timer != nil {
			c.Mark(b.timer, 0)
		}
		for range rounds {
			for _, k := range list {
				c.Dispatch(k.p, k.g, k.k.Grid[0], k.k.Grid[1], k.k.Grid[2])
			}
		}
		if b.timer != nil {
			c.Mark(b.timer, 1)
			c.Collect(b.timer, 2)
		}
		if err := c.Submit(); err != nil {
			b.t.Fatal(err)
		}
		recorded := time.Since(start)
		if err := b.d.Wait(); err != nil {
			b.t.Fatal(err)
		}
		took := time.Since(start)
		if b.timer != nil {
			marks, err := b.timer.Times(2)
			if err != nil {
				b.t.Fatal(err)
			}
			took = marks[1] - marks[0]
		}
		n := time.Duration(rounds * len(list))
		ds, hs = append(ds, took/n), append(hs, recorded/n)
	}
	slices.Sort(ds)
	slices.Sort(hs)
	return ds[1], hs[2]
}

// report prints a line: bytes read and operations done by one kernel give the rates.
func (b *bench) report(name string, list []ready, bytes int, flop float64) {
	rounds := max(1, 64/len(list))
	if flop > 0 {
		rounds = 4
	}
	d, h := b.time(list, rounds)
	line := fmt.Sprintf("%-58s %8.2f µs", name, float64(d)/1e3)
	if bytes > 0 {
		line += fmt.Sprintf(" %7.0f GB/s", float64(bytes)/float64(d))
	}
	if flop > 0 {
		line += fmt.Sprintf(" %7.1f TFLOP/s", flop/float64(d)/1e3)
	}
	fmt.Printf("%s   recording %.2f µs\n", line, float64(h)/1e3)
}

// chain measures what a dispatch costs that does next to nothing but waits for the
// one before it.
func (b *bench) chain() {
	if !b.wanted("chain") {
		return
	}
	x, y := b.fill(4*1536), b.empty(4*1536)
	k := Kernel{Name: "chain", Grid: [3]int{24, 1, 1}, Unchecked: true, Bindings: []Binding{{"x", wgpu.ReadOnly}, {"y", wgpu.ReadWrite}}, WGSL: `
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x] = x[id.x] + 1.0; }`}
	b.report("chain of dependent dispatches", []ready{b.bind(k, false, x, y), b.bind(k, false, y, x)}, 0, 0)
	for _, n := range []int{1536, 8960} {
		for _, norm := range []bool{true, false} {
			k, err := Quantize{K: n, Rows: 1, Norm: norm, Eps: 1e-6}.Kernel(b.dev)
			if err != nil {
				b.t.Fatal(err)
			}
			bufs := []*wgpu.Buffer{b.fill(4 * n), b.fill(4 * n), b.empty(4 * QuantWords(n))}
			if !norm {
				bufs = []*wgpu.Buffer{bufs[0], bufs[2]}
			}
			b.report(k.Name, []ready{b.bind(k, false, bufs...)}, 0, 0)
		}
	}
}

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
	for _, tune := range tunings {
		m.Tuning = tune
		k, err := m.Kernel(b.dev)
		if err != nil {
			b.t.Fatal(err)
		}
		var list []ready
		for _, set := range sets {
			bufs := append(slices.Clone(set), x)
			if m.Bias {
				bufs = append(bufs, bias)
			}
			list = append(list, b.bind(k, false, append(bufs, y)...))
		}
		b.report(name+" "+strings.TrimPrefix(k.Name, "matvec"), list, size, 0)
	}
	for _, set := range sets {
		for _, w := range set {
			w.Release()
		}
	}
}

// tunings are the divisions worth trying.
func tunings() []Tuning {
	list := []Tuning{{}}
	for _, threads := range []int{32, 64, 128} {
		for _, lanes := range []int{8, 16, 32} {
			for _, rows := range []int{1, 2, 4} {
				list = append(list, Tuning{threads, lanes, rows})
			}
		}
	}
	return list
}

// decode times the products of one token.
func (b *bench) decode(s shape) {
	act := graph.SiLU
	kv := s.kv * s.dim
	all := tunings()
	q4, q6 := tensor.Q4_K, tensor.Q6_K
	b.product(s.name+" qkv", MatVec{K: s.hidden, Tokens: 1, Bias: true, Parts: []Part{{q4, s.hidden}, {q4, kv}, {q6, kv}}}, all)
	b.product(s.name+" o", MatVec{K: s.hidden, Tokens: 1, Residual: InPlace, Parts: []Part{{q4, s.hidden}}}, all)
	b.product(s.name+" gate+up", MatVec{K: s.hidden, Tokens: 1, Act: &act, Parts: []Part{{q4, s.ff}, {q4, s.ff}}}, all)
	b.product(s.name+" down", MatVec{K: s.ff, Tokens: 1, Residual: InPlace, Parts: []Part{{q4, s.hidden}}}, all)
	b.product(s.name+" down", MatVec{K: s.ff, Tokens: 1, Residual: InPlace, Parts: []Part{{q6, s.hidden}}}, all)
	b.product(s.name+" logits", MatVec{K: s.hidden, Tokens: 1, Parts: []Part{{q6, s.out}}}, all)
	for _, n := range []int{512, 2048} {
		for _, f16 := range []bool{true, false} {
			b.prefill(fmt.Sprintf("%s qkv %d", s.name, n), MatMul{K: s.hidden, F16: f16, Bias: true, Parts: []Part{{q4, s.hidden}, {q4, kv}, {q6, kv}}}, n)
			b.prefill(fmt.Sprintf("%s o %d", s.name, n), MatMul{K: s.hidden, F16: f16, Parts: []Part{{q4, s.hidden}}}, n)
			b.prefill(fmt.Sprintf("%s gate+up %d", s.name, n), MatMul{K: s.hidden, F16: f16, Parts: []Part{{q4, s.ff}, {q4, s.ff}}}, n)
			b.prefill(fmt.Sprintf("%s down %d", s.name, n), MatMul{K: s.ff, F16: f16, Parts: []Part{{q6, s.hidden}}}, n)
		}
	}
	one := []Tuning{{}}
	for _, n := range []int{2, 4, 8} {
		b.product(s.name+" gate+up", MatVec{K: s.hidden, Tokens: n, Act: &act, Parts: []Part{{q4, s.ff}, {q4, s.ff}}}, one)
		b.product(s.name+" down", MatVec{K: s.ff, Tokens: n, Residual: InPlace, Parts: []Part{{q6, s.hidden}}}, one)
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
	for _, tile := range []Tile{{}, {128, 128, 8, 8}, {64, 128, 8, 8}, {128, 64, 8, 8}, {64, 64, 8, 8}, {64, 64, 8, 4}, {64, 64, 4, 8}} {
		m.Tile = tile
		k, err := m.Kernel(b.dev)
		if err != nil {
			continue // does not fit
		}
		k.Grid[1] = m.TokenTiles(b.dev, tokens)
		b.report(name+strings.TrimPrefix(k.Name, "matmul"), []ready{b.bind(k, false, bufs...)}, 0, flop)
	}
}

// attention times attention of one token at some depths, and what goes with it.
func (b *bench) attention(s shape) {
	width := (s.heads + 2*s.kv) * s.dim
	const capacity = 16384
	q, near, far := b.fill(4*width), b.fill(8*256*s.dim), b.fill(8*65*s.dim)
	keys, values := b.fill(2*s.kv*s.dim*capacity), b.fill(2*s.kv*s.dim*capacity)
	span := buffer(b.rig, []uint32{0, 1, capacity, 0})
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
		b.report(name+" rotate", []ready{b.bind(rotate, false, steps, span, far, near, q, keys, values)}, 0, 0)
		for _, splits := range []int{8, 16, 32, 64, 128} {
			o := Attend{Heads: s.heads, KVHeads: s.kv, HeadDim: s.dim, Width: width, Half: true, Splits: splits, Scale: 0.1, Quantise: true}
			attend, err := o.Kernel(b.dev)
			if err != nil {
				b.t.Fatal(err)
			}
			combine, err := o.Combine(b.dev)
			if err != nil {
				b.t.Fatal(err)
			}
			parts, y := b.empty(4*o.PartsWords(1)), b.empty(4*QuantWords(s.heads*s.dim))
			ra, rc := b.bind(attend, false, steps, span, q, keys, values, parts), b.bind(combine, false, steps, span, parts, y)
			b.report(fmt.Sprintf("%s split %d", name, splits), []ready{ra}, 4*s.kv*s.dim*depth, 0)
			b.report(fmt.Sprintf("%s split %d with combine, half of", name, splits), []ready{ra, rc}, 0, 0)
		}
	}
}
