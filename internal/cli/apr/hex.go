package apr

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/apr-engine/apr/internal/mmapfile"
	"github.com/apr-engine/apr/modelfile"
	"github.com/apr-engine/apr/modelfile/annotate"
	"github.com/apr-engine/apr/modelfile/names"
	"github.com/spf13/cobra"
)

type hexOptions struct {
	file   string
	at     string
	length int
	json   bool
}

func newHex() *cobra.Command {
	o := hexOptions{length: 256}
	cmd := &cobra.Command{
		Use:     "hex FILE [flags]",
		GroupID: groupLook,
		Short:   "Show the bytes of a model file with what they mean",
		Long: `Show bytes of a GGUF, .apr or safetensors file, each with the field that it belongs
to: header, metadata, tensor descriptions, and within tensors the parts of the
blocks. Damaged files are shown too, as far as their structure can be followed.

--at takes an offset in bytes (decimal, or hexadecimal with 0x) or the name of a
tensor, in GGUF's or Hugging Face's spelling, whose data are shown. Long fields show their first and last bytes; --full
shows all.`,
		Example: `  apr hex models/tiny-coder-4m-q4_k_m.gguf
  apr hex models/tiny-coder-4m-q4_k_m.gguf --at blk.0.attn_q.weight -n 144
  apr hex model.safetensors --at 0x10 --json`,
		Args:              modelArg(0, "FILE"),
		ValidArgsFunction: completeModel,
	}
	var full bool
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		o.file = args[0]
		return o.run(cmd, full)
	}
	cmd.Flags().StringVar(&o.at, "at", "", "offset, or name of a tensor, to begin at (default 0)")
	cmd.Flags().VarP(intValue{&o.length, 1, maxCount}, "length", "n", "how many bytes to show")
	cmd.Flags().BoolVar(&full, "full", false, "show long fields in full")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object")
	return cmd
}

func (o *hexOptions) run(cmd *cobra.Command, full bool) error {
	if modelfile.IsFolder(o.file) {
		return usageError(cmd, "%s is a folder: name one of its .safetensors files", o.file)
	}
	f, err := mmapfile.Open(o.file)
	if err != nil {
		return err
	}
	defer f.Close()
	m, err := annotate.New(f.Bytes())
	if err != nil {
		return fmt.Errorf("%s: %w", o.file, err)
	}
	from, err := o.start(cmd, m)
	if err != nil {
		return err
	}
	fields := m.Window(from, o.length)
	to := min(from+o.length, m.Size())
	out := stdout(cmd)
	if o.json {
		return out.json(hexJSON(m, fields, full))
	}
	if err := out.buffered(func(w *bufio.Writer) {
		for _, field := range fields {
			writeField(w, m.Bytes(field), field, from, to, full)
		}
	}); err != nil {
		return err
	}
	if m.Fault != nil {
		return kindError{fmt.Errorf("%s: %w", o.file, m.Fault), annotate.ErrStructure}
	}
	return nil
}

// start finds the offset that --at means.
func (o *hexOptions) start(cmd *cobra.Command, m *annotate.Map) (int, error) {
	if o.at == "" {
		return 0, nil
	}
	if t, ok := m.Find(o.at); ok {
		if t.Offset >= uint64(m.Size()) {
			return 0, fmt.Errorf("%s: %w: tensor %s lies at byte %d, past the end of the file at %d", o.file, annotate.ErrStructure, t.Name, t.Offset, m.Size())
		}
		return int(t.Offset), nil
	}
	if name, ok := o.otherName(m); ok {
		o.at = name
		return o.start(cmd, m)
	}
	n, err := strconv.ParseUint(o.at, 0, 63)
	if errors.Is(err, strconv.ErrSyntax) {
		return 0, usageError(cmd, "--at %s: neither an offset nor a tensor of %s", o.at, o.file)
	}
	if err != nil || n >= uint64(m.Size()) {
		return 0, usageError(cmd, "--at %s: the file has %d bytes", o.at, m.Size())
	}
	return int(n), nil
}

// otherName finds a tensor by its name in the other scheme: GGUF's in a file with
// those of Hugging Face, and the reverse.
func (o *hexOptions) otherName(m *annotate.Map) (string, bool) {
	all := make([]string, len(m.Tensors))
	for i := range m.Tensors {
		all[i] = m.Tensors[i].Name
	}
	gemma := names.IsGemma(all)
	want, ok := names.Parse(o.at, gemma)
	if !ok {
		return "", false
	}
	i := slices.IndexFunc(all, func(name string) bool { return names.Canonical(name, gemma) == want.GGUF() })
	if i < 0 || all[i] == o.at {
		return "", false
	}
	return all[i], true
}

// Lines of a field: hexLine bytes each, and at most hexLines of them unless all
// are asked for.
const (
	hexLine  = 16
	hexLines = 3
)

// writeField prints the lines of a field that lie in the window, the first with
// name and value.
func writeField(w *bufio.Writer, data []byte, f annotate.Field, from, to int, full bool) {
	label := f.Name
	if f.Value != "" {
		label += " = " + f.Value
	}
	begin := max(0, from-f.Offset)
	data = data[:min(len(data), to-f.Offset)]
	if begin > 0 {
		label += fmt.Sprintf(" (from its byte %d)", begin)
	}
	lines := (len(data) - begin + hexLine - 1) / hexLine
	for i := range lines {
		if !full && lines > hexLines && i == hexLines-1 {
			fmt.Fprintf(w, "%8s  … %d bytes\n", "", len(data)-begin-hexLine*hexLines)
			last := len(data) - hexLine
			hexRow(w, f.Offset+last, data[last:], "")
			return
		}
		at := begin + i*hexLine
		hexRow(w, f.Offset+at, data[at:min(at+hexLine, len(data))], label)
		label = ""
	}
}

// hexRow prints up to 16 bytes with their offset, characters and meaning.
func hexRow(w *bufio.Writer, offset int, b []byte, label string) {
	var digits, chars strings.Builder
	for i, c := range b {
		if i == hexLine/2 {
			digits.WriteByte(' ')
		}
		fmt.Fprintf(&digits, "%02x ", c)
		if c < ' ' || c > '~' {
			c = '.'
		}
		chars.WriteByte(c)
	}
	line := fmt.Sprintf("%08x  %-49s |%-16s|  %s", offset, digits.String(), chars.String(), label)
	fmt.Fprintln(w, strings.TrimRight(line, " "))
}

// hexField is a field in JSON.
type hexField struct {
	annotate.Field
	Bytes string `json:"bytes"`
}

// hexShown is how many bytes of a long field JSON has unless all are asked for.
const hexShown = hexLine * hexLines

func hexJSON(m *annotate.Map, fields []annotate.Field, full bool) any {
	list := make([]hexField, len(fields))
	for i, f := range fields {
		b := m.Bytes(f)
		if !full {
			b = b[:min(len(b), hexShown)]
		}
		list[i] = hexField{f, hex.EncodeToString(b)}
	}
	problem := ""
	if m.Fault != nil {
		problem = m.Fault.Error()
	}
	return struct {
		Format  string     `json:"format"`
		Size    int        `json:"size"`
		Problem string     `json:"problem,omitempty"`
		Fields  []hexField `json:"fields"`
	}{m.Format, m.Size(), problem, list}
}
