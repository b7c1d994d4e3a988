package apr

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf8"

	"github.com/apr-engine/apr/internal/newfile"
)

// TensorInfo describes a tensor that is going to be written.
type TensorInfo struct {
	Name  string
	Type  Type
	Shape []int
	// SameAs names a tensor whose bytes this one shares; it is not written.
	SameAs string
}

// Field is one key of the metadata with its value, which encoding/json can write.
type Field struct {
	Key   string
	Value any
}

// Writer writes a file from front to back: header, metadata and index at once,
// then each tensor's bytes in the order announced, less those that share
// another's. The file appears when Close has found it complete.
type Writer struct {
	f       *newfile.File
	crc     uint32 // of all bytes so far
	infos   []TensorInfo
	sizes   []int
	next    int // index of the tensor to be started
	current int // index of the tensor being written
	left    int // bytes that it still lacks
}

// Create starts a file at path with the given metadata and tensors.
func Create(path string, md []Field, infos []TensorInfo) (*Writer, error) {
	head, sizes, err := plan(md, infos)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	f, err := newfile.Create(path)
	if err != nil {
		return nil, err
	}
	w := &Writer{f: f, infos: infos, sizes: sizes, current: -1}
	if err := w.write(head); err != nil {
		return nil, err
	}
	return w, nil
}

// plan encodes all that precedes the data.
func plan(md []Field, infos []TensorInfo) (head []byte, sizes []int, err error) {
	text, err := encodeMetadata(md)
	if err != nil {
		return nil, nil, err
	}
	offsets := make([]uint64, len(infos))
	sizes = make([]int, len(infos))
	byName := map[string]int{}
	at := int64(0)
	for i, t := range infos {
		if sizes[i], err = checkInfo(t); err != nil {
			return nil, nil, fmt.Errorf("tensor %s: %w", quote(t.Name), err)
		}
		if _, dup := byName[t.Name]; dup {
			return nil, nil, fmt.Errorf("tensor %s is listed twice", quote(t.Name))
		}
		byName[t.Name] = i
		if t.SameAs == "" {
			offsets[i] = uint64(at)
			at = alignUp(at + int64(sizes[i]))
		}
	}
	for i, t := range infos {
		if t.SameAs == "" {
			continue
		}
		j, ok := byName[t.SameAs]
		if !ok || infos[j].SameAs != "" || infos[j].Type != t.Type || !slices.Equal(infos[j].Shape, t.Shape) {
			return nil, nil, fmt.Errorf("tensor %s is to share the bytes of %s, which is not its like", quote(t.Name), quote(t.SameAs))
		}
		offsets[i] = offsets[j]
	}
	index := encodeIndex(infos, offsets, sizes)
	return assemble(text, index, len(infos), flagsOf(infos)), sizes, nil
}

// encodeMetadata writes the fields as an object, in order.
func encodeMetadata(md []Field) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	put := func(v any, key string) error {
		if err := e.Encode(v); err != nil {
			return fmt.Errorf("metadata key %s: %w", quote(key), err)
		}
		b.Truncate(b.Len() - 1) // the encoder ends with a newline
		return nil
	}
	seen := map[string]bool{}
	b.WriteByte('{')
	for i, f := range md {
		if seen[f.Key] {
			return nil, fmt.Errorf("metadata key %s is given twice", quote(f.Key))
		}
		seen[f.Key] = true
		if i > 0 {
			b.WriteByte(',')
		}
		if err := put(f.Key, f.Key); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		if err := put(f.Value, f.Key); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	if b.Len() > maxMetadata {
		return nil, fmt.Errorf("the metadata has %d bytes, more than %d", b.Len(), maxMetadata)
	}
	return b.Bytes(), nil
}

// checkInfo returns the size of a tensor that every reader accepts.
func checkInfo(t TensorInfo) (int, error) {
	if n := len(t.Name); n < 1 || n > maxNameLen || !utf8.ValidString(t.Name) {
		return 0, fmt.Errorf("name has %d bytes, want 1 to %d of UTF-8", n, maxNameLen)
	}
	if _, ok := codes[t.Type]; !ok {
		return 0, fmt.Errorf(".apr files have no type %s", t.Type)
	}
	if n := len(t.Shape); n < 1 || n > maxDims {
		return 0, fmt.Errorf("%d dimensions, want 1 to %d", n, maxDims)
	}
	for _, d := range t.Shape {
		if d < 1 {
			return 0, fmt.Errorf("dimension %d in %v, want at least 1", d, t.Shape)
		}
	}
	return Bytes(t.Type, t.Shape)
}

