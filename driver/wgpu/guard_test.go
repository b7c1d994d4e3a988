//go:build linux && amd64

package wgpu

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"
)

// deathEnv says in a process of its own what happens to it.
const deathEnv = "APR_TEST_WGPU_DEATH"

// rerun runs the test alone in another process and returns its output and error.
func rerun(t *testing.T, what string) (string, error) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), deathEnv+"="+what)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// submitNothing hands the queue a command buffer that is none: the library panics.
func submitNothing(d *Device) {
	list := &[1]uintptr{}
	call(proc.submit, d.queue, 1, uintptr(unsafe.Pointer(list)))
}

// A panic of the library, which ends in abort, is a lost device; what follows fails at
// once, in other goroutines and with other devices too, and the process lives.
func TestGiveUp(t *testing.T) {
	if os.Getenv(deathEnv) == "" {
		adapter(t)
		out, err := rerun(t, "panic")
		if err != nil || !strings.Contains(out, "invalid command buffer") || !strings.Contains(out, "all calls answered") {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	d, other := open(t), open(t)
	s := newAdder(t, d, false)
	c := d.Begin()
	c.Dispatch(s.p, s.there, 1, 1, 1)
	submitNothing(d)
	if err := c.Submit(); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "wgpuQueueSubmit") {
		t.Errorf("submit: %v, want %v with the function's name", err, ErrLost)
	}
	for name, err := range map[string]error{
		"wait": other.Wait(), "write": d.Write(s.a, 0, make([]byte, 8)), "read": d.Read(s.result, 0, make([]byte, 8)),
		"submit": other.Begin().Submit(), "flush": d.Flush(), "close": d.Close(),
	} {
		if !errors.Is(err, ErrLost) && name != "close" || name == "close" && err != nil {
			t.Errorf("%s: %v, want %v", name, err, ErrLost)
		}
	}
	if _, err := other.NewBuffer(4, Storage); !errors.Is(err, ErrLost) {
		t.Errorf("buffer: %v, want %v", err, ErrLost)
	}
	if _, err := other.NewPipeline(PipelineDesc{WGSL: addOne, Bindings: []Access{ReadOnly, ReadWrite}}); !errors.Is(err, ErrLost) {
		t.Errorf("pipeline: %v, want %v", err, ErrLost)
	}
	if _, err := adapter(t).Open(Features{}); !errors.Is(err, ErrLost) {
		t.Errorf("open: %v, want %v", err, ErrLost)
	}
	runtime.GC() // walks the stacks that abort was left on
	t.Log("all calls answered")
}

// aborter is libc's abort, called as if it were a function of the library.
func aborter(t *testing.T) uintptr {
	t.Helper()
	f, err := purego.Dlsym(purego.RTLD_DEFAULT, "abort")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// needLibrary skips a test where the library cannot be loaded; in CI that is a failure.
func needLibrary(t testing.TB) {
	t.Helper()
	switch err := load(); {
	case err == nil:
	case os.Getenv("CI") != "":
		t.Fatal(err)
	default:
		t.Skipf("no library here; CI has one: %v", err)
	}
}

// Threads that are inside the library at the same time each come back from their own
// abort, with the registers and stacks they had.
func TestAbortOnManyThreads(t *testing.T) {
	needLibrary(t)
	abort := aborter(t)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for range 50 {
				b := &callBlock{f: abort, result: 7}
				cgocall(guardPC, unsafe.Pointer(b)) // not call, which gives up for good
				if b.aborted != 1 || b.result != 0 {
					t.Errorf("aborted %d, result %d", b.aborted, b.result)
				}
				if v := call(proc.getVersion); v>>24 != version {
					t.Errorf("version %#x after an abort", v)
				}
			}
		})
	}
	group.Wait()
	for i := range slots {
		if slots[i] != (slot{}) {
			t.Errorf("slot %d is still taken: %+v", i, slots[i])
		}
	}
}

// Aborts that are none of the library's end the process as they always do.
func TestOtherAborts(t *testing.T) {
	what := os.Getenv(deathEnv)
	if what == "" {
		needLibrary(t)
		for _, what := range []string{"kill", "kill inside", "abort outside", "to itself"} {
			out, err := rerun(t, what)
			exit := new(exec.ExitError)
			if !errors.As(err, &exit) || !strings.Contains(out, "SIGABRT: abort") || strings.Contains(out, "still here") {
				t.Errorf("%s: %v: %s", what, err, out)
			}
		}
		return
	}
	if err := load(); err != nil {
		t.Fatal(err)
	}
	switch what {
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGABRT)
	case "kill inside": // while a thread is inside
		sleep, err := purego.Dlsym(purego.RTLD_DEFAULT, "usleep")
		if err != nil {
			t.Fatal(err)
		}
		for range 4 {
			go call(sleep, 10_000_000)
		}
		time.Sleep(100 * time.Millisecond)
		_ = syscall.Kill(os.Getpid(), syscall.SIGABRT)
	case "abort outside":
		purego.SyscallN(aborter(t))
	case "to itself": // Go code that has been inside before
		call(proc.getVersion)
		runtime.LockOSThread()
		_ = syscall.Tgkill(os.Getpid(), syscall.Gettid(), syscall.SIGABRT)
	}
	time.Sleep(5 * time.Second)
	t.Log("still here")
}

// A guarded call costs little more than an unguarded one.
func BenchmarkCall(b *testing.B) {
	needLibrary(b)
	b.Run("guarded", func(b *testing.B) {
		for b.Loop() {
			call(proc.getVersion)
		}
	})
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			purego.SyscallN(proc.getVersion)
		}
	})
}
