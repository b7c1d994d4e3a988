package cpu

import "sync/atomic"

const (
	// rowAlign is the multiple of rows in which matrices are shared out for many
	// tokens: the largest tile of the kernels. For few tokens it is the most.
	rowAlign = 32
	// bandUnits is how many of them the kernels for many tokens multiply together, so that
	// activations are read once for all.
	bandUnits = 4
	// leastRows is the least for few tokens: the largest tile of the kernels for those.
	leastRows = 4
	// pieceBytes is how large the last pieces for few tokens may be if they are more
	// than leastRows: the other workers wait for them.
	pieceBytes = 16 << 10
	// lastUnits is how many of them a worker takes at once if no more of its own are left.
	lastUnits = 4
)

// shares hands out the rows of a matrix. Each worker begins with a part of its
// own and goes through it in the order of memory, in pieces that get smaller, so
// that what a kernel has fetched ahead at the end of a piece is the next one; who
// is done takes from the end of another's part, because cores are not always
// equally fast.
type shares []share

// share is what is left of one worker's part, in units of some rows: the first in
// the upper half and the one after the last in the lower. It has a cache line
// of its own.
type share struct {
	left atomic.Uint64
	_    [56]byte
}

// reset gives each worker its part of n units again.
func (s shares) reset(n int) {
	for w := range s {
		s[w].left.Store(uint64(n*w/len(s))<<32 | uint64(n*(w+1)/len(s)))
	}
}

// each calls do with ranges of units until none of any worker's is left; together is how
// many units are worth more in one piece.
func (s shares) each(w, together int, do func(from, to int)) {
	if len(s) == 1 {
		// Nobody could take any of it: each piece that a kernel begins anew costs time.
		if left := s[0].left.Swap(0); left>>32 < left&(1<<32-1) {
			do(int(left>>32), int(left&(1<<32-1)))
		}
		return
	}
	for turn := range s {
		part := &s[(w+turn)%len(s)]
		for {
			from, to, ok := part.take(turn == 0, together, 1)
			if !ok {
				break
			}
			do(from, to)
		}
	}
}

// take takes half of what is left, but at least a unit, and all if it is at most last of
// the worker's own: from the front if it is its own, else from the end. Each piece that a
// kernel begins anew costs time; more than half would make the others wait for a core that
// is half as fast. Where units are worth more together it takes a quarter, and multiples of
// them while there is much left.
func (s *share) take(own bool, together, last int) (from, to int, ok bool) {
	for {
		left := s.left.Load()
		from, to = int(left>>32), int(left&(1<<32-1))
		if from >= to {
			return 0, 0, false
		}
		n := max(1, (to-from)/2)
		switch {
		case together > 1:
			n = max(1, (to-from)/4)
			if to-from >= 2*together {
				n = max(together, (n+together/2)/together*together)
			}
		case own && to-from <= last:
			n = to - from
		}
		var rest uint64
		if own {
			rest, to = uint64(from+n)<<32|uint64(to), from+n
		} else {
			rest, from = uint64(from)<<32|uint64(to-n), to-n
		}
		if s.left.CompareAndSwap(left, rest) {
			return from, to, true
		}
	}
}

// empty reports whether nothing is left.
func (s *share) empty() bool {
	left := s.left.Load()
	return left>>32 >= left&(1<<32-1)
}
