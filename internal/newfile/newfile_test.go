package newfile

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func folder(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestCommit(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	if err := os.WriteFile(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Abort()
	f.Write([]byte("new"))
	if err := f.Pad(8); err != nil || f.Offset() != 8 {
		t.Fatalf("offset %d after padding (%v), want 8", f.Offset(), err)
	}
	if data, _ := os.ReadFile(path); string(data) != "old" {
		t.Fatalf("before Commit the file holds %q", data)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	f.Abort()
	if data, _ := os.ReadFile(path); string(data) != "new\x00\x00\x00\x00\x00" {
		t.Errorf("the file holds %q", data)
	}
	if got := folder(t, dir); got != "a" {
		t.Errorf("the folder holds %s", got)
	}
	if _, err := f.Write([]byte("x")); err == nil {
		t.Error("a write after Commit succeeded")
	}
}

func TestAbort(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("x"))
	f.Abort()
	if got := folder(t, dir); got != "" {
		t.Errorf("the folder holds %s", got)
	}
	if err := f.Commit(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Commit after Abort: %v, want an error with the path", err)
	}
	if _, err := Create(filepath.Join(dir, "none", "a")); err == nil {
		t.Error("a file in a missing folder was created")
	}
}

func TestFolder(t *testing.T) {
	for _, before := range []string{"nothing", "empty", "full"} {
		t.Run(before, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "a")
			if before != "nothing" {
				if err := os.Mkdir(path, 0o777); err != nil {
					t.Fatal(err)
				}
			}
			if before == "full" {
				if err := os.WriteFile(filepath.Join(path, "old"), nil, 0o666); err != nil {
					t.Fatal(err)
				}
			}
			aborted, err := CreateFolder(path + "/")
			if err != nil {
				t.Fatal(err)
			}
			if err := aborted.Write("x", nil); err != nil {
				t.Fatal(err)
			}
			aborted.Abort()
			f, err := CreateFolder(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Abort()
			if err := f.Write("new", []byte("text")); err != nil {
				t.Fatal(err)
			}
			if before == "full" && folder(t, path) != "old" {
				t.Errorf("before Commit the folder holds %s", folder(t, path))
			}
			if err := f.Commit(); err != nil {
				t.Fatal(err)
			}
			f.Abort()
			if got := folder(t, path); got != "new" {
				t.Errorf("the folder holds %q", got)
			}
			if got := folder(t, dir); got != "a" {
				t.Errorf("left behind: %s", got)
			}
		})
	}
	if _, err := CreateFolder(filepath.Join(t.TempDir(), "a", "b")); err == nil {
		t.Error("no error without the folder above")
	}
}
