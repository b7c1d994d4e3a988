package cuda

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/backend/backendtest"
	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/driver/cuda/emutest"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/model"
	"github.com/apr-engine/apr/tensor"
)

// long reports whether tests that take the emulation too long may run: on a real
// GPU, or where APR_LONG_TESTS is set.
func long() bool { return !emutest.Emulated() || os.Getenv("APR_LONG_TESTS") != "" }

// conformance is the difference allowed between steps of different sizes. Steps of
// up to eight tokens are within 1e-5 of the reference (TestAgainstReference); many
// tokens are multiplied in f16, 2^-12 of each activation, which these random models
// amplify to as much as 7e-3 of their logits. It is the rounding: cpu-exact with
// nothing changed but the inputs of its products rounded to half precision differs by
// 1.4e-3 to 6.3e-3 on the same models. (Rounding keys and values alone makes 2e-3.)
const conformance = 0.015

// The emulation runs one model for each feature of attention and norms; the others
// differ in their rotations, which have tests of their own.
func TestConformance(t *testing.T) {
	if long() {
		backendtest.Conformance(t, Name, conformance)
		return
	}
	backendtest.ConformanceOf(t, Name, conformance, "qwen2", "gemma3")
}

// The cache that serves: half precision, on kernels of its own.
func TestHalfCache(t *testing.T) {
	if long() {
		backendtest.HalfCacheOf(t, Name, conformance)
		return
	}
	backendtest.HalfCacheOf(t, Name, conformance, "qwen2")
}

// limits: f16 activations and weights where many tokens are multiplied.
var limits = backendtest.Limits{Logits: conformance, Hidden: conformance, GreedyTies: 0.05}

func TestArchitectures(t *testing.T) {
	if !long() {
		ref := golden.Path(t, "testdata", "architectures", "qwen3.gguf")
		backendtest.RunReference(t, backendtest.Reference{Name: "qwen3", Model: ref, Results: strings.TrimSuffix(ref, ".gguf") + ".safetensors", Longest: 40}, Name, limits)
		return
	}
	backendtest.RunArchitecturesWithin(t, Name, limits)
}

func TestBundledModels(t *testing.T) {
	for _, ref := range backendtest.Bundled(t) {
		if !long() {
			ref.Longest = 8
			if ref.Name != "tiny-coder-4m-q4_k_m" {
				continue
			}
		}
		backendtest.RunReference(t, ref, Name, limits)
	}
}

func TestSharedModels(t *testing.T) {
	if !long() {
		t.Skip("the emulation needs minutes for these models: scripts/gpu/check runs it on a GPU, APR_LONG_TESTS=1 anywhere")
	}
	for _, ref := range backendtest.Shared(t) {
		backendtest.RunReference(t, ref, Name, limits)
	}
}

// open loads a tiny model.
func open(t *testing.T, name string, o backend.Options) *executor {
	t.Helper()
	_, exec := backendtest.Load(t, golden.Path(t, "testdata", "architectures", name+".gguf"), Name, o)
	return exec.(*executor)
}

// decode runs a prompt of some tokens and single tokens after it.
func decode(e *executor, prompt, single int) error {
	seq, err := e.NewSequence(prompt + single)
	if err != nil {
		return err
	}
	var l backend.Logits
	tokens := make([]int32, prompt)
	for i := range tokens {
		tokens[i] = int32(i)
	}
	if err := e.Step([]backend.Span{{Seq: seq, Tokens: tokens, Want: backend.Last}}, &l); err != nil {
		return errors.Join(err, seq.Close())
	}
	for range single {
		if err := e.Step([]backend.Span{{Seq: seq, Tokens: []int32{1}, Want: backend.Last}}, &l); err != nil {
			return errors.Join(err, seq.Close())
		}
	}
	return seq.Close()
}

