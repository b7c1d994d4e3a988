package falsify

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/apr-engine/apr/contract"
	"github.com/apr-engine/apr/evidence"
)

// machine describes where this process runs, without names that identify it.
func machine() evidence.Machine {
	m := evidence.Machine{OS: runtime.GOOS, Arch: runtime.GOARCH, Threads: runtime.NumCPU()}
	first := func(path, key string) string {
		data, err := os.ReadFile(path)
		if err != nil {
			return ""
		}
		for line := range bytes.Lines(data) {
			if name, value, ok := strings.Cut(string(line), ":"); ok && strings.TrimSpace(name) == key {
				return strings.TrimSpace(value)
			}
		}
		return ""
	}
	m.CPU = first("/proc/cpuinfo", "model name")
	if kb, _, ok := strings.Cut(first("/proc/meminfo", "MemTotal"), " "); ok {
		n, _ := strconv.ParseInt(kb, 10, 64)
		m.Memory = n << 10
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(release))
	}
	gpus, _ := filepath.Glob("/proc/driver/nvidia/gpus/*/information")
	for _, g := range gpus {
		m.Devices = append(m.Devices, first(g, "Model"))
	}
	if v := first("/proc/driver/nvidia/version", "NVRM version"); v != "" {
		m.Devices = append(m.Devices, "driver "+strings.Join(strings.Fields(v), " "))
	}
	return m
}

// deviceFacts lists what apr finds to compute on, for tests that require a GPU.
func (r *Runner) deviceFacts(ctx context.Context, t *contract.Test) (facts []string) {
	if !slices.ContainsFunc(t.Requires, func(q contract.Requirement) bool { return q.Kind == "gpu" }) {
		return nil
	}
	list, _ := r.devices(ctx)
	for _, d := range list {
		fact := d.Backend + ": " + d.Name
		if d.Driver != "" {
			fact += ", " + d.Driver
		}
		if d.Software {
			fact += ", software"
		}
		facts = append(facts, fact)
	}
	return facts
}

// git describes the repository, or passes on what is known of it: a copy of the
// files without git cannot say whether it has changes, but the hash of a test's
// sources does.
func (r *Runner) git() evidence.Git {
	if g := git(r.Inputs.Root); g.Commit != "" || r.Commit == "" {
		return g
	}
	return evidence.Git{Commit: r.Commit}
}

// git describes the repository. Evidence and statuses change after a run by
// nature and do not count as changes.
func git(root string) evidence.Git {
	run := func(args ...string) (string, bool) {
		out, err := exec.Command("git", append([]string{"-C", root}, args...)...).Output()
		return strings.TrimSpace(string(out)), err == nil
	}
	commit, ok := run("rev-parse", "HEAD")
	if !ok {
		return evidence.Git{}
	}
	changes, ok := run("status", "--porcelain", "--", ".", ":!evidence", ":!contracts")
	return evidence.Git{Commit: commit, Dirty: !ok || changes != ""}
}
