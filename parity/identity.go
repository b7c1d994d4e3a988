package parity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/apr-engine/apr/graph"
)

// ProgramHash identifies a program: its operations with all their numbers.
func ProgramHash(p *graph.Program) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d %d %d\n%v\n%v\n", p.Arch, p.Vocab, p.Hidden, p.Context, p.Values, p.Caches)
	var bits []byte
	for _, op := range p.Ops {
		if r, ok := op.(*graph.Rope); ok {
			// Thousands of frequencies in decimal would take a millisecond.
			bits = bits[:0]
			for _, f := range r.InvFreq {
				bits = binary.LittleEndian.AppendUint64(bits, math.Float64bits(f))
			}
			h.Write(bits)
			plain := *r
			plain.InvFreq = nil
			op = &plain
		}
		fmt.Fprintf(h, "%T %+v\n", op, op)
	}
	return shortSum(h)
}

func shortSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)[:16]) }

// BuildID identifies the running executable: the build ID that the Go linker
// wrote, which changes with any code in it. Without one it is the file's size
// and time; empty if even those cannot be had, which matches no certificate.
var BuildID = sync.OnceValue(func() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 64<<10) // the linker puts it at the start of the text
	n, _ := io.ReadFull(f, head)
	if id, ok := goBuildID(head[:n]); ok {
		sum := sha256.Sum256(id)
		return hex.EncodeToString(sum[:16])
	}
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s-%d-%d", filepath.Base(path), info.Size(), info.ModTime().UnixNano())
})

// goBuildID finds the linker's mark in the beginning of an executable: a note of
// type 4 by "Go" in ELF files, a text before the code in others.
func goBuildID(head []byte) ([]byte, bool) {
	const least = 20 // shorter ones are not the linker's
	note := []byte("\x04\x00\x00\x00Go\x00\x00")
	if i := bytes.Index(head, note); i >= 4 {
		size := int(binary.LittleEndian.Uint32(head[i-4:]))
		if rest := head[i+len(note):]; size > least && size <= len(rest) {
			return rest[:size], true
		}
	}
	_, rest, ok := bytes.Cut(head, []byte("Go build ID: \""))
	if !ok {
		return nil, false
	}
	id, _, ok := bytes.Cut(rest, []byte("\""))
	return id, ok && len(id) > least
}
