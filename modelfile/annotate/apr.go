package annotate

import (
	"fmt"
	"hash/crc32"
	"math"
	"strings"

	"github.com/apr-engine/apr/tensor"
)

// aprHeader is the length of the header of .apr version 2, in bytes.
const aprHeader = 64

// aprTypes are the type numbers of .apr that tensor has a name for.
var aprTypes = map[uint64]tensor.DType{
	0: tensor.F32, 1: tensor.F16, 3: tensor.F64, 4: tensor.I32, 5: tensor.I64, 6: tensor.I8,
	12: tensor.Q4_K, 14: tensor.Q6_K, 30: tensor.BF16,
}

// aprTypeNames are those that only .apr has.
var aprTypeNames = map[uint64]string{7: "U8", 8: "AprQ4", 9: "AprQ8", 128: "AprQ4", 129: "AprQ8"}

// aprFlags are the bits of the header's flags, lowest first.
var aprFlags = []string{
	"LZ4", "ZSTD", "ENCRYPTED", "SIGNED", "SHARDED", "QUANTIZED", "HAS_FILTERBANK", "HAS_MODEL_CARD",
	"STREAMING", "HAS_VOCAB", "LAYOUT_ROW_MAJOR", "LAYOUT_COLUMN_MAJOR",
}

func aprFlagNames(v uint64) string {
	var list []string
	for i, name := range aprFlags {
		if v>>i&1 == 1 {
			list = append(list, name)
		}
	}
	return fmt.Sprintf("%#04x %s", v, strings.Join(list, " "))
}

// walkAPR follows the writers of .apr version 2 (aprender's format/v2): header,
// JSON metadata, index, data, checksum.
func walkAPR(w *walker) {
	w.text(4, "", "magic")
	w.uint(1, "", "version major", nil)
	w.uint(1, "", "version minor", nil)
	flags := w.uint(2, "", "flags", aprFlagNames)
	count := w.uint(4, "", "tensor count", nil)
	metadata := w.uint(8, "", "metadata offset", nil)
	metadataSize := w.uint(4, "", "metadata size", nil)
	index := w.uint(8, "", "index offset", nil)
	data := w.uint(8, "", "data offset", nil)
	w.checksum("header checksum", func() uint32 {
		if len(w.data) < aprHeader {
			return 0
		}
		return crc32.Update(crc32.ChecksumIEEE(w.data[:40]), crc32.IEEETable, w.data[44:aprHeader])
	})
	w.text(20, "", "reserved")
	if w.err != nil {
		return
	}
	n := uint64(len(w.data))
	if metadata > n || metadataSize > n-metadata {
		w.fail("metadata of %d bytes at byte %d goes past the end of the file at %d", metadataSize, metadata, n)
		return
	}
	w.at = int(metadata)
	meta := w.text(metadataSize, "", "metadata")
	if flags&3 != 0 && !strings.HasPrefix(strings.TrimSpace(meta), "{") {
		w.fail("the file is compressed (flags %s)", aprFlagNames(flags))
		return
	}
	if index > n || data > n {
		w.fail("index at byte %d or data at byte %d lies past the end of the file at %d", index, data, n)
		return
	}
	w.at = int(index)
	for i := uint64(0); i < count && w.err == nil; i++ {
		w.aprEntry(i, data)
	}
	w.aprFooter(data)
}

// aprEntry reads one entry of the index.
func (w *walker) aprEntry(i, data uint64) {
	prefix := fmt.Sprintf("tensor %d ", i)
	t := Tensor{Name: w.text(w.uint(2, prefix, "name length", nil), prefix, "name")}
	prefix = clip(t.Name) + ": "
	typ := w.uint(1, prefix, "type", func(v uint64) string { return fmt.Sprintf("%d, %s", v, aprTypeName(v)) })
	dims := w.uint(1, prefix, "dimensions", nil)
	for d := uint64(0); d < dims && w.err == nil; d++ {
		t.Shape = append(t.Shape, w.uint(8, prefix, fmt.Sprintf("dimension %d", d), nil))
	}
	offset := w.uint(8, prefix, "offset in the data section", nil)
	size := w.uint(8, prefix, "size", nil)
	if w.err != nil {
		return
	}
	t.Type, t.Known = aprTypes[typ]
	t.TypeName = aprTypeName(typ)
	if t.Known && len(t.Shape) > 0 {
		// A number may mean another type in files of other writers: its size tells.
		want, ok := bytesOf(t.Type, t.Shape)
		t.Known = ok && want == size
	}
	t.Known = t.Known && len(t.Shape) > 0
	if t.Offset = data + offset; t.Offset < data {
		t.Offset = math.MaxUint64
	}
	w.add(t)
	w.tensors[len(w.tensors)-1].Size = size
}

func aprTypeName(v uint64) string {
	if t, ok := aprTypes[v]; ok {
		return t.String()
	}
	if s, ok := aprTypeNames[v]; ok {
		return s
	}
	return fmt.Sprintf("type %d", v)
}

// aprFooter keeps the checksum after the last tensor, if there is one.
func (w *walker) aprFooter(data uint64) {
	end := data
	for i := range w.tensors {
		t := &w.tensors[i]
		if !t.Inside(len(w.data)) {
			return
		}
		end = max(end, t.Offset+t.Size)
	}
	last := len(w.data) - 4
	if w.err != nil || last < 0 || uint64(last) < end || uint64(last) != (end+63)&^63 {
		return
	}
	w.at = last
	w.checksum("checksum of the file", func() uint32 { return crc32.ChecksumIEEE(w.data[:last]) })
}
