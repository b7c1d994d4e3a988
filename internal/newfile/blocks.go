package newfile

import "io"

// blockLen is a large page. Linux keeps what is written in pieces as long as the write that
// brought them, and maps as one large page only what came whole: a model that is written
// in pieces of 1 MiB is read through pages of 4 KiB as long as it stays in memory, and
// decoding reaches a smaller share of the bandwidth.
const blockLen = 2 << 20

// Blocks passes on what is written in whole blocks of 2 MiB, and the rest when flushed.
type Blocks struct {
	to  io.Writer
	buf []byte // less than a block
}

// NewBlocks returns a writer for the beginning of a file.
func NewBlocks(to io.Writer) *Blocks { return &Blocks{to: to, buf: make([]byte, 0, blockLen)} }

// Write appends bytes. After an error nothing more should be written.
func (b *Blocks) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if whole := len(p) &^ (blockLen - 1); len(b.buf) == 0 && whole > 0 {
			k, err := b.to.Write(p[:whole])
			if n += k; err != nil {
				return n, err
			}
			p = p[whole:]
			continue
		}
		k := min(len(p), blockLen-len(b.buf))
		b.buf = append(b.buf, p[:k]...)
		n, p = n+k, p[k:]
		if len(b.buf) == blockLen {
			if err := b.Flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// Flush passes on what is left. It ends the file: what followed would not lie in blocks.
func (b *Blocks) Flush() error {
	if len(b.buf) == 0 {
		return nil
	}
	_, err := b.to.Write(b.buf)
	b.buf = b.buf[:0]
	return err
}
