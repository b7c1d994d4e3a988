package gguf

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
)

// shardName is how llama.cpp names the shards of a set: prefix, number from 1, count.
var shardName = regexp.MustCompile(`^(.*)-([0-9]{5})-of-([0-9]{5})\.gguf$`)

// isWhole reports whether v, a split.count, says that the file stands alone: 1,
// or the 0 that llama-gguf-split leaves in the files it has merged.
func (v Value) isWhole() bool {
	if v.Type == TypeArray {
		return false
	}
	n, ok := v.int64At(0)
	return ok && (n == 0 || n == 1)
}

// ShardPath returns the path of shard no (from 0) of count, for a model whose
// path without "-00001-of-00003.gguf" is prefix.
func ShardPath(prefix string, no, count int) string {
	return fmt.Sprintf("%s-%05d-of-%05d.gguf", prefix, no+1, count)
}

// openSet opens the other shards of the set that f, opened from path, belongs
// to, and joins all into one File. It owns f and closes it on failure.
func openSet(path string, f *File) (set *File, err error) {
	shards := []*File{f}
	defer func() {
		if err != nil {
			for _, s := range shards {
				s.Close()
			}
		}
	}()
	no, count, err := splitOf(f)
	if err != nil {
		return nil, err
	}
	name := shardName.FindStringSubmatch(filepath.Base(path))
	if name == nil {
		return nil, fmt.Errorf("%s: %w: metadata says shard %d of %d, but the file name does not end in -%05d-of-%05d.gguf, so the others cannot be found",
			path, ErrFormat, no+1, count, no+1, count)
	}
	if got, _ := strconv.Atoi(name[2]); got != no+1 {
		return nil, fmt.Errorf("%s: %w: %s is %d (shard %d), but the file name says shard %d", path, ErrFormat, keySplitNo, no, no+1, got)
	}
	if got, _ := strconv.Atoi(name[3]); got != count {
		return nil, fmt.Errorf("%s: %w: %s is %d, but the file name says %d", path, ErrFormat, keySplitCount, count, got)
	}
	prefix := filepath.Join(filepath.Dir(path), name[1])
	shards = make([]*File, 0, min(count, 64))
	for i := range count {
		s := f
		if i != no {
			if s, err = openShard(prefix, i, count); err != nil {
				shards = append(shards, f) // may be there twice: closing again is harmless
				return nil, err
			}
		}
		shards = append(shards, s)
	}
	return join(shards)
}

// openShard opens shard no and checks that it is what its name says.
func openShard(prefix string, no, count int) (*File, error) {
	path := ShardPath(prefix, no, count)
	s, err := openOne(path)
	if err != nil {
		return nil, fmt.Errorf("shard %d of %d: %w", no+1, count, err)
	}
	gotNo, gotCount, err := splitOf(s)
	if err == nil && (gotNo != no || gotCount != count) {
		err = fmt.Errorf("%s: %w: metadata says shard %d of %d, want %d of %d", path, ErrFormat, gotNo+1, gotCount, no+1, count)
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// splitOf reads a shard's number (from 0) and the count of the set.
func splitOf(f *File) (no, count int, err error) {
	const limit = 99999 // five digits in the file name; llama.cpp stores 16 bits
	c, ok := f.Metadata.Uint(keySplitCount)
	if !ok || c < 1 || c > limit {
		return 0, 0, f.Metadata.Problem(keySplitCount, fmt.Sprintf("an integer from 1 to %d", limit))
	}
	n, ok := f.Metadata.Uint(keySplitNo)
	if !ok || n >= c {
		return 0, 0, f.Metadata.Problem(keySplitNo, fmt.Sprintf("an integer from 0 to %d", c-1))
	}
	return int(n), int(c), nil
}

// join makes one File of all shards, in order.
func join(shards []*File) (*File, error) {
	first := shards[0]
	set := &File{
		Version:   first.Version,
		Metadata:  first.Metadata,
		alignment: first.alignment,
		index:     map[string]int{},
	}
	for _, s := range shards {
		for i, t := range s.Tensors {
			if j, dup := set.index[t.Name]; dup {
				return nil, fmt.Errorf("%s: %w: tensor %s is also in %s", s.paths[0], ErrFormat, quote(t.Name), set.places[j].Path)
			}
			set.index[t.Name] = len(set.Tensors)
			set.Tensors = append(set.Tensors, t)
			set.places = append(set.places, s.places[i])
		}
		set.paths = append(set.paths, s.paths...)
		set.maps = append(set.maps, s.maps...)
		set.size += s.size
	}
	if v, ok := first.Metadata.Value(keySplitTensors); ok {
		want, isInt := first.Metadata.Uint(keySplitTensors)
		if !isInt {
			return nil, first.Metadata.Problem(keySplitTensors, "an integer")
		}
		if want != uint64(len(set.Tensors)) {
			return nil, fmt.Errorf("%s: %w: %s is %s, but the %d shards have %d tensors",
				first.paths[0], ErrFormat, keySplitTensors, v, len(shards), len(set.Tensors))
		}
	}
	return set, nil
}
