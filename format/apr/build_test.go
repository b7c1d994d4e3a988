package apr

import (
	"encoding/binary"
	"hash/crc32"
)

// raw builds files byte by byte from the description of the format, in the ways
// of its writers and in ways of none.
type raw struct {
	magic        string
	major        byte
	flags        uint16
	metadata     string
	entries      []rawEntry
	noChecksum   bool // header checksum 0
	padIndex     bool
	footer       bool
	count        *uint32 // instead of the number of entries
	data         []byte
	indexAt      *uint64 // instead of the true place
	dataAt       *uint64
	metadataSize *uint32
}

type rawEntry struct {
	name         string
	code         byte
	dims         []uint64
	offset, size uint64
}

// core is a file as the format's first writer makes it.
func core() *raw {
	return &raw{magic: Magic, major: 2, flags: 0x0400, metadata: "{}", padIndex: true, footer: true}
}

// realizar is a file as the other writer makes it.
func realizar() *raw {
	return &raw{magic: Magic, major: 2, metadata: "{}", noChecksum: true}
}

// add appends a tensor whose bytes are at the next multiple of 64.
func (r *raw) add(name string, code byte, data []byte, dims ...uint64) *raw {
	r.data = append(r.data, make([]byte, -len(r.data)&63)...)
	r.entries = append(r.entries, rawEntry{name, code, dims, uint64(len(r.data)), uint64(len(data))})
	r.data = append(r.data, data...)
	return r
}

func (r *raw) bytes() []byte {
	le := binary.LittleEndian
	b := make([]byte, headerLen)
	b = append(b, r.metadata...)
	b = append(b, make([]byte, -len(b)&63)...)
	indexAt := uint64(len(b))
	for _, e := range r.entries {
		b = le.AppendUint16(b, uint16(len(e.name)))
		b = append(b, e.name...)
		b = append(b, e.code, byte(len(e.dims)))
		for _, d := range e.dims {
			b = le.AppendUint64(b, d)
		}
		b = le.AppendUint64(b, e.offset)
		b = le.AppendUint64(b, e.size)
	}
	if r.padIndex {
		b = append(b, make([]byte, -len(b)&63)...)
	}
	dataAt := uint64(len(b))
	b = append(b, r.data...)
	if r.padIndex {
		b = append(b, make([]byte, -len(b)&63)...)
	}
	if r.indexAt != nil {
		indexAt = *r.indexAt
	}
	if r.dataAt != nil {
		dataAt = *r.dataAt
	}
	count := uint32(len(r.entries))
	if r.count != nil {
		count = *r.count
	}
	size := uint32(len(r.metadata))
	if r.metadataSize != nil {
		size = *r.metadataSize
	}
	copy(b, r.magic)
	b[4] = r.major
	le.PutUint16(b[6:], r.flags)
	le.PutUint32(b[8:], count)
	le.PutUint64(b[12:], 64)
	le.PutUint32(b[20:], size)
	le.PutUint64(b[24:], indexAt)
	le.PutUint64(b[32:], dataAt)
	if !r.noChecksum {
		sum := crc32.NewIEEE()
		sum.Write(b[:40])
		sum.Write(b[44:64])
		le.PutUint32(b[40:], sum.Sum32())
	}
	if r.footer {
		b = le.AppendUint32(b, crc32.ChecksumIEEE(b))
	}
	return b
}
