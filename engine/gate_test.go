package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/chat"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/parity"
)

// fakeGPU is a GPU backend that is the CPU underneath. It has no device unless
// a test has given it one.
type fakeGPU struct {
	name   string
	probes atomic.Int32
	wrap   atomic.Pointer[func(backend.Device) backend.Device]
	more   []func(backend.Device) backend.Device // devices after the first
	fails  error                                 // of Probe
	search func()                                // in Probe, before there is an answer
}

// isolatedGPU has a driver that may do harm.
type isolatedGPU struct {
	*fakeGPU
	driver string
}

var fakeCUDA, fakeWGPU = &isolatedGPU{fakeGPU: &fakeGPU{name: "cuda"}}, &fakeGPU{name: "wgpu"}

func init() {
	backend.Register(fakeCUDA)
	backend.Register(fakeWGPU)
}

func (g *fakeGPU) Name() string { return g.name }

func (g *isolatedGPU) Driver() string { return g.driver }

func (g *fakeGPU) Probe() ([]backend.Device, error) {
	g.probes.Add(1)
	if g.search != nil {
		g.search()
	}
	if g.fails != nil {
		return nil, g.fails
	}
	wrap := g.wrap.Load()
	if wrap == nil {
		return nil, nil
	}
	b, err := backend.Find("cpu")
	if err != nil {
		return nil, err
	}
	devices, err := b.Probe()
	all := []backend.Device{(*wrap)(devices[0])}
	for _, wrap := range g.more {
		all = append(all, wrap(devices[0]))
	}
	return all, err
}

// plug gives the backend a device for the length of a test.
func (g *fakeGPU) plug(t testing.TB, h hooks) {
	g.several(t, func(d backend.Device) backend.Device { return hooked{d, h} })
}

// several gives it devices.
func (g *fakeGPU) several(t testing.TB, first func(backend.Device) backend.Device, more ...func(backend.Device) backend.Device) {
	g.wrap.Store(&first)
	g.more = more
	t.Cleanup(func() {
		g.wrap.Store(nil)
		g.more = nil
	})
}

// failProbe makes the search for devices fail.
func (g *fakeGPU) failProbe(t testing.TB, err error) {
	g.fails = err
	t.Cleanup(func() { g.fails = nil })
}

// isolate names the driver.
func (g *isolatedGPU) isolate(t testing.TB, driver string) {
	g.driver = driver
	t.Cleanup(func() { g.driver = "" })
}

// hooks make an executor wrong.
type hooks struct {
	load     error
	panics   string // while loading
	loadTime time.Duration
	plan     func(batch []backend.Span, names []string) []string
	step     func(batch []backend.Span, l *backend.Logits) error // after the real step
	count    *atomic.Int32                                       // of steps
}

type hooked struct {
	backend.Device
	h hooks
}

func (hooked) Info() backend.Info { return backend.Info{API: "Vulkan"} }

func (d hooked) Load(p *graph.Program, w graph.Weights, o backend.Options) (backend.Executor, error) {
	time.Sleep(d.h.loadTime)
	if d.h.load != nil {
		return nil, d.h.load
	}
	time.Sleep(d.h.loadTime)
	if d.h.panics != "" {
		panic(d.h.panics)
	}
	exec, err := d.Device.Load(p, w, o)
	return &hookedExecutor{exec, d.h}, err
}

type hookedExecutor struct {
	backend.Executor
	h hooks
}

func (e *hookedExecutor) Plan(batch []backend.Span) []string {
	names := e.Executor.Plan(batch)
	if e.h.plan != nil {
		return e.h.plan(batch, slices.Clone(names))
	}
	return names
}

func (e *hookedExecutor) Step(batch []backend.Span, l *backend.Logits) error {
	if e.h.count != nil {
		e.h.count.Add(1)
	}
	if err := e.Executor.Step(batch, l); err != nil || e.h.step == nil {
		return err
	}
	return e.h.step(batch, l)
}

// spoilFrom changes every row of logits from a position on.
func spoilFrom(position int, change func(row []float32)) func([]backend.Span, *backend.Logits) error {
	return func(batch []backend.Span, l *backend.Logits) error {
		row := 0
		for _, s := range batch {
			for i := range s.Rows() {
				if s.Seq.Len()-s.Rows()+i >= position {
					change(l.Row(row))
				}
				row++
			}
		}
		return nil
	}
}

