package newfile

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// calls keeps what it is given, and how much at a time.
type calls struct {
	bytes.Buffer
	lengths []int
	fail    error
}

func (c *calls) Write(p []byte) (int, error) {
	if c.fail != nil {
		return 0, c.fail
	}
	c.lengths = append(c.lengths, len(p))
	return c.Buffer.Write(p)
}

func TestBlocks(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	data := make([]byte, 7*blockLen+12345)
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	for _, tt := range []struct {
		name string
		next func() int
	}{
		{"all at once", func() int { return len(data) }},
		{"whole blocks", func() int { return blockLen }},
		{"a block and a little", func() int { return blockLen + 32 }},
		{"pieces of any length", func() int { return rng.IntN(3 * blockLen) }},
		{"small pieces", func() int { return rng.IntN(1 << 16) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to := new(calls)
			b := NewBlocks(to)
			for rest := data; len(rest) > 0; {
				n := min(tt.next(), len(rest))
				if got, err := b.Write(rest[:n]); got != n || err != nil {
					t.Fatalf("%d of %d written, %v", got, n, err)
				}
				rest = rest[n:]
			}
			if err := b.Flush(); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(to.Bytes(), data) {
				t.Error("other bytes arrived")
			}
			for i, n := range to.lengths[:len(to.lengths)-1] {
				if n == 0 || n%blockLen != 0 {
					t.Errorf("write %d has %d bytes, want whole blocks", i, n)
				}
			}
		})
	}
}

func TestBlocksFails(t *testing.T) {
	full := errors.New("full")
	for _, n := range []int{blockLen, 3*blockLen + 1} {
		b := NewBlocks(&calls{fail: full})
		if _, err := b.Write(make([]byte, n)); err != full {
			t.Errorf("%d bytes: %v, want the writer's error", n, err)
		}
	}
	b := NewBlocks(&calls{fail: full})
	if n, err := b.Write(make([]byte, 5)); n != 5 || err != nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := b.Flush(); err != full {
		t.Errorf("%v, want the writer's error", err)
	}
}
