package falsify

import (
	"errors"
	"fmt"
	"go/build/constraint"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// goPrefix marks a source that is a Go program: "go:cmd/apr" stands for the package
// in that folder, every package of the module that it imports, directly or not and
// on any platform, what they embed, and go.mod and go.sum. So a package that is
// added to a program is among its sources without a change to a contract. No Go
// toolchain is needed.
const goPrefix = "go:"

// goFiles lists the files of a Go program, relative to root and with slashes. dir is
// the folder of its package.
func goFiles(root, dir string) ([]string, error) {
	module, err := modulePath(root)
	if err != nil {
		return nil, err
	}
	files := []string{"go.mod"}
	if _, err := os.Stat(filepath.Join(root, "go.sum")); err == nil {
		files = append(files, "go.sum")
	}
	seen := map[string]bool{dir: true}
	for queue := []string{path.Clean(dir)}; len(queue) > 0; queue = queue[1:] {
		of, imports, err := goPackage(root, queue[0])
		if err != nil {
			return nil, err
		}
		files = append(files, of...)
		for _, imp := range imports {
			next, ours := strings.CutPrefix(imp, module+"/")
			if ours && !seen[next] {
				seen[next] = true
				queue = append(queue, next)
			}
		}
	}
	return files, nil
}

// modulePath reads the module's name of go.mod.
func modulePath(root string) (string, error) {
	text, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "module "); ok {
			return strings.TrimSpace(name), nil
		}
	}
	return "", errors.New("go.mod names no module")
}

// goPackage lists the files of the package in a folder and what they import: Go,
// assembly and embedded files.
func goPackage(root, dir string) (files, imports []string, err error) {
	entries, err := os.ReadDir(filepath.Join(root, filepath.FromSlash(dir)))
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if !e.Type().IsRegular() || leftOut(name) {
			continue
		}
		if strings.HasSuffix(name, ".s") || strings.HasSuffix(name, ".h") {
			files = append(files, path.Join(dir, name))
		}
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, filepath.FromSlash(dir), name), nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return nil, nil, err
		}
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(dir), name))
		if err != nil {
			return nil, nil, err
		}
		if neverBuilt(string(text)) {
			continue
		}
		files = append(files, path.Join(dir, name))
		for _, i := range f.Imports {
			if p, err := strconv.Unquote(i.Path.Value); err == nil {
				imports = append(imports, p)
			}
		}
		embedded, err := embeds(root, dir, string(text))
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path.Join(dir, name), err)
		}
		files = append(files, embedded...)
	}
	if !slices.ContainsFunc(files, func(f string) bool { return strings.HasSuffix(f, ".go") }) {
		return nil, nil, fmt.Errorf("%s: no Go package", dir)
	}
	return files, imports, nil
}

// neverBuilt recognises programs beside a package that are run by hand: those with
// the constraint "ignore".
func neverBuilt(text string) bool {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if x, err := constraint.Parse(line); err == nil && constraint.IsGoBuild(line) {
			return x.String() == "ignore"
		}
		if strings.HasPrefix(line, "package ") {
			return false
		}
	}
	return false
}

// embeds lists the files that the go:embed lines of a file name.
func embeds(root, dir, text string) (files []string, err error) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "//go:embed ")
		if !ok {
			continue
		}
		for _, pattern := range strings.Fields(rest) {
			pattern = strings.TrimPrefix(strings.Trim(pattern, "\"`"), "all:")
			found, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(dir), filepath.FromSlash(pattern)))
			if err != nil || len(found) == 0 {
				return nil, fmt.Errorf("go:embed %s finds no file (%v)", pattern, err)
			}
			for _, at := range found {
				err := filepath.WalkDir(at, func(p string, d fs.DirEntry, err error) error {
					if err != nil || !d.Type().IsRegular() {
						return err
					}
					rel, err := filepath.Rel(root, p)
					files = append(files, filepath.ToSlash(rel))
					return err
				})
				if err != nil {
					return nil, err
				}
			}
		}
	}
	return files, nil
}
