package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/apr-engine/apr/tensor"
)

// gpuScore is the score of a backend on one machine: the standard policy alone,
// on the models of one share of the work. The shares are put together by merge.
type gpuScore struct {
	Backend string  `json:"backend"`
	Device  string  `json:"device"`
	Driver  string  `json:"driver"`
	Scores  []score `json:"scores"` // one for each model
}

// gpuCommand measures a GPU backend, or puts what several processes have measured
// together:
//
//	gatescore gpu -backend cuda -share 0/4 -o share0.json
//	gatescore merge -o table.md share*.json
func gpuCommand(ctx context.Context, root, name string, args []string) error {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	out := flags.String("o", "", "file to write")
	var backendName, share *string
	if name == "gpu" {
		backendName = flags.String("backend", "cuda", "backend to judge")
		share = flags.String("share", "0/1", "which of how many shares of the models")
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *out == "" {
		return fmt.Errorf("%s needs -o FILE", name)
	}
	if name == "merge" {
		return mergeShares(*out, flags.Args())
	}
	var i, n int
	if _, err := fmt.Sscanf(*share, "%d/%d", &i, &n); err != nil || n < 1 || i < 0 || i >= n {
		return fmt.Errorf("share %q, want I/N with I from 0 to N-1", *share)
	}
	s, err := measureGPU(ctx, root, *backendName, i, n)
	if err != nil {
		return err
	}
	data, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(*out, append(data, '\n'), 0o644)
}

// measureGPU judges the i-th of n shares of the models.
func measureGPU(ctx context.Context, root, name string, i, n int) (gpuScore, error) {
	candidate = name
	d, err := device(name)
	if err != nil {
		return gpuScore{}, err
	}
	s := gpuScore{Backend: name, Device: d.Name(), Driver: d.Identity()}
	if err := d.Close(); err != nil {
		return s, err
	}
	dir, err := os.MkdirTemp("", "gatescore")
	if err != nil {
		return s, err
	}
	defer os.RemoveAll(dir)
	subjects, err := open(root, dir)
	if err != nil {
		return s, err
	}
	for j, subject := range subjects {
		if j%n == i {
			one, err := measureModel(ctx, subject)
			if err != nil {
				return s, err
			}
			s.Scores = append(s.Scores, one)
		}
		if err := subject.model.Close(); err != nil {
			return s, err
		}
	}
	return s, nil
}

func measureModel(ctx context.Context, s subject) (score, error) {
	t := score{Models: []string{s.name}, Sound: map[string]int{}, Rejected: map[string]int{}}
	sc, err := newScoring(ctx, s)
	if err != nil {
		return t, err
	}
	defer sc.end()
	for _, f := range fault.All() {
		o, err := sc.fault(f, parity.Standard())
		if err != nil {
			return t, err
		}
		t.Faults = append(t.Faults, row{f.Name, f.Late, map[string]string{"standard": o.mark()}})
	}
	return t, sc.soundOnGPU(&t)
}

// soundPrompts is how many texts each sound executor is probed on.
const soundPrompts = 25

// soundOnGPU probes sound executors: both cache types, steps of several sizes, and
// many prompts of different lengths on each.
func (s *scoring) soundOnGPU(t *score) error {
	for _, kv := range []tensor.DType{tensor.F16, tensor.F32} {
		for _, size := range []int{32, 512} {
			d, err := device(candidate)
			if err != nil {
				return err
			}
			exec, err := d.Load(s.model.Program, s.model.File, backend.Options{KV: kv, MaxBatch: size})
			if err != nil {
				return err
			}
			for i := range soundPrompts {
				// Windows of the long text, of 3 to 267 tokens.
				from, length := 7*i, 3+11*i
				prompt := s.long[from : from+min(length, latePrompt-from)]
				v := parity.Probe(s.ctx, s.ref, opened(candidate, exec), s.parityCase(prompt, size), parity.Standard())
				if v.Status == parity.NotMeasured {
					return fmt.Errorf("%s: %w", s.name, v.Err())
				}
				t.Sound[s.name]++
				if !v.Passed() {
					t.Rejected[s.name]++
					t.Broken = append(t.Broken, fmt.Sprintf("%s, cache %s, steps of %d, prompt of %d tokens: %s", s.name, kv, size, len(prompt), v.Reason))
				}
			}
			if err := exec.Close(); err != nil {
				return err
			}
			if err := d.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}

// mergeShares writes one page of the shares.
func mergeShares(out string, files []string) error {
	var all gpuScore
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var s gpuScore
		if err := json.Unmarshal(data, &s); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		if all.Backend != "" && (s.Backend != all.Backend || s.Driver != all.Driver) {
			return fmt.Errorf("%s is of %s on %s, the ones before of %s on %s", file, s.Backend, s.Driver, all.Backend, all.Driver)
		}
		all.Backend, all.Device, all.Driver = s.Backend, s.Device, s.Driver
		all.Scores = append(all.Scores, s.Scores...)
	}
	if len(all.Scores) == 0 {
		return fmt.Errorf("no shares to merge")
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	if err := all.page(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// page writes the table of all models.
func (s gpuScore) page(w io.Writer) error {
	marks := map[string]int{}
	sound, wrong := 0, 0
	var models, broken, table strings.Builder
	for i, one := range s.Scores {
		fmt.Fprintf(&models, "%d. %s\n", i+1, one.Models[0])
		for _, n := range one.Sound {
			sound += n
		}
		for _, n := range one.Rejected {
			wrong += n
		}
		for _, why := range one.Broken {
			fmt.Fprintf(&broken, "- %s\n", why)
		}
	}
	for i, f := range s.Scores[0].Faults {
		line := ""
		for _, one := range s.Scores {
			m := one.Faults[i].Marks["standard"]
			marks[m]++
			line += m
		}
		fmt.Fprintf(&table, "| %s | `%s` |\n", f.Name, line)
	}
	possible := marks[rejected.mark()] + marks[stopped.mark()] + marks[served.mark()]
	_, err := fmt.Fprintf(w, `# What the gate catches on %s

Device: %s (%s). Reference: %s. Every fault of the catalogue is injected into the backend on every model.

- fault × model pairs: %d; rejected before the first token (✓): %d; stopped before the first wrong token (s): %d; served (✗): %d
- probes of sound executors: %d, of them rejected: %d

%s
Models, in the order of the columns (· cannot exist in this model):

%s
| fault | standard |
|---|---|
%s`, s.Backend, s.Device, s.Driver, engine.ReferenceBackend, possible, marks[rejected.mark()], marks[stopped.mark()], marks[served.mark()],
		sound, wrong, broken.String(), models.String(), table.String())
	return err
}

// gpuNames are the measurements of gpuCommand.
func gpuNames(args []string) bool { return len(args) > 0 && (args[0] == "gpu" || args[0] == "merge") }
