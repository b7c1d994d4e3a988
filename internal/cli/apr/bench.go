package apr

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/bench"
	"github.com/apr-engine/apr/engine"
	"github.com/spf13/cobra"
)

type benchOptions struct {
	backendFlags
	model       string
	prompt      []int
	generate    []int
	depth       []int
	sequences   []int
	batch       int
	threads     []int
	repetitions int
	format      string
	profile     bool
}

// maxSequences is far more than any device has memory for.
const maxSequences = 512

var benchFormats = []string{"md", "json"}

func newBench() *cobra.Command {
	o := benchOptions{prompt: []int{512}, generate: []int{128}, depth: []int{0}, sequences: []int{1}, threads: []int{0}, repetitions: 5, format: "md"}
	cmd := &cobra.Command{
		Use:     "bench MODEL [flags]",
		GroupID: groupMeasure,
		Short:   "Measure speed beside the machine's limits",
		Long: `Measure prompt processing (pp) and generation (tg) as llama-bench does: random
tokens, one warm-up, then the mean, standard deviation and median of the speed.

Before any number the backend's logits are compared with those of cpu-exact on a
short text; a cosine below 0.99 at any position ends the command. The limits of
the machine are measured in the same run: a generated token reads every weight
once, so bandwidth limits tg; the matrix products of a prompt are limited by
arithmetic, so that limits pp.

Bandwidth is what as many threads reach that only read, asking for pages ahead:
256 MiB of the process's memory, in large pages where the system gives them. Since
what others leave of it changes within seconds, tg on a CPU is measured in pairs: a
reading of some 4 ms comes before and after each run and every 0.2 s within one, and
is no part of the run's time. The share of the limit is the median over the stretches
between, each beside the mean of its two readings; the limit is that of the median
reading. The line about the machine has the best of five readings made before all
tests. The limit of pp is the best of five measurements of the arithmetic, those of a
GPU are what the device can do.

With -d a test begins in a context of so many tokens, whose keys and values count for
the limit too; with --sequences several generate together and the speed is that of all
of them. Lists separated by commas measure every combination.

The verdict of a line is the parity gate's: what is longer than anything that was
compared is compared before it is measured, where that takes the reference no longer
than the policy allows, and is unverified otherwise. A comparison made before, with
apr parity --contexts and the same --batch, counts.`,
		Example: `  apr bench models/tiny-coder-28m-q4_k_m.gguf
  apr bench models/tiny-coder-28m-q4_k_m.gguf -p 128,512 -n 0 -t 1,2 -r 3 -o json`,
		Args:              modelArg(0, "MODEL"),
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.model = args[0]
			return o.run(cmd)
		},
	}
	f := cmd.Flags()
	f.VarP(intListValue{&o.prompt, 0, maxCount}, "n-prompt", "p", "prompt lengths; 0 for no prompt test")
	f.VarP(intListValue{&o.generate, 0, maxCount}, "n-gen", "n", "tokens to generate; 0 for no generation test")
	f.VarP(intListValue{&o.depth, 0, maxCount}, "n-depth", "d", "tokens already in the context when a test begins")
	f.Var(intListValue{&o.sequences, 1, maxSequences}, "sequences", "how many sequences generate together")
	f.VarP(intValue{&o.batch, 0, maxCount}, "batch", "b", "prompt tokens in one step; 0 for the default")
	f.VarP(intListValue{&o.threads, 0, maxThreads}, "threads", "t", "CPU threads; 0 for one for each CPU")
	f.VarP(intValue{&o.repetitions, 1, maxCount}, "repetitions", "r", "times to repeat each test")
	f.VarP(choiceValue{&o.format, benchFormats}, "output", "o", "format: md or json")
	f.BoolVar(&o.profile, "profile", false, "print the time of each operation and its limit")
	o.backendFlags.registerWithoutThreads(f)
	return cmd
}

