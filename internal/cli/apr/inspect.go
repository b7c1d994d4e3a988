package apr

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/modelfile"
	"github.com/apr-engine/apr/modelfile/source"
	"github.com/apr-engine/apr/tokenizer"
	"github.com/spf13/cobra"
)

type inspectOptions struct {
	model string
	json  bool
	full  bool
}

func newInspect() *cobra.Command {
	var o inspectOptions
	cmd := &cobra.Command{
		Use:     "inspect MODEL [flags]",
		GroupID: groupLook,
		Short:   "Show what a model file says about itself",
		Long: `Show a model file's summary and metadata. Nothing is computed. Of a Hugging Face
folder the metadata are what 'apr import' makes of its config.json and tokenizer.

Files that cannot be run (a vocabulary alone, an unknown architecture) are shown
too, with the reason. Long arrays, such as the vocabulary, are cut unless --full
is given; in JSON a cut array is an object with its type and length.`,
		Example: `  apr inspect models/tiny-coder-4m-q4_k_m.gguf
  apr inspect models/tiny-coder-4m-q4_k_m.gguf --json`,
		Args:              modelArg(0, "MODEL"),
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.model = args[0]
			return o.run(cmd)
		},
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object")
	cmd.Flags().BoolVar(&o.full, "full", false, "show arrays in full")
	return cmd
}

func (o *inspectOptions) run(cmd *cobra.Command) error {
	info, err := engine.Inspect(o.model)
	if errors.Is(err, modelfile.ErrSource) {
		info, err = inspectWeights(o.model) // what cannot be run can still be shown
	}
	if err != nil {
		return err
	}
	out := stdout(cmd)
	if o.json {
		return out.json(struct {
			*engine.Info
			Metadata orderedJSON `json:"metadata"`
		}{info, orderedJSON{info.Metadata, o.full}})
	}
	if err := out.table(summary(info)); err != nil {
		return err
	}
	return out.buffered(func(w *bufio.Writer) {
		fmt.Fprintf(w, "\nMetadata (%d keys)\n", info.Metadata.Len())
		for key, v := range info.Metadata.All() {
			text := v.String()
			if o.full && v.Type == gguf.TypeArray {
				text = fmt.Sprint(v.Any())
			}
			fmt.Fprintf(w, "  %s = %s\n", key, text)
		}
	})
}

// inspectWeights describes a Hugging Face folder or a file of safetensors.
func inspectWeights(path string) (*engine.Info, error) {
	m, err := source.Open(path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	info := &engine.Info{
		Files: m.Files, Format: m.Format, Bytes: m.Size, Architecture: m.Architecture(), Tensors: len(m.Tensors), Metadata: m.Metadata,
		Problem: "it has to be imported first: apr import " + path + " -o model.apr",
	}
	info.Name, _ = m.Metadata.String("general.name")
	sums := map[string]*engine.TypeInfo{}
	for _, t := range m.Tensors {
		info.Parameters += int64(t.Elements())
		s := sums[m.StoredType(t)]
		if s == nil {
			s = &engine.TypeInfo{Type: m.StoredType(t)}
			sums[s.Type] = s
		}
		s.Tensors++
		s.Bytes += int64(len(t.Data))
	}
	for _, s := range sums {
		info.Types = append(info.Types, *s)
	}
	slices.SortFunc(info.Types, func(a, b engine.TypeInfo) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Type, b.Type))
	})
	if tokens, ok := m.Metadata.Value("tokenizer.ggml.tokens"); ok {
		info.Vocabulary = tokens.Len()
		if t, err := tokenizer.FromMetadata(m.Metadata); err == nil {
			info.Tokenizer = t.Name()
		}
	}
	if n, ok := m.Metadata.Uint(info.Architecture + ".context_length"); ok {
		info.Context = int(min(n, 1<<31))
	}
	switch {
	case len(m.Problems) > 0:
		info.Problem = m.Problems[0]
	case m.Metadata.Len() == 0:
		info.Problem = "weights alone; the folder with config.json and tokenizer.json can be imported"
	}
	return info, nil
}

// summary is the table at the top of the human output.
func summary(info *engine.Info) [][]string {
	types := make([]string, len(info.Types))
	for i, t := range info.Types {
		types[i] = fmt.Sprintf("%d %s (%s)", t.Tensors, t.Type, byteSize(t.Bytes))
	}
	rows := [][]string{
		{"File", strings.Join(info.Files, ", ")},
		{"Format", fmt.Sprintf("%s, %s", info.Format, byteSize(info.Bytes))},
		{"Name", info.Name},
		{"Architecture", info.Architecture},
		{"Parameters", count(info.Parameters)},
		{"Tensors", fmt.Sprintf("%d: %s", info.Tensors, strings.Join(types, ", "))},
	}
	if info.Tokenizer != "" || info.Vocabulary > 0 {
		rows = append(rows, []string{"Tokenizer", fmt.Sprintf("%s, %d tokens", info.Tokenizer, info.Vocabulary)})
	}
	if info.Context > 0 {
		rows = append(rows, []string{"Context", fmt.Sprintf("%d tokens", info.Context)})
	}
	if info.Runnable {
		rows = append(rows, []string{"KV cache", fmt.Sprintf("%d bytes a token (F16)", info.CacheBytes)})
		return append(rows, []string{"Runs", "yes"})
	}
	return append(rows, []string{"Runs", "no: " + info.Problem})
}

// longArray is the length from which arrays are cut.
const longArray = 64

// orderedJSON writes metadata as an object in file order.
type orderedJSON struct {
	md   *gguf.Metadata
	full bool
}

func (o orderedJSON) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for key, v := range o.md.All() {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		k, err := json.Marshal(key)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(o.value(v))
		if err != nil {
			return nil, fmt.Errorf("metadata key %s: %w", key, err)
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// value turns a metadata value into what encoding/json can write.
func (o orderedJSON) value(v gguf.Value) any {
	if v.Type == gguf.TypeArray && v.Len() > longArray && !o.full {
		return map[string]any{"type": v.Kind(), "length": v.Len()}
	}
	return plain(v.Any())
}

// plain replaces what JSON has no form for: NaN and infinities by their names,
// bytes by numbers.
func plain(v any) any {
	switch x := v.(type) {
	case float32:
		if f := float64(x); math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Sprint(f)
		}
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return fmt.Sprint(x)
		}
	case []float32:
		return eachPlain(x)
	case []float64:
		return eachPlain(x)
	case []uint8:
		return eachPlain(x)
	case []any:
		return eachPlain(x)
	}
	return v
}

func eachPlain[T any](list []T) []any {
	out := make([]any, len(list))
	for i, x := range list {
		out[i] = plain(x)
	}
	return out
}
