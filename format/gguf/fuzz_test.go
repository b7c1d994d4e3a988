package gguf

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/apr-engine/apr/tensor"
)

// FuzzParse checks that any bytes give either a one-line ErrFormat error or a
// file whose every part can be used, and that what was read can be written and
// read again to the same values.
func FuzzParse(f *testing.F) {
	_, sample := writeSample(f, sampleMetadata(f), sampleTensors())
	f.Add(sample)
	for _, n := range []int{4, 24, 60, 200, len(sample) / 2, len(sample) - 1} {
		f.Add(sample[:n])
	}
	r := newRaw()
	r.version = 2
	r.key(keyAlignment, TypeUint32, u32(nil, 64)).tensor("x", tensor.F32, 64, 2).tensor("y", tensor.I8, 0, 3)
	r.alignment, r.data = 64, make([]byte, 72)
	f.Add(r.bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := Parse(data)
		if err != nil {
			if !errors.Is(err, ErrFormat) || strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("error %q is not an ErrFormat of one line", err)
			}
			return
		}
		md := file.Metadata
		for _, key := range md.Keys() {
			v, _ := md.Value(key)
			if s := v.String(); strings.Contains(s, "\n") {
				t.Errorf("String() has several lines: %q", s)
			}
			v.Any()
			md.Uint(key)
			md.Floats(key)
			md.Ints(key)
			md.Strings(key)
			_ = md.Problem(key, "nothing")
		}
		var infos []TensorInfo
		for _, x := range file.Tensors {
			if n, err := tensor.Bytes(x.Type, x.Shape); err != nil || n != len(x.Data) {
				t.Errorf("%v has %d bytes of data, want %d (%v)", x, len(x.Data), n, err)
			}
			infos = append(infos, TensorInfo{x.Name, x.Type, x.Shape})
		}
		lay, err := plan(md, infos)
		if err != nil {
			return // readable, but not what we would write: long names, odd alignment
		}
		again := lay.header
		for i, x := range file.Tensors {
			again = append(append(again, x.Data...), make([]byte, padding(lay.sizes[i], lay.alignment))...)
		}
		second, err := Parse(again)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		for key, v := range md.All() {
			if got, _ := second.Metadata.Value(key); got != v {
				t.Errorf("%q changed from %v to %v", key, v, got)
			}
		}
		for i, x := range file.Tensors {
			if y := second.Tensors[i]; y.String() != x.String() || !bytes.Equal(x.Data, y.Data) {
				t.Errorf("%v changed to %v", x, y)
			}
		}
	})
}
