package pv

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/apr-engine/apr/contract"
	"github.com/spf13/cobra"
)

func newCoverage() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "coverage [DIR]",
		GroupID: groupRead,
		Short:   "Count falsifiers by status, with denominators",
		Long: `Count the falsifiers of each contract by the status that they claim, and how
many of them have a test that can be run. pv audit says whether evidence
supports the claims. DIR is contracts if not given.`,
		Example: "  pv coverage contracts/",
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
			if asJSON {
				return coverageJSON(cmd.OutOrStdout(), cs)
			}
			return coverageText(cmd.OutOrStdout(), cs)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// coverageText always prints denominators: five discharged of nine is not five.
func coverageText(w io.Writer, cs []*contract.Contract) error {
	var sum contract.Tally
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "contract\tversion\texecutable\tfalsifiers")
	for _, c := range cs {
		y := c.Tally()
		sum.Add(y)
		fmt.Fprintf(t, "%s\t%s\t%d of %d\t%s\n", c.Stem, c.Metadata.Version, y.Executable, y.Total, y)
	}
	fmt.Fprintf(t, "all %d\t\t%d of %d\t%s\n", len(cs), sum.Executable, sum.Total, sum)
	return t.Flush()
}

func coverageJSON(w io.Writer, cs []*contract.Contract) error {
	type row struct {
		Contract string         `json:"contract"`
		Version  string         `json:"version"`
		Tally    contract.Tally `json:"tally"`
	}
	out := struct {
		Contracts []row          `json:"contracts"`
		All       contract.Tally `json:"all"`
	}{Contracts: []row{}}
	for _, c := range cs {
		out.Contracts = append(out.Contracts, row{c.Stem, c.Metadata.Version.Value, c.Tally()})
		out.All.Add(c.Tally())
	}
	return writeJSON(w, out)
}
