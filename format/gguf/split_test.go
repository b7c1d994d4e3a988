package gguf

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write testdata/set-*.gguf again")

// shardEdit changes the metadata of shard no before it is written.
type shardEdit func(no int, md *Metadata)

// writeSet writes the sample as three shards, the way llama-gguf-split does:
// the model's metadata in the first, and the split keys in all. The first has no
// tensors, which that tool can be asked for.
func writeSet(t *testing.T, prefix string, edit shardEdit) (paths []string) {
	t.Helper()
	tensors := sampleTensors()
	parts := [][2]int{{0, 0}, {0, 2}, {2, len(tensors)}}
	for no, p := range parts {
		md := NewMetadata()
		if no == 0 {
			md = sampleMetadata(t)
			md.Delete("a.nested") // so that llama-gguf-split can merge the set
		}
		for _, kv := range []struct {
			key string
			v   any
		}{{keySplitNo, uint16(no)}, {keySplitCount, uint16(len(parts))}, {keySplitTensors, int32(len(tensors))}} {
			if err := md.Set(kv.key, kv.v); err != nil {
				t.Fatal(err)
			}
		}
		if edit != nil {
			edit(no, md)
		}
		path := ShardPath(prefix, no, len(parts))
		if err := WriteFile(path, md, tensors[p[0]:p[1]]); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// The committed set is opened through each of its shards.
func TestOpenSet(t *testing.T) {
	const prefix = "testdata/set"
	if *update {
		writeSet(t, prefix, nil)
	}
	var paths []string
	var size int64
	for no := range 3 {
		paths = append(paths, ShardPath(filepath.FromSlash(prefix), no, 3))
		info, err := os.Stat(paths[no])
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	for _, path := range paths {
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(f.Paths(), paths) || f.Size() != size {
			t.Errorf("from %s: paths %v, size %d; want %v, %d", path, f.Paths(), f.Size(), paths, size)
		}
		if want := sampleTensors(); !reflect.DeepEqual(f.Tensors, want) {
			t.Errorf("from %s: tensors %v, want %v", path, f.Tensors, want)
		}
		if s, _ := f.Metadata.String("general.architecture"); s != "test" {
			t.Errorf("from %s: metadata is not the first shard's", path)
		}
		if p, ok := f.Place("c.weight"); !ok || p.Path != paths[2] || p.Offset == 0 {
			t.Errorf("from %s: c.weight is at %v, want it in %s", path, p, paths[2])
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenSetErrors(t *testing.T) {
	set := func(t *testing.T, md *Metadata, key string, v any) {
		if err := md.Set(key, v); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		edit   func(t *testing.T, no int, md *Metadata)
		change func(t *testing.T, paths []string)
		open   int
		is     error
		want   string
	}{
		{name: "missing shard", change: func(t *testing.T, p []string) { os.Remove(p[1]) }, is: fs.ErrNotExist, want: "shard 2 of 3"},
		{name: "missing first shard", change: func(t *testing.T, p []string) { os.Remove(p[0]) }, open: 2, is: fs.ErrNotExist, want: "shard 1 of 3"},
		{name: "truncated shard", change: func(t *testing.T, p []string) { os.Truncate(p[2], 300) }, is: ErrFormat, want: "shard 3 of 3"},
		{name: "shards swapped", change: func(t *testing.T, p []string) {
			os.Rename(p[1], p[1]+".x")
			os.Rename(p[2], p[1])
			os.Rename(p[1]+".x", p[2])
		}, is: ErrFormat, want: "metadata says shard 3 of 3, want 2 of 3"},
		{name: "given shard misnamed", change: func(t *testing.T, p []string) { os.Rename(p[0], p[1]) }, open: 1, is: ErrFormat, want: "file name says shard 2"},
		{name: "renamed", change: func(t *testing.T, p []string) { os.Rename(p[0], p[0]+".bak"); p[0] += ".bak" }, is: ErrFormat, want: "-00001-of-00003.gguf"},
		{name: "same shard twice", change: func(t *testing.T, p []string) {
			data, err := os.ReadFile(p[1])
			if err != nil {
				t.Fatal(err)
			}
			os.WriteFile(p[2], data, 0o600)
		}, is: ErrFormat, want: "metadata says shard 2 of 3, want 3 of 3"},
		{name: "duplicate tensor", change: func(t *testing.T, p []string) {
			f, err := openOne(p[2])
			if err != nil {
				t.Fatal(err)
			}
			if err := WriteFile(p[1], withNo(t, f.Metadata, 1), f.Tensors); err != nil {
				t.Fatal(err)
			}
		}, is: ErrFormat, want: `tensor "c.weight" is also in`},
		{name: "count differs from name", edit: func(t *testing.T, no int, md *Metadata) { set(t, md, keySplitCount, uint16(4)) }, is: ErrFormat, want: "split.count is 4, but the file name says 3"},
		{name: "counts differ", edit: func(t *testing.T, no int, md *Metadata) { set(t, md, keySplitCount, uint16(3+no)) }, is: ErrFormat, want: "want 2 of 3"},
		{name: "count is a string", edit: func(t *testing.T, no int, md *Metadata) { set(t, md, keySplitCount, "3") }, is: ErrFormat, want: `split.count" is string "3"`},
		{name: "count is negative", edit: func(t *testing.T, no int, md *Metadata) { set(t, md, keySplitCount, int32(-1)) }, is: ErrFormat, want: "from 1 to 99999"},
		{name: "count is 0 in another shard", edit: func(t *testing.T, no int, md *Metadata) {
			if no == 1 {
				set(t, md, keySplitCount, uint16(0))
			}
		}, is: ErrFormat, want: "from 1 to 99999"},
		{name: "count is huge", edit: func(t *testing.T, no int, md *Metadata) { set(t, md, keySplitCount, uint64(1<<63)) }, is: ErrFormat, want: "from 1 to 99999"},
		{name: "count is an array", edit: func(t *testing.T, no int, md *Metadata) { set(t, md, keySplitCount, []string{"3"}) }, is: ErrFormat, want: "array of 1 string"},
		{name: "number missing", edit: func(t *testing.T, no int, md *Metadata) { md.Delete(keySplitNo) }, is: ErrFormat, want: `"split.no" is missing`},
		{name: "number too large", edit: func(t *testing.T, no int, md *Metadata) { set(t, md, keySplitNo, uint16(3)) }, is: ErrFormat, want: "from 0 to 2"},
		{name: "tensor count wrong", edit: func(t *testing.T, no int, md *Metadata) { set(t, md, keySplitTensors, int32(6)) }, is: ErrFormat, want: "split.tensors.count is 6, but the 3 shards have 5 tensors"},
		{name: "tensor count negative", edit: func(t *testing.T, no int, md *Metadata) { set(t, md, keySplitTensors, int32(-1)) }, is: ErrFormat, want: "split.tensors.count"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var edit shardEdit
			if c.edit != nil {
				edit = func(no int, md *Metadata) { c.edit(t, no, md) }
			}
			paths := writeSet(t, filepath.Join(t.TempDir(), "m"), edit)
			if c.change != nil {
				c.change(t, paths)
			}
			f, err := Open(paths[c.open])
			if f != nil || !errors.Is(err, c.is) {
				t.Fatalf("Open: %v; want an error that is %v", err, c.is)
			}
			if msg := err.Error(); !strings.Contains(msg, c.want) || strings.Contains(msg, "\n") {
				t.Errorf("message %q: want one line with %q", msg, c.want)
			}
		})
	}
}

// withNo returns the metadata of a shard with another number.
func withNo(t *testing.T, md *Metadata, no int) *Metadata {
	c := md.Clone()
	if err := c.Set(keySplitNo, uint16(no)); err != nil {
		t.Fatal(err)
	}
	return c
}

// A set of one is an ordinary file, whatever its name; so is one with a count of
// 0, which llama-gguf-split writes when it merges a set.
func TestOpenSetOfOne(t *testing.T) {
	for _, count := range []uint16{0, 1} {
		md := sampleMetadata(t)
		for k, v := range map[string]any{keySplitCount: count, keySplitNo: uint16(0)} {
			if err := md.Set(k, v); err != nil {
				t.Fatal(err)
			}
		}
		path, _ := writeSample(t, md, sampleTensors())
		f, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got, want := fmt.Sprint(f.Paths()), fmt.Sprint([]string{path}); got != want {
			t.Errorf("count %d: paths %s, want %s", count, got, want)
		}
	}
}
