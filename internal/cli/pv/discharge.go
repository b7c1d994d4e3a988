package pv

import (
	"fmt"
	"io"
	"time"

	"github.com/apr-engine/apr/contract/falsify"
	"github.com/spf13/cobra"
)

func newDischarge() *cobra.Command {
	var where ledgerFlags
	var check, asJSON bool
	cmd := &cobra.Command{
		Use:     "discharge FILE|DIR",
		GroupID: groupProve,
		Short:   "Bring statuses to what evidence supports",
		Long: `Raise or lower every falsifier's status to what the evidence supports, bump the
version, append a line to the changelog and update the counts. Only these bytes
of the file change. With --check nothing is written, and the exit code is 1 if
something would be.`,
		Example: `  pv discharge contracts/apr-cli-commands-v1.yaml --bin bin
  pv discharge contracts/ --bin bin --check`,
		Args: paths(1, 1, "FILE or DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := where.ledger()
			if err != nil {
				return err
			}
			return discharge(cmd.OutOrStdout(), l, args[0], check, asJSON)
		},
	}
	where.add(cmd)
	where.addKeys(cmd)
	cmd.Flags().BoolVar(&check, "check", false, "write nothing; exit 1 if a file would change")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

// dischargeView is what happened to one contract.
type dischargeView struct {
	Contract string         `json:"contract"`
	Changed  bool           `json:"changed"`
	Version  string         `json:"version"`
	Moves    []falsify.Move `json:"moves"`
	Tally    string         `json:"tally"`
}

// discharge works on all contracts of a path. A contract that cannot be brought to
// its evidence ends the command before the next is touched.
func discharge(w io.Writer, l *falsify.Ledger, path string, check, asJSON bool) error {
	contracts, err := loadReadable(path)
	if err != nil {
		return err
	}
	var views []dischargeView
	differs := false
	for _, c := range contracts {
		after, moves, err := l.Discharge(c, time.Now())
		if err != nil {
			return err
		}
		changed := after != c
		differs = differs || changed
		if changed && !check {
			if err := falsify.Write(after); err != nil {
				return err
			}
		}
		views = append(views, dischargeView{c.Stem, changed, after.Metadata.Version.Value, nonNil(moves), after.Tally().String()})
	}
	if asJSON {
		err = writeJSON(w, struct {
			Contracts []dischargeView `json:"contracts"`
		}{views})
	} else {
		printDischarge(w, views, check)
	}
	if err == nil && check && differs {
		return errFound
	}
	return err
}

func printDischarge(w io.Writer, views []dischargeView, check bool) {
	verb := "written"
	if check {
		verb = "would change"
	}
	for _, v := range views {
		state := "unchanged"
		if v.Changed {
			state = verb
		}
		fmt.Fprintf(w, "%s %s: %s, %s\n", v.Contract, v.Version, state, v.Tally)
		for _, m := range v.Moves {
			fmt.Fprintf(w, "  %s: %s → %s (%s)\n", m.ID, m.From, m.To, m.Reason)
		}
	}
}
