package apr

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/apr-engine/apr/chat"
	"github.com/apr-engine/apr/engine"
	aprfile "github.com/apr-engine/apr/format/apr"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/format/safetensors"
	"github.com/apr-engine/apr/modelfile"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tokenizer"
)

func TestExitCode(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want int
	}{
		{"none", nil, 0},
		{"unknown", errors.New("x"), 1},
		{"usage", kindError{errors.New("x"), errUsage}, 2},
		{"request", engine.ErrInput, 2},
		{"template refuses", fmt.Errorf("%w: %w", engine.ErrInput, chat.ErrConversation), 2},
		{"missing file", &fs.PathError{Op: "open", Path: "x", Err: fs.ErrNotExist}, 3},
		{"missing template file", fmt.Errorf("%w: %w", engine.ErrInput, fs.ErrNotExist), 3},
		{"format", fmt.Errorf("x: %w", gguf.ErrFormat), 4},
		{"format of .apr", fmt.Errorf("x: %w", aprfile.ErrFormat), 4},
		{"format of safetensors", fmt.Errorf("x: %w", safetensors.ErrFormat), 4},
		{"no model file", fmt.Errorf("x: %w", modelfile.ErrSource), 4},
		{"broken folder", fmt.Errorf("x: %w", modelfile.ErrConfig), 4},
		{"folder that cannot be converted", fmt.Errorf("x: %w", modelfile.ErrArch), 6},
		{"unknown pre-tokenizer", fmt.Errorf("x: %w", tokenizer.ErrUnsupported), 6},
		{"tokenizer file", fmt.Errorf("x: %w", tokenizer.ErrFormat), 4},
		{"types that a container lacks", fmt.Errorf("x: %w", modelfile.ErrTypes), 5},
		{"not finite", quant.ErrNotFinite, 5},
		{"load", engine.ErrLoad, 6},
		{"template in the file", fmt.Errorf("%w: %w", engine.ErrLoad, chat.ErrTemplate), 6},
		{"permission", fmt.Errorf("open x: %w", fs.ErrPermission), 7},
		{"disk full", &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, 7},
		{"bare system error", fmt.Errorf("map: %w", syscall.ENOMEM), 7},
		{"closed pipe", fmt.Errorf("%w: %w", errOutput, syscall.EPIPE), 7},
		{"inference", engine.ErrInference, 8},
		{"backend", engine.ErrBackend, 14},
		{"interrupt", fmt.Errorf("x: %w", context.Canceled), 130},
		{"several, the first kind counts", errors.Join(context.Canceled, engine.ErrInference), 130},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := exitCode(fmt.Errorf("wrapped: %w", tt.err)); tt.err != nil && got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
			if got := exitCode(tt.err); got != tt.want {
				t.Errorf("%d, want %d", got, tt.want)
			}
		})
	}
}

func TestErrorLineIsOneLine(t *testing.T) {
	err := errors.Join(errors.New("first\r\nline"), errors.New("second"))
	if got, want := errorLine(err), "apr: first; line; second"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Commands write to the writers they are given.
func TestWriters(t *testing.T) {
	root := New()
	var out, errs bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&errs)
	root.SetArgs([]string{"version", "--json"})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	if !json.Valid(out.Bytes()) || errs.Len() > 0 {
		t.Errorf("out %q, err %q", out.String(), errs.String())
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, syscall.EPIPE }

// Whatever prints to stdout says when it cannot.
func TestClosedOutput(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"version", "--json"}, {"completion", "bash"}, {"synth", "--list"}} {
		var errs bytes.Buffer
		code := Main(args, strings.NewReader(""), failingWriter{}, &errs)
		if want := "apr: write to standard output: broken pipe\n"; code != exitIO || errs.String() != want {
			t.Errorf("%q: code %d, stderr %q; want %d, %q", args, code, errs.String(), exitIO, want)
		}
	}
}

func TestJSONNumbersOnOneLine(t *testing.T) {
	var b bytes.Buffer
	text := "[\n 1,\n 2]"
	err := (&output{w: &b}).json(map[string]any{"ids": []int{1, -2}, "x": []float64{1e-7}, "text": text, "none": []int{}, "words": []string{"1"}})
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "ids": [1, -2],
  "none": [],
  "text": "[\n 1,\n 2]",
  "words": [
    "1"
  ],
  "x": [1e-7]
}
`
	if b.String() != want {
		t.Errorf("%s\nwant\n%s", b.String(), want)
	}
}

func TestParseIDs(t *testing.T) {
	for _, tt := range []struct {
		name, text, want string
	}{
		{"commas", "1,2,3", "[1 2 3]"},
		{"mixed white space", " 1, 2\n3\t4\r\n", "[1 2 3 4]"},
		{"JSON", "[1, 2]\n", "[1 2]"},
		{"nothing", "", "[]"},
		{"largest", "2147483647", "[2147483647]"},
		{"too large", "2147483648", "error"},
		{"negative", "1,-1", "error"},
		{"word", "1,x", "error"},
		{"fraction", "1.5", "error"},
		{"open list", "[1", "error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ids, err := parseIDs(tt.text)
			got := fmt.Sprint(ids)
			if err != nil {
				got = "error"
			}
			if got != tt.want {
				t.Errorf("%s (%v), want %s", got, err, tt.want)
			}
		})
	}
}

// Every exit code is explained, and no other number.
func TestCodeHelp(t *testing.T) {
	for _, c := range ExitCodes {
		if help, ok := codeHelp[c.Code]; !ok || help[0] == "" || help[1] == "" {
			t.Errorf("apr explain %d does not say causes and what to do", c.Code)
		}
	}
	if len(codeHelp) != len(ExitCodes) {
		t.Errorf("%d codes are explained, there are %d", len(codeHelp), len(ExitCodes))
	}
}
