package parity

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// fileStamp says when a remembered hash still holds.
type fileStamp struct {
	Path  string `json:"path"`
	Size  int64  `json:"size"`
	MTime int64  `json:"mtime_ns"`
	Inode uint64 `json:"inode"`
}

type fileHash struct {
	fileStamp
	Piece int64  `json:"piece"` // hashPiece
	Sum   string `json:"sum"`
}

const (
	hashSuffix = ".hash.json"
	// hashPiece is the length of the pieces of a file that are hashed by themselves.
	hashPiece = 16 << 20
	// settle is how old a file must be before its hash is remembered: within the
	// resolution of file times it could change again unnoticed.
	settle = 2 * time.Second
)

// FileHash identifies the content of a model's files, in order. It is remembered by
// path, size, modification time and inode, because reading gigabytes takes
// seconds. The time it took to hash is 0 when it was remembered.
func (s *Store) FileHash(paths []string) (sum string, took time.Duration, err error) {
	h := sha256.New()
	for _, path := range paths {
		one, t, err := s.fileHash(path)
		if err != nil {
			return "", 0, err
		}
		took += t
		fmt.Fprintln(h, one)
	}
	return shortSum(h), took, nil
}

func (s *Store) fileHash(path string) (string, time.Duration, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", 0, err
	}
	f, err := os.Open(abs)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", 0, err
	}
	stamp := fileStamp{abs, info.Size(), info.ModTime().UnixNano(), inode(info)}
	nameSum := sha256.Sum256([]byte(abs))
	name := hex.EncodeToString(nameSum[:16]) + hashSuffix
	if s != nil && s.Dir != "" {
		var known fileHash
		data, err := os.ReadFile(filepath.Join(s.Dir, name))
		if err == nil && json.Unmarshal(data, &known) == nil && known.fileStamp == stamp && known.Piece == hashPiece && len(known.Sum) == 2*sha256.Size {
			return known.Sum, 0, nil
		}
	}
	start := time.Now()
	sum, err := contentHash(f, info.Size(), max(runtime.NumCPU()/4, 1))
	if err != nil {
		return "", 0, fmt.Errorf("hash of %s: %w", path, err)
	}
	after, err := f.Stat()
	unchanged := err == nil && after.Size() == info.Size() && after.ModTime().Equal(info.ModTime())
	if s != nil && s.Dir != "" && unchanged && time.Since(info.ModTime()) > settle {
		if data, err := json.Marshal(fileHash{stamp, hashPiece, sum}); err == nil {
			if err := writeAtomic(s.Dir, name, data); err != nil {
				s.warn("hash of %s is not kept: %v", path, err)
			}
		}
	}
	return sum, time.Since(start), nil
}

// contentHash is the SHA-256 of the SHA-256 sums of the pieces of a file. Several
// pieces are hashed at the same time, because a first start waits for the whole: with
// one processor 7B take longer than everything else that its GPU has to wait for.
func contentHash(f io.ReaderAt, size int64, workers int) (string, error) {
	pieces := int((size + hashPiece - 1) / hashPiece)
	sums := make([][sha256.Size]byte, pieces)
	errs := make([]error, min(workers, pieces))
	var next atomic.Int64
	var wait sync.WaitGroup
	for w := range errs {
		wait.Go(func() {
			h, buffer := sha256.New(), make([]byte, 1<<20)
			for {
				i := next.Add(1) - 1
				if i >= int64(pieces) {
					return
				}
				h.Reset()
				want := min(hashPiece, size-i*hashPiece)
				n, err := io.CopyBuffer(struct{ io.Writer }{h}, io.NewSectionReader(f, i*hashPiece, want), buffer)
				if err == nil && n < want {
					err = io.ErrUnexpectedEOF
				}
				if err != nil {
					errs[w] = err
					return
				}
				h.Sum(sums[i][:0])
			}
		})
	}
	wait.Wait()
	if err := errors.Join(errs...); err != nil {
		return "", err
	}
	h := sha256.New()
	for _, sum := range sums {
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
