package gguf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"

	"github.com/apr-engine/apr/internal/newfile"
	"github.com/apr-engine/apr/tensor"
)

// TensorInfo describes a tensor that is going to be written.
type TensorInfo struct {
	Name  string
	Type  tensor.DType
	Shape []int // slowest-varying first, as in tensor.Tensor
}

// Writer writes a file of version 3 from front to back: the header at once,
// then each tensor's bytes in the order announced. The bytes go to a temporary
// file beside the target, which takes its name only when Close has found it
// complete; until then an existing file stays as it is.
type Writer struct {
	path, tmp string
	f         *os.File
	out       *newfile.Blocks
	infos     []TensorInfo
	sizes     []int
	alignment int
	next      int   // index of the tensor to be started
	left      int   // bytes that the tensor being written still lacks
	err       error // the first failure; the temporary file is gone then
	done      bool
}

// layout is where everything goes in a file that is going to be written.
type layout struct {
	header    []byte // up to the data section, padding included
	sizes     []int  // bytes of each tensor, without padding
	alignment int
}

// Create starts a file at path with the given metadata and tensors. The
// alignment is general.alignment if set, otherwise 32.
func Create(path string, md *Metadata, infos []TensorInfo) (*Writer, error) {
	lay, err := plan(md, infos)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	f, err := createTemp(path)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	w := &Writer{
		path: path, tmp: f.Name(), f: f, out: newfile.NewBlocks(f),
		infos: infos, sizes: lay.sizes, alignment: lay.alignment,
	}
	if _, err := w.out.Write(lay.header); err != nil {
		return nil, w.fail(err)
	}
	return w, nil
}

// createTemp creates a file beside path with the usual permissions (os.CreateTemp
// would give 0600, and the model is to be readable like any other file).
func createTemp(path string) (*os.File, error) {
	for range 100 {
		name := fmt.Sprintf("%s.%08x.tmp", path, rand.Uint32())
		f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if !errors.Is(err, os.ErrExist) {
			return f, err
		}
	}
	return nil, errors.New("no free name for a temporary file")
}

// plan checks names, types and shapes and encodes all that precedes the data.
func plan(md *Metadata, infos []TensorInfo) (layout, error) {
	lay := layout{alignment: defaultAlignment}
	if v, ok := md.Value(keyAlignment); ok {
		a, err := alignmentOf(md, v)
		// The specification wants a multiple of 8; beyond 64 KiB padding is a mistake.
		if err != nil || a < 8 || a > 64<<10 {
			return lay, md.Problem(keyAlignment, "a uint32 that is a power of two from 8 to 65536")
		}
		lay.alignment = a
	}
	b := append([]byte(nil), magic...)
	b = binary.LittleEndian.AppendUint32(b, 3)
	b = binary.LittleEndian.AppendUint64(b, uint64(len(infos)))
	b = binary.LittleEndian.AppendUint64(b, uint64(md.Len()))
	for key, v := range md.All() {
		b = appendString(b, key)
		b = binary.LittleEndian.AppendUint32(b, uint32(v.Type))
		if v.Type == TypeArray {
			b = binary.LittleEndian.AppendUint32(b, uint32(v.elem))
			b = binary.LittleEndian.AppendUint64(b, uint64(v.n))
		}
		b = append(b, v.raw...)
	}
	seen := make(map[string]bool, len(infos))
	offset := 0
	for _, t := range infos {
		size, err := checkInfo(t)
		if err != nil {
			return lay, fmt.Errorf("tensor %s: %w", quote(t.Name), err)
		}
		if seen[t.Name] {
			return lay, fmt.Errorf("tensor %s is listed twice", quote(t.Name))
		}
		seen[t.Name] = true
		b = appendString(b, t.Name)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(t.Shape)))
		for i := len(t.Shape) - 1; i >= 0; i-- {
			b = binary.LittleEndian.AppendUint64(b, uint64(t.Shape[i]))
		}
		b = binary.LittleEndian.AppendUint32(b, uint32(t.Type))
		b = binary.LittleEndian.AppendUint64(b, uint64(offset))
		lay.sizes = append(lay.sizes, size)
		offset += size + padding(size, lay.alignment)
	}
	lay.header = append(b, make([]byte, padding(len(b), lay.alignment))...)
	return lay, nil
}

// checkInfo returns the size of a tensor that readers, llama.cpp included, accept.
func checkInfo(t TensorInfo) (int, error) {
	if n := len(t.Name); n < 1 || n > 63 {
		return 0, fmt.Errorf("name has %d bytes, want 1 to 63", n)
	}
	if n := len(t.Shape); n < 1 || n > maxDims {
		return 0, fmt.Errorf("%d dimensions, want 1 to %d", n, maxDims)
	}
	for _, d := range t.Shape {
		if d < 1 {
			return 0, fmt.Errorf("dimension %d in %v, want at least 1", d, t.Shape)
		}
	}
	return tensor.Bytes(t.Type, t.Shape)
}

