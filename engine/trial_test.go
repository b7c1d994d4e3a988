package engine_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/parity"
)

// What the child of a trial does is chosen by this variable.
const childEnv = "APR_TEST_CHILD"

// TestMain makes the test binary the child process of a trial.
func TestMain(m *testing.M) {
	how, ok := os.LookupEnv(childEnv)
	if !ok {
		os.Exit(m.Run())
	}
	fmt.Fprintln(os.Stderr, "driver: starting up")
	args := os.Args[len(os.Args)-2:]
	switch how {
	case "sound":
		wrap := func(d backend.Device) backend.Device { return selfTesting{d, nil} }
		fakeCUDA.wrap.Store(&wrap)
	case "self-test fails":
		wrap := func(d backend.Device) backend.Device {
			return selfTesting{d, errors.New("kernel matvec/q4_k is off by 1.2")}
		}
		fakeCUDA.wrap.Store(&wrap)
	case "segfault":
		fmt.Fprintln(os.Stderr, "driver: about to touch address 1")
		p := syscall.Getpid()
		_ = syscall.Kill(p, syscall.SIGSEGV)
		time.Sleep(time.Minute)
	case "killed":
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL)
		time.Sleep(time.Minute)
	case "panic":
		panic("driver: assertion failed")
	case "exit":
		fmt.Fprintln(os.Stderr, "driver: giving up")
		os.Exit(3)
	case "quiet":
		os.Exit(0)
	case "hang":
		// A child of the child keeps the pipes open, as drivers' helpers do.
		helper := exec.Command("sleep", "20")
		helper.Stderr = os.Stderr
		_ = helper.Start()
		time.Sleep(time.Minute)
	case "no device":
		// The fake has none unless it is given one.
	}
	if err := engine.SelfTest(os.Stdout, args[0], args[1]); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

// selfTesting is a device with a self-test.
type selfTesting struct {
	backend.Device
	err error
}

func (d selfTesting) SelfTest() error { return d.err }

// child is the command of a trial that goes as told.
func child(t *testing.T, how string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(childEnv, how)
	return []string{self}
}

// A driver that kills or hangs its process does so in a child: the chain goes on
// with one line that has its last words, and remembers.
func TestDriversAreTriedApart(t *testing.T) {
	for _, tt := range []struct {
		how, reason string
	}{
		{"sound", ""},
		{"no device", ""},
		{"self-test fails", "kernel matvec/q4_k is off by 1.2"},
		{"segfault", "the driver ended the process that tried it ("},
		{"killed", "the driver ended the process that tried it (signal: killed): driver: starting up"},
		{"panic", "the driver ended the process that tried it (exit status 2): panic: driver: assertion failed"},
		{"exit", "the driver ended the process that tried it (exit status 3): driver: giving up"},
		{"quiet", "the driver ended the process that tried it without a word: driver: starting up"},
		{"hang", "the driver does not answer within 1s: driver: starting up"},
	} {
		t.Run(tt.how, func(t *testing.T) {
			fakeCUDA.plug(t, hooks{})
			fakeCUDA.isolate(t, "driver 1")
			store := &parity.Store{Dir: t.TempDir()}
			o := engine.Options{Gate: engine.GateOptions{Store: store, Child: child(t, tt.how), ChildLimit: time.Minute}}
			if tt.how == "hang" {
				o.Gate.ChildLimit = time.Second
			}
			before := fakeCUDA.probes.Load()
			start := time.Now()
			g := generate(t, o, 16, false)
			if took := time.Since(start); tt.how == "hang" && took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
			if g.err != nil || g.result.Text != answer {
				t.Fatalf("%v, %q", g.err, g.result.Text)
			}
			switch {
			case tt.how == "sound":
				if !slices.Equal(g.lines, []string{"Backend: CUDA (Vulkan)"}) {
					t.Errorf("lines %q", g.lines)
				}
			case tt.reason == "":
				if d := g.e.Selection().Decisions; !slices.Equal(g.lines, []string{"Backend: CPU"}) || d[0].Unavailable() != "CUDA: not available (no device)" {
					t.Errorf("lines %q, %+v", g.lines, d)
				}
			default:
				if len(g.lines) != 2 || !strings.HasPrefix(g.lines[0], "[apr-cpu-vs-gpu-output-parity-v1] CUDA path rejected, attempting fallback: ") || !strings.Contains(g.lines[0], tt.reason) || g.lines[1] != "Backend: CPU" {
					t.Errorf("lines %q", g.lines)
				}
				if strings.Contains(g.lines[0], "\n") {
					t.Error("more than one line")
				}
			}
			if tt.how != "sound" && fakeCUDA.probes.Load() != before {
				t.Error("the driver was used in this process all the same")
			}
			if tt.reason == "" {
				return
			}
			// The failure is remembered: the next run starts no child.
			o.Gate.Child = []string{"/does/not/exist"}
			again := generate(t, o, 4, false)
			if again.err != nil || !slices.Equal(again.lines, g.lines) {
				t.Errorf("second run: %v, %q", again.err, again.lines)
			}
			// Another driver is tried again.
			fakeCUDA.isolate(t, "driver 2")
			o.Gate.Child, o.Gate.ChildLimit = child(t, "sound"), time.Minute
			if g := generate(t, o, 4, false); g.err != nil || g.e.Selection().Ran != "cuda" {
				t.Errorf("another driver: %v, %q", g.err, g.lines)
			}
		})
	}
}

// A driver that passed is not tried again, unless nothing identifies it.
func TestTrialsAreRemembered(t *testing.T) {
	fakeCUDA.plug(t, hooks{})
	for _, driver := range []string{"driver 1", ""} {
		fakeCUDA.isolate(t, driver)
		store := &parity.Store{Dir: t.TempDir()}
		o := engine.Options{Gate: engine.GateOptions{Store: store, Child: child(t, "sound")}}
		if g := generate(t, o, 4, true); g.e.Selection().Ran != "cuda" {
			t.Fatal(g.lines)
		}
		o.Gate.Child = child(t, "exit")
		if ran := generate(t, o, 4, true).e.Selection().Ran; (ran == "cuda") != (driver != "") {
			t.Errorf("driver %q: then %s serves", driver, ran)
		}
		o.Gate.Renew = true
		if ran := generate(t, o, 4, true).e.Selection().Ran; ran != "cpu" {
			t.Errorf("driver %q with --revalidate: %s serves", driver, ran)
		}
	}
}

// A forced backend whose driver dies is refused.
func TestForcedDriverDies(t *testing.T) {
	fakeCUDA.plug(t, hooks{})
	fakeCUDA.isolate(t, "driver 1")
	m := loadSmall(t)
	_, err := engine.Open(m, engine.Options{Backend: "cuda", Gate: engine.GateOptions{Child: child(t, "panic")}})
	if !errors.Is(err, engine.ErrBackend) || !strings.Contains(err.Error(), "driver: assertion failed") {
		t.Errorf("%v", err)
	}
	if _, err := engine.Open(m, engine.Options{Backend: "cuda", Gate: engine.GateOptions{Child: []string{"/does/not/exist"}}}); !errors.Is(err, engine.ErrBackend) {
		t.Errorf("a trial that cannot be made: %v", err)
	}
}