func negate(row []float32) {
	for i := range row {
		row[i] = -row[i]
	}
}

// only applies hooks to one backend.
func only(name string, h hooks) engine.Wrap {
	return func(backendName string, d backend.Device) backend.Device {
		if backendName == name {
			return hooked{d, h}
		}
		return d
	}
}

// gated is a generation with what was said about backends.
type gated struct {
	e       *engine.Engine
	session *engine.Session
	lines   []string
	emitted strings.Builder
	result  engine.Result
	err     error
}

// generate asks the small model a question.
func generate(t testing.TB, o engine.Options, tokens int, ignoreEOS bool) *gated {
	t.Helper()
	g := &gated{}
	o.Gate.Notify = func(d engine.Decision) {
		if d.Line != "" {
			g.lines = append(g.lines, d.Line)
		}
	}
	g.e = open(t, small, o)
	ids, err := g.e.Model.ChatPrompt([]chat.Message{{Role: "user", Content: "What is 2+2?"}})
	if err != nil {
		t.Fatal(err)
	}
	g.session, err = g.e.NewSession(len(ids) + tokens)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.session.Close() })
	g.result, g.err = g.session.Generate(context.Background(), engine.Request{
		Prompt: ids, MaxTokens: tokens, IgnoreEOS: ignoreEOS, Emit: func(s string) { g.emitted.WriteString(s) },
	})
	return g
}

const answer = "2 + 2 equals 4."

// The transcript of the design: two backends fail, the third serves, one line
// each, and JSON says the same.
func TestFallbackChain(t *testing.T) {
	fakeCUDA.plug(t, hooks{step: func([]backend.Span, *backend.Logits) error { return errors.New("device lost") }})
	fakeWGPU.plug(t, hooks{step: spoilFrom(1, negate)})
	g := generate(t, engine.Options{}, 16, false)
	if g.err != nil || g.result.Text != answer || g.emitted.String() != answer {
		t.Fatalf("%q, emitted %q, %v", g.result.Text, g.emitted.String(), g.err)
	}
	want := []string{
		"[apr-cpu-vs-gpu-output-parity-v1] CUDA path rejected, attempting fallback: step of 26 tokens at position 0: device lost",
		"[apr-cpu-vs-gpu-output-parity-v1] wgpu path rejected, attempting fallback: cosine vs CPU = -1.000000 (< 0.99) at position 1",
		"Backend: CPU",
	}
	if !slices.Equal(g.lines, want) {
		t.Errorf("lines\n%s\nwant\n%s", strings.Join(g.lines, "\n"), strings.Join(want, "\n"))
	}
	s := g.e.Selection()
	if s.Requested != "auto" || s.Ran != "cpu" || !s.FellBack || !s.Verified || len(s.Decisions) != 3 {
		t.Errorf("%+v", s)
	}
	for i, d := range s.Decisions {
		if d.Line != want[i] || d.Accepted != (i == 2) || d.Accepted == (d.Reason != "") {
			t.Errorf("decision %d: %+v", i, d)
		}
	}
	if validate, rejected := g.e.GateTimes(); validate <= 0 || rejected <= 0 {
		t.Errorf("validate %v, rejected %v", validate, rejected)
	}
	var back engine.Selection
	data, err := json.Marshal(s)
	if err != nil || json.Unmarshal(data, &back) != nil || !reflect.DeepEqual(s, back) {
		t.Errorf("JSON: %v: %s", err, data)
	}
}

// A sound GPU serves, and its line names the interface.
func TestSoundGPUServes(t *testing.T) {
	fakeWGPU.plug(t, hooks{})
	g := generate(t, engine.Options{}, 16, false)
	if g.err != nil || g.result.Text != answer || !slices.Equal(g.lines, []string{"Backend: wgpu (Vulkan)"}) {
		t.Errorf("%q, %v, %q", g.result.Text, g.err, g.lines)
	}
	if s := g.e.Selection(); s.Ran != "wgpu" || s.FellBack || !s.Verified {
		t.Errorf("%+v", s)
	}
}

