// Package falsify carries out the falsification tests of contracts, judges what
// they did, and derives from recorded evidence how far each claim is supported.
package falsify

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/apr-engine/apr/contract"
	"github.com/apr-engine/apr/evidence"
)

// defaultTimeout is for steps that give none. A test that hangs must end, and a
// model may take a while to load.
const defaultTimeout = 5 * time.Minute

// ErrNoTest says that a falsifier has no test that can be carried out.
var ErrNoTest = errors.New("no executable test")

// Runner carries out tests.
type Runner struct {
	Inputs   *Inputs
	Evidence string             // the ledger's folder; nothing is recorded if empty
	Key      ed25519.PrivateKey // signs bundles if not nil
	Tool     string             // how evidence names the program that wrote it
	Now      func() time.Time
	// Commit is the repository's commit, for machines without git.
	Commit string

	probed sync.Once
	found  []device
	asked  bool
}

// Run carries out one falsifier's test and records it. The error is for what
// keeps a run from being recorded; a test that fails is a record with a verdict.
// dir is the bundle's folder, empty if nothing is recorded.
func (r *Runner) Run(ctx context.Context, c *contract.Contract, f *contract.Falsifier) (rec *evidence.Record, dir string, err error) {
	if f.Test == nil {
		return nil, "", fmt.Errorf("%s of %s: %w", f.ID, c.Stem, ErrNoTest)
	}
	rec = &evidence.Record{
		Contract:    evidence.Contract{Name: c.Stem, Version: c.Metadata.Version.Value, SHA256: evidence.Hash(c.Source())},
		Falsifier:   f.ID.Value,
		Definition:  c.Definition(f),
		Level:       f.Test.Level.Value,
		Started:     r.Now(),
		Machine:     machine(),
		Git:         r.git(),
		Tool:        r.Tool,
		Steps:       []evidence.Step{},
		Predictions: []evidence.Prediction{},
		Programs:    []evidence.Input{},
		Models:      []evidence.Input{},
	}
	rec.Machine.Devices = append(rec.Machine.Devices, r.deviceFacts(ctx, f.Test)...)
	outputs := map[string][]byte{}
	if missing := r.missing(ctx, f.Test); len(missing) > 0 {
		rec.Verdict, rec.Missing = evidence.Blocked, missing
		rec.Reason = "required but missing"
	} else if err := r.carryOut(ctx, c, f, rec, outputs); err != nil {
		rec.Verdict, rec.Reason = evidence.Broken, err.Error()
	}
	if err := ctx.Err(); err != nil {
		return nil, "", err // interrupted: says nothing about the claim
	}
	rec.Ended = r.Now()
	if r.Evidence == "" {
		return rec, "", nil
	}
	dir, err = evidence.Append(r.Evidence, *rec, outputs)
	if err == nil && r.Key != nil {
		var b *evidence.Bundle
		if b, err = evidence.Open(dir); err == nil {
			err = evidence.Sign(b, r.Key)
		}
	}
	return rec, dir, err
}

// carryOut runs the steps and judges the predictions. An error means that the
// test could not be carried out as written.
func (r *Runner) carryOut(ctx context.Context, c *contract.Contract, f *contract.Falsifier, rec *evidence.Record, outputs map[string][]byte) error {
	work, err := os.MkdirTemp("", "pv-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	x := experiment{Runner: r, work: work, rec: rec, outputs: outputs}
	if err := x.inputs(f.Test); err != nil {
		return err
	}
	for i := range f.Test.Steps {
		if err := x.step(ctx, i, &f.Test.Steps[i], f.Test.Handled); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	judged, handled, err := Judge(f, rec.Steps, func(name string) []byte { return outputs[name] })
	if err != nil {
		return err
	}
	rec.Predictions, rec.Handled = judged, handled
	rec.Verdict = verdict(judged)
	return nil
}

// verdict is Pass if every prediction matched and there was one.
func verdict(ps []evidence.Prediction) string {
	n := 0
	for _, p := range ps {
		if p.Step == 0 {
			continue // what happens after a failure is a fact of its own
		}
		if !p.Match {
			return evidence.Fail
		}
		n++
	}
	if n == 0 {
		return evidence.Broken
	}
	return evidence.Pass
}

// Judge compares predictions with recorded steps. output gives a stream by its
// file name. It is used on a fresh run and again whenever evidence is read, so
// that a table of predictions that was edited cannot stand. handled is nil if
// all predictions hold or the test does not say what happens otherwise.
func Judge(f *contract.Falsifier, steps []evidence.Step, output func(file string) []byte) (ps []evidence.Prediction, handled *bool, err error) {
	if f.Test == nil || len(steps) != len(f.Test.Steps) {
		return nil, nil, errors.New("the run has other steps than the test")
	}
	earlier := map[string]contract.Observation{}
	var last contract.Observation
	ok := true
	for i, s := range f.Test.Steps {
		o := observe(steps[i], output)
		for _, c := range s.Expect {
			res := c.Eval(o, earlier)
			ok = ok && res.Match
			ps = append(ps, evidence.Prediction{Step: i + 1, Predicted: c.String(), Observed: res.Observed, Match: res.Match})
		}
		if s.Name.Set {
			earlier[s.Name.Value] = o
		}
		last = o
	}
	if ok || len(f.Test.Handled) == 0 {
		return ps, nil, nil
	}
	all := true
	for _, c := range f.Test.Handled {
		res := c.Eval(last, earlier)
		all = all && res.Match
		ps = append(ps, evidence.Prediction{Predicted: c.String(), Observed: res.Observed, Match: res.Match})
	}
	return ps, &all, nil
}

// observe turns a recorded step into what expectations look at.
func observe(s evidence.Step, output func(string) []byte) contract.Observation {
	o := contract.Observation{Exit: s.Exit, Seconds: s.Seconds, Stdout: output(s.Stdout.File), Stderr: output(s.Stderr.File),
		Files: map[string]contract.FileFact{}}
	for name, f := range s.Files {
		o.Files[name] = contract.FileFact(f)
	}
	return o
}

// stream names the file of a step's output.
func stream(step int, name string) string { return strconv.Itoa(step+1) + "." + name }

// fileFact looks at a file that a prediction asks for.
func fileFact(work, path string) evidence.FileFact {
	if !filepath.IsLocal(path) {
		return evidence.FileFact{}
	}
	sum, size, err := sumFile(filepath.Join(work, path))
	if err != nil {
		return evidence.FileFact{}
	}
	return evidence.FileFact{Exists: true, Bytes: size, SHA256: sum}
}
