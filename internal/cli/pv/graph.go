package pv

import (
	"fmt"
	"io"
	"strings"

	"github.com/apr-engine/apr/contract"
	"github.com/spf13/cobra"
)

func newGraph() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "graph [DIR]",
		GroupID: groupRead,
		Short:   "Show which contract builds on which",
		Long: `Show metadata.depends_on as text, dot or mermaid. As text, what is built on comes
first. DIR is contracts if not given.`,
		Example: "  pv graph contracts/ --format mermaid",
		Args:    paths(0, 1, "DIR or nothing"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir := "contracts"
			if len(args) > 0 {
				dir = args[0]
			}
			cs, err := loadReadable(dir)
			if err != nil {
				return err
			}
			g := contract.NewGraph(cs)
			w := cmd.OutOrStdout()
			switch format {
			case "text":
				graphText(w, g)
			case "dot":
				graphEdges(w, g, "digraph contracts {\n  rankdir=LR;\n", "  %s;\n", "  %s -> %s;\n", "}\n")
			case "mermaid":
				graphMermaid(w, g)
			default:
				return usageError(cmd, "--format %s: want text, dot or mermaid", format)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "text", "text, dot or mermaid")
	return cmd
}

func graphText(w io.Writer, g *contract.Graph) {
	for _, stem := range g.Order {
		fmt.Fprint(w, stem)
		if d := g.Depends[stem]; len(d) > 0 {
			fmt.Fprintf(w, " ← %s", strings.Join(d, ", "))
		}
		fmt.Fprintln(w)
	}
	for _, c := range g.Circles {
		fmt.Fprintf(w, "circle: %s\n", strings.Join(c, ", "))
	}
	for _, f := range g.Findings() {
		fmt.Fprintln(w, f)
	}
}

// graphEdges writes nodes and edges with quoted names.
func graphEdges(w io.Writer, g *contract.Graph, head, node, edge, tail string) {
	fmt.Fprint(w, head)
	for _, s := range g.Stems {
		fmt.Fprintf(w, node, fmt.Sprintf("%q", s))
		for _, d := range g.Depends[s] {
			fmt.Fprintf(w, edge, fmt.Sprintf("%q", s), fmt.Sprintf("%q", d))
		}
	}
	fmt.Fprint(w, tail)
}

// graphMermaid numbers the nodes: mermaid reserves some words, end for one.
func graphMermaid(w io.Writer, g *contract.Graph) {
	fmt.Fprintln(w, "graph LR")
	id := map[string]string{}
	name := func(s string) string {
		if id[s] == "" {
			id[s] = fmt.Sprintf("n%d", len(id)+1)
			fmt.Fprintf(w, "  %s[\"%s\"]\n", id[s], strings.ReplaceAll(s, `"`, "#quot;"))
		}
		return id[s]
	}
	for _, s := range g.Stems {
		from := name(s)
		for _, d := range g.Depends[s] {
			to := name(d)
			fmt.Fprintf(w, "  %s --> %s\n", from, to)
		}
	}
}
