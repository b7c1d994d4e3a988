package engine_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
)

// watched tells what a GPU is given to load.
type watched struct {
	hooked
	loaded *[]*graph.Program
}

func (d watched) Load(p *graph.Program, w graph.Weights, o backend.Options) (backend.Executor, error) {
	*d.loaded = append(*d.loaded, p)
	return d.hooked.Load(p, w, o)
}

// The GPU gets the last layers with the output matrix and nothing else, however many
// are asked for; the answer is the same, and people are told.
func TestGPULayers(t *testing.T) {
	for _, tt := range []struct {
		layers, onGPU int
		line          string
	}{
		{0, 4, "Backend: CUDA (Vulkan)"},
		{1, 1, "Backend: CUDA (Vulkan, 1 of 4 layers)"},
		{2, 2, "Backend: CUDA (Vulkan, 2 of 4 layers)"},
		{3, 3, "Backend: CUDA (Vulkan, 3 of 4 layers)"},
		{4, 4, "Backend: CUDA (Vulkan)"},
		{99, 4, "Backend: CUDA (Vulkan)"},
	} {
		t.Run(fmt.Sprint(tt.layers), func(t *testing.T) {
			var programs []*graph.Program
			fakeCUDA.several(t, func(d backend.Device) backend.Device { return watched{hooked{d, hooks{}}, &programs} })
			g := generate(t, engine.Options{GPULayers: tt.layers}, 16, false)
			if g.err != nil || g.result.Text != answer || !slices.Equal(g.lines, []string{tt.line}) {
				t.Fatalf("%q, %v, lines %q", g.result.Text, g.err, g.lines)
			}
			if s := g.e.Selection(); s.GPULayers != tt.onGPU || s.Layers != 4 || s.Ran != "cuda" || !s.Verified {
				t.Errorf("%+v", s)
			}
			if len(programs) != 1 || programs[0].Layers() != tt.onGPU {
				t.Fatalf("%d programs were loaded", len(programs))
			}
			for _, op := range programs[0].Ops {
				for _, name := range op.Weights() {
					var layer int
					if n, _ := fmt.Sscanf(name, "blk.%d.", &layer); n == 1 && layer < 4-tt.onGPU {
						t.Errorf("%s is on the GPU", name)
					}
				}
			}
			// Kernels are named with their half, so that the gate knows what it has seen.
			split := slices.ContainsFunc(g.e.Variants(), func(v string) bool { return strings.HasPrefix(v, fmt.Sprintf("last-%d/", tt.onGPU)) })
			if split != (tt.onGPU < 4) {
				t.Errorf("kernels %q", g.e.Variants())
			}
		})
	}
	if _, err := engine.Open(loadSmall(t), engine.Options{GPULayers: -1}); !errors.Is(err, engine.ErrInput) {
		t.Errorf("fewer than no layers: %v", err)
	}
}

// A verdict holds for one number of layers; apr devices tells which.
func TestGPULayersCertificates(t *testing.T) {
	fakeCUDA.plug(t, hooks{})
	store := &parity.Store{Dir: t.TempDir()}
	basis := func(layers int) parity.How {
		t.Helper()
		g := generate(t, engine.Options{GPULayers: layers, Gate: engine.GateOptions{Store: store}}, 16, false)
		if g.err != nil {
			t.Fatal(g.err)
		}
		d := g.e.Selection().Decisions
		return d[len(d)-1].Basis
	}
	for _, tt := range []struct {
		layers int
		want   parity.How
	}{{0, parity.ByProbe}, {2, parity.ByProbe}, {2, parity.ByCertificate}, {3, parity.ByProbe}, {2, parity.ByCertificate}, {4, parity.ByCertificate}} {
		if got := basis(tt.layers); got != tt.want {
			t.Errorf("%d layers: by %s, want by %s", tt.layers, got, tt.want)
		}
	}
	if _, err := store.Clear(); err != nil {
		t.Fatal(err)
	}
	basis(3)
	devices, _, err := engine.Devices(context.Background(), engine.Options{Gate: engine.GateOptions{Store: store}})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		if d.Backend == "cuda" && (d.Verdict == nil || d.Verdict.Status != parity.Validated || d.Verdict.Part != "3 of 4 layers") {
			t.Errorf("the verdict on %s is %+v", d.ID, d.Verdict)
		}
		if d.Backend == "cpu" && d.Verdict != nil {
			t.Errorf("the CPU has the verdict of the pair: %+v", d.Verdict)
		}
	}
}

// What is wrong in either half is seen in the logits of the whole.
func TestGPULayersFaults(t *testing.T) {
	for _, tt := range []struct{ where, name string }{
		{"cuda", "rope-decode-late"}, {"cuda", "operation-dropped"}, {"cuda", "batch-rows-swapped"}, {"cuda", "one-nan"}, {"cuda", "device-lost"},
		{"cpu", "operation-dropped@0"}, {"cpu", "batch-rows-swapped"},
	} {
		t.Run(tt.where+":"+tt.name, func(t *testing.T) {
			fakeCUDA.plug(t, hooks{})
			f, err := fault.Lookup(tt.name)
			if err != nil {
				t.Fatal(err)
			}
			// The CPU by itself stays sound, so that there is something to fall back to.
			pair := true
			o := engine.Options{GPULayers: 2, Gate: engine.GateOptions{FaultSpec: tt.where + ":" + tt.name, Fault: func(name string, d backend.Device) backend.Device {
				if name != tt.where || !pair {
					return d
				}
				pair = false
				return fault.Wrap(d, f)
			}}}
			g := generate(t, o, 16, false)
			if g.err != nil || g.result.Text != answer {
				t.Fatalf("%q, %v", g.result.Text, g.err)
			}
			if len(g.lines) != 2 || !strings.HasPrefix(g.lines[0], tag+"CUDA path rejected, attempting fallback: ") || g.lines[1] != "Backend: CPU" {
				t.Errorf("lines %q", g.lines)
			}
			if s := g.e.Selection(); s.GPULayers != 0 || !s.FellBack {
				t.Errorf("%+v", s)
			}
		})
	}
}

