package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/apr-engine/apr/parity/fault"
)

// gpuScore is the score of a backend on one machine: the standard policy alone. It
// is what "gatescore gpu" writes and "gatescore page" makes a page of.
type gpuScore struct {
	Backend    string    `json:"backend"`
	Device     string    `json:"device"`
	Driver     string    `json:"driver"`
	Commit     string    `json:"commit,omitempty"`
	Processors int       `json:"processors"`
	Date       time.Time `json:"date"`
	Seconds    float64   `json:"seconds"`
	// Faults are the names of the faults that were injected, of Catalogue that there
	// were: all unless the run was restricted.
	Faults    []string      `json:"faults"`
	Catalogue int           `json:"catalogue"`
	Models    []*modelScore `json:"models"`
}

// modelScore is what the gate did on one model.
type modelScore struct {
	Name string `json:"name"`
	// Marks has a sign for each of gpuScore.Faults, a space where time was up.
	Marks string     `json:"marks"`
	Sound []soundSet `json:"sound"`
	// SoundWanted is how many sound runs there should be at least.
	SoundWanted int `json:"sound_wanted"`
	// Broken lists why sound runs were rejected, Failed what could not be measured.
	Broken  []string `json:"broken,omitempty"`
	Failed  string   `json:"failed,omitempty"`
	Seconds float64  `json:"seconds"`
	// Slowest are the faults that took longest.
	Slowest string `json:"slowest,omitempty"`
}

// gpuOptions are the flags of "gatescore gpu".
type gpuOptions struct {
	backend, out, models, only, faults, commit string
	sound, parallel, threads                   int
	limit                                      time.Duration
}

