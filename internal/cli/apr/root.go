// Package apr is the command line of apr: one file a subcommand, each of which
// turns flags into an options struct, calls a library and prints the result.
package apr

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Main runs one command line and returns the process's exit code. It prints the
// answer to stdout and, if the command fails, one line to stderr.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	// Without this a closed pipe kills the process before it can say why.
	signal.Ignore(syscall.SIGPIPE)
	root := New()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(stderr, errorLine(err))
	return exitCode(err)
}

// Command groups of the help page.
const (
	groupGenerate = "generate"
	groupLook     = "look"
	groupMeasure  = "measure"
	groupMake     = "make"
)

// New returns the root command with every subcommand.
func New() *cobra.Command {
	root := &cobra.Command{
		Use:   "apr",
		Short: "Run language models",
		Long: `apr runs language models in GGUF and .apr files.

The answer goes to stdout, everything else to stderr.

Exit codes
` + exitTable(),
		Args:          rootArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,
		// How many letters may differ for a command to be suggested.
		SuggestionsMinimumDistance: 2,
		CompletionOptions:          cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.PersistentFlags().BoolP("verbose", "v", false, "log what happens to stderr")
	root.SetFlagErrorFunc(flagError)
	root.AddGroup(
		&cobra.Group{ID: groupGenerate, Title: "Generate:"},
		&cobra.Group{ID: groupLook, Title: "Look inside:"},
		&cobra.Group{ID: groupMeasure, Title: "Measure:"},
		&cobra.Group{ID: groupMake, Title: "Make files:"},
	)
	for _, cmd := range []*cobra.Command{
		newRun(), newChat(),
		newInspect(), newTensors(), newTokenize(), newDetokenize(),
		newTree(), newValidate(), newDiff(), newHex(), newExplain(),
		newParity(), newDevices(), newLogits(), newPerplexity(), newBench(),
		newSynth(), newImport(), newExport(), newConvert(), newQuantize(),
		newVersion(), newCompletion(), newSelfTest(),
	} {
		wrap(cmd)
		completeFlags(cmd)
		root.AddCommand(cmd)
	}
	root.SetHelpCommand(newHelp())
	return root
}

// exitTable lists the exit codes for the help page.
func exitTable() string {
	var b strings.Builder
	for _, c := range ExitCodes {
		fmt.Fprintf(&b, "  %3d  %s\n", c.Code, c.Meaning)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// ownSignals marks commands that handle interrupts themselves.
const ownSignals = "own-signals"

// wrap gives a command the errors and the context that all commands share:
// what cobra finds wrong before RunE is a usage error, and an interrupt cancels
// the context, a second one ends the process.
func wrap(cmd *cobra.Command) {
	check, run := cmd.Args, cmd.RunE
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError(cmd, "%w", err)
		}
		return nil
	}
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if cmd.Annotations[ownSignals] == "" {
			var stop context.CancelFunc
			ctx, stop = signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
			defer stop()
			context.AfterFunc(ctx, stop)
		}
		cmd.SetContext(ctx)
		slog.SetDefault(logger(cmd)) // for warnings of libraries
		return run(cmd, args)
	}
}

func rootArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		hint = fmt.Sprintf(" (did you mean %s?)", strings.Join(s, " or "))
	}
	return usageError(cmd, "unknown command %q%s", args[0], hint)
}

// newHelp replaces cobra's help command, which prints errors by itself and
// then succeeds.
func newHelp() *cobra.Command {
	return &cobra.Command{
		Use:    "help [COMMAND]",
		Short:  "Show help for a command",
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usageError(cmd.Root(), "unknown command %q", strings.Join(args, " "))
			}
			return target.Help()
		},
	}
}

// logger returns the log of a command, on stderr: warnings always, the rest with
// --verbose.
func logger(cmd *cobra.Command) *slog.Logger {
	level := slog.LevelWarn
	if verbose(cmd) {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{} // a command lives for seconds
			}
			return a
		},
	}))
}

// modelArg accepts a model and up to extra further arguments; names are for
// the error message.
func modelArg(extra int, names string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == 0:
			return errors.New("no model given, want " + names)
		case args[0] == "":
			return errors.New("the model's path is empty")
		case extra >= 0 && len(args) > 1+extra:
			return fmt.Errorf("too many arguments, want %s (quote text with spaces)", names)
		}
		return nil
	}
}