// --no-gpu: nothing of a GPU is opened, and nothing is said.
func TestNoGPU(t *testing.T) {
	fakeCUDA.plug(t, hooks{})
	before := fakeCUDA.probes.Load() + fakeWGPU.probes.Load()
	g := generate(t, engine.Options{NoGPU: true}, 16, false)
	if g.err != nil || g.result.Text != answer || len(g.lines) != 0 {
		t.Errorf("%q, %v, %q", g.result.Text, g.err, g.lines)
	}
	if after := fakeCUDA.probes.Load() + fakeWGPU.probes.Load(); after != before {
		t.Errorf("GPU backends were asked for devices %d times", after-before)
	}
	// Even then a rejected CPU path is told.
	g = generate(t, engine.Options{NoGPU: true, Gate: engine.GateOptions{Fault: only("cpu", hooks{step: spoilFrom(0, negate)}), FaultSpec: "test"}}, 16, false)
	want := []string{
		"[apr-cpu-vs-gpu-output-parity-v1] CPU path rejected, attempting fallback: cosine vs cpu-exact = -1.000000 (< 0.99) at position 0",
		"Backend: CPU (exact)",
	}
	if g.err != nil || g.result.Text != answer || !slices.Equal(g.lines, want) {
		t.Errorf("%q, %v, %q", g.result.Text, g.err, g.lines)
	}
}

// A forced backend that is wrong is refused before any token, never replaced.
func TestForcedIsNotReplaced(t *testing.T) {
	for _, name := range []string{"cuda", "cpu"} {
		t.Run(name, func(t *testing.T) {
			h := hooks{step: spoilFrom(0, negate)}
			o := engine.Options{Backend: name}
			if name == "cuda" {
				fakeCUDA.plug(t, h)
			} else {
				o.Gate.Fault, o.Gate.FaultSpec = only("cpu", h), "test"
			}
			g := generate(t, o, 16, false)
			if !errors.Is(g.err, engine.ErrRejected) || g.emitted.Len() != 0 || len(g.result.TokenIDs) != 0 {
				t.Errorf("%v after %q", g.err, g.emitted.String())
			}
			if len(g.lines) != 1 || !strings.Contains(g.lines[0], "path rejected, no fallback: cosine vs ") {
				t.Errorf("lines %q", g.lines)
			}
			if s := g.e.Selection(); s.Verified || s.Requested != name {
				t.Errorf("%+v", s)
			}
		})
	}
	// Not available is not rejected.
	m, err := engine.LoadModel(golden.Path(t, "models", small))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := engine.Open(m, engine.Options{Backend: "wgpu"}); !errors.Is(err, engine.ErrBackend) {
		t.Errorf("no device: %v, want ErrBackend", err)
	}
}

// A device that cannot load the model is told, one that is absent is not.
func TestLoadFails(t *testing.T) {
	fakeCUDA.plug(t, hooks{load: errors.New("out of memory")})
	g := generate(t, engine.Options{}, 16, false)
	if g.err != nil || len(g.lines) != 2 || !strings.Contains(g.lines[0], "CUDA path rejected, attempting fallback: ") || !strings.HasSuffix(g.lines[0], "out of memory") {
		t.Errorf("%v, %q", g.err, g.lines)
	}
}

// Nothing leaves an executor without a permission.
func TestUngatedPathsDoNotExist(t *testing.T) {
	fakeCUDA.plug(t, hooks{step: spoilFrom(0, negate)})
	prompt := []int32{1, 2, 3}
	for name, use := range map[string]func(*engine.Session) error{
		"generate": func(s *engine.Session) error {
			_, err := s.Generate(context.Background(), engine.Request{Prompt: prompt, MaxTokens: 1})
			return err
		},
		"prefill": func(s *engine.Session) error { _, _, err := s.Prefill(context.Background(), prompt); return err },
		"extend": func(s *engine.Session) error {
			_, err := s.Extend(context.Background(), prompt, backend.Last)
			return err
		},
		"logits": func(s *engine.Session) error {
			return s.Logits(context.Background(), prompt, 0, func(int, []float32) error { return nil })
		},
		"perplexity": func(s *engine.Session) error {
			e := open(t, small, engine.Options{Backend: "cuda"})
			_, err := e.Perplexity(context.Background(), strings.Repeat("package main ", 20), engine.PerplexityOptions{Context: 16})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := open(t, small, engine.Options{Backend: "cuda"}).NewSession(16)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if err := use(s); !errors.Is(err, engine.ErrRejected) {
				t.Errorf("%v, want ErrRejected", err)
			}
		})
	}
}

