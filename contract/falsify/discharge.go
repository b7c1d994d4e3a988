package falsify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/apr-engine/apr/contract"
)

// Move is a status that changes.
type Move struct {
	ID       string          `json:"id"`
	From     contract.Status `json:"from"`
	To       contract.Status `json:"to"`
	Evidence string          `json:"evidence,omitempty"`
	Reason   string          `json:"reason"`
}

// Raised says whether the move claims more than before.
func (m Move) Raised() bool { return rank(m.To) > rank(m.From) }

// Discharge brings a contract's statuses, version, changelog and summary to
// what the ledger supports. It returns the contract as it would be written and
// what moved; nothing is written. Without a difference the contract is
// returned as it is.
func (l *Ledger) Discharge(c *contract.Contract, now time.Time) (*contract.Contract, []Move, error) {
	edit := c.Edit()
	var moves []Move
	var tally contract.Tally
	changed := false
	for i := range c.Falsifiers {
		f := &c.Falsifiers[i]
		s, err := l.Support(c, f)
		if err != nil {
			return nil, nil, err
		}
		tally.Count(s.Status, f.Test != nil)
		name := ""
		if s.Bundle != nil {
			name = s.Bundle.Name
		}
		// Prose without a claim stays as it is.
		if f.Test == nil && !f.Status.Set {
			continue
		}
		if f.Claim() != s.Status {
			moves = append(moves, Move{f.ID.Value, f.Claim(), s.Status, name, s.Reason})
		}
		if f.Claim() != s.Status || !f.Status.Set || evidenceName(f) != name {
			edit.SetStatus(f.ID.Value, s.Status, name)
			changed = true
		}
	}
	if len(moves) > 0 {
		version, err := contract.NextVersion(c.Metadata.Version.Value, level(moves))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", c.Path, err)
		}
		edit.SetVersion(version)
		edit.AppendChangelog(changeLine(version, now, moves))
	}
	if changed || len(summaryFindings(c)) > 0 || c.Summary == nil {
		edit.SetSummary(tally)
		changed = true
	}
	if !changed {
		return c, nil, nil
	}
	after, err := edit.Apply()
	if err != nil {
		return nil, nil, err
	}
	return after, moves, l.confirm(c, after)
}

// evidenceName is the bundle that a falsifier names. The word none stands where a
// bundle was named before and nothing supports the status now.
func evidenceName(f *contract.Falsifier) string {
	if f.Evidence.Value == "none" {
		return ""
	}
	return f.Evidence.Value
}

// confirm reads the result as a stranger would: every status as supported, the
// counts right.
func (l *Ledger) confirm(before, after *contract.Contract) error {
	bad := func(what string) error { return fmt.Errorf("%s: %w: %s", before.Path, contract.ErrEdit, what) }
	for i := range after.Falsifiers {
		f := &after.Falsifiers[i]
		s, err := l.Support(after, f)
		if err != nil {
			return err
		}
		if f.Test != nil && f.Claim() != s.Status {
			return bad(f.ID.Value + " would not get its status")
		}
	}
	if len(summaryFindings(after)) > 0 {
		return bad("verification_summary would be wrong")
	}
	return nil
}

// level is the part of the version that moves require: a status that is raised
// promises more, which is a minor change; one that falls corrects a claim.
func level(moves []Move) contract.Bump {
	for _, m := range moves {
		if m.Raised() {
			return contract.Minor
		}
	}
	return contract.Patch
}

// changeLine is the line of the changelog: the moves, grouped.
func changeLine(version string, now time.Time, moves []Move) string {
	var order []string
	groups := map[string][]string{}
	for _, m := range moves {
		key := fmt.Sprintf("%s → %s", m.From, m.To)
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], m.ID)
	}
	var parts []string
	for _, key := range order {
		parts = append(parts, key+": "+strings.Join(groups[key], " "))
	}
	return fmt.Sprintf("%s (%s): %s", version, now.UTC().Format(time.DateOnly), strings.Join(parts, "; "))
}

// Write replaces a contract's file, whole or not at all.
func Write(c *contract.Contract) error {
	info, err := os.Stat(c.Path)
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(c.Path), ".pv-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name())
	_, err = temp.Write(c.Source())
	if err = errors.Join(err, temp.Chmod(info.Mode().Perm()), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), c.Path)
}

// bundleExists looks for a bundle's folder.
func bundleExists(root, stem, id, name string) bool {
	if !filepath.IsLocal(name) {
		return false
	}
	info, err := os.Stat(filepath.Join(root, stem, id, name))
	return err == nil && info.IsDir()
}
