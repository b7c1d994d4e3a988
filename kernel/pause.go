package kernel

import "runtime"

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

func peakGeneric(iterations int) int {
	s := [8]float32{1, 2, 3, 4, 5, 6, 7, 8}
	for range iterations {
		for i := range s {
			s[i] = s[i]*0.999 + 0.001
		}
	}
	runtime.KeepAlive(&s) // or the compiler may drop the work
	return iterations * len(s) * 2
}
