package cuda

import (
	"bytes"
	"math"
	"os"
	"testing"
	"unsafe"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/driver/cuda/emutest"
)

func TestMain(m *testing.M) { os.Exit(emutest.Main(m)) }

// gpu is a context with what a kernel test needs.
type gpu struct {
	t       testing.TB
	c       *cuda.Context
	lib     *library
	stream  cuda.Stream
	buffers []guarded
}

// guarded is memory between two canaries.
type guarded struct {
	p cuda.Ptr // of the first canary
	n int64    // bytes between them
}

const canary = 256 // bytes

func openGPU(t testing.TB) *gpu {
	g := &gpu{t: t, c: emutest.Open(t)}
	var err error
	if g.lib, err = newLibrary(g.c); err != nil {
		t.Fatal(err)
	}
	g.do(func() (err error) {
		g.stream, err = g.c.NewStream()
		return err
	})
	t.Cleanup(g.checkCanaries)
	return g
}

func (g *gpu) do(f func() error) {
	g.t.Helper()
	if err := g.c.Do(f); err != nil {
		g.t.Fatal(err)
	}
}

// find is a lookup of a kernel, loaded when it is first wanted. It must be called
// inside do.
func (g *gpu) find(module, kernel string) (cuda.Function, error) { return g.lib.find(module, kernel) }

// alloc returns n bytes of device memory, all bits set: NaN as any float.
func (g *gpu) alloc(n int64) cuda.Ptr {
	g.t.Helper()
	var p cuda.Ptr
	g.do(func() (err error) {
		if p, err = g.c.Alloc(n + 2*canary); err != nil {
			return err
		}
		if err = g.c.Fill(p, 0xff, n+2*canary, g.stream); err != nil {
			return err
		}
		return g.c.Wait(g.stream)
	})
	g.buffers = append(g.buffers, guarded{p, n})
	return p + canary
}

// upload puts a slice into new device memory.
func upload[T any](g *gpu, x []T) cuda.Ptr {
	g.t.Helper()
	p := g.alloc(int64(len(x)) * int64(unsafe.Sizeof(x[0])))
	g.do(func() error { return cuda.Upload(g.c, p, x) })
	return p
}

func download[T any](g *gpu, p cuda.Ptr, n int) []T {
	g.t.Helper()
	x := make([]T, n)
	g.do(func() error { return cuda.Download(g.c, x, p) })
	return x
}

// run runs launches in order and waits.
func (g *gpu) run(launches ...*cuda.Launch) {
	g.t.Helper()
	g.do(func() error {
		for _, l := range launches {
			if err := g.c.Run(l, g.stream); err != nil {
				return err
			}
		}
		return g.c.Wait(g.stream)
	})
}

// release frees everything allocated so far, after looking at the canaries.
func (g *gpu) release() {
	g.t.Helper()
	g.checkCanaries()
	g.do(func() error {
		for _, b := range g.buffers {
			if err := g.c.Free(b.p); err != nil {
				return err
			}
		}
		return nil
	})
	g.buffers = nil
}

func (g *gpu) checkCanaries() {
	g.t.Helper()
	want := bytes.Repeat([]byte{0xff}, canary)
	for _, b := range g.buffers {
		for _, at := range []cuda.Ptr{b.p, b.p + canary + cuda.Ptr(b.n)} {
			if !bytes.Equal(download[byte](g, at, canary), want) {
				g.t.Errorf("a kernel wrote outside its %d bytes", b.n)
			}
		}
	}
}

// rowError is the worst relative error of rows of width numbers: the norm of the
// difference over the norm of the reference. NaN anywhere is infinite.
func rowError(got []float32, want []float64, width int) float64 {
	worst := 0.0
	for at := 0; at < len(want); at += width {
		var d, n float64
		for i := at; i < at+width; i++ {
			e := float64(got[i]) - want[i]
			d += e * e
			n += want[i] * want[i]
		}
		e := math.Sqrt(d / max(n, 1e-300))
		if !(e <= worst) {
			worst = e
		}
		if math.IsNaN(worst) {
			return math.Inf(1)
		}
	}
	return worst
}
