package falsify

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestGoFiles: the files found without Go's tools are all that go list names for
// the program, on this platform and on others.
func TestGoFiles(t *testing.T) {
	const root = "../.."
	files, err := goFiles(root, "cmd/apr")
	if err != nil {
		t.Fatal(err)
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, platform := range []string{"linux/amd64", "darwin/arm64", "windows/amd64"} {
		goos, goarch, _ := strings.Cut(platform, "/")
		cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Dir,GoFiles,SFiles,HFiles,EmbedFiles", "./cmd/apr")
		cmd.Dir, cmd.Env = root, append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		packages := 0
		for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
			var p struct {
				ImportPath, Dir                     string
				GoFiles, SFiles, HFiles, EmbedFiles []string
			}
			if err := dec.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(p.ImportPath, "github.com/apr-engine/apr/") {
				continue
			}
			packages++
			for _, name := range slices.Concat(p.GoFiles, p.SFiles, p.HFiles, p.EmbedFiles) {
				rel, err := filepath.Rel(abs, filepath.Join(p.Dir, name))
				if err != nil {
					t.Fatal(err)
				}
				if !slices.Contains(files, filepath.ToSlash(rel)) {
					t.Errorf("%s: %s is missing", platform, rel)
				}
			}
		}
		if packages < 20 {
			t.Errorf("%s: go list named %d packages", platform, packages)
		}
	}
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") || strings.HasPrefix(f, "contract/") || strings.HasPrefix(f, "cmd/pv") {
			t.Errorf("%s is no part of apr", f)
		}
	}
}

// module writes a small module and returns its folder.
func module(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":               "module example.org/m\n\ngo 1.26\n",
		"cmd/x/main.go":        "package main\n\nimport _ \"example.org/m/a\"\n\nfunc main() {}\n",
		"a/a.go":               "package a\n\nimport (\n\t_ \"embed\"\n\t_ \"fmt\"\n)\n\n//go:embed data/*.txt\nvar text string\n",
		"a/a_windows.go":       "package a\n\nimport _ \"example.org/m/w\"\n",
		"a/gen.go":             "//go:build ignore\n\npackage main\n\nimport _ \"example.org/m/tool\"\n",
		"a/a_test.go":          "package a\n",
		"a/a_amd64.s":          "",
		"a/README.md":          "",
		"a/data/one.txt":       "1",
		"a/data/other.md":      "",
		"w/w.go":               "package w\n",
		"tool/tool.go":         "package tool\n",
		"unrelated/strange.go": "package unrelated\n",
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// TestGoSourcesChange: the hash of a program changes with what it is made of, also
// when a package is added, and with nothing else.
func TestGoSourcesChange(t *testing.T) {
	root := module(t)
	sum := func() string {
		t.Helper()
		s, err := (&Inputs{Root: root}).HashSources([]string{"go:cmd/x"})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	files, err := goFiles(root, "cmd/x")
	slices.Sort(files)
	if want := []string{"a/a.go", "a/a_amd64.s", "a/a_windows.go", "a/data/one.txt", "cmd/x/main.go", "go.mod", "w/w.go"}; err != nil || !slices.Equal(files, want) {
		t.Fatalf("files %q (%v), want %q", files, err, want)
	}
	before := sum()
	write := func(name, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755), os.WriteFile(filepath.Join(root, name), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"a/README.md", "a/a_test.go", "a/gen.go", "a/data/other.md", "unrelated/strange.go"} {
		old, _ := os.ReadFile(filepath.Join(root, name))
		write(name, string(old)+"\n// changed\n")
		if sum() != before {
			t.Errorf("%s counts as a source", name)
		}
	}
	for _, name := range []string{"a/a.go", "a/a_amd64.s", "a/a_windows.go", "a/data/one.txt", "w/w.go", "go.mod"} {
		old, _ := os.ReadFile(filepath.Join(root, name))
		write(name, string(old)+"\n// changed\n")
		if sum() == before {
			t.Errorf("%s does not count as a source", name)
		}
		write(name, string(old))
	}
	write("new/new.go", "package new\n")
	if sum() != before {
		t.Error("a package that nothing imports counts")
	}
	write("w/w.go", "package w\n\nimport _ \"example.org/m/new\"\n")
	with := sum()
	write("new/new.go", "package new\n\nvar x int\n")
	if after := sum(); after == with {
		t.Error("a package that was added does not count")
	}
	for _, bad := range []string{"go:nothing", "go:../x", "go:a/data"} {
		if _, err := (&Inputs{Root: root}).HashSources([]string{bad}); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}
