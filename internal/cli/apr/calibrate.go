package apr

import (
	"fmt"

	"github.com/apr-engine/apr/parity"
	"github.com/spf13/cobra"
)

// calibrationTokens is the most tokens of a prompt: past the 64 positions that
// attention sums in one block.
const calibrationTokens = 96

// calibrationTexts are prompts of different kinds.
var calibrationTexts = []string{
	"What is 2+2?",
	"package main\n\nimport (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc main() {\n\tfor i, a := range os.Args {\n\t\tfmt.Println(i, a)\n\t}\n}\n",
	"The quick brown fox jumps over the lazy dog. Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 1234567890",
}

func newCalibrate() *cobra.Command {
	var file string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "calibrate MODEL [flags]",
		Short: "Measure how much sound arithmetics differ on a model",
		Long: `Compute a model in several sound ways and compare the logits with those of
cpu-exact: sums in float64, other batches, a cache in half precision, activations
of 16 and of 8 bits. What they differ by is noise, and the limits of the gate
(apr parity --policy) have to lie outside of it. docs/gate-calibration.md has the
numbers for the models that the policy was made with.

Errors are in standard deviations of the reference's logits, the worst of all
positions of three prompts, or of a text.`,
		Example: `  apr parity calibrate models/tiny-coder-4m-q4_k_m.gguf`,
		Args:    modelArg(0, "MODEL"), ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			m, err := loadModel(args[0], logger(cmd))
			if err != nil {
				return err
			}
			defer m.Close()
			texts := calibrationTexts
			if file != "" {
				text, err := readFile(cmd, "file", file)
				if err != nil {
					return err
				}
				texts = []string{text}
			}
			c := parity.CalibrationModel{Name: args[0], Program: m.Program, Weights: m.File}
			for _, text := range texts {
				ids := m.TextPrompt(text)
				ids = ids[:min(len(ids), calibrationTokens, m.Program.Context)]
				if len(ids) == 0 {
					return usageError(cmd, "the text is empty")
				}
				c.Prompts = append(c.Prompts, ids)
			}
			table, err := parity.Calibrate(cmd.Context(), c, parity.Arithmetics())
			if err != nil {
				return err
			}
			if asJSON {
				return stdout(cmd).json(table)
			}
			return printNoise(stdout(cmd), table)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "measure on this text instead; - for standard input")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON list")
	wrap(cmd)
	return cmd
}

func printNoise(out *output, table []parity.Noise) error {
	rows := [][]string{{"ARITHMETIC", "POSITIONS", "1-COSINE", "KL", "RMS", "P99", "P99.9", "MAX", "FLIPS", "MARGIN"}}
	for _, n := range table {
		rows = append(rows, []string{
			n.Arithmetic, fmt.Sprint(n.Positions), fmt.Sprintf("%.1e", max(1-n.MinCosine, 0)), fmt.Sprintf("%.1e", n.MaxKL),
			fmt.Sprintf("%.2g", n.MaxRMS), fmt.Sprintf("%.2g", n.MaxP99), fmt.Sprintf("%.2g", n.MaxP999), fmt.Sprintf("%.2g", n.MaxPeak),
			fmt.Sprint(n.Flips), fmt.Sprintf("%.3f", n.MaxMargin),
		})
	}
	return out.table(rows, 1, 2, 3, 4, 5, 6, 7, 8, 9)
}
