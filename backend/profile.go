package backend

import "time"

// Profiler is implemented by executors that can time their operations.
type Profiler interface {
	// SetProfile begins to time steps, forgetting what was timed before, or ends it.
	SetProfile(on bool)
	// Profile is what was timed, in the order of the program.
	Profile() []OperationTime
}

// OperationTime is what all operations of one name took together: those that run
// the same kernel for the same purpose in every layer.
type OperationTime struct {
	Name  string
	Calls int
	// Time is the part of the steps' duration that went to the operation: the mean
	// of the workers' times.
	Time time.Duration
	// Bytes of weights, keys and values that must be read from memory, and
	// Operations of products, where a multiply-add is two. Both are 0 for operations
	// that do little beside passing on the activations.
	Bytes, Operations float64
	// Integer says that Operations are of 16-bit integers, not of float32.
	Integer bool
}
