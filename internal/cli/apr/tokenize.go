package apr

import (
	"bufio"
	"fmt"
	"strconv"

	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/tokenizer"
	"github.com/spf13/cobra"
)

type tokenizeOptions struct {
	tokenizer.EncodeOptions
	model  string
	source textSource
	json   bool
}

func newTokenize() *cobra.Command {
	var o tokenizeOptions
	cmd := &cobra.Command{
		Use:     "tokenize MODEL [TEXT] [flags]",
		GroupID: groupLook,
		Short:   "Turn text into token ids",
		Long: `Print the token ids of a text, each with the text it stands for, or with --json as
one array. The text is the argument, --file or standard input, and is taken as it
is: a line end at its end counts. Files with a vocabulary and no tensors work.`,
		Example: `  apr tokenize models/tiny-coder-4m-q4_k_m.gguf 'func main() {'
  apr tokenize models/tiny-coder-4m-q4_k_m.gguf --parse-special --json '<|im_start|>user'`,
		Args:              modelArg(1, "MODEL [TEXT]"),
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.model, o.source.args = args[0], args[1:]
			return o.run(cmd)
		},
	}
	f := cmd.Flags()
	o.source.what, o.source.fileFlag = "text", "file"
	f.StringVarP(&o.source.file, "file", "f", "", "file with the text; - for standard input")
	f.BoolVar(&o.AddSpecial, "add-special", false, "add the tokens that the model expects at the start and the end")
	f.BoolVar(&o.ParseSpecial, "parse-special", false, "recognise markup such as <|im_start|> in the text")
	f.BoolVar(&o.json, "json", false, "print a JSON array of ids")
	return cmd
}

func (o *tokenizeOptions) run(cmd *cobra.Command) error {
	text, err := o.source.read(cmd, false)
	if err != nil {
		return err
	}
	m, err := engine.LoadVocabulary(o.model)
	if err != nil {
		return err
	}
	defer m.Close()
	ids := m.Tokenizer.Encode(text, o.EncodeOptions)
	return stdout(cmd).buffered(func(w *bufio.Writer) {
		if o.json {
			writeIDs(w, ids)
			return
		}
		for _, id := range ids {
			fmt.Fprintf(w, "%7d  %q\n", id, m.Tokenizer.Piece(id))
		}
	})
}

// writeIDs writes ids as a JSON array on one line. encoding/json is some ten
// times slower, which shows with millions of them.
func writeIDs(w *bufio.Writer, ids []int32) {
	w.WriteByte('[')
	var digits []byte
	for i, id := range ids {
		if i > 0 {
			w.WriteByte(',')
		}
		digits = strconv.AppendInt(digits[:0], int64(id), 10)
		w.Write(digits)
	}
	w.WriteString("]\n")
}
