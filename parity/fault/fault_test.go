package fault_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	_ "github.com/apr-engine/apr/backend/cpu"
	_ "github.com/apr-engine/apr/backend/oracle"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/model"
	_ "github.com/apr-engine/apr/model/all"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/apr-engine/apr/synth"
	"github.com/apr-engine/apr/tensor"
)

// subject is a model that faults are put into.
type subject struct {
	name    string
	program *graph.Program
	weights graph.Weights
	tokens  []int32
}

// feed is how many tokens go in: a prompt in batches, then single tokens.
type feed struct{ prompt, batch, total int }

var (
	// short has three batches, the last without a full one's length.
	short = feed{60, 24, 76}
	// long passes the 500 positions and 20 steps that late faults spare.
	long = feed{480, 24, 520}
)

// effect is the relative RMS difference of some row that counts as a change: ten
// times what rounding the cache to half precision costs.
const effect = 0.01

func openSubject(t testing.TB, name, path string) subject {
	t.Helper()
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	p, err := model.Build(f.Metadata, f)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(1, 2))
	tokens := make([]int32, long.total)
	for i := range tokens {
		tokens[i] = int32(rng.IntN(p.Vocab))
	}
	return subject{name, p, f, tokens}
}

func bundled(t testing.TB) []subject {
	t.Helper()
	var all []subject
	for _, size := range []string{"4m", "28m"} {
		all = append(all, openSubject(t, "tiny-coder-"+size, golden.Path(t, "models", "tiny-coder-"+size+"-q4_k_m.gguf")))
	}
	return all
}

func synthetic(t testing.TB, preset, quant string, outliers int) subject {
	t.Helper()
	path := filepath.Join(t.TempDir(), preset+".gguf")
	if err := synth.Write(path, synth.Options{Preset: preset, Quant: quant, OutlierChannels: outliers}); err != nil {
		t.Fatal(err)
	}
	name := preset + "-" + quant
	if outliers > 0 {
		name += "-outliers"
	}
	return openSubject(t, name, path)
}

func device(t testing.TB, name string) backend.Device {
	t.Helper()
	b, err := backend.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	devices, err := b.Probe()
	if err != nil || len(devices) == 0 {
		t.Fatalf("probe: %v", err)
	}
	return devices[0]
}

// run feeds tokens and returns the logits after each.
func run(s subject, exec backend.Executor, f feed) (rows [][]float32, err error) {
	seq, err := exec.NewSequence(f.total)
	if err != nil {
		return nil, err
	}
	defer seq.Close()
	for at := 0; at < f.total; {
		n := 1
		if at < f.prompt {
			n = min(f.batch, f.prompt-at)
		}
		var l backend.Logits
		if err := exec.Step([]backend.Span{{Seq: seq, Tokens: s.tokens[at : at+n], Want: backend.All}}, &l); err != nil {
			return rows, err
		}
		if len(l.Data) != n*s.program.Vocab {
			return rows, errShort
		}
		for i := range n {
			rows = append(rows, l.Row(i))
		}
		at += n
	}
	return rows, nil
}

var errShort = errors.New("too few logits")

func load(s subject, d backend.Device, faults ...fault.Fault) (backend.Executor, error) {
	return fault.Wrap(d, faults...).Load(s.program, s.weights, backend.Options{KV: tensor.F16, Threads: 2, MaxBatch: 64})
}

// difference is the largest relative RMS difference of any row, +Inf where a
// number is not finite.
func difference(got, want [][]float32) float64 {
	worst := 0.0
	for i := range want {
		e := golden.RelativeRMS(got[i], want[i])
		if math.IsNaN(e) {
			return math.Inf(1)
		}
		worst = max(worst, e)
	}
	return worst
}

// affine are faults of formats that only 4- and 5-bit files have.
var affine = []string{"nibble-order", "scale-high-bits", "minimum-dropped"}

// qwen3Only need QK-norm, the others a bias, a window, scaled RoPE, outliers.
var qwen3Only = []string{"qk-norm-missing", "batch-qk-norm-missing"}

