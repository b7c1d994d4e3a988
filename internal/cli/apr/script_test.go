package apr_test

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	_ "github.com/apr-engine/apr/backend/all"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/internal/cli/apr"
	_ "github.com/apr-engine/apr/model/all"
	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	if os.Getenv(engine.EnvTrial) != "" { // a child of a test that runs in this process
		os.Exit(apr.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	testscript.Main(m, map[string]func(){
		"apr": func() { os.Exit(apr.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs testdata/script/*.txtar: command lines with their exact
// output. $MODEL and $SMALL are the bundled models, linked into each script's
// folder so that messages do not depend on where the repository lies.
func TestScripts(t *testing.T) {
	if testing.Short() {
		t.Skip("a process for each line takes long under the race detector")
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("MODEL", "28m.gguf")
			e.Setenv("SMALL", "4m.gguf")
			e.Setenv("APR_CERT_DIR", filepath.Join(e.WorkDir, "certs"))
			return linkModels(e.WorkDir, "28m.gguf", "4m.gguf")
		},
		Condition: func(name string) (bool, error) {
			if name == "root" { // who may read everything
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %s", name)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"fails":      fails,
			"jsonkeys":   jsonKeys,
			"fails-with": failsWith,
			"spoil":      spoilFiles,
			"damage":     damage,
		},
	})
}

func linkModels(dir, large, small string) error {
	root, err := filepath.Abs("../../../models")
	if err != nil {
		return err
	}
	if err := os.Symlink(filepath.Join(root, "tiny-coder-28m-q4_k_m.gguf"), filepath.Join(dir, large)); err != nil {
		return err
	}
	return os.Symlink(filepath.Join(root, "tiny-coder-4m-q4_k_m.gguf"), filepath.Join(dir, small))
}

// fails CODE LINE COMMAND ARG... runs a command that must end with this exit
// code, print exactly this line to stderr and nothing to stdout. ${WORK} in the
// line is the script's folder.
func fails(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: fails CODE LINE COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[2], args[3:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		ts.Fatalf("want exit code %d, got: %v", want, err)
	}
	if got := exit.ExitCode(); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
	line := strings.ReplaceAll(args[1], "${WORK}", ts.Getenv("WORK")) + "\n"
	if got := ts.ReadFile("stderr"); got != line {
		ts.Fatalf("stderr is\n\t%qwant\n\t%q", got, line)
	}
	if got := ts.ReadFile("stdout"); got != "" {
		ts.Fatalf("stdout is %q, want nothing", got)
	}
}

// jsonkeys FILE KEY... checks that a file holds one JSON object with exactly
// these keys.
func jsonKeys(ts *testscript.TestScript, neg bool, args []string) {
	var object map[string]any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &object))
	got, want := slices.Sorted(maps.Keys(object)), slices.Sorted(slices.Values(args[1:]))
	if slices.Equal(got, want) == neg {
		ts.Fatalf("keys are %q, want %q", got, want)
	}
}

// damage OUT IN cut N writes the first N bytes of a file; damage OUT IN set OFFSET
// HEX writes the file with the bytes at an offset replaced.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	data := []byte(ts.ReadFile(args[1]))
	at, err := strconv.Atoi(args[3])
	ts.Check(err)
	switch args[2] {
	case "cut":
		data = data[:at]
	case "set":
		bytes, err := hex.DecodeString(args[4])
		ts.Check(err)
		copy(data[at:], bytes)
	default:
		ts.Fatalf("damage %s", args[2])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o666))
}

// fails-with CODE COMMAND ARG... runs a command that must end with this exit
// code, whatever it prints.
func failsWith(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: fails-with CODE COMMAND ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != want {
		ts.Fatalf("want exit code %d, got: %v", want, err)
	}
}

// spoil DIR truncates every certificate in a folder.
func spoilFiles(ts *testscript.TestScript, neg bool, args []string) {
	files, err := filepath.Glob(filepath.Join(ts.MkAbs(args[0]), "*.cert.json"))
	ts.Check(err)
	if neg || len(files) == 0 {
		ts.Fatalf("no certificates in %s", args[0])
	}
	for _, f := range files {
		ts.Check(os.Truncate(f, 100))
	}
}
