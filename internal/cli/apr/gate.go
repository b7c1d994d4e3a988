package apr

import (
	"fmt"
	"os"
	"sync"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
	"github.com/spf13/cobra"
)

// Environment variables of the parity gate.
const (
	envSkip  = "SKIP_PARITY_GATE"
	envFault = "APR_FAULT"
)

// skipGate reports whether the user has turned the gate off for the process.
func skipGate() bool { return os.Getenv(envSkip) == "1" }

// gateOptions says how backends are judged, from flags and environment.
func (b *backendFlags) gateOptions(cmd *cobra.Command) (engine.GateOptions, error) {
	o := engine.GateOptions{
		Verify: engine.Verify(b.verify), Renew: b.renew, Store: certificates(cmd), Child: trialCommand(),
		Notify: func(d engine.Decision) {
			if why := d.Unavailable(); why != "" && verbose(cmd) {
				fmt.Fprintln(cmd.ErrOrStderr(), why)
			}
			if d.Line != "" && (b.announce || !d.Accepted || d.Status == parity.NotMeasured) {
				fmt.Fprintln(cmd.ErrOrStderr(), d.Line)
			}
		},
	}
	if skipGate() {
		o.Override = envSkip + "=1"
	}
	err := injectFaults(cmd, &o)
	return o, err
}

func verbose(cmd *cobra.Command) bool {
	on, err := cmd.Flags().GetBool("verbose")
	return err == nil && on
}

// injectFaults makes the backends wrong that APR_FAULT names.
func injectFaults(cmd *cobra.Command, o *engine.GateOptions) error {
	spec := os.Getenv(envFault)
	faults, err := fault.Parse(spec)
	if err != nil {
		return usageError(cmd, "%w", err)
	}
	if len(faults) == 0 {
		return nil
	}
	o.FaultSpec = spec
	o.Fault = func(name string, d backend.Device) backend.Device { return fault.Wrap(d, faults[name]...) }
	return nil
}

// certificates opens the store of verdicts; nil where there is no place for it.
func certificates(cmd *cobra.Command) *parity.Store {
	log := logger(cmd)
	dir, err := parity.DefaultDir()
	if err != nil {
		log.Info("certificates are not kept", "error", err)
		return nil
	}
	var once sync.Map // each problem is told once
	return &parity.Store{Dir: dir, Warn: func(problem string) {
		if _, told := once.LoadOrStore(problem, true); !told {
			log.Info("certificates", "problem", problem)
		}
	}}
}
