package tokenizer

import (
	"hash/maphash"
	"math/bits"
	"math/rand/v2"
)

// textTable finds a token's id by its text. Open addressing over a slice keeps
// building it for 150,000 tokens to a few milliseconds; the seeded hash keeps a
// crafted vocabulary from making it slow.
type textTable struct {
	seed  maphash.Seed
	slots []textSlot
	texts []string
}

type textSlot struct {
	tag uint32 // high bits of the hash
	id  int32  // id+1, 0 for an empty slot
}

// newTextTable indexes texts. Of equal texts the last one is found, as in
// llama.cpp.
func newTextTable(texts []string) *textTable {
	t := &textTable{
		seed:  maphash.MakeSeed(),
		slots: make([]textSlot, tableSize(len(texts))),
		texts: texts,
	}
	mask := uint64(len(t.slots) - 1)
	for id, s := range texts {
		h := maphash.String(t.seed, s)
		tag := uint32(h >> 32)
		for k := h & mask; ; k = (k + 1) & mask {
			slot := &t.slots[k]
			if slot.id == 0 || slot.tag == tag && texts[slot.id-1] == s {
				*slot = textSlot{tag, int32(id) + 1}
				break
			}
		}
	}
	return t
}

// find returns the id of the token with this text.
func (t *textTable) find(s string) (int32, bool) {
	h := maphash.String(t.seed, s)
	mask := uint64(len(t.slots) - 1)
	tag := uint32(h >> 32)
	for k := h & mask; ; k = (k + 1) & mask {
		slot := t.slots[k]
		if slot.id == 0 {
			return None, false
		}
		if slot.tag == tag && t.texts[slot.id-1] == s {
			return slot.id - 1, true
		}
	}
}

// findBytes is find without making a string.
func (t *textTable) findBytes(s []byte) (int32, bool) {
	h := maphash.Bytes(t.seed, s)
	mask := uint64(len(t.slots) - 1)
	tag := uint32(h >> 32)
	for k := h & mask; ; k = (k + 1) & mask {
		slot := t.slots[k]
		if slot.id == 0 {
			return None, false
		}
		if slot.tag == tag && t.texts[slot.id-1] == string(s) {
			return slot.id - 1, true
		}
	}
}

// pairTable finds the merge of two adjacent tokens.
type pairTable struct {
	mult  uint64 // random odd multiplier of the hash
	shift uint
	slots []pairSlot
	used  int
}

type pairSlot struct {
	key uint64 // pairKey, 0 for an empty slot
	val merge
}

// merge is rank<<32 | id of the merged token: the smaller value merges first.
type merge uint64

const noMerge = ^merge(0)

func (m merge) id() int32 { return int32(uint32(m)) }

// pairKey is never 0.
func pairKey(l, r int32) uint64 { return uint64(uint32(l)+1)<<32 | uint64(uint32(r)) }

func newPairTable(n int) *pairTable {
	t := &pairTable{mult: rand.Uint64() | 1}
	t.resize(tableSize(n))
	return t
}

// resize makes room for size entries, a power of two.
func (t *pairTable) resize(size int) {
	old := t.slots
	t.shift = uint(64 - bits.TrailingZeros(uint(size)))
	t.slots = make([]pairSlot, size)
	t.used = 0
	for _, s := range old {
		if s.key != 0 {
			t.insert(s.key, s.val)
		}
	}
}

// add records a merge unless the pair has one already: the first rank counts.
func (t *pairTable) add(l, r int32, m merge) {
	if t.used*8 >= len(t.slots)*5 {
		t.resize(2 * len(t.slots))
	}
	t.insert(pairKey(l, r), m)
}

func (t *pairTable) insert(key uint64, m merge) {
	mask := uint64(len(t.slots) - 1)
	for k := key * t.mult >> t.shift; ; k = (k + 1) & mask {
		switch slot := &t.slots[k&mask]; slot.key {
		case 0:
			*slot = pairSlot{key, m}
			t.used++
			return
		case key:
			return
		}
	}
}

// find returns the merge of l and r, noMerge if there is none.
func (t *pairTable) find(l, r int32) merge {
	key := pairKey(l, r)
	mask := uint64(len(t.slots) - 1)
	for k := key * t.mult >> t.shift; ; k = (k + 1) & mask {
		switch slot := &t.slots[k&mask]; slot.key {
		case key:
			return slot.val
		case 0:
			return noMerge
		}
	}
}

// tableSize is the power of two that holds n entries at a load of at most 5/8.
func tableSize(n int) int {
	size := 16
	for size*5/8 < n {
		size *= 2
	}
	return size
}
