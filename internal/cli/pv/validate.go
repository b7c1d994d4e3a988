package pv

import (
	"github.com/apr-engine/apr/contract"
	"github.com/spf13/cobra"
)

func newValidate() *cobra.Command {
	var flags findingFlags
	var rules string
	cmd := &cobra.Command{
		Use:     "validate FILE|DIR",
		GroupID: groupRead,
		Short:   "Judge contracts by the rules of their format",
		Long: `Judge the shape of contracts: the SCHEMA, PROVABILITY, READ, KIND and TEST
rules. Every finding has a file, a line and a column. pv explain RULE says what
a rule is for.

Below a folder all .yaml files are read, except those that are no contracts by
their name (bindings, playbooks, hidden files), which are listed.`,
		Example: `  pv validate contracts/
  pv validate contracts/apr-cli-commands-v1.yaml --format sarif`,
		Args: paths(1, 1, "FILE or DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(cmd); err != nil {
				return err
			}
			set := contract.Current
			switch rules {
			case "current":
			case "first":
				set = contract.First
			default:
				return usageError(cmd, "--rules %s: want current or first", rules)
			}
			c, err := load(args[0])
			if err != nil {
				return err
			}
			findings := c.findings
			for _, one := range c.contracts {
				findings = append(findings, contract.Validate(one, set)...)
			}
			return flags.finish(cmd.OutOrStdout(), findings, c.files, c.skipped)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&rules, "rules", "current", "current, or first for the rules of the format's first version")
	return cmd
}