// gpuCommand measures a GPU backend, or makes a page of what was measured:
//
//	gatescore gpu -backend cuda -o cuda.json
//	gatescore page -o page.md cuda.json wgpu.json
func gpuCommand(ctx context.Context, root, name string, args []string) error {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	var o gpuOptions
	flags.StringVar(&o.out, "o", "", "file to write")
	if name == "gpu" {
		flags.StringVar(&o.backend, "backend", "cuda", "backend to judge")
		flags.StringVar(&o.models, "models", "", "folder of further models (*.gguf)")
		flags.StringVar(&o.only, "only", "", "only models whose name contains one of these texts, separated by commas")
		flags.StringVar(&o.faults, "faults", "", "only these faults, separated by commas; none for no fault")
		flags.StringVar(&o.commit, "commit", "", "commit that the program was built from, if it does not know")
		flags.IntVar(&o.sound, "sound", 1000, "sound runs of all models together, at least")
		flags.IntVar(&o.parallel, "parallel", 4, "models that are judged at the same time")
		flags.IntVar(&o.threads, "threads", 0, "CPU threads of the reference of each; 0 for a quarter of its share of the processors")
		flags.DurationVar(&o.limit, "limit", 0, "time after which nothing new is begun; 0 for none")
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.out == "" {
		return fmt.Errorf("%s needs -o FILE", name)
	}
	if name == "page" {
		return writeGPUPage(o.out, flags.Args())
	}
	if o.sound < 0 || o.parallel < 1 {
		return fmt.Errorf("-sound is %d and -parallel %d, want at least 0 and 1", o.sound, o.parallel)
	}
	return measureGPU(ctx, root, o)
}

// chosenFaults are those of -faults.
func (o gpuOptions) chosenFaults() ([]fault.Fault, error) {
	switch o.faults {
	case "":
		return fault.All(), nil
	case "none":
		return nil, nil
	}
	var list []fault.Fault
	for _, name := range strings.Split(o.faults, ",") {
		f, err := fault.Lookup(name)
		if err != nil {
			return nil, err
		}
		list = append(list, f)
	}
	return list, nil
}

// subjects opens the models to judge: the largest first, so that none is left for
// last that takes longer than all others.
func (o gpuOptions) subjects(root, dir string) ([]subject, error) {
	all, err := open(root, dir, o.wants)
	if err != nil {
		return nil, err
	}
	more, err := filepath.Glob(filepath.Join(o.models, "*.gguf"))
	if err != nil || o.models == "" {
		more = nil
	}
	for _, path := range more {
		name := strings.TrimSuffix(filepath.Base(path), ".gguf")
		if !o.wants(name) {
			continue
		}
		s, err := openSubject(name, path, root)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("no model's name contains one of %q", o.only)
	}
	slices.SortStableFunc(all, func(a, b subject) int { return cmp.Compare(b.model.File.Size(), a.model.File.Size()) })
	return all, nil
}

func (o gpuOptions) wants(name string) bool {
	return slices.ContainsFunc(strings.Split(o.only, ","), func(part string) bool { return strings.Contains(name, part) })
}

// measureGPU judges all models in this process, so that the driver, its kernels and
// the sound executors are made once, and writes the score after each of them.
func measureGPU(ctx context.Context, root string, o gpuOptions) error {
	start := time.Now()
	candidate = o.backend
	faults, err := o.chosenFaults()
	if err != nil {
		return err
	}
	d, err := device(candidate)
	if err != nil {
		return err
	}
	if built, ok := debug.ReadBuildInfo(); ok && o.commit == "" {
		for _, v := range built.Settings {
			if v.Key == "vcs.revision" {
				o.commit = v.Value
			}
		}
	}
	s := gpuScore{
		Backend: candidate, Device: d.Name(), Driver: d.Identity(), Commit: o.commit, Processors: runtime.NumCPU(),
		Date: start.UTC().Truncate(time.Second), Catalogue: len(fault.All()),
	}
	if err := d.Close(); err != nil {
		return err
	}
	for _, f := range faults {
		s.Faults = append(s.Faults, f.Name)
	}
	dir, err := os.MkdirTemp("", "gatescore")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	subjects, err := o.subjects(root, dir)
	if err != nil {
		return err
	}
	if o.limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, start.Add(o.limit))
		defer cancel()
	}
	if o.threads == 0 {
		// Workers wait for each other at every operation, so that one that finds no
		// processor holds all up: with several models at a time each has one thread.
		o.threads = max(1, runtime.NumCPU()/(4*o.parallel))
	}
	q := newQueue(ctx, faults, o.threads)
	for i, subject := range subjects {
		m := &modelScore{Name: subject.name, SoundWanted: share(subjects, i, o.sound), Marks: strings.Repeat(" ", len(faults))}
		s.Models = append(s.Models, m)
		q.add(subject, m, i)
	}
	var failures []error
	q.done = func(m *modelScore, what string, took time.Duration) {
		s.Seconds = time.Since(start).Seconds()
		fmt.Fprintf(os.Stderr, "%6.1f s  %-45s %-6s %5.1f s  %s  %d sound, %d rejected; slowest %s%s\n", s.Seconds, m.Name, what, took.Seconds(), m.Marks,
			m.runs(), len(m.Broken), m.Slowest, failure(m))
		failures = append(failures, s.write(o.out))
	}
	q.run(o.parallel)
	if left := s.missing(); len(left) > 0 {
		failures = append(failures, fmt.Errorf("not measured: %s", strings.Join(left, "; ")))
	}
	return errors.Join(failures...)
}

// share is how many of n sound runs a model gets: a large vocabulary takes far longer
// to compare, and gets a quarter of what others get.
func share(subjects []subject, i, n int) int {
	const usual, large = 4, 1
	weight := func(s subject) int {
		if s.model.Program.Vocab > largeVocab {
			return large
		}
		return usual
	}
	total := 0
	for _, s := range subjects {
		total += weight(s)
	}
	return (n*weight(subjects[i]) + total - 1) / total
}

func failure(m *modelScore) string {
	if m.Failed == "" {
		return ""
	}
	return fmt.Sprintf(", %s: %s", m.Name, m.Failed)
}

// write replaces the file by the score so far.
func (s gpuScore) write(path string) error {
	data, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

func (m *modelScore) runs() int {
	n := 0
	for _, set := range m.Sound {
		n += set.Runs
	}
	return n
}

// gpuNames are the measurements of gpuCommand.
func gpuNames(args []string) bool { return len(args) > 0 && (args[0] == "gpu" || args[0] == "page") }