// boundary announces another kernel for steps beyond a position.
func boundary(position int) func([]backend.Span, []string) []string {
	return func(batch []backend.Span, names []string) []string {
		if batch[0].Seq.Len()+len(batch[0].Tokens) > position {
			return append(names, "attention/split")
		}
		return names
	}
}

// A kernel that comes in at a longer context is probed before its logits are
// used: with a fault that exists only there, no wrong token leaves.
func TestNewKernelInMidGeneration(t *testing.T) {
	const position, tokens = 120, 150
	want := generate(t, engine.Options{Backend: "cpu-exact"}, tokens, true)
	if want.err != nil {
		t.Fatal(want.err)
	}
	// The context has been judged by a run before, so that only the kernel is new.
	judged := func(t *testing.T) engine.Options {
		o := engine.Options{Gate: engine.GateOptions{Store: &parity.Store{Dir: t.TempDir()}}}
		fakeCUDA.plug(t, hooks{})
		if g := generate(t, o, tokens, true); g.err != nil || g.e.Selection().VerifiedContext < position {
			t.Fatalf("%v, %+v", g.err, g.e.Selection())
		}
		return o
	}
	t.Run("sound", func(t *testing.T) {
		o := judged(t)
		fakeCUDA.plug(t, hooks{plan: boundary(position)})
		g := generate(t, o, tokens, true)
		if g.err != nil || g.result.Text != want.result.Text || !slices.Equal(g.lines, []string{"Backend: CUDA (Vulkan)"}) {
			t.Errorf("%v, %q", g.err, g.lines)
		}
	})
	t.Run("wrong, with a fallback", func(t *testing.T) {
		o := judged(t)
		fakeCUDA.plug(t, hooks{plan: boundary(position), step: spoilFrom(position, negate)})
		g := generate(t, o, tokens, true)
		if g.err != nil || g.emitted.String() != want.emitted.String() {
			t.Errorf("%v, %q", g.err, g.emitted.String())
		}
		if len(g.lines) != 3 || !strings.Contains(g.lines[1], "CUDA path rejected, attempting fallback: cosine vs CPU = -1.000000 (< 0.99) at position 120") || g.lines[2] != "Backend: CPU" {
			t.Errorf("lines %q", g.lines)
		}
	})
	t.Run("wrong, forced", func(t *testing.T) {
		o := judged(t)
		o.Backend = "cuda"
		fakeCUDA.plug(t, hooks{plan: boundary(position), step: spoilFrom(position, negate)})
		g := generate(t, o, tokens, true)
		if !errors.Is(g.err, engine.ErrRejected) || !strings.HasPrefix(want.result.Text, g.emitted.String()) {
			t.Errorf("%v, %q", g.err, g.emitted.String())
		}
		// The token chosen from position 119 is the last that was right.
		if n := len(g.result.TokenIDs); n != position-g.result.PromptTokens+1 {
			t.Errorf("%d tokens, want all that are right and no other", n)
		}
	})
}

