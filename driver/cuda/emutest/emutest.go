// Package emutest gives tests a CUDA driver: a real one where there is a GPU,
// else the emulation of driver/cuda/emu, which it builds with clang from the
// kernels' sources. Tests of kernels and of the backend call Main:
//
//	func TestMain(m *testing.M) { os.Exit(emutest.Main(m)) }
package emutest

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"unsafe"

	"github.com/apr-engine/apr/driver/cuda"
)

// EmulateEnv set to 1 wants the emulation even where there is a GPU.
const EmulateEnv = "APR_CUDA_EMU"

// Main chooses the driver and runs the tests. The order is: the library that
// APR_CUDA_LIBRARY names; unless APR_CUDA_EMU is 1, a real driver with a device;
// the emulation. Without clang the tests are left out, with a word, but not in
// CI, where that is a failure.
func Main(m *testing.M) int {
	if err := choose(); err != nil {
		fmt.Fprintln(os.Stderr, "no CUDA driver for tests:", err)
		if os.Getenv("CI") != "" || !errors.Is(err, errNoCompiler) {
			return 1
		}
		fmt.Fprintln(os.Stderr, "all tests of this package are left out")
		return 0
	}
	return m.Run()
}

func choose() error {
	if os.Getenv(cuda.LibraryEnv) != "" {
		return nil
	}
	if os.Getenv(EmulateEnv) != "1" && hasGPU() {
		return nil
	}
	path, err := build()
	if err != nil {
		return err
	}
	return os.Setenv(cuda.LibraryEnv, path)
}

func hasGPU() bool {
	d, err := cuda.Open()
	if err != nil {
		return false
	}
	devices, err := d.Devices()
	return err == nil && len(devices) > 0
}

// Emulated reports whether the driver is the emulation.
func Emulated() bool {
	d, err := cuda.Open()
	if err != nil {
		return false
	}
	_, err = d.Symbol("emu_control")
	return err == nil
}

// Open returns a context on the first device, closed when the test ends.
func Open(t testing.TB) *cuda.Context {
	t.Helper()
	d, err := cuda.Open()
	if err != nil {
		t.Fatal(err)
	}
	devices, err := d.Devices()
	if err != nil || len(devices) == 0 {
		t.Fatalf("devices: %v, %v", devices, err)
	}
	c, err := d.NewContext(devices[0])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Set changes the emulation until the test ends; on a real GPU the test is
// skipped. Keys:
//
//	init           what cuInit returns
//	version        the driver's version, 13000
//	devices        their number, 1
//	memory         of a device, bytes
//	capability     compute capability times ten, 90
//	sms            multiprocessors, 2
//	fail after     so many launches work and the next one fails
//	fail code      with this code, which every later call in the context returns too
//	fail at once   1: the launch itself returns the code, and the context survives
//	fail CALL      so many calls of a driver function, such as cuGraphLaunch, work and
//	               the next one fails in the same way
//	refuse KERNEL  1: a module with this kernel is refused as bad PTX
//	no parallel compiler
//	               1: the option for it is refused as unknown
//	hang           milliseconds that the failing launch or call takes
func Set(t testing.TB, key string, value int64) {
	t.Helper()
	if !Emulated() {
		t.Skip("needs the emulation")
	}
	control(t, key, value)
	t.Cleanup(func() { control(t, "reset", 0) })
}

// Reset undoes every Set before the test ends, and sets all counts to zero.
func Reset(t testing.TB) {
	t.Helper()
	control(t, "reset", 0)
}

// Count is how often something has happened in the emulation: "launches",
// "graph launches", "overlapped", "modules" (loaded), "modules in parallel" (compiled by several threads), "kernel NAME".
func Count(t testing.TB, key string) int {
	t.Helper()
	d, fn := symbol(t, "emu_count")
	text := append([]byte(key), 0)
	err := d.Call("emu_count", fn, uintptr(unsafe.Pointer(&text[0])))
	runtime.KeepAlive(text)
	var e *cuda.Error
	if errors.As(err, &e) {
		return int(e.Code) // a call's result is an error code; here it is the count
	}
	return 0
}

func control(t testing.TB, key string, value int64) {
	t.Helper()
	d, fn := symbol(t, "emu_control")
	text := append([]byte(key), 0)
	// The function returns nothing; what is left in the register is no error.
	_ = d.Call("emu_control", fn, uintptr(unsafe.Pointer(&text[0])), uintptr(value))
}

func symbol(t testing.TB, name string) (*cuda.Driver, uintptr) {
	t.Helper()
	d, _ := cuda.Open() // an error of cuInit may be wanted
	if d == nil {
		t.Fatal("no driver")
	}
	fn, err := d.Symbol(name)
	if err != nil {
		t.Skip("needs the emulation")
	}
	return d, fn
}
