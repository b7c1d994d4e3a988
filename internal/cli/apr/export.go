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
safetensors. The latter makes a Hugging Face folder, as transformers and others
load it and 'apr import' reads it: config.json, generation_config.json,
tokenizer.json, tokenizer_config.json and model.safetensors, with Hugging Face's
tensor names and order of rows. If OUT ends in .safetensors, only the weights are
written.

Tensors keep their types unless --quantize names a recipe. ` + aboutConversions,
		Example: `  apr export tiny.apr --format gguf -o tiny.gguf
  apr export models/tiny-coder-4m-q4_k_m.gguf --format safetensors -o tiny-hf --quantize f16`,
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
	cmd.Flags().StringVarP(&o.out, "output", "o", "", "the file or folder to write")
	cmd.Flags().Var(choiceValue{&o.Format, modelfile.Formats()}, "format", "container: "+strings.Join(modelfile.Formats(), ", "))
	o.register(cmd.Flags())
	return cmd
}
