package falsify

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/apr-engine/apr/evidence"
)

// Inputs finds the files that decide a test's result and hashes them, each once.
// It is safe for use by several goroutines.
type Inputs struct {
	Root     string   // the repository
	Bin      []string // folders with the programs under test, before the search path
	ModelDir string   // where models lie

	mu      sync.Mutex
	files   map[string]hashed
	sources map[string]hashed
}

// hashed remembers the hash of a file, or why there is none: models have
// gigabytes, and several tests read the same one.
type hashed struct {
	input evidence.Input
	err   error
}

// errNoFile says that an input is not there.
var errNoFile = errors.New("not found")

// Program finds a program by its name.
func (in *Inputs) Program(name string) (string, error) {
	if strings.ContainsRune(name, filepath.Separator) {
		return "", fmt.Errorf("program %q: name it without a folder, and give the folder with --bin", name)
	}
	for _, dir := range in.Bin {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return filepath.Abs(path)
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("program %s: %w in %s and on the search path", name, errNoFile, strings.Join(in.Bin, ", "))
	}
	return filepath.Abs(path)
}

// Model finds a model file by its name, with or without .gguf.
func (in *Inputs) Model(name string) (string, error) {
	for _, n := range []string{name, name + ".gguf"} {
		path := filepath.Join(in.ModelDir, n)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return filepath.Abs(path)
		}
	}
	return "", fmt.Errorf("model %s: %w in %s", name, errNoFile, in.ModelDir)
}

// HashProgram returns a program as an input of evidence.
func (in *Inputs) HashProgram(name string) (evidence.Input, error) {
	path, err := in.Program(name)
	if err != nil {
		return evidence.Input{}, err
	}
	return in.hashFile(name, path)
}

// HashModel returns a model as an input of evidence, under its file's name.
func (in *Inputs) HashModel(name string) (evidence.Input, error) {
	path, err := in.Model(name)
	if err != nil {
		return evidence.Input{}, err
	}
	return in.hashFile(filepath.Base(path), path)
}

// hashFile holds the lock while it reads: two tests that start together should
// not both read a large model.
func (in *Inputs) hashFile(name, path string) (evidence.Input, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if h, ok := in.files[path]; ok {
		return h.input, h.err
	}
	sum, size, err := sumFile(path)
	h := hashed{evidence.Input{Name: name, SHA256: sum, Bytes: size}, err}
	if in.files == nil {
		in.files = map[string]hashed{}
	}
	in.files[path] = h
	return h.input, h.err
}

// sumFile streams a file through SHA-256 and counts its bytes.
func sumFile(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// HashSources hashes the names and contents of all files below some paths of
// the repository. Hidden files are left out, and of folders also tests and their
// data, which do not become part of a program; a test that is itself evidence is
// named as a file. A path that starts with "go:" stands for a Go program (goFiles).
func (in *Inputs) HashSources(paths []string) (string, error) {
	key := strings.Join(paths, "\x00")
	in.mu.Lock()
	defer in.mu.Unlock()
	if h, ok := in.sources[key]; ok {
		return h.input.SHA256, h.err
	}
	sum, err := in.sumSources(paths)
	if in.sources == nil {
		in.sources = map[string]hashed{}
	}
	in.sources[key] = hashed{evidence.Input{SHA256: sum}, err}
	return sum, err
}

// sumSources hashes a sorted list of names and hashes, so that neither the order of
// folders nor overlapping paths matter.
func (in *Inputs) sumSources(paths []string) (string, error) {
	var lines []string
	for _, p := range paths {
		pkg, isGo := strings.CutPrefix(p, goPrefix)
		if !filepath.IsLocal(pkg) {
			return "", fmt.Errorf("source %s: want a path inside the repository", p)
		}
		if isGo {
			files, err := goFiles(in.Root, pkg)
			if err != nil {
				return "", fmt.Errorf("source %s: %w", p, err)
			}
			for _, f := range files {
				sum, _, err := sumFile(filepath.Join(in.Root, filepath.FromSlash(f)))
				if err != nil {
					return "", fmt.Errorf("source %s: %w", p, err)
				}
				lines = append(lines, f+" "+sum)
			}
			continue
		}
		err := filepath.WalkDir(filepath.Join(in.Root, p), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case leftOut(d.Name()) && path != filepath.Join(in.Root, p):
				if d.IsDir() {
					return fs.SkipDir
				}
				return nil
			case !d.Type().IsRegular():
				return nil
			}
			sum, _, err := sumFile(path)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(in.Root, path)
			lines = append(lines, filepath.ToSlash(rel)+" "+sum)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("source %s: %w", p, err)
		}
	}
	slices.Sort(lines)
	return evidence.Hash([]byte(strings.Join(slices.Compact(lines), "\n"))), nil
}

// leftOut names what does not become part of a program.
func leftOut(name string) bool {
	return strings.HasPrefix(name, ".") || name == "testdata" || strings.HasSuffix(name, "_test.go")
}
