package cuda

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/driver/cuda/emutest"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/synth"
)

// The engine on a device that fails while it serves: one tagged line, the context is
// gone, and the CPU goes on with the right answer.

// armed is a device whose executor calls arm before each step and each new sequence.
type armed struct {
	backend.Device
	arm func(batch []backend.Span, capacity int)
}

func (d armed) Load(p *graph.Program, w graph.Weights, o backend.Options) (backend.Executor, error) {
	e, err := d.Device.Load(p, w, o)
	return &armedExecutor{e, d.arm}, err
}

type armedExecutor struct {
	backend.Executor
	arm func(batch []backend.Span, capacity int)
}

func (e *armedExecutor) Step(batch []backend.Span, l *backend.Logits) error {
	e.arm(batch, batch[0].Seq.Capacity())
	return e.Executor.Step(batch, l)
}

func (e *armedExecutor) NewSequence(capacity int) (backend.Sequence, error) {
	e.arm(nil, capacity)
	return e.Executor.NewSequence(capacity)
}

// failing is an engine on the CUDA device with the CPU behind it, and what it said.
type failing struct {
	*engine.Engine
	lines []string
}

// Sizes of the sessions, told from the probe's sequences by their capacity. The probe is
// longer, so that nothing is compared after it.
const (
	failPrompt    = 10
	failTokens    = 8
	failCapacity  = 18
	otherCapacity = 19
	probeDecode   = 10
)

