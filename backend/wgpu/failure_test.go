//go:build (linux || darwin) && (amd64 || arm64)

package wgpu

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/tensor"
)

var smallSizes = opsSizes{heads: 4, kv: 2, dim: 16, pairs: 8, typ: tensor.F32}

// apart is the device opened for one test alone, so that it can be broken.
func apart(t testing.TB, restrict func(*settings)) *device {
	t.Helper()
	d := *needAdapter(t)
	name := t.Name()
	d.restrict = func(s *settings) {
		s.F16 = false
		s.Buffer -= uint64(len(name)) // makes the settings, and so the opened device, this test's own
		if restrict != nil {
			restrict(s)
		}
	}
	return &d
}

func step(exec backend.Executor, seq backend.Sequence, tokens ...int32) error {
	return exec.Step([]backend.Span{{Seq: seq, Tokens: tokens, Want: backend.Last}}, &backend.Logits{})
}

// A device that is lost in mid-run is an error of every step from then on; the
// next executor opens it anew.
func TestDeviceLost(t *testing.T) {
	d := apart(t, nil)
	p, w := opsProgram(t, smallSizes)
	e, err := d.Load(p, w, backend.Options{KV: tensor.F32})
	if err != nil {
		t.Fatal(err)
	}
	seq, err := e.NewSequence(8)
	if err != nil {
		t.Fatal(err)
	}
	if err := step(e, seq, 1, 2); err != nil {
		t.Fatal(err)
	}
	e.(*executor).gpu.Destroy()
	for range 2 {
		if err := step(e, seq, 3); !errors.Is(err, backend.ErrLost) {
			t.Fatalf("error %v, want %v", err, backend.ErrLost)
		}
		if seq.Len() != 2 {
			t.Fatalf("the failed step left %d tokens, want 2", seq.Len())
		}
	}
	if _, err := e.NewSequence(8); !errors.Is(err, backend.ErrLost) {
		t.Errorf("new sequence: error %v, want %v", err, backend.ErrLost)
	}
	closed := make(chan error, 1)
	go func() { closed <- errors.Join(seq.Close(), e.Close()) }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("closing hangs")
	}
	if e, err = d.Load(p, w, backend.Options{KV: tensor.F32}); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if seq, err = e.NewSequence(8); err != nil {
		t.Fatal(err)
	}
	defer seq.Close()
	if err := step(e, seq, 1, 2); err != nil {
		t.Error(err)
	}
}

// An error that the library reports about a step ends the executor like a loss.
func TestStepErrorIsFinal(t *testing.T) {
	d := apart(t, nil)
	p, w := opsProgram(t, smallSizes)
	e, err := d.Load(p, w, backend.Options{KV: tensor.F32})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	seq, err := e.NewSequence(8)
	if err != nil {
		t.Fatal(err)
	}
	defer seq.Close()
	x := e.(*executor)
	sound := x.nodes
	// More workgroups than a device takes: a command buffer that must not be submitted.
	bad := always(func(r *recording, _ int) {
		r.Dispatch(x.spans[0].pipeline, r.sequence(r.spans[0]).groups[0], 1<<20, 1, 1)
	})
	x.nodes = append(append([]node{}, sound...), bad)
	if err := step(e, seq, 1); !errors.Is(err, backend.ErrLost) || !strings.Contains(err.Error(), "validation") {
		t.Errorf("error %v, want a validation error that counts as %v", err, backend.ErrLost)
	}
	x.nodes = sound
	if err := step(e, seq, 1); !errors.Is(err, backend.ErrLost) {
		t.Errorf("the executor goes on: error %v", err)
	}
}

// What limits do not allow is refused with the name of what is too large.
func TestTightLimits(t *testing.T) {
	p, w := opsProgram(t, smallSizes)
	for _, tt := range []struct {
		name    string
		binding uint64
		want    string
	}{
		{"a row of a matrix", 200, "binding limit"},
		{"a row of logits", 300, "binding limit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := apart(t, func(s *settings) { s.Binding = tt.binding })
			e, err := d.Load(p, w, backend.Options{KV: tensor.F32})
			if err == nil {
				e.Close()
			}
			if !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %v with %q", err, backend.ErrUnsupported, tt.want)
			}
		})
	}
	d := apart(t, func(s *settings) { s.Binding = 40_000 })
	e, err := d.Load(p, w, backend.Options{KV: tensor.F32})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if _, err := e.NewSequence(4000); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "layer 0") {
		t.Errorf("cache beyond the limit: error %v, want %v with the layer", err, backend.ErrUnsupported)
	}
	if _, err := e.NewSequence(maxPositions); err == nil {
		t.Error("a sequence beyond the rotary tables is not refused")
	}
}

type unknownOp struct{ graph.Scale }

