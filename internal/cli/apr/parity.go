package apr

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/apr-engine/apr/chat"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/spf13/cobra"
)

type parityOptions struct {
	backendFlags
	model      string
	prompt     string
	file       string
	all        bool
	positions  int
	assert     bool
	json       bool
	policyName string
	policy     bool
	listFaults bool
	bisection  bool
	html       string
	contexts   []int
	batch      int
	limit      time.Duration
	backends   []string
}

// defaultParityPrompt is short; the probe extends it.
const defaultParityPrompt = "What is 2+2?"

func newParity() *cobra.Command {
	o := parityOptions{prompt: defaultParityPrompt, policyName: parity.Standard().Name}
	cmd := &cobra.Command{
		Use:     "parity MODEL [flags]",
		GroupID: groupMeasure,
		Short:   "Compare a backend with the reference, position by position",
		Long: `Compare a backend's logits with those of cpu-exact at every position of a probe:
the prompt in batches, the reference's greedy continuation token by token, and a
continuation after truncation. It is the comparison that every backend has to
pass before apr serves with it, but it goes on after the first violation, and a
certificate does not replace it.

The prompt goes through the model's chat template, as with apr run; the text of
--file does not. Without --backend the backend that apr run would try first is
judged, with --all every one of this build that has a device here; the others are
named on stderr.

Exit code 0 if all are validated, 5 if one is wrong, 8 if one could not be
measured. A verdict that is not measured is not a pass.

--contexts compares at several lengths of context instead, with one line for each
backend and length: the text (--file, repeated as often as it takes, or random
tokens) in the steps of --batch that serve, single tokens, and the last positions
again after truncation. The reference computes the text once for all backends and
lengths. A backend that is validated serves up to 256 tokens beyond the longest of
them without another comparison, in apr bench too. What --limit leaves no time
for is not measured.

The environment variable APR_FAULT=BACKEND:FAULT[,FAULT] makes a backend wrong
on purpose (see --list-faults); SKIP_PARITY_GATE=1 turns the gate off elsewhere
and marks verdicts as unverified here.`,
		Example: `  apr parity models/tiny-coder-28m-q4_k_m.gguf
  apr parity models/tiny-coder-4m-q4_k_m.gguf --file engine/generate.go --positions 200 --json
  apr parity models/tiny-coder-4m-q4_k_m.gguf --all --contexts 64,512
  APR_FAULT=cpu:rope-interleaved apr parity models/tiny-coder-28m-q4_k_m.gguf
  apr parity --policy`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.policy || o.listFaults {
				return noArgs(cmd, args)
			}
			return modelArg(0, "MODEL")(cmd, args)
		},
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.policy:
				return o.printPolicy(cmd)
			case o.listFaults:
				_, err := fmt.Fprintln(stdout(cmd), strings.Join(fault.Names(), "\n"))
				return err
			}
			o.model = args[0]
			if len(o.contexts) > 0 {
				return o.runContexts(cmd)
			}
			return o.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.prompt, "prompt", "p", o.prompt, "the prompt")
	f.StringVarP(&o.file, "file", "f", "", "file with a text to use as it is, instead of a prompt; - for standard input")
	f.BoolVar(&o.all, "all", false, "judge every backend of this build")
	f.Var(intValue{&o.positions, 0, maxCount}, "positions", "how many positions to judge at least; 0 for the policy's")
	f.Var(intListValue{&o.contexts, 1, maxCount}, "contexts", "compare at these lengths of context, separated by commas")
	f.VarP(intValue{&o.batch, 0, maxCount}, "batch", "b", "prompt tokens in one step; 0 for the default")
	f.StringSliceVar(&o.backends, "backends", nil, "with --contexts: judge these, separated by commas")
	f.DurationVar(&o.limit, "limit", 0, "with --contexts: how long it may take, such as 2m; 0 for as long as it takes")
	f.BoolVar(&o.assert, "assert", false, "refuse to run where the gate is overridden")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	f.BoolVar(&o.bisection, "bisect", false, "compare value by value too: name the first wrong one and show the error's growth")
	f.StringVar(&o.html, "html", "", "write a report with a heat map of layers by positions to this file")
	f.Var(choiceValue{&o.policyName, policyNames()}, "policy-name", "judge by another policy: "+strings.Join(policyNames(), ", "))
	f.BoolVar(&o.policy, "policy", false, "print the thresholds and where they come from")
	f.BoolVar(&o.listFaults, "list-faults", false, "print the names of the faults that APR_FAULT takes")
	o.backendFlags.register(f)
	cmd.AddCommand(newCerts(), newCalibrate())
	return cmd
}

