package layout

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/apr-engine/apr/"

// allowed lists, for each package, the packages of ours that it may import; a
// trailing /... covers a subtree. Packages depend downwards only: an arrow that
// is not here is a change of the design and belongs in review.
var allowed = map[string][]string{
	"tensor":              {},
	"internal/cpufeat":    {},
	"internal/mmapfile":   {},
	"internal/osyield":    {},
	"internal/golden":     {},
	"internal/layout":     {},
	"quant":               {"tensor"},
	"kernel":              {"quant", "tensor", "internal/cpufeat"},
	"kernel/kerneltest":   {"kernel", "quant", "tensor", "internal/cpufeat"},
	"internal/newfile":    {},
	"format/gguf":         {"tensor", "internal/mmapfile", "internal/newfile"},
	"format/apr":          {"tensor", "internal/mmapfile", "internal/newfile"},
	"format/safetensors":  {"tensor", "internal/mmapfile", "internal/newfile"},
	"tokenizer":           {},
	"chat":                {"chat/internal/..."},
	"chat/internal/...":   {"chat/internal/..."},
	"graph":               {"tensor"},
	"model":               {"graph", "tensor"},
	"model/...":           {"model", "model/...", "graph", "tensor"},
	"backend":             {"graph", "quant", "tensor"},
	"backend/oracle":      {"backend", "graph", "quant", "tensor"},
	"backend/cpu":         {"backend", "graph", "quant", "tensor", "kernel", "internal/cpufeat", "internal/osyield"},
	"backend/packed":      {"quant", "tensor"},
	"backend/split":       {"backend", "graph"},
	"backend/cuda":        {"backend", "backend/packed", "graph", "quant", "tensor", "driver/cuda"},
	"backend/wgpu":        {"backend", "backend/packed", "backend/wgpu/...", "graph", "quant", "tensor", "driver/wgpu"},
	"backend/wgpu/...":    {"backend/packed", "graph", "quant", "tensor", "driver/wgpu"},
	"driver/cuda":         {},
	"driver/cuda/emutest": {"driver/cuda"},
	"backend/backendtest": {"backend", "graph", "model", "model/all", "format/gguf", "tensor", "internal/golden"},
	"backend/faulttest":   {"backend", "engine", "internal/golden", "model/all", "parity", "parity/fault", "synth", "tensor"},
	"driver/wgpu":         {},
	"backend/all":         {"backend/..."},
	"parity":              {"backend", "graph", "tensor"},
	"parity/fault":        {"backend", "graph", "quant", "tensor"},
	"report":              {"parity"},
	"engine":              {"model", "graph", "backend", "backend/split", "parity", "tokenizer", "chat", "format/gguf", "modelfile", "quant", "kernel", "tensor"},
	"bench":               {"engine", "backend", "graph", "kernel", "tensor", "internal/mmapfile"},
	"synth":               {"format/gguf", "quant", "tensor"},
	"modelfile":           {"modelfile/names", "format/gguf", "quant", "tensor", "format/apr", "format/safetensors", "tokenizer", "internal/newfile", "internal/mmapfile"},
	"internal/cli/apr":    {"engine", "parity", "parity/fault", "report", "chat", "tokenizer", "format/gguf", "backend", "kernel", "tensor", "quant", "synth", "bench", "internal/cpufeat", "internal/mmapfile", "modelfile/...", "format/apr", "format/safetensors"},
	"internal/gatescore":  {"engine", "parity", "parity/fault", "synth", "backend", "backend/all", "model/all", "graph", "tensor"},
	"modelfile/source":    {"modelfile/annotate", "format/gguf", "format/safetensors", "tensor", "internal/mmapfile", "modelfile"},
	"modelfile/names":     {},
	"modelfile/annotate":  {"quant", "tensor"},
	"modelfile/check":     {"modelfile/...", "format/safetensors", "model", "graph", "tokenizer", "quant", "tensor", "internal/mmapfile"},
	"modelfile/compare":   {"modelfile/...", "format/gguf", "tensor"},
	"modelfile/outline":   {"modelfile/...", "tensor"},
	"modelfile/explain":   {"modelfile/...", "quant", "tensor"},
	"modelfile/scan":      {"kernel", "quant", "tensor"},
	"modelfile/stats":     {"modelfile/scan", "quant", "tensor"},
	"cmd/apr":             {"internal/cli/apr", "model/all", "backend/all"},
	"contract":            {},
	"contract/...":        {"contract", "evidence"},
	"evidence":            {},
	"report/contracts":    {"contract", "contract/...", "evidence"},
	"internal/cli/pv":     {"contract", "contract/...", "evidence", "report/contracts"},
	"cmd/pv":              {"internal/cli/pv"},
}

// only names the packages that may import a module from outside, with the reason.
var only = map[string]struct {
	packages []string
	reason   string
}{
	"github.com/spf13/cobra": {[]string{"internal/cli/..."}, "only the command line knows flags; libraries are called with options"},
	"golang.org/x/sys":       {[]string{"internal/cpufeat", "internal/mmapfile", "internal/osyield", "kernel/kerneltest", "internal/cli/..."}, "system calls stay behind our own small packages"},
	"go.yaml.in/yaml/v4":     {[]string{"contract"}, "only the loader knows how a contract is written down"},
	"golang.org/x/mod":       {[]string{"contract"}, "versions of contracts are compared in one place"},
	"github.com/secure-systems-lab/go-securesystemslib": {[]string{"evidence"}, "only the ledger signs"},
	"github.com/ebitengine/purego":                      {[]string{"driver/..."}, "linking it makes the binary dynamic, so the CPU-only build must be able to leave it out"},
}

type pkg struct {
	ImportPath string
	Doc        string
	Imports    []string
	Name       string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Doc,Imports,Name", module+"...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v: %s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

// matches reports whether one of the patterns covers a path.
func matches(patterns []string, p string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if root, ok := strings.CutSuffix(pattern, "/..."); ok {
			return p == root || strings.HasPrefix(p, root+"/")
		}
		return p == pattern
	})
}

// rule is the entry of allowed for a package: its own, else that of the nearest
// subtree.
func rule(p string) ([]string, bool) {
	if r, ok := allowed[p]; ok {
		return r, true
	}
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		if r, ok := allowed[dir+"/..."]; ok {
			return r, true
		}
	}
	return nil, false
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		ours, ok := rule(name)
		if !ok {
			t.Errorf("%s has no rule: add it to the table with what it may import", name)
			continue
		}
		for _, imp := range p.Imports {
			if dep, ok := strings.CutPrefix(imp, module); ok && !matches(ours, dep) {
				t.Errorf("%s imports %s, which the layout does not allow", name, dep)
			}
			for prefix, o := range only {
				if (imp == prefix || strings.HasPrefix(imp, prefix+"/")) && !matches(o.packages, name) {
					t.Errorf("%s imports %s: %s", name, imp, o.reason)
				}
			}
		}
	}
}

func TestPackageComments(t *testing.T) {
	for _, p := range packages(t) {
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
		for _, empty := range []string{"util", "utils", "common", "helpers", "misc"} {
			if p.Name == empty {
				t.Errorf("%s: the name says nothing", p.ImportPath)
			}
		}
	}
}
