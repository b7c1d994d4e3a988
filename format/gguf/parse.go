package gguf

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/apr-engine/apr/tensor"
)

// parser walks a file from front to back. All its errors are ErrFormat.
type parser struct {
	data []byte
	off  int
}

// Parse reads a file that is in memory. Tensor data alias the given bytes;
// metadata is copied. A shard of a set is returned as it is, by itself.
func Parse(data []byte) (*File, error) {
	p := &parser{data: data}
	f := &File{alignment: defaultAlignment, size: int64(len(data))}
	nTensors, nKeys, err := p.header(f)
	if err != nil {
		return nil, err
	}
	if f.Metadata, err = p.metadata(nKeys); err != nil {
		return nil, err
	}
	if v, ok := f.Metadata.Value(keyAlignment); ok {
		if f.alignment, err = alignmentOf(f.Metadata, v); err != nil {
			return nil, err
		}
	}
	if err := p.tensors(f, nTensors); err != nil {
		return nil, err
	}
	return f, nil
}

// fail makes an ErrFormat error about a field. A fault brings its own position;
// any other error gets that of the field's start.
func fail(field string, at int, err error) error {
	if _, ok := asFault(err); ok {
		return fmt.Errorf("%w: %s %w", ErrFormat, field, err)
	}
	return fmt.Errorf("%w: %s at byte %d: %w", ErrFormat, field, at, err)
}

// header reads magic, version and the two counts.
func (p *parser) header(f *File) (tensors, keys uint64, err error) {
	d := p.data
	if err := checkMagic(d); err != nil {
		return 0, 0, err
	}
	if len(d) < headerLen {
		return 0, 0, fmt.Errorf("%w: header has %d bytes, want %d: the file is truncated", ErrFormat, len(d), headerLen)
	}
	f.Version = le32(d, 4)
	switch v := f.Version; {
	case v&0xffff == 0:
		// Versions are small, so an empty low half means swapped bytes.
		return 0, 0, fmt.Errorf("%w: the file is big-endian (version field %#08x); only little-endian files can be read", ErrFormat, v)
	case v != 2 && v != 3:
		return 0, 0, fmt.Errorf("%w: version at byte 4 is %d, want 2 or 3", ErrFormat, v)
	}
	tensors, keys = le64(d, 8), le64(d, 16)
	rest := uint64(len(d) - headerLen)
	// The shortest key takes 8+1 bytes, its type 4 and a value 1; the shortest
	// tensor 8+1 for its name, 4+8 for one dimension, 4 for its type, 8 for its offset.
	if keys > rest/14 {
		return 0, 0, fmt.Errorf("%w: key count at byte 16 is %d, more than the file's %d bytes can hold", ErrFormat, keys, len(d))
	}
	if tensors > rest/33 {
		return 0, 0, fmt.Errorf("%w: tensor count at byte 8 is %d, more than the file's %d bytes can hold", ErrFormat, tensors, len(d))
	}
	p.off = headerLen
	return tensors, keys, nil
}

// checkMagic tells a GGUF file from its relatives.
func checkMagic(d []byte) error {
	if len(d) < len(magic) {
		return fmt.Errorf("%w: %d bytes are too few for the magic %q", ErrFormat, len(d), magic)
	}
	switch m := string(d[:4]); m {
	case magic:
		return nil
	case "FUGG":
		return fmt.Errorf("%w: the file is big-endian (magic %q); only little-endian files can be read", ErrFormat, m)
	case "lmgg", "tjgg", "fmgg", "algg":
		return fmt.Errorf("%w: magic at byte 0 is %q, a format that preceded GGUF; convert the model again", ErrFormat, m)
	default:
		return fmt.Errorf("%w: magic at byte 0 is %q, want %q", ErrFormat, m, magic)
	}
}

// str reads a string of 1 to limit bytes: keys and tensor names.
func (p *parser) str(limit int) (string, error) {
	end, err := skipString(p.data, p.off)
	if err != nil {
		return "", err
	}
	n := end - p.off - 8
	if n == 0 || n > limit {
		return "", faultf(p.off, "name has %d bytes, want 1 to %d", n, limit)
	}
	s := string(p.data[p.off+8 : end])
	p.off = end
	return s, nil
}

// metadata reads n keys with their values. It walks over the mapped bytes, then
// copies the section once, so that values outlive the mapping and the strings of
// a vocabulary can be slices of that copy.
func (p *parser) metadata(n uint64) (*Metadata, error) {
	// Nothing is sized by n: a false count must not cost memory before it is found out.
	md := NewMetadata()
	begin := p.off
	type span struct{ start, end int }
	var spans []span
	for i := range n {
		at := p.off
		key, err := p.str(math.MaxUint16)
		if err != nil {
			return nil, fail(fmt.Sprintf("metadata key %d of %d", i+1, n), at, err)
		}
		field := "metadata key " + quote(key)
		if _, dup := md.values[key]; dup {
			return nil, fail(field, at, fmt.Errorf("occurs twice"))
		}
		if err := need(p.data, p.off, 4, "its type"); err != nil {
			return nil, fail(field, at, err)
		}
		t := ValueType(le32(p.data, p.off))
		if !t.known() {
			return nil, fail(field, p.off, fmt.Errorf("unknown value type %d", uint32(t)))
		}
		start := p.off + 4
		if p.off, err = skipValue(p.data, start, t, 0); err != nil {
			return nil, fail(field, at, err)
		}
		md.keys = append(md.keys, key)
		md.values[key] = Value{Type: t}
		spans = append(spans, span{start, p.off})
	}
	section := string(p.data[begin:p.off])
	for i, key := range md.keys {
		raw := section[spans[i].start-begin : spans[i].end-begin]
		if v := md.values[key]; v.Type == TypeArray {
			md.values[key] = arrayValue(raw)
		} else {
			md.values[key] = Value{Type: v.Type, raw: raw}
		}
	}
	return md, nil
}