func (o *benchOptions) run(cmd *cobra.Command) error {
	log := logger(cmd)
	opts, err := o.backendFlags.options(cmd)
	if err != nil {
		return err
	}
	positive := func(list []int) []int {
		return slices.DeleteFunc(slices.Clone(list), func(n int) bool { return n == 0 })
	}
	threads := slices.Clone(o.threads)
	for i, n := range threads {
		if n == 0 {
			threads[i] = runtime.NumCPU()
		}
	}
	opts.MaxBatch = o.batch
	run := bench.Options{
		Engine: opts, Prompt: positive(o.prompt), Generate: positive(o.generate), Depth: o.depth, Sequences: o.sequences,
		Threads: threads, Repetitions: o.repetitions, Profile: o.profile,
	}
	if len(run.Prompt)+len(run.Generate) == 0 {
		return usageError(cmd, "nothing to measure: -p and -n are both 0")
	}
	m, err := loadModel(o.model, log)
	if err != nil {
		return err
	}
	defer m.Close()
	printer := benchPrinter{out: stdout(cmd), model: describeModel(m), work: bench.Work(m), batch: cmp.Or(o.batch, backend.DefaultMaxBatch)}
	print, finish := printer.markdownRow, printer.markdownEnd
	if o.format == "json" {
		print, finish = printer.jsonRow, printer.jsonEnd
	}
	if err := bench.Run(cmd.Context(), m, run, print); err != nil {
		if errors.Is(err, bench.ErrCheck) {
			return kindError{err, errInvalid}
		}
		return err
	}
	return finish()
}

// benchModel is what the tables say about the model.
type benchModel struct {
	file, name string
	size       int64
	parameters int64
}

// describeModel names the model as its file does, or by the file.
func describeModel(m *engine.Model) benchModel {
	d := benchModel{file: m.Path, size: m.File.Size()}
	arch := m.Program.Arch
	for _, t := range m.File.Tensors {
		d.parameters += int64(t.Elements())
	}
	d.name = arch
	if name, ok := m.File.Metadata.String("general.name"); ok && name != "" {
		d.name = arch + " " + name
	} else {
		d.name = arch + " " + filepath.Base(m.Path)
	}
	return d
}

// benchPrinter prints rows as they come.
type benchPrinter struct {
	out   *output
	model benchModel
	work  bench.Cost
	batch int
	rows  []bench.Row
	json  []benchJSON
}

func (p *benchPrinter) markdownRow(r bench.Row) error {
	if len(p.rows) == 0 {
		io.WriteString(p.out, "| model | size | params | backend | threads | test | t/s | median | limit | of limit | verdict |\n"+
			"| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n")
	}
	p.rows = append(p.rows, r)
	name := r.Backend
	if r.Part != "" {
		name += ", " + r.Part
	}
	limit, share := "not known", ""
	if r.Limit > 0 {
		limit, share = fmt.Sprintf("%.1f (%s)", r.Limit, r.Bound), fmt.Sprintf("%.0f %%", 100*r.OfLimit())
	}
	_, err := fmt.Fprintf(p.out, "| %s | %s | %s | %s | %d | %s | %.2f ± %.2f | %.2f | %s | %s | %s |\n",
		p.model.name, byteSize(p.model.size), count(p.model.parameters), name, r.Threads, r.Test(),
		r.Mean, r.StdDev, r.Median, limit, share, r.Verdict())
	return err
}

// markdownEnd explains the table: the check and the limits of each number of
// threads, and the operations.
func (p *benchPrinter) markdownEnd() error {
	fmt.Fprintln(p.out)
	for i, r := range p.rows {
		if i > 0 && p.rows[i-1].Threads == r.Threads {
			continue
		}
		if d := r.Machine.Device; d.Bandwidth > 0 || d.Arithmetic > 0 {
			fmt.Fprintf(p.out, "- device of %s: reads %.1f GB/s, %.0f Gop/s in matrix products\n", r.Backend, d.Bandwidth/1e9, d.Arithmetic/1e9)
		}
		fmt.Fprintf(p.out, "- %s: cosine to cpu-exact %.6f (lowest of %d positions); reads %.1f GB/s (%.0f %% in large pages), %.0f Gop/s 16-bit, %.0f Gflop/s float32\n",
			plural(r.Threads, "thread"), r.Check.Cosine, r.Check.Positions, r.Machine.Bandwidth/1e9, 100*r.Machine.Large, r.Machine.I16/1e9, r.Machine.F32/1e9)
	}
	for _, r := range p.rows {
		if n := len(r.Pairs); n > 0 {
			fmt.Fprintf(p.out, "- %s, %s: %s with readings of %.1f GB/s (median), %.1f (best)\n",
				r.Test(), plural(r.Threads, "thread"), plural(n, "pair"), r.Pairs.Reading()/1e9, r.Pairs.Best()/1e9)
		}
	}
	_, err := fmt.Fprintf(p.out, "- a generated token reads %s of weights, a prompt token takes %.2f Gop in matrix products\n",
		byteSize(p.work.Bytes), p.work.Operations/1e9)
	for _, r := range p.rows {
		if len(r.Profile.Operations) > 0 {
			err = printProfile(p.out, r)
		}
	}
	return err
}

