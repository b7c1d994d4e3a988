package pv_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/apr-engine/apr/contract"
	"github.com/apr-engine/apr/contract/falsify"
	"github.com/apr-engine/apr/evidence"
)

func ourContracts(t *testing.T) []*contract.Contract {
	t.Helper()
	files, _, err := contract.Files(filepath.Join(repository, "contracts"))
	if err != nil {
		t.Fatal(err)
	}
	var cs []*contract.Contract
	for _, path := range files {
		c, err := contract.Load(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range contract.Validate(c, contract.Current) {
			t.Error(f)
		}
		cs = append(cs, c)
	}
	return cs
}

// runsApr says whether apr alone decides a test.
func runsApr(test *contract.Test) bool {
	return test != nil && !slices.ContainsFunc(test.Steps, func(s contract.Step) bool {
		return len(s.Run) > 0 && s.Run[0].Value != "apr"
	})
}

// TestContractsSeeAnIdleProgram carries out every test of apr with a program that
// answers nothing and succeeds. A test that passes then shows nothing.
func TestContractsSeeAnIdleProgram(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("the program is a shell script")
	}
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "apr"), []byte("#!/bin/sh\nexit 0\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	runner := falsify.Runner{Tool: "test", Now: time.Now,
		Inputs: &falsify.Inputs{Root: repository, Bin: []string{bin}, ModelDir: filepath.Join(repository, "models")}}
	seen := 0
	for _, c := range ourContracts(t) {
		for i := range c.Falsifiers {
			f := &c.Falsifiers[i]
			if !runsApr(f.Test) {
				continue
			}
			rec, _, err := runner.Run(context.Background(), c, f)
			if err != nil {
				t.Fatal(err)
			}
			if rec.Verdict == evidence.Pass {
				t.Errorf("%s of %s passes with a program that does nothing", f.ID, c.Stem)
			}
			if rec.Verdict == evidence.Fail {
				seen++
			}
		}
	}
	if seen < 10 {
		t.Errorf("only %d tests were carried out", seen)
	}
}

// TestSourcesOfApr: a test whose commands are apr's names the sources that apr is
// built from, so that a change of any of them makes its evidence stale, and a new
// build of unchanged sources does not.
func TestSourcesOfApr(t *testing.T) {
	for _, c := range ourContracts(t) {
		for _, f := range c.Falsifiers {
			if !runsApr(f.Test) {
				continue
			}
			whole := slices.ContainsFunc(f.Test.Sources, func(s contract.Text) bool { return s.Value == "go:cmd/apr" })
			// The commands and their pages alone decide about the list of commands.
			listing := slices.ContainsFunc(f.Test.Sources, func(s contract.Text) bool { return s.Value == "internal/cli/apr" })
			if !whole && !listing {
				t.Errorf("%s of %s runs apr and does not name its sources", f.ID, c.Stem)
			}
		}
	}
}
