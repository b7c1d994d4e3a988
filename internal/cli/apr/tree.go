package apr

import (
	"bufio"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/apr-engine/apr/modelfile/outline"
	"github.com/apr-engine/apr/modelfile/source"
	"github.com/spf13/cobra"
)

type treeOptions struct {
	model  string
	layers bool
	json   bool
}

func newTree() *cobra.Command {
	var o treeOptions
	cmd := &cobra.Command{
		Use:     "tree MODEL [flags]",
		GroupID: groupLook,
		Short:   "Show the structure of a model as a tree",
		Long: `Show the parts of a model in the order of computation: embeddings, layers with
attention and feed-forward network, output; each with shape, types and size. Layers
that are alike are shown once; where their types differ, all types are listed.`,
		Example: `  apr tree models/tiny-coder-4m-q4_k_m.gguf
  apr tree models/tiny-coder-4m-q4_k_m.gguf --layers --json`,
		Args:              modelArg(0, "MODEL"),
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.model = args[0]
			return o.run(cmd)
		},
	}
	cmd.Flags().BoolVar(&o.layers, "layers", false, "show every layer by itself")
	cmd.Flags().BoolVar(&o.json, "json", false, "print one JSON object")
	return cmd
}

func (o *treeOptions) run(cmd *cobra.Command) error {
	m, err := source.Open(o.model)
	if err != nil {
		return err
	}
	defer m.Close()
	root := outline.Of(m, o.layers)
	root.Name = m.Path
	out := stdout(cmd)
	if o.json {
		return out.json(root)
	}
	var lines []treeLine
	about := []string{count(root.Parameters) + " parameters", plural(root.Tensors, "tensor"), byteSize(root.Bytes)}
	if arch := m.Architecture(); arch != "" {
		about = append([]string{arch}, about...)
	}
	lines = append(lines, treeLine{left: m.Path + ": " + strings.Join(about, ", ")})
	lines = branches(lines, root, "")
	return out.buffered(func(w *bufio.Writer) { writeTree(w, lines) })
}

// treeLine is a line before the columns are aligned. A line without columns is a
// heading.
type treeLine struct {
	left    string
	columns []string
}

// branches adds the lines of a node's children.
func branches(lines []treeLine, n *outline.Node, indent string) []treeLine {
	for i, c := range n.Children {
		branch, below := "├─ ", "│  "
		if i == len(n.Children)-1 {
			branch, below = "└─ ", "   "
		}
		line := treeLine{left: indent + branch + c.Name}
		switch {
		case c.Shape != nil:
			line.columns = []string{shapeText(c.Shape), strings.Join(c.Types, " "), byteSize(c.Bytes), c.What}
		case c.Layers > 1:
			line.left += fmt.Sprintf(" (%d layers, %s)", c.Layers, byteSize(c.Bytes))
		default:
			line.left += fmt.Sprintf(" (%s)", byteSize(c.Bytes))
		}
		lines = branches(append(lines, line), c, indent+below)
	}
	return lines
}

// writeTree prints the lines with their columns below each other.
func writeTree(w *bufio.Writer, lines []treeLine) {
	left := 0
	var width [4]int
	for _, l := range lines {
		if l.columns == nil {
			continue
		}
		left = max(left, utf8.RuneCountInString(l.left))
		for i, c := range l.columns {
			width[i] = max(width[i], len(c))
		}
	}
	for _, l := range lines {
		if l.columns == nil {
			fmt.Fprintln(w, l.left)
			continue
		}
		pad := strings.Repeat(" ", left-utf8.RuneCountInString(l.left))
		line := fmt.Sprintf("%s%s  %-*s  %-*s  %*s  %s", l.left, pad, width[0], l.columns[0], width[1], l.columns[1], width[2], l.columns[2], l.columns[3])
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}
