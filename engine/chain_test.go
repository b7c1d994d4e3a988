package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/parity"
)

func loadSmall(t testing.TB) *engine.Model {
	t.Helper()
	m, err := engine.LoadModel(golden.Path(t, "models", small))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

const tag = "[apr-cpu-vs-gpu-output-parity-v1] "

// The three tiers in every state that a machine can be in: one line for each
// decision, the right answer, and JSON that says the same.
func TestChain(t *testing.T) {
	wrong := hooks{step: spoilFrom(1, negate)}
	lost := hooks{step: func([]backend.Span, *backend.Logits) error { return fmt.Errorf("%w: xid 79", backend.ErrLost) }}
	for _, tt := range []struct {
		name       string
		cuda, wgpu *hooks
		probe      error // of cuda
		lines      []string
		ran        string
		fellBack   bool
	}{
		{"neither", nil, nil, nil, []string{"Backend: CPU"}, "cpu", false},
		{"both sound", &hooks{}, &hooks{}, nil, []string{"Backend: CUDA (Vulkan)"}, "cuda", false},
		{"first absent", nil, &hooks{}, nil, []string{"Backend: wgpu (Vulkan)"}, "wgpu", false},
		{"first faulty", &wrong, &hooks{}, nil, []string{
			tag + "CUDA path rejected, attempting fallback: cosine vs CPU = -1.000000 (< 0.99) at position 1", "Backend: wgpu (Vulkan)",
		}, "wgpu", true},
		{"both faulty", &wrong, &wrong, nil, []string{
			tag + "CUDA path rejected, attempting fallback: cosine vs CPU = -1.000000 (< 0.99) at position 1",
			tag + "wgpu path rejected, attempting fallback: cosine vs CPU = -1.000000 (< 0.99) at position 1", "Backend: CPU",
		}, "cpu", true},
		{"first absent, second faulty", nil, &wrong, nil, []string{
			tag + "wgpu path rejected, attempting fallback: cosine vs CPU = -1.000000 (< 0.99) at position 1", "Backend: CPU",
		}, "cpu", true},
		{"a broken driver", nil, &hooks{}, errors.New("cuInit: unknown error (999)"), []string{
			tag + "CUDA path rejected, attempting fallback: cuInit: unknown error (999)", "Backend: wgpu (Vulkan)",
		}, "wgpu", true},
		{"a driver that speaks in lines", nil, nil, errors.New("Validation Error\n\nCaused by:\n  no memory\n"), []string{
			tag + "CUDA path rejected, attempting fallback: Validation Error Caused by: no memory", "Backend: CPU",
		}, "cpu", true},
		{"no library", nil, nil, fmt.Errorf("%w: libcuda.so.1 not found", backend.ErrNoDevice), []string{"Backend: CPU"}, "cpu", false},
		{"a device that is lost in the probe", &lost, &hooks{}, nil, []string{
			tag + "CUDA path rejected, attempting fallback: step of 26 tokens at position 0: device lost: xid 79", "Backend: wgpu (Vulkan)",
		}, "wgpu", true},
		{"a panic while loading", &hooks{panics: "nil device"}, nil, nil, []string{
			tag + "CUDA path rejected, attempting fallback: panic while loading: nil device", "Backend: CPU",
		}, "cpu", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.cuda != nil {
				fakeCUDA.plug(t, *tt.cuda)
			}
			if tt.wgpu != nil {
				fakeWGPU.plug(t, *tt.wgpu)
			}
			fakeCUDA.failProbe(t, tt.probe)
			g := generate(t, engine.Options{}, 16, false)
			if g.err != nil || g.result.Text != answer || g.emitted.String() != answer {
				t.Fatalf("%q, emitted %q, %v", g.result.Text, g.emitted.String(), g.err)
			}
			if !slices.Equal(g.lines, tt.lines) {
				t.Errorf("lines\n%s\nwant\n%s", strings.Join(g.lines, "\n"), strings.Join(tt.lines, "\n"))
			}
			s := g.e.Selection()
			if s.Ran != tt.ran || s.FellBack != tt.fellBack || !s.Verified {
				t.Errorf("%+v", s)
			}
			var lines []string
			for _, d := range s.Decisions {
				if d.Line != "" {
					lines = append(lines, d.Line)
				}
			}
			if !slices.Equal(lines, g.lines) {
				t.Errorf("JSON says %q, stderr %q", lines, g.lines)
			}
			if tt.name == "no library" && s.Decisions[0].Unavailable() != "CUDA: not available (libcuda.so.1 not found)" {
				t.Errorf("%q", s.Decisions[0].Unavailable())
			}
		})
	}
}

