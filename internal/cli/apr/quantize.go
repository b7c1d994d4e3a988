package apr

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/apr-engine/apr/modelfile"
	"github.com/apr-engine/apr/quant"
	"github.com/spf13/cobra"
)

type quantizeOptions struct {
	modelfile.Options
	in, out, recipe string
}

func newQuantize() *cobra.Command {
	var o quantizeOptions
	cmd := &cobra.Command{
		Use:     "quantize IN OUT TYPE [flags]",
		GroupID: groupMake,
		Short:   "Store a model in fewer bits",
		Long: `Write the model IN to OUT with its tensors stored by the recipe TYPE: most in the
type of that name, those that suffer most from rounding in a better one, as
llama-quantize chooses them.

TYPE is one of ` + strings.Join(quant.RecipeNames(), ", ") + `.

Start from a file in F32, F16 or BF16: quantising what is quantised already adds
the errors of both. OUT appears only when it is complete; a file that exists is
replaced only with --force.`,
		Example: `  apr quantize models/tiny-coder-4m-q4_k_m.gguf small-q8_0.gguf q8_0
  apr quantize model-f16.gguf model-q4_k_m.gguf q4_k_m --threads 4`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 3 {
				return fmt.Errorf("%d arguments, want IN OUT TYPE", len(args))
			}
			if _, err := quant.FindRecipe(args[2]); err != nil {
				return err
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 2 {
				return quant.RecipeNames(), cobra.ShellCompDirectiveNoFileComp
			}
			return []string{"gguf"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.in, o.out, o.recipe = args[0], args[1], args[2]
			return o.run(cmd)
		},
	}
	cmd.Flags().BoolVar(&o.Force, "force", false, "replace OUT if it exists")
	cmd.Flags().VarP(intValue{&o.Threads, 0, maxThreads}, "threads", "t", "CPU threads; 0 for one for each CPU")
	return cmd
}

func (o *quantizeOptions) run(cmd *cobra.Command) error {
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
	err := modelfile.Quantize(cmd.Context(), o.in, o.out, o.recipe, o.Options)
	fmt.Fprint(notes, "\r\x1b[K")
	switch {
	case errors.Is(err, fs.ErrExist):
		return kindError{fmt.Errorf("%s exists already; remove it or give --force", o.out), errInvalid}
	case err != nil:
		return err
	}
	before, err := os.Stat(o.in)
	if err != nil {
		return err
	}
	after, err := os.Stat(o.out)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout(cmd), "%s: %s, before %s\n", o.out, byteSize(after.Size()), byteSize(before.Size()))
	return err
}
