package check

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/apr-engine/apr/modelfile"
	"github.com/apr-engine/apr/modelfile/annotate"
)

// convert writes the sound model in another container and returns its bytes.
func convert(t *testing.T, name string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if _, err := modelfile.Convert(context.Background(), sound, path, modelfile.Options{}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// sign makes the checksums of an .apr file right again.
func sign(b []byte) {
	binary.LittleEndian.PutUint32(b[40:], crc32.ChecksumIEEE(append(bytes.Clone(b[:40]), b[44:64]...)))
	binary.LittleEndian.PutUint32(b[len(b)-4:], crc32.ChecksumIEEE(b[:len(b)-4]))
}

// The other containers: sound files of our own writers, and damage to them.
func TestContainers(t *testing.T) {
	offset := func(b []byte, name string) int {
		m, err := annotate.New(b)
		if err != nil {
			t.Fatal(err)
		}
		x, ok := m.Find(name)
		if !ok {
			t.Fatalf("no tensor %s", name)
		}
		return int(x.Offset)
	}
	const hf = "model.layers.1.mlp.up_proj.weight"
	tests := []struct {
		name, file string
		change     func(b []byte) []byte
		want       []Finding // Text is a part of the text
	}{
		{"sound .apr", "m.apr", func(b []byte) []byte { return b }, nil},
		{"a flipped bit", "m.apr", func(b []byte) []byte { b[offset(b, hf)+8] ^= 1; return b },
			[]Finding{{KindChecksum, Error, "", "the checksum of the file"}}},
		{"NaN", "m.apr", func(b []byte) []byte {
			copy(b[offset(b, hf):], []byte{0, 0, 0xc0, 0x7f})
			sign(b)
			return b
		}, []Finding{{KindNotFinite, Error, "blk.1.ffn_up.weight", "element [0, 0]"}}},
		{"one of several", "m.apr", func(b []byte) []byte { b[6] |= 0x10; sign(b); return b },
			[]Finding{{KindUnusual, Note, "", "one of several"}}},
		{"cut .apr", "m.apr", func(b []byte) []byte { return b[:len(b)-500] },
			[]Finding{{KindExtent, Error, "", "go past the end"}, {KindStructure, Error, "", "cannot be opened"}}},
		{"sound safetensors", "m.safetensors", func(b []byte) []byte { return b }, []Finding{{KindConfig, Note, "", "no metadata"}}},
		{"zeros in safetensors", "m.safetensors", func(b []byte) []byte {
			m, err := annotate.New(b)
			if err != nil {
				t.Fatal(err)
			}
			x, _ := m.Find(hf)
			clear(b[x.Offset : x.Offset+x.Size])
			return b
		}, []Finding{{KindZeroTensor, Error, hf, "numbers are zero"}}},
		{"cut safetensors", "m.safetensors", func(b []byte) []byte { return b[:len(b)-5] }, []Finding{{KindExtent, Error, "", "go past the end"}}},
	}
	files := map[string][]byte{"m.apr": convert(t, "m.apr"), "m.safetensors": convert(t, "m.safetensors")}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), tt.file)
			if err := os.WriteFile(path, tt.change(bytes.Clone(files[tt.file])), 0o666); err != nil {
				t.Fatal(err)
			}
			r, err := File(context.Background(), path, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.want {
				if !slices.ContainsFunc(r.Findings, func(f Finding) bool {
					return f.Kind == want.Kind && f.Severity == want.Severity && (want.Tensor == "" || f.Tensor == want.Tensor) && strings.Contains(f.Text, want.Text)
				}) {
					t.Errorf("want %+v among %+v", want, r.Findings)
				}
			}
			failed := slices.ContainsFunc(tt.want, func(f Finding) bool { return f.Severity == Error })
			if r.Passed(true) == failed || len(tt.want) == 0 && len(r.Findings) > 0 {
				t.Errorf("findings %+v", r.Findings)
			}
		})
	}
}
