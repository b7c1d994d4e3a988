package pv

import (
	"github.com/apr-engine/apr/contract"
	"github.com/spf13/cobra"
)

func newLint() *cobra.Command {
	var flags findingFlags
	var where ledgerFlags
	var binding string
	cmd := &cobra.Command{
		Use:     "lint [DIR]",
		GroupID: groupProve,
		Short:   "Apply every rule to a folder of contracts",
		Long: `Apply all rules: those of pv validate, of pv audit, and those about contracts
together: names that are taken twice, dependencies that are missing or go in a
circle. DIR is contracts if not given.`,
		Example: "  pv lint contracts/ --bin bin --strict",
		Args:    paths(0, 1, "DIR or nothing"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(cmd); err != nil {
				return err
			}
			dir := "contracts"
			if len(args) > 0 {
				dir = args[0]
			}
			l, err := where.ledger()
			if err != nil {
				return err
			}
			c, err := load(dir)
			if err != nil {
				return err
			}
			findings, err := auditAll(l, c, binding)
			if err != nil {
				return err
			}
			for _, one := range c.contracts {
				findings = append(findings, contract.Validate(one, contract.Current)...)
			}
			findings = append(findings, contract.NewGraph(c.contracts).Findings()...)
			return flags.finish(cmd.OutOrStdout(), findings, c.files, c.skipped)
		},
	}
	flags.add(cmd)
	where.add(cmd)
	where.addKeys(cmd)
	cmd.Flags().StringVar(&binding, "binding", "", "binding registry: YAML that names the function of each equation")
	return cmd
}