// Every operation of the program is in the graph that single tokens replay, once,
// and every launch is a node of it.
func TestGraphHasEveryOperation(t *testing.T) {
	for _, name := range []string{"qwen2", "qwen3", "gemma3", "llama-gqa"} {
		t.Run(name, func(t *testing.T) {
			e := open(t, name, backend.Options{KV: tensor.F16})
			if err := decode(e, 3, 2); err != nil {
				t.Fatal(err)
			}
			p := e.prepared[stepSize{tokens: 1, rows: 1, tiles: 1}]
			if p == nil || p.graph == 0 || p.nodes != len(p.segments[0].runs) {
				t.Fatalf("no graph of all launches: %+v", p)
			}
			covered := make([]int, len(e.program.Ops))
			for _, op := range e.operations(stepSize{tokens: 1, rows: 1, tiles: 1}) {
				for _, i := range op.ops {
					covered[i]++
				}
			}
			for i, n := range covered {
				if n != 1 {
					t.Errorf("operation %d (%s) is computed %d times", i, e.program.Ops[i].Kind(), n)
				}
			}
			perLayer := float64(p.nodes) / float64(len(e.program.Caches))
			t.Logf("%d launches for %d operations, %.1f a layer", p.nodes, len(e.program.Ops), perLayer)
			if perLayer > 12 {
				t.Errorf("%.1f launches a layer: what should be fused is not", perLayer)
			}
			if emutest.Emulated() {
				before := emutest.Count(t, "graph launches")
				if err := decode(e, 3, 2); err != nil {
					t.Fatal(err)
				}
				if n := emutest.Count(t, "graph launches") - before; n != 3 {
					t.Errorf("%d steps ran as graphs, want all 3", n)
				}
			}
		})
	}
}

// What a step uses is what the plan said before it.
func TestPlanNamesWhatRuns(t *testing.T) {
	e := open(t, "qwen2", backend.Options{KV: tensor.F16})
	seq, err := e.NewSequence(200)
	if err != nil {
		t.Fatal(err)
	}
	defer seq.Close()
	seen := map[string]bool{}
	for _, n := range []int{1, 2, 20, 130, 1} {
		batch := []backend.Span{{Seq: seq, Tokens: make([]int32, n), Want: backend.Last}}
		plan := slices.Clone(e.Plan(batch))
		var l backend.Logits
		if err := e.Step(batch, &l); err != nil {
			t.Fatal(err)
		}
		for _, name := range plan {
			if !slices.Contains(e.Variants(), name) {
				t.Errorf("%d tokens: %s was planned and is not among those used", n, name)
			}
		}
		key := strings.Join(plan, " ")
		if seen[key] {
			t.Errorf("a step of %d tokens at %d has the names of another: %s", n, seq.Len(), key)
		}
		seen[key] = true
	}
}

// An error of the device is the step's error and ends the executor for good. Another
// opens where the driver allows it: the emulation always does.
func TestDeviceErrors(t *testing.T) {
	for _, tt := range []struct {
		name            string
		code            cuda.Code
		after           int64
		atOnce, capture bool
	}{
		{name: "illegal address in the prompt", code: cuda.IllegalAddress, after: 5},
		{name: "illegal address in a replayed graph", code: cuda.IllegalAddress, after: 40},
		{name: "launch failure", code: cuda.LaunchFailed, after: 0},
		{name: "refused launch", code: 701, after: 3, atOnce: true},
		{name: "memory error", code: 214, after: 2},
		{name: "lost device", code: 46, after: 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := open(t, "qwen2", backend.Options{KV: tensor.F16})
			emutest.Set(t, "fail code", int64(tt.code))
			if tt.atOnce {
				emutest.Set(t, "fail at once", 1)
			}
			emutest.Set(t, "fail after", tt.after)
			err := decode(e, 3, 40)
			if !errors.Is(err, backend.ErrLost) || !cuda.IsCode(err, tt.code) {
				t.Fatalf("error %v, want a lost device with code %d", err, tt.code)
			}
			start := time.Now()
			if err := decode(e, 1, 1); !errors.Is(err, backend.ErrLost) {
				t.Errorf("a later step: %v", err)
			}
			if err := e.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			if took := time.Since(start); took > time.Second {
				t.Errorf("failing and closing took %v", took)
			}
			if err := decode(open(t, "qwen2", backend.Options{KV: tensor.F16}), 2, 1); err != nil {
				t.Errorf("another executor: %v", err)
			}
		})
	}
}

// On a failed step the sequence is as before.
func TestFailedStepLeavesSequence(t *testing.T) {
	e := open(t, "qwen2", backend.Options{KV: tensor.F16})
	seq, err := e.NewSequence(8)
	if err != nil {
		t.Fatal(err)
	}
	emutest.Set(t, "fail after", 2)
	if err := e.Step([]backend.Span{{Seq: seq, Tokens: []int32{1, 2}}}, nil); err == nil {
		t.Fatal("no error")
	}
	if seq.Len() != 0 {
		t.Errorf("the sequence has %d tokens", seq.Len())
	}
}

