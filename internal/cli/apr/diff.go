package apr

import (
	"bufio"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"

	"github.com/apr-engine/apr/modelfile/compare"
	"github.com/apr-engine/apr/modelfile/source"
	"github.com/spf13/cobra"
)

type diffOptions struct {
	a, b      string
	filter    string
	threshold float64
	limit     int
	json      bool
	compare.Options
}

func newDiff() *cobra.Command {
	o := diffOptions{limit: 10, Options: compare.Options{Worst: 1}}
	cmd := &cobra.Command{
		Use:     "diff A B [flags]",
		GroupID: groupLook,
		Short:   "Compare two model files",
		Long: `Compare metadata and tensors of two models: GGUF, .apr or safetensors files, or
Hugging Face folders, whose tensors alone are looked at. Tensors are matched by name, also
between GGUF's names and Hugging Face's. For each pair of tensors:

  COSINE  of the angle between them: 1 for the same direction, 0 for unrelated
  ERROR   |A - B| / |A|
  MAX     the largest difference of two elements, at [row, column]

Rows that llama's files order differently for the rotary embedding are put in
order before they are compared. Those that differ most come first.

With --threshold the exit code is 5 if a tensor's cosine is smaller, if it cannot
be compared, or if one file lacks it.`,
		Example: `  apr diff models/tiny-coder-4m-q4_k_m.gguf small-q8_0.gguf
  apr diff model-f16.gguf model-q4_k_m.gguf --filter 'blk.0.*' --limit 0 --json
  apr diff a.gguf b.gguf --threshold 0.99`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("%d arguments, want A B", len(args))
			}
			if args[0] == "" || args[1] == "" {
				return errors.New("a model's path is empty")
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 1 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeModel(nil, nil, "")
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.a, o.b = args[0], args[1]
			return o.run(cmd)
		},
	}
	cmd.Flags().StringVar(&o.filter, "filter", "", "only tensors whose GGUF name contains or matches this")
	cmd.Flags().Var(floatValue{&o.threshold, -1, 1}, "threshold", "fail for tensors with a smaller cosine; 0 for never")
	cmd.Flags().Var(intValue{&o.limit, 0, maxCount}, "limit", "show at most so many tensors; 0 for all")
	cmd.Flags().Var(intValue{&o.Worst, 0, 1000}, "worst", "elements to list for each tensor, those that differ most")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object, with all tensors")
	cmd.Flags().VarP(intValue{&o.Threads, 0, maxThreads}, "threads", "t", "CPU threads; 0 for one for each CPU")
	return cmd
}

func (o *diffOptions) run(cmd *cobra.Command) error {
	if _, err := path.Match(o.filter, ""); err != nil {
		return usageError(cmd, "--filter %s: not a pattern", o.filter)
	}
	a, err := source.Open(o.a)
	if err != nil {
		return err
	}
	defer a.Close()
	b, err := source.Open(o.b)
	if err != nil {
		return err
	}
	defer b.Close()
	o.Keep = func(name string) bool { return matches(o.filter, name) }
	d, err := compare.Models(cmd.Context(), a, b, o.Options)
	if err != nil {
		return err
	}
	out := stdout(cmd)
	if o.json {
		err = out.json(d)
	} else {
		err = o.print(out, d, a, b)
	}
	if err != nil || o.threshold == 0 {
		return err
	}
	bad, lacking := d.Below(o.threshold), len(d.OnlyA)+len(d.OnlyB)
	if len(bad)+lacking == 0 {
		return nil
	}
	first := ""
	if len(bad) > 0 {
		first = " (" + bad[0] + ")"
	}
	return kindError{fmt.Errorf("%s of %s below the cosine %v%s, %d in one file alone", plural(len(bad), "tensor"), o.b, o.threshold, first, lacking), errInvalid}
}

