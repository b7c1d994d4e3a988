package pv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/apr-engine/apr/contract"
	"github.com/apr-engine/apr/contract/falsify"
	"github.com/apr-engine/apr/evidence"
	"github.com/spf13/cobra"
)

// runFlags are the options of pv run.
type runFlags struct {
	ledgerFlags
	ids      []string
	requires []string
	jobs     int
	sign     string
	commit   string
	dry      bool
	json     bool
}

func newRun() *cobra.Command {
	var f runFlags
	cmd := &cobra.Command{
		Use:     "run FILE|DIR",
		GroupID: groupProve,
		Short:   "Carry out falsification tests and record what they show",
		Long: `Carry out the falsification tests of contracts. Each run is recorded below the
evidence folder: the commands, their full output, the machine, the hashes of
programs, models and contract, and a table of predictions and observations.

A test whose requirements are not met is recorded as blocked, with what is
missing. Exit code 1 means that a prediction was wrong or a test could not be
carried out, 2 that nothing was measured.

Commands run in a scratch folder without the variables that change how apr
computes and with an empty user cache.`,
		Example: `  pv run contracts/ --bin bin
  pv run contracts/apr-cli-commands-v1.yaml --id COMMANDS-002
  pv run contracts/ --requires gpu:cuda --sign key.pem`,
		Args: paths(1, 1, "FILE or DIR"),
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	f.add(cmd)
	cmd.Flags().StringArrayVar(&f.ids, "id", nil, "only this falsifier; may be given several times")
	cmd.Flags().StringArrayVar(&f.requires, "requires", nil, "only tests that require this, as in gpu:cuda; none for those that require no GPU")
	cmd.Flags().IntVarP(&f.jobs, "jobs", "j", 1, "tests at a time; more than one disturbs tests of speed")
	cmd.Flags().StringVar(&f.sign, "sign", "", "sign evidence with this private key (Ed25519, PEM)")
	cmd.Flags().StringVar(&f.commit, "commit", "", "the commit that evidence names where the repository is a copy without git")
	cmd.Flags().BoolVar(&f.dry, "dry-run", false, "record nothing")
	cmd.Flags().BoolVar(&f.json, "json", false, "print one JSON object")
	return cmd
}

// commitForm is a full hash, SHA-1 or SHA-256.
var commitForm = regexp.MustCompile(`^([0-9a-f]{40}|[0-9a-f]{64})$`)

// job is one falsifier to run and what came of it.
type job struct {
	c   *contract.Contract
	f   *contract.Falsifier
	rec *evidence.Record
	dir string
	err error
}

// run carries out what the flags choose and reports each test as it ends.
func (f *runFlags) run(cmd *cobra.Command, path string) error {
	if f.jobs < 1 || f.jobs > 256 {
		return usageError(cmd, "--jobs %d: want 1 to 256", f.jobs)
	}
	if f.commit != "" && !commitForm.MatchString(f.commit) {
		return usageError(cmd, "--commit %s: want the full hash of a commit", f.commit)
	}
	if err := f.fill(); err != nil {
		return err
	}
	runner := &falsify.Runner{Inputs: f.inputs(), Evidence: f.ledgers[0], Tool: toolName(), Now: time.Now, Commit: f.commit}
	if f.dry {
		runner.Evidence = ""
	}
	if f.sign != "" {
		key, err := evidence.ReadPrivateKey(f.sign)
		if err != nil {
			return fmt.Errorf("--sign: %w", err)
		}
		runner.Key = key
	}
	contracts, err := loadReadable(path)
	if err != nil {
		return err
	}
	jobs, prose, err := f.choose(contracts)
	if err != nil {
		return err
	}
	report := func(j *job) {
		if !f.json {
			printJob(cmd.OutOrStdout(), j)
		}
	}
	f.carryOut(cmd.Context(), runner, jobs, report)
	return f.finish(cmd.OutOrStdout(), jobs, prose)
}

// choose picks the falsifiers to run. A contract with errors is not run: its
// tests may not be what its author meant.
func (f *runFlags) choose(contracts []*contract.Contract) (jobs []*job, prose int, err error) {
	for _, c := range contracts {
		for _, finding := range contract.Validate(c, contract.Current) {
			if finding.Severity == contract.Error {
				return nil, 0, fmt.Errorf("%s: %s: %s; nothing was run", finding.Place(), finding.Rule, finding.Message)
			}
		}
		for i := range c.Falsifiers {
			fa := &c.Falsifiers[i]
			switch {
			case len(f.ids) > 0 && !slices.Contains(f.ids, fa.ID.Value):
			case fa.Test == nil:
				prose++
			case f.wanted(fa.Test):
				jobs = append(jobs, &job{c: c, f: fa})
			}
		}
	}
	if len(jobs) == 0 {
		return nil, prose, errors.New("no falsifier matches, or none has an executable test: nothing was measured")
	}
	return jobs, prose, nil
}

// wanted says whether a test requires all that --requires asks for.
func (f *runFlags) wanted(t *contract.Test) bool {
	for _, want := range f.requires {
		has := slices.ContainsFunc(t.Requires, func(r contract.Requirement) bool {
			return r.String() == want || want == "none" && r.Kind == "gpu"
		})
		if has == (want == "none") {
			return false
		}
	}
	return true
}

// carryOut runs tests, some at a time. An interrupt ends the commands and records
// nothing for them.
func (f *runFlags) carryOut(ctx context.Context, r *falsify.Runner, jobs []*job, report func(*job)) {
	var mu sync.Mutex
	var workers sync.WaitGroup
	next := make(chan *job)
	for range min(f.jobs, len(jobs)) {
		workers.Go(func() {
			for j := range next {
				j.rec, j.dir, j.err = r.Run(ctx, j.c, j.f)
				mu.Lock()
				report(j)
				mu.Unlock()
			}
		})
	}
	for _, j := range jobs {
		next <- j
	}
	close(next)
	workers.Wait()
}

// printJob shows a verdict, and of a failure every prediction that was wrong.
func printJob(w io.Writer, j *job) {
	if j.err != nil {
		fmt.Fprintf(w, "%-8s %s %s: %v\n", "error", j.c.Stem, j.f.ID, j.err)
		return
	}
	fmt.Fprintf(w, "%-8s %s %s\n", j.rec.Verdict, j.c.Stem, j.f.ID)
	for _, m := range j.rec.Missing {
		fmt.Fprintf(w, "         missing %s\n", m)
	}
	if j.rec.Verdict == evidence.Broken {
		fmt.Fprintf(w, "         %s\n", j.rec.Reason)
	}
	for _, p := range j.rec.Predictions {
		if !p.Match && p.Step > 0 {
			fmt.Fprintf(w, "         step %d: %s: observed %s\n", p.Step, p.Predicted, p.Observed)
		}
	}
	if j.rec.Verdict == evidence.Fail {
		fmt.Fprintf(w, "         if it fails: %s\n", j.f.IfFails)
	}
}

// finish sums up. Runs that could not be recorded and tests that could not be
// carried out count as failures; if everything was blocked nothing was measured.
func (f *runFlags) finish(w io.Writer, jobs []*job, prose int) error {
	count := map[string]int{}
	var records []*evidence.Record
	for _, j := range jobs {
		if j.err != nil {
			count["error"]++
			continue
		}
		count[j.rec.Verdict]++
		records = append(records, j.rec)
	}
	if f.json {
		if err := writeJSON(w, struct {
			Counts  map[string]int     `json:"counts"`
			Prose   int                `json:"not_executable"`
			Records []*evidence.Record `json:"records"`
		}{count, prose, nonNil(records)}); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(w, "%d of %d passed, %d failed, %d blocked, %d broken", count[evidence.Pass], len(jobs), count[evidence.Fail], count[evidence.Blocked], count[evidence.Broken]+count["error"])
		if prose > 0 {
			fmt.Fprintf(w, "; %d more are not executable", prose)
		}
		fmt.Fprintln(w)
	}
	switch {
	case count[evidence.Fail]+count[evidence.Broken]+count["error"] > 0:
		return errFound
	case count[evidence.Pass] == 0:
		return errors.New("every test was blocked: nothing was measured")
	}
	return nil
}