// What no device can run is refused at load, naming the tensor, the option or the
// operation.
func TestRefusals(t *testing.T) {
	d := needAdapter(t)
	p, w := opsProgram(t, smallSizes)
	narrow := tensors{}
	for name, x := range w {
		narrow[name] = x
	}
	narrow.add(t, "embed", tensor.F32, 97, 72, func(int) float32 { return 0 })
	missing := tensors{"embed": w["embed"]}
	strange := *p
	strange.Ops = append([]graph.Op{p.Ops[0], &unknownOp{graph.Scale{In: 0, Out: 1, Factor: 1}}}, p.Ops[2:]...)
	for _, tt := range []struct {
		name string
		p    *graph.Program
		w    graph.Weights
		o    backend.Options
		kind error
		text string
	}{
		{"cache type", p, w, backend.Options{KV: tensor.Q8_0}, backend.ErrUnsupported, "Q8_0"},
		{"missing tensor", p, missing, backend.Options{KV: tensor.F32}, graph.ErrInvalid, "norm"},
		{"odd width", p, narrow, backend.Options{KV: tensor.F32}, backend.ErrUnsupported, "embed"},
		{"unknown operation", &strange, w, backend.Options{KV: tensor.F32}, backend.ErrUnsupported, "unknownOp"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := d.Load(tt.p, tt.w, tt.o)
			if err == nil {
				e.Close()
			}
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("error %v, want %v with %q", err, tt.kind, tt.text)
			}
		})
	}
}

// Sequences of others and closed ones are refused, and a closed executor fails.
func TestForeignSequences(t *testing.T) {
	d := needAdapter(t)
	p, w := opsProgram(t, smallSizes)
	var execs [2]backend.Executor
	var seqs [2]backend.Sequence
	for i := range execs {
		var err error
		if execs[i], err = d.Load(p, w, backend.Options{KV: tensor.F32}); err != nil {
			t.Fatal(err)
		}
		if seqs[i], err = execs[i].NewSequence(4); err != nil {
			t.Fatal(err)
		}
	}
	if err := step(execs[0], seqs[1], 1); err == nil {
		t.Error("a sequence of another executor is not refused")
	}
	seqs[0].Close()
	if err := step(execs[0], seqs[0], 1); err == nil {
		t.Error("a closed sequence is not refused")
	}
	execs[1].Close()
	if err := step(execs[1], seqs[1], 1); err == nil {
		t.Error("a closed executor computes")
	}
	execs[0].Close()
}

// Without driver or library there is no device, which is no fault. Both are looked
// for once a process, so this is tried in others.
func TestNoDevice(t *testing.T) {
	const helper = "APR_TEST_WGPU_PROBE"
	if os.Getenv(helper) != "" {
		if _, err := (wgpu{}).Probe(); errors.Is(err, backend.ErrNoDevice) {
			t.Logf("no device: %v", err)
		}
		return
	}
	needAdapter(t)
	for _, env := range []string{"VK_DRIVER_FILES=/nonexistent", "WGPU_NATIVE_PATH=/nonexistent.so", AdapterEnv + "=no such name"} {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestNoDevice$", "-test.v")
		cmd.Env = append(os.Environ(), helper+"=1", env)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "no device: ") {
			t.Errorf("%s: %v: %s", env, err, out)
		}
	}
}

// The driver's identity changes with its files.
func TestDriverIdentity(t *testing.T) {
	dir := t.TempDir()
	pattern := []string{dir + "/*.json"}
	empty := describeFiles(pattern)
	if err := os.WriteFile(dir+"/a.json", []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if one := describeFiles(pattern); one == empty || one != describeFiles(pattern) {
		t.Errorf("identities %q and %q", empty, one)
	}
	if (wgpu{}).Driver() == "" {
		t.Error("no identity")
	}
}

// Closing during a step waits for nothing and takes nothing away from the step.
func TestCloseDuringStep(t *testing.T) {
	d := needAdapter(t)
	p, w := opsProgram(t, smallSizes)
	e, err := d.Load(p, w, backend.Options{KV: tensor.F32})
	if err != nil {
		t.Fatal(err)
	}
	seq, err := e.NewSequence(8)
	if err != nil {
		t.Fatal(err)
	}
	x := e.(*executor)
	entered, leave := make(chan struct{}), make(chan struct{})
	x.nodes = append([]node{always(func(*recording, int) { close(entered); <-leave })}, x.nodes...)
	done := make(chan error)
	go func() { done <- step(e, seq, 1, 2) }()
	<-entered
	if err := errors.Join(seq.Close(), e.Close()); err != nil {
		t.Error(err)
	}
	close(leave)
	if err := <-done; err != nil {
		t.Errorf("the step that was running: %v", err)
	}
	// The rest of closing comes after the step.
	for range 200 {
		time.Sleep(10 * time.Millisecond)
		x.busy.Lock()
		released := x.owned == nil && seq.(*sequence).e == nil
		x.busy.Unlock()
		if released {
			return
		}
	}
	t.Error("nothing was released")
}
