package mmapfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(path, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(f.Bytes()); got != "hello" {
		t.Errorf("Bytes() = %q, want %q", got, "hello")
	}
	if f.Path() != path {
		t.Errorf("Path() = %q, want %q", f.Path(), path)
	}
	for _, h := range []Hint{Normal, Sequential, Random, WillNeed, DontNeed} {
		if err := f.Advise(1, 4, h); err != nil {
			t.Errorf("Advise(1, 4, %d): %v", h, err)
		}
	}
	for _, r := range [][2]int{{-1, 1}, {0, -1}, {0, 6}, {6, 0}, {5, 1}} {
		if err := f.Advise(r[0], r[1], Normal); err == nil {
			t.Errorf("Advise(%d, %d) succeeded on a file of 5 bytes", r[0], r[1])
		}
	}
	for range 2 {
		if err := f.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if f.Bytes() != nil {
		t.Error("Bytes() is not nil after Close")
	}
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, path string
		want       error
		text       string
	}{
		{"missing", filepath.Join(dir, "none"), fs.ErrNotExist, "none"},
		{"directory", dir, ErrNotRegular, "is a directory"},
		{"empty", empty, ErrEmpty, "empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := Open(c.path)
			if f != nil || !errors.Is(err, c.want) {
				t.Fatalf("Open = %v, %v; want an error that is %v", f, err, c.want)
			}
			if msg := err.Error(); !strings.Contains(msg, c.text) || strings.Contains(msg, "\n") {
				t.Errorf("message %q: want one line with %q", msg, c.text)
			}
		})
	}
}

// A large file must be mapped, not read: opening it may allocate next to nothing.
func TestOpenDoesNotRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "big")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	const size = 1 << 30 // a hole: takes no space on disk
	if err := f.Truncate(size); err != nil {
		t.Skipf("no sparse files here: %v", err)
	}
	f.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	runtime.ReadMemStats(&after)
	if !m.mapped {
		t.Skip("this system reads files instead of mapping them")
	}
	if len(m.Bytes()) != size || m.Bytes()[size-1] != 0 {
		t.Errorf("mapped %d bytes, want %d", len(m.Bytes()), size)
	}
	// Open needs two FileInfos and a File; 64 KiB leaves room for other tests' garbage.
	if got := after.TotalAlloc - before.TotalAlloc; got > 64<<10 {
		t.Errorf("Open allocated %d bytes", got)
	}
}