// Close does not wait for a device that hangs.
func TestCloseOfHangingDevice(t *testing.T) {
	e := open(t, "qwen2", backend.Options{KV: tensor.F16})
	emutest.Set(t, "hang", 4000)
	emutest.Set(t, "fail after", 3)
	done := make(chan error)
	go func() { done <- decode(e, 3, 1) }()
	time.Sleep(200 * time.Millisecond)
	start := time.Now()
	if err := e.Close(); !errors.Is(err, cuda.ErrBusy) || time.Since(start) > 3*time.Second {
		t.Errorf("close: %v after %v", err, time.Since(start))
	}
	if err := <-done; !errors.Is(err, backend.ErrLost) {
		t.Errorf("the step: %v", err)
	}
}

func TestNoDevice(t *testing.T) {
	for _, tt := range []struct {
		key   string
		value int64
		says  string
	}{
		{"init", 100, "NO_DEVICE"},
		{"devices", 0, "no GPU"},
		{"version", 11020, "CUDA 11.2"},
		{"capability", 75, "compute capability 7.5"},
	} {
		t.Run(tt.key, func(t *testing.T) {
			emutest.Set(t, tt.key, tt.value)
			if _, err := (nvidia{}).Probe(); !errors.Is(err, backend.ErrNoDevice) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want one that says %q", err, tt.says)
			}
		})
	}
	t.Run("library", func(t *testing.T) {
		t.Setenv(cuda.LibraryEnv, "/nonexistent/libcuda.so.1")
		if _, err := (nvidia{}).Probe(); !errors.Is(err, backend.ErrNoDevice) || !strings.Contains(err.Error(), "libcuda.so.1") {
			t.Errorf("error %v", err)
		}
	})
}

// What does not fit is refused before loading, with what is needed and what is free.
func TestTooLittleMemory(t *testing.T) {
	emutest.Set(t, "memory", 1<<20)
	p, f := qwen2(t)
	_, err := probe(t).Load(p, f, backend.Options{KV: tensor.F16})
	if !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "needs") || !strings.Contains(err.Error(), "1.0 MiB of 1.0 MiB") {
		t.Errorf("error %v", err)
	}
	var short *backend.MemoryError
	if !errors.As(err, &short) || short.Free != 1<<20 || short.Need <= short.Free || short.Layers != 0 {
		t.Errorf("the refusal says %+v", short)
	}
	// A long context is planned for too.
	emutest.Set(t, "memory", 64<<20)
	_, err = probe(t).Load(p, f, backend.Options{KV: tensor.F16, MaxBatch: 64, Context: 1 << 20})
	if !errors.As(err, &short) || !strings.Contains(err.Error(), "cache of 1048576 tokens") {
		t.Errorf("a long context: %v", err)
	}
	e := open(t, "qwen2", backend.Options{KV: tensor.F16, MaxBatch: 64})
	if _, err := e.NewSequence(1 << 20); !cuda.IsCode(err, cuda.OutOfMemory) || !strings.Contains(err.Error(), "1048576 tokens") {
		t.Errorf("a long sequence: %v", err)
	}
	if err := decode(e, 2, 1); err != nil {
		t.Errorf("a step after a refused sequence: %v", err)
	}
}