// benchJSON is one row; the keys that llama-bench has too have its names.
type benchJSON struct {
	ModelFilename string    `json:"model_filename"`
	ModelType     string    `json:"model_type"`
	ModelSize     int64     `json:"model_size"`
	Parameters    int64     `json:"model_n_params"`
	Backend       string    `json:"backend"`
	Part          string    `json:"part,omitempty"`
	Threads       int       `json:"n_threads"`
	Prompt        int       `json:"n_prompt"`
	Generate      int       `json:"n_gen"`
	Depth         int       `json:"n_depth"`
	Batch         int       `json:"n_batch"`
	Sequences     int       `json:"n_sequences"`
	Test          string    `json:"test"`
	TestTime      time.Time `json:"test_time"`
	MeanNS        int64     `json:"avg_ns"`
	Mean          float64   `json:"avg_ts"`
	StdDev        float64   `json:"stddev_ts"`
	Median        float64   `json:"median_ts"`
	SamplesNS     []int64   `json:"samples_ns"`
	Samples       []float64 `json:"samples_ts"`
	Limit         float64   `json:"limit_ts"`
	Bound         string    `json:"limited_by"`
	OfLimit       float64   `json:"share_of_limit"`
	BytesPerToken int64     `json:"bytes_per_token"`
	OpsPerToken   float64   `json:"ops_per_prompt_token"`
	Bandwidth     float64   `json:"machine_bytes_per_sec"`
	Large         float64   `json:"machine_share_in_large_pages"`
	// The readings beside a generation test on the CPU.
	Pairs          int     `json:"reading_pairs,omitempty"`
	Reading        float64 `json:"reading_median_bytes_per_sec,omitempty"`
	BestReading    float64 `json:"reading_best_bytes_per_sec,omitempty"`
	I16            float64 `json:"machine_i16_ops_per_sec"`
	F32            float64 `json:"machine_f32_ops_per_sec"`
	DeviceReads    float64 `json:"device_bytes_per_sec,omitempty"`
	DeviceOps      float64 `json:"device_ops_per_sec,omitempty"`
	Cosine         float64 `json:"cosine_to_cpu_exact"`
	CheckPositions int     `json:"check_positions"`
	// Verified is the parity gate's word, Verdict the same for people.
	Verified        bool   `json:"verified"`
	VerifiedContext int    `json:"verified_context,omitempty"`
	Verdict         string `json:"verdict"`

	Profile []profileJSON `json:"profile,omitempty"`
}

func (p *benchPrinter) jsonRow(r bench.Row) error {
	row := benchJSON{
		ModelFilename: p.model.file, ModelType: p.model.name, ModelSize: p.model.size, Parameters: p.model.parameters,
		Backend: r.Backend, Part: r.Part, Threads: r.Threads, Prompt: r.Prompt, Generate: r.Generate, Depth: r.Depth, Batch: p.batch, Sequences: max(1, r.Sequences), Test: r.Test(),
		TestTime: time.Now().UTC().Truncate(time.Second), Mean: r.Mean, StdDev: r.StdDev, Median: r.Median, Samples: r.Speeds,
		Limit: r.Limit, Bound: r.Bound, OfLimit: r.OfLimit(), BytesPerToken: p.work.Bytes, OpsPerToken: p.work.Operations,
		Bandwidth: r.Machine.Bandwidth, Large: r.Machine.Large, Pairs: len(r.Pairs), Reading: r.Pairs.Reading(), BestReading: r.Pairs.Best(),
		I16: r.Machine.I16, F32: r.Machine.F32, DeviceReads: r.Machine.Device.Bandwidth, DeviceOps: r.Machine.Device.Arithmetic,
		Cosine: r.Check.Cosine, CheckPositions: r.Check.Positions,
		Verified: r.Verified, VerifiedContext: r.VerifiedContext, Verdict: r.Verdict(),
	}
	for _, d := range r.Times {
		row.SamplesNS = append(row.SamplesNS, d.Nanoseconds())
		row.MeanNS += d.Nanoseconds() / int64(len(r.Times))
	}
	row.Profile = profileRows(r)
	p.json = append(p.json, row)
	return nil
}

func (p *benchPrinter) jsonEnd() error { return p.out.json(p.json) }
