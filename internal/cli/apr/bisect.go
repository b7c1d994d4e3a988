package apr

import (
	"fmt"
	"math"
	"os"

	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/report"
	"github.com/spf13/cobra"
)

// bisect compares value by value what each verdict is about, if that was asked
// for or a page is to show it. A backend that was not measured has no values.
func (o *parityOptions) bisect(cmd *cobra.Command, m *engine.Model, options engine.Options, r *parityResult, prompt []int32) error {
	if !o.bisection && o.html == "" {
		return nil
	}
	for _, v := range r.Verdicts {
		if v.Status == parity.NotMeasured {
			r.Bisections = append(r.Bisections, nil)
			continue
		}
		tokens := v.Fed()
		if len(tokens) == 0 { // the candidate failed at once
			tokens = prompt
		}
		b, err := engine.Bisect(cmd.Context(), m, options, v.Backend, tokens)
		if err != nil {
			if cmd.Context().Err() != nil {
				return err
			}
			// A candidate that fails has a verdict all the same.
			b = parity.Bisection{Reference: v.Reference, Candidate: v.Backend, First: -1, Reason: err.Error()}
		}
		r.Bisections = append(r.Bisections, &b)
	}
	return nil
}

// printBisection shows the first wrong value and how the error grows from layer
// to layer.
func printBisection(out *output, b *parity.Bisection) error {
	if b == nil {
		return out.err
	}
	fmt.Fprintf(out, "\n%s\n", b.Reason)
	if len(b.Values) == 0 {
		return out.err
	}
	rows := [][]string{{"LAYER", "WORST VALUE", "OPERATION", "ERROR", "AT", "FROM INPUTS", "LAST VALUE", "ERROR", ""}}
	for start := 0; start < len(b.Values); {
		end := start + 1
		for end < len(b.Values) && b.Values[end].Layer == b.Values[start].Layer {
			end++
		}
		rows = append(rows, layerRow(b, start, end))
		start = end
	}
	return out.table(rows, 0, 3, 4, 5, 7)
}

// layerRow sums up values [start,end), which belong to one layer or to none.
func layerRow(b *parity.Bisection, start, end int) []string {
	worst := b.Values[start]
	for _, v := range b.Values[start:end] {
		if v.Error > worst.Error {
			worst = v
		}
	}
	layer, mark := fmt.Sprint(worst.Layer), ""
	if worst.Layer < 0 {
		layer = "-"
	}
	if b.First >= start && b.First < end {
		mark = "first wrong: " + b.Values[b.First].Name
	}
	last := b.Values[end-1]
	return []string{layer, worst.Name, worst.Operation, relative(worst.Error), fmt.Sprint(worst.Position), relative(worst.Input), last.Name, relative(last.Error), mark}
}

func relative(x float64) string {
	if x >= math.MaxFloat64 {
		return "not finite"
	}
	return fmt.Sprintf("%.2e", x)
}

// writeHTML writes the report page.
func (o *parityOptions) writeHTML(policy parity.Policy, r parityResult) error {
	if o.html == "" {
		return nil
	}
	page := report.Parity{Model: r.Model, Policy: policy}
	for i, v := range r.Verdicts {
		page.Items = append(page.Items, report.ParityItem{Verdict: v, Bisection: r.Bisections[i]})
	}
	f, err := os.Create(o.html)
	if err != nil {
		return fmt.Errorf("--html: %w", err)
	}
	err = page.Write(f)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("--html: %w", err)
	}
	return nil
}
