package modelfile

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"unsafe"

	"github.com/apr-engine/apr/format/apr"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// openApr presents an .apr file in GGUF's terms.
func openApr(path string) (*File, error) {
	a, err := apr.Open(path)
	if err != nil {
		return nil, err
	}
	f, err := viewApr(a)
	if err != nil {
		a.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

func viewApr(a *apr.File) (*File, error) {
	f := &File{
		Format:   fmt.Sprintf("APR v%d.%d", a.Header.Major, a.Header.Minor),
		Warnings: a.Warnings, paths: []string{a.Path()}, size: a.Size(), prefetch: a.Prefetch, closer: a,
		own: map[string]apr.Tensor{},
	}
	arch := aprArch(a.Metadata)
	places := map[string]gguf.Place{}
	f.place = func(name string) (gguf.Place, bool) { p, ok := places[name]; return p, ok }
	// In the order of their bytes: the index is sorted by name, the data need not be.
	inFile := slices.Clone(a.Tensors)
	slices.SortStableFunc(inFile, func(x, y apr.Tensor) int { return cmp.Compare(x.Offset, y.Offset) })
	for _, t := range inFile {
		name, _ := GGUFName(arch, t.Name)
		if _, dup := places[name]; dup {
			return nil, fmt.Errorf("%w: two tensors are %s", apr.ErrFormat, name)
		}
		x, err := viewTensor(t)
		if err != nil {
			return nil, fmt.Errorf("%w: tensor %s: %w", apr.ErrFormat, t, err)
		}
		if _, plain := t.Type.DType(); !plain || t.Padded {
			f.own[name] = t
		}
		x.Name = name
		places[name] = gguf.Place{Path: a.Path(), Offset: t.Offset}
		f.Tensors = append(f.Tensors, x)
	}
	f.buildIndex()
	f.dropTied(a)
	md, err := aprMetadata(a.Metadata, f)
	if err != nil {
		return nil, err
	}
	f.Metadata = md
	if _, ok := md.Value("tokenizer.ggml.tokens"); !ok {
		f.TokenizerProblem = f.siblingTokenizer(filepath.Dir(a.Path()), a.Path())
	}
	return f, nil
}

// dropTied leaves out an output matrix that is the embedding matrix once more.
func (f *File) dropTied(a *apr.File) {
	out, ok := f.Tensor("output.weight")
	in, hasIn := f.Tensor("token_embd.weight")
	if !ok || !hasIn || out.Type != in.Type || len(out.Data) != len(in.Data) {
		return
	}
	same := &out.Data[0] == &in.Data[0]
	if tied, _ := a.Metadata.Bool("tied_embeddings"); !same && (!tied || !bytes.Equal(out.Data, in.Data)) {
		return
	}
	i := f.index["output.weight"]
	f.Tensors = append(f.Tensors[:i], f.Tensors[i+1:]...)
	delete(f.own, "output.weight")
	f.buildIndex()
	f.tied = true
}

// viewTensor gives a tensor a type that backends know. F32, F16, BF16 and GGML's
// block types alias the file. AprQ4 becomes Q4_0, which has the same numbers in
// another order; AprQ8, and blocks that do not fit the rows, become F32.
func viewTensor(t apr.Tensor) (tensor.Tensor, error) {
	x := tensor.Tensor{Name: t.Name, Shape: t.Shape}
	d, plain := t.Type.DType()
	switch {
	case plain && t.Padded:
		x.Type = tensor.F32
		return x, unpad(&x, d, t.Data)
	case plain:
		x.Type, x.Data = d, aligned(t.Data)
	case t.Type == apr.U8:
		x.Type, x.Data = tensor.I8, t.Data
	case t.Type == apr.Q4 && x.Cols()%32 == 0:
		x.Type, x.Data = tensor.Q4_0, repackQ4(t.Data)
	case t.Type == apr.Q4:
		x.Type, x.Data = tensor.F32, floats(x.Elements(), func(i int) float32 {
			block := t.Data[i/32*18:]
			scale := quant.F16ToF32(binary.LittleEndian.Uint16(block))
			return float32(int(block[2+i%32/2]>>(i%2*4)&15)-8) * scale
		})
	case t.Type == apr.Q8:
		scale := math.Float32frombits(binary.LittleEndian.Uint32(t.Data))
		x.Type, x.Data = tensor.F32, floats(x.Elements(), func(i int) float32 { return float32(int8(t.Data[4+i])) * scale })
	default:
		return x, fmt.Errorf("type %s is not supported", t.Type)
	}
	return x, nil
}

// aligned returns data at an address that numbers of 8 bytes may have. Only
// files that do not align their tensors are copied.
func aligned(data []byte) []byte {
	if len(data) == 0 || uintptr(unsafe.Pointer(&data[0]))%8 == 0 {
		return data
	}
	return append(make([]byte, 0, len(data)+8), data...)
}

// repackQ4 turns AprQ4 blocks into Q4_0 blocks: element j goes from byte j/2 to
// byte j%16, the first sixteen into the low halves.
func repackQ4(data []byte) []byte {
	out := make([]byte, len(data))
	for b := 0; b < len(data); b += 18 {
		src, dst := data[b:b+18], out[b:b+18]
		copy(dst[:2], src)
		for j := range 16 {
			low := src[2+j/2] >> (j % 2 * 4) & 15
			high := src[2+8+j/2] >> (j % 2 * 4) & 15
			dst[2+j] = low | high<<4
		}
	}
	return out
}

// unpad stores rows of blocks that reach beyond the last column as F32.
func unpad(x *tensor.Tensor, d tensor.DType, data []byte) error {
	rows, cols := x.Rows(), x.Cols()
	rowBytes := len(data) / rows
	numbers := make([]float32, rowBytes/d.BlockBytes()*d.BlockLen())
	x.Data = make([]byte, 0, rows*cols*4)
	for r := range rows {
		if err := quant.Dequantize(d, numbers, data[r*rowBytes:(r+1)*rowBytes]); err != nil {
			return err
		}
		for _, v := range numbers[:cols] {
			x.Data = binary.LittleEndian.AppendUint32(x.Data, math.Float32bits(v))
		}
	}
	return nil
}

// floats stores n numbers as F32.
func floats(n int, at func(i int) float32) []byte {
	b := make([]byte, 0, 4*n)
	for i := range n {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(at(i)))
	}
	return b
}