// A device that fails while it serves: the next backend goes on from the last
// token that was right, and the answer is whole.
func TestDeviceIsLostInMidGeneration(t *testing.T) {
	const tokens = 60
	want := generate(t, engine.Options{Backend: "cpu-exact"}, tokens, true)
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	for _, tt := range []struct {
		name, reason string
		fail         func() error
	}{
		{"lost", "step of 1 token at position 50: device lost: illegal address", func() error { return fmt.Errorf("%w: illegal address", backend.ErrLost) }},
		{"panic", "step of 1 token at position 50: panic: boom", func() error { panic("boom") }},
		{"hang", "step of 1 token at position 50: no answer after ", func() error { <-release; return nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := parity.Standard()
			p.Probe.Deadline, p.Probe.DeadlineFactor = 2*time.Second, 1
			broken := hooks{step: func(batch []backend.Span, _ *backend.Logits) error {
				// The probe has a capacity of 72, the session one of its own.
				if s := batch[0]; s.Seq.Capacity() != 72 && s.Seq.Len() == 51 {
					return tt.fail()
				}
				return nil
			}}
			fakeCUDA.plug(t, broken)
			o := engine.Options{Gate: engine.GateOptions{Policy: p, Store: &parity.Store{Dir: t.TempDir()}}}
			start := time.Now()
			g := generate(t, o, tokens, true)
			if g.err != nil || g.result.Text != want.result.Text || g.emitted.String() != want.result.Text {
				t.Errorf("%v, %q, want %q", g.err, g.emitted.String(), want.result.Text)
			}
			if len(g.lines) != 3 || g.lines[0] != "Backend: CUDA (Vulkan)" || !strings.HasPrefix(g.lines[1], tag+"CUDA path rejected, attempting fallback: "+tt.reason) || g.lines[2] != "Backend: CPU" {
				t.Errorf("lines %q", g.lines)
			}
			if took := time.Since(start); took > time.Minute {
				t.Errorf("it took %v", took)
			}
			// By name it stops with the right tokens alone.
			o.Backend = "cuda"
			o.Gate.Store = nil
			g = generate(t, o, tokens, true)
			if !errors.Is(g.err, engine.ErrRejected) || !strings.HasPrefix(want.result.Text, g.emitted.String()) || len(g.result.TokenIDs) != 50-g.result.PromptTokens+1 {
				t.Errorf("forced: %v after %d tokens", g.err, len(g.result.TokenIDs))
			}
			if last := g.lines[len(g.lines)-1]; !strings.Contains(last, "CUDA path rejected, no fallback: "+tt.reason) {
				t.Errorf("forced: %q", last)
			}
		})
	}
}