func policyNames() []string {
	var names []string
	for _, p := range parity.Policies() {
		names = append(names, p.Name)
	}
	return names
}

// printPolicy shows the thresholds of the chosen policy.
func (o *parityOptions) printPolicy(cmd *cobra.Command) error {
	p, err := parity.PolicyByName(o.policyName)
	if err != nil {
		return err
	}
	out := stdout(cmd)
	if o.json {
		return out.json(struct {
			parity.Policy
			Contract string `json:"contract"`
			Hash     string `json:"hash"`
		}{p, parity.Tag, p.Hash()})
	}
	fmt.Fprintf(out, "policy %s (%s) of contract %s\n\n", p.Name, p.Hash(), parity.Tag)
	rows := [][]string{{"THRESHOLD", "VALUE", "BASIS"}}
	for _, t := range p.Thresholds() {
		rows = append(rows, t[:])
	}
	return out.table(rows)
}

// names are the backends to judge.
func (o *parityOptions) names(cmd *cobra.Command) ([]string, error) {
	switch {
	case o.all && cmd.Flags().Changed("backend"):
		return nil, usageError(cmd, "--backend and --all exclude each other")
	case o.all:
		return withoutGPU(engine.Measurable(), o.noGPU || o.layers == 0), nil
	case o.backend != "auto":
		return []string{o.backend}, nil
	}
	return withoutGPU(engine.Measurable(), o.noGPU || o.layers == 0), nil
}

// first reports whether only the first backend that has a device is judged.
func (o *parityOptions) first() bool { return !o.all && o.backend == "auto" }

func withoutGPU(names []string, without bool) []string {
	if !without {
		return names
	}
	return slices.DeleteFunc(names, func(n string) bool { return slices.Contains(gpuBackends, n) })
}

func (o *parityOptions) run(cmd *cobra.Command) error {
	log := logger(cmd)
	if o.assert && skipGate() {
		return usageError(cmd, "--assert: %s=1 turns the gate off, nothing can be asserted", envSkip)
	}
	// A backend that this build has not is not measured, like one without a device.
	missing := ""
	if slices.Contains(gpuBackends, o.backend) && !slices.Contains(engine.Backends(), o.backend) {
		missing, o.backend = o.backend, "cpu"
	}
	options, err := o.backendFlags.options(cmd)
	if err != nil {
		return err
	}
	options.MaxBatch = o.batch
	names, err := o.names(cmd)
	if err != nil {
		return err
	}
	if options.Gate.Policy, err = o.domain(); err != nil {
		return err
	}
	if options.Gate.Override != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "override: %s; the verdict is marked as unverified\n", options.Gate.Override)
	}
	m, err := loadModel(o.model, log)
	if err != nil {
		return err
	}
	defer m.Close()
	tokens, err := o.tokens(cmd, m)
	if err != nil {
		return err
	}
	result := parityResult{Model: m.Path, PromptTokens: len(tokens), Passed: true}
	if missing != "" {
		names = nil
		result.Passed = false
		result.Verdicts = append(result.Verdicts, parity.Verdict{
			Backend: missing, Reference: engine.ReferenceBackend, Policy: options.Gate.Policy.Name,
			Reason: fmt.Sprintf("this build has no backend %s", missing),
		})
	}
	for _, name := range names {
		v, err := engine.Measure(cmd.Context(), m, options, name, tokens)
		if err != nil {
			return err
		}
		if v.Absent && o.backend == "auto" {
			// What is not there is no failure, and no pass either.
			if o.all || verbose(cmd) {
				fmt.Fprintln(cmd.ErrOrStderr(), v.Reason)
			}
			continue
		}
		result.Verdicts = append(result.Verdicts, v)
		result.Passed = result.Passed && v.Passed() && !v.Override
		if o.first() {
			break
		}
	}
	if len(result.Verdicts) == 0 {
		return fmt.Errorf("%w: no backend has a device", parity.ErrNotMeasured)
	}
	if err := o.bisect(cmd, m, options, &result, tokens); err != nil {
		return err
	}
	if err := firstError(o.writeHTML(options.Gate.Policy, result), o.print(stdout(cmd), m, result)); err != nil {
		return err
	}
	return result.err()
}

