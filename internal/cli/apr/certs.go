package apr

import (
	"fmt"
	"strings"
	"time"

	"github.com/apr-engine/apr/parity"
	"github.com/spf13/cobra"
)

func newCerts() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "Show and remove remembered verdicts",
		Long: `Verdicts are remembered as certificates, passes and failures alike, so that a
backend is judged once for a model, a device, a driver, a build of apr and a
policy. A change of any of them makes another certificate necessary.

They are kept in the user's cache directory under apr/certs; the environment
variable APR_CERT_DIR names another place. Removing them costs time only.`,
		Example: `  apr parity certs list
  apr parity certs clear`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	wrap(cmd)
	for _, sub := range []*cobra.Command{newCertsList(), newCertsShow(), newCertsClear()} {
		wrap(sub)
		cmd.AddCommand(sub)
	}
	return cmd
}

// store opens the certificates for a command that is about them.
func store(cmd *cobra.Command) (*parity.Store, error) {
	dir, err := parity.DefaultDir()
	if err != nil {
		return nil, err
	}
	log := logger(cmd)
	return &parity.Store{Dir: dir, Warn: func(p string) { log.Info("certificates", "problem", p) }}, nil
}

func newCertsList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list [flags]", Short: "List certificates, newest first", Args: noArgs,
		Example: `  apr parity certs list --json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := store(cmd)
			if err != nil {
				return err
			}
			list, broken, err := s.List()
			if err != nil {
				return err
			}
			out := stdout(cmd)
			if asJSON {
				if list == nil {
					list = []parity.Certificate{}
				}
				return out.json(list)
			}
			rows := [][]string{{"ID", "CREATED", "MODEL", "BACKEND", "STATUS", "POSITIONS", "MIN COSINE", "REASON"}}
			for _, c := range list {
				rows = append(rows, []string{
					c.ID(), c.Created.Format(time.DateTime), c.File, c.Key.Backend, c.Status.String(),
					fmt.Sprint(c.Positions), fmt.Sprintf("%.6f", c.MinCosine), c.Reason,
				})
			}
			if broken > 0 {
				logger(cmd).Warn("certificates that cannot be read are ignored", "files", broken, "dir", s.Dir)
			}
			return out.table(rows, 5, 6)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a JSON list")
	return cmd
}

func newCertsShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Print a certificate as JSON",
		Long:    "Print the certificate whose id, as listed, begins with ID.",
		Example: `  apr parity certs show 3f2a`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return fmt.Errorf("want the ID of one certificate, see 'apr parity certs list'")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := store(cmd)
			if err != nil {
				return err
			}
			list, _, err := s.List()
			if err != nil {
				return err
			}
			var found []parity.Certificate
			for _, c := range list {
				if strings.HasPrefix(c.ID(), args[0]) {
					found = append(found, c)
				}
			}
			if len(found) != 1 {
				return usageError(cmd, "%s begins with %q", plural(len(found), "certificate"), args[0])
			}
			return stdout(cmd).json(found[0])
		},
	}
}

func newCertsClear() *cobra.Command {
	return &cobra.Command{
		Use: "clear", Short: "Remove all certificates", Args: noArgs,
		Example: `  apr parity certs clear`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := store(cmd)
			if err != nil {
				return err
			}
			removed, err := s.Clear()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(stdout(cmd), "removed %s\n", plural(removed, "certificate"))
			return err
		},
	}
}
