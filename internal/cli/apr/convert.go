package apr

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apr-engine/apr/modelfile"
	"github.com/apr-engine/apr/quant"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// conversion is what import, export, convert and quantize share: a model, the
// file to write and how.
type conversion struct {
	modelfile.Options
	in, out string
	plan    bool
	json    bool
}

func newConvert() *cobra.Command {
	var o conversion
	cmd := &cobra.Command{
		Use:     "convert IN OUT [flags]",
		GroupID: groupMake,
		Short:   "Write a model in another container",
		Long: `Write the model IN to OUT, in the container that OUT's name ends in: .gguf, .apr,
.safetensors (the weights alone), or / for a Hugging Face folder. IN is a GGUF or
.apr file or a Hugging Face folder.

Tensors keep their types unless --quantize names a recipe. ` + aboutConversions,
		Example: `  apr convert models/tiny-coder-4m-q4_k_m.gguf tiny.apr
  apr convert tiny.apr tiny.gguf --plan`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("%d arguments, want IN OUT", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.in, o.out = args[0], args[1]
			return o.run(cmd)
		},
	}
	o.register(cmd.Flags())
	return cmd
}

// aboutConversions is the part of the help that several commands share.
const aboutConversions = `A type that the container
lacks is refused, never stored in a larger one.

--plan shows what would be written and writes nothing. OUT appears only when it is
complete; a file that exists is replaced only with --force.`

func (o *conversion) register(f *pflag.FlagSet) {
	f.StringVar(&o.Recipe, "quantize", "", "store the tensors by this recipe: "+strings.Join(quant.RecipeNames(), ", "))
	o.registerRest(f)
}

// registerRest registers the flags but the recipe's.
func (o *conversion) registerRest(f *pflag.FlagSet) {
	f.BoolVar(&o.plan, "plan", false, "show what would be written, and write nothing")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	f.BoolVar(&o.Force, "force", false, "replace the output if it exists")
	f.VarP(intValue{&o.Threads, 0, maxThreads}, "threads", "t", "CPU threads; 0 for one for each CPU")
}

// conversionResult is the JSON of a conversion.
type conversionResult struct {
	Source  string `json:"source"`
	Output  string `json:"output"`
	Written bool   `json:"written"` // false for a plan
	*modelfile.Plan
}

func (o *conversion) run(cmd *cobra.Command) error {
	if o.Recipe != "" {
		if _, err := quant.FindRecipe(o.Recipe); err != nil {
			return usageError(cmd, "--quantize %s: want one of %s", o.Recipe, strings.Join(quant.RecipeNames(), ", "))
		}
	}
	var p *modelfile.Plan
	var err error
	if o.plan {
		p, err = modelfile.PlanConvert(o.in, o.out, o.Options)
	} else {
		p, err = o.convert(cmd)
	}
	if err != nil {
		return err
	}
	for _, w := range p.Warnings {
		logger(cmd).Warn(w, "file", o.in)
	}
	out := stdout(cmd)
	switch {
	case o.json:
		return out.json(conversionResult{o.in, o.out, !o.plan, p})
	case o.plan:
		return o.printPlan(out, p)
	}
	size, err := sizeOf(o.out, p.Files)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: %s, before %s\n", o.out, byteSize(size), byteSize(p.BytesIn))
	return err
}

// sizeOf is the size of a file, or of the files of a folder together.
func sizeOf(path string, files []string) (size int64, err error) {
	paths := []string{path}
	if len(files) > 0 {
		paths = nil
		for _, name := range files {
			paths = append(paths, filepath.Join(path, name))
		}
	}
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return 0, err
		}
		size += info.Size()
	}
	return size, nil
}

// convert does the work, with progress on a terminal.
func (o *conversion) convert(cmd *cobra.Command) (*modelfile.Plan, error) {
	log := logger(cmd)
	notes := io.Discard
	if isTerminal(cmd.ErrOrStderr()) {
		notes = cmd.ErrOrStderr()
	}
	last := -1
	o.Progress = func(p modelfile.Progress) {
		fmt.Fprintf(notes, "\r\x1b[K%3d %% %s", 100*p.Done/max(1, p.Total), p.Tensor)
		if p.Index != last {
			last = p.Index
			log.Info("tensor", "name", p.Tensor, "from", p.From, "to", p.To, "index", p.Index, "count", p.Count)
		}
	}
	p, err := modelfile.Convert(cmd.Context(), o.in, o.out, o.Options)
	fmt.Fprint(notes, "\r\x1b[K")
	if errors.Is(err, fs.ErrExist) && o.Force {
		return nil, kindError{err, errInvalid}
	}
	if errors.Is(err, fs.ErrExist) {
		return nil, kindError{fmt.Errorf("%s exists already; remove it or give --force", o.out), errInvalid}
	}
	return p, err
}

// printPlan shows a plan: how many tensors change from which type to which.
func (o *conversion) printPlan(out *output, p *modelfile.Plan) error {
	rows := [][]string{{"TENSORS", "FROM", "TO", "BYTES"}}
	type change struct{ from, to string }
	var changes []change
	count, size := map[change]int{}, map[change]int64{}
	for _, t := range p.Tensors {
		c := change{t.From, t.To}
		if !slices.Contains(changes, c) {
			changes = append(changes, c)
		}
		count[c]++
		size[c] += t.Bytes
	}
	for _, c := range changes {
		rows = append(rows, []string{fmt.Sprint(count[c]), c.from, c.to, byteSize(size[c])})
	}
	if err := out.table(rows, 0, 3); err != nil {
		return err
	}
	exists := ""
	if list, err := os.ReadDir(o.out); err == nil && len(list) == 0 {
		// An empty folder is as good as none.
	} else if _, err := os.Stat(o.out); err == nil && !o.Force {
		exists = "; it exists, so --force is needed"
	}
	to := p.To
	if len(p.Files) > 0 {
		to = "Hugging Face folder"
	}
	_, err := fmt.Fprintf(out, "%s (%s, %s) to %s (%s): %s of tensors%s\n",
		o.in, p.From, byteSize(p.BytesIn), o.out, to, byteSize(p.BytesOut), exists)
	return err
}
