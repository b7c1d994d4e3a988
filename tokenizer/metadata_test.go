package tokenizer

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/apr-engine/apr/format/gguf"
)

// fields is metadata held in a map.
type fields map[string]any

func (f fields) String(k string) (string, bool)    { v, ok := f[k].(string); return v, ok }
func (f fields) Uint(k string) (uint64, bool)      { v, ok := f[k].(uint64); return v, ok }
func (f fields) Bool(k string) (bool, bool)        { v, ok := f[k].(bool); return v, ok }
func (f fields) Strings(k string) ([]string, bool) { v, ok := f[k].([]string); return v, ok }
func (f fields) Ints(k string) ([]int64, bool)     { v, ok := f[k].([]int64); return v, ok }
func (f fields) Floats(k string) ([]float64, bool) { v, ok := f[k].([]float64); return v, ok }

// sharedDir returns the folder shared/ beside the repository, or skips.
func sharedDir(t testing.TB) string {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if filepath.Dir(dir) == dir {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = filepath.Dir(dir)
	}
	shared := filepath.Join(filepath.Dir(dir), "shared")
	if _, err := os.Stat(shared); err != nil {
		t.Skip("the folder shared/ is not beside the repository")
	}
	return shared
}

// readGGUF reads a model file's metadata.
func readGGUF(t testing.TB, path string) *gguf.Metadata {
	f, err := gguf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f.Metadata
}
