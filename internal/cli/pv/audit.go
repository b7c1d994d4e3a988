package pv

import (
	"fmt"

	"github.com/apr-engine/apr/contract"
	"github.com/apr-engine/apr/contract/falsify"
	"github.com/spf13/cobra"
)

func newAudit() *cobra.Command {
	var flags findingFlags
	var where ledgerFlags
	var binding string
	cmd := &cobra.Command{
		Use:     "audit FILE|DIR",
		GroupID: groupProve,
		Short:   "Compare claims with evidence, and trace them",
		Long: `Verify the evidence of contracts and compare the statuses that they claim with
what it supports (STATUS rules); follow references from tests and harnesses to
equations and obligations (AUDIT, TEST-001), and from equations to code if a
binding registry is given (BIND).`,
		Example: `  pv audit contracts/ --bin bin
  pv audit contracts/ --bin bin --evidence evidence --evidence fresh`,
		Args: paths(1, 1, "FILE or DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(cmd); err != nil {
				return err
			}
			l, err := where.ledger()
			if err != nil {
				return err
			}
			c, err := load(args[0])
			if err != nil {
				return err
			}
			findings, err := auditAll(l, c, binding)
			if err != nil {
				return err
			}
			return flags.finish(cmd.OutOrStdout(), findings, c.files, c.skipped)
		},
	}
	flags.add(cmd)
	where.add(cmd)
	where.addKeys(cmd)
	cmd.Flags().StringVar(&binding, "binding", "", "binding registry: YAML that names the function of each equation")
	return cmd
}

// auditAll judges contracts by their references and by their evidence.
func auditAll(l *falsify.Ledger, c *corpus, binding string) ([]contract.Finding, error) {
	findings := c.findings
	var registry *contract.Bindings
	if binding != "" {
		var err error
		if registry, err = contract.LoadBindings(binding); err != nil {
			return nil, fmt.Errorf("--binding: %w", err)
		}
	}
	for _, one := range c.contracts {
		findings = append(findings, contract.Audit(one, registry)...)
		status, err := l.Audit(one)
		if err != nil {
			return nil, err
		}
		findings = append(findings, status...)
	}
	return findings, nil
}
