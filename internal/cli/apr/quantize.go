package apr

import (
	"fmt"
	"strings"

	"github.com/apr-engine/apr/quant"
	"github.com/spf13/cobra"
)

func newQuantize() *cobra.Command {
	var o conversion
	cmd := &cobra.Command{
		Use:     "quantize IN OUT TYPE [flags]",
		GroupID: groupMake,
		Short:   "Store a model in fewer bits",
		Long: `Write the model IN (GGUF, .apr or a Hugging Face folder) to OUT with its tensors
stored by the recipe TYPE: most in the type of that name, those that suffer most
from rounding in a better one, as llama-quantize chooses them. OUT's name chooses
the container: .apr, .safetensors, or GGUF for any other.

TYPE is one of ` + strings.Join(quant.RecipeNames(), ", ") + `.

Start from a file in F32, F16 or BF16: quantising what is quantised already adds
the errors of both. --plan shows what would be written and writes nothing. OUT
appears only when it is complete; a file that exists is replaced only with --force.`,
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
			return []string{"gguf", "apr"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.in, o.out, o.Recipe = args[0], args[1], args[2]
			return o.run(cmd)
		},
	}
	o.registerRest(cmd.Flags())
	return cmd
}
