//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

// busy does about 3 µs of arithmetic on a GPU.
const busy = `
@group(0) @binding(0) var<storage, read> step: array<u32>;
@group(0) @binding(1) var<storage, read_write> keys: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) {
	var a = y[i] + keys[i] + f32(step[0]);
	for (var n = 0u; n < 1200u; n++) { a = fma(a, 0.5, 0.5); }
	y[i] = a;
	keys[i] = a;
}`

// token is a command buffer as decoding has it: many dispatches that wait for each other, each
// with a buffer of its own out of some, then a copy of the logits for the host.
type token struct {
	t                  *testing.T
	d                  *Device
	p                  *Pipeline
	groups             []*Group
	step, logits, host *Buffer
	upload             *Buffer
	out                []byte
}

const logitBytes = 151936 * 4

func newToken(t *testing.T, d *Device, buffers int) *token {
	p, err := d.NewPipeline(PipelineDesc{Name: "busy", WGSL: busy, Bindings: []Access{ReadOnly, ReadWrite, ReadWrite}, Unchecked: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Release)
	k := &token{t: t, d: d, p: p, out: make([]byte, logitBytes), step: buffer(t, d, 64, Storage|CopyDst),
		logits: buffer(t, d, logitBytes, Storage|CopySrc), host: buffer(t, d, logitBytes, MapRead|CopyDst), upload: buffer(t, d, 64, mapWrite|CopySrc)}
	for range buffers {
		g, err := d.NewGroup(p, Whole(k.step), Whole(buffer(t, d, 4096, Storage)), Whole(k.logits))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(g.Release)
		k.groups = append(k.groups, g)
	}
	return k
}

func (k *token) record(upload bool) *Commands {
	c := k.d.Begin()
	if upload {
		c.Copy(k.step, 0, k.upload, 0, 64)
	}
	for i := range 141 {
		c.Dispatch(k.p, k.groups[i%len(k.groups)], 1, 1, 1)
	}
	c.Copy(k.host, 0, k.logits, 0, logitBytes)
	if err := c.Finish(); err != nil {
		k.t.Fatal(err)
	}
	return c
}

func (k *token) mapped(b *Buffer, mode uint64, size int) <-chan result {
	id, done := expect()
	mapAsync(b.handle, mode, 0, uint64(size), callbackInfo{mode: allowSpontaneous, callback: callbacks.mapped, userdata1: id})
	return done
}

// TestBenchStep prints where the host's time goes between two tokens, for some ways to hand
// over a step's data and to copy its result. It runs only if APR_WGPU_BENCH is set.
func TestBenchStep(t *testing.T) {
	if os.Getenv("APR_WGPU_BENCH") == "" {
		t.Skip("a measurement that nothing can fail: set APR_WGPU_BENCH=1 on a GPU (docs/wgpu-kernels.md)")
	}
	d := open(t)
	fmt.Println(d.Name)
	crew := newCrew(3)
	defer crew.stop()
	for _, tt := range []struct {
		name    string
		buffers int
		data    string // how the step's data gets there
		copying string
		rounds  int
	}{
		{"as it is", 90, "write", "goroutines", 0}, {"fewer buffers", 30, "write", "goroutines", 0}, {"one buffer", 1, "write", "goroutines", 0},
		{"many buffers", 300, "write", "goroutines", 0}, {"no data", 30, "none", "goroutines", 0}, {"data in a mapped buffer", 30, "mapped", "goroutines", 0},
		{"one copies", 30, "mapped", "one", 0}, {"a crew copies", 30, "mapped", "crew", 0}, {"nothing copied", 30, "mapped", "none", 0},
		{"as it is", 90, "write", "goroutines", 0},
	} {
		newToken(t, d, tt.buffers).bench(fmt.Sprintf("%s: %d buffers, data %s, copied by %s", tt.name, tt.buffers, tt.data, tt.copying), tt.data, tt.copying, crew)
	}
}

func (k *token) bench(name, data, copying string, crew *crew) {
	d, t := k.d, k.t
	names := []string{"data", "submit", "again", "record", "wait", "last poll", "range", "copy", "unmap", "scan"}
	sums := make([]time.Duration, len(names))
	const tokens = 300
	upload := data == "mapped"
	var open <-chan result
	if upload {
		open = k.mapped(k.upload, 2, 64)
		call(proc.poll, d.handle, 1, 0)
	}
	next := k.record(upload)
	polls := 0
	var begin time.Time
	for n := range tokens + 50 {
		if n == 50 {
			clear(sums)
			polls, begin = 0, time.Now()
		}
		mark := time.Now()
		lap := func(i int) {
			now := time.Now()
			sums[i] += now.Sub(mark)
			mark = now
		}
		switch data {
		case "write":
			if err := d.Write(k.step, 0, k.out[:32]); err != nil {
				t.Fatal(err)
			}
		case "mapped":
			if r := <-open; r.status != statusSuccess {
				t.Fatal(r)
			}
			from := call(proc.mappedRange, k.upload.handle, 0, 64)
			copy(memory(from, 64), k.out)
			call(proc.unmap, k.upload.handle)
		}
		lap(0)
		if err := next.Submit(); err != nil {
			t.Fatal(err)
		}
		lap(1)
		if upload {
			open = k.mapped(k.upload, 2, 64)
		}
		lap(2)
		next = k.record(upload)
		lap(3)
		done := k.mapped(k.host, 1, logitBytes)
		for waiting := true; waiting; polls++ {
			lap(4)
			call(proc.poll, d.handle, 0, 0)
			select {
			case <-done:
				waiting = false
			default:
			}
		}
		lap(5)
		from := call(proc.mappedRange, k.host.handle, 0, logitBytes)
		src := memory(from, logitBytes)
		lap(6)
		switch copying {
		case "goroutines":
			copyAll(k.out, src)
		case "one":
			copy(k.out, src)
		case "crew":
			crew.copy(k.out, src)
		}
		lap(7)
		call(proc.unmap, k.host.handle)
		lap(8)
		bytes.Count(k.out, []byte{1}) // as the engine looks at all logits
		lap(9)
	}
	line := ""
	for i, n := range names {
		line += fmt.Sprintf("  %s %.1f", n, float64(sums[i].Nanoseconds())/1e3/tokens)
	}
	fmt.Printf("%-80s %.1f µs a token, %d polls:%s\n", name, float64(time.Since(begin).Nanoseconds())/1e3/tokens, polls/tokens, line)
	next.Release()
}

// memory is that of a mapped buffer.
//
//go:noinline
func memory(from uintptr, n int) []byte { return unsafe.Slice(*(**byte)(unsafe.Pointer(&from)), n) }

// crew is goroutines that spin until there is something to copy.
type crew struct {
	turn, left atomic.Int64
	dst, src   []byte
	n          int
	group      sync.WaitGroup
}

func newCrew(n int) *crew {
	c := &crew{n: n}
	for i := range n {
		c.group.Go(func() {
			for seen := int64(0); ; {
				now := c.turn.Load()
				if now < 0 {
					return
				}
				if now == seen {
					continue
				}
				seen = now
				c.part(i + 1)
				c.left.Add(-1)
			}
		})
	}
	return c
}

func (c *crew) part(i int) {
	each := (len(c.dst)/(c.n+1) + 63) &^ 63
	from, to := min(len(c.dst), i*each), min(len(c.dst), (i+1)*each)
	copy(c.dst[from:to], c.src[from:to])
}

func (c *crew) copy(dst, src []byte) {
	c.dst, c.src = dst, src
	c.left.Store(int64(c.n))
	c.turn.Add(1)
	c.part(0)
	for c.left.Load() > 0 {
	}
}

func (c *crew) stop() {
	c.turn.Store(-1 << 40)
	c.group.Wait()
}
