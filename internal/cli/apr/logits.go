package apr

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/apr-engine/apr/engine"
	"github.com/spf13/cobra"
)

type logitsOptions struct {
	backendFlags
	model    string
	tokenIDs string
	all      bool
	out      string
	json     bool
	top      int
}

func newLogits() *cobra.Command {
	o := logitsOptions{top: 10}
	cmd := &cobra.Command{
		Use:     "logits MODEL --token-ids IDS [flags]",
		GroupID: groupMeasure,
		Short:   "Compute the logits after given tokens",
		Long: `Compute the logits after the last of the given tokens, or after each of them with
--all-positions, for comparison with other programs.

--out writes them as little-endian float32, one row of the vocabulary's size
after another. --json prints an object whose logits are a list of rows, beside
the position of each. With neither, the most probable tokens of each position
are shown with their logit and probability.`,
		Example: `  apr logits models/tiny-coder-4m-q4_k_m.gguf --token-ids 340,1196 --top 3
  apr logits models/tiny-coder-4m-q4_k_m.gguf --token-ids 340,1196 --all-positions --backend cpu-exact --out logits.f32`,
		Args:              modelArg(0, "MODEL"),
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.model = args[0]
			return o.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.tokenIDs, "token-ids", "", "token ids, separated by commas")
	f.BoolVar(&o.all, "all-positions", false, "logits after every token instead of the last")
	f.StringVarP(&o.out, "out", "o", "", "write little-endian float32 to this file")
	f.BoolVar(&o.json, "json", false, "print one JSON object")
	f.Var(intValue{&o.top, 1, maxCount}, "top", "how many tokens to show")
	o.backendFlags.register(f)
	return cmd
}

func (o *logitsOptions) run(cmd *cobra.Command) error {
	log := logger(cmd)
	backend, err := o.backendFlags.options(cmd)
	if err != nil {
		return err
	}
	if o.json && o.out != "" {
		return usageError(cmd, "--json and --out exclude each other")
	}
	ids, err := parseIDs(o.tokenIDs)
	if err != nil {
		return usageError(cmd, "--token-ids: %w", err)
	}
	if len(ids) == 0 {
		return usageError(cmd, "--token-ids is missing or empty")
	}
	start := time.Now()
	m, err := loadModel(o.model, log)
	if err != nil {
		return err
	}
	if err := firstError(checkIDs(m, ids), checkPrompt(len(ids), m.Program.Context)); err != nil {
		m.Close()
		return err
	}
	e, err := open(m, backend, start, log)
	if err != nil {
		return err
	}
	defer e.Close()
	s, err := e.newSession(len(ids))
	if err != nil {
		return err
	}
	defer s.Close()
	sink, err := o.sink(stdout(cmd), e)
	if err != nil {
		return err
	}
	first := len(ids) - 1
	if o.all {
		first = 0
	}
	err = s.Logits(cmd.Context(), ids, first, sink.row)
	return sink.close(err)
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// logitsSink receives rows of logits; close gets the computation's error.
type logitsSink interface {
	row(position int, logits []float32) error
	close(error) error
}

func (o *logitsOptions) sink(out *output, e *opened) (logitsSink, error) {
	switch {
	case o.out == "-":
		return &rawSink{w: bufio.NewWriterSize(out, 1<<16)}, nil
	case o.out != "":
		f, err := os.Create(o.out)
		if err != nil {
			return nil, fmt.Errorf("--out: %w", err)
		}
		return &rawSink{w: bufio.NewWriterSize(f, 1<<16), file: f}, nil
	case o.json:
		return &jsonSink{w: bufio.NewWriterSize(out, 1<<16), vocab: e.Model.Program.Vocab, backend: e.Selection()}, nil
	}
	return &topSink{out: out, m: e.Model, top: o.top, rows: [][]string{{"POSITION", "TOKEN", "TEXT", "LOGIT", "PROBABILITY"}}}, nil
}

// rawSink writes little-endian float32.
type rawSink struct {
	w    *bufio.Writer
	file *os.File // nil for stdout
	buf  []byte
}

func (s *rawSink) row(_ int, logits []float32) error {
	s.buf = s.buf[:0]
	for _, l := range logits {
		s.buf = binary.LittleEndian.AppendUint32(s.buf, math.Float32bits(l))
	}
	_, err := s.w.Write(s.buf)
	return err
}

func (s *rawSink) close(err error) error {
	err = firstError(err, s.w.Flush())
	if s.file != nil {
		err = firstError(err, s.file.Close())
		if err != nil {
			os.Remove(s.file.Name()) // half a file would pass for a short one
		}
	}
	return err
}

// jsonSink writes one object row by row, since all positions of a large
// vocabulary do not fit in memory twice.
type jsonSink struct {
	w         *bufio.Writer
	vocab     int
	backend   engine.Selection
	positions []int
	buf       []byte
}

func (s *jsonSink) row(position int, logits []float32) error {
	s.buf = s.buf[:0]
	if len(s.positions) == 0 {
		s.buf = fmt.Appendf(s.buf, "{\"vocab\": %d, \"backend\": %q, \"logits\": [", s.vocab, s.backend.Ran)
	} else {
		s.buf = append(s.buf, ',')
	}
	s.positions = append(s.positions, position)
	s.buf = append(s.buf, '\n', '[')
	for i, l := range logits {
		if i > 0 {
			s.buf = append(s.buf, ',')
		}
		s.buf = strconv.AppendFloat(s.buf, float64(l), 'g', -1, 32)
	}
	s.buf = append(s.buf, ']')
	_, err := s.w.Write(s.buf)
	return err
}

func (s *jsonSink) close(err error) error {
	if err != nil {
		return err
	}
	s.w.WriteString("\n], \"positions\": [")
	for i, p := range s.positions {
		if i > 0 {
			s.w.WriteByte(',')
		}
		s.w.WriteString(strconv.Itoa(p))
	}
	s.w.WriteString("]}\n")
	return s.w.Flush()
}

// topSink collects the most probable tokens for a table.
type topSink struct {
	out  *output
	m    *engine.Model
	top  int
	rows [][]string
}

func (s *topSink) row(position int, logits []float32) error {
	order := make([]int32, len(logits))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		switch {
		case logits[a] > logits[b]:
			return -1
		case logits[a] < logits[b]:
			return 1
		}
		return 0
	})
	sum, top := 0.0, float64(logits[order[0]])
	for _, l := range logits {
		sum += math.Exp(float64(l) - top)
	}
	for _, id := range order[:min(s.top, len(order))] {
		s.rows = append(s.rows, []string{
			strconv.Itoa(position), strconv.Itoa(int(id)), fmt.Sprintf("%q", s.m.Tokenizer.Piece(id)),
			fmt.Sprintf("%.4f", logits[id]), fmt.Sprintf("%.4f", math.Exp(float64(logits[id])-top)/sum),
		})
	}
	return nil
}

func (s *topSink) close(err error) error {
	if err != nil {
		return err
	}
	return s.out.table(s.rows, 0, 1, 3, 4)
}