// A GPU that is lost in the middle takes its half with it: the CPU goes on alone.
func TestGPULayersLostInMidGeneration(t *testing.T) {
	const tokens = 60
	want := generate(t, engine.Options{Backend: "cpu-exact"}, tokens, true)
	fakeCUDA.plug(t, hooks{step: func(batch []backend.Span, _ *backend.Logits) error {
		if s := batch[0]; s.Seq.Capacity() != 72 && s.Seq.Len() == 51 {
			return fmt.Errorf("%w: illegal address", backend.ErrLost)
		}
		return nil
	}})
	g := generate(t, engine.Options{GPULayers: 2}, tokens, true)
	if g.err != nil || g.result.Text != want.result.Text || g.emitted.String() != want.result.Text {
		t.Errorf("%v, %q, want %q", g.err, g.emitted.String(), want.result.Text)
	}
	lines := []string{
		"Backend: CUDA (Vulkan, 2 of 4 layers)",
		tag + "CUDA path rejected, attempting fallback: step of 1 token at position 50: device lost: illegal address",
		"Backend: CPU",
	}
	if !slices.Equal(g.lines, lines) {
		t.Errorf("lines %q", g.lines)
	}
}

// A refusal for lack of memory says how many of the model's layers would fit, also
// when fewer than all were tried.
func TestGPULayersAdvice(t *testing.T) {
	short := &backend.MemoryError{Need: 9 << 20, Free: 5 << 20, Layers: 1, Text: "needs 9.0 MiB, free are 5.0 MiB"}
	fakeCUDA.plug(t, hooks{load: short})
	for _, layers := range []int{0, 3} {
		g := generate(t, engine.Options{GPULayers: layers}, 16, false)
		const refusal = "CUDA path rejected, attempting fallback: not supported by this backend: needs 9.0 MiB, free are 5.0 MiB; 1 of 4 layers would fit: try --gpu-layers 1"
		if g.err != nil || g.result.Text != answer || len(g.lines) != 2 || g.lines[0] != tag+refusal {
			t.Errorf("%d layers: %v, lines %q", layers, g.err, g.lines)
		}
	}
	_, err := engine.Open(loadSmall(t), engine.Options{Backend: "cuda"})
	if !errors.Is(err, engine.ErrBackend) || !errors.Is(err, backend.ErrUnsupported) || !strings.HasSuffix(err.Error(), "try --gpu-layers 1") {
		t.Errorf("by name: %v", err)
	}
	short.Layers = 0
	if _, err := engine.Open(loadSmall(t), engine.Options{Backend: "cuda"}); err == nil || strings.Contains(err.Error(), "--gpu-layers") {
		t.Errorf("not even one: %v", err)
	}
}

// A program that cannot be cut is refused by name, not loaded another way.
func TestGPULayersOfOnePiece(t *testing.T) {
	fakeCUDA.plug(t, hooks{})
	m := loadSmall(t)
	for _, op := range m.Program.Ops { // the last layer attends over the first one's cache
		if a, ok := op.(*graph.Attention); ok && a.Layer == 3 {
			a.Layer = 0
		}
	}
	_, err := engine.Open(m, engine.Options{Backend: "cuda", GPULayers: 2})
	if !errors.Is(err, engine.ErrBackend) || !errors.Is(err, graph.ErrCut) || !strings.Contains(err.Error(), "cuda") {
		t.Errorf("error %v", err)
	}
}

// A bisection of the pair names a value of the half that is wrong.
func TestGPULayersBisect(t *testing.T) {
	fakeCUDA.plug(t, hooks{})
	f, err := fault.Lookup("operation-dropped")
	if err != nil {
		t.Fatal(err)
	}
	for _, faulty := range []bool{false, true} {
		o := engine.Options{GPULayers: 2}
		if faulty {
			o.Gate.Fault = func(name string, d backend.Device) backend.Device {
				if name == "cuda" {
					return fault.Wrap(d, f)
				}
				return d
			}
		}
		b, err := engine.Bisect(context.Background(), loadSmall(t), o, "cuda", few(20))
		if err != nil {
			t.Fatal(err)
		}
		if (b.First >= 0) != faulty {
			t.Fatalf("faulty %v: first %d of %d values", faulty, b.First, len(b.Values))
		}
		if faulty {
			name := b.Values[b.First].Name
			if !strings.HasPrefix(name, "blk.2.") && !strings.HasPrefix(name, "blk.3.") {
				t.Errorf("the first wrong value is %s, in the CPU's half", name)
			}
		}
	}
}
