package apr

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"unicode/utf8"
)

// Parse reads a file that is in memory; tensors alias the bytes.
func Parse(data []byte) (*File, error) {
	f := &File{data: data, index: map[string]int{}, Footer: -1}
	if err := f.readHeader(); err != nil {
		return nil, err
	}
	if err := f.checkFlags(); err != nil {
		return nil, err
	}
	text, err := f.section("metadata", f.Header.MetadataOffset, uint64(f.Header.MetadataSize))
	if err != nil {
		return nil, err
	}
	if f.Metadata, err = ParseMetadata(text); err != nil {
		return nil, err
	}
	if err := f.readIndex(); err != nil {
		return nil, err
	}
	if err := f.checkOverlap(); err != nil {
		return nil, err
	}
	f.readFooter()
	return f, nil
}

func (f *File) warn(format string, args ...any) {
	f.Warnings = append(f.Warnings, fmt.Sprintf(format, args...))
}

// CheckMagic tells a file of version 2 from its relatives. head is the file's
// first bytes.
func CheckMagic(head []byte) error {
	if len(head) < 4 {
		return fmt.Errorf("%w: %d bytes are too few for the magic %q", ErrFormat, len(head), Magic)
	}
	switch m := string(head[:4]); m {
	case Magic, "APR2":
		return nil
	case "APR1":
		return fmt.Errorf("%w: magic %q is version 1, which is not supported; convert the file with the program that wrote it", ErrFormat, m)
	case "APRN":
		return fmt.Errorf("%w: magic %q is version 1 for classic machine learning models, which is not supported", ErrFormat, m)
	default:
		return fmt.Errorf("%w: magic at byte 0 is %q, want %q", ErrFormat, m, Magic)
	}
}

// headerChecksum covers the header without the field that holds it.
func headerChecksum(h []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(h[:40]), crc32.IEEETable, h[44:headerLen])
}

func (f *File) readHeader() error {
	d := f.data
	if err := CheckMagic(d); err != nil {
		return err
	}
	if len(d) < headerLen {
		return fmt.Errorf("%w: the header has %d bytes, want %d: the file is truncated", ErrFormat, len(d), headerLen)
	}
	le := binary.LittleEndian
	f.Header = Header{
		Magic: string(d[:4]), Major: d[4], Minor: d[5], Flags: Flags(le.Uint16(d[6:])),
		TensorCount: le.Uint32(d[8:]), MetadataOffset: le.Uint64(d[12:]), MetadataSize: le.Uint32(d[20:]),
		IndexOffset: le.Uint64(d[24:]), DataOffset: le.Uint64(d[32:]), Checksum: le.Uint32(d[40:]),
	}
	h := &f.Header
	if h.Major != 2 {
		// Readers elsewhere do not look; a version that changes the layout would
		// be read as nonsense.
		return fmt.Errorf("%w: version at byte 4 is %d, want 2", ErrFormat, h.Major)
	}
	switch sum := headerChecksum(d[:headerLen]); {
	case h.Checksum == 0 && sum != 0:
		f.warn("the header has no checksum")
	case h.Checksum != sum:
		return fmt.Errorf("%w: the header's checksum at byte 40 is %08x, its bytes give %08x: the file is damaged", ErrFormat, h.Checksum, sum)
	}
	if h.MetadataSize > maxMetadata {
		return fmt.Errorf("%w: metadata size at byte 20 is %d, more than %d", ErrFormat, h.MetadataSize, maxMetadata)
	}
	// The shortest entry: name length, type, dimensions, offset and size.
	if h.TensorCount > maxTensors || uint64(h.TensorCount) > uint64(len(d))/20 {
		return fmt.Errorf("%w: tensor count at byte 8 is %d, more than the file's %d bytes can hold", ErrFormat, h.TensorCount, len(d))
	}
	return nil
}

// checkFlags refuses files whose bytes are not what the header says.
func (f *File) checkFlags() error {
	switch fl := f.Header.Flags; {
	case fl&FlagEncrypted != 0:
		return fmt.Errorf("%w: the file is encrypted, which is not supported", ErrFormat)
	case fl&FlagColumnMajor != 0:
		return fmt.Errorf("%w: the tensors are stored by columns, which is not supported", ErrFormat)
	case fl&FlagSharded != 0:
		f.warn("the file says that it is one of several; it is read alone")
	case fl&(FlagLZ4|FlagZSTD) != 0:
		// One writer sets the flag and compresses nothing, another compresses
		// all that follows the header.
		text, err := f.section("metadata", f.Header.MetadataOffset, uint64(f.Header.MetadataSize))
		if err != nil || !json.Valid(bytes.TrimRight(text, "\x00")) {
			return fmt.Errorf("%w: the file is compressed, which is not supported; write it again without compression", ErrFormat)
		}
		f.warn("the header says compressed, the file is not")
	}
	return nil
}

// section returns size bytes at an offset of the file.
func (f *File) section(name string, offset, size uint64) ([]byte, error) {
	end := uint64(len(f.data))
	if offset < headerLen || offset > end || size > end-offset {
		return nil, fmt.Errorf("%w: the %s' %d bytes at byte %d are outside the file, which has %d", ErrFormat, name, size, offset, end)
	}
	return f.data[offset : offset+size], nil
}

