package tokenizer

import "hash/maphash"

// wordCache remembers the tokens of short words. Text repeats its words so much
// that most of them come from here. It belongs to one encoder, so it needs no
// lock; when full it is emptied, which costs less than keeping an order of use.
type wordCache struct {
	seed  maphash.Seed
	slots []wordSlot
	used  int
	keys  []byte
	ids   []int32
}

type wordSlot struct {
	hash   uint64
	key    uint32 // start in keys
	id     uint32 // start in ids
	keyLen uint8  // 0 for an empty slot
	n      uint8  // number of ids
}

const (
	minSlots = 1 << 10
	maxSlots = 1 << 16 // about 1.5 MB of slots and as much of words
)

func newWordCache() wordCache {
	return wordCache{seed: maphash.MakeSeed(), slots: make([]wordSlot, minSlots)}
}

func (c *wordCache) hash(word string) uint64 { return maphash.String(c.seed, word) }

// get returns the tokens of word, whose hash is h. The slice is valid until the
// next put.
func (c *wordCache) get(h uint64, word string) ([]int32, bool) {
	mask := uint64(len(c.slots) - 1)
	for k := h & mask; ; k = (k + 1) & mask {
		s := &c.slots[k]
		if s.keyLen == 0 {
			return nil, false
		}
		if s.hash == h && string(c.keys[s.key:s.key+uint32(s.keyLen)]) == word {
			return c.ids[s.id : s.id+uint32(s.n)], true
		}
	}
}

// put remembers the tokens of a word that get did not find.
func (c *wordCache) put(h uint64, word string, ids []int32) {
	if len(word) == 0 || len(word) > 255 || len(ids) > 255 {
		return
	}
	if c.used*2 >= len(c.slots) {
		c.makeRoom()
	}
	s := wordSlot{h, uint32(len(c.keys)), uint32(len(c.ids)), uint8(len(word)), uint8(len(ids))}
	c.keys = append(c.keys, word...)
	c.ids = append(c.ids, ids...)
	c.insert(s)
	c.used++
}

func (c *wordCache) insert(s wordSlot) {
	mask := uint64(len(c.slots) - 1)
	k := s.hash & mask
	for c.slots[k].keyLen != 0 {
		k = (k + 1) & mask
	}
	c.slots[k] = s
}

// makeRoom quadruples the table, or empties it at its full size.
func (c *wordCache) makeRoom() {
	if len(c.slots) >= maxSlots {
		clear(c.slots)
		c.used, c.keys, c.ids = 0, c.keys[:0], c.ids[:0]
		return
	}
	old := c.slots
	c.slots = make([]wordSlot, 4*len(old))
	for _, s := range old {
		if s.keyLen != 0 {
			c.insert(s)
		}
	}
}
