package apr

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/apr-engine/apr/chat"
	"github.com/apr-engine/apr/engine"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// intValue is a whole number within bounds, checked when the flag is parsed.
type intValue struct {
	p        *int
	min, max int
}

func (v intValue) String() string { return strconv.Itoa(*v.p) }
func (v intValue) Type() string   { return "int" }

func (v intValue) Set(s string) error {
	n, err := strconv.Atoi(s)
	if err != nil || n < v.min || n > v.max {
		if v.max == math.MaxInt32 {
			return fmt.Errorf("want a whole number of at least %d", v.min)
		}
		return fmt.Errorf("want a whole number from %d to %d", v.min, v.max)
	}
	*v.p = n
	return nil
}

// floatValue is a finite number within bounds.
type floatValue struct {
	p        *float64
	min, max float64
}

func (v floatValue) String() string { return strconv.FormatFloat(*v.p, 'g', -1, 64) }
func (v floatValue) Type() string   { return "float" }

func (v floatValue) Set(s string) error {
	x, err := strconv.ParseFloat(s, 64)
	if err != nil || !(x >= v.min && x <= v.max) {
		return fmt.Errorf("want a number from %g to %g", v.min, v.max)
	}
	*v.p = x
	return nil
}

// seedValue is any 64-bit seed.
type seedValue struct{ p *uint64 }

func (v seedValue) String() string { return strconv.FormatUint(*v.p, 10) }
func (v seedValue) Type() string   { return "uint" }

func (v seedValue) Set(s string) error {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return fmt.Errorf("want a whole number from 0 to %d", uint64(math.MaxUint64))
	}
	*v.p = n
	return nil
}

// choiceValue is one of a few words.
type choiceValue struct {
	p       *string
	choices []string
}

func (v choiceValue) String() string { return *v.p }
func (v choiceValue) Type() string   { return "string" }

func (v choiceValue) Set(s string) error {
	if !slices.Contains(v.choices, s) {
		return fmt.Errorf("want one of %s", strings.Join(v.choices, ", "))
	}
	*v.p = s
	return nil
}

// intListValue is a comma-separated list of whole numbers within bounds.
type intListValue struct {
	p        *[]int
	min, max int
}

func (v intListValue) Type() string { return "list" }

func (v intListValue) String() string {
	parts := make([]string, len(*v.p))
	for i, n := range *v.p {
		parts[i] = strconv.Itoa(n)
	}
	return strings.Join(parts, ",")
}

func (v intListValue) Set(s string) error {
	var list []int
	for part := range strings.SplitSeq(s, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < v.min || n > v.max {
			return fmt.Errorf("want whole numbers from %d to %d, separated by commas", v.min, v.max)
		}
		list = append(list, n)
	}
	*v.p = list
	return nil
}

// textListValue collects the texts of a flag that may be given several times.
type textListValue struct{ p *[]string }

func (v textListValue) String() string { return strings.Join(*v.p, ",") }
func (v textListValue) Type() string   { return "text" }

func (v textListValue) Set(s string) error {
	if s == "" {
		return errors.New("the text is empty")
	}
	*v.p = append(*v.p, s)
	return nil
}

// layersValue is a number of layers, or all.
type layersValue struct{ p *int }

// allLayers is the number that stands for all.
const allLayers = -1

func (v layersValue) Type() string { return "N" }

func (v layersValue) String() string {
	if *v.p == allLayers {
		return "all"
	}
	return strconv.Itoa(*v.p)
}