// Software devices serve only if they are named, and a device that is named is
// used or refused.
func TestDeviceChoice(t *testing.T) {
	soft := func(d backend.Device) backend.Device {
		return described{hooked{d, hooks{}}, "llvmpipe (LLVM 19)", backend.Info{API: "Vulkan", Software: true}}
	}
	hard := func(d backend.Device) backend.Device {
		return described{hooked{d, hooks{}}, "Radeon", backend.Info{API: "Vulkan"}}
	}
	fakeWGPU.several(t, soft, hard)
	for _, tt := range []struct {
		device, want string
		backend      string
	}{
		{"", "Radeon", ""}, {"llvmpipe", "llvmpipe (LLVM 19)", ""}, {"0", "llvmpipe (LLVM 19)", "wgpu"}, {"wgpu:1", "Radeon", ""}, {"RADEON", "Radeon", "wgpu"},
	} {
		g := generate(t, engine.Options{Device: tt.device, Backend: tt.backend}, 16, false)
		d := g.e.Selection().Decisions
		if g.err != nil || g.result.Text != answer || d[len(d)-1].Device != tt.want || g.lines[0] != "Backend: wgpu (Vulkan)" {
			t.Errorf("device %q: %v, %+v", tt.device, g.err, d)
		}
	}
	for _, o := range []engine.Options{{Device: "GeForce"}, {Device: "2", Backend: "wgpu"}, {Device: "cuda:0"}} {
		if _, err := engine.Open(loadSmall(t), o); !errors.Is(err, engine.ErrBackend) || !strings.Contains(err.Error(), o.Device) {
			t.Errorf("device %q: %v", o.Device, err)
		}
	}
	fakeWGPU.several(t, soft)
	g := generate(t, engine.Options{}, 16, false)
	if d := g.e.Selection().Decisions; g.e.Selection().Ran != "cpu" || !slices.ContainsFunc(d, func(d engine.Decision) bool {
		return strings.Contains(d.Unavailable(), "wgpu: not available (only software: llvmpipe (LLVM 19)")
	}) {
		t.Errorf("%+v", d)
	}
	// A named device that is wrong is not replaced.
	fakeWGPU.several(t, func(d backend.Device) backend.Device {
		return described{hooked{d, hooks{step: spoilFrom(0, negate)}}, "Radeon", backend.Info{}}
	})
	if g := generate(t, engine.Options{Device: "Radeon"}, 16, false); !errors.Is(g.err, engine.ErrRejected) || g.emitted.Len() != 0 {
		t.Errorf("%v, %q", g.err, g.emitted.String())
	}
}

// described is a device with a name and a description.
type described struct {
	hooked
	name string
	info backend.Info
}

func (d described) Name() string       { return d.name }
func (d described) Info() backend.Info { return d.info }

// While a GPU loads, the reference computes the prompt: the verdict is the same,
// and so is what is said.
func TestReferenceRunsWhileWeightsUpload(t *testing.T) {
	prompt := few(40)
	for name, h := range map[string]hooks{"sound": {loadTime: 300 * time.Millisecond}, "wrong": {loadTime: 300 * time.Millisecond, step: spoilFrom(20, negate)}} {
		t.Run(name, func(t *testing.T) {
			var texts, lines []string
			for _, expect := range [][]int32{nil, prompt, few(10)} {
				fakeCUDA.plug(t, h)
				var said []string
				store := &parity.Store{Dir: t.TempDir()}
				for range 2 {
					e, err := engine.Open(loadSmall(t), engine.Options{Expect: expect, Gate: engine.GateOptions{Store: store, Notify: func(d engine.Decision) { said = append(said, d.Line) }}})
					if err != nil {
						t.Fatal(err)
					}
					s, err := e.NewSession(100)
					if err != nil {
						t.Fatal(err)
					}
					r, err := s.Generate(context.Background(), engine.Request{Prompt: prompt, MaxTokens: 50, IgnoreEOS: true})
					if err != nil {
						t.Fatal(err)
					}
					texts = append(texts, r.Text)
					s.Close()
					if err := e.Close(); err != nil {
						t.Error(err)
					}
				}
				lines = append(lines, fmt.Sprint(said))
			}
			if len(slices.Compact(texts)) != 1 || len(slices.Compact(lines)) != 1 {
				t.Errorf("%q\n%q", texts, lines)
			}
		})
	}
}

// A GPU that refuses the model by name ends Open while the reference is computing
// ahead; the caller may unmap the file at once.
func TestRefusalEndsTheReference(t *testing.T) {
	fakeCUDA.plug(t, hooks{load: errors.New("too little memory"), loadTime: 5 * time.Millisecond})
	for range 20 {
		m, err := engine.LoadModel(golden.Path(t, "models", "tiny-coder-28m-q4_k_m.gguf"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := engine.Open(m, engine.Options{Backend: "cuda", Expect: few(60)}); !errors.Is(err, engine.ErrBackend) {
			t.Errorf("error %v", err)
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}
