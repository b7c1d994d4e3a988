package apr

import (
	"fmt"
	"math"
	"time"

	"github.com/apr-engine/apr/engine"
	"github.com/spf13/cobra"
)

type perplexityOptions struct {
	backendFlags
	model  string
	file   string
	ctx    int
	stride int
	chunks int
	json   bool
}

func newPerplexity() *cobra.Command {
	var o perplexityOptions
	cmd := &cobra.Command{
		Use:     "perplexity MODEL --file TEXT [flags]",
		GroupID: groupMeasure,
		Short:   "Measure how well a model predicts a text",
		Long: `Measure perplexity, the exponential of the mean negative log-likelihood of the
text's tokens.

The definition is that of llama.cpp's llama-perplexity, so that figures can be
compared: the text, tokenised with the tokens the model expects at its start, is
cut into windows of --ctx tokens that do not overlap (a rest at the end is left
out), each window starts with BOS if the model uses one, and the second half of
each is scored. Where llama-perplexity wants two windows of text, one will do.

With --stride N windows of --ctx tokens slide by N tokens and every token but the
first is scored once, with as much context as its window holds: the definition in
Hugging Face's documentation.`,
		Example: `  apr perplexity models/tiny-coder-4m-q4_k_m.gguf --file engine/generate.go --ctx 256
  apr perplexity models/tiny-coder-4m-q4_k_m.gguf --file engine/generate.go --ctx 256 --stride 128 --json`,
		Args:              modelArg(0, "MODEL"),
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.model = args[0]
			return o.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", "", "file with the text; - for standard input")
	f.Var(intValue{&o.ctx, 0, maxCount}, "ctx", "tokens in a window; 0 for 512 or the model's context if that is less")
	f.Var(intValue{&o.stride, 0, maxCount}, "stride", "slide windows by so many tokens; 0 for windows side by side")
	f.Var(intValue{&o.chunks, 0, maxCount}, "chunks", "stop after so many windows; 0 for all")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	o.backendFlags.register(f)
	return cmd
}

// standardWindow is llama-perplexity's default context.
const standardWindow = 512

func (o *perplexityOptions) run(cmd *cobra.Command) error {
	log := logger(cmd)
	backend, err := o.backendFlags.options(cmd)
	if err != nil {
		return err
	}
	if o.file == "" {
		return usageError(cmd, "--file is missing")
	}
	text, err := readFile(cmd, "file", o.file)
	if err != nil {
		return err
	}
	start := time.Now()
	m, err := loadModel(o.model, log)
	if err != nil {
		return err
	}
	window := contextLength(m, o.ctx, standardWindow, log)
	backend.Context = window
	e, err := open(m, backend, start, log)
	if err != nil {
		return err
	}
	defer e.Close()
	options := engine.PerplexityOptions{Context: window, Stride: o.stride, Chunks: o.chunks}
	if isTerminal(cmd.ErrOrStderr()) {
		options.Progress = func(done, total int, perplexity float64) {
			fmt.Fprintf(cmd.ErrOrStderr(), "\r%d of %d windows, perplexity %.4f ", done, total, perplexity)
			if done == total {
				fmt.Fprint(cmd.ErrOrStderr(), "\r\x1b[K")
			}
		}
	}
	began := time.Now()
	res, err := e.Perplexity(cmd.Context(), text, options)
	if err != nil {
		return err
	}
	took := time.Since(began)
	out := stdout(cmd)
	if o.json {
		return out.json(struct {
			engine.PerplexityResult
			Backend   engine.Selection `json:"backend"`
			Seconds   float64          `json:"seconds"`
			TokPerSec float64          `json:"tok_per_sec"`
		}{res, e.Selection(), math.Round(1000*took.Seconds()) / 1000, perSecond(res.Chunks*window, took)})
	}
	_, err = fmt.Fprintf(out, "perplexity %.4f ± %.4f (%d windows of %d tokens, %d tokens scored)\n",
		res.Perplexity, res.StdErr, res.Chunks, window, res.Scored)
	return err
}