// Where the whole does not fit, the refusal says how many layers do: so many load and
// one more is refused.
func TestLayersThatFit(t *testing.T) {
	f, err := gguf.Open(golden.Path(t, "models", "tiny-coder-28m-q4_k_m.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	p, err := model.Build(f.Metadata, f)
	if err != nil {
		t.Fatal(err)
	}
	o := backend.Options{KV: tensor.F16, MaxBatch: 64}
	emutest.Set(t, "memory", 1<<20)
	_, err = probe(t).Load(p, f, o)
	var whole *backend.MemoryError
	if !errors.As(err, &whole) {
		t.Fatalf("error %v", err)
	}
	seen := map[int]bool{}
	for short := int64(1); short < 6; short++ {
		emutest.Set(t, "memory", whole.Need-short*whole.Need/12)
		_, err := probe(t).Load(p, f, o)
		var refused *backend.MemoryError
		if !errors.As(err, &refused) || refused.Need != whole.Need || refused.Layers >= p.Layers() {
			t.Fatalf("error %v", err)
		}
		if refused.Layers == 0 {
			continue
		}
		seen[refused.Layers] = true
		for _, n := range []int{refused.Layers, refused.Layers + 1} {
			if n == p.Layers() {
				continue // the whole, which was refused
			}
			_, rest, err := p.Cut(p.Layers() - n)
			if err != nil {
				t.Fatal(err)
			}
			exec, err := probe(t).Load(rest, f, o)
			if fits := n == refused.Layers; fits != (err == nil) {
				t.Errorf("%d layers would fit; loading %d: %v", refused.Layers, n, err)
			}
			if err == nil {
				exec.Close()
			}
		}
	}
	if len(seen) < 2 {
		t.Errorf("only %v layers were ever said to fit", seen)
	}
}

func qwen2(t *testing.T) (*graph.Program, *gguf.File) {
	t.Helper()
	f, err := gguf.Open(golden.Path(t, "testdata", "architectures", "qwen2.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	p, err := model.Build(f.Metadata, f)
	if err != nil {
		t.Fatal(err)
	}
	return p, f
}

func probe(t *testing.T) backend.Device {
	t.Helper()
	list, err := nvidia{}.Probe()
	if err != nil {
		t.Fatal(err)
	}
	return list[0]
}

// changed is a file with one tensor replaced.
type changed struct {
	graph.Weights
	t tensor.Tensor
}

func (c changed) Tensor(name string) (tensor.Tensor, bool) {
	if name == c.t.Name {
		return c.t, true
	}
	return c.Weights.Tensor(name)
}

// What no kernel does is refused at load, by the name of tensor or option.
func TestLoadRefuses(t *testing.T) {
	p, f := qwen2(t)
	const name = "blk.0.ffn_up.weight"
	odd, _ := f.Tensor(name)
	odd.Type = tensor.I32
	if _, err := probe(t).Load(p, changed{f, odd}, backend.Options{KV: tensor.F16}); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), name) {
		t.Errorf("a tensor of integers: %v", err)
	}
	if _, err := probe(t).Load(p, f, backend.Options{KV: tensor.Q8_0}); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "Q8_0") {
		t.Errorf("a cache of Q8_0: %v", err)
	}
	wide := *p
	wide.Caches = slices.Clone(p.Caches)
	wide.Caches[0].HeadDim = 1024
	if _, err := probe(t).Load(&wide, f, backend.Options{KV: tensor.F16}); !errors.Is(err, backend.ErrUnsupported) || !strings.Contains(err.Error(), "1024") {
		t.Errorf("heads of 1024: %v", err)
	}
}

func TestFrequencies(t *testing.T) {
	// A frequency of one turn in 2^20 positions, and its negative.
	const turn = 2 * 3.141592653589793
	got := frequencies([]float64{turn / (1 << 20), -turn / (1 << 20), turn * 3.25, 0})
	for i, want := range []uint64{1 << 44, -(1 << 44) & (1<<64 - 1), 1 << 62, 0} {
		if diff := int64(got[i] - want); diff > 1<<14 || diff < -(1<<14) {
			t.Errorf("frequency %d is %#x, want %#x", i, got[i], want)
		}
	}
}

// Many sequences that decode together run as a graph too, and get what a step that is
// not captured gives them.
func TestGraphOfManySequences(t *testing.T) {
	e := open(t, "qwen2", backend.Options{KV: tensor.F16})
	step := func(n int) []float32 {
		t.Helper()
		var batch []backend.Span
		for i := range n {
			seq, err := e.NewSequence(4)
			if err != nil {
				t.Fatal(err)
			}
			defer seq.Close()
			batch = append(batch, backend.Span{Seq: seq, Tokens: []int32{int32(i)}, Want: backend.Last})
		}
		var l backend.Logits
		for range 2 {
			if err := e.Step(batch, &l); err != nil {
				t.Fatal(err)
			}
		}
		return l.Data
	}
	captured, launched := step(16), step(15)
	if p := e.prepared[stepSize{16, 16, 16}]; p == nil || p.graph == 0 || p.nodes != len(p.segments[0].runs) {
		t.Fatalf("no graph of all launches: %+v", p)
	}
	if p := e.prepared[stepSize{15, 15, 15}]; p == nil || p.graph != 0 {
		t.Fatalf("15 sequences are captured: %+v", p)
	}
	if !slices.Equal(captured[:len(launched)], launched) {
		t.Error("the graph gives other logits than its launches")
	}
}
