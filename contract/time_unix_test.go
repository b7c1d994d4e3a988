//go:build unix

package contract

import (
	"syscall"
	"testing"
	"time"
)

// TestValidate2000: 2,000 contracts of real size take less than 2 s on two
// processors. What is measured is the time of both together, which does not depend
// on what else the machine does; the reading and the judging are spread over them.
func TestValidate2000(t *testing.T) {
	if testing.Short() {
		t.Skip("the race detector takes many times as long")
	}
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	dir := twoThousand(t)
	before := used()
	validateAll(t, dir)
	spent := used() - before
	t.Logf("%v of processor time", spent.Round(time.Millisecond))
	if spent > 4*time.Second {
		t.Errorf("%v of processor time, want at most 2 s on each of two", spent)
	}
}
