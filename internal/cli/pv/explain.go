package pv

import (
	"fmt"
	"strings"

	"github.com/apr-engine/apr/contract"
	"github.com/spf13/cobra"
)

func newExplain() *cobra.Command {
	return &cobra.Command{
		Use:     "explain [RULE]",
		GroupID: groupRead,
		Short:   "Say what a rule is for",
		Long:    "Say what a rule finds, how severe it is and why. Without a rule, list all.",
		Example: "  pv explain SCHEMA-019",
		Args:    paths(0, 1, "a rule or nothing"),
		RunE: func(cmd *cobra.Command, args []string) error {
			w := cmd.OutOrStdout()
			if len(args) == 0 {
				for _, r := range contract.Rules {
					fmt.Fprintf(w, "%-16s %-8s %s\n", r.ID, r.Severity, r.Title)
				}
				return nil
			}
			r, ok := contract.FindRule(strings.ToUpper(args[0]))
			if !ok {
				return usageError(cmd, "unknown rule %q, pv explain lists all", args[0])
			}
			fmt.Fprintf(w, "%s (%s): %s\n\n%s\n", r.ID, r.Severity, r.Title, r.Why)
			return nil
		},
	}
}