// domain is the chosen policy with the number of positions asked for.
func (o *parityOptions) domain() (parity.Policy, error) {
	p, err := parity.PolicyByName(o.policyName)
	if o.positions > 0 {
		p.Probe.MinPositions = o.positions
		p.Probe.PromptPositions = max(p.Probe.PromptPositions, o.positions)
	}
	return p, err
}

func (o *parityOptions) tokens(cmd *cobra.Command, m *engine.Model) ([]int32, error) {
	if o.file != "" {
		if cmd.Flags().Changed("prompt") {
			return nil, usageError(cmd, "--prompt and --file exclude each other")
		}
		text, err := readFile(cmd, "file", o.file)
		if err != nil {
			return nil, err
		}
		ids := m.TextPrompt(text)
		return ids[:min(len(ids), m.Program.Context)], nil
	}
	if o.prompt == "" {
		return nil, usageError(cmd, "the prompt is empty")
	}
	ids, err := m.ChatPrompt([]chat.Message{{Role: "user", Content: o.prompt}})
	if errors.Is(err, chat.ErrNoTemplate) {
		return m.TextPrompt(o.prompt), nil
	}
	return ids, err
}

// parityResult is the JSON object of apr parity.
type parityResult struct {
	Model        string           `json:"model"`
	PromptTokens int              `json:"prompt_tokens"`
	Passed       bool             `json:"passed"` // every verdict is validated and none overridden
	Verdicts     []parity.Verdict `json:"verdicts"`
	// Bisections has one for each verdict with --bisect or --html; null where the
	// backend was not measured.
	Bisections []*parity.Bisection `json:"bisections,omitempty"`
}

// err is the command's error: a mismatch counts before what was not measured.
func (r parityResult) err() error {
	var first error
	for _, v := range r.Verdicts {
		err := v.Err()
		if err == nil {
			continue
		}
		err = fmt.Errorf("%s: %w", v.Backend, err)
		if first == nil || errors.Is(err, parity.ErrMismatch) && !errors.Is(first, parity.ErrMismatch) {
			first = err
		}
	}
	return first
}

func (o *parityOptions) print(out *output, m *engine.Model, r parityResult) error {
	if o.json {
		return out.json(r)
	}
	for i, v := range r.Verdicts {
		if i > 0 {
			fmt.Fprintln(out)
		}
		if err := printVerdict(out, m, v); err != nil {
			return err
		}
		if o.bisection {
			if err := printBisection(out, r.Bisections[i]); err != nil {
				return err
			}
		}
	}
	return out.err
}