// A fault that begins at some position and that no kernel announces is found
// when the context first grows towards it: no wrong token leaves, whether the
// position is reached by the answer or lies in a long prompt.
func TestUnannouncedFaultAtALongerContext(t *testing.T) {
	for _, position := range []int{73, 127, 128, 511} {
		t.Run(fmt.Sprint(position), func(t *testing.T) {
			tokens := position + 30
			want := generate(t, engine.Options{Backend: "cpu-exact"}, tokens, true)
			fakeCUDA.plug(t, hooks{step: spoilFrom(position, demoteBest)})
			g := generate(t, engine.Options{}, tokens, true)
			if g.err != nil || want.err != nil || !slices.Equal(g.result.TokenIDs, want.result.TokenIDs) || g.emitted.String() != want.result.Text {
				t.Errorf("%v, %v: %q, want %q", g.err, want.err, g.emitted.String(), want.result.Text)
			}
			if len(g.lines) != 3 || !strings.HasSuffix(g.lines[1], fmt.Sprintf("at position %d", position)) {
				t.Errorf("lines %q", g.lines)
			}
			// By name it is refused before the position.
			g = generate(t, engine.Options{Backend: "cuda"}, tokens, true)
			if !errors.Is(g.err, engine.ErrRejected) || !strings.HasPrefix(want.result.Text, g.emitted.String()) || len(g.result.TokenIDs) > position-g.result.PromptTokens+1 {
				t.Errorf("forced: %v after %d tokens", g.err, len(g.result.TokenIDs))
			}
		})
	}
	t.Run("in the prompt", func(t *testing.T) {
		fakeCUDA.plug(t, hooks{step: spoilFrom(300, demoteBest)})
		e := open(t, small, engine.Options{Backend: "cuda"})
		s, err := e.NewSession(420)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		r, err := s.Generate(context.Background(), engine.Request{Prompt: few(400), MaxTokens: 3, IgnoreEOS: true})
		if !errors.Is(err, engine.ErrRejected) || len(r.TokenIDs) != 0 {
			t.Errorf("%v after %d tokens", err, len(r.TokenIDs))
		}
	})
	t.Run("in a prompt after a short one", func(t *testing.T) {
		fakeCUDA.plug(t, hooks{step: spoilFrom(300, demoteBest)})
		store := &parity.Store{Dir: t.TempDir()}
		for i, n := range []int{20, 400} {
			s, err := open(t, small, engine.Options{Backend: "cuda", Gate: engine.GateOptions{Store: store}}).NewSession(420)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			r, err := s.Generate(context.Background(), engine.Request{Prompt: few(n), MaxTokens: 3, IgnoreEOS: true})
			if wrong := i == 1; errors.Is(err, engine.ErrRejected) != wrong || wrong && len(r.TokenIDs) != 0 {
				t.Errorf("%d tokens: %v after %d tokens", n, err, len(r.TokenIDs))
			}
		}
	})
}

// demoteBest moves the best logit below all others.
func demoteBest(row []float32) {
	best := 0
	for i, x := range row {
		if x > row[best] {
			best = i
		}
	}
	row[best] = slices.Min(row) - 1
}

// A context that takes the reference too long is served, but nothing calls it
// verified; with every token followed it is verified again.
func TestContextBeyondTheBudget(t *testing.T) {
	fakeCUDA.plug(t, hooks{})
	p := parity.Standard()
	p.Probe.ContextTime = 1 // nanosecond
	g := generate(t, engine.Options{Gate: engine.GateOptions{Policy: p}}, 100, true)
	s := g.e.Selection()
	if g.err != nil || s.Verified || s.VerifiedContext != 72 || s.Ran != "cuda" || s.FellBack {
		t.Errorf("%v, %+v", g.err, s)
	}
	if len(g.lines) != 2 || !strings.HasPrefix(g.lines[1], "[apr-cpu-vs-gpu-output-parity-v1] CUDA path is not verified beyond 72 tokens of context: comparing 126 positions would take the reference about ") {
		t.Errorf("lines %q", g.lines)
	}
	g = generate(t, engine.Options{Gate: engine.GateOptions{Policy: p, Verify: engine.VerifyShadow}}, 100, true)
	if s := g.e.Selection(); g.err != nil || !s.Verified || len(g.lines) != 1 {
		t.Errorf("followed: %v, %+v, %q", g.err, s, g.lines)
	}
}

