package cuda_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/driver/cuda/emutest"
)

func TestMain(m *testing.M) { os.Exit(emutest.Main(m)) }

// addition is a stream with the kernel "add" on two vectors of ones and twos.
type addition struct {
	c    *cuda.Context
	s    cuda.Stream
	run  *cuda.Launch
	sum  cuda.Ptr
	n    int
	want float32
	f    cuda.Function
	with func(shared int) (*cuda.Launch, error) // dynamic shared memory
}

func newAddition(t *testing.T, c *cuda.Context, n int) *addition {
	t.Helper()
	ptx, err := os.ReadFile(filepath.Join("..", "..", "backend", "cuda", "ptx", "ops.sm_80.ptx"))
	if err != nil {
		t.Fatal(err)
	}
	a := &addition{c: c, n: n, want: 3}
	err = c.Do(func() error {
		m, _, err := c.LoadModule(ptx, false)
		if err != nil {
			return err
		}
		f, err := c.Function(m, "add")
		if err != nil {
			return err
		}
		if a.s, err = c.NewStream(); err != nil {
			return err
		}
		var in [2]cuda.Ptr
		for i := range in {
			if in[i], err = c.Alloc(int64(4 * n)); err != nil {
				return err
			}
			x := make([]float32, n)
			for j := range x {
				x[j] = float32(i + 1)
			}
			if err := cuda.Upload(c, in[i], x); err != nil {
				return err
			}
		}
		if a.sum, err = c.Alloc(int64(4 * n)); err != nil {
			return err
		}
		a.f = f
		a.with = func(shared int) (*cuda.Launch, error) {
			return cuda.NewLaunch("add", f, (n+255)/256, 256, shared, in[0], in[1], a.sum, n)
		}
		a.run, err = a.with(0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *addition) check(t *testing.T) {
	t.Helper()
	got := make([]float32, a.n)
	if err := a.c.Do(func() error { return cuda.Download(a.c, got, a.sum) }); err != nil {
		t.Fatal(err)
	}
	for i, x := range got {
		if x != a.want {
			t.Fatalf("element %d is %v, want %v", i, x, a.want)
		}
	}
}

func TestLaunch(t *testing.T) {
	c := emutest.Open(t)
	a := newAddition(t, c, 1000)
	for _, overlap := range []bool{false, true} {
		a.run.Overlap = overlap
		if err := c.Do(func() error { return errors.Join(c.Fill(a.sum, 0, 4000, a.s), c.Run(a.run, a.s), c.Wait(a.s)) }); err != nil {
			t.Fatal(err)
		}
		a.check(t)
	}
	err := c.Do(func() error {
		if n := testing.AllocsPerRun(100, func() { _ = c.Run(a.run, a.s) }); n > 0 {
			t.Errorf("a launch makes %v allocations", n)
		}
		return c.Wait(a.s)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestGraph(t *testing.T) {
	c := emutest.Open(t)
	a := newAddition(t, c, 300)
	err := c.Do(func() error {
		if err := c.BeginCapture(a.s); err != nil {
			return err
		}
		for range 3 {
			if err := c.Run(a.run, a.s); err != nil {
				return err
			}
		}
		g, err := c.EndCapture(a.s)
		if err != nil {
			return err
		}
		defer c.DestroyGraph(g)
		if n, err := c.Nodes(g); err != nil || n != 3 {
			t.Errorf("%d nodes, %v, want 3", n, err)
		}
		e, err := c.Instantiate(g)
		if err != nil {
			return err
		}
		defer c.DestroyExec(e)
		return errors.Join(c.UploadGraph(e, a.s), c.LaunchGraph(e, a.s), c.Wait(a.s))
	})
	if err != nil {
		t.Fatal(err)
	}
	a.check(t)
}

func TestPinnedMemory(t *testing.T) {
	c := emutest.Open(t)
	a := newAddition(t, c, 64)
	err := c.Do(func() error {
		b, err := c.HostAlloc(256)
		if err != nil {
			return err
		}
		for i := range b {
			b[i] = byte(i)
		}
		if err := errors.Join(c.UploadAsync(a.sum, b, a.s), c.Wait(a.s)); err != nil {
			return err
		}
		clear(b)
		if err := errors.Join(c.DownloadAsync(b, a.sum, a.s), c.Wait(a.s)); err != nil {
			return err
		}
		for i := range b {
			if b[i] != byte(i) {
				t.Fatalf("byte %d is %d", i, b[i])
			}
		}
		return c.FreeHost(b)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// illegalEnv is set in the process that TestIllegalAddress ruins.
const illegalEnv = "APR_TEST_ILLEGAL_ADDRESS"

// A kernel that writes outside its memory loses the context: every later call fails and
// closing works. A new context is fine in the emulation; NVIDIA's driver then wants
// another process, so there the test is in one of its own.
func TestIllegalAddress(t *testing.T) {
	if !emutest.Emulated() && os.Getenv(illegalEnv) == "" {
		child := exec.Command(os.Args[0], "-test.v", "-test.run", "^TestIllegalAddress$")
		child.Env = append(os.Environ(), illegalEnv+"=1")
		out, err := child.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestIllegalAddress") {
			t.Errorf("the process of its own: %v\n%s", err, out)
		}
		return
	}
	c := emutest.Open(t)
	a := newAddition(t, c, 256)
	if err := a.run.Set(2, cuda.Ptr(0x1000)); err != nil {
		t.Fatal(err)
	}
	err := c.Do(func() error { return errors.Join(c.Run(a.run, a.s), c.Wait(a.s)) })
	if !cuda.IsCode(err, cuda.IllegalAddress) {
		t.Fatalf("error %v, want an illegal address", err)
	}
	if err := c.Do(func() error { _, err := c.Alloc(16); return err }); !cuda.IsCode(err, cuda.IllegalAddress) {
		t.Errorf("a later call: %v, want the same error", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := c.Do(func() error { return nil }); !errors.Is(err, cuda.ErrClosed) {
		t.Errorf("use after close: %v", err)
	}
	if !emutest.Emulated() {
		return
	}
	again := newAddition(t, emutest.Open(t), 256)
	if err := again.c.Do(func() error { return errors.Join(again.c.Run(again.run, again.s), again.c.Wait(again.s)) }); err != nil {
		t.Fatal(err)
	}
	again.check(t)
}

func TestErrors(t *testing.T) {
	c := emutest.Open(t)
	err := c.Do(func() error { _, _, err := c.LoadModule([]byte("this is not PTX"), true); return err })
	const invalidImage = 200 // what NVIDIA's driver calls a text that it does not take for PTX
	if !cuda.IsCode(err, cuda.InvalidPTX) && (emutest.Emulated() || !cuda.IsCode(err, invalidImage)) {
		t.Errorf("bad PTX: %v", err)
	}
	err = c.Do(func() error { _, err := c.Alloc(1 << 50); return err })
	if !cuda.IsCode(err, cuda.OutOfMemory) || !strings.Contains(err.Error(), "OUT_OF_MEMORY") {
		t.Errorf("a petabyte: %v", err)
	}
	// A context that does not come back does not keep Close waiting.
	hold, held := make(chan bool), make(chan bool)
	go c.Do(func() error { held <- true; <-hold; return nil })
	<-held
	start := time.Now()
	if err := c.Close(); !errors.Is(err, cuda.ErrBusy) || time.Since(start) > 5*time.Second {
		t.Errorf("close of a busy context: %v after %v", err, time.Since(start))
	}
	close(hold)
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func TestOpenFails(t *testing.T) {
	t.Setenv(cuda.LibraryEnv, "/nonexistent/libcuda.so.1")
	if _, err := cuda.Open(); !errors.Is(err, cuda.ErrNoDriver) {
		t.Errorf("a missing library: %v", err)
	}
	text := filepath.Join(t.TempDir(), "libcuda.so.1")
	if err := os.WriteFile(text, []byte("not a library"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(cuda.LibraryEnv, text)
	if _, err := cuda.Open(); !errors.Is(err, cuda.ErrNoDriver) {
		t.Errorf("a text file: %v", err)
	}
}

func TestInitFails(t *testing.T) {
	emutest.Set(t, "init", int64(cuda.NoDevice))
	if _, err := cuda.Open(); !errors.Is(err, cuda.ErrNoDriver) || !cuda.IsCode(err, cuda.NoDevice) {
		t.Errorf("error %v", err)
	}
}

func TestDevices(t *testing.T) {
	d, err := cuda.Open()
	if err != nil {
		t.Fatal(err)
	}
	list, err := d.Devices()
	if err != nil || len(list) == 0 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, dev := range list {
		t.Logf("%+v, driver %d from %s", dev, d.Version, d.Path)
		if dev.Name == "" || dev.Capability() < 30 || dev.Memory <= 0 || dev.SMs <= 0 || len(dev.UUID) != 40 {
			t.Errorf("%+v", dev)
		}
	}
	c := emutest.Open(t)
	err = c.Do(func() error {
		free, total, err := c.Memory()
		if free <= 0 || free > total {
			t.Errorf("%d bytes free of %d", free, total)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A kernel that has been allowed much shared memory keeps it when a later launch
// of it is prepared with less.
func TestAllowShared(t *testing.T) {
	c := emutest.Open(t)
	a := newAddition(t, c, 1000)
	much, err := a.with(100 << 10)
	if err != nil {
		t.Fatal(err)
	}
	err = c.Do(func() error {
		for _, n := range []int{100 << 10, 60 << 10, 0} {
			if err := c.AllowShared(a.f, n); err != nil {
				return err
			}
		}
		return errors.Join(c.Fill(a.sum, 0, 4000, a.s), c.Run(much, a.s), c.Wait(a.s))
	})
	if err != nil {
		t.Fatal(err)
	}
	a.check(t)
	if err := c.Do(func() error { return c.AllowShared(a.f, 1<<20) }); err == nil {
		t.Error("a mebibyte of shared memory is allowed")
	}
}
