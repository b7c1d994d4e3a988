package pv

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/apr-engine/apr/contract"
	"github.com/apr-engine/apr/contract/falsify"
	"github.com/apr-engine/apr/evidence"
	"github.com/spf13/cobra"
)

// importFlags are the options of pv import.
type importFlags struct {
	ledgerFlags
	contracts string
	json      bool
}

func newImport() *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:     "import FOLDER",
		GroupID: groupProve,
		Short:   "Take over evidence that was recorded on another machine",
		Long: `Copy the evidence in FOLDER, which pv run --evidence FOLDER wrote on another
machine, into the evidence of this repository. Every bundle is verified first:
its hashes, its signature if --key is given, that it is about a falsifier of
the contracts here and about the present test, and that its verdict follows
from the output that it recorded. What does not hold is refused and named.

A bundle whose programs, sources or models differ from those here is taken
over and called stale: it supports less, as if they had changed since.

Exit code 1 means that something was refused, 2 that there was no evidence.`,
		Example: "  pv import from-gpu/evidence --bin bin",
		Args:    paths(1, 1, "FOLDER"),
		RunE:    func(cmd *cobra.Command, args []string) error { return f.run(cmd.OutOrStdout(), args[0]) },
	}
	f.add(cmd)
	f.addKeys(cmd)
	cmd.Flags().StringVar(&f.contracts, "contracts", "", "the contracts (default: contracts in the repository)")
	cmd.Flags().BoolVar(&f.json, "json", false, "print one JSON object")
	return cmd
}

// imported is what became of one bundle.
type imported struct {
	Bundle  string `json:"bundle"` // contract/falsifier/name
	Result  string `json:"result"` // imported, present, refused
	Verdict string `json:"verdict,omitempty"`
	Note    string `json:"note,omitempty"` // why it was refused, or what is stale
}

// Results of an import.
const (
	resultImported = "imported"
	resultPresent  = "present"
	resultRefused  = "refused"
)

func (f *importFlags) run(w io.Writer, from string) error {
	l, err := f.ledger()
	if err != nil {
		return err
	}
	if f.contracts == "" {
		f.contracts = filepath.Join(f.root, "contracts")
	}
	contracts, err := loadReadable(f.contracts)
	if err != nil {
		return err
	}
	dirs, err := bundleDirs(from)
	if err != nil {
		return err
	}
	var list []imported
	count := map[string]int{}
	for _, rel := range dirs {
		one := f.take(l, contracts, from, rel)
		count[one.Result]++
		list = append(list, one)
	}
	if f.json {
		err = writeJSON(w, struct {
			Counts  map[string]int `json:"counts"`
			Bundles []imported     `json:"bundles"`
		}{count, nonNil(list)})
	} else {
		for _, one := range list {
			fmt.Fprintf(w, "%-8s %s", one.Result, one.Bundle)
			if one.Verdict != "" {
				fmt.Fprintf(w, " (%s)", one.Verdict)
			}
			if one.Note != "" {
				fmt.Fprintf(w, ": %s", one.Note)
			}
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%d imported, %d present already, %d refused\n", count[resultImported], count[resultPresent], count[resultRefused])
	}
	switch {
	case err != nil:
		return err
	case len(list) == 0:
		return fmt.Errorf("%s holds no evidence: want a folder that pv run --evidence wrote", from)
	case count[resultRefused] > 0:
		return errFound
	}
	return nil
}

// bundleDirs lists <contract>/<falsifier>/<bundle> below a folder, in order.
func bundleDirs(from string) ([]string, error) {
	if info, err := os.Stat(from); err != nil || !info.IsDir() {
		return nil, fmt.Errorf("%s: no such folder", from)
	}
	found, err := filepath.Glob(filepath.Join(escapeGlob(from), "*", "*", "*"))
	var dirs []string
	for _, path := range found {
		rel, relErr := filepath.Rel(from, path)
		if info, statErr := os.Stat(path); statErr != nil || !info.IsDir() || relErr != nil {
			continue
		}
		dirs = append(dirs, filepath.ToSlash(rel))
	}
	return dirs, err
}

// escapeGlob makes a path match itself.
func escapeGlob(path string) string {
	out := ""
	for _, r := range path {
		if r == '*' || r == '?' || r == '[' || r == '\\' {
			out += "\\"
		}
		out += string(r)
	}
	return out
}

// take verifies one bundle and copies it.
func (f *importFlags) take(l *falsify.Ledger, contracts []*contract.Contract, from, rel string) imported {
	one := imported{Bundle: rel, Result: resultRefused}
	b, err := evidence.Open(filepath.Join(from, filepath.FromSlash(rel)))
	if err != nil {
		one.Note = err.Error()
		return one
	}
	one.Verdict = b.Record.Verdict
	c, fa := find(contracts, b.Record.Contract.Name, b.Record.Falsifier)
	if fa == nil {
		one.Note = "no contract here has this falsifier"
		return one
	}
	stale, err := l.Vet(c, fa, b)
	if err != nil {
		one.Note = err.Error()
		return one
	}
	if stale != "" {
		one.Note = "stale: " + stale
	}
	switch _, err := evidence.Import(f.ledgers[0], b); {
	case errors.Is(err, evidence.ErrExists):
		one.Result = resultPresent
	case err != nil:
		one.Note = err.Error()
	default:
		one.Result = resultImported
	}
	return one
}

// find returns a falsifier and its contract.
func find(contracts []*contract.Contract, stem, id string) (*contract.Contract, *contract.Falsifier) {
	for _, c := range contracts {
		for i := range c.Falsifiers {
			if c.Stem == stem && c.Falsifiers[i].ID.Value == id {
				return c, &c.Falsifiers[i]
			}
		}
	}
	return nil, nil
}
