package apr

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/parity"
	"github.com/spf13/cobra"
)

// contextResult is one line of apr parity --contexts --json: one backend at one
// length of context.
type contextResult struct {
	Model     string `json:"model"`
	Name      string `json:"name"` // as apr bench has it
	Layers    int    `json:"layers"`
	Backend   string `json:"backend"`
	Device    string `json:"device,omitempty"`
	Reference string `json:"reference"`
	Context   int    `json:"context"`
	Judged    int    `json:"judged_context"` // up to where sequences went
	Batch     int    `json:"batch"`          // tokens in a step
	KV        string `json:"kv"`
	Positions int    `json:"positions"`
	// Steps counts the positions by how they were computed.
	Steps map[parity.Phase]int `json:"steps,omitempty"`
	// The worst position; errors in standard deviations of the reference's logits.
	MinCosine float64 `json:"min_cosine"`
	MaxError  float64 `json:"max_error"`
	MaxP99    float64 `json:"max_p99"`
	MaxKL     float64 `json:"max_kl"`
	// Agreed is at how many positions both have the same best token; MaxMargin is the
	// largest margin at the others, as a share of the ten best logits' spread.
	Agreed           int           `json:"agreed"`
	MaxMargin        float64       `json:"max_margin"`
	Status           parity.Status `json:"status"`
	Reason           string        `json:"reason,omitempty"`
	Fault            string        `json:"fault,omitempty"`
	ReferenceSeconds float64       `json:"reference_seconds"` // of all lengths so far
	CandidateSeconds float64       `json:"candidate_seconds"`
	Threads          int           `json:"threads"`
	Tokens           int           `json:"reference_tokens"`
	Date             time.Time     `json:"date"`
}

// contextRun prints the comparisons as they are made.
type contextRun struct {
	out    *output
	err    io.Writer
	json   bool
	auto   bool // a backend without a device is told and left out
	base   contextResult
	lines  int
	result parityResult
}

// runContexts compares at several lengths of context.
func (o *parityOptions) runContexts(cmd *cobra.Command) error {
	options, err := o.backendFlags.options(cmd)
	if err != nil {
		return err
	}
	if o.bisection || o.html != "" || o.positions > 0 {
		return usageError(cmd, "--contexts goes with neither --bisect nor --html nor --positions")
	}
	if options.Gate.Policy, err = parity.PolicyByName(o.policyName); err != nil {
		return err
	}
	options.MaxBatch = o.batch
	names, err := o.contextNames(cmd)
	if err != nil {
		return err
	}
	m, err := loadModel(o.model, logger(cmd))
	if err != nil {
		return err
	}
	defer m.Close()
	tokens := m.RandomTokens(parity.ContextTokens(m.Program.Context))
	if o.file != "" || cmd.Flags().Changed("prompt") {
		if tokens, err = o.tokens(cmd, m); err != nil {
			return err
		}
	}
	ctx := cmd.Context()
	if o.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.limit)
		defer cancel()
	}
	run := contextRun{out: stdout(cmd), err: cmd.ErrOrStderr(), json: o.json, auto: o.backend == "auto", base: contextResult{
		Model: m.Path, Name: describeModel(m).name, Layers: len(m.Program.Caches), Threads: options.Threads,
		Batch: cmp.Or(o.batch, backend.DefaultMaxBatch), KV: cmp.Or(o.kv, "f16"),
	}}
	run.result = parityResult{Model: m.Path}
	if err := engine.MeasureContexts(ctx, m, options, names, tokens, o.contexts, run.line); err != nil {
		return err
	}
	if run.lines == 0 {
		return fmt.Errorf("%w: no backend has a device", parity.ErrNotMeasured)
	}
	return errors.Join(run.out.err, run.result.err())
}

// contextNames are the backends to judge: the oracle only if it is named, because it
// takes hours where others take seconds.
func (o *parityOptions) contextNames(cmd *cobra.Command) ([]string, error) {
	if len(o.backends) == 0 {
		names, err := o.names(cmd)
		if o.backend != "auto" || err != nil {
			return names, err
		}
		return slices.DeleteFunc(names, func(n string) bool { return n == "oracle" }), nil
	}
	if o.all || o.backend != "auto" {
		return nil, usageError(cmd, "--backends goes with neither --backend nor --all")
	}
	for _, n := range o.backends {
		if n == engine.ReferenceBackend || !slices.Contains(engine.Backends(), n) {
			return nil, usageError(cmd, "--backends %s: want some of %s", n, strings.Join(engine.Measurable(), ", "))
		}
	}
	return withoutGPU(o.backends, o.noGPU), nil
}

// line prints one comparison.
func (r *contextRun) line(n int, v parity.Verdict) error {
	if v.Absent && r.auto {
		fmt.Fprintln(r.err, v.Reason)
		return nil
	}
	r.result.Verdicts = append(r.result.Verdicts, v)
	r.lines++
	c := r.base
	c.Backend, c.Device, c.Reference, c.Context, c.Judged = v.Backend, v.Device, v.Reference, n, v.Context
	c.Status, c.Reason, c.Fault, c.Date = v.Status, v.Reason, v.Fault, time.Now().UTC().Truncate(time.Second)
	c.ReferenceSeconds, c.CandidateSeconds, c.Tokens = v.ReferenceCost.Time.Seconds(), v.CandidateCost.Time.Seconds(), v.ReferenceCost.Tokens
	c.add(v.Positions)
	if r.json {
		data, err := json.Marshal(c)
		if err != nil {
			return err
		}
		_, err = r.out.Write(append(data, '\n'))
		return err
	}
	if r.lines == 1 {
		io.WriteString(r.out, "| model | layers | context | backend | positions | lowest cosine | largest error | same best token | verdict |\n"+
			"| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | --- |\n")
	}
	_, err := fmt.Fprintln(r.out, c.row())
	return err
}

func (c *contextResult) add(positions []parity.Position) {
	c.Positions, c.Steps, c.MinCosine = len(positions), map[parity.Phase]int{}, 1
	for _, p := range positions {
		c.Steps[p.Phase]++
		c.MinCosine, c.MaxError = math.Min(c.MinCosine, p.Cosine), math.Max(c.MaxError, p.Peak)
		c.MaxP99, c.MaxKL = math.Max(c.MaxP99, p.P99), math.Max(c.MaxKL, p.KL)
		if p.ReferenceArgmax == p.CandidateArgmax {
			c.Agreed++
		}
		c.MaxMargin = math.Max(c.MaxMargin, math.Max(p.ReferenceMargin, p.CandidateMargin))
	}
}

// row is the result as a row of a table.
func (c contextResult) row() string {
	verdict := c.Status.String()
	if c.Reason != "" {
		verdict += ": " + strings.ReplaceAll(c.Reason, "|", "/")
	}
	cosine, worst, agreed := "", "", ""
	if c.Positions > 0 {
		cosine, worst, agreed = fmt.Sprintf("%.7f", c.MinCosine), fmt.Sprintf("%.4f", c.MaxError), fmt.Sprintf("%d of %d", c.Agreed, c.Positions)
	}
	return fmt.Sprintf("| %s | %d | %d | %s | %d | %s | %s | %s | %s |", c.Name, c.Layers, c.Context, c.Backend, c.Positions, cosine, worst, agreed, verdict)
}
