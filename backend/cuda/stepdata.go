package cuda

import (
	"encoding/binary"
	"fmt"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/driver/cuda"
)

// stepData is everything that kernels read about the step at hand. It is written
// to pinned memory and copied as one piece before the kernels, which find their
// arrays at places that the step's stepSize alone decides: so a captured graph can be
// replayed for other tokens.
type stepData struct {
	host   []byte
	device cuda.Ptr
}

// stepLayout is where the arrays of a step lie, relative to the start.
type stepLayout struct {
	kv     int   // uint64 (tokens): the device address of the sequence's cache
	token  int   // int32 (tokens)
	pos    int   // int32 (tokens): position in the sequence
	cap    int   // int32 (tokens): capacity of the sequence
	wanted int   // int32 (rows): tokens whose logits are asked for
	tiles  int   // int32 (tiles, 2): first token and number of tokens
	wrong  []int // int32 (tokens) for each misplaced operation
	size   int
}

func (e *executor) layout(s stepSize) stepLayout {
	var l stepLayout
	array := func(bytes int) int {
		at := l.size
		l.size = roundUp(l.size+bytes, 16)
		return at
	}
	l.kv = array(8 * s.tokens)
	l.token, l.pos, l.cap = array(4*s.tokens), array(4*s.tokens), array(4*s.tokens)
	l.wanted, l.tiles = array(4*s.rows), array(8*s.tiles)
	for range e.wrong {
		l.wrong = append(l.wrong, array(4*s.tokens))
	}
	return l
}

// bytes is the size for the largest step.
func (d *stepData) bytes(e *executor) int64 {
	n := e.opts.MaxBatch
	return int64(e.layout(stepSize{n, n, n}).size)
}

func (d *stepData) alloc(e *executor) error {
	var err error
	if d.host, err = e.c.HostAlloc(int(d.bytes(e))); err != nil {
		return fmt.Errorf("step data: %w", err)
	}
	d.device, err = e.alloc(d.bytes(e))
	return err
}

// write fills the host's side for a batch and returns the number of bytes.
func (d *stepData) write(e *executor, batch []backend.Span, s stepSize) (int, error) {
	l := e.layout(s)
	put := func(at, i int, v int) { binary.LittleEndian.PutUint32(d.host[at+4*i:], uint32(int32(v))) }
	t, row, tile := 0, 0, 0
	for _, span := range batch {
		seq, ok := span.Seq.(*kvSequence)
		if !ok || seq.e != e || seq.data == 0 {
			return 0, fmt.Errorf("sequence of type %T is closed or not this executor's", span.Seq)
		}
		n := len(span.Tokens)
		for i := 0; i < n; i += tileTokens {
			put(l.tiles, 2*tile, t+i)
			put(l.tiles, 2*tile+1, min(tileTokens, n-i))
			tile++
		}
		for i, token := range span.Tokens {
			if span.Want == backend.All || span.Want == backend.Last && i == n-1 {
				put(l.wanted, row, t)
				row++
			}
			binary.LittleEndian.PutUint64(d.host[l.kv+8*t:], uint64(seq.data))
			put(l.token, t, int(token))
			put(l.pos, t, seq.length+i)
			put(l.cap, t, seq.capacity)
			for j, m := range e.wrong {
				put(l.wrong[j], t, m.Position(seq.length+i, i, s.tokens))
			}
			t++
		}
	}
	return l.size, nil
}
