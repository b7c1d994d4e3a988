package apr

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/modelfile/source"
	"github.com/apr-engine/apr/modelfile/stats"
	"github.com/apr-engine/apr/tensor"
	"github.com/spf13/cobra"
)

type tensorsOptions struct {
	model   string
	filter  string
	limit   int
	json    bool
	stats   bool
	threads int
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
of * ? [, where * stands for any run of characters.

--stats reads every number of the tensors shown: smallest and largest, mean and
standard deviation of the finite ones, how many are zero, NaN or infinite, and how
many rows of a matrix are all zeros (DEAD).`,
		Example: `  apr tensors models/tiny-coder-4m-q4_k_m.gguf --filter attn_q
  apr tensors models/tiny-coder-4m-q4_k_m.gguf --filter token_embd --stats
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
	cmd.Flags().BoolVar(&o.stats, "stats", false, "add statistics of the numbers")
	cmd.Flags().VarP(intValue{&o.threads, 0, maxThreads}, "threads", "t", "CPU threads for --stats; 0 for one for each CPU")
	return cmd
}

func (o *tensorsOptions) run(cmd *cobra.Command) error {
	if _, err := path.Match(o.filter, ""); err != nil {
		return usageError(cmd, "--filter %s: not a pattern", o.filter)
	}
	m, err := source.Open(o.model)
	if err != nil {
		return err
	}
	defer m.Close()
	list := listTensors(m)
	total := len(list)
	list = slices.DeleteFunc(list, func(t engine.TensorInfo) bool { return !matches(o.filter, t.Name) })
	found := len(list)
	if o.limit > 0 && o.limit < len(list) {
		list = list[:o.limit]
	}
	numbers, err := o.numbers(cmd, m, list)
	if err != nil {
		return err
	}
	out := stdout(cmd)
	if o.json {
		if !o.stats {
			return out.json(list)
		}
		both := make([]tensorStats, len(list))
		for i := range list {
			both[i] = tensorStats{list[i], numbers[i]}
		}
		return out.json(both)
	}
	rows := [][]string{{"NAME", "TYPE", "SHAPE", "BYTES", "OFFSET"}}
	right := []int{3, 4}
	if o.stats {
		rows[0] = []string{"NAME", "TYPE", "SHAPE", "MIN", "MAX", "MEAN", "STD", "ZEROS", "NAN", "INF", "DEAD"}
		right = []int{3, 4, 5, 6, 7, 8, 9, 10}
	}
	var size int64
	for i, t := range list {
		row := []string{t.Name, t.Type, shapeText(t.Shape)}
		if o.stats {
			row = append(row, statsCells(&numbers[i])...)
		} else {
			row = append(row, fmt.Sprint(t.Bytes), fmt.Sprint(t.Offset))
		}
		rows = append(rows, row)
		size += t.Bytes
	}
	if err := out.table(rows, right...); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "%d shown of %d found in %d, %s\n", len(list), found, total, byteSize(size))
	return err
}

// tensorStats is a tensor with its statistics, in JSON.
type tensorStats struct {
	engine.TensorInfo
	Stats stats.Stats `json:"stats"`
}

// listTensors describes the tensors of an open file, in file order.
func listTensors(m *source.Model) []engine.TensorInfo {
	list := make([]engine.TensorInfo, 0, len(m.Tensors))
	for _, t := range m.Tensors {
		place, _ := m.Place(t.Name)
		list = append(list, engine.TensorInfo{
			Name: t.Name, Type: m.StoredType(t), Shape: t.Shape, Bytes: int64(len(t.Data)),
			Offset: place.Offset, File: place.Path,
		})
	}
	return list
}

// numbers computes the statistics of the listed tensors, if they were asked for.
func (o *tensorsOptions) numbers(cmd *cobra.Command, m *source.Model, list []engine.TensorInfo) ([]stats.Stats, error) {
	if !o.stats {
		return nil, nil
	}
	tensors := make([]tensor.Tensor, len(list))
	for i := range list {
		tensors[i], _ = m.Tensor(list[i].Name) // it was listed from the same file
	}
	return stats.Tensors(cmd.Context(), tensors, o.threads)
}

// statsCells are the columns of --stats.
func statsCells(s *stats.Stats) []string {
	var cells []string
	for _, n := range []stats.Number{s.Min, s.Max, s.Mean, s.Std} {
		cells = append(cells, fmt.Sprintf("%.5g", float64(n)))
	}
	for _, n := range []int64{s.Zeros, s.NaN, s.Inf, s.DeadRows} {
		cells = append(cells, fmt.Sprint(n))
	}
	return cells
}

// shapeText is a shape as "rows x columns".
func shapeText(shape []int) string {
	dims := make([]string, len(shape))
	for i, d := range shape {
		dims[i] = fmt.Sprint(d)
	}
	return strings.Join(dims, " x ")
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
