package contract

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// File names and folders that hold YAML but no contracts.
var (
	otherFiles   = []string{"binding.yaml", "binding.yml", "external-corpora.yaml", "ontology.yaml"}
	otherFolders = []string{"kaizen", "legacy", "pipelines", "publish-manifests"}
)

// ErrNone says that a path holds nothing to judge.
var ErrNone = errors.New("no contracts")

// Files returns the contract files of a path: the file itself, or those below
// a folder, in order of their names. skipped are YAML files below it that are
// no contracts by their name. ErrNone is returned rather than an empty list, so
// that nothing measured cannot be taken for nothing wrong.
func Files(path string) (files, skipped []string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, err
	}
	if !info.IsDir() {
		return []string{path}, nil, nil
	}
	err = filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		hidden := strings.HasPrefix(name, ".") && p != path
		switch {
		case d.IsDir() && p != path && (hidden || slices.Contains(otherFolders, name)):
			return fs.SkipDir
		case d.IsDir() || !slices.Contains([]string{".yaml", ".yml"}, filepath.Ext(name)):
		case hidden || slices.Contains(otherFiles, name) || strings.Contains(name, "playbook"):
			skipped = append(skipped, p)
		default:
			files = append(files, p)
		}
		return nil
	})
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%s: %w: no .yaml file below it", path, ErrNone)
	}
	return files, skipped, err
}

// Loaded is a file and what reading it gave: a contract or an error.
type Loaded struct {
	Path     string
	Contract *Contract
	Err      error
}

// LoadAll reads files on all processors; results are in the order of paths.
func LoadAll(paths []string) []Loaded {
	results := make([]Loaded, len(paths))
	next := make(chan int)
	var workers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), max(len(paths), 1)) {
		workers.Go(func() {
			for i := range next {
				c, err := Load(paths[i])
				results[i] = Loaded{paths[i], c, err}
			}
		})
	}
	for i := range paths {
		next <- i
	}
	close(next)
	workers.Wait()
	return results
}

// ReadFinding turns an error of Load into a finding.
func ReadFinding(path string, err error) Finding {
	f := Finding{Rule: "READ-001", Severity: Error, Path: path, Message: err.Error()}
	var read *ReadError
	if errors.As(err, &read) {
		f.Line, f.Column, f.Message = read.Pos.Line, read.Pos.Column, read.Kind.Error()+": "+read.Text
		if errors.Is(read.Kind, ErrOther) {
			f.Rule = "READ-002"
		}
	}
	return f
}
