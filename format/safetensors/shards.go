package safetensors

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// IndexName is the file that lists the tensors of a model in several files.
const IndexName = "model.safetensors.index.json"

// maxIndex bounds the index: a name and a file name for each tensor.
const maxIndex = 256 << 20

// OpenFolder opens the model of a folder: the files that IndexName lists, or
// model.safetensors, or the only .safetensors file there is.
func OpenFolder(dir string) (*File, error) {
	index := filepath.Join(dir, IndexName)
	if _, err := os.Stat(index); err == nil {
		return OpenIndex(index)
	}
	single := filepath.Join(dir, "model.safetensors")
	if _, err := os.Stat(single); err == nil {
		return Open(single)
	}
	list, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
	if err != nil {
		return nil, err
	}
	switch len(list) {
	case 0:
		return nil, fmt.Errorf("%s: no .safetensors file: %w", dir, os.ErrNotExist)
	case 1:
		return Open(list[0])
	}
	return nil, fmt.Errorf("%s: %w: %d .safetensors files and no %s that says which belong together", dir, ErrFormat, len(list), IndexName)
}

// OpenIndex opens the files that an index lists, as one.
func OpenIndex(path string) (set *File, err error) {
	names, weights, err := readIndex(path)
	if err != nil {
		return nil, err
	}
	set = &File{index: map[string]int{}}
	defer func() {
		if err != nil {
			set.Close()
			set = nil
		}
	}()
	for _, name := range names {
		f, err := Open(filepath.Join(filepath.Dir(path), name))
		if err != nil {
			return set, fmt.Errorf("named in %s: %w", path, err)
		}
		// Owned from here on, so that an error below closes it too.
		set.maps, set.paths = append(set.maps, f.maps...), append(set.paths, f.paths...)
		set.size += f.size
		if set.Metadata == nil {
			set.Metadata, set.HeaderBytes = f.Metadata, f.HeaderBytes
		}
		for i, t := range f.Tensors {
			// A file may hold tensors that the index gives to another one or to none.
			if weights[t.Name] != name {
				continue
			}
			set.index[t.Name] = len(set.Tensors)
			set.Tensors, set.places = append(set.Tensors, t), append(set.places, f.places[i])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(weights)) {
		if _, ok := set.index[name]; !ok {
			return set, fmt.Errorf("%s: %w: tensor %s is not in %s", path, ErrFormat, quote(name), quote(weights[name]))
		}
	}
	return set, nil
}

// readIndex returns the file names in order and the file of each tensor.
func readIndex(path string) (names []string, weights map[string]string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxIndex+1))
	if err != nil {
		return nil, nil, err
	}
	var index struct {
		Weights map[string]string `json:"weight_map"`
	}
	if len(data) > maxIndex {
		err = errors.New("it is too large")
	} else {
		err = json.Unmarshal(data, &index)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w: %s", path, ErrFormat, oneLine(err))
	}
	if len(index.Weights) == 0 {
		return nil, nil, fmt.Errorf("%s: %w: weight_map is missing or empty", path, ErrFormat)
	}
	seen := map[string]bool{}
	for tensorName, name := range index.Weights {
		// A name with a path could reach any file of the machine.
		if name == "" || name != filepath.Base(name) || name == "." || name == ".." {
			return nil, nil, fmt.Errorf("%s: %w: tensor %s is in %s, which is no plain file name", path, ErrFormat, quote(tensorName), quote(name))
		}
		seen[name] = true
	}
	return slices.Sorted(maps.Keys(seen)), index.Weights, nil
}
