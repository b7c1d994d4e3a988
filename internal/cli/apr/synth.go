package apr

import (
	"fmt"
	"math"
	"os"
	"slices"
	"strings"

	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/synth"
	"github.com/spf13/cobra"
)

type synthOptions struct {
	synth.Options
	path string
	list bool
}

func newSynth() *cobra.Command {
	o := synthOptions{Options: synth.Options{Quant: "q4_k_m", OutlierScale: 26}}
	cmd := &cobra.Command{
		Use:     "synth OUT --preset NAME [flags]",
		GroupID: groupMake,
		Short:   "Write a model with random weights",
		Long: `Write a GGUF file with the shape, the types and the kind of tokenizer of a
well-known model and random weights, for measuring speed and memory without a
download. The same options give the same file, byte for byte.

--outliers makes so many channels of the hidden state --outlier-scale times larger
than the others, which is what breaks activations quantised with one scale.
--list shows the presets and quantisations.`,
		Example: `  apr synth --list
  apr synth tiny.gguf --preset tiny-qwen2.5-0.5b --quant q8_0 --seed 1
  apr synth outliers.gguf --preset qwen2.5-1.5b --layers 4 --outliers 8`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fmt.Errorf("too many arguments, want OUT")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.path = args[0]
			}
			return o.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Preset, "preset", "", "shape of the model; see --list")
	f.StringVar(&o.Quant, "quant", o.Quant, "quantisation; see --list")
	f.Var(seedValue{&o.Seed}, "seed", "seed of the weights")
	f.Var(intValue{&o.OutlierChannels, 0, maxCount}, "outliers", "number of outlier channels")
	f.Var(floatValue{&o.OutlierScale, 1, math.MaxFloat32}, "outlier-scale", "how many times the RMS of the others they reach")
	f.Var(intValue{&o.Layers, 0, maxCount}, "layers", "layers instead of the preset's")
	f.Var(intValue{&o.VocabSize, 0, maxCount}, "vocab", "vocabulary size instead of the preset's")
	f.BoolVar(&o.list, "list", false, "list presets and quantisations")
	return cmd
}

func (o *synthOptions) run(cmd *cobra.Command) error {
	out := stdout(cmd)
	if o.list {
		_, err := fmt.Fprintf(out, "presets\n  %s\nquantisations\n  %s\n",
			strings.Join(synth.Presets(), "\n  "), strings.Join(quant.RecipeNames(), "\n  "))
		return err
	}
	switch {
	case o.path == "":
		return usageError(cmd, "no file given, want OUT")
	case o.Preset == "":
		return usageError(cmd, "--preset is missing (--list shows them)")
	case !slices.Contains(synth.Presets(), o.Preset):
		return usageError(cmd, "--preset %s: unknown (--list shows them)", o.Preset)
	}
	if _, err := quant.FindRecipe(o.Quant); err != nil {
		return usageError(cmd, "--quant %s: unknown (--list shows them)", o.Quant)
	}
	if err := synth.Write(o.path, o.Options); err != nil {
		return err
	}
	info, err := os.Stat(o.path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%s: %s\n", o.path, byteSize(info.Size()))
	return err
}