// alignmentOf checks general.alignment, which the specification makes a uint32.
func alignmentOf(md *Metadata, v Value) (int, error) {
	n, _ := md.Uint(keyAlignment)
	if v.Type != TypeUint32 || n == 0 || n&(n-1) != 0 || n > math.MaxInt32 {
		return 0, md.Problem(keyAlignment, "a uint32 that is a power of two")
	}
	return int(n), nil
}

// tensors reads the n tensor descriptions and finds their bytes.
func (p *parser) tensors(f *File, n uint64) error {
	f.index = map[string]int{}
	var offsets []uint64 // from the start of the data section
	for i := range n {
		t, offset, err := p.tensorInfo(i, n)
		if err != nil {
			return err
		}
		if _, dup := f.index[t.Name]; dup {
			return fail("tensor "+quote(t.Name), p.off, fmt.Errorf("occurs twice"))
		}
		f.index[t.Name] = int(i)
		f.Tensors = append(f.Tensors, t)
		offsets = append(offsets, offset)
	}
	// The data section starts at the next multiple of the alignment. With no
	// tensors nothing needs to be there.
	start := (uint64(p.off) + uint64(f.alignment) - 1) &^ (uint64(f.alignment) - 1)
	for i := range f.Tensors {
		place, err := locate(p.data, &f.Tensors[i], start, offsets[i], f.alignment)
		if err != nil {
			return err
		}
		f.places = append(f.places, place)
	}
	return checkOverlap(f)
}

// tensorInfo reads the description of tensor i of n: all but its bytes.
func (p *parser) tensorInfo(i, n uint64) (tensor.Tensor, uint64, error) {
	var t tensor.Tensor
	begin := p.off
	name, err := p.str(maxNameLen)
	if err != nil {
		return t, 0, fail(fmt.Sprintf("tensor %d of %d", i+1, n), begin, err)
	}
	field := "tensor " + quote(name)
	if err := need(p.data, p.off, 4, "the number of dimensions"); err != nil {
		return t, 0, fail(field, begin, err)
	}
	dims := le32(p.data, p.off)
	if dims == 0 || dims > maxDims {
		return t, 0, fail(field, p.off, fmt.Errorf("%d dimensions, want 1 to %d", dims, maxDims))
	}
	p.off += 4
	if err := need(p.data, p.off, 8*uint64(dims)+12, "its dimensions, type and offset"); err != nil {
		return t, 0, fail(field, begin, err)
	}
	shape := make([]int, dims)
	for j := range shape {
		ne := le64(p.data, p.off)
		if ne == 0 || ne > math.MaxInt {
			return t, 0, fail(field, p.off, fmt.Errorf("dimension %d is %d, want 1 to %d", j, ne, math.MaxInt))
		}
		shape[len(shape)-1-j] = int(ne) // GGUF lists the fastest-varying first
		p.off += 8
	}
	t = tensor.Tensor{Name: name, Type: tensor.DType(le32(p.data, p.off)), Shape: shape}
	if !t.Type.Known() {
		return t, 0, fail(field, p.off, fmt.Errorf("unknown or retired tensor type %d", uint32(t.Type)))
	}
	if _, err := tensor.Bytes(t.Type, t.Shape); err != nil {
		return t, 0, fail(field, begin, err)
	}
	offset := le64(p.data, p.off+4)
	p.off += 12
	return t, offset, nil
}

// locate sets t.Data to the tensor's bytes, offset bytes into the data section.
func locate(data []byte, t *tensor.Tensor, start, offset uint64, alignment int) (Place, error) {
	field := "tensor " + quote(t.Name)
	if offset%uint64(alignment) != 0 {
		return Place{}, fmt.Errorf("%w: %s: offset %d is not a multiple of the alignment %d", ErrFormat, field, offset, alignment)
	}
	size, err := tensor.Bytes(t.Type, t.Shape)
	if err != nil {
		return Place{}, fmt.Errorf("%w: %s: %w", ErrFormat, field, err)
	}
	end := uint64(len(data))
	if start > end || offset > end-start || uint64(size) > end-start-offset {
		return Place{}, fmt.Errorf("%w: %s: its %d bytes at offset %d of the data section (which starts at byte %d) go past the end of the file at %d",
			ErrFormat, field, size, offset, start, end)
	}
	at := int(start + offset)
	t.Data = data[at : at+size : at+size]
	return Place{Offset: int64(at)}, nil
}

// checkOverlap refuses tensors that share bytes.
func checkOverlap(f *File) error {
	order := make([]int, len(f.Tensors))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(f.places[a].Offset, f.places[b].Offset) })
	for i := 1; i < len(order); i++ {
		a, b := order[i-1], order[i]
		if end := f.places[a].Offset + int64(len(f.Tensors[a].Data)); end > f.places[b].Offset {
			return fmt.Errorf("%w: tensor %s at byte %d overlaps tensor %s, which ends at byte %d",
				ErrFormat, quote(f.Tensors[b].Name), f.places[b].Offset, quote(f.Tensors[a].Name), end)
		}
	}
	return nil
}