func openFailing(t *testing.T, m *engine.Model, o engine.Options, arm func(batch []backend.Span, capacity int)) *failing {
	t.Helper()
	f := &failing{}
	o.MaxBatch = 32
	o.Gate.Policy = parity.Standard()
	if o.Gate.Policy.Probe.Deadline = time.Hour; o.Threads != 0 {
		o.Gate.Policy.Probe.Deadline, o.Threads = hangDeadline, 0
	}
	o.Gate.Policy.Probe.DecodeSteps, o.Gate.Policy.Probe.MinPositions = probeDecode, 0
	o.Gate.Notify = func(d engine.Decision) {
		if d.Line != "" {
			f.lines = append(f.lines, d.Line)
		}
	}
	if arm != nil {
		o.Gate.Fault = func(name string, d backend.Device) backend.Device {
			if name != Name {
				return d
			}
			return armed{d, arm}
		}
	}
	e, err := engine.Open(m, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	f.Engine = e
	return f
}

func (f *failing) session(t *testing.T, capacity int) *engine.Session {
	t.Helper()
	s, err := f.NewSession(capacity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// wantFallback wants the lines of a GPU that fails where its sequence holds so many
// tokens: after the prompt it has passed the whole comparison, and is named before.
func (f *failing) wantFallback(t *testing.T, at int, text string) {
	t.Helper()
	lines := f.lines
	if at >= failPrompt && len(lines) > 0 && lines[0] == "Backend: CUDA" {
		lines = lines[1:]
	}
	named := len(lines) < len(f.lines)
	if len(lines) != 2 || named != (at >= failPrompt) || !strings.HasPrefix(lines[0], gateTag) || !strings.Contains(lines[0], text) || lines[1] != "Backend: CPU" {
		t.Errorf("lines %q, want the rejection with %q and the CPU, and CUDA before them after the prompt", f.lines, text)
	}
}

func generate(t *testing.T, s *engine.Session, prompt []int32, n int) []int32 {
	t.Helper()
	r, err := s.Generate(context.Background(), engine.Request{Prompt: prompt, MaxTokens: n, IgnoreEOS: true})
	if err != nil {
		t.Fatal(err)
	}
	return r.TokenIDs
}

func failingModel(t *testing.T) (m *engine.Model, prompt []int32) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.gguf")
	if err := synth.Write(path, synth.Options{Preset: "tiny-qwen2.5-0.5b", Quant: "q8_0", Layers: 1, VocabSize: 512}); err != nil {
		t.Fatal(err)
	}
	m, err := engine.LoadModel(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	rng := rand.New(rand.NewPCG(8, 4))
	for range failPrompt {
		prompt = append(prompt, int32(rng.IntN(512)))
	}
	return m, prompt
}

// tornDown wants all memory of the device to be free, soon.
func tornDown(t *testing.T) {
	t.Helper()
	c := emutest.Open(t)
	var taken int64
	for range 100 {
		err := c.Do(func() error {
			free, total, err := c.Memory()
			taken = total - free
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if taken == 0 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("%d bytes are still taken: a context is left", taken)
}

const gateTag = "[" + parity.Tag + "] CUDA path rejected, attempting fallback: "

// hangDeadline is for steps of the device that hangs, which takes that much longer.
const hangDeadline = 8 * time.Second

func TestFailureWhileServing(t *testing.T) {
	if !emutest.Emulated() {
		t.Skip("makes calls of the driver fail: CI runs it on the emulation, a real driver cannot be told to")
	}
	m, prompt := failingModel(t)
	want := generate(t, openFailing(t, m, engine.Options{NoGPU: true}, nil).session(t, failCapacity), prompt, failTokens)
	for _, tt := range []struct {
		name string
		key  string // of emutest.Set: the call or launch that fails next
		code cuda.Code
		once bool // the context survives the error
		at   int  // tokens in the session's sequence; -1 when it is made
		hang int64
	}{
		{name: "a replayed kernel reads a wrong address", key: "fail after", code: cuda.IllegalAddress, at: failPrompt + 4},
		{name: "a kernel of the prompt reads a wrong address", key: "fail after", code: cuda.IllegalAddress, at: 0},
		{name: "graph launch", key: "fail cuGraphLaunch", code: cuda.LaunchFailed, at: failPrompt + 2},
		{name: "graph launch refused", key: "fail cuGraphLaunch", code: 701, once: true, at: failPrompt + 2},
		{name: "kernel launch", key: "fail cuLaunchKernel", code: cuda.LaunchFailed, at: 0},
		{name: "waiting, memory error", key: "fail cuStreamSynchronize", code: 214, at: failPrompt + 5},
		{name: "waiting, lost device", key: "fail cuStreamSynchronize", code: 46, at: failPrompt + 1},
		{name: "copy to the device", key: "fail cuMemcpyHtoDAsync_v2", code: cuda.IllegalAddress, at: failPrompt + 3},
		{name: "copy from the device", key: "fail cuMemcpyDtoHAsync_v2", code: 214, at: failPrompt + 3},
		{name: "no memory for the cache", key: "fail cuMemAlloc_v2", code: cuda.OutOfMemory, once: true, at: -1},
		{name: "lost device as the cache is made", key: "fail cuMemAlloc_v2", code: 46, at: -1},
		{name: "hang while waiting", key: "fail cuStreamSynchronize", code: cuda.LaunchFailed, at: failPrompt + 2, hang: hangDeadline.Milliseconds() + 4000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := engine.Options{}
			if tt.hang > 0 {
				o.Threads = 1 // openFailing: with a deadline
			}
			done := false
			f := openFailing(t, m, o, func(batch []backend.Span, capacity int) {
				if done || capacity != failCapacity || (tt.at < 0) != (batch == nil) || batch != nil && batch[0].Seq.Len() != tt.at {
					return
				}
				done = true
				emutest.Set(t, "fail code", int64(tt.code))
				emutest.Set(t, "hang", tt.hang)
				if tt.once {
					emutest.Set(t, "fail at once", 1)
				}
				emutest.Set(t, tt.key, 0)
			})
			got := generate(t, f.session(t, failCapacity), prompt, failTokens)
			if !done {
				t.Fatal("nothing has failed")
			}
			if !slices.Equal(got, want) {
				t.Errorf("tokens %v, want %v", got, want)
			}
			text := fmt.Sprintf("(%d)", tt.code)
			if tt.hang > 0 {
				text = "no answer after"
			}
			f.wantFallback(t, tt.at, text)
			tornDown(t)
			start := time.Now()
			if err := f.Close(); err != nil {
				t.Error(err)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("closing took %v", took)
			}
		})
	}
}

// illegalEnv is set in the process that TestIllegalAddress ruins.
const illegalEnv = "APR_TEST_ILLEGAL_ADDRESS"

// A kernel of the replayed graph, or of a prompt, that writes to an address which is no
// memory, on a real GPU too. The process lives and the CPU answers. NVIDIA's driver then
// wants another process for CUDA; opening the device again is refused in a line.
func TestIllegalAddress(t *testing.T) {
	for name, at := range map[string]int{"in a graph": failPrompt + 4, "in a prompt": 0} {
		t.Run(name, func(t *testing.T) {
			if emutest.Emulated() || os.Getenv(illegalEnv) != "" {
				illegalAddress(t, at)
				return
			}
			child := exec.Command(os.Args[0], "-test.v", "-test.run", "^TestIllegalAddress$/^"+strings.ReplaceAll(name, " ", "_")+"$")
			child.Env = append(os.Environ(), illegalEnv+"=1")
			out, err := child.CombinedOutput()
			t.Logf("%s", out)
			if err != nil || !strings.Contains(string(out), "--- PASS: TestIllegalAddress/") {
				t.Errorf("the process of its own: %v", err)
			}
		})
	}
}

func illegalAddress(t *testing.T, at int) {
	m, prompt := failingModel(t)
	want := generate(t, openFailing(t, m, engine.Options{NoGPU: true}, nil).session(t, failCapacity), prompt, failTokens)
	done := false
	f := openFailing(t, m, engine.Options{}, func(batch []backend.Span, capacity int) {
		if !done && capacity == failCapacity && batch != nil && batch[0].Seq.Len() == at {
			done = true
			batch[0].Seq.(*kvSequence).data = 0x1000 // where the cache is said to lie
		}
	})
	got := generate(t, f.session(t, failCapacity), prompt, failTokens)
	if !done || !slices.Equal(got, want) {
		t.Errorf("tokens %v, want %v; spoiled: %v", got, want, done)
	}
	f.wantFallback(t, at, "ILLEGAL_ADDRESS")
	t.Logf("%q", f.lines)
	start := time.Now()
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("closing took %v", took)
	}
	again := openFailing(t, m, engine.Options{}, nil)
	got = generate(t, again.session(t, failCapacity), prompt, failTokens)
	last := again.lines[len(again.lines)-1]
	sound := len(again.lines) == 1 && last == "Backend: CUDA"
	refused := len(again.lines) == 2 && strings.HasPrefix(again.lines[0], gateTag) && strings.Contains(again.lines[0], "ILLEGAL_ADDRESS") && last == "Backend: CPU"
	if !slices.Equal(got, want) || !sound && !refused || emutest.Emulated() && !sound {
		t.Errorf("opened again: %v, want %v; lines %q", got, want, again.lines)
	}
	t.Logf("opened again: %q", again.lines)
}

// A driver that hangs while a model is loaded is given up; the CPU answers, and the
// context goes when the driver comes back.
func TestHangWhileLoading(t *testing.T) {
	if !emutest.Emulated() {
		t.Skip("makes calls of the driver hang: CI runs it on the emulation, a real driver cannot be told to")
	}
	defer func(d time.Duration) { loadPatience = d }(loadPatience)
	loadPatience = time.Second
	m, prompt := failingModel(t)
	want := generate(t, openFailing(t, m, engine.Options{NoGPU: true}, nil).session(t, failCapacity), prompt, failTokens)
	for _, call := range []string{"cuMemcpyHtoDAsync_v2", "cuModuleLoadDataEx"} {
		t.Run(call, func(t *testing.T) {
			emutest.Set(t, "hang", 4000)
			emutest.Set(t, "fail at once", 1)
			emutest.Set(t, "fail "+call, 0)
			start := time.Now()
			f := openFailing(t, m, engine.Options{}, nil)
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("loading took %v", took)
			}
			if got := generate(t, f.session(t, failCapacity), prompt, failTokens); !slices.Equal(got, want) {
				t.Errorf("tokens %v, want %v", got, want)
			}
			if n := len(f.lines); n != 2 || !strings.HasPrefix(f.lines[0], gateTag) || !strings.Contains(f.lines[0], "no answer within 1s while loading") || f.lines[1] != "Backend: CPU" {
				t.Errorf("lines %q", f.lines)
			}
			tornDown(t)
		})
	}
}

// A device that fails in the step of one session is gone for the others too: they go
// on, on the CPU, from the tokens that they have.
func TestFailureInSecondSequence(t *testing.T) {
	if !emutest.Emulated() {
		t.Skip("makes calls of the driver fail: CI runs it on the emulation, a real driver cannot be told to")
	}
	m, prompt := failingModel(t)
	other := slices.Concat(prompt[3:], prompt[:3])
	cpu := openFailing(t, m, engine.Options{NoGPU: true}, nil)
	want := generate(t, cpu.session(t, failCapacity), prompt, failTokens)
	wantOther := generate(t, cpu.session(t, otherCapacity), other, failTokens)

	done := false
	f := openFailing(t, m, engine.Options{}, func(batch []backend.Span, capacity int) {
		if !done && capacity == otherCapacity && batch != nil && batch[0].Seq.Len() == failPrompt+3 {
			done = true
			emutest.Set(t, "fail code", int64(cuda.IllegalAddress))
			emutest.Set(t, "fail after", 1)
		}
	})
	first, second := f.session(t, failCapacity), f.session(t, otherCapacity)
	got := generate(t, first, prompt, failTokens/2)
	if !slices.Equal(got, want[:failTokens/2]) {
		t.Errorf("first session on CUDA: %v, want %v", got, want[:failTokens/2])
	}
	if got := generate(t, second, other, failTokens); !done || !slices.Equal(got, wantOther) {
		t.Errorf("second session: %v, want %v; failed: %v", got, wantOther, done)
	}
	tornDown(t)
	if more := generate(t, first, slices.Concat(prompt, got), failTokens/2); !slices.Equal(more, want[failTokens/2:]) {
		t.Errorf("first session afterwards: %v, want %v", more, want[failTokens/2:])
	}
	if len(f.lines) != 3 || f.lines[2] != "Backend: CPU" {
		t.Errorf("lines %q", f.lines)
	}
}