func (o *diffOptions) print(out *output, d *compare.Diff, a, b *source.Model) error {
	for _, s := range []struct {
		label string
		m     *source.Model
	}{{"A", a}, {"B", b}} {
		fmt.Fprintf(out, "%s: %s: %s, %s, %s\n", s.label, s.m.Path, s.m.Format, plural(len(s.m.Tensors), "tensor"), byteSize(s.m.Size))
	}
	switch {
	case a.Metadata.Len() == 0:
		fmt.Fprintln(out, "\nMetadata: A has none")
	case b.Metadata.Len() == 0:
		fmt.Fprintln(out, "\nMetadata: B has none")
	default:
		if err := out.buffered(func(w *bufio.Writer) { writeMetadataDiff(w, &d.Metadata) }); err != nil {
			return err
		}
	}
	same := d.Identical()
	fmt.Fprintf(out, "\nTensors: %d identical, %d differ, %d only in A, %d only in B\n", same, len(d.Tensors)-same, len(d.OnlyA), len(d.OnlyB))
	for i, list := range [][]string{d.OnlyA, d.OnlyB} {
		for _, name := range o.cut(list) {
			fmt.Fprintf(out, "  only in %c: %s\n", 'A'+i, name)
		}
	}
	rows := [][]string{{"NAME", "TYPES", "COSINE", "ERROR", "MAX", "AT", "A", "B", "NOTE"}}
	hidden := 0
	for i := range d.Tensors {
		t := &d.Tensors[i]
		if t.Identical {
			continue
		}
		if o.limit > 0 && len(rows) > o.limit {
			hidden++
			continue
		}
		rows = append(rows, o.cells(t)...)
	}
	notes := slices.ContainsFunc(rows[1:], func(row []string) bool { return row[noteColumn] != "" })
	for i := range rows {
		if !notes {
			rows[i] = rows[i][:noteColumn]
		}
	}
	if len(rows) > 1 {
		if err := out.table(rows, 2, 3, 4, 5, 6, 7); err != nil {
			return err
		}
	}
	if hidden > 0 {
		fmt.Fprintf(out, "%d more are not shown; see --limit\n", hidden)
	}
	return out.err
}

func (o *diffOptions) cut(list []string) []string {
	if o.limit > 0 && len(list) > o.limit {
		return append(list[:o.limit:o.limit], fmt.Sprintf("and %d more; see --limit", len(list)-o.limit))
	}
	return list
}

// noteColumn is the last column of the table, left out if it is empty.
const noteColumn = 8

// cells are the rows of a tensor: one for each of the worst elements.
func (o *diffOptions) cells(t *compare.Tensor) [][]string {
	types := t.A.Type
	if t.B.Type != types {
		types += " " + t.B.Type
	}
	note := t.Note
	if t.NotFinite > 0 {
		note = fmt.Sprintf("%d NaN or infinite", t.NotFinite)
	}
	row := []string{t.Name, types, "-", "-", "-", "", "", "", note}
	if c := float64(t.Cosine); !math.IsNaN(c) {
		row[2], row[3], row[4] = fmt.Sprintf("%.6f", c), fmt.Sprintf("%.4g", float64(t.Error)), fmt.Sprintf("%.4g", float64(t.MaxDiff))
	}
	rows := [][]string{row}
	for i, e := range t.Worst {
		if i > 0 {
			row = make([]string, len(row))
			rows = append(rows, row)
		}
		row[5] = fmt.Sprintf("[%d, %d]", e.Row, e.Column)
		row[6], row[7] = fmt.Sprintf("%.5g", float64(e.A)), fmt.Sprintf("%.5g", float64(e.B))
	}
	return rows
}

func writeMetadataDiff(w *bufio.Writer, m *compare.Metadata) {
	fmt.Fprintf(w, "\nMetadata: %d equal, %d differ, %d only in A, %d only in B\n", m.Equal, len(m.Changed), len(m.OnlyA), len(m.OnlyB))
	for _, c := range m.Changed {
		fmt.Fprintf(w, "  %s: A %s, B %s\n", c.Key, c.A, c.B)
	}
	for i, list := range [][]compare.Entry{m.OnlyA, m.OnlyB} {
		for _, e := range list {
			fmt.Fprintf(w, "  only in %c: %s = %s\n", 'A'+i, e.Key, e.Value)
		}
	}
}
