package apr

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/spf13/cobra"
)

// deviceList is the JSON object of apr devices.
type deviceList struct {
	Devices     []engine.Device `json:"devices"`
	Unavailable []engine.Absent `json:"unavailable"`
}

func newDevices() *cobra.Command {
	var noGPU, asJSON bool
	cmd := &cobra.Command{
		Use:     "devices [flags]",
		GroupID: groupMeasure,
		Short:   "List what models can run on, with the last verdict on each",
		Long: `List the processor, the CUDA GPUs and the adapters of wgpu: name, compute
capability or graphics interface, memory, driver, and the last verdict of the
parity gate on each, whatever the model. A backend that finds nothing says why.

The id is what --device takes, beside a number or a part of the name. A device
that a CPU plays (lavapipe, SwiftShader) is marked as software; it is used only if
--device names it. With --json, the limits that may restrict models are listed too.

A driver that this build has not seen before is tried in another process first,
so that one that crashes does not end the command. With --no-gpu no library of a
GPU is opened.`,
		Example: `  apr devices
  apr devices --json
  apr devices --no-gpu`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o := engine.Options{NoGPU: noGPU, Gate: engine.GateOptions{Store: certificates(cmd), Child: trialCommand()}}
			devices, absent, err := engine.Devices(cmd.Context(), o)
			if err != nil {
				return err
			}
			for i := range devices {
				if devices[i].Backend == "cpu" {
					describeCPU(&devices[i])
				}
			}
			out := stdout(cmd)
			if asJSON {
				if absent == nil {
					absent = []engine.Absent{}
				}
				return out.json(deviceList{devices, absent})
			}
			return printDevices(out, devices, absent)
		},
	}
	cmd.Flags().BoolVar(&noGPU, "no-gpu", false, "do not look for a GPU")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func printDevices(out *output, devices []engine.Device, absent []engine.Absent) error {
	rows := [][]string{{"ID", "NAME", "KIND", "MEMORY", "DRIVER", "LAST VERDICT"}}
	for _, d := range devices {
		kind := strings.Join(strings.Fields(d.API+" "+d.Capability+" "+d.Type), " ")
		if d.Software {
			kind += " (software)"
		}
		size := "-"
		if d.Memory > 0 {
			size = byteSize(d.Memory)
		}
		verdict := "none"
		if v := d.Verdict; v != nil {
			file := v.File
			if v.Part != "" {
				file += " (" + v.Part + ")"
			}
			verdict = fmt.Sprintf("%s on %s, %s", v.Status, file, v.Created.Format("2006-01-02"))
		}
		rows = append(rows, []string{d.ID, d.Name, cmp.Or(kind, "-"), size, cmp.Or(d.Driver, "-"), verdict})
	}
	if err := out.table(rows); err != nil {
		return err
	}
	for _, a := range absent {
		fmt.Fprintln(out, a.Line())
	}
	return out.err
}

// describeCPU says what the operating system knows about the processor.
func describeCPU(d *engine.Device) {
	d.Type, d.Memory = fmt.Sprintf("%s, %s", cpufeat.Best(), plural(runtime.NumCPU(), "thread")), int64(memory())
	if name := cpuName(); name != "" {
		d.Name = name
	}
}

// cpuName is the processor's name, empty where it is not known.
func cpuName() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if key, value, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// selfTestName is the hidden command that a trial of a driver runs.
const selfTestName = "internal-selftest"

// trialCommand runs this program's selfTestName; nil in a process that is a
// trial itself.
func trialCommand() []string {
	if os.Getenv(engine.EnvTrial) != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil // then drivers are not tried, as on systems without processes
	}
	return []string{self, selfTestName}
}

// newSelfTest is the child's side of a trial: it may die.
func newSelfTest() *cobra.Command {
	return &cobra.Command{
		Use: selfTestName + " BACKEND DEVICE", Short: "Try a driver; for apr itself", Hidden: true,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return engine.SelfTest(cmd.OutOrStdout(), args[0], args[1])
		},
	}
}
