package cuda

import (
	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/tensor"
)

// scratch is the device memory that operations use beside the values.
type scratch struct {
	logitRows     int // rows of logits that are computed at once
	vocab         int
	gatheredWidth int
	roundedWidth  int
	halfNumbers   int64 // of x in f16
	maxBatch      int
	weightBytes   int64 // of a matrix in f16
	workBytes     int64
	counterBytes  int64

	gathered   cuda.Ptr // float32 (logitRows, gatheredWidth)
	logits     cuda.Ptr // float32 (logitRows, vocab)
	host       []byte   // pinned, for the logits
	rounded    cuda.Ptr // of fewTokens, see roundedBytes
	half       cuda.Ptr // f16 (maxBatch, width padded)
	halfScales cuda.Ptr // float32 (maxBatch)
	weights    cuda.Ptr // f16 (rows, k padded) of the matrix at hand
	work       cuda.Ptr // workBytes for partial sums
	counters   cuda.Ptr // uint32, zero between launches: see attentionArgs

	constants []constant
}

// constant is a small table in device memory.
type constant struct {
	v []uint64
	p cuda.Ptr
}

// Rows of logits that are computed at once: a prompt's whole logits can be more
// than the model.
const (
	logitBytes   = 64 << 20
	maxLogitRows = 64
)

func (s *scratch) init(e *executor) {
	s.vocab, s.maxBatch = e.program.Vocab, e.opts.MaxBatch
	s.logitRows = min(max(min(logitBytes/(4*s.vocab), maxLogitRows), fewTokens), s.maxBatch)
}

// wantProducts makes room for the products with a tensor, of steps of any size up
// to a limit. The sizes tried are those between which plans change little; where a
// plan needs more all the same, recorder.work finds it.
func (s *scratch) wantProducts(dev cuda.Device, t tensor.Tensor, limit int) {
	s.roundedWidth = max(s.roundedWidth, t.Cols())
	for tokens := 1; ; tokens = min(2*tokens, limit) {
		size := productSize{t.Type, t.Rows(), t.Cols(), tokens}
		k, _ := kernelFor(dev, size)
		s.workBytes = max(s.workBytes, k.workspace(dev, size))
		if k.half {
			s.halfNumbers = max(s.halfNumbers, int64(tokens)*int64(gemmWidth(t.Cols())))
		}
		if k.weights {
			s.weightBytes = max(s.weightBytes, halfBytes(t.Rows(), t.Cols()))
		}
		if tokens == limit {
			return
		}
	}
}

// sizes are the bytes of each piece.
func (s *scratch) pieces() map[*cuda.Ptr]int64 {
	return map[*cuda.Ptr]int64{
		&s.gathered:   int64(s.logitRows) * int64(s.gatheredWidth) * 4,
		&s.logits:     s.logitBytes(),
		&s.rounded:    int64(fewTokens) * int64(roundedBytes(s.roundedWidth)),
		&s.half:       s.halfNumbers * 2,
		&s.halfScales: int64(s.maxBatch) * 4,
		&s.weights:    s.weightBytes,
		&s.work:       s.workBytes,
		&s.counters:   s.counterBytes,
	}
}

func (s *scratch) logitBytes() int64 { return int64(s.logitRows) * int64(s.vocab) * 4 }

// bytes is the device memory that alloc takes.
func (s *scratch) bytes() int64 {
	n := int64(0)
	for _, bytes := range s.pieces() {
		n += granules(bytes)
	}
	return n
}

func (s *scratch) alloc(e *executor) error {
	for p, bytes := range s.pieces() {
		var err error
		if *p, err = e.alloc(bytes); err != nil {
			return err
		}
	}
	if s.counterBytes > 0 {
		if err := cuda.Upload(e.c, s.counters, make([]byte, s.counterBytes)); err != nil {
			return err
		}
	}
	var err error
	s.host, err = e.c.HostAlloc(int(s.logitBytes()))
	return err
}

// work returns scratch memory of at least n bytes. When it grows, what was recorded
// before keeps the old.
func (r *recorder) work(n int64) (cuda.Ptr, error) {
	s := &r.e.scratch
	if n <= s.workBytes || r.e.lib.listed != nil {
		return s.work, nil
	}
	n += n / 2
	p, err := r.e.alloc(n)
	if err != nil {
		return 0, err
	}
	s.work, s.workBytes = p, n
	return p, nil
}
