package kernels

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/apr-engine/apr/driver/wgpu"
)

// adapter is the one whose name contains APR_WGPU_ADAPTER, else the first. CI has
// lavapipe; elsewhere a machine without any skips the test.
func adapter(t testing.TB) *wgpu.Adapter {
	t.Helper()
	list, err := wgpu.Adapters()
	if err == nil {
		for _, a := range list {
			if strings.Contains(a.Name, os.Getenv("APR_WGPU_ADAPTER")) {
				return a
			}
		}
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("no adapter: %v", err)
	}
	t.Skipf("no adapter here; CI has lavapipe and fails without: %v", err)
	return nil
}

// rig runs kernels on a device of its own.
type rig struct {
	t testing.TB
	d *wgpu.Device
}

func newRig(t testing.TB, f wgpu.Features) *rig {
	t.Helper()
	d, err := adapter(t).Open(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return &rig{t, d}
}

// bytesOf views numbers as bytes.
func bytesOf[T any](s []T) []byte {
	if len(s) == 0 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(&s[0])), len(s)*int(unsafe.Sizeof(s[0])))
}

// buffer makes a buffer with the given contents, rounded up to 16 bytes.
func buffer[T any](r *rig, data []T) *wgpu.Buffer {
	r.t.Helper()
	raw := bytesOf(data)
	b := r.empty(len(raw))
	if len(raw)%4 != 0 {
		raw = append(append([]byte(nil), raw...), make([]byte, 4-len(raw)%4)...)
	}
	if err := r.d.Write(b, 0, raw); err != nil {
		r.t.Fatal(err)
	}
	return b
}

// empty makes a buffer of n bytes, rounded up, filled with zeros.
func (r *rig) empty(n int) *wgpu.Buffer {
	r.t.Helper()
	b, err := r.d.NewBuffer(uint64(max(16, (n+15)&^15)), wgpu.Storage|wgpu.CopyDst|wgpu.CopySrc)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(b.Release)
	return b
}

// ready is a compiled kernel with its buffers.
type ready struct {
	k        Kernel
	p        *wgpu.Pipeline
	g        *wgpu.Group
	compiled time.Duration // how long that took
}

// bind compiles a kernel, with or without tests of indices, and binds its buffers.
func (r *rig) bind(k Kernel, checked bool, buffers ...*wgpu.Buffer) ready {
	r.t.Helper()
	if len(buffers) != len(k.Bindings) {
		r.t.Fatalf("%s: %d buffers, want %d", k.Name, len(buffers), len(k.Bindings))
	}
	start := time.Now()
	p, err := r.d.NewPipeline(k.Desc(checked))
	compiled := time.Since(start)
	if err != nil {
		r.t.Fatalf("%v\n%s", err, numbered(k.WGSL))
	}
	r.t.Cleanup(p.Release)
	var list []wgpu.Binding
	for _, b := range buffers {
		list = append(list, wgpu.Whole(b))
	}
	g, err := r.d.NewGroup(p, list...)
	if err != nil {
		r.t.Fatalf("%s: %v", k.Name, err)
	}
	r.t.Cleanup(g.Release)
	return ready{k, p, g, compiled}
}

func numbered(s string) string {
	var b strings.Builder
	for i, l := range strings.Split(s, "\n") {
		b.WriteString(strings.TrimSpace(strings.Join([]string{strconv.Itoa(i + 1), l}, "\t")) + "\n")
	}
	return b.String()
}

// run runs kernels one after the other.
func (r *rig) run(list ...ready) {
	r.t.Helper()
	c := r.d.Begin()
	for _, k := range list {
		c.Dispatch(k.p, k.g, k.k.Grid[0], k.k.Grid[1], k.k.Grid[2])
	}
	if err := c.Submit(); err != nil {
		r.t.Fatal(err)
	}
}

// read returns the first n numbers of a buffer.
func read[T any](r *rig, b *wgpu.Buffer, n int) []T {
	r.t.Helper()
	out := make([]T, n)
	raw := bytesOf(out)
	size := (len(raw) + 7) &^ 7
	m, err := r.d.NewBuffer(uint64(size), wgpu.MapRead|wgpu.CopyDst)
	if err != nil {
		r.t.Fatal(err)
	}
	defer m.Release()
	c := r.d.Begin()
	c.Copy(m, 0, b, 0, uint64(size))
	if err := c.Submit(); err != nil {
		r.t.Fatal(err)
	}
	whole := make([]byte, size)
	if err := r.d.Read(m, 0, whole); err != nil {
		r.t.Fatal(err)
	}
	copy(raw, whole)
	return out
}

// device is all that the rig's device can do.
func (r *rig) device() Device {
	r.t.Helper()
	d := DeviceOf(r.d.Info)
	if r.d.Features.Subgroups {
		b := r.empty(ProbeBytes)
		r.run(r.bind(SubgroupProbe(), true, b))
		d.SubgroupMin = SubgroupSize(read[byte](r, b, ProbeBytes))
		d.Subgroups = d.SubgroupMin > 1
	}
	return d
}

// TestSubgroupProbe: where there are subgroups their size is found.
func TestSubgroupProbe(t *testing.T) {
	r := newRig(t, wgpu.Features{Subgroups: true})
	if d := r.device(); r.d.Features.Subgroups && (d.SubgroupMin < 2 || d.SubgroupMin > 128) {
		t.Errorf("subgroups of %d", d.SubgroupMin)
	}
	if n := SubgroupSize([]byte{32, 0, 0, 0, 0xcf, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0}); n != 0 {
		t.Errorf("sizes 16 and 32 are taken for %d", n)
	}
	if n := SubgroupSize([]byte{32, 0, 0, 0, 0xdf, 255, 255, 255, 0, 0, 0, 0, 1, 0, 0, 0}); n != 0 {
		t.Errorf("wrong shuffles are taken for %d", n)
	}
}
