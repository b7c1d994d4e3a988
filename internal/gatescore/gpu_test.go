package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMergeShares(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, s gpuScore) string {
		path := filepath.Join(dir, name)
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one := func(model, mark string, sound, wrong int) score {
		return score{
			Models: []string{model}, Faults: []row{{"nibble-order", false, map[string]string{"standard": mark}}},
			Sound: map[string]int{model: sound}, Rejected: map[string]int{model: wrong}, Broken: make([]string, wrong),
		}
	}
	a := write("a", gpuScore{"cuda", "H200", "d1", []score{one("m1", "✓", 100, 0), one("m2", "✗", 100, 1)}})
	b := write("b", gpuScore{"cuda", "H200", "d1", []score{one("m3", "·", 50, 0)}})
	out := filepath.Join(dir, "page.md")
	if err := run(t.Context(), dir, []string{"merge", "-o", out, a, b}); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"pairs: 2; rejected before the first token (✓): 1; stopped before the first wrong token (s): 0; served (✗): 1",
		"executors: 250, of them rejected: 1", "3. m3", "| nibble-order | `✓✗·` |",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("the page has no %q:\n%s", want, page)
		}
	}
	other := write("c", gpuScore{"cuda", "H200", "d2", nil})
	for name, args := range map[string][]string{
		"another driver":  {"merge", "-o", out, a, other},
		"nothing":         {"merge", "-o", out},
		"no output":       {"merge", a},
		"a share too far": {"gpu", "-o", out, "-share", "2/2"},
		"no such backend": {"gpu", "-o", out, "-backend", "abacus"},
	} {
		if err := run(t.Context(), dir, args); err == nil {
			t.Errorf("%s is not refused", name)
		}
	}
}
