package tokenizer

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"
)

// fields is metadata held in a map.
type fields map[string]any

func (f fields) String(k string) (string, bool)    { v, ok := f[k].(string); return v, ok }
func (f fields) Uint(k string) (uint64, bool)      { v, ok := f[k].(uint64); return v, ok }
func (f fields) Bool(k string) (bool, bool)        { v, ok := f[k].(bool); return v, ok }
func (f fields) Strings(k string) ([]string, bool) { v, ok := f[k].([]string); return v, ok }
func (f fields) Ints(k string) ([]int64, bool)     { v, ok := f[k].([]int64); return v, ok }
func (f fields) Floats(k string) ([]float64, bool) { v, ok := f[k].([]float64); return v, ok }

// sharedDir returns the folder shared/ beside the repository, or skips.
func sharedDir(t testing.TB) string {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if filepath.Dir(dir) == dir {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = filepath.Dir(dir)
	}
	shared := filepath.Join(filepath.Dir(dir), "shared")
	if _, err := os.Stat(shared); err != nil {
		t.Skip("the folder shared/ is not beside the repository")
	}
	return shared
}

// readGGUF reads the metadata of a GGUF v2 or v3 file that is known to be sound.
func readGGUF(t testing.TB, path string) fields {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	u32 := func() uint32 { v := binary.LittleEndian.Uint32(data); data = data[4:]; return v }
	u64 := func() uint64 { v := binary.LittleEndian.Uint64(data); data = data[8:]; return v }
	str := func() string { n := u64(); v := string(data[:n]); data = data[n:]; return v }
	var scalar func(kind uint32) any
	scalar = func(kind uint32) any {
		switch kind {
		case 0, 1:
			v := data[0]
			data = data[1:]
			return uint64(v)
		case 7:
			v := data[0] != 0
			data = data[1:]
			return v
		case 2, 3:
			v := binary.LittleEndian.Uint16(data)
			data = data[2:]
			return uint64(v)
		case 4, 5:
			return uint64(u32())
		case 6:
			return float64(math.Float32frombits(u32()))
		case 8:
			return str()
		case 10, 11:
			return u64()
		case 12:
			return math.Float64frombits(u64())
		}
		t.Fatalf("GGUF type %d", kind)
		return nil
	}
	u32()
	u32()
	u64()
	f := fields{}
	for n := u64(); n > 0; n-- {
		key, kind := str(), u32()
		if kind != 9 {
			f[key] = scalar(kind)
			continue
		}
		kind = u32()
		count := u64()
		var ss []string
		var is []int64
		var fs []float64
		for ; count > 0; count-- {
			switch v := scalar(kind).(type) {
			case string:
				ss = append(ss, v)
			case uint64:
				is = append(is, int64(int32(v)))
			case float64:
				fs = append(fs, v)
			}
		}
		switch {
		case ss != nil:
			f[key] = ss
		case is != nil:
			f[key] = is
		case fs != nil:
			f[key] = fs
		}
	}
	return f
}
