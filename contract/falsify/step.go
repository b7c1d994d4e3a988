package falsify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/apr-engine/apr/contract"
	"github.com/apr-engine/apr/evidence"
)

// maxOutput bounds what a step may print to each stream.
const maxOutput = 16 << 20

// experiment is one test being carried out. Its commands run in a scratch folder
// with links to the repository and to the models, so that command lines and
// outputs do not depend on where these lie.
type experiment struct {
	*Runner
	work    string
	rec     *evidence.Record
	outputs map[string][]byte
}

// Names of the links in the scratch folder.
const (
	repoLink  = "repo"
	modelLink = "models"
)

// inputs hashes what the test reads and makes it reachable.
func (x *experiment) inputs(t *contract.Test) error {
	root, err := filepath.Abs(x.Inputs.Root)
	if err != nil {
		return err
	}
	if err := errors.Join(os.Symlink(root, filepath.Join(x.work, repoLink)), os.Mkdir(filepath.Join(x.work, modelLink), 0o755)); err != nil {
		return err
	}
	for _, name := range modelNames(t) {
		path, err := x.Inputs.Model(name)
		if err != nil {
			return err
		}
		in, err := x.Inputs.HashModel(name)
		if err != nil {
			return err
		}
		if err := os.Symlink(path, filepath.Join(x.work, modelLink, filepath.Base(path))); err != nil {
			return err
		}
		x.rec.Models = append(x.rec.Models, in)
	}
	for _, name := range programNames(t) {
		in, err := x.Inputs.HashProgram(name)
		if err != nil {
			return err
		}
		x.rec.Programs = append(x.rec.Programs, in)
	}
	if paths := sourcePaths(t); len(paths) > 0 {
		sum, err := x.Inputs.HashSources(paths)
		if err != nil {
			return err
		}
		x.rec.Sources = &evidence.Sources{Paths: paths, SHA256: sum}
	}
	return nil
}

func sourcePaths(t *contract.Test) []string {
	var paths []string
	for _, s := range t.Sources {
		paths = append(paths, s.Value)
	}
	return paths
}

// modelNames are the models that a test requires or names in a command.
func modelNames(t *contract.Test) []string {
	var names []string
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, r := range t.Requires {
		if r.Kind == "model" {
			add(r.Name)
		}
	}
	note := func(text string) {
		contract.Expand(text, func(name string) string {
			if model, ok := strings.CutPrefix(name, "model:"); ok {
				add(model)
			}
			return ""
		})
	}
	for _, s := range t.Steps {
		note(s.Shell.Value)
		for _, a := range s.Run {
			note(a.Value)
		}
		for _, v := range s.Env {
			note(v.Value.Value)
		}
	}
	return names
}

// programNames are the programs that a test starts. For a shell line these are
// the shell and the words in it that the requirements name as programs.
func programNames(t *contract.Test) []string {
	var names []string
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, s := range t.Steps {
		if len(s.Run) > 0 {
			add(s.Run[0].Value)
		} else {
			add("sh")
		}
	}
	for _, r := range t.Requires {
		switch r.Kind {
		case "peer":
			add(r.Name)
		case "command":
			add(strings.Fields(r.Name)[0])
		}
	}
	return names
}

// expand replaces placeholders by paths relative to the scratch folder.
func (x *experiment) expand(text string) string {
	return contract.Expand(text, func(name string) string {
		switch {
		case name == "root":
			return repoLink
		case name == "work":
			return "."
		}
		model, ok := strings.CutPrefix(name, "model:")
		if !ok {
			return "${" + name + "}" // the shell's
		}
		if path, err := x.Inputs.Model(model); err == nil {
			model = filepath.Base(path)
		}
		return modelLink + "/" + model
	})
}

