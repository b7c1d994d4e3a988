package apr

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/apr-engine/apr/chat"
	"github.com/apr-engine/apr/engine"
	aprfile "github.com/apr-engine/apr/format/apr"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/format/safetensors"
	"github.com/apr-engine/apr/internal/mmapfile"
	"github.com/apr-engine/apr/modelfile"
	"github.com/apr-engine/apr/modelfile/annotate"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tokenizer"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes of apr; scripts depend on them.
const (
	exitOK          = 0
	exitOther       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitFormat      = 4
	exitInvalid     = 5
	exitLoad        = 6
	exitIO          = 7
	exitInference   = 8
	exitBackend     = 14
	exitInterrupted = 130 // 128 + SIGINT, as shells report it
)

// ExitCodes explains the exit codes, for help and documentation.
var ExitCodes = []struct {
	Code    int
	Meaning string
}{
	{exitOK, "success"},
	{exitOther, "any other error"},
	{exitUsage, "usage: a flag, an argument or a prompt that does not fit the model"},
	{exitNotFound, "file not found, or not a file"},
	{exitFormat, "the file's format is bad"},
	{exitInvalid, "validation failed: a backend differs from the reference, or the output file exists"},
	{exitLoad, "the file is sound but cannot be run: unknown architecture, missing tensors"},
	{exitIO, "reading or writing failed"},
	{exitInference, "computing failed"},
	{exitBackend, "the backend that was asked for is not available or was rejected"},
	{exitInterrupted, "interrupted"},
}

// Kinds of errors that arise in this package.
var (
	errUsage   = errors.New("usage")
	errOutput  = errors.New("write to standard output")
	errInvalid = errors.New("validation failed")
)

// exitKinds maps kinds of errors to exit codes. The first match counts, so what
// is more particular comes first.
var exitKinds = []struct {
	kind error
	code int
}{
	{errUsage, exitUsage},
	{errOutput, exitIO},
	{errInvalid, exitInvalid},
	{context.Canceled, exitInterrupted},
	{engine.ErrBackend, exitBackend},
	{engine.ErrRejected, exitBackend},
	{parity.ErrMismatch, exitInvalid},
	{parity.ErrNotMeasured, exitInference},
	{fault.ErrNotApplicable, exitUsage},
	{fs.ErrNotExist, exitNotFound},
	{mmapfile.ErrNotRegular, exitNotFound},
	{mmapfile.ErrEmpty, exitFormat},
	{gguf.ErrFormat, exitFormat},
	{annotate.ErrUnknown, exitFormat},
	{annotate.ErrStructure, exitFormat},
	{aprfile.ErrFormat, exitFormat},
	{safetensors.ErrFormat, exitFormat},
	{modelfile.ErrSource, exitFormat},
	{modelfile.ErrConfig, exitFormat},
	{engine.ErrInput, exitUsage},
	{engine.ErrLoad, exitLoad},
	{engine.ErrInference, exitInference},
	{chat.ErrConversation, exitUsage},
	{chat.ErrNoTemplate, exitUsage},
	{chat.ErrTemplate, exitLoad},
	{chat.ErrLimit, exitLoad},
	{tokenizer.ErrID, exitUsage},
	{modelfile.ErrSameFile, exitUsage},
	{modelfile.ErrTypes, exitInvalid},
	{modelfile.ErrArch, exitLoad},
	{tokenizer.ErrUnsupported, exitLoad},
	{tokenizer.ErrFormat, exitFormat},
	{quant.ErrNotFinite, exitInvalid},
	{fs.ErrPermission, exitIO},
}

// exitCode is the process's exit code for an error.
func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	for _, k := range exitKinds {
		if errors.Is(err, k.kind) {
			return k.code
		}
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return exitIO
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return exitIO
	}
	return exitOther
}

// errorLine is what a user reads: one line, whatever the error holds.
func errorLine(err error) string {
	text := err.Error()
	if errors.Is(err, context.Canceled) {
		text = "interrupted"
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
	return "apr: " + text
}

// kindError gives an error a kind without showing the kind's name.
type kindError struct {
	error
	kind error
}

func (e kindError) Unwrap() []error { return []error{e.error, e.kind} }

// usageError is an error about the command line, with where to read about it.
func usageError(cmd *cobra.Command, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return kindError{fmt.Errorf("%w; see '%s --help'", err, cmd.CommandPath()), errUsage}
}

// flagError words pflag's errors like ours.
func flagError(cmd *cobra.Command, err error) error {
	if e, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		if e.GetFlag().Value.Type() == "bool" {
			return usageError(cmd, "--%s=%s: want true or false", e.GetFlag().Name, e.GetValue())
		}
		return usageError(cmd, "--%s %s: %w", e.GetFlag().Name, e.GetValue(), e.Unwrap())
	}
	return usageError(cmd, "%w", err)
}
