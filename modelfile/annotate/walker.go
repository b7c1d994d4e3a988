package annotate

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/apr-engine/apr/tensor"
)

// walker goes over a file's structure from front to back. It keeps the fields
// that touch the window and forgets the others, since a vocabulary has hundreds
// of thousands.
type walker struct {
	data      []byte
	at        int
	from, to  int // the window; empty to collect tensors alone
	fields    []Field
	tensors   []Tensor
	checksums []Checksum
	err       error
}

// fail notes where the structure breaks; the first time counts.
func (w *walker) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("%w: %s", ErrStructure, fmt.Sprintf(format, args...))
	}
}

// wants reports whether a field of n bytes at the current position is to be kept.
func (w *walker) wants(n int) bool { return w.at < w.to && w.at+n > w.from }

// take returns the next n bytes, nil if they are not there.
func (w *walker) take(n uint64, what string) []byte {
	if w.err != nil {
		return nil
	}
	if left := uint64(len(w.data) - w.at); n > left {
		w.fail("%s at byte %d needs %d bytes, the file has %d more", what, w.at, n, left)
		return nil
	}
	b := w.data[w.at : w.at+int(n)]
	w.at += int(n)
	return b
}

// keep adds a field that ends at the current position.
func (w *walker) keep(n int, name, value string) {
	w.fields = append(w.fields, Field{Offset: w.at - n, Length: n, Name: name, Value: value})
}

// uint reads an integer of n bytes as a field; render may be nil.
func (w *walker) uint(n int, prefix, name string, render func(uint64) string) uint64 {
	kept := w.wants(n)
	b := w.take(uint64(n), name)
	if b == nil {
		return 0
	}
	var wide [8]byte
	copy(wide[:], b)
	v := binary.LittleEndian.Uint64(wide[:])
	if kept {
		text := strconv.FormatUint(v, 10)
		if render != nil {
			text = render(v)
		}
		w.keep(n, prefix+name, text)
	}
	return v
}

// checksum reads a CRC-32 as a field; compute gives what it should be and is called
// only if the field is shown.
func (w *walker) checksum(what string, compute func() uint32) {
	if !w.wants(4) && w.to > 0 {
		w.take(4, what)
		return
	}
	sum := Checksum{What: what, Offset: w.at, Compute: compute}
	sum.Stored = uint32(w.uint(4, "", what, func(v uint64) string {
		switch c := compute(); {
		case v == uint64(c):
			return fmt.Sprintf("%#08x, correct", v)
		case v == 0:
			return "0, none"
		default:
			return fmt.Sprintf("%#08x, wrong: it should be %#08x", v, c)
		}
	}))
	if w.err == nil && w.to == 0 {
		w.checksums = append(w.checksums, sum)
	}
}

// text reads n bytes as a field of text.
func (w *walker) text(n uint64, prefix, name string) string {
	if w.err != nil {
		return ""
	}
	kept := n <= uint64(len(w.data)) && w.wants(int(n))
	b := w.take(n, prefix+name)
	if kept && b != nil {
		w.keep(len(b), prefix+name, quote(b))
	}
	return string(b)
}

// maxShown is how much of a text is shown.
const maxShown = 60

func quote(b []byte) string {
	if len(b) <= maxShown {
		return strconv.Quote(string(b))
	}
	return strconv.Quote(string(b[:maxShown])) + "…"
}

// clip shortens a name from a file for use in the names of fields, of which
// there may be many.
func clip(name string) string {
	const most = 120
	if len(name) > most {
		return name[:most] + "…"
	}
	return name
}

// add keeps a tensor's description; its size follows from type and shape.
func (w *walker) add(t Tensor) {
	if t.Known {
		t.TypeName = t.Type.String()
		if size, ok := bytesOf(t.Type, t.Shape); ok {
			t.Size = size
		}
	}
	w.tensors = append(w.tensors, t)
}

// bytesOf is tensor.Bytes for dimensions that may be anything.
func bytesOf(d tensor.DType, shape []uint64) (uint64, bool) {
	dims := make([]int, len(shape))
	for i, n := range shape {
		if n > 1<<62 {
			return 0, false
		}
		dims[i] = int(n)
	}
	size, err := tensor.Bytes(d, dims)
	return uint64(size), err == nil
}
