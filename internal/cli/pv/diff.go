package pv

import (
	"fmt"
	"io"

	"github.com/apr-engine/apr/contract"
	"github.com/spf13/cobra"
)

func newDiff() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "diff OLD NEW",
		GroupID: groupRead,
		Short:   "Show what changed and the version bump that it requires",
		Long: `Compare two versions of a contract by meaning: equations, obligations, tests with
every threshold, statuses. What is removed or demands something else needs a
major version, additions and raised statuses a minor, words a patch. Exit code 1
if metadata.version rose by less.`,
		Example: "  pv diff old.yaml contracts/apr-cli-commands-v1.yaml",
		Args:    paths(2, 2, "OLD and NEW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			var cs [2]*contract.Contract
			for i := range cs {
				var err error
				if cs[i], err = contract.Load(args[i]); err != nil {
					return plainPathError(args[i], err)
				}
			}
			d := contract.Diff(cs[0], cs[1])
			var err error
			if asJSON {
				err = writeJSON(cmd.OutOrStdout(), d)
			} else {
				err = printDiff(cmd.OutOrStdout(), cs, d)
			}
			if err == nil && !d.Enough() {
				return errFound
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func printDiff(w io.Writer, cs [2]*contract.Contract, d contract.Comparison) error {
	for _, c := range d.Changes {
		fmt.Fprintln(w, c)
	}
	fmt.Fprintf(w, "version %s → %s: ", cs[0].Metadata.Version, cs[1].Metadata.Version)
	switch {
	case d.Problem != "":
		fmt.Fprintln(w, d.Problem)
	case d.Enough():
		fmt.Fprintf(w, "%s, required %s\n", d.Actual, d.Required)
	default:
		next, err := contract.NextVersion(cs[0].Metadata.Version.Value, d.Required)
		if err != nil {
			return err
		}
		fmt.Fprintf(w, "%s, required %s: want %s\n", d.Actual, d.Required, next)
	}
	return nil
}
