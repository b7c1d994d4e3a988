// Package contracts writes contracts with their evidence as one page of HTML:
// no scripts, no other files, readable on a phone and in print.
package contracts

import (
	_ "embed"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/apr-engine/apr/contract"
	"github.com/apr-engine/apr/contract/falsify"
	"github.com/apr-engine/apr/evidence"
)

// Page is what is shown.
type Page struct {
	Title     string
	Generated time.Time
	Contracts []Contract
}

// Contract is one contract with what its ledger supports.
type Contract struct {
	Name, Version, Description, Kind string
	References                       []string
	Equations                        []Equation
	Falsifiers                       []Falsifier
	Findings                         []contract.Finding
	Changelog                        []string
	Tally                            contract.Tally // of what evidence supports
}

// Equation is a name and a formula.
type Equation struct{ Name, Formula string }

// Falsifier is a claim and what is known about it.
type Falsifier struct {
	ID, Prediction, IfFails string
	Claim, Supported        contract.Status
	Reason                  string
	Level                   string
	Commands                []string
	Runs                    []Run // newest first
}

// Run is one recorded bundle.
type Run struct {
	Name     string
	Link     string // relative to the page
	Verdict  string
	When     time.Time
	Record   evidence.Record
	Problem  string // why it cannot be trusted
	IsBasis  bool   // the status rests on it
	Programs string
}

// New collects a contract from the ledger. link makes the address of a bundle's
// folder.
func New(c *contract.Contract, l *falsify.Ledger, link func(dir string) string) (Contract, error) {
	kind, _ := c.Kind()
	out := Contract{Name: c.Stem, Version: c.Metadata.Version.Value, Description: c.Metadata.Description.Value, Kind: kind}
	for _, r := range c.Metadata.References {
		out.References = append(out.References, r.Value)
	}
	for _, eq := range c.Equations {
		out.Equations = append(out.Equations, Equation{eq.Name, eq.Formula.Value})
	}
	for i := len(c.Metadata.Changelog) - 1; i >= 0; i-- {
		out.Changelog = append(out.Changelog, c.Metadata.Changelog[i].Value)
	}
	findings, err := l.Audit(c)
	if err != nil {
		return out, err
	}
	out.Findings = append(contract.Validate(c, contract.Current), findings...)
	for i := range c.Falsifiers {
		f := &c.Falsifiers[i]
		s, err := l.Support(c, f)
		if err != nil {
			return out, err
		}
		out.Tally.Count(s.Status, f.Test != nil)
		view := Falsifier{ID: f.ID.Value, Prediction: f.Prediction.Value, IfFails: f.IfFails.Value,
			Claim: f.Claim(), Supported: s.Status, Reason: s.Reason}
		if f.Test != nil {
			view.Level = f.Test.Level.Value
			for _, step := range f.Test.Steps {
				view.Commands = append(view.Commands, command(step))
			}
		}
		if view.Runs, err = runs(c, f, l, s, link); err != nil {
			return out, err
		}
		out.Falsifiers = append(out.Falsifiers, view)
	}
	return out, nil
}

// runs lists every bundle of a falsifier, also those that count for nothing: a page
// that hides failures would be a claim and no report.
func runs(c *contract.Contract, f *contract.Falsifier, l *falsify.Ledger, s falsify.Support, link func(string) string) ([]Run, error) {
	problem := map[string]string{}
	for _, bad := range s.Bad {
		problem[bad.Dir] = bad.Err.Error()
	}
	for _, st := range s.Stale {
		problem[st.Bundle.Dir] = "stale: " + st.Why
	}
	var out []Run
	for _, root := range l.Roots {
		entries, err := evidence.List(root, c.Stem, f.ID.Value)
		if err != nil {
			return nil, err
		}
		for i := len(entries) - 1; i >= 0; i-- {
			e := entries[i]
			run := Run{Name: e.Name, Link: link(e.Dir), Problem: problem[e.Dir], IsBasis: s.Bundle != nil && s.Bundle.Dir == e.Dir}
			if e.Bundle != nil {
				run.Record, run.Verdict, run.When = e.Bundle.Record, e.Bundle.Record.Verdict, e.Bundle.Record.Ended
				for _, p := range run.Record.Programs {
					run.Programs += p.Name + " " + p.SHA256[:min(12, len(p.SHA256))] + " "
				}
			} else {
				run.Verdict = "unreadable"
			}
			out = append(out, run)
		}
	}
	return out, nil
}

// command shows a step as one would type it.
func command(s contract.Step) string {
	var words []string
	for _, v := range s.Env {
		words = append(words, v.Name+"="+shellQuote(v.Value.Value))
	}
	if s.Shell.Set {
		return strings.Join(append(words, s.Shell.Value), " ")
	}
	for _, a := range s.Run {
		words = append(words, shellQuote(a.Value))
	}
	return strings.Join(words, " ")
}

// shellQuote writes an argument so that it can be copied into a shell.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("_-./:=,+${}", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

//go:embed page.html
var pageHTML string

// page escapes everything that comes from contracts and outputs.
var page = template.Must(template.New("page").Funcs(template.FuncMap{
	// A status in the class of its colour.
	"class": func(s contract.Status) string { return strings.ToLower(string(s)) },
	"all": func(cs []Contract) contract.Tally {
		var t contract.Tally
		for _, c := range cs {
			t.Add(c.Tally)
		}
		return t
	},
	"percent": func(n, of int) int {
		if of == 0 {
			return 0
		}
		return 100 * n / of
	},
	"when": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
}).Parse(pageHTML))

// Write writes the page.
func Write(w io.Writer, p Page) error { return page.Execute(w, p) }
