package apr

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/apr-engine/apr/chat"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/synth"
	"github.com/spf13/cobra"
)

// shells writes the completion script of each shell.
var shells = map[string]func(root *cobra.Command, w *bytes.Buffer) error{
	"bash":       func(root *cobra.Command, w *bytes.Buffer) error { return root.GenBashCompletionV2(w, true) },
	"zsh":        func(root *cobra.Command, w *bytes.Buffer) error { return root.GenZshCompletion(w) },
	"fish":       func(root *cobra.Command, w *bytes.Buffer) error { return root.GenFishCompletion(w, true) },
	"powershell": func(root *cobra.Command, w *bytes.Buffer) error { return root.GenPowerShellCompletionWithDesc(w) },
}

func newCompletion() *cobra.Command {
	names := []string{"bash", "zsh", "fish", "powershell"}
	choices := strings.Join(names, ", ")
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a completion script for a shell",
		Long:  `Print a script that teaches a shell to complete apr's commands, flags and models.`,
		Example: `  source <(apr completion bash)
  apr completion zsh > "${fpath[1]}/_apr"
  apr completion fish > ~/.config/fish/completions/apr.fish
  apr completion powershell | Out-String | Invoke-Expression`,
		ValidArgs: names,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("want one shell: %s", choices)
			}
			if shells[args[0]] == nil {
				return fmt.Errorf("unknown shell %q, want one of %s", args[0], choices)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			var script bytes.Buffer
			if err := shells[args[0]](cmd.Root(), &script); err != nil {
				return err
			}
			_, err := stdout(cmd).Write(script.Bytes())
			return err
		},
	}
}

// completeModel offers model files to the shell for the first argument.
func completeModel(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{"gguf", "apr"}, cobra.ShellCompDirectiveFilterFileExt
}

// flagValues are the words that the shell offers for flags, whatever command
// has them.
func flagValues() map[string][]string {
	return map[string][]string{
		"backend":       engine.Backends(),
		"kv":            cacheTypes,
		"chat-template": chat.BuiltinNames(),
		"output":        benchFormats,
		"preset":        synth.Presets(),
		"quant":         quant.RecipeNames(),
	}
}

// completeFlags registers the words of the flags that a command has.
func completeFlags(cmd *cobra.Command) {
	for flag, words := range flagValues() {
		// --output is a file, save for bench.
		if cmd.Flags().Lookup(flag) == nil || flag == "output" && cmd.Name() != "bench" {
			continue
		}
		// It fails only for a flag that does not exist or is registered already.
		if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveDefault)); err != nil {
			panic(err)
		}
	}
}
