package bench

import (
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
)

// Profile is where the time of one run of a test went.
type Profile struct {
	Total      time.Duration
	Operations []Operation
}

// Operation is what the operations of one name took in a profile.
type Operation struct {
	backend.OperationTime
	// Share of the profile's total time.
	Share float64
	// Limit is the least time in which the machine could do it, 0 if the operation
	// only passes on activations, and Bound what sets it: "bandwidth" or "arithmetic".
	Limit time.Duration
	Bound string
}

// OfLimit is the limit as a share of the time, 0 if there is no limit.
func (o Operation) OfLimit() float64 {
	if o.Time <= 0 {
		return 0
	}
	return o.Limit.Seconds() / o.Time.Seconds()
}

// profile times the operations of one run of a test.
func (r *Row) profile(e *engine.Engine, run func() (time.Duration, error)) error {
	if err := e.SetProfile(true); err != nil {
		return err
	}
	took, err := run()
	if err != nil {
		return err
	}
	r.Profile.Total = took
	rest := took
	for _, t := range e.Profile() {
		if t.Calls == 0 {
			continue
		}
		rest -= t.Time
		r.Profile.Operations = append(r.Profile.Operations, r.operation(t))
	}
	r.Profile.Operations = append(r.Profile.Operations, r.operation(backend.OperationTime{Name: "between steps", Calls: 1, Time: rest}))
	return e.SetProfile(false)
}

// operation sets the limit of an operation: the longer of the times for its bytes
// and for its arithmetic. What lies in a cache can be faster than memory.
func (r *Row) operation(t backend.OperationTime) Operation {
	o := Operation{OperationTime: t, Share: t.Time.Seconds() / r.Profile.Total.Seconds()}
	take := func(amount, rate float64, bound string) {
		if rate <= 0 {
			return
		}
		if d := time.Duration(amount / rate * 1e9); d > o.Limit {
			o.Limit, o.Bound = d, bound
		}
	}
	take(t.Bytes, r.Machine.Reads(), "bandwidth")
	switch {
	case r.Machine.Device.Arithmetic > 0:
		take(t.Operations, r.Machine.Device.Arithmetic, "arithmetic")
	case t.Integer:
		take(t.Operations, r.Machine.I16, "arithmetic")
	default:
		take(t.Operations, r.Machine.F32, "arithmetic")
	}
	return o
}
