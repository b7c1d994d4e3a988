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

	gathered cuda.Ptr // float32 (logitRows, gatheredWidth)
	logits   cuda.Ptr // float32 (logitRows, vocab)
	host     []byte   // pinned, for the logits

	constants []constant
}

// constant is a small table in device memory.
type constant struct {
	v []uint64
	p cuda.Ptr
}

// logitBytes limits the memory for logits: a prompt's whole logits can be more than
// the model.
const logitBytes = 64 << 20

func (s *scratch) init(e *executor) {
	s.vocab = e.program.Vocab
	s.logitRows = min(max(logitBytes/(4*s.vocab), fewTokens), e.opts.MaxBatch)
}

// wantProducts makes room for what the product kernels need for a tensor.
func (s *scratch) wantProducts(t tensor.Tensor) {
	for _, p := range productKernels {
		if p.want != nil {
			p.want(s, t.Rows(), t.Cols())
		}
	}
}

func (s *scratch) gatheredBytes() int64 { return int64(s.logitRows) * int64(s.gatheredWidth) * 4 }
func (s *scratch) logitBytes() int64    { return int64(s.logitRows) * int64(s.vocab) * 4 }

// bytes is the device memory that alloc takes.
func (s *scratch) bytes() int64 { return granules(s.gatheredBytes()) + granules(s.logitBytes()) }

func (s *scratch) alloc(e *executor) error {
	var err error
	if s.gathered, err = e.alloc(s.gatheredBytes()); err != nil {
		return err
	}
	if s.logits, err = e.alloc(s.logitBytes()); err != nil {
		return err
	}
	s.host, err = e.c.HostAlloc(int(s.logitBytes()))
	return err
}
