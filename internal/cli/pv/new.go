package pv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/apr-engine/apr/contract"
	"github.com/spf13/cobra"
)

func newNew() *cobra.Command {
	var dir, kind, description string
	cmd := &cobra.Command{
		Use:     "new NAME",
		GroupID: groupWrite,
		Short:   "Write a contract to start from",
		Long: `Write DIR/NAME.yaml: a contract that passes pv validate, with one executable
falsifier that fails until it is given a real prediction. NAME ends in -v and
the major version, as in my-claim-v1. An existing file is never overwritten.`,
		Example: "  pv new startup-time-v1 --description 'apr starts fast'",
		Args:    paths(1, 1, "NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := args[0]
			if !contractName.MatchString(name) {
				return usageError(cmd, "name %q: want lower-case words with dashes that end in -v1, -v2, …", name)
			}
			if !slices.Contains(contract.Kinds(), kind) {
				return usageError(cmd, "--kind %s: want one of %s", kind, strings.Join(contract.Kinds(), ", "))
			}
			path := filepath.Join(dir, name+".yaml")
			text := contract.Scaffold(name, kind, description, time.Now())
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("%s is there already", path)
			} else if err != nil {
				return plainPathError(path, err)
			}
			_, err = f.WriteString(text)
			if err = errors.Join(err, f.Close()); err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), path)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "contracts", "folder to write to")
	cmd.Flags().StringVar(&kind, "kind", "schema", "kind of the contract")
	cmd.Flags().StringVar(&description, "description", "What this contract promises, in one sentence", "description of the contract")
	return cmd
}

// contractName is what contracts are called: the major version is part of the name,
// so that an incompatible successor can stand beside it.
var contractName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*-v[1-9][0-9]*$`)
