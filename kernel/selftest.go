package kernel

import (
	"fmt"

	"github.com/apr-engine/apr/internal/cpufeat"
)

// Failure is one kernel whose active variant disagreed with its plain Go
// version when SelfTest ran it. The kernel has been switched to plain Go.
type Failure struct {
	Kernel string
	Level  cpufeat.Level // of the variant that was wrong
	Err    error
}

func (f Failure) Error() string {
	return fmt.Sprintf("kernel %s (%s) disagrees with plain Go: %v", f.Kernel, f.Level, f.Err)
}

func (f Failure) Unwrap() error { return f.Err }

// selfTests holds the check of each kernel that has one, by slot name, in
// order of registration.
var selfTests []selfTest

type selfTest struct {
	kernel string
	check  func() error
}

// registerSelfTest sets the power-on check of the slot with the given name.
// The check runs the slot's active variant and its plain Go version on a few
// small inputs and says how they differ. It must take well under 0.1 ms with
// the fastest variant, must not depend on time or on random seeds that change,
// and must treat NaN where none is expected as a difference.
func registerSelfTest(name string, check func() error) {
	selfTests = append(selfTests, selfTest{name, check})
}

// SelfTest runs every kernel's active variant against its plain Go version on
// small random and adversarial inputs (under 5 ms in all). A kernel that fails
// is quarantined: it runs in plain Go for the rest of the process. The failures
// are for the caller to report. Kernels that run in plain Go already are not
// run. SelfTest must not run beside kernels in use.
func SelfTest() []Failure {
	var failures []Failure
	for _, t := range selfTests {
		s := slotNamed(t.kernel)
		if s == nil {
			failures = append(failures, Failure{Kernel: t.kernel, Err: fmt.Errorf("there is a self-test but no kernel of this name")})
			continue
		}
		level := s.Active()
		if level == cpufeat.Generic {
			continue
		}
		if err := t.check(); err != nil {
			s.bar()
			failures = append(failures, Failure{t.kernel, level, err})
		}
	}
	return failures
}

// Quarantine switches the kernel of the given name to plain Go for the rest of
// the process and reports whether there is such a kernel.
func Quarantine(name string) bool {
	s := slotNamed(name)
	if s == nil {
		return false
	}
	s.bar()
	return true
}

func slotNamed(name string) switchable {
	for _, s := range slots {
		if s.Name() == name {
			return s
		}
	}
	return nil
}
