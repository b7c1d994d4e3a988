//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// adapter is the one that tests use: whose name contains APR_WGPU_ADAPTER, else
// the first. CI has lavapipe; elsewhere a machine without any skips the test.
func adapter(t *testing.T) *Adapter {
	t.Helper()
	list, err := Adapters()
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
	t.Skipf("no adapter: %v", err)
	return nil
}

func open(t *testing.T) *Device {
	t.Helper()
	d, err := adapter(t).Open(Features{F16: true, Subgroups: true, Timestamps: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func buffer(t *testing.T, d *Device, size uint64, usage Usage) *Buffer {
	t.Helper()
	b, err := d.NewBuffer(size, usage)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Release)
	return b
}

const addOne = `
@group(0) @binding(0) var<storage, read> x: array<u32>;
@group(0) @binding(1) var<storage, read_write> y: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
	if id.x < arrayLength(&x) { y[id.x] = x[id.x] + 1u; }
}`

// adder is a pipeline that adds 1 to n numbers, with its buffers.
type adder struct {
	p            *Pipeline
	there, back  *Group
	a, b, result *Buffer
}

const n = 1000

func newAdder(t *testing.T, d *Device, unchecked bool) adder {
	t.Helper()
	p, err := d.NewPipeline(PipelineDesc{Name: "add one", WGSL: addOne, Bindings: []Access{ReadOnly, ReadWrite}, Unchecked: unchecked})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Release)
	s := adder{p: p, a: buffer(t, d, n*4, Storage|CopyDst|CopySrc), b: buffer(t, d, n*4, Storage), result: buffer(t, d, n*4, MapRead|CopyDst)}
	for _, g := range []struct {
		group    **Group
		from, to *Buffer
	}{{&s.there, s.a, s.b}, {&s.back, s.b, s.a}} {
		if *g.group, err = d.NewGroup(p, Whole(g.from), Whole(g.to)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup((*g.group).Release)
	}
	return s
}

// Dispatches that depend on each other run in order, and what they compute comes
// back.
func TestCompute(t *testing.T) {
	for _, unchecked := range []bool{false, true} {
		d := open(t)
		s := newAdder(t, d, unchecked)
		in, out := make([]byte, n*4), make([]byte, n*4)
		for i := range n {
			binary.LittleEndian.PutUint32(in[i*4:], uint32(i*i))
		}
		if err := d.Write(s.a, 0, in); err != nil {
			t.Fatal(err)
		}
		c := d.Begin()
		const pairs = 20
		for range pairs {
			c.Dispatch(s.p, s.there, (n+63)/64, 1, 1)
			c.Dispatch(s.p, s.back, (n+63)/64, 1, 1)
		}
		c.Copy(s.result, 0, s.a, 0, n*4)
		if err := c.Submit(); err != nil {
			t.Fatal(err)
		}
		if err := d.Read(s.result, 0, out); err != nil {
			t.Fatal(err)
		}
		for i := range n {
			if got, want := binary.LittleEndian.Uint32(out[i*4:]), uint32(i*i+2*pairs); got != want {
				t.Fatalf("element %d is %d, want %d", i, got, want)
			}
		}
	}
}

// Parts of a buffer are written, bound and copied like buffers of their own.
func TestParts(t *testing.T) {
	d := open(t)
	s := newAdder(t, d, false)
	whole := buffer(t, d, 8*PartAlignment, Storage|CopyDst|CopySrc)
	from, to := whole.Part(PartAlignment, 64), whole.Part(4*PartAlignment, 64)
	in := make([]byte, 64)
	for i := range 16 {
		binary.LittleEndian.PutUint32(in[i*4:], uint32(i))
	}
	if err := d.Write(from, 0, in); err != nil {
		t.Fatal(err)
	}
	other := buffer(t, d, 64, Storage|CopySrc)
	g, err := d.NewGroup(s.p, Whole(from), Whole(other))
	if err != nil {
		t.Fatal(err)
	}
	defer g.Release()
	c := d.Begin()
	c.Dispatch(s.p, g, 1, 1, 1)
	c.Copy(to, 0, other, 0, 64)
	c.Copy(s.result, 0, to, 0, 64)
	if err := c.Submit(); err != nil {
		t.Fatal(err)
	}
	from.Release() // which releases nothing
	if err := d.Read(s.result, 0, in); err != nil {
		t.Fatal(err)
	}
	for i := range 16 {
		if got := binary.LittleEndian.Uint32(in[i*4:]); got != uint32(i+1) {
			t.Fatalf("element %d is %d, want %d", i, got, i+1)
		}
	}
}

// What is filled in between submissions is what each of them copies.
func TestUpload(t *testing.T) {
	d := open(t)
	s := newAdder(t, d, false)
	u, err := d.NewUpload(n * 4)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Release()
	total := buffer(t, d, 4*n*4, MapRead|CopyDst)
	in, out := make([]byte, n*4), make([]byte, 4*n*4)
	for turn := range 4 {
		for i := range n {
			binary.LittleEndian.PutUint32(in[i*4:], uint32(i+1000*turn))
		}
		if err := u.Fill(in); err != nil {
			t.Fatal(err)
		}
		c := d.Begin()
		c.Copy(s.a, 0, u.Buffer, 0, n*4)
		c.Dispatch(s.p, s.there, (n+63)/64, 1, 1)
		c.Dispatch(s.p, s.back, (n+63)/64, 1, 1)
		c.Copy(total, uint64(turn)*n*4, s.a, 0, n*4)
		if err := c.Submit(); err != nil {
			t.Fatal(err)
		}
		u.Reopen()
		u.Reopen()     // asked already
		if turn == 2 { // else Fill waits by itself
			if err := d.Wait(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := d.Read(total, 0, out); err != nil {
		t.Fatal(err)
	}
	for i := range 4 * n {
		if got, want := binary.LittleEndian.Uint32(out[i*4:]), uint32(i%n+1000*(i/n)+2); got != want {
			t.Fatalf("turn %d, element %d is %d, want %d", i/n, i%n, got, want)
		}
	}
	if err := u.Fill(make([]byte, n*4+4)); !errors.Is(err, ErrInvalid) {
		t.Errorf("more data than memory: %v", err)
	}
	if err := d.Err(); err != nil {
		t.Errorf("the device did not survive: %v", err)
	}
}

func TestTimer(t *testing.T) {
	d := open(t)
	if !d.Features.Timestamps {
		t.Skip("the adapter has no timestamps inside passes")
	}
	s := newAdder(t, d, false)
	timer, err := d.NewTimer(2)
	if err != nil {
		t.Fatal(err)
	}
	defer timer.Release()
	c := d.Begin()
	c.Mark(timer, 0)
	c.Dispatch(s.p, s.there, (n+63)/64, 1, 1)
	c.Mark(timer, 1)
	c.Collect(timer, 2)
	if err := c.Submit(); err != nil {
		t.Fatal(err)
	}
	times, err := timer.Times(2)
	if err != nil {
		t.Fatal(err)
	}
	if times[0] != 0 || times[1] <= 0 || times[1].Seconds() > 10 {
		t.Errorf("marks at %v", times)
	}
}

// What breaks the rules is an error of its own kind and leaves the device alive.
func TestErrors(t *testing.T) {
	d := open(t)
	s := newAdder(t, d, false)
	_, err := d.NewPipeline(PipelineDesc{Name: "broken", WGSL: "fn main( {}"})
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "broken") || strings.Contains(err.Error(), "\n") {
		t.Errorf("bad shader: %v, want a line of its own", err)
	}
	// What the library said on a card without memory left.
	if err := errorOf(2, "Validation Error\n\nCaused by:\n  In wgpuDeviceCreateBuffer\n    Not enough memory left.\n"); !errors.Is(err, ErrMemory) {
		t.Errorf("no memory left: %v", err)
	}
	if _, err := d.NewPipeline(PipelineDesc{WGSL: addOne, Entry: "nothing", Bindings: []Access{ReadOnly, ReadWrite}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("no such entry point: %v", err)
	}
	if _, err := d.NewGroup(s.p, Binding{s.a, 0, 2 * s.a.Size}, Whole(s.b)); !errors.Is(err, ErrInvalid) {
		t.Errorf("binding past the end: %v", err)
	}
	if _, err := d.NewBuffer(1<<40, Storage); err == nil {
		t.Error("a buffer of a tebibyte is not refused")
	}
	c := d.Begin()
	c.Dispatch(s.p, s.there, d.Limits.Workgroups+1, 1, 1)
	if err := c.Submit(); !errors.Is(err, ErrInvalid) {
		t.Errorf("too many workgroups: %v", err)
	}
	if err := d.Write(s.a, s.a.Size, make([]byte, 4)); !errors.Is(err, ErrInvalid) {
		t.Errorf("write past the end: %v", err)
	}
	if err := d.Err(); err != nil {
		t.Errorf("the device did not survive: %v", err)
	}
}

// Shaders are compiled by several goroutines at once, and each is told its own errors.
func TestCompileAll(t *testing.T) {
	d := open(t)
	for _, wrong := range []bool{false, true} {
		var list []*Pipeline
		for i := range 24 {
			desc := PipelineDesc{Name: fmt.Sprintf("shader %d.", i), WGSL: addOne, Bindings: []Access{ReadOnly, ReadWrite}}
			if wrong && i%3 == 2 {
				desc.WGSL = strings.Replace(addOne, "1u", "1.5", 1)
			}
			p, err := d.Layout(desc)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Release)
			list = append(list, p)
		}
		for i, err := range d.CompileAll(list, 8) {
			if bad := wrong && i%3 == 2; bad != (err != nil) || bad && !strings.Contains(err.Error(), list[i].Name) {
				t.Errorf("shader %d: %v", i, err)
			}
			if (list[i].handle != 0) != (err == nil) {
				t.Errorf("shader %d has the pipeline %#x, error %v", i, list[i].handle, err)
			}
		}
	}
	if err := d.Err(); err != nil {
		t.Errorf("the device did not survive: %v", err)
	}
}

// A lost device answers every call with the loss.
func TestLost(t *testing.T) {
	d := open(t)
	s := newAdder(t, d, false)
	u, err := d.NewUpload(64)
	if err != nil {
		t.Fatal(err)
	}
	c := d.Begin()
	c.Dispatch(s.p, s.there, 1, 1, 1)
	d.Destroy()
	if err := c.Submit(); err == nil {
		t.Error("submitting to a lost device is no error")
	}
	if err := d.Wait(); !errors.Is(err, ErrLost) {
		t.Errorf("wait: %v, want %v", err, ErrLost)
	}
	if _, err := d.NewBuffer(4, Storage); !errors.Is(err, ErrLost) {
		t.Errorf("buffer: %v, want %v", err, ErrLost)
	}
	if err := d.Write(s.a, 0, make([]byte, 4)); !errors.Is(err, ErrLost) {
		t.Errorf("write: %v, want %v", err, ErrLost)
	}
	if err := d.Read(s.result, 0, make([]byte, 8)); !errors.Is(err, ErrLost) {
		t.Errorf("read: %v, want %v", err, ErrLost)
	}
	u.Reopen()
	if err := u.Fill(make([]byte, 8)); !errors.Is(err, ErrLost) {
		t.Errorf("fill: %v, want %v", err, ErrLost)
	}
	if _, err := d.NewUpload(64); !errors.Is(err, ErrLost) {
		t.Errorf("upload: %v, want %v", err, ErrLost)
	}
	c = d.Begin()
	c.Dispatch(s.p, s.there, 1, 1, 1)
	if err := c.Submit(); !errors.Is(err, ErrLost) {
		t.Errorf("submit: %v, want %v", err, ErrLost)
	}
}

// Machines without driver or library: an error or no adapter, in a process of
// its own because both are looked for once.
func TestNothingThere(t *testing.T) {
	const helper = "APR_TEST_WGPU_LIST"
	if os.Getenv(helper) != "" {
		list, err := Adapters()
		for _, a := range list {
			t.Logf("adapter %s", a.Name)
		}
		if errors.Is(err, ErrUnavailable) {
			t.Log("unavailable")
		}
		return
	}
	adapter(t)
	for _, tt := range []struct{ name, env, want string }{
		{"no driver", "VK_DRIVER_FILES=/nonexistent", ""},
		{"no such library", "WGPU_NATIVE_PATH=/nonexistent.so", "unavailable"},
		{"not the library", "WGPU_NATIVE_PATH=/proc/self/exe", "unavailable"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestNothingThere$", "-test.v")
			cmd.Env = append(os.Environ(), helper+"=1", tt.env)
			out, err := cmd.CombinedOutput()
			if err != nil || strings.Contains(string(out), "adapter ") || !strings.Contains(string(out), tt.want) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