// Every fault changes the logits of every model that has what it spoils, on
// every executor, and says so of a model that has not.
func TestEveryFaultHasAnEffect(t *testing.T) {
	models := bundled(t)
	for _, tt := range []struct {
		subject subject
		backend string
		without []string // not applicable
	}{
		{models[0], "cpu", slices.Concat(qwen3Only, []string{"rope-scaling-ignored", "window-ignored", "int8-coarse-scale"})},
		{models[1], "cpu-exact", slices.Concat(qwen3Only, []string{"rope-scaling-ignored", "window-ignored", "int8-coarse-scale"})},
		{synthetic(t, "tiny-qwen2.5-1.5b", "q4_k_m", 2), "cpu-exact", slices.Concat(qwen3Only, []string{"rope-scaling-ignored", "window-ignored"})},
		{synthetic(t, "tiny-llama-3.1-8b", "q5_k_m", 2), "cpu", slices.Concat(qwen3Only, []string{"qkv-bias-missing", "window-ignored"})},
		{synthetic(t, "tiny-llama-3.1-8b", "q4_0", 0), "cpu-exact", slices.Concat(qwen3Only, []string{"scale-high-bits", "minimum-dropped", "qkv-bias-missing", "window-ignored", "int8-coarse-scale"})},
		{synthetic(t, "tiny-qwen3-0.6b", "q8_0", 2), "cpu", slices.Concat(affine, []string{"q6k-high-bits", "qkv-bias-missing", "rope-scaling-ignored", "window-ignored"})},
		{synthetic(t, "tiny-qwen3-0.6b", "q4_k_m", 0), "cpu-exact", []string{"qkv-bias-missing", "rope-scaling-ignored", "window-ignored", "int8-coarse-scale"}},
		{synthetic(t, "tiny-gemma3-1b", "q4_1", 0), "cpu", []string{"scale-high-bits", "q6k-high-bits", "qkv-bias-missing", "rope-base", "rope-scaling-ignored", "gqa-head-map", "silu-quick-gelu", "silu-steep", "int8-coarse-scale"}},
	} {
		t.Run(tt.subject.name, func(t *testing.T) {
			if testing.Short() && tt.subject.name != models[0].name {
				t.Skip("one model is enough for the race detector")
			}
			d := device(t, tt.backend)
			want := map[feed][][]float32{short: sound(t, tt.subject, d, short), long: sound(t, tt.subject, d, long)}
			for _, f := range fault.All() {
				applicable := !slices.Contains(tt.without, f.Name)
				t.Run(f.Name, func(t *testing.T) { checkEffect(t, tt.subject, d, f, applicable, want) })
			}
		})
	}
}

