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
		t.Skip("a measurement that nothing can fail: set APR_WGPU_BENCH=1 on a GPU (docs/wgpu-kernels.md)")
	}
	r := newRig(t, wgpu.Features{F16: true, Subgroups: true, Timestamps: true})
	b := &bench{rig: r, dev: r.device(), filter: want, pools: map[int]*wgpu.Buffer{}}
	if r.d.Features.Timestamps {
		var err error
		if b.timer, err = r.d.NewTimer(2); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("%s, %s, %s: %+v\n", r.d.Name, r.d.API, r.d.Driver, b.dev)
	b.chain()
	b.token(shape{"tiny", 256, 512, 4, 2, 64, 1024, 2})
	for _, s := range benchShapes {
		b.token(s)
	}
	for _, s := range benchShapes {
		b.decode(s)
		b.attention(s)
	}
}

// shape is a model of the Qwen 2.5 family.
type shape struct {
	name                            string
	hidden, ff, heads, kv, dim, out int
	layers                          int
}

var benchShapes = []shape{
	{"1.5B", 1536, 8960, 12, 2, 128, 151936, 28},
	{"7B", 3584, 18944, 28, 4, 128, 152064, 28},
}

// bench times kernels on random contents.
type bench struct {
	*rig
	dev    Device
	filter string
	pools  map[int]*wgpu.Buffer
	timer  *wgpu.Timer
	burn   *ready
	// buffers of TestBenchFiles, by name, size and contents
	buffers map[string][]*wgpu.Buffer
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

// candidate is a way to do something: kernels that run one after the other.
type candidate struct {
	name  string
	list  []ready
	bytes int     // read by one kernel
	flop  float64 // done by one kernel
}

// warm keeps the device busy for some milliseconds, so that its clocks are those of
// continuous work when the measured kernels come.
func (b *bench) warm(c *wgpu.Commands) {
	if b.dev.Software {
		return
	}
	if b.burn == nil {
		k := Kernel{Name: "burn", Grid: [3]int{1024, 1, 1}, Bindings: []Binding{{"y", wgpu.ReadWrite}}, WGSL: `
@group(0) @binding(0) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(256) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  var a = y[id.x & 1023u];
  for (var i = 0u; i < 60000u; i++) { a = fma(a, 0.9999, 0.5); }
  y[id.x & 1023u] = a;
}`}
		r := b.bind(k, true, b.empty(4096))
		b.burn = &r
	}
	for range 8 {
		c.Dispatch(b.burn.p, b.burn.g, b.burn.k.Grid[0], 1, 1)
	}
}

// once runs a candidate and returns the time of a kernel on the device and that of
// recording and submitting it on the host.
func (b *bench) once(x candidate) (device, host time.Duration) {
	b.t.Helper()
	rounds := max(1, 48/len(x.list))
	if x.flop > 0 {
		rounds = 4
	}
	c := b.d.Begin()
	b.warm(c)
	if b.timer != nil {
		c.Mark(b.timer, 0)
	}
	start := time.Now()
	for range rounds {
		for _, k := range x.list {
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
	host = time.Since(start)
	start = time.Now()
	if err := b.d.Wait(); err != nil {
		b.t.Fatal(err)
	}
	device = time.Since(start)
	if b.timer != nil {
		marks, err := b.timer.Times(2)
		if err != nil {
			b.t.Fatal(err)
		}
		device = marks[1] - marks[0]
	}
	n := time.Duration(rounds * len(x.list))
	return device / n, host / n
}

// compare measures candidates in turns, three times, and prints the shortest times.
func (b *bench) compare(list ...candidate) {
	b.t.Helper()
	best := make([]time.Duration, len(list))
	record := make([]time.Duration, len(list))
	for round := range 3 {
		for i, x := range list {
			d, h := b.once(x)
			if round == 0 || d < best[i] {
				best[i] = d
			}
			if round == 0 || h < record[i] {
				record[i] = h
			}
		}
	}
	for i, x := range list {
		d := float64(best[i])
		line := fmt.Sprintf("%-66s %8.2f µs", x.name, d/1e3)
		if x.bytes > 0 {
			line += fmt.Sprintf(" %6.0f GB/s", float64(x.bytes)/d)
		}
		if x.flop > 0 {
			line += fmt.Sprintf(" %6.1f TFLOP/s", x.flop/d/1e3)
		}
		fmt.Printf("%s  rec %.1f, compiled in %d ms\n", line, float64(record[i])/1e3, x.list[0].compiled.Milliseconds())
	}
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
	b.compare(candidate{name: "chain of dependent dispatches", list: []ready{b.bind(k, false, x, y), b.bind(k, false, y, x)}})
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
			b.compare(candidate{name: k.Name, list: []ready{b.bind(k, false, bufs...)}})
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
	several := []Tuning{{}}
	for _, threads := range []int{32, 64, 128} {
		several = append(several, tune(threads, 32, 1, 2), tune(threads, 32, 1, 3), tune(threads, 32, 1, 4), tune(threads, 32, 1, 5), tune(threads, 16, 1, 3), tune(threads, 16, 1, 4))
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
	for _, tile := range []HalfTile{{}, {64, 64, 8, 8, 2}, {64, 128, 8, 8, 1}, {64, 128, 8, 8, 2}, {128, 64, 8, 8, 2}, {128, 128, 8, 8, 1}, {128, 128, 8, 8, 2}, {64, 64, 8, 4, 1}, {64, 64, 4, 8, 1}} {
		h := HalfMul{K: m.K, Rows: out, Tile: tile}
		k, err := h.Kernel(b.dev)
		if err != nil {
			continue // does not fit
		}
		k.Grid[0] = h.TokenTiles(tokens)
		all = append(all, candidate{name + " " + k.Name, []ready{b.bind(k, false, halves, steps, x, scale, y)}, 0, flop})
	}
	b.compare(all...)
}

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
// logits, five dispatches a layer. Half of the layers have Q6_K where Q4_K_M has them.
func (b *bench) token(s shape) {
	if !b.wanted(s.name + " token") {
		return
	}
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
			bind(must(MatVec{K: s.ff, Tokens: 1, Residual: InPlace, Parts: []Part{{v, s.hidden}}}.Kernel(b.dev)), weights(v, s.ff, s.hidden), inner, x))
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
		fmt.Printf("%s token at %d: %d dispatches, %.0f µs on the device (%.0f a second), %.0f µs recording\n",
			s.name, depth, len(list), float64(best)/1e3, 1e9/float64(best), float64(host)/1e3)
		b.shares(list)
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
