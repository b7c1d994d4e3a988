package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apr-engine/apr/internal/golden"
)

func TestContextsPage(t *testing.T) {
	dir := t.TempDir()
	data, page := filepath.Join(dir, "c.jsonl"), filepath.Join(dir, "c.md")
	text := `{"model":"a","name":"qwen2 synthetic qwen2.5-7b","layers":4,"backend":"cuda","device":"H200","reference":"cpu-exact","context":64,"positions":145,"min_cosine":0.99999,"max_error":0.01,"agreed":144,"max_margin":0.003,"status":"validated","reference_seconds":2,"threads":16,"reference_tokens":320,"date":"2026-11-28T18:00:00Z"}
{"model":"a","name":"qwen2 synthetic qwen2.5-7b","layers":4,"backend":"wgpu","device":"H200","reference":"cpu-exact","context":64,"positions":0,"min_cosine":1,"status":"not measured","reason":"lost","reference_seconds":1,"threads":16,"reference_tokens":320,"date":"2026-11-28T18:00:00Z"}
`
	if err := os.WriteFile(data, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), dir, []string{"contexts", "-o", page, data}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"on cuda: H200, wgpu: H200, on 2026-11-28. Reference: cpu-exact with 16 threads.", "1 of 2 comparisons are validated; 145 positions, lowest cosine 0.9999900, the same best token at 144.",
		"| qwen2 synthetic qwen2.5-7b | 4 of 28 | 64 | cuda | 145 | 0.9999900 | 0.0100 | 144 | 0.0030 | validated |",
		"| 4 of 28 | 64 | wgpu | 0 | | | | | not measured: lost |", "| qwen2 synthetic qwen2.5-7b | 4 of 28 | 320 | 2.0 | 160 |",
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the page has no %q:\n%s", want, got)
		}
	}
	for _, args := range [][]string{{"contexts", data}, {"contexts", "-o", page}, {"contexts", "-o", page, page}} {
		if err := run(t.Context(), dir, args); err == nil {
			t.Errorf("%v is not refused", args)
		}
	}
}

// The committed page is what the committed lines make, and nothing was wrong.
func TestCommittedContexts(t *testing.T) {
	folder := golden.Path(t, "docs", "gpu")
	data := filepath.Join(folder, "contexts.jsonl")
	page := filepath.Join(t.TempDir(), "page.md")
	if err := run(t.Context(), folder, []string{"contexts", "-o", page, data}); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(folder, "contexts.md"))
	if err != nil || string(got) != string(want) {
		t.Errorf("docs/gpu/contexts.md is not what its lines make (%v): run \"gatescore contexts\"", err)
	}
	if strings.Contains(string(got), "mismatch") {
		t.Error("docs/gpu/contexts.md has a mismatch")
	}
}
