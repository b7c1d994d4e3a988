// Package golden finds reference data for tests: what is committed under
// testdata and models, and the larger set in the folder "shared" beside the
// repository, which only developers and CI have.
package golden

import (
	"os"
	"path/filepath"
	"testing"
)

// Root is the repository's root folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = parent
	}
}

// Path is the path of a committed file, relative to the root.
func Path(t testing.TB, elem ...string) string {
	t.Helper()
	return filepath.Join(append([]string{Root(t)}, elem...)...)
}

// Shared is the path of a file in the shared folder. The test is skipped where
// the folder is absent; a folder without the file is a failure.
func Shared(t testing.TB, elem ...string) string {
	t.Helper()
	shared := filepath.Join(filepath.Dir(Root(t)), "shared")
	if _, err := os.Stat(shared); err != nil {
		t.Skip("the shared reference data is not beside this repository")
	}
	path := filepath.Join(append([]string{shared}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}