func sound(t *testing.T, s subject, d backend.Device, f feed) [][]float32 {
	t.Helper()
	exec, err := load(s, d)
	if err != nil {
		t.Fatal(err)
	}
	defer exec.Close()
	rows, err := run(s, exec, f)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

func checkEffect(t *testing.T, s subject, d backend.Device, f fault.Fault, applicable bool, want map[feed][][]float32) {
	exec, err := load(s, d, f)
	if !applicable {
		if !errors.Is(err, fault.ErrNotApplicable) {
			t.Fatalf("error %v, want %v", err, fault.ErrNotApplicable)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	how := short
	if f.Late {
		how = long
	}
	switch f.Name {
	case "hang":
		checkHang(t, s, exec)
		return
	case "panic":
		defer exec.Close()
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		run(s, exec, how)
		return
	}
	defer exec.Close()
	got, err := run(s, exec, how)
	switch f.Name {
	case "short-logits":
		if !errors.Is(err, errShort) {
			t.Errorf("error %v, want %v", err, errShort)
		}
	case "device-lost":
		if !errors.Is(err, fault.ErrLost) {
			t.Errorf("error %v, want %v", err, fault.ErrLost)
		}
	default:
		if err != nil {
			t.Fatal(err)
		}
		if e := difference(got, want[how]); !(e > effect) {
			t.Errorf("the logits change by %.3g, want more than %v", e, effect)
		}
	}
}

// A hanging step ends when the executor is closed, and not before.
func checkHang(t *testing.T, s subject, exec backend.Executor) {
	seq, err := exec.NewSequence(8)
	if err != nil {
		t.Fatal(err)
	}
	step := func(i int) error {
		return exec.Step([]backend.Span{{Seq: seq, Tokens: s.tokens[i : i+1], Want: backend.None}}, nil)
	}
	for i := range 3 {
		if err := step(i); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- step(3) }()
	select {
	case err := <-done:
		t.Fatalf("the step returned: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	exec.Close()
	if err := <-done; !errors.Is(err, fault.ErrLost) {
		t.Errorf("error %v, want %v", err, fault.ErrLost)
	}
}

// The oracle knows the operations of faults too.
func TestOracle(t *testing.T) {
	s, d := bundled(t)[0], device(t, "oracle")
	how := feed{20, 8, 23}
	want := sound(t, s, d, how)
	for _, name := range []string{"kv-slot-late", "cache-zero-rows", "mask-future", "mask-self", "rope-query-late", "rope-decode-late", "gqa-head-map", "half-overflow", "kv-drift", "prefill-positions-restart", "replay-operation-dropped"} {
		f, err := fault.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		exec, err := load(s, d, f)
		if err != nil {
			t.Fatal(err)
		}
		got, err := run(s, exec, how)
		if err != nil {
			t.Fatal(err)
		}
		if e := difference(got, want); !(e > effect) {
			t.Errorf("%s: the logits change by %.3g, want more than %v", name, e, effect)
		}
		// The CPU path computes the same wrong numbers.
		exact, err := load(s, device(t, "cpu-exact"), f)
		if err != nil {
			t.Fatal(err)
		}
		same, err := run(s, exact, how)
		exact.Close()
		if err != nil {
			t.Fatal(err)
		}
		// 5e-3 is the rounding of the half-precision cache. After an overflow
		// both must have numbers that are not finite.
		if e := difference(same, got); !(e <= 5e-3) && !(name == "half-overflow" && math.IsInf(e, 1)) {
			t.Errorf("%s: cpu-exact differs from the oracle by %.3g", name, e)
		}
	}
}

// A fault leaves the model alone: the program and weights serve others.
func TestOriginalsAreUntouched(t *testing.T) {
	s, d := bundled(t)[0], device(t, "cpu-exact")
	want := sound(t, s, d, short)
	for _, f := range fault.All() {
		if exec, err := load(s, d, f); err == nil {
			exec.Close()
		} else if !errors.Is(err, fault.ErrNotApplicable) {
			t.Errorf("%s: %v", f.Name, err)
		}
	}
	if e := difference(sound(t, s, d, short), want); e != 0 {
		t.Errorf("the logits differ by %.3g after faults were applied", e)
	}
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       map[string][]string
		err        error
	}{
		{"empty", "", nil, nil},
		{"one", "cpu:one-nan", map[string][]string{"cpu": {"one-nan"}}, nil},
		{"two of one backend", "cpu:one-nan,kv-drift", map[string][]string{"cpu": {"one-nan", "kv-drift"}}, nil},
		{"two backends", "cuda:nibble-order,wgpu:cache-zero-rows", map[string][]string{"cuda": {"nibble-order"}, "wgpu": {"cache-zero-rows"}}, nil},
		{"a layer", "cpu:qkv-bias-missing@2", map[string][]string{"cpu": {"qkv-bias-missing@2"}}, nil},
		{"no backend", "one-nan", nil, fault.ErrSpec},
		{"empty backend", ":one-nan", nil, fault.ErrSpec},
		{"unknown fault", "cpu:none-such", nil, fault.ErrUnknown},
		{"no fault", "cpu:", nil, fault.ErrUnknown},
		{"bad layer", "cpu:kv-drift@x", nil, fault.ErrSpec},
		{"layer of a fault without", "cpu:one-nan@1", nil, fault.ErrSpec},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := fault.Parse(tt.text)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error %v, want %v", err, tt.err)
			}
			names := map[string][]string{}
			for b, faults := range got {
				for _, f := range faults {
					names[b] = append(names[b], f.String())
				}
			}
			if len(names) != len(tt.want) {
				t.Fatalf("%v, want %v", names, tt.want)
			}
			for b, want := range tt.want {
				if !slices.Equal(names[b], want) {
					t.Errorf("%s: %v, want %v", b, names[b], want)
				}
			}
		})
	}
}

var kebab = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`)

func TestCatalogue(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range fault.All() {
		if !kebab.MatchString(f.Name) || seen[f.Name] {
			t.Errorf("name %q is taken or not in kebab-case", f.Name)
		}
		seen[f.Name] = true
		if f.Summary == "" || strings.HasSuffix(f.Summary, ".") || f.Report == "" {
			t.Errorf("%s: summary %q, report %q", f.Name, f.Summary, f.Report)
		}
		if f.Layer >= 0 {
			t.Errorf("%s: layer %d", f.Name, f.Layer)
		}
	}
	if len(seen) < 30 || len(fault.Names()) != len(seen) {
		t.Errorf("%d faults, %d names, want at least 30", len(seen), len(fault.Names()))
	}
}

// A layer restricts a fault to that layer.
func TestLayerSelects(t *testing.T) {
	s := bundled(t)[0]
	f, err := fault.Lookup("qkv-bias-missing@1")
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := f.Apply(s.program, s.weights)
	if err != nil {
		t.Fatal(err)
	}
	for i, op := range s.program.Ops {
		a, ok := op.(*graph.MatMul)
		if !ok {
			continue
		}
		b := p.Ops[i].(*graph.MatMul)
		name := p.Values[b.Out].Name
		changed := a.Bias != b.Bias
		if want := strings.HasPrefix(name, "blk.1.attn_") && a.Bias != ""; changed != want {
			t.Errorf("%s: changed is %v, want %v", name, changed, want)
		}
	}
	if f, err = fault.Lookup("qkv-bias-missing@99"); err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Apply(s.program, s.weights); !errors.Is(err, fault.ErrNotApplicable) {
		t.Errorf("error %v, want %v", err, fault.ErrNotApplicable)
	}
}
