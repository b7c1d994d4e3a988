package kernels

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/driver/wgpu"
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
