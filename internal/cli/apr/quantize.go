package apr

import (
	"errors"

	"github.com/spf13/cobra"
)

func newQuantize() *cobra.Command {
	return &cobra.Command{Use: "quantize IN OUT TYPE", GroupID: groupMake, Short: "s", Args: modelArg(2, "IN OUT TYPE"), RunE: func(*cobra.Command, []string) error { return errors.New("not there") }}
}
