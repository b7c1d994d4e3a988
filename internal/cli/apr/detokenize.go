package apr

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/tokenizer"
	"github.com/spf13/cobra"
)

type detokenizeOptions struct {
	tokenizer.DecodeOptions
	model  string
	source textSource
	json   bool
}

func newDetokenize() *cobra.Command {
	var o detokenizeOptions
	cmd := &cobra.Command{
		Use:     "detokenize MODEL [IDS...] [flags]",
		GroupID: groupLook,
		Short:   "Turn token ids into text",
		Long: `Print the text of token ids, followed by one line end. The ids are arguments, in
--file or on standard input, separated by commas or white space; a JSON array
works too. Bytes that are no UTF-8 become U+FFFD. Markup tokens are written out
unless --skip-special is given. With --json the text is a JSON string, exact to
the last character. Files with a vocabulary and no tensors work.`,
		Example: `  apr detokenize models/tiny-coder-4m-q4_k_m.gguf 340 1196 440
  apr tokenize models/tiny-coder-4m-q4_k_m.gguf --json hello | apr detokenize models/tiny-coder-4m-q4_k_m.gguf`,
		Args:              modelArg(-1, "MODEL [IDS...]"),
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.model = args[0]
			if len(args) > 1 {
				o.source.args = []string{strings.Join(args[1:], " ")}
			}
			return o.run(cmd)
		},
	}
	f := cmd.Flags()
	o.source.what, o.source.fileFlag = "token ids", "file"
	f.StringVarP(&o.source.file, "file", "f", "", "file with the ids; - for standard input")
	f.BoolVar(&o.SkipSpecial, "skip-special", false, "leave out markup tokens such as <|im_end|>")
	f.BoolVar(&o.json, "json", false, "print a JSON string")
	return cmd
}

func (o *detokenizeOptions) run(cmd *cobra.Command) error {
	list, err := o.source.read(cmd, false)
	if err != nil {
		return err
	}
	ids, err := parseIDs(list)
	if err != nil {
		return usageError(cmd, "%w", err)
	}
	m, err := engine.LoadVocabulary(o.model)
	if err != nil {
		return err
	}
	defer m.Close()
	text, err := m.Tokenizer.Decode(ids, o.DecodeOptions)
	if err != nil {
		return err
	}
	out := stdout(cmd)
	if o.json {
		return out.json(text)
	}
	return out.buffered(func(w *bufio.Writer) { fmt.Fprintln(w, text) })
}
