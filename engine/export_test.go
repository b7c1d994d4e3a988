package engine

import "time"

// SetClock gives the engine another clock.
func (e *Engine) SetClock(now func() time.Time) { e.now = now }
