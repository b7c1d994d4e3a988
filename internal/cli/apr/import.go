package apr

import (
	"github.com/apr-engine/apr/modelfile"
	"github.com/spf13/cobra"
)

func newImport() *cobra.Command {
	var o conversion
	cmd := &cobra.Command{
		Use:     "import SOURCE -o OUT [flags]",
		GroupID: groupMake,
		Short:   "Make a model file from a Hugging Face folder or GGUF",
		Long: `Write a model file that apr runs, .apr or .gguf by OUT's name. SOURCE is a Hugging
Face folder (config.json, tokenizer.json and .safetensors files, one or several
with their index) of the model types qwen2, qwen3, llama, mistral and gemma3, or
a GGUF file.

Tensors keep their types unless --quantize names a recipe; vectors of a folder
become F32. ` + aboutConversions,
		Example: `  apr import models/tiny-coder-4m-q4_k_m.gguf -o tiny.apr
  apr import Qwen2.5-0.5B-Instruct -o qwen.gguf --quantize q4_k_m
  apr import Llama-3.2-1B -o llama.apr --plan`,
		Args: modelArg(0, "SOURCE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.in = args[0]
			switch o.Format = modelfile.FormatOf(o.out); {
			case o.out == "":
				return usageError(cmd, "--output is missing")
			case o.Format == modelfile.FormatSafetensors:
				return usageError(cmd, "--output %s: import writes .apr and .gguf; for safetensors see 'apr export'", o.out)
			}
			return o.run(cmd)
		},
	}
	cmd.Flags().StringVarP(&o.out, "output", "o", "", "the file to write: .apr, or GGUF for any other name")
	o.register(cmd.Flags())
	return cmd
}
