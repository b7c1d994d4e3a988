package apr

import (
	"fmt"
	"strings"

	"github.com/apr-engine/apr/modelfile/check"
	"github.com/spf13/cobra"
)

type validateOptions struct {
	model   string
	strict  bool
	json    bool
	limit   int
	threads int
}

func newValidate() *cobra.Command {
	o := validateOptions{limit: 10}
	cmd := &cobra.Command{
		Use:     "validate MODEL [flags]",
		GroupID: groupLook,
		Short:   "Find out what is wrong with a model file",
		Long: `Check a model (GGUF, .apr, safetensors, or a Hugging Face folder with its config.json
and tokenizer) and list everything that is found, worst first:

  structure      the format's rules, extents inside the file, overlaps, names that
                 occur twice, types that go with shapes, checksums if it has any
  numbers        NaN and infinity in values and scales, tensors and rows of zeros,
                 two tensors with the same content
  completeness   tensors that the architecture needs, with their shapes; the
                 vocabulary beside the embeddings; the tokenizer; of a folder
                 whatever would keep it from being imported

Errors mean that the model is damaged or cannot run, and end with exit code 5;
with --strict warnings do so too. Notes are no fault. 'apr explain KIND' tells what
a kind of findings means and what to do.

A flipped bit within a weight that leaves a plausible number is not found, unless
the format has a checksum.`,
		Example: `  apr validate models/tiny-coder-4m-q4_k_m.gguf
  apr validate model.gguf --strict --json`,
		Args:              modelArg(0, "MODEL"),
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.model = args[0]
			return o.run(cmd)
		},
	}
	cmd.Flags().BoolVar(&o.strict, "strict", false, "fail for warnings too")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object, with all findings")
	cmd.Flags().Var(intValue{&o.limit, 0, maxCount}, "limit", "show at most so many findings of a kind; 0 for all")
	cmd.Flags().VarP(intValue{&o.threads, 0, maxThreads}, "threads", "t", "CPU threads; 0 for one for each CPU")
	return cmd
}

func (o *validateOptions) run(cmd *cobra.Command) error {
	r, err := check.File(cmd.Context(), o.model, o.threads)
	if err != nil {
		return err
	}
	out := stdout(cmd)
	passed := r.Passed(o.strict)
	if o.json {
		if r.Findings == nil {
			r.Findings = []check.Finding{} // an empty array, not null
		}
		err = out.json(struct {
			*check.Report
			Passed bool `json:"passed"`
		}{r, passed})
	} else {
		err = o.print(out, r)
	}
	if err != nil {
		return err
	}
	if !passed {
		return kindError{fmt.Errorf("%s: validation failed: %s", o.model, tally(r)), errInvalid}
	}
	return nil
}

// tally counts the findings in words.
func tally(r *check.Report) string {
	return fmt.Sprintf("%s, %s, %s", plural(r.Count(check.Error), "error"), plural(r.Count(check.Warning), "warning"), plural(r.Count(check.Note), "note"))
}

func (o *validateOptions) print(out *output, r *check.Report) error {
	about := []string{r.Format}
	if r.Architecture != "" {
		about = append(about, r.Architecture)
	}
	about = append(about, plural(r.Tensors, "tensor"), byteSize(r.Bytes))
	fmt.Fprintf(out, "%s: %s\n", r.Path, strings.Join(about, ", "))
	var rows [][]string
	shown := map[string]int{}
	hidden := 0
	for _, f := range r.Findings {
		if shown[f.Kind]++; o.limit > 0 && shown[f.Kind] > o.limit {
			hidden++
			continue
		}
		text := f.Text
		if f.Tensor != "" {
			text = f.Tensor + ": " + text
		}
		rows = append(rows, []string{f.Severity.String(), f.Kind, text})
	}
	if err := out.table(rows); err != nil {
		return err
	}
	if hidden > 0 {
		fmt.Fprintf(out, "%d more are not shown; see --limit\n", hidden)
	}
	_, err := fmt.Fprintln(out, tally(r))
	return err
}