// step runs one command and records what it did.
func (x *experiment) step(ctx context.Context, i int, s *contract.Step, handled []contract.Check) error {
	argv := []string{"sh", "-c", x.expand(s.Shell.Value)}
	if len(s.Run) > 0 {
		argv = argv[:0]
		for _, a := range s.Run {
			argv = append(argv, x.expand(a.Value))
		}
	}
	path, err := x.Inputs.Program(argv[0])
	if err != nil {
		return err
	}
	timeout := s.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.Args[0] = argv[0]
	cmd.Dir = x.work
	cmd.Stdin = strings.NewReader(x.expand(s.Stdin.Value))
	var stdout, stderr limited
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	ownGroup(cmd)
	cmd.WaitDelay = 5 * time.Second
	step := evidence.Step{Name: s.Name.Value, Argv: argv}
	cmd.Env = x.environment()
	for _, v := range s.Env {
		pair := v.Name + "=" + x.expand(v.Value.Value)
		cmd.Env = append(cmd.Env, pair)
		step.Env = append(step.Env, pair)
	}
	start := time.Now()
	err = cmd.Run()
	// Rounded, so that the record has one decimal form.
	step.Seconds = float64(time.Since(start).Milliseconds()) / 1000
	step.TimedOut = errors.Is(ctx.Err(), context.DeadlineExceeded)
	step.Exit = cmd.ProcessState.ExitCode()
	step.Stdout = x.keep(stream(i, "stdout"), stdout.buf.Bytes())
	step.Stderr = x.keep(stream(i, "stderr"), stderr.buf.Bytes())
	for _, c := range append(slices.Clone(s.Expect), handled...) {
		if c.On == "file" {
			if step.Files == nil {
				step.Files = map[string]evidence.FileFact{}
			}
			step.Files[c.Path] = fileFact(x.work, c.Path)
		}
	}
	x.rec.Steps = append(x.rec.Steps, step)
	var exit *exec.ExitError
	switch {
	case step.TimedOut:
		return fmt.Errorf("not finished after %v", timeout)
	case stdout.over || stderr.over:
		return fmt.Errorf("more than %d bytes of output", maxOutput)
	case err != nil && !errors.As(err, &exit):
		return err
	}
	return nil
}

// keep holds a stream until the bundle is written and describes it.
func (x *experiment) keep(name string, data []byte) evidence.Output {
	x.outputs[name] = data
	return evidence.Output{File: name, Bytes: int64(len(data)), SHA256: evidence.Hash(data)}
}

// environment is what every command gets: the search path with the programs
// under test first, an empty user cache, so that no earlier verdict is reused,
// and none of the variables that change how apr computes.
func (x *experiment) environment() []string {
	var bin []string
	for _, dir := range x.Inputs.Bin {
		if abs, err := filepath.Abs(dir); err == nil {
			bin = append(bin, abs)
		}
	}
	search := strings.Join(append(bin, os.Getenv("PATH")), string(os.PathListSeparator))
	env := []string{"PATH=" + search, "LC_ALL=C", "XDG_CACHE_HOME=" + filepath.Join(x.work, ".cache"), "TMPDIR=" + os.TempDir()}
	keep := []string{"HOME", "GOPATH", "GOMODCACHE", "GOFLAGS", "GOPROXY", "GOTOOLCHAIN", "VK_ICD_FILENAMES", "VK_DRIVER_FILES", "WGPU_NATIVE_PATH", "LD_LIBRARY_PATH"}
	for _, name := range keep {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	// The cache of the Go command would follow XDG_CACHE_HOME.
	gocache := os.Getenv("GOCACHE")
	if gocache == "" {
		if dir, err := os.UserCacheDir(); err == nil {
			gocache = filepath.Join(dir, "go-build")
		}
	}
	return append(env, "GOCACHE="+gocache)
}

// limited collects output up to maxOutput and remembers if there was more. The
// buffer is not embedded: its ReadFrom would be used instead of Write.
type limited struct {
	buf  bytes.Buffer
	over bool
}

// Write never fails: an error would end the command with a broken pipe, which
// would look like a failure of its own.
func (l *limited) Write(p []byte) (int, error) {
	if room := maxOutput - l.buf.Len(); len(p) > room {
		l.over = true
		l.buf.Write(p[:max(room, 0)])
		return len(p), nil // the command goes on, its verdict is void
	}
	return l.buf.Write(p)
}
