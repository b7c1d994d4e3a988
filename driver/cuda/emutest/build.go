package emutest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

var errNoCompiler = errors.New("clang++-19 is not installed")

// compiler is the only one that is used, so that results do not depend on the
// machine.
const compiler = "clang++-19"

// flags: sums and products are not fused, so the emulation's rounding is the
// plainer one; a GPU's differs from it in the last bits. Unrolling makes some files
// take four times as long to compile and nothing faster to run.
var flags = []string{"-std=c++17", "-O2", "-fno-unroll-loops", "-ffp-contract=off", "-fPIC", "-DCUDA_EMU", "-Wall", "-Wno-unused-function", "-Wno-unused-const-variable", "-x", "c++"}

// build makes the emulation's library and returns its path. Objects are kept in
// the temporary folder by the hash of what they are made of.
func build() (string, error) {
	clang, err := exec.LookPath(compiler)
	if err != nil {
		return "", errNoCompiler
	}
	root, err := repository()
	if err != nil {
		return "", err
	}
	emu, kernels := filepath.Join(root, "driver", "cuda", "emu"), filepath.Join(root, "backend", "cuda", "kernels")
	var sources, headers []string
	for _, pattern := range []struct {
		glob string
		to   *[]string
	}{{emu + "/*.cpp", &sources}, {kernels + "/*.cu", &sources}, {emu + "/*.h", &headers}, {kernels + "/*.h", &headers}} {
		found, err := filepath.Glob(pattern.glob)
		if err != nil {
			return "", err
		}
		*pattern.to = append(*pattern.to, found...)
	}
	cache := filepath.Join(os.TempDir(), fmt.Sprintf("apr-cuda-emulation-%d", os.Getuid()))
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return "", err
	}
	b := builder{clang: clang, cache: cache, include: []string{"-I" + emu, "-I" + kernels}}
	objects, err := b.compileAll(sources, headers)
	if err != nil {
		return "", err
	}
	return b.link(objects)
}

type builder struct {
	clang, cache string
	include      []string
}

// compileAll compiles two files at a time.
func (b builder) compileAll(sources, headers []string) ([]string, error) {
	objects, failures := make([]string, len(sources)), make([]error, len(sources))
	var wait sync.WaitGroup
	slots := make(chan struct{}, 2)
	for i, source := range sources {
		wait.Go(func() {
			slots <- struct{}{}
			objects[i], failures[i] = b.compile(source, headers)
			<-slots
		})
	}
	wait.Wait()
	return objects, errors.Join(failures...)
}

func (b builder) compile(source string, headers []string) (string, error) {
	key, err := hash(append([]string{source}, headers...), flags)
	if err != nil {
		return "", err
	}
	object := filepath.Join(b.cache, filepath.Base(source)+"-"+key+".o")
	return object, b.produce(object, func(to string) []string {
		return slices.Concat(flags, b.include, []string{"-c", source, "-o", to})
	})
}

func (b builder) link(objects []string) (string, error) {
	key, err := hash(nil, objects)
	if err != nil {
		return "", err
	}
	library := filepath.Join(b.cache, "libcuda-emulation-"+key+".so")
	return library, b.produce(library, func(to string) []string {
		return append([]string{"-shared", "-o", to}, objects...)
	})
}

// produce runs the compiler unless the file is there; other processes may be
// doing the same.
func (b builder) produce(file string, args func(to string) []string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	tmp := fmt.Sprintf("%s.%d", file, os.Getpid())
	out, err := exec.Command(b.clang, args(tmp)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", compiler, err, out)
	}
	return os.Rename(tmp, file)
}

// hash names content: files with their bytes, and words.
func hash(files, words []string) (string, error) {
	h := sha256.New()
	for _, w := range words {
		fmt.Fprintln(h, w)
	}
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return "", err
		}
		fmt.Fprintln(h, filepath.Base(name))
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:8]), nil
}

// repository is the folder with go.mod above the test's.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for !fileExists(filepath.Join(dir, "go.mod")) {
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the test's folder: the emulation is built from the repository's sources")
		}
		dir = parent
	}
	return strings.TrimSuffix(dir, "/"), nil
}

func fileExists(name string) bool { _, err := os.Stat(name); return err == nil }
