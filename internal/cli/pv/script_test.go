package pv_test

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

	_ "github.com/apr-engine/apr/backend/all"
	"github.com/apr-engine/apr/contract"
	"github.com/apr-engine/apr/internal/cli/apr"
	"github.com/apr-engine/apr/internal/cli/pv"
	_ "github.com/apr-engine/apr/model/all"
	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"
)

var update = flag.Bool("update", false, "rewrite docs/pv, keeping the examples")

const repository = "../../.."

// expected are all commands. A new one is a line here, seen in review.
var expected = []string{"audit", "coverage", "diff", "discharge", "explain", "graph", "import", "lint", "new", "report", "run", "status", "validate"}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"pv":  func() { os.Exit(pv.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
		"apr": func() { os.Exit(apr.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs testdata/script/*.txtar. exits CODE COMMAND… wants an exit
// code.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		UpdateScripts: *update,
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) < 2 {
					ts.Fatalf("usage: exits CODE COMMAND ARG...")
				}
				code := 0
				err := ts.Exec(args[1], args[2:]...)
				if exit, ok := err.(*exec.ExitError); ok {
					code = exit.ExitCode()
				} else {
					ts.Check(err)
				}
				if got := fmt.Sprint(code); got != args[0] {
					ts.Fatalf("exit code %s, want %s", got, args[0])
				}
			},
		},
	})
}

func TestCommands(t *testing.T) {
	var got []string
	for _, c := range pv.New().Commands() {
		if c.Name() == "help" {
			continue
		}
		got = append(got, c.Name())
		for what, text := range map[string]string{"Short": c.Short, "Long": c.Long} {
			if strings.TrimSpace(text) == "" {
				t.Errorf("%s has no %s", c.Name(), what)
			}
		}
		if !strings.Contains(c.Example, "pv "+c.Name()) {
			t.Errorf("%s: the example does not use it", c.Name())
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, expected) {
		t.Errorf("commands are %q, want %q", got, expected)
	}
}

const (
	examplesStart = "## Examples\n"
	examplesEnd   = "\n<!-- All but the examples is written by go test ./internal/cli/pv -run TestPages -update -->\n"
)

// page writes a command's page around the examples.
func page(c *cobra.Command, examples string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# pv %s\n\n%s.\n\n", c.Name(), c.Short)
	fmt.Fprintf(&b, "    pv %s\n\n%s\n\n", c.Use, c.Long)
	fmt.Fprintf(&b, "## Flags\n\n```text\n%s```\n\n", c.LocalFlags().FlagUsages())
	b.WriteString("Exit codes: 0 pass, 1 something is wrong, 2 nothing was measured or the command line is wrong.\n\n")
	b.WriteString(examplesStart + examples + examplesEnd)
	return b.Bytes()
}

// TestPages compares docs/pv with the commands: a page each and no other.
func TestPages(t *testing.T) {
	dir := filepath.Join(repository, "docs", "pv")
	root := pv.New()
	for _, name := range expected {
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
		if !strings.Contains(examples, "\n$ ") || !strings.Contains(examples, "pv "+name) {
			t.Errorf("%s has no example with its output", path)
		}
		if want := page(c, examples); *update {
			if err := os.WriteFile(path, want, 0o666); err != nil {
				t.Fatal(err)
			}
		} else if !bytes.Equal(old, want) {
			t.Errorf("%s is not what the command says: go test ./internal/cli/pv -run TestPages -update", path)
		}
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

// file is a block of a page that stands for a file: its name in a comment of
// the first line.
var file = regexp.MustCompile("(?ms)^```yaml\n# file: (\\S+)\n(.*?)^```$")

var session = regexp.MustCompile("(?ms)^```console\n(.*?)^```$")

// block is what a page does at one place: write a file or run commands.
type block struct {
	at         int
	name, text string // a file
	console    string
}

func blocks(text string) []block {
	var bs []block
	for _, m := range file.FindAllStringSubmatchIndex(text, -1) {
		bs = append(bs, block{at: m[0], name: text[m[2]:m[3]], text: text[m[4]:m[5]]})
	}
	for _, m := range session.FindAllStringSubmatchIndex(text, -1) {
		bs = append(bs, block{at: m[0], console: text[m[2]:m[3]]})
	}
	slices.SortFunc(bs, func(a, b block) int { return a.at - b.at })
	return bs
}

// TestExamples plays docs/contracts.md and docs/pv from top to bottom, each in
// a folder with the models: files are written as the page shows them, and what
// is marked console must print what the page says.
func TestExamples(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("the examples need a POSIX shell")
	}
	models, err := filepath.Abs(filepath.Join(repository, "models"))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(repository, "docs", "pv", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(pages, filepath.Join(repository, "docs", "contracts.md")) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := os.Symlink(models, filepath.Join(dir, "models")); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(filepath.Join(dir, "contracts"), 0o777); err != nil {
				t.Fatal(err)
			}
			for _, b := range blocks(string(text)) {
				if b.name != "" {
					if err := os.WriteFile(filepath.Join(dir, b.name), []byte(b.text), 0o666); err != nil {
						t.Fatal(err)
					}
					continue
				}
				play(t, shell, dir, b.console)
			}
		})
	}
}

// play runs the commands of a console block: lines that start with $, and the
// lines that follow with > continue them.
func play(t *testing.T, shell, dir, console string) {
	t.Helper()
	var command, want string
	run := func() {
		if command == "" {
			return
		}
		cmd := exec.Command(shell, "-c", command)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput() // commands that find something say so
		if string(out) != want {
			t.Errorf("$ %s\n%s(%v), the page says\n%s", command, out, err, want)
		}
	}
	for line := range strings.Lines(console) {
		switch {
		case strings.HasPrefix(line, "$ "):
			run()
			command, want = strings.TrimSuffix(line[2:], "\n"), ""
		case strings.HasPrefix(line, "> ") && want == "":
			command += "\n" + strings.TrimSuffix(line[2:], "\n")
		default:
			want += line
		}
	}
	run()
}

// The rules that the documentation names exist, and every rule is in the table.
func TestRulesAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repository, "docs", "contracts.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range regexp.MustCompile(`\b[A-Z]+-\d{3}\b`).FindAllString(string(text), -1) {
		if _, ok := contract.FindRule(id); !ok && !strings.HasPrefix(id, "THREADS-") {
			t.Errorf("docs/contracts.md names %s, which is no rule", id)
		}
	}
}