// The reference that follows finds what no comparison before could: the
// generation ends, and text waits until it has been judged.
func TestShadow(t *testing.T) {
	for _, tt := range []struct {
		name     string
		verify   engine.Verify
		tokens   int
		position int
		threads  int
		broken   bool
	}{
		{"sound", engine.VerifyShadow, 60, math.MaxInt, 0, false},
		{"sound, idle CPUs", engine.VerifyShadow, 60, math.MaxInt, 1, false},
		{"wrong late", engine.VerifyShadow, 150, 100, 0, true},
		{"wrong late, idle CPUs", engine.VerifyShadow, 150, 100, 1, true},
		{"wrong in the last token", engine.VerifyShadow, 100, 26 + 98, 0, true},
		{"long", engine.VerifyProbe, engine.ShadowAfter + 60, 26 + engine.ShadowAfter + 20, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := generate(t, engine.Options{Backend: "cpu-exact"}, tt.tokens, true)
			store := &parity.Store{Dir: t.TempDir()}
			o := engine.Options{Threads: tt.threads, Gate: engine.GateOptions{Verify: tt.verify, Store: store}}
			fakeCUDA.plug(t, hooks{})
			if tt.verify == engine.VerifyProbe { // the context is known to be sound
				if g := generate(t, o, tt.tokens, true); g.err != nil {
					t.Fatal(g.err)
				}
			}
			spoil := spoilFrom(tt.position, negate)
			fakeCUDA.plug(t, hooks{step: func(batch []backend.Span, l *backend.Logits) error {
				if tt.verify == engine.VerifyProbe && batch[0].Seq.Len() > 26+engine.ShadowAfter {
					time.Sleep(10 * time.Millisecond) // or the answer ends before the reference, for which it does not wait, is there
				}
				return spoil(batch, l)
			}})
			g := generate(t, o, tt.tokens, true)
			if errors.Is(g.err, engine.ErrRejected) != tt.broken || !tt.broken && g.err != nil {
				t.Fatalf("%v, want rejected %v; %q", g.err, tt.broken, g.lines)
			}
			if g.result.Text != g.emitted.String() || !strings.HasPrefix(want.result.Text, g.emitted.String()) {
				t.Errorf("wrong text has left: %q, want a beginning of %q", g.emitted.String(), want.result.Text)
			}
			if !tt.broken {
				if g.result.Text != want.result.Text || len(g.result.TokenIDs) != tt.tokens {
					t.Errorf("%d tokens: %q, want %q", len(g.result.TokenIDs), g.result.Text, want.result.Text)
				}
				return
			}
			// The token chosen from the position before is the last that is right.
			if n := tt.position - g.result.PromptTokens + 1; !slices.Equal(g.result.TokenIDs, want.result.TokenIDs[:n]) {
				t.Errorf("%d tokens, want the %d that are right", len(g.result.TokenIDs), n)
			}
			last := g.lines[len(g.lines)-1]
			if !strings.Contains(last, "CUDA path rejected, no fallback: ") || !strings.HasSuffix(last, fmt.Sprintf("at position %d", tt.position)) {
				t.Errorf("last line %q, want position %d", last, tt.position)
			}
			if s := g.e.Selection(); s.Verified {
				t.Errorf("still verified: %+v", s)
			}
			// The certificate is revoked: the next run does not start with it.
			g = generate(t, o, 5, true)
			if g.err != nil || g.e.Selection().Ran != "cpu" || len(g.lines) != 2 {
				t.Errorf("next run: %v, %q", g.err, g.lines)
			}
		})
	}
}

// NaN in mid-generation: nothing of it leaves, another backend goes on.
func TestNaNInMidGeneration(t *testing.T) {
	want := generate(t, engine.Options{Backend: "cpu-exact"}, 120, true)
	fakeCUDA.plug(t, hooks{step: spoilFrom(110, func(row []float32) { row[7] = float32(math.NaN()) })})
	g := generate(t, engine.Options{}, 120, true)
	if g.err != nil || g.result.Text != want.result.Text {
		t.Errorf("%v, %q", g.err, g.result.Text)
	}
	if len(g.lines) != 3 || !strings.HasSuffix(g.lines[1], "CUDA path rejected, attempting fallback: NaN or infinity in the logits at position 110") {
		t.Errorf("lines %q", g.lines)
	}
}

