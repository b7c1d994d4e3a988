package annotate

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// tensorFields are the parts of a tensor's blocks that touch the window.
func (m *Map) tensorFields(t *Tensor, from, to int) []Field {
	if t.Size == 0 || t.Offset >= uint64(to) || t.Offset >= uint64(len(m.data)) {
		return nil
	}
	begin := int(t.Offset)
	end := begin + int(min(t.Size, uint64(len(m.data)-begin)))
	if end <= from {
		return nil
	}
	layout, ok := quant.LayoutOf(t.Type)
	switch {
	case !t.Known || !ok:
		return aprFields(t, begin, end)
	case t.Type.BlockLen() == 1:
		return m.numbers(t, begin, end, from, to)
	}
	var fields []Field
	size := t.Type.BlockBytes()
	perRow := max(1, int(t.Shape[len(t.Shape)-1])/t.Type.BlockLen())
	for b := max(0, from-begin) / size; begin+b*size < min(end, to); b++ {
		at := begin + b*size
		name := fmt.Sprintf("%s row %d block %d: ", clip(t.Name), b/perRow, b%perRow)
		for _, p := range layout.Parts {
			if at >= end {
				break
			}
			f := Field{Offset: at, Length: min(p.Size, end-at), Name: name + p.Name}
			if p.Scale && f.Length == p.Size {
				f.Value = fmt.Sprintf("%v", quant.F16ToF32(binary.LittleEndian.Uint16(m.data[at:])))
			}
			if f.End() > from && at < to {
				fields = append(fields, f)
			}
			at += p.Size
		}
	}
	return fields
}

// numbers are the elements of a plain tensor, 16 bytes a field.
func (m *Map) numbers(t *Tensor, begin, end, from, to int) []Field {
	const row = 16
	size := t.Type.BlockBytes()
	cols := max(1, int(t.Shape[len(t.Shape)-1]))
	var fields []Field
	for at := begin + max(0, from-begin)/row*row; at < min(end, to); at += row {
		f := Field{Offset: at, Length: min(row, end-at)}
		first := (at - begin) / size
		for i := 0; i+size <= f.Length; i += size {
			if i > 0 {
				f.Value += ", "
			}
			f.Value += number(t.Type, m.data[at+i:at+i+size])
		}
		f.Name = fmt.Sprintf("%s row %d column %d", clip(t.Name), first/cols, first%cols)
		if len(t.Shape) == 1 {
			f.Name = fmt.Sprintf("%s element %d", clip(t.Name), first)
		}
		fields = append(fields, f)
	}
	return fields
}

// number renders one plain element.
func number(t tensor.DType, b []byte) string {
	switch t {
	case tensor.F64:
		return fmt.Sprintf("%.6g", math.Float64frombits(binary.LittleEndian.Uint64(b)))
	case tensor.I8:
		return fmt.Sprint(int8(b[0]))
	case tensor.I16:
		return fmt.Sprint(int16(binary.LittleEndian.Uint16(b)))
	case tensor.I32:
		return fmt.Sprint(int32(binary.LittleEndian.Uint32(b)))
	case tensor.I64:
		return fmt.Sprint(int64(binary.LittleEndian.Uint64(b)))
	}
	var x [1]float32
	if quant.Dequantize(t, x[:], b) != nil {
		return "?"
	}
	return fmt.Sprintf("%.6g", x[0])
}
