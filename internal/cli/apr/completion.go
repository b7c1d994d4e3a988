package apr

import (
	"bytes"
	"fmt"
	"strings"

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
