package apr_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/internal/cli/apr"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "rewrite docs/cli, keeping the examples")

// expected are all commands. A new one is a line here, seen in review.
var expected = []string{
	"bench", "chat", "completion", "convert", "detokenize", "devices", "diff", "explain", "export", "hex",
	"import", "inspect", "logits", "parity", "perplexity", "quantize", "run", "synth", "tensors",
	"tokenize", "tree", "validate", "version",
}

const repository = "../../.."

func names(root *cobra.Command) []string {
	var list []string
	for _, c := range root.Commands() {
		if !c.Hidden {
			list = append(list, c.Name())
		}
	}
	slices.Sort(list)
	return list
}

func TestCommands(t *testing.T) {
	root := apr.New()
	if got := names(root); !slices.Equal(got, expected) {
		t.Fatalf("commands are %q, want %q", got, expected)
	}
	for _, c := range root.Commands() {
		if c.Hidden {
			if c.Name() != "help" && c.Name() != "internal-selftest" {
				t.Errorf("%s is hidden", c.Name())
			}
			continue
		}
		for what, text := range map[string]string{"Short": c.Short, "Long": c.Long, "Example": c.Example} {
			if strings.TrimSpace(text) == "" {
				t.Errorf("%s has no %s", c.Name(), what)
			}
		}
		if !strings.Contains(c.Example, "apr "+c.Name()) {
			t.Errorf("%s: the example does not use it", c.Name())
		}
		if c.Args == nil || c.RunE == nil {
			t.Errorf("%s does not check its arguments or does nothing", c.Name())
		}
	}
}

// The README's table has one row a command, with its page and its Short.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile(filepath.Join(repository, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| \\[`apr (\\S+)`\\]\\(docs/cli/(\\S+)\\.md\\) \\| (.*) \\|$").FindAllSubmatch(readme, -1) {
		name, page, short := string(m[1]), string(m[2]), string(m[3])
		if name != page {
			t.Errorf("the row of %s links to the page of %s", name, page)
		}
		if _, twice := rows[name]; twice {
			t.Errorf("%s has two rows", name)
		}
		rows[name] = short
	}
	root := apr.New()
	for _, name := range expected {
		c, _, err := root.Find([]string{name})
		if err != nil {
			t.Fatal(err)
		}
		if short, ok := rows[name]; !ok {
			t.Errorf("no row for %s: add | [`apr %s`](docs/cli/%s.md) | %s |", name, name, name, c.Short)
		} else if short != c.Short {
			t.Errorf("the row of %s says %q, the command %q", name, short, c.Short)
		}
		delete(rows, name)
	}
	for name := range rows {
		t.Errorf("there is a row for %s, which is no command", name)
	}
}

const (
	examplesStart = "## Examples\n"
	examplesEnd   = "\n## Exit codes\n"
)

// page writes a command's page around the examples.
func page(c *cobra.Command, examples string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# apr %s\n\n%s.\n\n", c.Name(), c.Short)
	fmt.Fprintf(&b, "    apr %s\n\n%s\n\n", c.Use, c.Long)
	fmt.Fprintf(&b, "## Flags\n\n```text\n%s%s```\n\n", c.LocalFlags().FlagUsages(), c.InheritedFlags().FlagUsages())
	b.WriteString(examplesStart + examples + examplesEnd)
	b.WriteString("\n| code | meaning |\n| ---: | --- |\n")
	for _, e := range apr.ExitCodes {
		fmt.Fprintf(&b, "| %d | %s |\n", e.Code, e.Meaning)
	}
	b.WriteString("\n<!-- All but the examples is written by go test ./internal/cli/apr -run TestPages -update -->\n")
	return b.Bytes()
}

// TestPages compares docs/cli with the commands: a page each and no other, with
// the flags as they are, and examples by hand.
func TestPages(t *testing.T) {
	dir := filepath.Join(repository, "docs", "cli")
	root := apr.New()
	root.InitDefaultHelpFlag()
	for _, name := range expected {
		t.Run(name, func(t *testing.T) {
			c, _, err := root.Find([]string{name})
			if err != nil {
				t.Fatal(err)
			}
			c.InitDefaultHelpFlag()
			path := filepath.Join(dir, name+".md")
			old, err := os.ReadFile(path)
			if err != nil && !*update {
				t.Fatal(err)
			}
			_, rest, _ := strings.Cut(string(old), examplesStart)
			examples, _, _ := strings.Cut(rest, examplesEnd)
			if !strings.Contains(examples, "\n$ ") || !strings.Contains(examples, "apr "+name) {
				t.Errorf("%s has no example with its output", path)
			}
			want := page(c, examples)
			if *update {
				if err := os.WriteFile(path, want, 0o666); err != nil {
					t.Fatal(err)
				}
			} else if !bytes.Equal(old, want) {
				t.Errorf("%s is not what the command says: go test ./internal/cli/apr -run TestPages -update", path)
			}
		})
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".md"); !slices.Contains(expected, name) {
			t.Errorf("%s is the page of no command", f)
		}
	}
}

// TestExamples runs the examples of docs/cli and the README that are marked
// console, in a folder with the models: the output must be that on the page. Those
// marked text depend on the machine and are not run.
func TestExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("a process for each line takes long under the race detector")
	}
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("the examples need a POSIX shell")
	}
	models, err := filepath.Abs(filepath.Join(repository, "models"))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(repository, "docs", "cli", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(pages, filepath.Join(repository, "README.md"), filepath.Join(models, "README.md")) {
		t.Run(filepath.Base(filepath.Dir(path))+"/"+filepath.Base(path), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := os.Symlink(models, filepath.Join(dir, "models")); err != nil {
				t.Fatal(err)
			}
			for _, session := range sessions(string(text)) {
				cmd := exec.Command(shell, "-c", session.command)
				cmd.Dir = dir
				cmd.Env = append(os.Environ(), "APR_CERT_DIR="+filepath.Join(dir, "certs"))
				out, err := cmd.CombinedOutput() // sessions with errors show them
				if string(out) != session.output {
					t.Errorf("$ %s\n%s(%v), the page says\n%s", session.command, out, err, session.output)
				}
			}
		})
	}
}

type session struct{ command, output string }

// sessions finds the commands and outputs of the blocks marked console.
func sessions(markdown string) (list []session) {
	for _, m := range regexp.MustCompile("(?ms)^```console\n(.*?)^```$").FindAllStringSubmatch(markdown, -1) {
		for line := range strings.Lines(m[1]) {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				list = append(list, session{command: strings.TrimSuffix(command, "\n")})
			} else if len(list) > 0 {
				list[len(list)-1].output += line
			}
		}
	}
	return list
}
