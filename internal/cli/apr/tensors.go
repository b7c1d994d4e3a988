package apr

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/apr-engine/apr/engine"
	"github.com/spf13/cobra"
)

type tensorsOptions struct {
	model  string
	filter string
	limit  int
	json   bool
}

func newTensors() *cobra.Command {
	var o tensorsOptions
	cmd := &cobra.Command{
		Use:     "tensors MODEL [flags]",
		GroupID: groupLook,
		Short:   "List the tensors of a model file",
		Long: `List name, type, shape (slowest-varying dimension first: rows, columns), size and
offset of each tensor, in file order.

--filter keeps the names that contain the text, or that match it if it holds one
of * ? [, where * stands for any run of characters.`,
		Example: `  apr tensors models/tiny-coder-4m-q4_k_m.gguf --filter attn_q
  apr tensors models/tiny-coder-4m-q4_k_m.gguf --filter 'blk.0.*' --limit 3 --json`,
		Args:              modelArg(0, "MODEL"),
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.model = args[0]
			return o.run(cmd)
		},
	}
	cmd.Flags().StringVar(&o.filter, "filter", "", "only tensors whose name contains or matches this")
	cmd.Flags().Var(intValue{&o.limit, 0, maxCount}, "limit", "show at most so many; 0 for all")
	cmd.Flags().BoolVar(&o.json, "json", false, "print a JSON array")
	return cmd
}

func (o *tensorsOptions) run(cmd *cobra.Command) error {
	if _, err := path.Match(o.filter, ""); err != nil {
		return usageError(cmd, "--filter %s: not a pattern", o.filter)
	}
	list, err := engine.ListTensors(o.model)
	if err != nil {
		return err
	}
	total := len(list)
	list = slices.DeleteFunc(list, func(t engine.TensorInfo) bool { return !matches(o.filter, t.Name) })
	found := len(list)
	if o.limit > 0 && o.limit < len(list) {
		list = list[:o.limit]
	}
	out := stdout(cmd)
	if o.json {
		return out.json(list)
	}
	rows := [][]string{{"NAME", "TYPE", "SHAPE", "BYTES", "OFFSET"}}
	var size int64
	for _, t := range list {
		dims := make([]string, len(t.Shape))
		for i, d := range t.Shape {
			dims[i] = fmt.Sprint(d)
		}
		rows = append(rows, []string{t.Name, t.Type, strings.Join(dims, " x "), fmt.Sprint(t.Bytes), fmt.Sprint(t.Offset)})
		size += t.Bytes
	}
	if err := out.table(rows, 3, 4); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%d shown of %d found in %d, %s\n", len(list), found, total, byteSize(size))
	return err
}

// matches applies a filter to a name. Tensor names have no slashes, so * of
// path.Match stands for anything.
func matches(filter, name string) bool {
	if strings.ContainsAny(filter, "*?[") {
		ok, _ := path.Match(filter, name) // the pattern has been checked
		return ok
	}
	return strings.Contains(name, filter)
}
