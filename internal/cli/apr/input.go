package apr

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"github.com/apr-engine/apr/engine"
	"github.com/spf13/cobra"
)

// maxText bounds what is read as text, so that a wrong file or an endless pipe
// does not fill the memory.
const maxText = 1 << 30

// readAll reads a text to its end.
func readAll(name string, r io.Reader) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxText {
		return "", kindError{fmt.Errorf("%s holds more than %s of text", name, byteSize(maxText)), errUsage}
	}
	return string(data), nil
}

// readFile reads a text file; "-" is standard input.
func readFile(cmd *cobra.Command, flag, path string) (string, error) {
	if path == "-" {
		return readAll("standard input", cmd.InOrStdin())
	}
	f, err := os.Open(path)
	if err != nil {
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			return "", fmt.Errorf("--%s %s: %w", flag, path, pe.Err)
		}
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.IsDir() {
		return "", kindError{fmt.Errorf("--%s %s: is a directory", flag, path), fs.ErrNotExist}
	}
	return readAll(path, f)
}

// text is where a command's text comes from: an argument, a file or standard
// input. Only one may be given.
type textSource struct {
	what string // "prompt", "text"
	args []string
	// flag and file are named flags that hold the text or a file with it.
	flag, flagValue string
	fileFlag, file  string
}

// read returns the text. trim removes one line end after a text that came from
// a file or a pipe, where editors and echo put one.
func (s textSource) read(cmd *cobra.Command, trim bool) (string, error) {
	fromFlag := s.flag != "" && cmd.Flags().Changed(s.flag)
	fromFile := cmd.Flags().Changed(s.fileFlag)
	given := 0
	for _, b := range []bool{fromFlag, fromFile, len(s.args) > 0} {
		if b {
			given++
		}
	}
	switch {
	case given > 1:
		return "", usageError(cmd, "more than one %s given: use one of %s", s.what, s.choices())
	case fromFlag:
		return s.flagValue, nil
	case fromFile:
		text, err := readFile(cmd, s.fileFlag, s.file)
		return trimLine(text, trim), err
	case len(s.args) > 0 && s.args[0] != "-":
		return s.args[0], nil
	case len(s.args) == 0 && isDevice(cmd.InOrStdin()):
		return "", usageError(cmd, "no %s: use %s, or pipe it in", s.what, s.choices())
	}
	text, err := readAll("standard input", cmd.InOrStdin())
	return trimLine(text, trim), err
}

func (s textSource) choices() string {
	list := []string{"an argument"}
	if s.flag != "" {
		list = append(list, "--"+s.flag)
	}
	return strings.Join(append(list, "--"+s.fileFlag), ", ")
}

func trimLine(s string, trim bool) string {
	if !trim {
		return s
	}
	return strings.TrimSuffix(strings.TrimSuffix(s, "\n"), "\r")
}

// parseIDs reads token ids separated by commas or white space, or a JSON array.
func parseIDs(text string) ([]int32, error) {
	text = strings.TrimSpace(text)
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if text, ok = strings.CutSuffix(inner, "]"); !ok {
			return nil, errors.New("the list of token ids starts with [ and does not end with ]")
		}
	}
	var ids []int32
	for field := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' || r == '\r' }) {
		id, err := strconv.ParseInt(field, 10, 32)
		if err != nil || id < 0 {
			return nil, fmt.Errorf("%q is not a token id, want whole numbers from 0 on separated by commas", field)
		}
		ids = append(ids, int32(id))
	}
	return ids, nil
}

// checkIDs refuses ids outside the model's vocabulary.
func checkIDs(m *engine.Model, ids []int32) error {
	for i, id := range ids {
		if n := m.Tokenizer.Size(); int(id) >= n {
			return fmt.Errorf("%w: token id %d (number %d) is outside the vocabulary of %d", engine.ErrInput, id, i+1, n)
		}
	}
	return nil
}
