// Package pv is the command line of pv: one file a subcommand, each of which
// turns flags into options, calls a library and prints the result.
package pv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes of pv.
const (
	exitPass    = 0
	exitFound   = 1 // measured, and something is wrong
	exitNothing = 2 // nothing was measured, or the command line is wrong
)

// errFound ends a command whose findings are already printed.
var errFound = errors.New("findings")

// errUsage marks mistakes on the command line.
var errUsage = errors.New("usage")

// Main runs one command line and returns the process's exit code. Results go to
// stdout; if nothing could be measured, one line to stderr says why.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := New()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := root.ExecuteContext(ctx); {
	case err == nil:
		return exitPass
	case errors.Is(err, errFound):
		return exitFound
	default:
		line := strings.Join(strings.Fields(err.Error()), " ")
		fmt.Fprintln(stderr, "pv:", strings.TrimPrefix(line, "usage: "))
		return exitNothing
	}
}

// Command groups of the help page.
const (
	groupRead  = "read"
	groupProve = "prove"
	groupWrite = "write"
)

// New returns the root command with every subcommand.
func New() *cobra.Command {
	root := &cobra.Command{
		Use:   "pv",
		Short: "Check contracts by running what could refute them",
		Long: `pv checks contracts: YAML files with claims and the tests that could refute
them. It runs the tests, records evidence, and derives every status from
evidence that it can verify again.

Exit codes: 0 pass, 1 something is wrong, 2 nothing was measured or the command
line is wrong.`,
		Args:              cobra.ArbitraryArgs,
		RunE:              rootRun,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError(cmd, "%v", err) })
	root.AddGroup(
		&cobra.Group{ID: groupRead, Title: "Read and judge:"},
		&cobra.Group{ID: groupProve, Title: "Run and record:"},
		&cobra.Group{ID: groupWrite, Title: "Write:"},
	)
	for _, cmd := range commands() {
		check := cmd.Args
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return usageError(cmd, "%v", err)
			}
			return nil
		}
		cmd.DisableFlagsInUseLine = true
		root.AddCommand(cmd)
	}
	return root
}

func rootRun(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	hint := ""
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		hint = fmt.Sprintf(" (did you mean %s?)", strings.Join(s, " or "))
	}
	return usageError(cmd, "unknown command %q%s", args[0], hint)
}

// usageError is a mistake on the command line, with where to read more.
func usageError(cmd *cobra.Command, format string, args ...any) error {
	return fmt.Errorf("%w: %s; see '%s --help'", errUsage, fmt.Sprintf(format, args...), cmd.CommandPath())
}

// paths accepts between least and most paths; names are for the message.
func paths(least, most int, names string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) < least || len(args) > most {
			return fmt.Errorf("%d arguments, want %s", len(args), names)
		}
		for _, a := range args {
			if a == "" {
				return errors.New("an argument is empty, want " + names)
			}
		}
		return nil
	}
}
