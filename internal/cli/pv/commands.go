package pv

import "github.com/spf13/cobra"

// commands lists the subcommands in the order of the help page.
func commands() []*cobra.Command {
	return []*cobra.Command{
		newValidate(), newStatus(), newCoverage(), newDiff(), newGraph(), newExplain(), newReport(),
		newRun(), newImport(), newAudit(), newDischarge(), newLint(),
		newNew(),
	}
}
