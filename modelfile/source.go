package modelfile

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/apr-engine/apr/format/apr"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/format/safetensors"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// source is a model on its way into another file: GGUF metadata and, under
// GGUF names, tensors whose rows may still have to change places.
type source struct {
	format   string // "GGUF v3", "safetensors"
	origin   string // "gguf", "apr", "safetensors"
	md       *gguf.Metadata
	items    []item
	tied     bool // it has no output matrix of its own
	paths    []string
	size     int64
	warnings []string
	close    func() error
	// factors is the content of rope_freqs.weight once forTransformers has taken it
	// out: it becomes rope_scaling in config.json.
	factors []byte
}

// item is one tensor.
type item struct {
	tensor.Tensor
	// row, if set, says which row of Data becomes row r.
	row func(r int) int
	// own is the tensor in a type that only .apr has, if it has one.
	own *apr.Tensor
	// stored is the type in the source, if it is not that of Tensor.
	stored string
}

// openSource opens what can be converted: a model file, or a Hugging Face folder
// or its index.
func openSource(path string) (*source, error) {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		return openHF(path)
	}
	if err == nil && (filepath.Base(path) == safetensors.IndexName || strings.HasSuffix(path, ".safetensors")) {
		return openHF(filepath.Dir(path))
	}
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	return f.source()
}

// source makes a source of an open file, which it owns.
func (f *File) source() (*source, error) {
	_, hasOutput := f.Tensor("output.weight")
	s := &source{
		format: f.Format, origin: strings.ToLower(f.Format[:strings.IndexByte(f.Format, ' ')]), md: f.Metadata.Clone(),
		tied: !hasOutput, paths: f.paths, size: f.size, warnings: f.Warnings, close: f.Close,
	}
	// A file whose pairing differs from its architecture's gets its rows in the
	// order that every reader expects.
	arch := f.arch()
	pairing, swapped := f.Metadata.String(arch + ".rope.pairing")
	interleave := pairing == "halves" && pairsNeighbours(arch)
	if swapped = swapped && (interleave || pairing == "interleaved" && !pairsNeighbours(arch)); swapped {
		s.md.Delete(arch + ".rope.pairing")
	}
	for _, t := range f.Tensors {
		it := item{Tensor: t}
		if own, ok := f.own[t.Name]; ok && !own.Padded {
			it.own = &own
		}
		if swapped {
			var err error
			if it, err = reorder(it, s.md, arch, interleave); err != nil {
				f.Close()
				return nil, err
			}
		}
		s.items = append(s.items, it)
	}
	return s, nil
}

// reorder changes the rows of query and key matrices (and the elements of their
// biases) from one RoPE pairing to the other: to neighbours (interleave) or to
// halves. Row 2i of a head in the one order is row i in the other, row 2i+1 is
// row i + half of the head. Other tensors are left alone.
func reorder(it item, md *gguf.Metadata, arch string, interleave bool) (item, error) {
	part := it.Name[strings.LastIndexByte(strings.TrimSuffix(strings.TrimSuffix(it.Name, ".weight"), ".bias"), '.')+1:]
	key := ""
	switch {
	case strings.HasPrefix(part, "attn_q."):
		key = arch + ".attention.head_count"
	case strings.HasPrefix(part, "attn_k."):
		key = arch + ".attention.head_count_kv"
		if _, ok := md.Uint(key); !ok {
			key = arch + ".attention.head_count"
		}
	default:
		return it, nil
	}
	rows := it.Rows()
	bias := len(it.Shape) == 1
	if bias {
		rows = it.Cols()
	}
	heads, _ := md.Uint(key)
	if heads == 0 || uint64(rows)%heads != 0 || uint64(rows)/heads%2 != 0 {
		return it, fmt.Errorf("%w: %s: %d rows are no whole number of heads of even width (%s is %d)", ErrConfig, it.Name, rows, key, heads)
	}
	width := rows / int(heads)
	half := width / 2
	row := func(r int) int {
		head, i := r/width*width, r%width
		if interleave {
			return head + i%2*half + i/2
		}
		return head + i%half*2 + i/half
	}
	it.own = nil
	if before := it.row; !bias && before != nil {
		it.row = func(r int) int { return before(row(r)) }
		return it, nil
	}
	if !bias {
		it.row = row
		return it, nil
	}
	size := it.Type.BlockBytes()
	if it.Type.BlockLen() != 1 {
		return it, fmt.Errorf("%w: %s: a bias of type %s cannot be reordered", ErrConfig, it.Name, it.Type)
	}
	data := make([]byte, 0, len(it.Data))
	for r := range rows {
		data = append(data, it.Data[row(r)*size:(row(r)+1)*size]...)
	}
	it.Data = data
	return it, nil
}

// forTransformers gives tensors the order and the numbers that Hugging Face's
// transformers expect: the reverse of what reading a folder does.
func (s *source) forTransformers() error {
	arch, _ := s.md.String("general.architecture")
	kept := s.items[:0]
	for _, it := range s.items {
		var err error
		if pairsNeighbours(arch) {
			it, err = reorder(it, s.md, arch, false)
		}
		if err == nil && arch == "gemma3" && strings.HasSuffix(it.Name, "norm.weight") {
			err = it.toF32(-1)
		}
		if err != nil {
			return fmt.Errorf("tensor %s: %w", it, err)
		}
		if it.Name == "rope_freqs.weight" && it.Type == tensor.F32 {
			s.factors = it.Data
			continue
		}
		kept = append(kept, it)
	}
	s.items = kept
	return nil
}

// fits reports whether a vector of F32 has only numbers that a type holds exactly.
func (it *item) fits(to tensor.DType) bool {
	if it.Type != tensor.F32 || len(it.Shape) != 1 {
		return false
	}
	x := make([]float32, it.Elements())
	size, err := tensor.Bytes(to, it.Shape)
	if err != nil || quant.Dequantize(tensor.F32, x, it.Data) != nil {
		return false
	}
	packed := make([]byte, size)
	if quant.Quantize(to, packed, x, nil) != nil {
		return false
	}
	y := make([]float32, len(x))
	return quant.Dequantize(to, y, packed) == nil && slices.Equal(x, y)
}
