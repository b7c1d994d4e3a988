package apr

import (
	"strings"

	"github.com/apr-engine/apr/modelfile"
	"github.com/spf13/cobra"
)

func newExport() *cobra.Command {
	var o conversion
	cmd := &cobra.Command{
		Use:     "export MODEL --format FORMAT -o OUT [flags]",
		GroupID: groupMake,
		Short:   "Write a model for other programs",
		Long: `Write the model in the container that another program reads: gguf, apr, or
safetensors with the tensor names and the order of rows of Hugging Face's
transformers.

Tensors keep their types unless --quantize names a recipe. ` + aboutConversions,
		Example: `  apr export tiny.apr --format gguf -o tiny.gguf
  apr export models/tiny-coder-4m-q4_k_m.gguf --format safetensors -o tiny.safetensors --quantize f16`,
		Args:              modelArg(0, "MODEL"),
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.in = args[0]
			switch {
			case o.out == "":
				return usageError(cmd, "--output is missing")
			case o.Format == "":
				return usageError(cmd, "--format is missing, want one of %s", strings.Join(modelfile.Formats(), ", "))
			}
			return o.run(cmd)
		},
	}
	cmd.Flags().StringVarP(&o.out, "output", "o", "", "the file to write")
	cmd.Flags().Var(choiceValue{&o.Format, modelfile.Formats()}, "format", "container: "+strings.Join(modelfile.Formats(), ", "))
	o.register(cmd.Flags())
	return cmd
}
