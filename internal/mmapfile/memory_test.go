package mmapfile

import "testing"

func TestMemory(t *testing.T) {
	for _, size := range []int{0, 1, 4097, 5 << 20} {
		m := NewMemory(size)
		if len(m.Data) != size {
			t.Fatalf("%d bytes, want %d", len(m.Data), size)
		}
		for i := range m.Data {
			m.Data[i] = byte(i)
		}
		if n := m.Large(); n < 0 || n > size {
			t.Errorf("%d of %d bytes in large pages", n, size)
		}
		for range 2 {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}