// padding is how many bytes bring n to a multiple of alignment.
func padding(n, alignment int) int { return -n & (alignment - 1) }

// fail gives up: it removes the temporary file and keeps the error.
func (w *Writer) fail(err error) error {
	if w.err == nil {
		w.err = fmt.Errorf("write %s: %w", w.path, err)
		w.f.Close()
		os.Remove(w.tmp)
	}
	return w.err
}

// WriteTensor writes all bytes of the next tensor.
func (w *Writer) WriteTensor(data []byte) error {
	tw, err := w.NextTensor()
	if err != nil {
		return err
	}
	if w.left != len(data) {
		t := w.infos[w.next-1]
		return w.fail(fmt.Errorf("tensor %s has %d bytes, want %d for %s %v", quote(t.Name), len(data), w.left, t.Type, t.Shape))
	}
	_, err = tw.Write(data)
	return err
}

// NextTensor starts the next tensor and returns a writer for its bytes, which
// must be complete before the following tensor or Close. The writer refuses
// more bytes than the tensor has.
func (w *Writer) NextTensor() (io.Writer, error) {
	if err := w.endTensor(); err != nil {
		return nil, err
	}
	if w.next == len(w.infos) {
		return nil, w.fail(fmt.Errorf("more tensors are written than the %d announced", len(w.infos)))
	}
	w.left = w.sizes[w.next]
	w.next++
	return &tensorWriter{w, w.next}, nil
}

// endTensor checks that the tensor in progress is complete and pads it.
func (w *Writer) endTensor() error {
	switch {
	case w.err != nil:
		return w.err
	case w.done:
		return fmt.Errorf("write %s: already closed", w.path)
	case w.next == 0:
		return nil
	}
	i := w.next - 1
	if w.left > 0 {
		return w.fail(fmt.Errorf("tensor %s lacks %d of its %d bytes", quote(w.infos[i].Name), w.left, w.sizes[i]))
	}
	// The last tensor is padded too: llama.cpp reads the section as a whole.
	if _, err := w.out.Write(make([]byte, padding(w.sizes[i], w.alignment))); err != nil {
		return w.fail(err)
	}
	return nil
}

// tensorWriter takes the bytes of one tensor.
type tensorWriter struct {
	w  *Writer
	no int // which tensor, counted from 1; a stale writer is noticed by it
}

func (t *tensorWriter) Write(p []byte) (int, error) {
	w := t.w
	switch {
	case w.err != nil:
		return 0, w.err
	case w.done || t.no != w.next:
		return 0, fmt.Errorf("write %s: tensor %s is already finished", w.path, quote(w.infos[t.no-1].Name))
	case len(p) > w.left:
		return 0, w.fail(fmt.Errorf("tensor %s gets more than its %d bytes", quote(w.infos[t.no-1].Name), w.sizes[t.no-1]))
	}
	n, err := w.out.Write(p)
	w.left -= n
	if err != nil {
		return n, w.fail(err)
	}
	return n, nil
}

// Close checks that every tensor was written, makes the file durable and gives
// it its name. After an error nothing is left behind.
func (w *Writer) Close() error {
	if w.done {
		return w.err
	}
	if err := w.endTensor(); err != nil {
		return err
	}
	if w.next < len(w.infos) {
		return w.fail(fmt.Errorf("%d of %d tensors were not written, first %s", len(w.infos)-w.next, len(w.infos), quote(w.infos[w.next].Name)))
	}
	if err := w.out.Flush(); err != nil {
		return w.fail(err)
	}
	// Without this a crash soon after could leave the new name on empty blocks.
	if err := w.f.Sync(); err != nil {
		return w.fail(err)
	}
	if err := w.f.Close(); err != nil {
		return w.fail(err)
	}
	if err := os.Rename(w.tmp, w.path); err != nil {
		return w.fail(err)
	}
	w.done = true
	return nil
}

// Abort gives up and removes what was written. After Close it does nothing, so
// it can be deferred.
func (w *Writer) Abort() {
	if !w.done && w.err == nil {
		w.fail(errors.New("aborted"))
	}
}

// WriteFile writes a whole file at once.
func WriteFile(path string, md *Metadata, tensors []tensor.Tensor) error {
	infos := make([]TensorInfo, len(tensors))
	for i, t := range tensors {
		infos[i] = TensorInfo{t.Name, t.Type, t.Shape}
	}
	w, err := Create(path, md, infos)
	if err != nil {
		return err
	}
	defer w.Abort()
	for _, t := range tensors {
		if err := w.WriteTensor(t.Data); err != nil {
			return err
		}
	}
	return w.Close()
}
