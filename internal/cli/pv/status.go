package pv

import (
	"fmt"
	"io"

	"github.com/apr-engine/apr/contract"
	"github.com/spf13/cobra"
)

func newStatus() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "status FILE",
		GroupID: groupRead,
		Short:   "Show what a contract holds and what it claims",
		Long: `Show a contract's version, the sizes of its sections and the status that each
falsifier claims. pv audit says whether evidence supports the claims.`,
		Example: "  pv status contracts/apr-cli-commands-v1.yaml",
		Args:    paths(1, 1, "FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := contract.Load(args[0])
			if err != nil {
				return plainPathError(args[0], err)
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), describe(c))
			}
			return printStatus(cmd.OutOrStdout(), c)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// statusView is a contract as pv status shows it.
type statusView struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Version     string          `json:"version"`
	Kind        string          `json:"kind"`
	References  int             `json:"references"`
	Equations   int             `json:"equations"`
	Obligations int             `json:"obligations"`
	Harnesses   int             `json:"harnesses"`
	Gate        string          `json:"qa_gate"`
	Falsifiers  []falsifierView `json:"falsifiers"`
	Tally       contract.Tally  `json:"tally"`
}

// falsifierView is one claim, with the status that it states.
type falsifierView struct {
	ID         string `json:"id"`
	Status     string `json:"status"`
	Executable bool   `json:"executable"`
	Level      string `json:"level,omitempty"`
	Prediction string `json:"prediction"`
	Evidence   string `json:"evidence,omitempty"`
}

func describe(c *contract.Contract) statusView {
	kind, stated := c.Kind()
	if !stated {
		kind = "not given, judged as " + kind
	}
	v := statusView{
		Name: c.Stem, Description: c.Metadata.Description.Value, Version: c.Metadata.Version.Value, Kind: kind,
		References: len(c.Metadata.References), Equations: len(c.Equations), Obligations: len(c.Obligations),
		Harnesses: len(c.Harnesses), Falsifiers: []falsifierView{}, Tally: c.Tally(),
	}
	if c.Gate != nil {
		v.Gate = c.Gate.ID.Value
	}
	for _, f := range c.Falsifiers {
		fv := falsifierView{ID: f.ID.Value, Status: string(f.Claim()), Executable: f.Test != nil, Prediction: f.Prediction.Value, Evidence: f.Evidence.Value}
		if f.Test != nil {
			fv.Level = f.Test.Level.Value
		}
		v.Falsifiers = append(v.Falsifiers, fv)
	}
	return v
}

func printStatus(w io.Writer, c *contract.Contract) error {
	v := describe(c)
	fmt.Fprintf(w, "%s %s\n%s\n\n", v.Name, v.Version, v.Description)
	fmt.Fprintf(w, "kind         %s\nreferences   %d\nequations    %d\nobligations  %d\nharnesses    %d\nqa gate      %s\n",
		v.Kind, v.References, v.Equations, v.Obligations, v.Harnesses, orNone(v.Gate))
	fmt.Fprintf(w, "falsifiers   %s\n", v.Tally)
	if len(v.Falsifiers) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	for _, f := range v.Falsifiers {
		how := "prose only"
		if f.Executable {
			how = f.Level
		}
		fmt.Fprintf(w, "%-24s %-24s %-10s %s\n", f.ID, f.Status, how, f.Prediction)
	}
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