// encodeIndex writes the entries sorted by name, as readers demand.
func encodeIndex(infos []TensorInfo, offsets []uint64, sizes []int) []byte {
	order := make([]int, len(infos))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(infos[a].Name, infos[b].Name) })
	var b []byte
	le := binary.LittleEndian
	for _, i := range order {
		t := infos[i]
		b = le.AppendUint16(b, uint16(len(t.Name)))
		b = append(b, t.Name...)
		b = append(b, codes[t.Type], byte(len(t.Shape)))
		for _, d := range t.Shape {
			b = le.AppendUint64(b, uint64(d))
		}
		b = le.AppendUint64(b, offsets[i])
		b = le.AppendUint64(b, uint64(sizes[i]))
	}
	return b
}

func flagsOf(infos []TensorInfo) Flags {
	flags := FlagRowMajor
	for _, t := range infos {
		if d, ok := t.Type.DType(); !ok || d.BlockLen() > 1 {
			flags |= FlagQuantized
		}
	}
	return flags
}

// assemble puts header, metadata and index together, each padded.
func assemble(text, index []byte, tensors int, flags Flags) []byte {
	le := binary.LittleEndian
	indexAt := headerLen + alignUp(int64(len(text)))
	dataAt := indexAt + alignUp(int64(len(index)))
	h := make([]byte, dataAt)
	copy(h, Magic)
	h[4] = 2
	le.PutUint16(h[6:], uint16(flags))
	le.PutUint32(h[8:], uint32(tensors))
	le.PutUint64(h[12:], headerLen)
	le.PutUint32(h[20:], uint32(len(text)))
	le.PutUint64(h[24:], uint64(indexAt))
	le.PutUint64(h[32:], uint64(dataAt))
	copy(h[headerLen:], text)
	copy(h[indexAt:], index)
	le.PutUint32(h[40:], headerChecksum(h[:headerLen]))
	return h
}

func (w *Writer) write(p []byte) error {
	w.crc = crc32.Update(w.crc, crc32.IEEETable, p)
	_, err := w.f.Write(p)
	return err
}

// NextTensor starts the next tensor that has bytes of its own and returns a
// writer for them, which must be complete before the following tensor or Close.
func (w *Writer) NextTensor() (io.Writer, error) {
	if err := w.endTensor(); err != nil {
		return nil, err
	}
	for w.next < len(w.infos) && w.infos[w.next].SameAs != "" {
		w.next++
	}
	if w.next == len(w.infos) {
		return nil, w.f.Fail(fmt.Errorf("more tensors are written than the %d announced", len(w.infos)))
	}
	w.current = w.next
	w.left = w.sizes[w.current]
	w.next++
	return tensorWriter{w, w.current}, nil
}

// endTensor checks that the tensor in progress is complete and pads it.
func (w *Writer) endTensor() error {
	if w.left > 0 {
		return w.f.Fail(fmt.Errorf("tensor %s lacks %d of its %d bytes", quote(w.infos[w.current].Name), w.left, w.sizes[w.current]))
	}
	at := w.f.Offset()
	return w.write(make([]byte, alignUp(at)-at))
}

type tensorWriter struct {
	w  *Writer
	no int // a stale writer is noticed by it
}

func (t tensorWriter) Write(p []byte) (int, error) {
	w := t.w
	if t.no != w.current || len(p) > w.left {
		return 0, w.f.Fail(fmt.Errorf("tensor %s gets more than its %d bytes", quote(w.infos[t.no].Name), w.sizes[t.no]))
	}
	if err := w.write(p); err != nil {
		return 0, err
	}
	w.left -= len(p)
	return len(p), nil
}

// Close checks that every tensor was written, adds the checksum and gives the
// file its name.
func (w *Writer) Close() error {
	if err := w.endTensor(); err != nil {
		return err
	}
	for _, t := range w.infos[w.next:] {
		if t.SameAs == "" {
			return w.f.Fail(errors.New("tensor " + quote(t.Name) + " was not written"))
		}
	}
	if _, err := w.f.Write(binary.LittleEndian.AppendUint32(nil, w.crc)); err != nil {
		return err
	}
	return w.f.Commit()
}

// Abort gives up and removes what was written. After Close it does nothing.
func (w *Writer) Abort() { w.f.Abort() }
