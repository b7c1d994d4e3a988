package kernel

// Pause tells the processor that the caller spins on a memory location, so that
// it yields resources to a sibling thread and leaves the loop without a
// penalty. It takes some tens of cycles and does not yield to the scheduler.
func Pause() { pause() }

// PeakF32Flops keeps the widest float32 multiply-add units busy for the given
// number of iterations and returns the floating-point operations done (a
// multiply-add counts two). Timed by the caller it gives the arithmetic limit
// of one core.
func PeakF32Flops(iterations int) int { return slotPeak.active(iterations) }

var slotPeak = newSlot("f32/peak", peakGeneric)

// peakSink keeps the compiler from dropping the work.
var peakSink float32

func peakGeneric(iterations int) int {
	s := [8]float32{1, 2, 3, 4, 5, 6, 7, 8}
	for range iterations {
		for i := range s {
			s[i] = s[i]*0.999 + 0.001
		}
	}
	peakSink = s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7]
	return iterations * len(s) * 2
}