// Verdicts are remembered, passes and failures alike, and a matching
// certificate makes the next start free.
func TestCertificates(t *testing.T) {
	store := &parity.Store{Dir: filepath.Join(t.TempDir(), "deep", "certs")}
	var steps atomic.Int32
	fakeCUDA.plug(t, hooks{count: &steps})
	basis := func(o engine.Options) (parity.How, int32) {
		t.Helper()
		steps.Store(0)
		g := generate(t, o, 4, true)
		if g.err != nil {
			t.Fatal(g.err)
		}
		d := g.e.Selection().Decisions
		return d[len(d)-1].Basis, steps.Load()
	}
	o := engine.Options{Gate: engine.GateOptions{Store: store}}
	if how, n := basis(o); how != parity.ByProbe || n < 20 {
		t.Errorf("first: by %s after %d steps", how, n)
	}
	if how, n := basis(o); how != parity.ByCertificate || n != 4 {
		t.Errorf("second: by %s after %d steps, want none but the answer's 4", how, n)
	}
	for name, change := range map[string]func(*engine.Options){
		"cache type":   func(o *engine.Options) { o.KV = engine.KVF32 },
		"batch":        func(o *engine.Options) { o.MaxBatch = 16 },
		"policy":       func(o *engine.Options) { p := parity.Standard(); p.MinCosine = 0.995; o.Gate.Policy = p },
		"revalidation": func(o *engine.Options) { o.Gate.Renew = true },
		"fault": func(o *engine.Options) {
			o.Gate.Fault, o.Gate.FaultSpec = only("none", hooks{}), "none:x"
		},
	} {
		changed := o
		change(&changed)
		if how, _ := basis(changed); how != parity.ByProbe {
			t.Errorf("another %s: by %s, want a probe", name, how)
		}
	}
	changed := o
	changed.Threads = 1
	if how, _ := basis(changed); how != parity.ByCertificate {
		t.Errorf("another number of threads: by %s, want the certificate", how)
	}
}

func TestFailuresAreRemembered(t *testing.T) {
	store := &parity.Store{Dir: t.TempDir()}
	var steps atomic.Int32
	fakeCUDA.plug(t, hooks{step: spoilFrom(0, negate), count: &steps})
	o := engine.Options{Gate: engine.GateOptions{Store: store}}
	first := generate(t, o, 4, true)
	probed := steps.Load()
	second := generate(t, o, 4, true)
	if probed == 0 || steps.Load() != probed {
		t.Errorf("%d steps at first, %d more with the certificate, want 0", probed, steps.Load()-probed)
	}
	if !slices.Equal(first.lines, second.lines) {
		t.Errorf("lines differ: %q and %q", first.lines, second.lines)
	}
}

// Under an injected fault nothing is remembered, in either direction.
func TestFaultsLeaveNoCertificates(t *testing.T) {
	dir := t.TempDir()
	o := engine.Options{Gate: engine.GateOptions{
		Store: &parity.Store{Dir: dir}, Fault: only("cpu", hooks{step: spoilFrom(0, negate)}), FaultSpec: "cpu:test",
	}}
	g := generate(t, o, 4, true)
	if g.err != nil || g.e.Selection().Ran != "cpu-exact" {
		t.Fatalf("%v, %+v", g.err, g.e.Selection())
	}
	if d := g.e.Selection().Decisions; d[len(d)-1].Basis != parity.ByReference {
		t.Errorf("the reference is sound and serves by %s", d[len(d)-1].Basis)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 0 {
		t.Errorf("%d files written, %v", len(entries), err)
	}
}

// The bypass is told each time, marked, and never remembered.
func TestOverride(t *testing.T) {
	fakeCUDA.plug(t, hooks{step: spoilFrom(0, negate)})
	dir := t.TempDir()
	for name, gate := range map[string]engine.GateOptions{
		"environment": {Override: "SKIP_PARITY_GATE=1"},
		"flag":        {Verify: engine.VerifyOff},
	} {
		gate.Store = &parity.Store{Dir: dir}
		for range 2 {
			g := generate(t, engine.Options{Gate: gate}, 4, true)
			if g.err != nil || len(g.lines) != 1 || !strings.HasPrefix(g.lines[0], "override: ") {
				t.Errorf("%s: %v, %q", name, g.err, g.lines)
			}
			if s := g.e.Selection(); s.Verified || s.Ran != "cuda" || s.Decisions[0].Basis != parity.ByOverride || s.Decisions[0].Status != parity.NotMeasured {
				t.Errorf("%s: %+v", name, s)
			}
		}
	}
	list, _, err := (&parity.Store{Dir: dir}).List()
	if err != nil || len(list) != 0 {
		t.Errorf("%d certificates, %v", len(list), err)
	}
}