// printVerdict shows the table of positions and what was decided on it.
func printVerdict(out *output, m *engine.Model, v parity.Verdict) error {
	rows := [][]string{{"POS", "PHASE", "TOKEN", "COSINE", "KL", "ARGMAX", "MARGIN", "MAX ABS", "P99", "P99.9", "TOP10", "FINITE", ""}}
	for _, p := range v.Positions {
		rows = append(rows, positionRow(m, p))
	}
	if len(rows) > 1 {
		if err := out.table(rows, 0, 3, 4, 6, 7, 8, 9, 10); err != nil {
			return err
		}
		fmt.Fprintln(out)
	}
	printSummary(out, v)
	return out.err
}

func positionRow(m *engine.Model, p parity.Position) []string {
	argmax, margin := fmt.Sprint(p.ReferenceArgmax), ""
	if p.ReferenceArgmax != p.CandidateArgmax {
		argmax = fmt.Sprintf("%d/%d", p.ReferenceArgmax, p.CandidateArgmax)
		margin = fmt.Sprintf("%.4f/%.4f", p.ReferenceMargin, p.CandidateMargin)
	}
	finite, broken := "yes", ""
	if !p.CandidateFinite || !p.ReferenceFinite {
		finite = "NO"
	}
	if p.Violation != nil {
		broken = p.Violation.Metric
	}
	number := func(x float64) string {
		if !p.CandidateFinite || !p.ReferenceFinite {
			return "-"
		}
		return fmt.Sprintf("%.3g", x)
	}
	return []string{
		fmt.Sprint(p.Index), string(p.Phase), fmt.Sprintf("%q", m.Tokenizer.Piece(p.Token)),
		fmt.Sprintf("%.6f", p.Cosine), number(p.KL), argmax, margin, number(p.MaxAbs), number(p.P99), number(p.P999),
		fmt.Sprintf("%d/10", p.Overlap), finite, broken,
	}
}

// printSummary tells the verdict, what it rests on and what it cost.
func printSummary(out io.Writer, v parity.Verdict) {
	part := ""
	if v.Part != "" {
		part = " with " + v.Part
	}
	fmt.Fprintf(out, "%s%s against %s: %s", v.Backend, part, v.Reference, v.Status)
	if v.Reason != "" {
		fmt.Fprintf(out, ": %s", v.Reason)
	}
	fmt.Fprintln(out)
	broken := 0
	for _, p := range v.Positions {
		if p.Violation != nil {
			broken++
		}
	}
	if w, ok := v.Worst(); ok {
		fmt.Fprintf(out, "  positions    %d, %d of them broken; lowest cosine %.6f at position %d (%s)\n", len(v.Positions), broken, w.Cosine, w.Index, w.Phase)
	}
	fmt.Fprintf(out, "  policy       %s %s\n", v.Policy, v.Hashes.Policy)
	if own := v.CacheRounding; own != nil {
		fmt.Fprintf(out, "  cache        its rounding alone moves the reference's logits by %.3g, %.3g, %.3g (99th, 99.9th percentile, largest), which widens the limits\n", own.MaxP99, own.MaxP999, own.MaxPeak)
	}
	if len(v.Covered) > 0 {
		fmt.Fprintf(out, "  covered      %s\n", strings.Join(v.Covered, " "))
	}
	if len(v.NotCovered) > 0 {
		fmt.Fprintf(out, "  not covered  %s\n", strings.Join(v.NotCovered, " "))
	}
	printCost(out, "reference", v.ReferenceCost)
	printCost(out, "candidate", v.CandidateCost)
	if v.Fault != "" {
		fmt.Fprintf(out, "  fault        %s (injected on purpose)\n", v.Fault)
	}
	if v.Override {
		fmt.Fprintln(out, "  override     the gate is off; this verdict is unverified")
	}
}

func printCost(out io.Writer, side string, c parity.Cost) {
	if c.Steps > 0 {
		fmt.Fprintf(out, "  %-11s  %v for %d tokens in %s, %v to load\n", side, c.Time.Round(100*time.Microsecond), c.Tokens,
			plural(c.Steps, "step"), c.Setup.Round(100*time.Microsecond))
	}
}