func (v layersValue) Set(s string) error {
	if s == "all" {
		*v.p = allLayers
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > maxCount {
		return errors.New("want a whole number of at least 0, or all")
	}
	*v.p = n
	return nil
}

// Limits of flags, far above any use.
const (
	maxCount   = math.MaxInt32
	maxThreads = 1024
	maxFactor  = 1e6
)

// backendFlags choose where a model runs.
type backendFlags struct {
	backend string
	device  string
	noGPU   bool
	layers  int // on the GPU; allLayers for all
	threads int
	kv      string
	verify  string
	renew   bool
	// announce prints which backend runs; otherwise only rejections are told.
	announce bool
}

// gpuBackends are names that other builds of apr know. They are refused as not
// available, not as unknown.
var gpuBackends = []string{"cuda", "wgpu"}

// cacheTypes are the element types of the key/value cache.
var cacheTypes = []string{"f16", "f32", "q8_0"}

func (b *backendFlags) register(f *pflag.FlagSet) {
	b.registerWithoutThreads(f)
	f.VarP(intValue{&b.threads, 0, maxThreads}, "threads", "t", "CPU threads; 0 for one for each CPU")
}

func (b *backendFlags) registerWithoutThreads(f *pflag.FlagSet) {
	b.backend = "auto"
	names := engine.Backends()
	f.StringVar(&b.backend, "backend", b.backend, "where to run: "+strings.Join(names, ", "))
	f.StringVar(&b.device, "device", "", "which GPU: an id, a number or a part of a name, see 'apr devices'")
	f.BoolVar(&b.noGPU, "no-gpu", false, "do not look for a GPU")
	f.BoolVar(&b.noGPU, "cpu", false, "the same as --no-gpu")
	b.layers = allLayers
	f.Var(layersValue{&b.layers}, "gpu-layers", "how many of the last layers a GPU gets; the CPU runs the others")
	// llama.cpp's long name. Its -ngl cannot be a flag here: short ones have one letter.
	f.Var(layersValue{&b.layers}, "n-gpu-layers", "the same as --gpu-layers")
	f.Lookup("n-gpu-layers").Hidden = true
	f.Var(choiceValue{&b.kv, cacheTypes}, "kv", "type of the key/value cache: f16, f32, or q8_0 on a CPU (default f16, f32 for cpu-exact and oracle)")
	f.BoolVar(&b.renew, "revalidate", false, "compare the backend with the reference again, in spite of a certificate")
}

// registerVerify adds the choice of how much is compared.
func (b *backendFlags) registerVerify(f *pflag.FlagSet) {
	b.verify = string(engine.VerifyProbe)
	f.Var(choiceValue{&b.verify, []string{"off", "probe", "shadow"}}, "verify",
		"compare with the reference: probe before what rests on it is shown, shadow also every token while it runs, off not at all")
}

// options checks the backend's name and returns the library's options.
func (b *backendFlags) options(cmd *cobra.Command) (engine.Options, error) {
	names := engine.Backends()
	gpu := slices.Contains(gpuBackends, b.backend)
	switch {
	case gpu && b.noGPU:
		return engine.Options{}, usageError(cmd, "--backend %s and --no-gpu exclude each other", b.backend)
	case gpu && !slices.Contains(names, b.backend):
		return engine.Options{}, fmt.Errorf("%w: this build has no backend %s (has %s)", engine.ErrBackend, b.backend, strings.Join(names, ", "))
	case !slices.Contains(names, b.backend):
		return engine.Options{}, usageError(cmd, "--backend %s: want one of %s", b.backend, strings.Join(names, ", "))
	}
	switch {
	case b.device != "" && b.noGPU:
		return engine.Options{}, usageError(cmd, "--device and --no-gpu exclude each other")
	case b.device != "" && b.backend != "auto" && !gpu:
		return engine.Options{}, usageError(cmd, "--device names a GPU, which --backend %s does not use", b.backend)
	}
	// No layer on a GPU is no GPU.
	onGPU := b.device != "" || gpu
	switch {
	case b.layers == 0 && onGPU:
		return engine.Options{}, usageError(cmd, "--gpu-layers 0 leaves nothing for the GPU that --backend or --device asks for")
	case b.layers > 0 && b.noGPU:
		return engine.Options{}, usageError(cmd, "--gpu-layers and --no-gpu exclude each other")
	case b.layers > 0 && b.backend != "auto" && !gpu:
		return engine.Options{}, usageError(cmd, "--gpu-layers is for GPUs, which --backend %s does not use", b.backend)
	}
	noGPU := b.noGPU || b.layers == 0
	threads := b.threads
	if threads == 0 {
		threads = runtime.NumCPU()
	}
	gate, err := b.gateOptions(cmd)
	return engine.Options{Backend: b.backend, Device: b.device, NoGPU: noGPU, GPULayers: max(b.layers, 0), Threads: threads, KV: engine.KVType(b.kv), Gate: gate}, err
}

// samplingFlags choose tokens. The caller sets the defaults before register.
type samplingFlags struct {
	engine.Sampling
	maxTokens int
	stop      []string
	ignoreEOS bool
}

func defaultSampling() samplingFlags {
	return samplingFlags{maxTokens: 32, Sampling: engine.Sampling{
		TopK: 40, TopP: 0.95, MinP: 0.05, RepeatPenalty: 1, RepeatLastN: 64, Seed: 299792458,
	}}
}

func (s *samplingFlags) register(f *pflag.FlagSet) {
	f.VarP(intValue{&s.maxTokens, 0, maxCount}, "max-tokens", "n", "most tokens to generate")
	f.Var(floatValue{&s.Temperature, 0, maxFactor}, "temperature", "randomness; 0 always takes the most probable token")
	f.Var(intValue{&s.TopK, 0, maxCount}, "top-k", "choose among the k most probable tokens; 0 for all")
	f.Var(floatValue{&s.TopP, 0, 1}, "top-p", "choose among the tokens that make up this probability; 1 for all")
	f.Var(floatValue{&s.MinP, 0, 1}, "min-p", "drop tokens below this share of the most probable; 0 for none")
	f.Var(floatValue{&s.RepeatPenalty, 0, maxFactor}, "repeat-penalty", "divide the logits of recent tokens by this; 1 for none")
	f.Var(intValue{&s.RepeatLastN, -1, maxCount}, "repeat-last-n", "how many tokens are recent; -1 for all")
	f.Var(seedValue{&s.Seed}, "seed", "seed of the random choice")
	f.Var(textListValue{&s.stop}, "stop", "end before this text; may be given several times")
	f.BoolVar(&s.ignoreEOS, "ignore-eos", false, "go on after the token that ends an answer")
}

// templateFlag replaces the model's chat template.
type templateFlag struct{ name string }

func (t *templateFlag) register(f *pflag.FlagSet) {
	f.StringVar(&t.name, "chat-template", "", "file with a chat template, or "+strings.Join(chat.BuiltinNames(), ", "))
}

// apply gives the model the template that was asked for.
func (t *templateFlag) apply(m *engine.Model) error {
	if t.name == "" {
		return nil
	}
	return m.UseTemplate(t.name)
}
