package parity_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apr-engine/apr/parity"
)

func TestTrials(t *testing.T) {
	dir := t.TempDir()
	s, problems := watched(dir)
	like := parity.Trial{Backend: "cuda", Driver: "libcuda.so.1 580", Build: "b"}
	if _, ok := s.Tried(like); ok {
		t.Error("an empty store has a trial")
	}
	failed := like
	failed.Failure = "signal: killed"
	s.PutTrial(failed)
	if got, ok := s.Tried(like); !ok || got.Failure != failed.Failure {
		t.Errorf("%v %+v", ok, got)
	}
	s.PutTrial(like) // it works now
	if got, ok := s.Tried(like); !ok || got.Failure != "" {
		t.Errorf("%v %+v", ok, got)
	}
	for name, other := range map[string]parity.Trial{
		"backend": {Backend: "wgpu", Driver: like.Driver, Build: "b"},
		"device":  {Backend: "cuda", Device: "1", Driver: like.Driver, Build: "b"},
		"driver":  {Backend: "cuda", Driver: "libcuda.so.1 581", Build: "b"},
		"build":   {Backend: "cuda", Driver: like.Driver, Build: "c"},
	} {
		if _, ok := s.Tried(other); ok {
			t.Errorf("another %s has the same trial", name)
		}
	}
	for _, unknown := range []parity.Trial{{Backend: "cuda", Build: "b"}, {Backend: "cuda", Driver: "d"}} {
		s.PutTrial(unknown)
		if _, ok := s.Tried(unknown); ok {
			t.Errorf("%+v is remembered", unknown)
		}
	}
	if len(*problems) > 0 {
		t.Errorf("problems %q", *problems)
	}
	// A trial that was tampered with counts as absent.
	files, err := filepath.Glob(filepath.Join(dir, "*.trial.json"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%q, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"driver": strings.Replace(string(text), "580", "581", 1), "empty": "", "half": string(text[:len(text)/2]), "not an object": "[]",
	} {
		if err := os.WriteFile(files[0], []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok := s.Tried(like); ok {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := s.Clear(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%d files are left", len(left))
	}
	// Without a place to keep them nothing is remembered and nothing breaks.
	var none *parity.Store
	none.PutTrial(like)
	if _, ok := none.Tried(like); ok {
		t.Error("no store has a trial")
	}
}
