package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/parity/fault"
)

// The tool judges a backend, the CPU here, and makes a page of it.
func TestGPUScore(t *testing.T) {
	root, dir := golden.Root(t), t.TempDir()
	data, page := filepath.Join(dir, "cpu.json"), filepath.Join(dir, "page.md")
	faults := "rope-pairing,gqa-head-map,qk-norm-missing,one-nan,hang"
	if err := run(t.Context(), root, []string{"gpu", "-backend", "cpu", "-only", bundled[0], "-faults", faults, "-sound", "9", "-commit", "abc", "-o", data}); err != nil {
		t.Fatal(err)
	}
	s := readScore(t, data)
	if len(s.Models) != 1 || s.Models[0].Marks != "✓✓·✓✓" || s.Models[0].Failed != "" {
		t.Fatalf("score %+v", s.Models)
	}
	if n := s.Models[0].runs(); n != 16 || len(s.Models[0].Broken) != 0 {
		t.Errorf("%d sound runs, want two prompts with each of 8 ways; rejected: %v", n, s.Models[0].Broken)
	}
	for _, set := range s.Models[0].Sound {
		if set.Runs != 2 || set.Positions < 2*72 || !(set.MinCosine > 0.9999) || !(set.MaxError > 0) {
			t.Errorf("sound runs %+v", set)
		}
	}
	// A later run on a second backend that went wrong and was not finished.
	s.Backend, s.Models[0].Marks, s.Models[0].Failed = "wgpu", "✓✗s", "context deadline exceeded"
	s.Models[0].Sound[0].Rejected, s.Models[0].Broken = 1, []string{"seed 0: too different"}
	other := filepath.Join(dir, "wgpu.json")
	if err := s.write(other); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), root, []string{"page", "-o", page, data, other}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"## cpu", "commit abc", "5 of the catalogue's", "4 pairs of fault and model: 4 rejected by the first comparison, 0 stopped before the first wrong token, **0 served**",
		"16 sound runs: **0 rejected**", "| gqa-head-map | `✓` |", "| qk-norm-missing | `·` |",
		"## wgpu", "3 pairs of fault and model: 1 rejected by the first comparison, 1 stopped before the first wrong token, **1 served**",
		"16 sound runs: **1 rejected**", "not measured: tiny-coder-4m-q4_k_m: 2 faults were not injected", "not measured: tiny-coder-4m-q4_k_m: context deadline exceeded", "rejected: seed 0: too different",
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the page has no %q:\n%s", want, text)
		}
	}
	for name, args := range map[string][]string{
		"nothing":          {"page", "-o", page},
		"no output":        {"page", data},
		"no such backend":  {"gpu", "-o", data, "-backend", "abacus"},
		"no such fault":    {"gpu", "-o", data, "-backend", "cpu", "-faults", "abacus"},
		"no such model":    {"gpu", "-o", data, "-backend", "cpu", "-only", "abacus"},
		"nothing at once":  {"gpu", "-o", data, "-backend", "cpu", "-parallel", "0"},
		"no time":          {"gpu", "-o", data, "-backend", "cpu", "-only", bundled[0], "-limit", "1ns"},
		"page of no score": {"page", "-o", page, filepath.Join(root, "go.mod")},
	} {
		if err := run(t.Context(), root, args); err == nil {
			t.Errorf("%s is not refused", name)
		}
	}
}

func readScore(t *testing.T, path string) (s gpuScore) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

// Prompts of sound runs differ and stay within their lengths.
func TestSoundPrompts(t *testing.T) {
	s, err := openSubject(bundled[0], golden.Path(t, "models", bundled[0]+".gguf"), golden.Root(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.model.Close()
	short, long := 0, 0
	var before [][]int32
	for seed := range 40 {
		p := s.soundPrompt(seed)
		if len(p) < 1 || len(p) > maxSoundPrompt || !slices.Equal(p, s.soundPrompt(seed)) {
			t.Errorf("seed %d: %d tokens", seed, len(p))
		}
		if slices.ContainsFunc(before, func(q []int32) bool { return slices.Equal(p, q) }) {
			t.Errorf("seed %d: the same prompt as another", seed)
		}
		before = append(before, p)
		if len(p) < 32 {
			short++
		}
		if len(p) > 128 {
			long++
		}
	}
	if short < 5 || long < 5 {
		t.Errorf("%d short and %d long prompts of 40", short, long)
	}
}

// What was measured on a GPU and is committed makes the committed page, and is clean: of
// each backend no fault of the catalogue was served and all were tried on two models at
// least, and of a thousand sound runs none was rejected. The page says what is missing.
func TestGPUPage(t *testing.T) {
	folder := golden.Path(t, "docs", "gpu")
	files, err := filepath.Glob(filepath.Join(folder, "gate-score-*.json"))
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatalf("no score of a GPU in %s: scripts/gpu/score writes it", folder)
	}
	page := filepath.Join(t.TempDir(), "page.md")
	if err := writeGPUPage(page, files); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(folder, "gate-score.md"))
	if err != nil || string(got) != string(want) {
		t.Errorf("docs/gpu/gate-score.md is not what its numbers make (%v): run \"gatescore page\"", err)
	}
	runs, tried := map[string]int{}, map[string]map[string]int{}
	for _, file := range files {
		s := readScore(t, file)
		if n := s.counts(); n[served.mark()] > 0 || n[unknown] > 0 || len(s.Faults) != s.Catalogue || s.Catalogue < len(fault.All())-5 {
			t.Errorf("%s: %d faults served, %d unknown; %d of a catalogue of %d", filepath.Base(file), n[served.mark()], n[unknown], len(s.Faults), s.Catalogue)
		}
		if tried[s.Backend] == nil {
			tried[s.Backend] = map[string]int{}
		}
		for _, m := range s.Models {
			runs[s.Backend] += m.runs()
			if len(m.Broken) > 0 {
				t.Errorf("%s: %s: %v", filepath.Base(file), m.Name, m.Broken)
			}
			marks := []rune(m.Marks)
			for i, name := range s.Faults {
				if i < len(marks) && marks[i] != ' ' {
					tried[s.Backend][name]++
				}
			}
		}
	}
	for name, n := range runs {
		if n < 1000 {
			t.Errorf("%s: %d sound runs", name, n)
		}
		for _, f := range fault.Names() {
			if tried[name][f] < 2 {
				t.Errorf("%s: %s was tried on %d models", name, f, tried[name][f])
			}
		}
	}
}
