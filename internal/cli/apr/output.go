package apr

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// output writes to stdout and remembers the first error, so that commands can
// print freely and ask once.
type output struct {
	w   io.Writer
	err error
}

func stdout(cmd *cobra.Command) *output { return &output{w: cmd.OutOrStdout()} }

func (o *output) Write(p []byte) (int, error) {
	if o.err != nil {
		return 0, o.err
	}
	n, err := o.w.Write(p)
	if err != nil {
		// The path in the error is /dev/stdout, which nobody typed.
		if pe, ok := err.(*os.PathError); ok {
			err = pe.Err
		}
		o.err = fmt.Errorf("%w: %w", errOutput, err)
	}
	return n, o.err
}

// buffered gives print a buffer and returns the first error.
func (o *output) buffered(print func(w *bufio.Writer)) error {
	w := bufio.NewWriterSize(o, 1<<16)
	print(w)
	if err := w.Flush(); err != nil {
		return err
	}
	return o.err
}

// numberLists matches arrays of numbers spread over lines by indentation. It
// cannot match within a string, where JSON writes a line end as \n.
var numberLists = regexp.MustCompile(`\[\n\s*[-+.eE\d]+(?:,\n\s*[-+.eE\d]+)*\n\s*\]`)

// json writes v indented, with arrays of numbers on one line, and a newline.
func (o *output) json(v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	_, err := o.Write(numberLists.ReplaceAllFunc(b.Bytes(), func(list []byte) []byte {
		numbers := bytes.Fields(list[1 : len(list)-1])
		return slices.Concat([]byte("["), bytes.Join(numbers, []byte(" ")), []byte("]"))
	}))
	return err
}

// table writes rows of cells in columns, two spaces apart. Cells of columns
// named in right are right-aligned.
func (o *output) table(rows [][]string, right ...int) error {
	isRight := map[int]bool{}
	for _, c := range right {
		isRight[c] = true
	}
	width := map[int]int{}
	for _, row := range rows {
		for c, cell := range row {
			width[c] = max(width[c], utf8.RuneCountInString(cell))
		}
	}
	return o.buffered(func(b *bufio.Writer) {
		w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
		for _, row := range rows {
			for c, cell := range row {
				if isRight[c] {
					cell = strings.Repeat(" ", width[c]-utf8.RuneCountInString(cell)) + cell
				}
				if c > 0 {
					fmt.Fprint(w, "\t")
				}
				fmt.Fprint(w, cell)
			}
			fmt.Fprintln(w)
		}
		w.Flush()
	})
}

// isTerminal reports whether a stream is an interactive device.
func isTerminal(stream any) bool { return isDevice(stream) && !isNull(stream) }

// isDevice reports whether a stream is a terminal or the like.
func isDevice(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// isNull reports whether a stream is the system's null device, which is a
// device like a terminal and holds nothing.
func isNull(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	null, err := os.Stat(os.DevNull)
	if err != nil {
		return false
	}
	info, err := f.Stat()
	return err == nil && os.SameFile(info, null)
}

// byteSize renders a size in decimal units, as disks and bandwidths are given.
func byteSize(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.2f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.2f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

// count renders a number of parameters.
func count(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f B", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.2f M", float64(n)/1e6)
	}
	return fmt.Sprint(n)
}

// plural is a number with a noun.
func plural(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}