// readIndex reads the entries and finds the tensors' bytes.
func (f *File) readIndex() error {
	h := &f.Header
	end := uint64(len(f.data))
	if h.TensorCount > 0 && (h.IndexOffset < headerLen || h.IndexOffset >= end) {
		return fmt.Errorf("%w: the index at byte %d is outside the file, which has %d", ErrFormat, h.IndexOffset, end)
	}
	if h.DataOffset > end {
		return fmt.Errorf("%w: the data at byte %d are outside the file, which has %d", ErrFormat, h.DataOffset, end)
	}
	at := h.IndexOffset
	sorted := true
	for i := range h.TensorCount {
		t, next, err := f.entry(at)
		if err != nil {
			return fmt.Errorf("%w: tensor %d of %d at byte %d: %w", ErrFormat, i+1, h.TensorCount, at, err)
		}
		if _, dup := f.index[t.Name]; dup {
			return fmt.Errorf("%w: tensor %s occurs twice", ErrFormat, quote(t.Name))
		}
		if n := len(f.Tensors); n > 0 && f.Tensors[n-1].Name > t.Name {
			sorted = false
		}
		f.index[t.Name] = len(f.Tensors)
		f.Tensors = append(f.Tensors, t)
		f.DataEnd = max(f.DataEnd, t.Offset+int64(len(t.Data)))
		at = next
	}
	if !sorted {
		f.warn("the index is not sorted by name")
	}
	f.IndexEnd = int64(min(at, end))
	return nil
}

// entry reads the index entry at a byte and returns where the next begins.
func (f *File) entry(at uint64) (t Tensor, next uint64, err error) {
	d, end := f.data, uint64(len(f.data))
	left := func(n uint64) bool { return at <= end && n <= end-at }
	le := binary.LittleEndian
	if !left(2) {
		return t, 0, fmt.Errorf("the index ends within the length of a name")
	}
	n := uint64(le.Uint16(d[at:]))
	if n == 0 || n > maxNameLen {
		return t, 0, fmt.Errorf("name has %d bytes, want 1 to %d", n, maxNameLen)
	}
	at += 2
	if !left(n + 2) {
		return t, 0, fmt.Errorf("the index ends within a name of %d bytes", n)
	}
	if !utf8.Valid(d[at : at+n]) {
		return t, 0, fmt.Errorf("name %s is not UTF-8", quote(string(d[at:at+n])))
	}
	t.Name = string(d[at : at+n])
	at += n
	t.Code = d[at]
	dims := uint64(d[at+1])
	at += 2
	if dims > maxDims {
		return t, 0, fmt.Errorf("%s: %d dimensions, want at most %d", quote(t.Name), dims, maxDims)
	}
	if !left(8*dims + 16) {
		return t, 0, fmt.Errorf("%s: the index ends within its dimensions", quote(t.Name))
	}
	for range dims {
		x := le.Uint64(d[at:])
		if x == 0 || x > math.MaxInt {
			return t, 0, fmt.Errorf("%s: dimension %d", quote(t.Name), x)
		}
		t.Shape = append(t.Shape, int(x))
		at += 8
	}
	if len(t.Shape) == 0 {
		t.Shape = []int{1} // a scalar
	}
	offset, size := le.Uint64(d[at:]), le.Uint64(d[at+8:])
	if room := end - f.Header.DataOffset; offset > room || size > room-offset {
		return t, 0, fmt.Errorf("%s: its %d bytes at offset %d of the data (which start at byte %d) go past the end of the file at %d",
			quote(t.Name), size, offset, f.Header.DataOffset, end)
	}
	if t.Type, t.Padded, err = resolve(t.Code, t.Shape, size); err != nil {
		return t, 0, fmt.Errorf("%s: %w", quote(t.Name), err)
	}
	from := f.Header.DataOffset + offset
	t.Offset = int64(from)
	t.Data = d[from : from+size : from+size]
	return t, at + 16, nil
}

// checkOverlap refuses tensors that share some of their bytes, or bytes of the
// index. Sharing all is how a file stores tied weights once.
func (f *File) checkOverlap() error {
	order := slices.Clone(f.Tensors)
	slices.SortStableFunc(order, func(a, b Tensor) int { return cmp.Compare(a.Offset, b.Offset) })
	for i, b := range order {
		if b.Offset < f.IndexEnd {
			return fmt.Errorf("%w: tensor %s at byte %d overlaps the index, which ends at byte %d", ErrFormat, quote(b.Name), b.Offset, f.IndexEnd)
		}
		if i == 0 {
			continue
		}
		a := order[i-1]
		same := a.Offset == b.Offset && len(a.Data) == len(b.Data)
		if end := a.Offset + int64(len(a.Data)); end > b.Offset && !same {
			return fmt.Errorf("%w: tensor %s at byte %d overlaps tensor %s, which ends at byte %d", ErrFormat, quote(b.Name), b.Offset, quote(a.Name), end)
		}
	}
	return nil
}

// readFooter looks for the checksum at the end. Its value is checked by Verify,
// since that means reading the whole file.
func (f *File) readFooter() {
	end, size := max(f.DataEnd, int64(f.Header.DataOffset)), f.Size()
	switch rest := size - end; {
	case size == alignUp(end)+4 || rest == 4:
		f.Footer = size - 4
	case rest == 0 || size == alignUp(end):
		f.warn("the file has no checksum")
	default:
		f.warn("%d bytes follow the last tensor", rest)
	}
}

// Verify compares the checksum of the whole file, which Open does not read. It
// does nothing for a file without one.
func (f *File) Verify() error {
	if f.Footer < 0 {
		return nil
	}
	want := binary.LittleEndian.Uint32(f.data[f.Footer:])
	if sum := crc32.ChecksumIEEE(f.data[:f.Footer]); sum != want {
		return fmt.Errorf("%w: the checksum at byte %d is %08x, the file's bytes give %08x: the file is damaged", ErrFormat, f.Footer, want, sum)
	}
	return nil
}

// alignUp is the next multiple of the alignment.
func alignUp(n int64) int64 { return (n + alignment - 1) &^ (alignment - 1) }
