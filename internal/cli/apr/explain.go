package apr

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/apr-engine/apr/modelfile/explain"
	"github.com/apr-engine/apr/modelfile/source"
	"github.com/spf13/cobra"
)

type explainOptions struct {
	word  string
	model string
	json  bool
}

func newExplain() *cobra.Command {
	var o explainOptions
	cmd := &cobra.Command{
		Use:     "explain CODE|TENSOR|TYPE [flags]",
		GroupID: groupLook,
		Short:   "Explain an exit code, a tensor's name or a storage type",
		Long: `Explain in words:

  an exit code            5
  a tensor's name         blk.7.attn_q.weight, model.layers.7.mlp.up_proj.weight
  a storage type          q4_k, f16
  a quantisation recipe   q4_k_m
  a kind of findings      dead-rows (of 'apr validate')

With --model, a tensor's own shape, type and place in that file are added.`,
		Example: `  apr explain 5
  apr explain q4_k
  apr explain blk.3.attn_q.weight --model models/tiny-coder-4m-q4_k_m.gguf`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("%d arguments, want an exit code, a tensor's name or a type", len(args))
			}
			if args[0] == "" {
				return errors.New("the word to explain is empty")
			}
			return nil
		},
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return explain.Words(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.word = args[0]
			return o.run(cmd)
		},
	}
	cmd.Flags().StringVar(&o.model, "model", "", "model file to look the tensor up in")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object")
	return cmd
}

func (o *explainOptions) run(cmd *cobra.Command) error {
	topic := explainCode(o.word)
	if topic == nil {
		topic = explain.Find(o.word)
	}
	if o.model != "" {
		found, err := o.lookUp(topic)
		if err != nil {
			return err
		}
		topic = found
	}
	if topic == nil {
		return usageError(cmd, "%q is no exit code, tensor or type that apr knows; for example %s", o.word, "5, blk.0.attn_q.weight, q4_k")
	}
	out := stdout(cmd)
	if o.json {
		return out.json(topic)
	}
	rows := make([][]string, len(topic.Facts))
	for i, f := range topic.Facts {
		rows[i] = []string{"  " + f.Label, f.Text}
	}
	fmt.Fprintf(out, "%s: %s\n", topic.Name, topic.Kind)
	return out.table(rows)
}

// lookUp adds what a file says about the tensor.
func (o *explainOptions) lookUp(topic *explain.Topic) (*explain.Topic, error) {
	m, err := source.Open(o.model)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	t, ok := m.Tensor(o.word)
	if !ok {
		return nil, kindError{fmt.Errorf("%s has no tensor %s", o.model, o.word), errUsage}
	}
	if topic == nil {
		topic = &explain.Topic{Kind: "tensor", Name: o.word}
	}
	topic.Facts = append(topic.Facts,
		explain.Fact{Label: "file", Text: o.model},
		explain.Fact{Label: "its shape", Text: shapeText(t.Shape)},
		explain.Fact{Label: "its type", Text: fmt.Sprintf("%s, %s", t.Type, byteSize(int64(len(t.Data))))},
	)
	return topic, nil
}

// codeHelp says for each exit code what usually causes it and what to do.
var codeHelp = map[int][2]string{
	exitOK:          {"the command did what it was asked to", "nothing"},
	exitOther:       {"an error that has no code of its own", "read the line on stderr"},
	exitUsage:       {"a flag or argument that does not exist or is out of range, a prompt longer than the context", "see the command's --help"},
	exitNotFound:    {"a path that is mistyped, a folder, a missing shard of a set", "check the path; all shards must lie in one folder"},
	exitFormat:      {"a file that is no model, is cut off, or breaks the rules of its format", "apr validate FILE lists what is wrong; get the file again"},
	exitInvalid:     {"apr validate found errors, apr diff a cosine below --threshold, apr parity a difference, or the output file exists", "read the findings; give --force to replace a file"},
	exitLoad:        {"an architecture that apr does not know, tensors that are missing or have other shapes, a damaged tensor", "apr validate FILE and apr inspect FILE say why"},
	exitIO:          {"no permission, a full disk, a closed pipe", "read the line on stderr"},
	exitInference:   {"a computation gave NaN or infinity, or a backend failed", "try --backend cpu-exact; apr validate FILE finds damaged weights"},
	exitBackend:     {"--backend names one that this build or machine does not have, or one whose results differ from the reference", "apr version lists the backends, apr parity MODEL --backend NAME shows the difference"},
	exitInterrupted: {"Ctrl-C, or the process was asked to end", "nothing"},
}

// explainCode explains an exit code; nil for other words.
func explainCode(word string) *explain.Topic {
	n, err := strconv.Atoi(strings.TrimSpace(word))
	if err != nil {
		return nil
	}
	i := slices.IndexFunc(ExitCodes, func(c struct {
		Code    int
		Meaning string
	}) bool {
		return c.Code == n
	})
	if i < 0 {
		return nil
	}
	return &explain.Topic{Kind: "exit code", Name: strconv.Itoa(n), Facts: []explain.Fact{
		{Label: "meaning", Text: ExitCodes[i].Meaning},
		{Label: "causes", Text: codeHelp[n][0]},
		{Label: "what to do", Text: codeHelp[n][1]},
	}}
}
